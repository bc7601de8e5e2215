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
from her2fast.area_run import area_method
from her2fast.errors import SlideError, UsageError
from her2fast.export.atomic import atomic_write
from her2fast.exports import ExportOptions, write_tables
from her2fast.manifest import Entry, check_regions
from her2fast.models.package import MethodPackage, load_package, printable
from her2fast.opened_slide import display_name, nameless
from her2fast.record import (
    Provenance,
    empty_slide,
    failed_record,
    record_bytes,
    settings_for,
    unmeasured,
)
from her2fast.scoring import Result, Scorer
from her2fast.slide_job import AnyResult, Method, SlideJob, score_slide, write_result
from her2fast.store import ResultsFolder
from her2fast.supervise import STALL_S, JobFailed, Supervisor

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
    decoder: str = "cpu"
    workers: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    allow_unknown_model: bool = False
    full_hash: bool = False
    exports: ExportOptions = field(default_factory=ExportOptions)

    def open_method(self, *, known: bool = True) -> Method:
        """The method with its packages; opens no model.

        Raises `UsageError`, `DeviceError` and `SlideError` MODEL_HASH: of a file that
        was changed, and with `known` of one that is in no list.
        """
        return area_method(self.open_scorer(load_package(self.model), known=known))

    def open_scorer(self, package: MethodPackage, *, known: bool) -> Scorer:
        """What segments and classifies, for `open_method`."""
        if known and not self.allow_unknown_model:
            package.require_known()
        return Scorer(
            package,
            device=self.device,
            reading=self.reading,
            decoder=self.decoder,
            workers=self.workers,
            batch_size=self.batch_size,
        )

    def failed(self, source: Provenance, error: SlideError) -> AnyResult:
        """How a slide ends that nothing could be decided on."""
        return Result(failed_record(source, error))


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
    intended_use: str
    #: Cells of 0, 1+, 2+, 3+ where cells were counted.
    class_cells: list[int] | None
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
    def intended_use(self) -> list[str]:
        """What the scores are for, in the packages' words; each once."""
        scored = [o.intended_use for o in self.outcomes if o.status == "scored"]
        return list(dict.fromkeys(scored))

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
            "intended_use": self.intended_use,
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
        source = options.open_method(known=False).scorer.unmeasured(empty_slide())
        settings_for(source.method or {}, guideline=options.guideline)
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
        for name, error in write_tables(folder):
            file, message = printable(f"{name}.json"), printable(str(error))
            log("left_out", file=file, code=error.code, message=message)
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
        failed = job.options.failed(
            unmeasured(empty_slide(slide)), nameless(error, job.entry.slide)
        )
        record, work = failed.record, "none"
        try:
            with folder.lock(job.name, job.entry.slide):
                write_result(
                    folder, job.name, failed, exports=job.options.exports, inputs={}
                )
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
        intended_use=record["intended_use"],
        class_cells=(record.get("cells") or {}).get("class_cells"),
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
