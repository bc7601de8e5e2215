# SPDX-License-Identifier: Apache-2.0
"""`her2fast score`: segment and classify, as the method of a run."""

from __future__ import annotations

from functools import partial

from her2fast.record import DecideSettings, Provenance, Record, unmeasured
from her2fast.scoring import Measurement, OpenedSlide, Result, Scorer, decide_with
from her2fast.slide_job import Changes
from her2fast.store import ResultsFolder
from her2fast.supervise import Report


class AreaMethod:
    """A `slide_job.Method` that decides on areas."""

    #: Of the tiny package.
    rough_s_per_mm2 = 0.5

    def __init__(self, scorer: Scorer) -> None:
        """Opens no model yet."""
        self._scorer = scorer

    @property
    def workers(self) -> int:
        """Threads of a slide."""
        return self._scorer.workers

    @property
    def spacings_um(self) -> tuple[float, ...]:
        """The working spacing."""
        return (self._scorer.package.spacing_um,)

    def unmeasured(self, slide: Record) -> Provenance:
        """The provenance of a slide that was not measured."""
        return unmeasured(slide, self._scorer.package)

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
    ) -> tuple[Result, str]:
        """As `slide_job.Method`."""
        source = self.provenance(slide)
        core = None if again else folder.read_measurement(name, source.measurement_key)
        if core is not None:
            return decide_with(Measurement(core, source), settings), "decided"
        measurement = self._scorer.measure(
            slide, on_progress=partial(Changes(report), "")
        )
        folder.write_measurement(name, measurement.core)
        return decide_with(measurement, settings), "measured"
