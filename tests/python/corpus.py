# SPDX-License-Identifier: Apache-2.0
"""Malformed slides by recipe: over 1,000 files made in memory, nothing stored.

{classic little-endian, classic big-endian, BigTIFF, NDPI} x {operation} x {19 tags} in
the first directory and in the second, edits of JPEG markers, truncation at 200 lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tiff_files as tf

Rgb = npt.NDArray[np.uint8]

DIALECTS = (tf.CLASSIC_LE, tf.CLASSIC_BE, tf.BIG, tf.NDPI)
TILE_PX = 64
SIDE_PX = 192
TRUNCATIONS = 200
UNUSED_TAG = 65000  # what a dropped tag becomes, and what a duplicate replaces

OPERATIONS = (
    "drop",
    "duplicate",
    "retype-double",
    "retype-unknown",
    "count-0",
    "count-huge",
    "value-0",
    "value-1",
    "value-65535",
    "value-4294967295",
    "offset-past-end",
    "offset-into-header",
    "offset-onto-tag",
)
JPEG_EDITS = (
    "sof-twice",
    "components-1",
    "components-2",
    "components-4",
    "12-bit",
    "dht-missing",
    "dqt-zero",
    "eoi-early",
)


@dataclass(frozen=True)
class Case:
    dialect: tf.Dialect
    kind: str  # "tag", "jpeg" or "cut"
    operation: str
    page: int = 0
    tag: int = 0

    @property
    def name(self) -> str:
        where = f" page {self.page} tag {self.tag}" if self.kind == "tag" else ""
        return f"{self.dialect.name} {self.operation}{where}"


def picture() -> Rgb:
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    waves = np.stack([x / 17.0, y / 13.0, (x + y) / 31.0], axis=-1)
    noise = np.random.default_rng(2).normal(0, 5, waves.shape)
    return np.clip(127.5 + 90 * np.sin(waves) + noise, 0, 255).astype(np.uint8)


def tiled_page(rgb: Rgb, n: int) -> tf.Page:
    height, width = rgb.shape[:2]
    blobs = []
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
            part = rgb[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            blobs.append(tf.encode_jpeg(tile))
    return tf.Page(
        {
            254: (tf.LONG, [0 if n == 1 else 1]),
            256: (tf.LONG, [width]),
            257: (tf.LONG, [height]),
            258: (tf.SHORT, [8, 8, 8]),
            259: (tf.SHORT, [7]),
            262: (tf.SHORT, [6]),
            270: (tf.ASCII, b"a slide of no vendor\0"),
            277: (tf.SHORT, [3]),
            282: (tf.RATIONAL, [40000 // n, 1]),
            283: (tf.RATIONAL, [40000 // n, 1]),
            284: (tf.SHORT, [1]),
            296: (tf.SHORT, [3]),
            305: (tf.ASCII, b"corpus\0"),
            322: (tf.SHORT, [TILE_PX]),
            323: (tf.SHORT, [TILE_PX]),
            339: (tf.SHORT, [1, 1, 1]),
            530: (tf.SHORT, [1, 1]),
            UNUSED_TAG: (tf.LONG, [0]),
        },
        blobs,
    )


def pages(dialect: tf.Dialect) -> list[tf.Page]:
    """A sound slide of two levels."""
    rgb = picture()
    if not dialect.ndpi:
        half = np.ascontiguousarray(rgb[::2, ::2])
        return [tiled_page(rgb, 1), tiled_page(half, 2)]
    out = tf.ndpi_pages(rgb, restart_mcus=8)[:2]
    for page in out:
        page.tags[254] = (tf.LONG, [0])
        page.tags[65432] = (tf.LONG, [0] * len(page.tags[65426][1]))
        page.tags[UNUSED_TAG] = (tf.LONG, [0])
    return out


def tags_of(layout: tf.Layout) -> list[int]:
    tags = [tag for page, tag in layout.entries if page == 0]
    return [tag for tag in tags if tag != UNUSED_TAG]


def damage(case: Case, layout: tf.Layout, whole: bytes) -> bytes:
    dialect = case.dialect
    data = bytearray(whole)
    entry = layout.entries[case.page, case.tag]
    word, size = ("Q", 20) if dialect.big else ("I", 12)
    value_at = entry + (12 if dialect.big else 8)
    count_code, value_bytes = word, size - (value_at - entry)

    def put(at: int, code: str, value: int) -> None:
        packed = dialect.pack(code, value)
        data[at : at + len(packed)] = packed

    def kind_of() -> int:
        order = "little" if dialect.little else "big"
        return int.from_bytes(data[entry + 2 : entry + 4], order)  # type: ignore[arg-type]

    match case.operation.split("-"):
        case ["drop"]:
            put(entry, "H", UNUSED_TAG)
        case ["duplicate"]:
            other = layout.entries[case.page, UNUSED_TAG]
            data[other : other + size] = data[entry : entry + size]
        case ["retype", "double"]:
            put(entry + 2, "H", 12)
        case ["retype", "unknown"]:
            put(entry + 2, "H", 99)
        case ["count", "0"]:
            put(entry + 4, count_code, 0)
        case ["count", "huge"]:
            put(entry + 4, count_code, 0xFFFFFFF0)
        case ["value", text]:
            value = int(text)
            data[value_at : value_at + value_bytes] = bytes(value_bytes)
            if kind_of() == tf.SHORT:
                put(value_at, "H", min(value, 65535))
            elif kind_of() == tf.FLOAT:
                put(value_at, "f", value)
            else:
                put(value_at, "I" if kind_of() == tf.LONG else word, value)
        case ["offset", *place]:
            units = {tf.ASCII: 1, tf.SHORT: 2, tf.RATIONAL: 8, tf.LONG8: 8}
            unit = units.get(kind_of(), 4)
            order = "little" if dialect.little else "big"
            count = int.from_bytes(data[entry + 4 : value_at], order)  # type: ignore[arg-type]
            if count * unit <= value_bytes:  # else it is an offset already
                put(entry + 4, count_code, value_bytes // unit + 1)
            target = {
                "past": len(data) + 100,
                "into": 2,
                "onto": layout.entries[case.page, 256],
            }[place[0]]
            put(value_at, word, target)
        case _:
            raise ValueError(case.operation)
    return bytes(data)


# What a case may end as: codes of opening; "opens", with the sound slide's levels;
# "fewer", without the damaged second level; "flagged", with tiles that are not ok; or a
# code of the spacing, of a slide that opens.
SIDES = {256, 257}
STRUCTURE = {322, 323, 324, 325, 273, 279}
PIXELS = {258, 259, 262, 277, 284, 339}
SPACING = {282, 283, 296}
INDEX = {65426, 65432}
TEXTS = {270, 305}  # looked at for vendors' names
UNREAD = {254, 271, 278, 530, 65420}

BROKEN = frozenset({"BAD_HEADER", "LIMIT_EXCEEDED", "TRUNCATED"})
OTHER_PIXELS = frozenset({"UNSUPPORTED_PIXELS", "UNSUPPORTED_FORMAT"})
# Its bytes now come from elsewhere in the file, so what they say is chance.
BY_CHANCE = {"retype-double", "offset-into-header", "offset-onto-tag"}


def expected(case: Case) -> frozenset[str]:
    if case.kind == "cut":
        # Too short for a header of its dialect: no format is recognized.
        short = int(case.operation[4:]) < 4
        return frozenset({"UNSUPPORTED_FORMAT" if short else "TRUNCATED"})
    if case.kind == "jpeg":
        whole = case.operation.startswith(("sof", "comp", "12"))
        # NDPI's one header serves all tiles: what it says is known at open.
        broken = case.dialect.ndpi and whole
        return frozenset({"BAD_HEADER" if broken else "flagged"})
    return expected_of_tag(case)


def expected_of_tag(case: Case) -> frozenset[str]:
    tag, operation, first = case.tag, case.operation, case.page == 0
    ndpi, by_chance = case.dialect.ndpi, case.operation in BY_CHANCE
    if operation in ("count-huge", "offset-past-end"):
        return frozenset({"TRUNCATED"})
    if tag in UNREAD:
        read = tag == 254 and not first and not ndpi  # masks are told by it
        if read and operation in ("duplicate", "retype-unknown", "count-0"):
            return frozenset({"BAD_HEADER"})
        if read and operation.startswith("value"):
            return frozenset({"opens", "fewer"})
        if tag == 65420 and operation == "drop" and first:
            return frozenset({"UNSUPPORTED_FORMAT"})  # no NDPI any more: a strip
        if by_chance or (tag == 271 and operation.startswith("value")):
            chance = {"BAD_HEADER", "fewer"} if read else set()
            return frozenset({"opens", "TRUNCATED"} | chance)
        return frozenset({"opens"})
    if tag in SIDES | STRUCTURE:
        if operation in ("drop", "duplicate", "retype-unknown", "count-0"):
            return frozenset({"BAD_HEADER"})
        return BROKEN | ({"fewer"} if tag in SIDES and not first else set())
    if tag in SPACING and not first:
        return frozenset({"opens", *(["TRUNCATED"] if by_chance else [])}) | (
            # Values that stand elsewhere: the new place may lie beyond the end.
            {"TRUNCATED"} if operation.startswith("value") else set()
        )
    if operation == "duplicate":
        # A generic second level's text is not read.
        return frozenset({"opens" if tag in TEXTS and not first else "BAD_HEADER"})
    if tag in SPACING:
        refused = {"NO_SPACING", "BAD_SPACING"}
        if operation == "drop":
            # TIFF's own default is the inch; NDPI always states its unit.
            inch = tag == 296 and not ndpi
            return frozenset({"INCH" if inch else "NO_SPACING"})
        if tag == 296 and operation in ("retype-unknown", "count-0"):
            return frozenset({"BAD_HEADER"})
        if operation in ("retype-unknown", "count-0"):
            return frozenset({"NO_SPACING"})
        return frozenset(
            refused | {"TRUNCATED", *(["BAD_HEADER"] if tag == 296 else [])}
        )
    if tag in TEXTS:
        moved = by_chance or operation.startswith("value")
        return frozenset({"opens", *(["TRUNCATED"] if moved else [])})
    if tag in PIXELS:
        return expected_of_pixels(case)
    if tag in INDEX:  # without it, markers are found by scanning
        if operation in ("drop", "count-0"):
            return frozenset({"opens"})
        if operation == "retype-unknown":
            return frozenset({"BAD_HEADER"})
        return frozenset({"opens", "TRUNCATED", *(["BAD_HEADER"] if by_chance else [])})
    # 65421 magnification and 65424 focal plane: whether it is a level.
    lost = "BAD_HEADER" if first else "fewer"
    if by_chance:
        return frozenset({"opens", "TRUNCATED", "BAD_HEADER", lost})
    if tag == 65421:
        is_level = operation.startswith("value") and operation != "value-0"
        return frozenset({"opens" if is_level else lost})
    if operation in ("drop", "value-0"):
        return frozenset({"opens"})
    value = operation.startswith("value")
    return frozenset({lost if value else "BAD_HEADER"})


def expected_of_pixels(case: Case) -> frozenset[str]:
    tag, operation, first = case.tag, case.operation, case.page == 0
    # A second level of a generic TIFF that cannot be read is left out.
    refused = OTHER_PIXELS if first or case.dialect.ndpi else frozenset({"fewer"})
    if operation == "drop":
        if tag in (284, 339):
            return frozenset({"opens"})  # their defaults are the right values
        if tag == 262:
            return frozenset({"BAD_HEADER"})
        if tag == 259 and case.dialect.ndpi:
            return refused | {"opens"}  # OpenSlide does not ask
        return refused
    if operation == "count-0" and tag in (258, 339):
        return frozenset({"opens"})  # the JPEG itself says it
    if operation in ("retype-unknown", "count-0"):
        return frozenset({"BAD_HEADER"})
    if operation in BY_CHANCE:
        return refused | BROKEN | {"opens"}
    if tag == 284 and operation == "value-1":
        return frozenset({"opens"})
    if tag == 259 and case.dialect.ndpi:
        return refused | {"opens"}
    if tag in (258, 339):  # three of them: the value is where they stand
        return refused | {"TRUNCATED"}
    return refused


def segments(jpeg: bytes) -> list[tuple[int, bytes]]:
    """(marker, segment with its marker) up to SOS, whose entry holds all the rest."""
    out, at = [], 2
    while True:
        marker = jpeg[at + 1]
        size = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            return [*out, (marker, jpeg[at:])]
        out.append((marker, jpeg[at : at + size]))
        at += size


def edit_jpeg(jpeg: bytes, edit: str) -> bytes:
    parts = segments(jpeg)
    out = b"\xff\xd8"
    for marker, part in parts:
        if marker == 0xC0:
            count = {"components-1": 1, "components-2": 2, "components-4": 4}.get(edit)
            if edit == "sof-twice":
                part += part
            elif edit == "12-bit":
                part = part[:4] + b"\x0c" + part[5:]
            elif count is not None:
                table = (part[10:] + b"\x04\x11\x00")[: 3 * count]
                part = part[:2] + (8 + 3 * count).to_bytes(2, "big") + part[4:9]
                part += bytes([count]) + table
        elif marker == 0xC4 and edit == "dht-missing":
            continue
        elif marker == 0xDB and edit == "dqt-zero":
            part = part[:5] + bytes(len(part) - 5)
        elif marker == 0xDA and edit == "eoi-early":
            part = part[: len(part) // 2].rstrip(b"\xff") + b"\xff\xd9"
        out += part
    return out


def jpeg_case(case: Case) -> bytes:
    made = pages(case.dialect)
    made[0].blobs[0] = edit_jpeg(made[0].blobs[0], case.operation)
    return tf.lay_out(case.dialect, made).to_bytes()


def cases(dialect: tf.Dialect) -> Iterator[tuple[Case, bytes]]:
    layout = tf.lay_out(dialect, pages(dialect))
    whole = layout.to_bytes()
    for page in (0, 1):
        for tag in tags_of(layout):
            for operation in OPERATIONS:
                case = Case(dialect, "tag", operation, page, tag)
                yield case, damage(case, layout, whole)
    for edit in JPEG_EDITS:
        case = Case(dialect, "jpeg", edit)
        yield case, jpeg_case(case)
    for size in np.linspace(0, len(whole) - 1, TRUNCATIONS).astype(int):
        yield Case(dialect, "cut", f"cut-{size}"), whole[:size]
