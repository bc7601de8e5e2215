# SPDX-License-Identifier: Apache-2.0
"""One row per slide: results.csv, results.parquet and worklist.csv.

The tables are built from the records alone, so that several writers never share a file,
and a record that lacks a field leaves a cell empty (null in Parquet), never NaN. Beside
what a record holds, `folder` is its name in the results folder.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from her2fast.export.names import printable

__all__ = [
    "Need",
    "class_counts",
    "escape_cell",
    "results_csv",
    "results_parquet",
    "worklist",
    "worklist_csv",
]

Record = Mapping[str, Any]
Kind = Literal["string", "bool", "int64", "double"]

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True)
class Column:
    """A column of the table: how it is called, what it holds, where it comes from."""

    name: str
    kind: Kind
    value: Callable[[Record], Any]


def _at(*path: str | int) -> Callable[[Record], Any]:
    """Follow keys and places; None wherever the record does not go so far."""

    def value(record: Record) -> Any:
        found: Any = record
        for key in path:
            if isinstance(key, str) and isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(key, int) and isinstance(found, (list, tuple)):
                found = found[key] if key < len(found) else None
            else:
                return None
        return found

    return value


def _joined(*path: str) -> Callable[[Record], Any]:
    def value(record: Record) -> Any:
        items = _at(*path)(record)
        return "; ".join(map(str, items)) if isinstance(items, (list, tuple)) else None

    return value


def _models(record: Record) -> str | None:
    models = _at("models")(record)
    if not isinstance(models, (list, tuple)):
        return None
    return "; ".join(f"{m.get('name')}@{m.get('sha256')}" for m in models)


def _margin(cut: str) -> Callable[[Record], Any]:
    def value(record: Record) -> Any:
        for margin in _at("guideline", "margins")(record) or ():
            if margin.get("cut") == cut:
                return margin.get("margin")
        return None

    return value


def score_probability(record: Record) -> float | None:
    """Share of the bootstrap's replicates that give the reported score."""
    score, shares = _at("score")(record), _at("score_probability")(record)
    if score not in _SCORES or not isinstance(shares, (list, tuple)):
        return None
    known = _numbers(shares)
    place = _SCORES.index(score)
    return float(known[place]) if len(known) == len(_SCORES) else None


_SCORES = ("0", "1+", "2+", "3+")

_BEFORE: tuple[Column, ...] = (
    Column("slide", "string", _at("slide", "name")),
    Column("folder", "string", _at("folder")),
    Column("status", "string", _at("status")),
    Column("code", "string", _at("code")),
    Column("message", "string", _at("message")),
    Column("score", "string", _at("score")),
    Column("review_required", "bool", _at("review_required")),
    Column("review_flags", "string", _joined("review_flags")),
    Column("rule_set", "string", _at("guideline", "rule_set")),
    Column("ish", "string", _at("guideline", "ish")),
    Column("flags", "string", _joined("guideline", "flags")),
    Column("alternative", "string", _at("guideline", "alternative")),
    Column("binary", "string", _at("guideline", "binary")),
    Column("three_way", "string", _at("guideline", "three_way")),
    Column("her2_view", "string", _at("guideline", "her2_view")),
    Column(
        "ihc0_membrane_staining", "string", _at("guideline", "ihc0_membrane_staining")
    ),
    *(Column(f"margin_{cut}", "int64", _margin(cut)) for cut in ("3+", "2+", "1+")),
    Column("score_probability", "double", score_probability),
    Column("flip_px", "int64", _at("flip", "least_px")),
    Column("flip_to_score", "string", _at("flip", "to_score")),
    Column("tumor_mm2", "double", _at("tumor_mm2")),
    Column("dropped_tumor_mm2", "double", _at("dropped_tumor_mm2")),
    Column("dropped_tumor_share", "double", _at("dropped_tumor_share")),
    Column("tissue_mm2", "double", _at("tissue_mm2")),
    Column("roi_mm2", "double", _at("roi_mm2")),
)

