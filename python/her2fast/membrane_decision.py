# SPDX-License-Identifier: Apache-2.0
"""From a slide's measured tumor and cells to its record: no model, no pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.methods.cell_decision import UNIT, CellDecision, cell_flags, decide_cells
from her2fast.methods.membrane import CellMeasurement, Seconds
from her2fast.record import (
    DecideSettings,
    Provenance,
    Record,
    decided_record,
    failed_record,
    settings_for,
)
from her2fast.scoring import Measurement, SlideResult, check_roi


class CellsNotMeasured(UsageError):
    """A decision needs cells, and of this slide none were measured."""


@dataclass(frozen=True)
class MembraneMeasurement:
    """What was measured on a slide: its tumor, and the cells in it."""

    tumor: Measurement
    provenance: Provenance
    #: None where the areas gave no score, so that nobody looked for cells.
    cells: CellMeasurement | None = None


@dataclass(frozen=True)
class MembraneResult(SlideResult):
    """How a slide ended: the record, and what was measured where there is something."""

    measurement: MembraneMeasurement | None = None
    decision: CellDecision | None = None
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def tumor(self) -> Measurement | None:
        """What was measured at 1 um/px."""
        return None if self.measurement is None else self.measurement.tumor

    @property
    def cells(self) -> CellMeasurement | None:
        """What was measured at 0.25 um/px."""
        return None if self.measurement is None else self.measurement.cells


def tumor_provenance(source: Provenance) -> Provenance:
    """What the tumor under these cells was measured from, as far as deciding needs."""
    tumor = (source.method or {})["tumor"]
    return replace(
        source,
        working_spacing_um=tumor["working_spacing_um"],
        measurement_key=tumor["measurement_key"],
        method=tumor["method"],
    )


def decide_membranes(
    measurement: MembraneMeasurement,
    settings: DecideSettings,
    measure: Callable[[], CellMeasurement] | None = None,
) -> MembraneResult:
    """The result of a measurement under `settings`: no model, no pixel.

    Parameters
    ----------
    settings : DecideSettings
        Of `record.settings_for` and the measurement's method.
    measure : callable, optional
        Measures the cells where a decision needs them and has none.

    Raises
    ------
    CellsNotMeasured
        They are needed, and there is no `measure`.
    SlideError
        The file changed while `measure` read it; whatever else ails is a record.
    """
    source, tumor = measurement.provenance, measurement.tumor
    try:
        check_roi(settings.roi, tumor.core.slide_size_px)
        area, area_record = _decide_areas(measurement, settings)
    except SlideError as error:
        return failed_membranes(source, error, measurement)
    if area["status"] != "scored":
        record = _without_cells(decided_record(source, _bare(area), settings))
        return MembraneResult(_with_area(record, area_record), measurement)
    cells = measurement.cells
    if cells is None:
        if measure is None:
            raise CellsNotMeasured(
                f"{source.slide['name']}: its cells were never measured; run `her2fast "
                "membranes` with these settings"
            )
        try:
            cells = measure()
        except SlideError as error:
            if error.code == "INPUT_CHANGED":
                raise  # what was measured before is no measurement of it
            record = failed_record(source, error)
            return MembraneResult(_with_area(record, area_record), measurement)
    decision = decide_cells(
        cells,
        slide_spacing_um=tumor.core.slide_spacing_um,
        roi=settings.roi,
        rule_set=settings.guideline,
        floor_percent=settings.floor_percent,
        ish=settings.ish,
    )
    record = cell_record(source, settings, decision, area, area_record)
    return MembraneResult(record, replace(measurement, cells=cells), decision)


def _decide_areas(
    measurement: MembraneMeasurement, settings: DecideSettings
) -> tuple[dict[str, Any], Record]:
    """What the package that found the tumor says: its decision, and as a record."""
    source = tumor_provenance(measurement.provenance)
    cells = measurement.provenance.method or {}
    # Either package may ask for the stain.
    method = {**(source.method or {}), "stain": cells["stain"]}
    own = settings_for(method, roi=settings.roi, ish=settings.ish)
    area = _core.decide(measurement.tumor.core, **own.core_arguments())
    return area, decided_record(source, area, own)


def failed_membranes(
    source: Provenance,
    error: SlideError,
    measurement: MembraneMeasurement | None = None,
) -> MembraneResult:
    """A slide that ended before anything was decided."""
    record = failed_record(source, error)
    return MembraneResult({**record, "cells": None, "area_reading": None}, measurement)


def cell_record(
    source: Provenance,
    settings: DecideSettings,
    decision: CellDecision,
    area: dict[str, Any],
    area_record: Record,
) -> Record:
    """The record of a slide whose cells were measured."""
    guideline = decision.guideline
    seen = decision.record["glass_rgb"] is not None
    flags = cell_flags(area, guideline, glass_seen=seen)
    error = decision.error
    shell = {
        **_bare(area),
        "status": "scored" if error is None else error.status,
        "code": None if error is None else error.code,
        "message": "" if error is None else str(error),
        "guideline": guideline,
        "review_required": bool(flags) and error is None,
        "review_flags": flags if error is None else [],
    }
    record = decided_record(source, shell, settings)
    if record["guideline"] is not None:
        record["guideline"]["unit"] = UNIT
    record["fractions"] = decision.record["fractions"] if error is None else None
    return _with_area({**record, "cells": decision.record}, area_record)


def _bare(area: dict[str, Any]) -> dict[str, Any]:
    """A decision on areas without what speaks of its classes alone."""
    return {**area, **dict.fromkeys(("flip", "bootstrap", "islands", "domain"))}


def _without_cells(record: Record) -> Record:
    """Of a slide on which no cell was looked for."""
    return {**record, "fractions": None, "cells": None}


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
