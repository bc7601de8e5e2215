# SPDX-License-Identifier: Apache-2.0
"""A run over many slides: a worker process, a results folder, one status per slide."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.export.atomic import atomic_write
from her2fast.exports import ExportOptions, write_exports, write_overview, write_tables
from her2fast.manifest import Entry, check_regions, region_of
from her2fast.measure import Progress, crash_as_code
from her2fast.models.package import MethodPackage, load_package, printable
from her2fast.record import (
    Record,
    empty_slide,
    failed_record,
    method_record,
    record_bytes,
    settings_for,
    unmeasured,
)
from her2fast.scoring import (
    Measurement,
    Result,
    Scorer,
    as_roi,
    check_roi,
    decide_with,
    display_name,
    nameless,
    open_input,
)
from her2fast.store import ResultsFolder
from her2fast.supervise import STALL_S, JobFailed, Report, Supervisor

EXIT_OK, EXIT_SOME, EXIT_ALL, EXIT_USAGE, EXIT_IO = 0, 10, 20, 64, 74


@dataclass(frozen=True)
class RunOptions:
    """What a run over many slides was asked for."""

    out: str
    model: str | None = None
    device: str = "cpu"
    guideline: str | None = None
    mpp: float | None = None
    roi: str | None = None
    reading: str = "scaled"
    workers: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    allow_unknown_model: bool = False
    full_hash: bool = False
    exports: ExportOptions = field(default_factory=ExportOptions)


@dataclass(frozen=True)
class SlideOutcome:
    """How one slide of a run ended."""

    slide: str
    name: str
    status: str
    code: str | None
    message: str
    score: str | None
    review_required: bool
    #: "measured", "decided" (from a stored measurement), "kept" (finished before) or
    #: "none".
    work: str
    elapsed_s: float


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    run_id: str
    outcomes: list[SlideOutcome]

    @property
    def not_scored(self) -> Counter[str]:
        """Reason code -> slides without a score, or with no status yet."""
        return Counter(o.code or o.status for o in self.outcomes if o.code is not None)

    @property
    def exit_code(self) -> int:
        """0: all scored or indeterminate; 10: some failed or were refused; 20: all."""
        return exit_code_of([outcome.status for outcome in self.outcomes])

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run_id": self.run_id,
            "exit_code": self.exit_code,
            "not_scored": dict(sorted(self.not_scored.items())),
            "slides": [asdict(outcome) for outcome in self.outcomes],
        }


def exit_code_of(statuses: Sequence[str]) -> int:
    """0: all scored or indeterminate; 10: some failed or were refused; 20: all."""
    bad = sum(status in ("failed", "refused") for status in statuses)
    if bad == 0:
        return EXIT_OK
    return EXIT_ALL if bad == len(statuses) else EXIT_SOME


def check_options(options: RunOptions) -> None:
    """Raises `UsageError` where a run with these options cannot begin.

    A model file that is not known is not among that: its slides end as MODEL_HASH.
    """
    try:
        package = load_package(options.model)
        settings_for(method_record(package), guideline=options.guideline)
    except SlideError as error:
        if error.code == "MODEL_CLASSES":
            raise UsageError(str(error)) from error
    if options.roi is not None and not os.path.exists(options.roi):
        raise UsageError(f"--roi {options.roi}: no such file or folder")


def check_run_regions(
    options: RunOptions, entries: Sequence[Entry], folder: ResultsFolder
) -> None:
    """Raises `UsageError` where `--roi` gives two slides one region."""
    names = folder.assign_names([entry.slide for entry in entries])
    pairs = zip(entries, names, strict=True)
    check_regions([(e.slide, name) for e, name in pairs if not e.roi], options.roi)


OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class SlideJob:
    """One slide for the worker process."""

    options: RunOptions
    entry: Entry
    name: str


_scorers: dict[RunOptions, Scorer] = {}


def _package(options: RunOptions) -> MethodPackage:
    package = load_package(options.model)
    if not options.allow_unknown_model:
        package.require_known()
    return package


def _scorer(options: RunOptions) -> Scorer:
    """The worker keeps its opened models from slide to slide."""
    if options not in _scorers:
        _scorers[options] = Scorer(
            _package(options),
            device=options.device,
            reading=options.reading,
            workers=options.workers,
            batch_size=options.batch_size,
        )
    return _scorers[options]


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
        return failed_record(source, error), "none"


def _score_locked(
    job: SlideJob, folder: ResultsFolder, report: Report
) -> tuple[Record, str]:
    options, entry, name = job.options, job.entry, job.name
    slide_record = empty_slide(display_name(entry.slide))
    source = None
    package = None
    inputs: dict[str, Any] = {}
    try:
        with crash_as_code():
            package = _package(options)
            scorer = _scorer(options)
            inputs = {
                "roi": as_roi(region_of(entry, options.roi, name)),
                "guideline": options.guideline,
                "ish": entry.ish,
            }
            settings = settings_for(method_record(package), **inputs)
            mpp = options.mpp if options.mpp is not None else entry.mpp
            opened = open_input(
                entry.slide, mpp, slide_record, full_hash=options.full_hash
            )
            source = scorer.provenance(opened)
            key = source.measurement_key
            decision_key = settings.key(key) if key else None
            again = options.overwrite or not _same_bytes(folder, name, slide_record)
            if not again and folder.is_finished(
                name, key, decision_key, asdict(options.exports)
            ):
                record = folder.read_record(name)
                if record is not None:
                    return record, "kept"
            check_roi(settings.roi, opened.size_px)
            core = None if again else folder.read_measurement(name, key)
            work = "measured" if core is None else "decided"
            if core is None:
                measurement = scorer.measure(opened, on_progress=_changes(report))
                folder.write_measurement(name, measurement.core)
            else:
                measurement = Measurement(core, source)
            report({"writing": True})
            overview = folder.overview_path(name)
            if work == "measured" or not overview.is_file():
                write_overview(overview, opened, scorer.workers)
            result = decide_with(measurement, settings)
            written = write_exports(
                folder.root,
                name,
                result,
                options=options.exports,
                open_reader=lambda: opened.reader(workers=1, reading="scaled"),
            )
            folder.write_record(
                name,
                result.record,
                files=written.files,
                inputs=inputs,
                exports=asdict(options.exports),
                pictures_missing=written.pictures_missing,
            )
            return result.record, work
    except SlideError as error:
        source = source or unmeasured(slide_record, package)
        record = failed_record(source, nameless(error, entry.slide))
        write_failed(folder, name, record, options.exports, inputs)
        return record, "none"


def _same_bytes(folder: ResultsFolder, name: str, slide: Record) -> bool:
    """False where every byte was hashed now, and was not so, or otherwise, before.

    What was measured then may be of a file that differs between the fingerprint's
    samples.
    """
    if slide["sha256"] is None:
        return True
    record = folder.read_record(name)
    before = None if record is None else record["slide"].get("sha256")
    return bool(before == slide["sha256"])


def write_failed(
    folder: ResultsFolder,
    name: str,
    record: Record,
    exports: ExportOptions,
    inputs: dict[str, Any] | None = None,
) -> None:
    """Stores a record without a measurement, and its report."""
    written = write_exports(folder.root, name, Result(record), options=exports)
    folder.write_record(name, record, files=written.files, inputs=inputs)


def _changes(report: Report) -> Callable[[Progress], None]:
    """Reports progress where there is some, so that silence means a hang."""
    last: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if last[-1:] != [progress]:
            last[:] = [progress]
            report(asdict(progress))

    return on_progress


def run(
    options: RunOptions,
    entries: Sequence[Entry],
    *,
    fail_fast: bool = False,
    on_event: OnEvent | None = None,
    stall_s: float = STALL_S,
) -> RunSummary:
    """Scores slides into a results folder, one after the other.

    Raises `UsageError` and `DeviceError` (nothing can be scored) and `OSError` (the
    folder cannot be written); a bad slide is an outcome.
    """
    folder = ResultsFolder(options.out)
    check_run_regions(options, entries, folder)
    folder.create()
    names = folder.claim_names([entry.slide for entry in entries])
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    outcomes: list[SlideOutcome] = []
    with _EventLog(folder.root / f"events_{run_id}.jsonl", on_event) as log:
        log("run_started", slides=len(entries))
        with Supervisor(score_slide, stall_s=stall_s) as worker:
            for entry, name in zip(entries, names, strict=True):
                outcome = _one(worker, SlideJob(options, entry, name), folder, log)
                outcomes.append(outcome)
                if fail_fast and outcome.status in ("failed", "refused"):
                    log("stopped", slide=outcome.slide)
                    break
        summary = RunSummary(run_id, outcomes)
        write_tables(folder)
        _write_run(folder.root, options, started, summary)
        log("run_ended", exit_code=summary.exit_code)
    return summary


def _one(
    worker: Supervisor, job: SlideJob, folder: ResultsFolder, log: _EventLog
) -> SlideOutcome:
    slide = display_name(job.entry.slide)
    log("slide_started", slide=slide, name=job.name)
    begin = time.monotonic()
    try:
        record, work = worker.run(job, lambda value: log.progress(slide, value))
    except (SlideError, JobFailed) as error:
        # The worker is gone: the record is written here.
        if isinstance(error, JobFailed):
            error = SlideError(str(error), "CRASH")
        error = nameless(error, job.entry.slide)
        record, work = failed_record(unmeasured(empty_slide(slide)), error), "none"
        try:
            with folder.lock(job.name, job.entry.slide):
                write_failed(folder, job.name, record, job.options.exports)
        except SlideError as busy:
            log("record_not_written", slide=slide, message=str(busy))
    outcome = SlideOutcome(
        slide=slide,
        name=job.name,
        status=record["status"],
        code=record["code"],
        message=record["message"],
        score=record["score"],
        review_required=record["review_required"],
        work=work,
        elapsed_s=round(time.monotonic() - begin, 3),
    )
    log("slide_ended", **asdict(outcome))
    return outcome


class _EventLog:
    """`events_<id>.jsonl`: one JSON object per event, with its UTC."""

    def __init__(self, path: Path, on_event: OnEvent | None) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._on_event = on_event

    def __call__(self, event: str, **fields: Any) -> None:
        line = {"utc": datetime.now(UTC).isoformat(), "event": event, **fields}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._on_event is not None:
            self._on_event(event, fields)

    def progress(self, slide: str, value: dict[str, Any]) -> None:
        """Progress is shown, not logged."""
        if self._on_event is not None:
            self._on_event("progress", {"slide": slide, **value})

    def __enter__(self) -> _EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _write_run(
    root: Path, options: RunOptions, started: datetime, summary: RunSummary
) -> None:
    value = {
        "run_id": summary.run_id,
        "started_utc": started.isoformat(),
        "ended_utc": datetime.now(UTC).isoformat(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "her2fast": _core.__version__,
        "options": {
            key: printable(value) if isinstance(value, str) else value
            for key, value in asdict(options).items()
        },
        "exit_code": summary.exit_code,
        "slides": [asdict(outcome) for outcome in summary.outcomes],
    }
    atomic_write(root / f"run_{summary.run_id}.json", record_bytes(value))
