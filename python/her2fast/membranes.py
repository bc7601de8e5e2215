# SPDX-License-Identifier: Apache-2.0
"""Scores one slide cell by cell: tumor at 1 um/px, membranes at 0.25, then a guideline
on counts of cells. Synthetic packages, research use only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.measure import crash_as_code, default_workers
from her2fast.methods.cell_decision import (
    CLASS_NAMES,
    MIN_CELLS,
    UNIT,
    CellDecision,
    cell_flags,
    decide_cells,
)
from her2fast.methods.membrane import (
    CellMeasurement,
    Finder,
    MembraneMeasure,
    Seconds,
    check_tiles,
    tumor_tiles,
)
from her2fast.models.membrane_package import MembranePackage, load_membrane_package
from her2fast.models.package import load_package
from her2fast.models.runner import (
    describe_device,
    one_intra_op_thread,
    open_runner,
    use_one_thread,
)
from her2fast.record import (
    Provenance,
    Record,
    decided_record,
    digest,
    empty_slide,
    failed_record,
    method_record,
    settings_for,
    unmeasured,
)
from her2fast.scoring import (
    Measurement,
    OpenedSlide,
    RoiLike,
    Scorer,
    as_roi,
    check_roi,
    display_name,
    nameless,
    open_input,
)

OnRow = Callable[[int, int], None]


@dataclass(frozen=True)
class MembraneResult:
    """How a slide ended: the record, and what was measured where there is something."""

    record: Record
    tumor: Measurement | None = None
    cells: CellMeasurement | None = None
    decision: CellDecision | None = None
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def status(self) -> str:
        """ "scored", "indeterminate", "failed" or "refused"."""
        return str(self.record["status"])

    @property
    def score(self) -> str | None:
        """ "0", "1+", "2+" or "3+"; None unless scored by a guideline."""
        score = self.record["score"]
        return None if score is None else str(score)


class NetworkFinder:
    """The membrane network of a package as a finder; one intra-op thread a batch."""

    def __init__(self, package: MembranePackage, device: str = "cpu") -> None:
        """Raises `SlideError` MODEL_HASH or MODEL_SHAPE."""
        self.package = package
        self._runner = open_runner(package.model, device)

    def __call__(
        self,
        rgb: npt.NDArray[np.uint8],
        places_px: Sequence[tuple[int, int]],  # a network sees pixels alone
    ) -> npt.NDArray[np.uint8]:
        """(N, S, S, 3) tiles -> (N, S, S) masks: 1 where its logit is 0 or more."""
        use_one_thread()
        side = self.package.tile_px
        outputs = self._runner.run(rgb).reshape(len(rgb), -1, side, side)[:, 0]
        if not np.isfinite(outputs).all():
            raise SlideError(
                f"{self.package.model.file}: gave values that are no numbers",
                "NON_FINITE",
            )
        return (outputs >= 0).astype(np.uint8)


def measure_cells(
    slide: OpenedSlide,
    tumor: _core.Measurement,
    find: Finder,
    *,
    spacing_um: float,
    step: int,
    tile_px: int,
    batch_size: int,
    workers: int,
    reading: str = "scaled",
    on_row: OnRow | None = None,
) -> tuple[CellMeasurement, Seconds]:
    """Cells and membranes of the tumor that `tumor` has found.

    Raises `SlideError`: NO_LEVEL, MISSING_TILES, CORRUPT_TILES and what reading raises.
    """
    reader = slide.reader(workers=1, reading=reading)
    reader.plan(spacing_um)  # NO_LEVEL before any work
    size_px = tuple(
        -(-round(side * um * 1e6) // round(spacing_um * 1e6))
        for side, um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    masks = _TumorRows(tumor, tile_px * spacing_um, size_px, tile_px)
    measure = MembraneMeasure(
        reader,
        find,
        size_px=(size_px[0], size_px[1]),
        spacing_um=spacing_um,
        step=step,
        tile_px=tile_px,
        batch_size=batch_size,
        wanted=masks.wanted(),
        is_tumor=lambda x, y: masks.holds(x, y, spacing_um * step),
    )
    with one_intra_op_thread():
        measured = measure.run(workers=workers, on_row=on_row)
    check_tiles(measured.tiles, float(_core.LIMITS["max_bad_tiles_percent"]))
    return measured, measure.seconds


class _TumorRows:
    """The tumor's mask, bit by bit, asked for by tiles and by seeds."""

    def __init__(
        self,
        tumor: _core.Measurement,
        tile_um: float,
        size_px: Sequence[int],
        tile_px: int,
    ) -> None:
        self._spacing_um = tumor.spacing_um
        self._shape = tuple(-(-side // tile_px) for side in reversed(size_px))
        self._tile = tile_um / self._spacing_um
        width = tumor.tiles_x * tumor.tile_px
        height = tumor.tiles_y * tumor.tile_px
        self._width = width
        rows = []
        for y in range(0, height, tumor.tile_px):
            mask = tumor.tumor_mask(0, y, width, tumor.tile_px)
            rows.append(np.packbits(mask, axis=1))
        self._bits = np.concatenate(rows)

    def wanted(self) -> npt.NDArray[np.bool_]:
        """(rows, columns) tiles of the network that hold tumor."""
        rows, columns = self._shape
        if self._tile != int(self._tile):
            raise UsageError(
                "need a tile of the membrane network that is a whole number of tumor "
                f"pixels, got {self._tile:g}"
            )
        tile = int(self._tile)
        masks = []
        for row in range(rows):
            bits = self._bits[row * tile : (row + 1) * tile]
            mask = np.zeros((1, columns * tile), np.bool_)
            if len(bits):
                any_row = np.bitwise_or.reduce(bits, axis=0)
                flat = np.unpackbits(any_row)[: columns * tile].astype(np.bool_)
                mask[0, : len(flat)] = flat
            masks.append(mask)
        return tumor_tiles(masks, tile)

    def holds(
        self,
        x: npt.NDArray[np.int32],
        y: npt.NDArray[np.int32],
        grid_um: float,
    ) -> npt.NDArray[np.bool_]:
        """Whether the tumor pixel round each seed's middle is set."""
        column = ((x + 0.5) * grid_um / self._spacing_um).astype(np.int64)
        row = ((y + 0.5) * grid_um / self._spacing_um).astype(np.int64)
        inside = (row < len(self._bits)) & (column < self._width)
        out = np.zeros(len(x), np.bool_)
        at = row[inside], column[inside]
        out[inside] = self._bits[at[0], at[1] // 8] >> (7 - at[1] % 8) & 1 == 1
        return out


class MembraneScorer:
    """A membrane package and a tumor package, for many slides."""

    def __init__(
        self,
        package: MembranePackage,
        tumor: Scorer,
        *,
        finder: Finder | None = None,
    ) -> None:
        """`finder` replaces the package's network: a bench gives the true mask."""
        if tumor.package.segment is None:
            raise UsageError(
                f"need a tumor package with a segmenter, got {tumor.package.name!r}"
            )
        self.package = package
        self.tumor = tumor
        self._finder = finder

    @property
    def finder(self) -> Finder:
        """The network, opened when first needed."""
        if self._finder is None:
            self._finder = NetworkFinder(self.package, self.tumor.device)
        return self._finder

    def provenance(self, source: Provenance) -> Provenance:
        """What a cell measurement is made from, given that of its tumor."""
        package = self.package
        model = package.model
        device = describe_device(self.tumor.device, {"membrane": model.batch_size})
        tumor = source.method or {}
        key = digest(
            {
                "tumor": source.measurement_key,
                "model": [model.sha256, model.config_sha256],
                "grid": [package.tile_px, package.spacing_um, package.step],
                "device": device,
                "her2fast": _core.__version__,
            }
        )
        method = {
            **tumor,
            "name": package.name,
            "kind": "membrane",
            "guideline": package.guideline,
            "floor_percent": package.floor_percent,
            "domain": None,
            "calibration": {"scale_q16": [], "bias_q16": []},
            "tile_px": package.tile_px,
            "patch_px": 0,
            "halo_px": 0,
            "synthetic": package.synthetic or bool(tumor.get("synthetic")),
        }
        return Provenance(
            slide=source.slide,
            working_spacing_um=package.spacing_um,
            reading_mode=source.reading_mode,
            measurement_key=key,
            method=method,
            models=[*source.models, model.to_record()],
            device=device,
            class_names=list(CLASS_NAMES),
            warnings=source.warnings,
            intended_use=source.intended_use,
        )

    def score(
        self,
        slide: OpenedSlide,
        *,
        roi: RoiLike = None,
        guideline: str | None = None,
        ish: str | None = None,
        tumor: Measurement | None = None,
        cells: CellMeasurement | None = None,
        on_row: OnRow | None = None,
    ) -> MembraneResult:
        """Measures what is not given, and decides; raises `SlideError`.

        `tumor` and `cells` are of this slide and these packages: from a results folder.
        """
        polygons = as_roi(roi)
        area_settings = settings_for(
            method_record(self.tumor.package), roi=polygons, ish=ish
        )
        check_roi(polygons, slide.size_px)
        if tumor is None:
            tumor = self.tumor.measure(slide)
        source = self.provenance(tumor.provenance)
        settings = settings_for(
            source.method or {}, roi=polygons, guideline=guideline, ish=ish
        )
        area = _core.decide(tumor.core, **area_settings.core_arguments())
        area_record = decided_record(tumor.provenance, area, area_settings)
        if area["status"] != "scored":
            error = SlideError(str(area["message"]), str(area["code"]))
            record = failed_record(source, error)
            return MembraneResult(_with_area(record, area_record), tumor)
        package = self.package
        seconds = Seconds()
        if cells is None:
            cells, seconds = measure_cells(
                slide,
                tumor.core,
                self.finder,
                spacing_um=package.spacing_um,
                step=package.step,
                tile_px=package.tile_px,
                batch_size=package.model.batch_size,
                workers=self.tumor.workers,
                reading=self.tumor.reading,
                on_row=on_row,
            )
        decision = decide_cells(
            cells,
            slide_spacing_um=slide.spacing_um,
            roi=polygons,
            rule_set=settings.guideline,
            floor_percent=settings.floor_percent,
            ish=ish,
        )
        record = cell_record(source, settings, decision, area, area_record)
        return MembraneResult(record, tumor, cells, decision, seconds)


def cell_record(
    source: Provenance,
    settings: Any,
    decision: CellDecision,
    area: dict[str, Any],
    area_record: Record,
) -> Record:
    """The record of a slide whose cells were measured."""
    guideline = decision.guideline
    flags = cell_flags(area, guideline)
    code = message = None
    if decision.too_few:
        code = "TOO_LITTLE_TUMOR"
        message = (
            f"{decision.record['count']} tumor cells with a nucleus are fewer than the "
            f"{MIN_CELLS} that a score needs"
        )
    shell = {
        **area,
        "status": "scored" if code is None else "indeterminate",
        "code": code,
        "message": message or "",
        "guideline": guideline,
        "review_required": bool(flags) and code is None,
        "review_flags": flags if code is None else [],
        "flip": None,
        "bootstrap": None,
        "islands": None,
        "domain": None,
    }
    record = decided_record(source, shell, settings)
    if record["guideline"] is not None:
        record["guideline"]["unit"] = UNIT
    record["fractions"] = decision.record["fractions"] if code is None else None
    return _with_area({**record, "cells": decision.record}, area_record)


def _with_area(record: Record, area: Record) -> Record:
    """Areas of classes are the other package's; they stand apart, as its reading."""
    out = dict(record)
    for key in ("class_px", "class_mm2", "class_patches"):
        out[key] = None
    for key in ("tissue_mm2", "tumor_mm2", "roi_mm2", "tiles", "out_of_focus_share"):
        out[key] = area[key]
    out.setdefault("cells", None)
    out["area_reading"] = {
        "method": area["method"]["name"],
        "working_spacing_um": area["working_spacing_um"],
        "score": area["score"],
        "fractions": area["fractions"],
        "review_flags": area["review_flags"],
    }
    return out


def score_membranes(
    slide: str | os.PathLike[str],
    *,
    model: str | Path | MembranePackage | None = None,
    tumor_model: str | Path | None = None,
    roi: RoiLike = None,
    device: str = "cpu",
    guideline: str | None = None,
    mpp: float | None = None,
    ish: str | None = None,
    workers: int | None = None,
    allow_unknown_model: bool = False,
    finder: Finder | None = None,
    on_row: OnRow | None = None,
) -> MembraneResult:
    """Scores one slide cell by cell.

    Parameters
    ----------
    slide : path
        A whole-slide image with a level of 0.25 um/px (or what the package asks for).
    model : str, Path or MembranePackage, optional
        A membrane package, as `her2fast train membrane` writes it.
    tumor_model : str or Path, optional
        The package whose segmenter finds the tumor at 1 um/px.
    roi, device, guideline, mpp, ish, workers, allow_unknown_model
        As for `score`.
    finder : callable, optional
        Finds the membranes in the network's place.

    Returns
    -------
    MembraneResult
        With exactly one status; whatever ails the slide is a status, not an exception.

    Raises
    ------
    UsageError
        The call or a package is wrong.
    DeviceError
        This machine lacks the device.
    """
    record = empty_slide(display_name(slide))
    try:
        with crash_as_code():
            package = (
                model
                if isinstance(model, MembranePackage)
                else load_membrane_package(model)
            )
            tumor = load_package(tumor_model)
            if not allow_unknown_model:
                package.require_known()
                tumor.require_known()
            scorer = MembraneScorer(
                package,
                Scorer(tumor, device=device, workers=workers or default_workers()),
                finder=finder,
            )
            opened = open_input(slide, mpp, record)
            return scorer.score(
                opened, roi=roi, guideline=guideline, ish=ish, on_row=on_row
            )
    except SlideError as error:
        failed = failed_record(unmeasured(record), nameless(error, slide))
        return MembraneResult({**failed, "cells": None, "area_reading": None})