_AFTER: tuple[Column, ...] = (
    *(
        Column(f"tiles_{what}", "int64", _at("tiles", what))
        for what in ("total", "read", "missing", "corrupt", "warned")
    ),
    Column("out_of_focus_share", "double", _at("out_of_focus_share")),
    Column("out_of_domain_share", "double", _at("domain", "outside_share")),
    Column("width_px", "int64", _at("slide", "size_px", 0)),
    Column("height_px", "int64", _at("slide", "size_px", 1)),
    Column("spacing_x_um", "double", _at("slide", "spacing_um", 0)),
    Column("spacing_y_um", "double", _at("slide", "spacing_um", 1)),
    Column("spacing_source", "string", _at("slide", "spacing_source")),
    Column("working_spacing_um", "double", _at("working_spacing_um")),
    Column("fingerprint", "string", _at("slide", "fingerprint")),
    Column("measurement_key", "string", _at("measurement_key")),
    Column("decision_key", "string", _at("decision_key")),
    Column("roi_sha256", "string", _at("roi_sha256")),
    Column("method", "string", _at("method", "name")),
    Column("models", "string", _models),
    Column("warnings", "string", _joined("warnings")),
    Column("her2fast_version", "string", _at("versions", "her2fast")),
    Column("intended_use", "string", _at("intended_use")),
)


def _per_class(field: str, name: str) -> Callable[[Record], Any]:
    def value(record: Record) -> Any:
        names, values = _at("class_names")(record), _at(field)(record)
        if isinstance(values, Mapping):
            return values.get(name)
        if not isinstance(names, (list, tuple)) or name not in names:
            return None
        return _at(field, list(names).index(name))(record)

    return value


def _interval(place: int, name: str) -> Callable[[Record], Any]:
    pair = _per_class("intervals", name)

    def value(record: Record) -> Any:
        found = pair(record)
        return found[place] if isinstance(found, (list, tuple)) else None

    return value


def _columns(records: Sequence[Record]) -> list[Column]:
    """Every column; the classes are those that any record names, as they first come."""
    names = dict.fromkeys(n for r in records for n in (_at("class_names")(r) or ()))
    fields: tuple[tuple[str, Kind], ...] = (
        ("class_px", "int64"),
        ("class_mm2", "double"),
        ("fractions", "double"),
    )
    heads = {"class_px": "px", "class_mm2": "mm2", "fractions": "fraction"}
    classes = [
        Column(f"{heads[field]}_{name}", kind, _per_class(field, name))
        for field, kind in fields
        for name in names
    ]
    ends = [
        Column(f"interval_{end}_{name}", "double", _interval(place, name))
        for place, end in enumerate(("low", "high"))
        for name in names
    ]
    return [*_BEFORE, *classes, *ends, *_AFTER]


