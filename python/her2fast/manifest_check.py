# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a manifest, all at once, before a night's run.

A run stops at the first wrong line; this goes on. It opens every slide and compares
fingerprints, so that one slide under two names, or under two patients, is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from her2fast.errors import REASON_CODES, SlideError, UsageError
from her2fast.manifest import BadRow, Entry, scan_manifest
from her2fast.opened_slide import display_name, nameless, open_input

__all__ = ["PROBLEMS", "ManifestReport", "Problem", "check_manifest"]

#: Beside the reason codes of slides that cannot be opened.
PROBLEMS = {
    "BAD_HEADER_ROW": "the file or its header is wrong; nothing else was looked at",
    "BAD_ROW": "a cell is wrong",
    "DUPLICATE_ROW": "the slide's path stands in another line",
    "DUPLICATE_SLIDE": "another line's file has the same content",
    "TWO_PATIENTS": "another line gives the same slide to another patient",
    "TWO_SPLITS": "the patient's slides stand in two splits",
    "NO_LABEL": "training needs a label or readers' scores",
    "NO_ROI_FILE": "the region's file is not there",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `line` is None where it is the whole file."""

    code: str
    line: int | None
    slide: str | None
    message: str


@dataclass
class ManifestReport:
    """A manifest's rows and problems, in the order of lines."""

    path: str
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "manifest": self.path,
            "rows": self.rows,
            "problems": [asdict(problem) for problem in self.problems],
        }

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        for problem in self.problems:
            where = "" if problem.line is None else f"line {problem.line}: "
            name = (
                "" if problem.slide is None else f"{os.path.basename(problem.slide)}: "
            )
            yield f"{where}{problem.code}: {name}{problem.message}"
        counted = f"{len(self.problems)} problems" if self.problems else "no problem"
        yield f"{self.path}: {self.rows} rows, {counted}"


def check_manifest(
    path: str | os.PathLike[str],
    *,
    training: bool = False,
    on_slide: Callable[[int], None] | None = None,
) -> ManifestReport:
    """Looks at every row and opens every slide; never raises for what it finds."""
    report = ManifestReport(os.fspath(path))
    rows: list[tuple[int, Entry]] = []
    try:
        for line, row in scan_manifest(path):
            report.rows += 1
            if isinstance(row, BadRow):
                text = row.message.removeprefix(f"{report.path}, line {line}: ")
                report.problems.append(Problem("BAD_ROW", line, None, text))
            else:
                rows.append((line, row))
    except UsageError as error:
        report.problems.append(Problem("BAD_HEADER_ROW", None, None, str(error)))
        return report
    owners: dict[str, tuple[int, Entry]] = {}  # by path, then by fingerprint
    for line, entry in rows:
        problems = report.problems
        if training and entry.label is None and not entry.readers:
            text = "has no label and no reader's score"
            problems.append(Problem("NO_LABEL", line, entry.slide, text))
        if entry.roi is not None and not os.path.isfile(entry.roi):
            text = f"{entry.roi}: no such file"
            problems.append(Problem("NO_ROI_FILE", line, entry.slide, text))
        place = os.path.realpath(entry.slide)
        if place in owners:
            problems.append(_duplicate("DUPLICATE_ROW", line, entry, owners[place]))
            continue
        owners[place] = (line, entry)
        try:
            fingerprint = str(open_input(entry.slide, entry.mpp).record["fingerprint"])
        except SlideError as error:
            text = str(nameless(error, entry.slide))
            text = text.removeprefix(f"{display_name(entry.slide)}: ")
            problems.append(Problem(error.code, line, entry.slide, text))
            continue
        finally:
            if on_slide is not None:
                on_slide(line)
        # "\0" begins no path.
        key = f"\0{fingerprint}"
        if key in owners:
            problems.append(_duplicate("DUPLICATE_SLIDE", line, entry, owners[key]))
        else:
            owners[key] = (line, entry)
    report.problems += _split_leaks(rows)
    report.problems.sort(key=lambda problem: problem.line or 0)
    assert all(p.code in PROBLEMS or p.code in REASON_CODES for p in report.problems)
    return report


def _duplicate(code: str, line: int, entry: Entry, other: tuple[int, Entry]) -> Problem:
    other_line, first = other
    if entry.patient != first.patient and entry.patient and first.patient:
        return Problem(
            "TWO_PATIENTS",
            line,
            entry.slide,
            f"patient {entry.patient!r} here, {first.patient!r} in line {other_line}, "
            "and the slides are one",
        )
    text = f"is the slide of line {other_line}"
    if code == "DUPLICATE_SLIDE":
        text += f", {os.path.basename(first.slide)}: the content is the same"
    return Problem(code, line, entry.slide, text)


def _split_leaks(rows: list[tuple[int, Entry]]) -> Iterator[Problem]:
    """A patient seen in training must not be one of the test."""
    first: dict[str, tuple[int, str]] = {}
    for line, entry in rows:
        if not entry.patient or not entry.split:
            continue
        there, split = first.setdefault(entry.patient, (line, entry.split))
        if split != entry.split:
            yield Problem(
                "TWO_SPLITS",
                line,
                entry.slide,
                f"patient {entry.patient!r} is in split {entry.split!r} here and in "
                f"{split!r} in line {there}",
            )
