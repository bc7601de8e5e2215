# SPDX-License-Identifier: Apache-2.0
"""`her2fast membranes`: tumor, then membranes and cells, as the method of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from her2fast.errors import SlideError
from her2fast.exports import ExportOptions
from her2fast.membrane_decision import (
    MembraneMeasurement,
    MembraneResult,
    failed_membranes,
    tumor_provenance,
)
from her2fast.membranes import MembraneScorer
from her2fast.models.membrane_package import load_membrane_package
from her2fast.record import DecideSettings, Provenance, Record
from her2fast.run import RunOptions
from her2fast.scoring import Measurement, OpenedSlide
from her2fast.slide_job import Changes
from her2fast.store import ResultsFolder
from her2fast.supervise import Report

#: Names the kind of GeoJSON in a folder's state: cells, not regions or patches.
CELLS_GEOJSON = "cells"


@dataclass(frozen=True)
class MembraneOptions(RunOptions):
    """What a run was asked for; `model` is the membrane package."""

    tumor_model: str | None = None
    exports: ExportOptions = field(
        default_factory=lambda: ExportOptions(geojson=CELLS_GEOJSON)
    )

    def open_method(self, *, known: bool = True) -> MembraneMethod:
        """As `RunOptions.open_method`."""
        package = load_membrane_package(self.model)
        if known and not self.allow_unknown_model:
            package.require_known()
        tumor = self.open_scorer(self.tumor_model, known=known)
        return MembraneMethod(MembraneScorer(package, tumor))

    def failed(self, source: Provenance, error: SlideError) -> MembraneResult:
        """As `RunOptions.failed`."""
        return failed_membranes(source, error)


class MembraneMethod:
    """A `slide_job.Method` that decides on cells."""

    rough_s_per_mm2 = 40.0

    def __init__(self, scorer: MembraneScorer) -> None:
        """Opens no model yet."""
        self._scorer = scorer

    @property
    def workers(self) -> int:
        """Threads of a slide."""
        return self._scorer.tumor.workers

    @property
    def spacings_um(self) -> tuple[float, ...]:
        """Of the tumor, and of the membranes."""
        tumor, membranes = self._scorer.tumor.package, self._scorer.package
        return tumor.spacing_um, membranes.spacing_um

    def unmeasured(self, slide: Record) -> Provenance:
        """The provenance of a slide that was not measured."""
        return self._scorer.unmeasured(slide)

    def provenance(self, slide: OpenedSlide) -> Provenance:
        """What a measurement of this slide would be made from; opens no model."""
        return self._scorer.provenance(slide)

    def score(
        self,
        folder: ResultsFolder,
        name: str,
        slide: OpenedSlide,
        settings: DecideSettings,
        *,
        again: bool,
        report: Report,
    ) -> tuple[MembraneResult, str]:
        """As `slide_job.Method`."""
        source = self.provenance(slide)
        changes = Changes(report)
        stored = None if again else stored_membranes(folder, name, source)
        if stored is None:
            tumor = self._scorer.measure_tumor(slide, changes)
            # At once: whatever befalls the membranes, this is not done again.
            folder.write_measurement(name, tumor.core)
            measurement = MembraneMeasurement(tumor, source)
        else:
            measurement = stored
        result = self._scorer.finish(slide, measurement, settings, changes)
        new_cells = result.cells is not None and measurement.cells is None
        if new_cells and result.cells is not None:
            folder.write_cells(name, result.cells, source.measurement_key or "")
        return result, "measured" if stored is None or new_cells else "decided"


def stored_membranes(
    folder: ResultsFolder, name: str, source: Provenance
) -> MembraneMeasurement | None:
    """What a results folder holds of a slide, measured from `source`."""
    own = tumor_provenance(source)
    core = folder.read_measurement(name, own.measurement_key)
    if core is None:
        return None
    cells = folder.read_cells(name, source.measurement_key)
    return MembraneMeasurement(Measurement(core, own), source, cells)