def _typed(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    if kind == "string":
        return printable(str(value))
    if kind == "bool":
        return bool(value)
    return int(value) if kind == "int64" else float(value)


def _sorted(records: Iterable[Record]) -> list[Record]:
    """By name and fingerprint: the order of scoring must not show in a table."""
    keys = (
        ("slide", "name"),
        ("slide", "fingerprint"),
        ("measurement_key",),
        ("folder",),
    )
    by = [_at(*key) for key in keys]
    return sorted(records, key=lambda r: tuple(str(value(r) or "") for value in by))


def escape_cell(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula.

    A cell that begins with ``= + - @``, a tab or a carriage return gets a leading
    apostrophe, and so does one that would read as such a cell; to undo, drop it where
    one of those follows the apostrophes.

    Examples
    --------
    >>> escape_cell("=cmd()"), escape_cell("'=cmd()"), escape_cell("1+")
    ("'=cmd()", "''=cmd()", '1+')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return escape_cell(value)
    return repr(value)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([escape_cell(printable(name)) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def results_csv(records: Iterable[Record]) -> bytes:
    """Write the table of all slides: UTF-8, RFC 4180, empty where nothing is."""
    ordered = _sorted(records)
    columns = _columns(ordered)
    rows = ([_typed(c.kind, c.value(record)) for c in columns] for record in ordered)
    return _csv([column.name for column in columns], rows)


def results_parquet(records: Iterable[Record]) -> bytes:
    """Write the same table as Parquet, with types and without any escaping."""
    import pyarrow
    import pyarrow.parquet

    ordered = _sorted(records)
    columns = _columns(ordered)
    kinds = {
        "string": pyarrow.string(),
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
    }
    schema = pyarrow.schema([(printable(c.name), kinds[c.kind]) for c in columns])
    arrays = [
        pyarrow.array([_typed(c.kind, c.value(r)) for r in ordered], kinds[c.kind])
        for c in columns
    ]
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.Table.from_arrays(arrays, schema=schema)
    pyarrow.parquet.write_table(table, sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


_WITHOUT_SCORE = ("indeterminate", "failed", "refused")


def class_counts(record: Record) -> Any:
    """What the guideline saw per class: cells where they were counted, else pixels."""
    cells = _at("cells", "class_cells")(record)
    return _at("class_px")(record) if cells is None else cells


def _nearest_cut(record: Record) -> tuple[str, float] | None:
    """The cut that the slide is nearest to, and by how many percentage points."""
    total = sum(_numbers(class_counts(record)))
    margins = [
        (abs(margin["margin"]), str(margin.get("cut")), margin["margin"])
        for margin in _items(_at("guideline", "margins")(record))
        if isinstance(margin, Mapping) and _numbers([margin.get("margin")])
    ]
    if not margins or total <= 0:
        return None
    _, cut, margin = min(margins)
    return cut, margin / total * 10


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _numbers(value: Any) -> list[float]:
    return [item for item in _items(value) if isinstance(item, (int, float))]


@dataclass(frozen=True)
class Need:
    """Why a slide stands where it stands in the worklist."""

    record: Record
    #: "no score", "review" or "".
    need: str
    #: Of the reported score, where the bootstrap gave one.
    probability: float | None
    #: The cut that the slide is nearest to, and by how many percentage points.
    nearest: tuple[str, float] | None


def worklist(records: Iterable[Record]) -> list[Need]:
    """Order slides by who needs a reader first.

    First slides without a score (indeterminate, failed, refused), then those with
    flags, then the others; within each, the least probable score first, then most
    flags, then nearest to a cut.
    """
    ranked = []
    for record in _sorted(records):
        status = str(_at("status")(record))
        flags = _items(_at("review_flags")(record))
        nearest = _nearest_cut(record)
        distance = abs(nearest[1]) if nearest else 100.0
        probability = score_probability(record)
        sure = 1.0 if probability is None else probability
        if status in _WITHOUT_SCORE:
            need, rank = "no score", (0, float(_WITHOUT_SCORE.index(status)), 0)
        elif _at("review_required")(record):
            need, rank = "review", (1, sure, -len(flags))
        else:
            need, rank = "", (2, sure, 0)
        ranked.append(((*rank, distance), Need(record, need, probability, nearest)))
    ranked.sort(key=lambda pair: pair[0])
    return [item for _, item in ranked]


def worklist_csv(records: Iterable[Record]) -> bytes:
    """Write the worklist; ``nearest_cut_points`` is below 0 short of the cut."""
    rows = [
        [
            item.need,
            _typed("string", _at("slide", "name")(item.record)),
            _typed("string", _at("folder")(item.record)),
            _at("score")(item.record),
            _at("status")(item.record),
            _at("code")(item.record),
            "; ".join(map(str, _items(_at("review_flags")(item.record)))) or None,
            item.probability,
            _at("flip", "least_mm2")(item.record),
            _at("flip", "to_score")(item.record),
            item.nearest[0] if item.nearest else None,
            round(item.nearest[1], 4) if item.nearest else None,
            _at("domain", "outside_share")(item.record),
            _typed("string", _at("message")(item.record) or None),
        ]
        for item in worklist(records)
    ]
    header = ["need", "slide", "folder", "score", "status", "code", "flags"]
    header += ["score_probability", "flip_mm2", "flip_to_score", "nearest_cut"]
    header += ["nearest_cut_points", "out_of_domain_share", "message"]
    return _csv(header, rows)
