# SPDX-License-Identifier: Apache-2.0
"""`her2fast membranes`: tumor, then membranes and cells, as the method of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from her2fast.errors import SlideError
from her2fast.exports import ExportOptions
from her2fast.membrane_decision import (
    MembraneMeasurement,
    MembraneResult,
    failed_membranes,
    tumor_provenance,
)
from her2fast.membranes import MembraneScorer
from her2fast.methods.membrane import CellMeasurement
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.package import load_tumor_package
from her2fast.record import Provenance
from her2fast.run import RunOptions
from her2fast.scoring import Measurement
from her2fast.slide_job import Method, Task
from her2fast.store import ResultsFolder

#: Names the kind of GeoJSON in a folder's state: cells, not regions or patches.
CELLS_GEOJSON = "cells"
#: 61 tiles of 512 px: 87 ms of the tiny network, 9 ms of cells, and reading.
ROUGH_S_PER_MM2 = 6.2


@dataclass(frozen=True)
class MembraneOptions(RunOptions):
    """What a run was asked for; `model` is the membrane package."""

    tumor_model: str | None = None
    exports: ExportOptions = field(
        default_factory=lambda: ExportOptions(geojson=CELLS_GEOJSON)
    )

    def open_method(self, *, known: bool = True) -> Method:
        """As `RunOptions.open_method`."""
        package = load_membrane_package(self.model)
        if known and not self.allow_unknown_model:
            package.require_known()
        tumor = self.open_scorer(load_tumor_package(self.tumor_model), known=known)
        scorer = MembraneScorer(package, tumor)
        return Method(scorer, partial(_score, scorer), ROUGH_S_PER_MM2)

    def failed(self, source: Provenance, error: SlideError) -> MembraneResult:
        """As `RunOptions.failed`."""
        return failed_membranes(source, error)


def _score(scorer: MembraneScorer, task: Task) -> tuple[MembraneResult, str]:
    folder, name, slide = task.folder, task.name, task.slide
    source = scorer.provenance(slide)
    on_stage, sha256 = task.on_stage(), source.slide["sha256"]
    stored = None if task.again else stored_membranes(folder, name, source)
    if stored is None:
        tumor = scorer.measure_tumor(slide, on_stage)
        folder.drop_derived(name)
        # At once: whatever befalls the membranes, this is not done again.
        folder.write_measurement(name, tumor.core, sha256)
        measurement = MembraneMeasurement(tumor, source)
    else:
        measurement = stored

    def keep(cells: CellMeasurement) -> None:
        folder.write_cells(name, cells, source.measurement_key or "", sha256)

    result = scorer.finish(slide, measurement, task.settings, on_stage, keep)
    decided = stored is not None and (
        result.cells is None or measurement.cells is not None
    )
    return result, "decided" if decided else "measured"


def stored_membranes(
    folder: ResultsFolder, name: str, source: Provenance
) -> MembraneMeasurement | None:
    """What a results folder holds of a slide, measured from `source`."""
    own, sha256 = tumor_provenance(source), source.slide.get("sha256")
    core = folder.read_measurement(name, own.measurement_key, sha256)
    if core is None:
        return None
    cells = folder.read_cells(name, source.measurement_key, sha256)
    return MembraneMeasurement(Measurement(core, own), source, cells)
