# SPDX-License-Identifier: Apache-2.0
"""The manifest: one CSV for scoring and training (docs/guide/manifest.md)."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from her2fast.errors import SlideError, UsageError

COLUMNS = (
    "slide",
    "mpp",
    "roi",
    "label",
    "patient",
    "case",
    "site",
    "scanner",
    "split",
    "ish",
)
READER = re.compile(r"reader_[1-9][0-9]*")
LABELS = ("0", "1+", "2+", "3+")
ISH = ("positive", "negative")
MAX_BYTES = 64 << 20
#: What a folder of slides is searched for; anything else is named on the command line.
SLIDE_SUFFIXES = frozenset(
    ".svs .tif .tiff .ndpi .vms .vmu .scn .mrxs .svslide .bif .czi .dcm".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Entry:
    """One slide to score, with what the manifest says of it."""

    slide: str
    mpp: float | None = None
    roi: str | None = None
    label: str | None = None
    patient: str | None = None
    case: str | None = None
    site: str | None = None
    scanner: str | None = None
    split: str | None = None
    ish: str | None = None
    readers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """A line of a manifest that is no entry, and why."""

    line: int
    message: str


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """Rows of a manifest; paths are relative to its folder.

    Raises `UsageError` that names the line and the column.
    """
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    place = os.fspath(path)
    for line, entry in scan_manifest(path):
        if isinstance(entry, BadRow):
            raise UsageError(entry.message)
        if entry.slide in seen:
            raise UsageError(
                f"{place}, line {line}: slide {entry.slide!r} stands in line "
                f"{seen[entry.slide]} already"
            )
        seen[entry.slide] = line
        entries.append(entry)
    return entries


def read_utf8(path: str | os.PathLike[str]) -> str:
    """A small text file of the user's; raises `UsageError` that names the line."""
    place = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{place}: need at most {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{place}, line {line}: is not UTF-8") from error
    return text


def scan_manifest(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, Entry | BadRow]]:
    """Every row with its line, bad ones and repeated slides among them.

    Raises `UsageError` where there are no rows: no such file, no CSV, a wrong header.
    """
    place = os.fspath(path)
    text = read_utf8(path)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    folder = Path(path).resolve().parent
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            here, line = line, rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            where = f"{place}, line {here}"
            if header is None:
                header = _header(row, where)
                continue
            try:
                yield here, _entry(header, row, folder, where)
            except UsageError as error:
                yield here, BadRow(here, str(error))
    except csv.Error as error:
        raise UsageError(f"{place}, line {rows.line_num}: {error}") from error
    if header is None:
        raise UsageError(f"{place}: is empty; need a header with at least: slide")


def _header(row: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in row]
    for name in names:
        if name not in COLUMNS and not READER.fullmatch(name):
            raise UsageError(
                f"{place}: unknown column {name!r}; need columns of "
                f"{', '.join(COLUMNS)}, reader_1, reader_2, ..."
            )
        if names.count(name) > 1:
            raise UsageError(f"{place}: column {name!r} stands twice")
    if "slide" not in names:
        raise UsageError(f"{place}: need a column 'slide'")
    return names


def _entry(header: list[str], row: list[str], folder: Path, place: str) -> Entry:
    if len(row) != len(header):
        raise UsageError(f"{place}: need {len(header)} cells, got {len(row)}")
    # A file name may begin or end with a space; every other cell may not.
    cells = {
        name: (cell if name in ("slide", "roi") else cell.strip())
        for name, cell in zip(header, row, strict=True)
    }
    given = {name: cell for name, cell in cells.items() if cell}
    if "\0" in "".join(given.values()):
        raise UsageError(f"{place}: a cell holds a NUL character")
    if "slide" not in given:
        raise UsageError(f"{place}: column 'slide' is empty")
    for name in [n for n in given if n == "label" or READER.fullmatch(n)]:
        _one_of(given[name], LABELS, name, place)
    if "ish" in given:
        _one_of(given["ish"], ISH, "ish", place)
    return Entry(
        slide=str(folder / given["slide"]),
        mpp=_mpp(given.get("mpp"), place),
        roi=str(folder / given["roi"]) if "roi" in given else None,
        label=given.get("label"),
        patient=given.get("patient"),
        case=given.get("case"),
        site=given.get("site"),
        scanner=given.get("scanner"),
        split=given.get("split"),
        ish=given.get("ish"),
        readers={n: v for n, v in given.items() if READER.fullmatch(n)},
    )


