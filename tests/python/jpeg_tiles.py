# SPDX-License-Identifier: Apache-2.0
"""JPEG tiles for decoders on a GPU: drawn, taken out of a slide, and compared.

Used by `test_cuda_jpeg.py` and `bench/gpu/decode.py`.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]

#: nvJPEG against libjpeg-turbo, in gray levels: at most, and below in the mean.
MOST_APART, MEAN_APART = 3, 0.5


@dataclass(frozen=True)
class Apart:
    """How far pixels lie from others, in gray levels."""

    largest: int
    mean: float

    @property
    def near(self) -> bool:
        return self.largest <= MOST_APART and self.mean < MEAN_APART


def apart(got: Rgb, wanted: Rgb) -> Apart:
    assert got.shape == wanted.shape
    steps = np.abs(got.astype(np.int16) - wanted)
    return Apart(int(steps.max(initial=0)), float(steps.mean()) if steps.size else 0.0)


def picture(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Stains in soft and hard shapes, with noise: every kind of step between colors."""
    colors = np.array([(243, 243, 243), (180, 90, 20), (90, 80, 160), (206, 178, 155)])
    y, x = np.mgrid[:height, :width]
    soft = np.sin(x / rng.uniform(3, 30)) * np.cos(y / rng.uniform(3, 30))
    hard = rng.integers(0, 4, (height // 9 + 1, width // 9 + 1)).repeat(9, 0)
    kinds = hard.repeat(9, 1)[:height, :width]
    rgb = colors[kinds] + 25 * soft[..., None] + rng.normal(0, 4, (height, width, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Tiles:
    """Abbreviated streams of a slide's level 0, row by row, and what they share."""

    tables: bytes
    streams: list[bytes]
    tile_px: int
    columns: int


def slide_tiles(path: Path) -> Tiles:
    """Of a file that the project's writer made: classic TIFF, little-endian, tiled."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    found: dict[int, tuple[int, ...]] = {}
    kinds = {3: "H", 4: "I", 7: "B"}
    for i in range(entries):
        entry = at + 2 + 12 * i
        tag, kind, count = struct.unpack_from("<HHI", data, entry)
        if kind not in kinds:
            continue
        size = struct.calcsize(kinds[kind]) * count
        begin = entry + 8
        if size > 4:
            (begin,) = struct.unpack_from("<I", data, begin)
        found[tag] = struct.unpack_from(f"<{count}{kinds[kind]}", data, begin)
    assert found[322] == found[323]
    return Tiles(
        bytes(found[347]),
        [
            data[begin : begin + size]
            for begin, size in zip(found[324], found[325], strict=True)
        ],
        found[322][0],
        -(-found[256][0] // found[322][0]),
    )


def joined(tiles: Tiles, pixels: Rgb) -> Rgb:
    """The level of (rows * tile_px, columns * tile_px) px."""
    side, columns = tiles.tile_px, tiles.columns
    grid = pixels.reshape(-1, columns, side, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid).reshape(-1, columns * side, 3)


class FakeNvjpeg:
    """What a test tells the stand-in for nvJPEG (tests/fake_nvjpeg)."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)

    def reset(self) -> None:
        self._library.fake_nvjpeg_reset()

    def set(self, what: str, value: int) -> None:
        self._library.fake_nvjpeg_set(what.encode(), value)

    def fail(self, function: str, status: int, at: int = 1) -> None:
        self._library.fake_nvjpeg_fail(function.encode(), status, at)

    def seen(self, what: str) -> int:
        return int(self._library.fake_nvjpeg_seen(what.encode()))
