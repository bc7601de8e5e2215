# SPDX-License-Identifier: Apache-2.0
"""From measured cells to a score: regions, classes, guideline. No pixels, no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError
from her2fast.kernels.cells import (
    CELL_CUTS,
    CELL_RAYS,
    CellClasses,
    classify_cells,
)
from her2fast.methods.cell_tiles import CellTiles
from her2fast.methods.membrane import (
    CELL_UM2,
    CONNECTED_UM,
    CellMeasurement,
    unreadable,
)
from her2fast.record import DECIMALS, Roi

CLASS_NAMES = ("0", "1+", "2+", "3+")
#: Fewer cells give no score: one cell must not be worth more than a percent.
MIN_CELLS = 100
#: Of the areas' review flags those that say nothing of their classes' shares.
SEEN_FLAGS = ("CONTROL_SUSPECTED", "OUT_OF_FOCUS", "OUT_OF_DOMAIN")
UNIT = "tumor cells with a nucleus"


@dataclass(frozen=True)
class CellDecision:
    """What the cells within the regions say."""

    chosen: npt.NDArray[np.bool_]  # of the measurement's cells: in the region, sure
    classes: CellClasses  # of those chosen
    guideline: dict[str, Any] | None
    error: SlideError | None  # why there is no score: tiles or cells are missing
    record: dict[str, Any]  # the result's `cells`


def in_regions(
    x_px: npt.NDArray[np.float64], y_px: npt.NDArray[np.float64], roi: Roi
) -> npt.NDArray[np.bool_]:
    """Whether points lie in a region that counts and in none that is excluded.

    Without a region that counts, all do. Level-0 pixels.
    """
    import shapely

    def within(rings: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.bool_]:
        polygon = shapely.Polygon(rings[0], rings[1:])
        shapely.prepare(polygon)
        return np.asarray(shapely.contains_xy(polygon, x_px, y_px), np.bool_)

    drawn = [rings for exclude, rings in roi if not exclude]
    inside = np.full(len(x_px), not drawn)
    for rings in drawn:
        inside |= within(rings)
    for exclude, rings in roi:
        if exclude:
            inside &= ~within(rings)
    return inside


def level0_px(
    measured: CellMeasurement, slide_spacing_um: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Middles of the seeds in level-0 pixels."""
    grid = measured.grid_um
    x_px = (measured.cells.x.astype(np.float64) + 0.5) * (grid / slide_spacing_um[0])
    y_px = (measured.cells.y.astype(np.float64) + 0.5) * (grid / slide_spacing_um[1])
    return x_px, y_px


def decide_cells(
    measured: CellMeasurement,
    *,
    slide_spacing_um: tuple[float, float],
    roi: Roi = (),
    rule_set: str | None = "asco-cap-2018",
    floor_percent: int = 1,
    ish: str | None = None,
) -> CellDecision:
    """Count cells by class within the regions and ask the guideline.

    Parameters
    ----------
    measured : CellMeasurement
        From `methods.membrane` or a stored file.
    slide_spacing_um : (float, float)
        Of level 0.
    roi : sequence of (exclude, rings)
        In level-0 px.
    rule_set : str or None
        None: counts without a score.

    Returns
    -------
    CellDecision
        Its `guideline` is None where more than one tile of a hundred could not be read
        or there are fewer than `MIN_CELLS` cells.
    """
    in_roi = in_regions(*level0_px(measured, slide_spacing_um), roi)
    unsure = in_roi & _near_unreadable(measured)
    chosen = in_roi & ~unsure
    tiles = _tile_record(measured.tiles, roi, slide_spacing_um)
    cells = measured.cells.take(chosen)
    classes = classify_cells(cells, grid_um=measured.grid_um, step=measured.step)
    counts = classes.counts()
    unusual = int(classes.unusual.sum())
    error = unreadable(tiles, float(_core.LIMITS["max_bad_tiles_percent"]))
    if error is None and len(cells) < MIN_CELLS:
        error = SlideError(
            f"{len(cells)} tumor cells with a nucleus are fewer than the {MIN_CELLS} "
            "that a score needs",
            "TOO_LITTLE_TUMOR",
        )
    guideline = None
    if rule_set is not None and error is None:
        # A cell is what a patch is to areas: one or two that are wrong move no slide.
        guideline = dict(
            _core.decide_guideline(
                counts, rule_set, floor_percent, counts, ish, unusual=unusual
            )
        )
    total = sum(counts)
    stained = classes.her2 > 0
    dab_px = int(cells.dab_px[stained].sum())
    dab_sum = int(cells.dab_sum[stained].sum())
    h_score = sum(k * n for k, n in enumerate(counts))
    record = {
        "count": total,
        "class_cells": list(counts),
        "fractions": [_rounded(n / total) for n in counts] if total else None,
        "complete_cells": int(classes.complete.sum()),
        "unusual_cells": unusual,
        "dropped_cells": int(unsure.sum()),
        "faint_complete_cells": int((classes.complete & (classes.her2 == 1)).sum()),
        "h_score": _rounded(100 * h_score / total) if total else None,
        "mean_completeness": _mean(cells.completeness[stained]),
        "mean_density": _rounded(dab_sum / (100 * dab_px)) if dab_px else None,
        "grid_um": measured.grid_um,
        "glass_rgb": None if measured.glass_rgb is None else list(measured.glass_rgb),
        "cuts": {**CELL_CUTS, "rays": CELL_RAYS},
        "tiles": tiles,
        "membranes": membrane_record(measured),
    }
    return CellDecision(chosen, classes, guideline, error, record)


