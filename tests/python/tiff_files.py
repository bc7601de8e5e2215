# SPDX-License-Identifier: Apache-2.0
"""TIFF files made byte by byte, in every dialect, and Hamamatsu's NDPI among them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Rgb = npt.NDArray[np.uint8]

ASCII, SHORT, LONG, RATIONAL, SLONG, FLOAT, LONG8 = 2, 3, 4, 5, 9, 11, 16
CODES = {SHORT: "H", LONG: "I", RATIONAL: "I", SLONG: "i", FLOAT: "f", LONG8: "Q"}


@dataclass(frozen=True)
class Dialect:
    name: str
    little: bool = True
    big: bool = False
    ndpi: bool = False  # 8-byte offsets to directories, high words behind their entries

    def pack(self, code: str, *values: float) -> bytes:
        return struct.pack(("<" if self.little else ">") + code, *values)


CLASSIC_LE = Dialect("classic-le")
CLASSIC_BE = Dialect("classic-be", little=False)
BIG = Dialect("big", big=True)
NDPI = Dialect("ndpi", ndpi=True)


@dataclass
class Page:
    """A directory: `tags` maps a number to (type, values or raw bytes)."""

    tags: dict[int, tuple[int, Sequence[float] | bytes]]
    blobs: list[bytes]
    tiled: bool = True
    hole_bytes: int = 0  # left out before the blobs, for sparse files


@dataclass
class Layout:
    """Where everything of a file stands."""

    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    entries: dict[tuple[int, int], int] = field(default_factory=dict)  # (page, tag)
    blobs: dict[tuple[int, int], int] = field(default_factory=dict)  # (page, tile)
    end: int = 0

    def add(self, data: bytes) -> int:
        self.end += -self.end % 2  # classic TIFF wants even offsets
        at = self.end
        self.pieces.append((at, data))
        self.end += len(data)
        return at

    def to_bytes(self) -> bytes:
        out = bytearray(self.end)
        for at, data in self.pieces:
            out[at : at + len(data)] = data
        return bytes(out)

    def write(self, path: Path) -> None:
        """Holes between pieces stay holes."""
        with path.open("wb") as file:
            for at, data in self.pieces:
                file.seek(at)
                file.write(data)


def lay_out(dialect: Dialect, pages: Sequence[Page]) -> Layout:
    out = Layout()
    order = b"II" if dialect.little else b"MM"
    link = 4  # where the offset of the next directory goes
    if dialect.big:
        out.add(order + dialect.pack("HHHQ", 43, 8, 0, 0))
        link = 8
    else:
        out.add(order + dialect.pack("HQ" if dialect.ndpi else "HI", 42, 0))
    word = 8 if dialect.big else 4
    for index, page in enumerate(pages):
        out.end += page.hole_bytes
        offsets = [out.add(blob) if blob else 0 for blob in page.blobs]
        out.blobs |= {(index, i): at for i, at in enumerate(offsets)}
        tags = dict(page.tags)
        offset_type = LONG8 if dialect.big else LONG
        sizes = [len(blob) for blob in page.blobs]
        tags[324 if page.tiled else 273] = (offset_type, offsets)
        tags[325 if page.tiled else 279] = (LONG, sizes)
        head, high_words = b"", b""
        where = []
        for tag, (kind, values) in sorted(tags.items()):
            high = 0
            if isinstance(values, bytes):
                raw, count = values, len(values)
            else:
                if dialect.ndpi and kind == LONG and len(values) == 1:
                    high = int(values[0]) >> 32
                    values = [int(values[0]) & 0xFFFFFFFF]
                raw = b"".join(dialect.pack(CODES[kind], v) for v in values)
                count = len(values) // (2 if kind == RATIONAL else 1)
            if len(raw) > word:
                at = out.add(raw)
                high = at >> 32 if dialect.ndpi else 0
                low = at & 0xFFFFFFFF if dialect.ndpi else at
                raw = dialect.pack("Q" if dialect.big else "I", low)
            where.append(tag)
            head += dialect.pack("HHQ" if dialect.big else "HHI", tag, kind, count)
            head += raw.ljust(word, b"\0")
            high_words += dialect.pack("I", high)
        at = out.add(dialect.pack("Q" if dialect.big else "H", len(where)))
        first = out.end
        out.pieces.append((first, head))
        out.end += len(head)
        for i, tag in enumerate(where):
            out.entries[index, tag] = first + i * (20 if dialect.big else 12)
        wide = dialect.big or dialect.ndpi
        out.pieces.append((link, dialect.pack("Q" if wide else "I", at)))
        link = out.end
        out.pieces.append((link, bytes(8 if wide else 4)))
        out.end += 8 if wide else 4
        if dialect.ndpi:
            out.pieces.append((out.end, high_words))
            out.end += len(high_words)
    return out


def encode_jpeg(
    rgb: Rgb, *, quality: int = 90, restart_mcus: int = 0, subsampling: int | str = 0
) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(
        out,
        "jpeg",
        quality=quality,
        subsampling=subsampling,
        restart_marker_blocks=restart_mcus,
    )
    return out.getvalue()


def decode_jpeg(jpeg: bytes) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def split_jpeg(jpeg: bytes) -> tuple[bytes, list[bytes]]:
    """The header to the end of SOS, and the intervals without their markers."""
    at = 2
    while True:
        marker, size = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        at += 2 + size
        if marker == 0xDA:
            break
    header, body = jpeg[:at], jpeg[at:]
    intervals, begin, i = [], 0, 0
    while True:
        i = body.index(b"\xff", i)
        if body[i + 1] == 0:
            i += 2
            continue
        intervals.append(body[begin:i])
        if body[i + 1] == 0xD9:
            return header, intervals
        i = begin = i + 2


def join_jpeg(header: bytes, intervals: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """The stream, and where its intervals start."""
    out, starts = bytearray(header), []
    for i, interval in enumerate(intervals):
        starts.append(len(out))
        out += interval + bytes([0xFF, 0xD0 + i % 8])
    out[-1] = 0xD9
    return bytes(out), starts


def set_jpeg_size(header: bytes, width: int, height: int) -> bytes:
    at = header.index(b"\xff\xc0") + 5
    return header[:at] + struct.pack(">HH", height, width) + header[at + 4 :]


def ndpi_page(
    jpeg: bytes,
    size_px: tuple[int, int],
    *,
    magnification: float = 40.0,
    per_cm: int = 40000,
    index: bool = True,
    focal_plane: int = 0,
    hole_bytes: int = 0,
) -> Page:
    header, intervals = split_jpeg(jpeg)
    _, starts = join_jpeg(header, intervals)
    tags: dict[int, tuple[int, Sequence[float] | bytes]] = {
        256: (LONG, [size_px[0]]),
        257: (LONG, [size_px[1]]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),
        262: (SHORT, [6]),
        271: (ASCII, b"Hamamatsu\0"),
        277: (SHORT, [3]),
        278: (LONG, [size_px[1]]),
        282: (RATIONAL, [per_cm, 1]),
        283: (RATIONAL, [per_cm, 1]),
        296: (SHORT, [3]),
        65420: (SHORT, [1]),
        65421: (FLOAT, [magnification]),
        65424: (SLONG, [focal_plane]),
    }
    if index and len(intervals) > 1:
        tags[65426] = (LONG, starts)
    return Page(tags, [jpeg], tiled=False, hole_bytes=hole_bytes)


def ndpi_pages(
    rgb: Rgb, *, restart_mcus: int, subsampling: int = 0, index: bool = True
) -> list[Page]:
    """Levels 1, 2 and 4, and a macro whose pixels nobody may read."""
    pages = []
    height, width = rgb.shape[:2]
    for n in (1, 2, 4):
        part = np.ascontiguousarray(rgb[: height // n * n : n, : width // n * n : n])
        jpeg = encode_jpeg(
            part, restart_mcus=restart_mcus // n, subsampling=subsampling
        )
        size_px = (part.shape[1], part.shape[0])
        pages.append(
            ndpi_page(
                jpeg, size_px, magnification=40.0 / n, per_cm=40000 // n, index=index
            )
        )
    macro = encode_jpeg(np.full((30, 90, 3), 77, np.uint8))
    pages.append(ndpi_page(macro, (90, 30), magnification=-1.0, per_cm=156))
    return pages
