# SPDX-License-Identifier: Apache-2.0
"""What the command line prints: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from her2fast.dryrun import DryRun
    from her2fast.rescoring import Rescored
    from her2fast.run import RunSummary


#: Where there is no terminal, a slide that takes longer than this is heard of.
PLAIN_INTERVAL_S = 30.0


def plain(text: object) -> str:
    """One printable line, whatever a file name holds."""
    line = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class RunDisplay:
    """Shows a run's events; call it with them."""

    def __init__(self, slides: int, *, quiet: bool = False) -> None:
        """`quiet` leaves standard output to the caller."""
        self._slides = slides
        self._done = 0
        self._quiet = quiet
        self._progress: Any = None
        self._task: Any = None
        self._begun_s = self._shown_s = 0.0
        self._stage = ""

    def __enter__(self) -> RunDisplay:
        if not self._quiet and sys.stderr.isatty():
            self._progress = _rich_progress()
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Shows one event of `her2fast.run.run`."""
        if event == "slide_started":
            self._begun_s = self._shown_s = time.monotonic()
            self._begin(fields["slide"], "")
        elif event == "progress":
            stage = fields.get("stage", self._stage)
            if stage != self._stage:  # its counts and its rate are its own
                self._begun_s = self._shown_s = time.monotonic()
                self._begin(fields["slide"], stage)
            if self._progress is not None:
                self._show(fields)
            elif not self._quiet:
                self._tell(fields)
        elif event == "slide_ended":
            self._done += 1
            self._end()
            if not self._quiet:
                line = slide_line(self._done, self._slides, fields)
                if self._progress is not None:
                    self._progress.console.print(_escape(line), highlight=False)
                else:
                    click.echo(line)
        elif event == "left_out":
            line = f"left out ({fields['code']}): {fields['message']}"
            click.echo(plain(line), err=True)

    def _begin(self, slide: str, stage: str) -> None:
        """A new bar, where there are bars."""
        self._stage = stage
        self._end()
        if self._progress is not None:
            title = f"[{self._done + 1}/{self._slides}] {plain(slide)}"
            title += f" ({stage})" if stage else ""
            self._task = self._progress.add_task(_escape(title), total=None, rate="")

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _tell(self, fields: dict[str, Any]) -> None:
        """A plain line now and then: requests answered and items computed."""
        now_s = time.monotonic()
        planned = fields.get("planned")
        if not planned or now_s - self._shown_s < PLAIN_INTERVAL_S:
            return
        self._shown_s = now_s
        all_items = planned + fields["items_planned"]
        done = fields["answered"] + fields["items_done"]
        rate = done / (now_s - self._begun_s)
        left = f"{(all_items - done) / rate:.0f} s left" if done else "no estimate yet"
        stage = f" {self._stage}" if self._stage else ""
        line = (
            f"{fields['slide']}:{stage} {100 * done / all_items:.0f} %, {rate:.0f}/s, "
            f"{left}"
        )
        click.echo(plain(f"[{self._done + 1}/{self._slides}] {line}"), err=True)

    def _show(self, fields: dict[str, Any]) -> None:
        planned = fields.get("planned")
        if planned and self._task is not None:
            self._progress.update(
                self._task,
                total=planned + fields["items_planned"],
                completed=fields["answered"] + fields["items_done"],
            )


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _rich_progress() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        Rate(""),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def slide_line(number: int, slides: int, fields: dict[str, Any]) -> str:
    """One line per slide."""
    status = fields["status"]
    if status == "scored":
        text = _scored(fields["score"], fields["class_cells"])
    else:
        text = f"{status} {fields['code']}: {fields['message']}"
    if fields["review_required"]:
        text += ", review required"
    if fields["work"] == "kept":
        text += " (finished before)"
    elif fields["work"] == "decided":
        text += " (measured before)"
    seconds = f"{fields['elapsed_s']:.1f} s"
    return plain(f"[{number}/{slides}] {fields['slide']}: {text} [{seconds}]")


def _scored(score: str | None, class_cells: list[int] | None) -> str:
    if class_cells is None:
        return f"scored {score or '(areas only)'}"
    counts = "/".join(map(str, class_cells))
    return f"scored {score or '(counts only)'}, cells 0/1+/2+/3+ {counts}"


def summary_lines(summary: RunSummary, out: str) -> Iterator[str]:
    """The end of a run; the last line says what was not scored and why."""
    yield f"results: {plain(out)}"
    for use in summary.intended_use:
        yield f"use:     {plain(use)}"
    total = len(summary.outcomes)
    reasons = summary.not_scored
    if not reasons:
        yield f"{total} of {total} slides scored"
        return
    why = ", ".join(f"{n} {code}" for code, n in sorted(reasons.items()))
    missing = sum(reasons.values())
    yield f"{total - missing} of {total} slides scored; {missing} not scored: {why}"


def rescored_lines(done: Iterable[Rescored]) -> Iterator[str]:
    """One line per slide of a results folder."""
    for item in done:
        record = item.record
        if item.skipped:
            text = f"left as it was ({item.skipped})"
        elif record["status"] == "scored":
            cells = record.get("cells") or {}
            text = _scored(record["score"], cells.get("class_cells"))
        else:
            text = f"{record['status']} {record['code']}: {record['message']}"
        if item.note:
            text += f" ({item.note})"
        yield plain(f"{item.name}: {text}")


def show_dry_run(report: DryRun, *, as_json: bool) -> int:
    """Prints a dry run; its exit code is what scoring could reach at best."""
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(plain(line))
    return report.exit_code


def demo_lines(summary: RunSummary, out: str, wrong: Iterable[str]) -> Iterator[str]:
    """Where to look, what it is, and what did not end as it must."""
    from her2fast.exports import COHORT
    from her2fast.store import ResultsFolder

    folder = ResultsFolder(out)
    record = folder.read_record(summary.outcomes[0].name) or {}
    for text in wrong:
        yield f"WRONG:   {plain(text)}"
    yield f"open:    {plain((folder.root / COHORT).resolve())}"
    yield f"reports: {plain((folder.root / 'reports').resolve())}"
    yield f"use:     {record.get('intended_use', '')}"
