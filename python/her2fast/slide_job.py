# SPDX-License-Identifier: Apache-2.0
"""One slide of a run: measured or found measured, decided, written into the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from her2fast.errors import SlideError
from her2fast.exports import ExportOptions, write_exports, write_overview
from her2fast.manifest import Entry, region_of
from her2fast.measure import OnStage, Progress, crash_as_code
from her2fast.membrane_decision import MembraneResult
from her2fast.membrane_exports import write_membranes
from her2fast.opened_slide import OpenedSlide, display_name, nameless, open_input
from her2fast.record import (
    DecideSettings,
    Provenance,
    Record,
    Roi,
    empty_slide,
    unmeasured,
)
from her2fast.report.pictures import OpenReader
from her2fast.scoring import Result, as_roi, asked_settings, check_roi
from her2fast.store import ResultsFolder
from her2fast.supervise import Report

if TYPE_CHECKING:
    from her2fast.run import RunOptions

AnyResult = Result | MembraneResult


class SlideScorer(Protocol):
    """Packages on a device, for many slides."""

    @property
    def workers(self) -> int:
        """Threads of a slide."""
        ...

    @property
    def spacings_um(self) -> tuple[float, ...]:
        """Spacings at which slides are read."""
        ...

    def unmeasured(self, slide: Record) -> Provenance:
        """The provenance of a slide that was not measured."""
        ...

    def provenance(self, slide: OpenedSlide) -> Provenance:
        """What a measurement of this slide would be made from; opens no model."""
        ...


@dataclass(frozen=True)
class Task:
    """An opened slide, what it is decided by, and where its files lie."""

    folder: ResultsFolder
    name: str
    slide: OpenedSlide
    settings: DecideSettings
    #: Measure also what the folder holds.
    again: bool
    report: Report

    def on_stage(self) -> OnStage:
        """Reports progress where there is some, so that silence means a hang."""
        last: dict[str, Any] = {}

        def changed(stage: str, progress: Progress) -> None:
            now = {"stage": stage, **asdict(progress)}
            if now != last:
                last.update(now)
                self.report(now)

        return changed


@dataclass(frozen=True)
class Method:
    """What scores the slides of a run: opened once."""

    scorer: SlideScorer
    #: Measures what the folder lacks, stores it, and decides; with "measured" or
    #: "decided". Raises `SlideError`.
    score: Callable[[Task], tuple[AnyResult, str]]
    #: Seconds per mm2 of tissue and core with the package that ships.
    rough_s_per_mm2: float


@dataclass(frozen=True)
class SlideJob:
    """One slide for the worker process."""

    options: RunOptions
    entry: Entry
    name: str


_methods: dict[RunOptions, Method] = {}


def _opened(options: RunOptions) -> Method:
    """The worker keeps its opened models from slide to slide."""
    if options not in _methods:
        _methods[options] = options.open_method()
    return _methods[options]


def score_slide(job: SlideJob, report: Report) -> tuple[Record, str]:
    """Scores one slide into the folder; returns the record and the work it took.

    What ails the slide is a record; `UsageError` and `DeviceError` end the run.
    """
    folder = ResultsFolder(job.options.out)
    try:
        with crash_as_code(), folder.lock(job.name, job.entry.slide):
            return _score_locked(job, folder, report)
    except SlideError as error:
        # No lock, or no room for the record: nothing of this is written.
        source = unmeasured(empty_slide(display_name(job.entry.slide)))
        return job.options.failed(source, error).record, "none"


def _score_locked(
    job: SlideJob, folder: ResultsFolder, report: Report
) -> tuple[Record, str]:
    options, entry, name = job.options, job.entry, job.name
    slide_record = empty_slide(display_name(entry.slide))
    source = unmeasured(slide_record)
    inputs: dict[str, Any] = {}
    try:
        with crash_as_code():
            method = _opened(options)
            source = method.scorer.unmeasured(slide_record)
            inputs = {
                "roi": (),
                "guideline": options.guideline,
                "ish": entry.ish,
                "roi_refused": False,
            }
            settings = asked_settings(
                source.method or {},
                lambda: take_region(
                    inputs, lambda: region_of(entry, options.roi, name)
                ),
                options.guideline,
                entry.ish,
            )
            mpp = options.mpp if options.mpp is not None else entry.mpp
            try:
                opened = open_input(
                    entry.slide, mpp, slide_record, full_hash=options.full_hash
                )
            finally:
                # At once: no run may decide on it any more, however this one ends.
                sha256 = slide_record["sha256"]
                if sha256 is not None:
                    folder.drop_other_bytes(name, sha256)
            source = method.scorer.provenance(opened)
            if isinstance(settings, SlideError):
                raise settings
            key = source.measurement_key
            decision_key = settings.key(key) if key else None
            if not options.overwrite and folder.is_finished(
                name, key, decision_key, asdict(options.exports), sha256
            ):
                record = folder.read_record(name)
                if record is not None:
                    return record, "kept"
            check_roi(settings.roi, opened.size_px)
            task = Task(folder, name, opened, settings, options.overwrite, report)
            result, work = method.score(task)
            report({"writing": True})
            if sha256 is not None:
                # A run that hashed nothing may have read them from other bytes.
                folder.drop_pictures(name)
            overview = folder.overview_path(name)
            if work == "measured" or not overview.is_file():
                write_overview(overview, opened, method.scorer.workers)
            write_result(
                folder,
                name,
                result,
                exports=options.exports,
                inputs=inputs,
                open_reader=lambda: opened.reader(workers=1, reading="scaled"),
            )
            return result.record, work
    except SlideError as error:
        failed = options.failed(source, nameless(error, entry.slide))
        write_result(folder, name, failed, exports=options.exports, inputs=inputs)
        return failed.record, "none"


def take_region(inputs: dict[str, Any], path: Callable[[], str | None]) -> Roi:
    """The region of a file, into the inputs of a decision.

    Where it is refused, they say so: nobody may then decide on the whole slide, or on
    an earlier region, because none was given.
    """
    inputs.update(roi=(), roi_refused=True)
    roi = as_roi(path())
    inputs.update(roi=roi, roi_refused=False)
    return roi


def write_result(
    folder: ResultsFolder,
    name: str,
    result: AnyResult,
    *,
    exports: ExportOptions,
    inputs: Mapping[str, Any],
    open_reader: OpenReader | None = None,
) -> None:
    """Writes the files for people, then the record; the caller holds the lock."""
    if isinstance(result, MembraneResult):
        written = write_membranes(
            folder.root, name, result, options=exports, open_reader=open_reader
        )
    else:
        written = write_exports(
            folder.root, name, result, options=exports, open_reader=open_reader
        )
    folder.write_record(
        name,
        result.record,
        files=written.files,
        inputs=inputs,
        exports=asdict(exports),
        pictures_missing=written.pictures_missing,
    )
