# SPDX-License-Identifier: Apache-2.0
"""Slides with their label and their result, matched by file name."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.errors import SlideError, UsageError
from her2fast.export.names import printable
from her2fast.manifest import LABELS, read_manifest
from her2fast.record import Record
from her2fast.store import ResultsFolder

FRACTION_COLUMNS = ("slide", *LABELS)
SHOWN = 5


@dataclass(frozen=True)
class Labelled:
    """What is known of a slide."""

    name: str
    label: int
    patient: str
    readers: dict[str, int]


@dataclass(frozen=True)
class Case:
    """A labelled slide and how it ended."""

    name: str
    label: int
    patient: str
    status: str
    code: str | None
    score: int | None
    fractions: tuple[float, ...] | None
    flags: tuple[str, ...]
    #: Where its measurement is; None where it has none.
    measurement: Path | None = None
    #: The record's `cells`; None where areas were scored.
    cells: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Results:
    """A results folder against labels."""

    name: str
    cases: tuple[Case, ...]
    unlabelled: tuple[str, ...]
    rule_set: str
    models: tuple[str, ...]
    #: What its scores are for, in the packages' words; each once.
    intended_use: tuple[str, ...] = ()
    #: File of `results/` that is no record -> why.
    left_out: Mapping[str, SlideError] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """What shares are of: "cells", or "tumor" where areas were scored."""
        return "cells" if any(case.cells for case in self.scored) else "tumor"

    @property
    def scored(self) -> tuple[Case, ...]:
        """Cases that have a score."""
        return tuple(case for case in self.cases if case.score is not None)


def read_labels(path: Path, split: str | None = None) -> list[Labelled]:
    """Slides with a label of a manifest; of one part where `split` is given."""
    found: dict[str, Labelled] = {}
    unlabelled = []
    for entry in read_manifest(path):
        if split is not None and entry.split != split:
            continue
        name = os.path.basename(entry.slide)
        if entry.label is None:
            unlabelled.append(name)
            continue
        if name in found:
            raise UsageError(
                f"{path}: two slides are named {name!r}; results know names, not paths"
            )
        found[name] = Labelled(
            name,
            LABELS.index(entry.label),
            f"p:{entry.patient}" if entry.patient else f"s:{name}",
            {reader: LABELS.index(score) for reader, score in entry.readers.items()},
        )
    if unlabelled:
        raise UsageError(f"{path}: slides without label: {_some(unlabelled)}")
    if not found:
        part = "" if split is None else f" in split {split!r}"
        raise UsageError(f"{path}: no slide with a label{part}")
    return list(found.values())


def read_fractions(path: Path) -> dict[str, tuple[float, ...]]:
    """Slide name -> true shares of 0, 1+, 2+, 3+, from a CSV of these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != FRACTION_COLUMNS:
                raise UsageError(
                    f"{path}: need the columns {','.join(FRACTION_COLUMNS)}, got "
                    f"{','.join(table.fieldnames or ())}"
                )
            found = {}
            for row in table:
                place = f"{path}, line {table.line_num}"
                try:
                    shares = tuple(float(row[name]) for name in LABELS)
                except (TypeError, ValueError) as error:
                    raise UsageError(f"{place}: need four numbers") from error
                if not all(0 <= s <= 1 for s in shares) or abs(sum(shares) - 1) > 0.01:
                    raise UsageError(
                        f"{place}: need shares in [0, 1] that add to 1, got {shares}"
                    )
                found[os.path.basename(row["slide"])] = shares
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    return found


def collect_results(name: str, folder: Path, labels: Sequence[Labelled]) -> Results:
    """Match the records of a results folder with labels.

    A labelled slide without a record is a case of status "missing". Raises
    `UsageError` where records are of several rule sets or models, or share a name.
    """
    records, left_out = _records(folder)
    rule_sets = {_rule_set(record) for record in records.values() if record["score"]}
    if len(rule_sets) > 1:
        raise UsageError(f"{folder}: holds scores of several rule sets: {rule_sets}")
    models = {
        tuple(str(model["sha256"]) for model in record["models"])
        for record in records.values()
        if record["score"] and record["models"]
    }
    if len(models) > 1:
        raise UsageError(f"{folder}: holds scores of {len(models)} different models")
    uses = dict.fromkeys(
        str(record["intended_use"])
        for record in records.values()
        if record["score"] and record.get("intended_use")
    )
    cases = []
    for known in labels:
        record = records.pop(known.name, None)
        if record is None:
            cases.append(_missing(known))
            continue
        score, fractions = record["score"], record["fractions"]
        cases.append(
            Case(
                known.name,
                known.label,
                known.patient,
                str(record["status"]),
                record["code"],
                None if score is None else LABELS.index(score),
                None if fractions is None else tuple(map(float, fractions)),
                tuple(record["review_flags"]),
                _measurement(folder, str(record["file"])),
                record.get("cells"),
            )
        )
    if not any(case.score is not None for case in cases):
        raise UsageError(f"{folder}: no labelled slide has a score")
    return Results(
        name,
        tuple(cases),
        tuple(sorted(records)),
        next(iter(rule_sets)),
        next(iter(models), ()),
        tuple(uses),
        left_out,
    )


def shares_of(cases: Iterable[Case]) -> npt.NDArray[np.float64]:
    """(n, 4) fractions."""
    return np.array([case.fractions for case in cases], np.float64).reshape(-1, 4)


def file_sha256(path: Path) -> str:
    """Of the labels, for the record of an evaluation."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _records(folder: Path) -> tuple[dict[str, Record], dict[str, SlideError]]:
    """Records by the slide's name, and what lies beside them, by file name."""
    found: dict[str, Record] = {}
    left_out = {}
    for stem, record in ResultsFolder(folder).records_and_others():
        if isinstance(record, SlideError):
            left_out[printable(f"{stem}.json")] = record
            continue
        name = str(record["slide"]["name"])
        if name in found:
            raise UsageError(f"{folder}: two results are of slides named {name!r}")
        found[name] = {**record, "file": stem}
    if not found:
        raise UsageError(f"{folder}: need a results folder of `her2fast score`")
    return found, left_out


def _measurement(folder: Path, stem: str) -> Path | None:
    path = folder / "measurements" / f"{stem}.h2m"
    return path if path.is_file() else None


def _rule_set(record: dict[str, Any]) -> str:
    guideline = record.get("guideline") or {}
    return str(guideline.get("rule_set"))


def _missing(known: Labelled) -> Case:
    return Case(known.name, known.label, known.patient, "missing", None, None, None, ())


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return "; ".join(names[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