def _one_of(value: str, values: Sequence[str], name: str, place: str) -> None:
    if value not in values:
        raise UsageError(
            f"{place}: column {name!r}: need {' | '.join(values)}, got {value!r}"
        )


def _mpp(text: str | None, place: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{place}: column 'mpp': need um/px > 0, got {text!r}")
    return value


def collect(inputs: Sequence[str]) -> list[Entry]:
    """Slides, folders of slides and manifests, in order; each slide once.

    A file that is not there stays in the list: it ends as NOT_FOUND.
    """
    entries: dict[str, Entry] = {}
    for text in inputs:
        path = Path(text)
        found: list[Entry]
        if path.is_dir():
            found = [
                Entry(str(child))
                for child in sorted(path.iterdir())
                if child.suffix.lower() in SLIDE_SUFFIXES and not child.is_dir()
            ]
            if not found:
                raise UsageError(
                    f"{text}: no slides in this folder; looked for "
                    f"{', '.join(sorted(SLIDE_SUFFIXES))}"
                )
        elif path.suffix.lower() == ".csv":
            found = read_manifest(path)
            if not found:
                raise UsageError(f"{text}: lists no slide")
        else:
            found = [Entry(text)]
        for entry in found:
            entries.setdefault(os.path.abspath(entry.slide), entry)
    if not entries:
        raise UsageError("need at least one slide, folder of slides or manifest")
    return list(entries.values())


def read_ish(path: str | os.PathLike[str]) -> dict[str, str]:
    """Slide file name -> ISH result, of a manifest's `slide` and `ish` columns.

    Raises `UsageError` where two lines of one file name contradict each other: a
    results folder knows names, not paths.
    """
    found: dict[str, str] = {}
    for entry in read_manifest(path):
        name = os.path.basename(entry.slide)
        if entry.ish is None:
            continue
        if found.setdefault(name, entry.ish) != entry.ish:
            raise UsageError(
                f"{os.fspath(path)}: two slides named {name!r} have different ISH "
                "results; give it in the manifest of `her2fast score`"
            )
    return found


def roi_for(slide: str, roi: str | None, name: str | None = None) -> str | None:
    """The ROI file of a slide: `roi` itself, or in a folder `<slide>.geojson`.

    `<slide>` is the slide's name in the results folder, its file name or its stem, in
    this order; None where the folder holds none of them.
    """
    if roi is None or not os.path.isdir(roi):
        return roi
    file = Path(slide).name
    for stem in (name, file, Path(file).stem):
        for suffix in (".geojson", ".geojson.gz", ".json"):
            candidate = os.path.join(roi, f"{stem}{suffix}")
            if stem and os.path.isfile(candidate):
                return candidate
    return None


def region_of(entry: Entry, roi: str | None, name: str | None = None) -> str | None:
    """The ROI file to score a slide with; None where none was asked for.

    Raises `SlideError` ROI_INVALID where a folder of regions was given and holds none
    of this slide: scored whole, it would look like a score of its region.
    """
    place = entry.roi or roi
    found = roi_for(entry.slide, place, name)
    if found is None and place is not None:
        stem = Path(entry.slide).stem
        raise SlideError(
            f"no region of this slide in the folder of regions; add {stem}.geojson, or "
            "score the slide without --roi",
            "ROI_INVALID",
        )
    return found


def check_regions(slides: Sequence[tuple[str, str]], roi: str | None) -> None:
    """Raises `UsageError` where `roi` gives two slides the region of one file.

    `slides` are pairs of the slide and its name in the results folder. A region drawn
    on one slide lies somewhere on any other, and the score would look right.
    """
    owners: dict[str, str] = {}
    for slide, name in slides:
        file = roi_for(slide, roi, name)
        if file is None:
            continue
        owner = owners.setdefault(os.path.realpath(file), name)
        if owner != name:
            raise UsageError(
                f"--roi {roi}: {file} would be the region of two slides, {owner!r} and "
                f"{name!r}; give a folder with <slide>.geojson for each, by these names"
            )