def _near_unreadable(measured: CellMeasurement) -> npt.NDArray[np.bool_]:
    """Cells that what was not read could have changed: all that a cell depends on."""
    grid = measured.grid_um
    return measured.tiles.near_unreadable(
        (measured.cells.x + 0.5) * grid,
        (measured.cells.y + 0.5) * grid,
        measured.reach_um,
    )


def _tile_record(
    tiles: CellTiles, roi: Roi, slide_spacing_um: tuple[float, float]
) -> dict[str, int]:
    """Tiles with tumor that meet the regions, and others that could not be read."""
    chosen = tiles.tumor(roi, slide_spacing_um)
    others = tiles.unreadable & ~chosen
    return {**tiles.counts(chosen), "others_unreadable": int(others.sum())}


def membrane_record(measured: CellMeasurement) -> dict[str, Any]:
    """Of the whole tumor that was looked at; a region does not cut membranes."""
    totals = measured.totals
    sized = totals.one_nucleus + totals.no_nucleus + totals.several_nuclei
    artifacts = totals.no_nucleus + totals.several_nuclei
    area_um2 = totals.px * measured.spacing_um**2
    return {
        "count": totals.membranes,
        "closed": totals.closed,
        "closed_ratio": _ratio(totals.closed, totals.membranes),
        "incomplete": totals.incomplete,
        "area_mm2": _rounded(area_um2 * 1e-6),
        "length_mm": _rounded(totals.length_nm * 1e-6),
        "mean_density": _ratio(totals.density_sum, 100 * totals.px),
        "connectivity": _ratio(totals.connected_nm, totals.length_nm),
        "connected_um": CONNECTED_UM,
        "pruned_um": _rounded(measured.prune_px * measured.spacing_um),
        "compartments": {
            "one_nucleus": totals.one_nucleus,
            "no_nucleus": totals.no_nucleus,
            "several_nuclei": totals.several_nuclei,
            "artifact_share": _ratio(artifacts, sized),
            "large": totals.large,
            "cell_um2": list(CELL_UM2),
        },
    }


def _ratio(part: int, whole: int) -> float | None:
    return _rounded(part / whole) if whole else None


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    # Shares of 32: their sum is exact whatever the order.
    return _rounded(float(values.sum()) / len(values)) if len(values) else None


def _rounded(value: float) -> float:
    return round(value, DECIMALS)


def cell_flags(
    area: Mapping[str, Any],
    guideline: Mapping[str, Any] | None,
    *,
    glass_seen: bool,
) -> list[str]:
    """Review flags: those of the guideline, and those that only pixels can set."""
    own = [] if guideline is None else list(guideline["flags"])
    seen = [flag for flag in area["review_flags"] if flag in SEEN_FLAGS]
    unseen = [] if glass_seen else ["NO_GLASS"]
    return [flag for flag in own if flag != "ULTRALOW"] + seen + unseen


__all__ = [
    "CLASS_NAMES",
    "MIN_CELLS",
    "UNIT",
    "CellDecision",
    "cell_flags",
    "decide_cells",
    "in_regions",
    "level0_px",
    "membrane_record",
]
