# SPDX-License-Identifier: Apache-2.0
"""The slides that are read, and which tiles of them make a case."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from her2fast import _core

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))  # writes NDPI

import tiff_files as tf  # noqa: E402

SOURCE_TILE_PX = 256
CROP_PX = 5376  # 21 tiles: what every core has
GRID = 4  # cores a side of a slide
SIDE_PX = GRID * CROP_PX
NDPI_SIDE_PX = 2 * CROP_PX
NDPI_INTERVAL_PX = 2688  # between restart markers; scanners write 2048 to 4096
NOISY_SIDE_PX = CROP_PX
SPACING_UM = 0.25

Rgb = npt.NDArray[np.uint8]
Coords = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One question: which source pixels become a tile."""

    name: str
    path: Path
    level: int  # read by the contenders without a resampler
    down: int  # of that level
    source_px: int  # of a tile, at that level
    tile_px: int  # what comes out; smaller means the mean of source pixels
    mpp: float  # of level 0: the slide's own, or one that makes the case
    spacing_um: float  # of the tiles
    corners_px: Coords  # (n, 2), level-0 px
    aligned: bool = True  # source tiles are whole

    @property
    def resized(self) -> bool:
        return self.source_px != self.tile_px


def shared_data() -> Path:
    for candidate in (
        os.environ.get("HER2FAST_TEST_DATA"),
        ROOT.parent / "shared/data",
    ):
        if candidate and (Path(candidate) / "her2_cores").is_dir():
            return Path(candidate)
    sys.exit("need the folder of real cores: set HER2FAST_TEST_DATA")


def load_cores() -> list[Rgb]:
    files = sorted((shared_data() / "her2_cores").glob("*_a.jpg"))[: GRID * GRID]
    return [
        np.asarray(Image.open(file).convert("RGB"))[:CROP_PX, :CROP_PX]
        for file in files
    ]


def write_svs(path: Path, cores: list[Rgb], downsamples: list[int]) -> None:
    """GRID x GRID real cores in one SVS of JPEG tiles."""

    def rows(y_px: int, count: int) -> Rgb:
        parts = []
        for y in range(y_px, y_px + count):
            row, inner = divmod(y, CROP_PX)
            line = [cores[(row * GRID + k) % len(cores)][inner] for k in range(GRID)]
            parts.append(np.concatenate(line))
        return np.stack(parts)

    _core.write_pyramid_rows(
        str(path),
        SIDE_PX,
        SIDE_PX,
        rows,
        spacing_um=SPACING_UM,
        jpeg_quality=85,
        downsamples=downsamples,
        aperio=True,
    )


def write_noisy_svs(path: Path, core: Rgb) -> None:
    """The same tissue with a camera's noise at quality 90: many bits per pixel."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 6, core.shape).astype(np.float32)
    rgb = np.clip(core + noise, 0, 255).astype(np.uint8)
    _core.write_pyramid_rows(
        str(path),
        NOISY_SIDE_PX,
        NOISY_SIDE_PX,
        lambda y, n: rgb[y : y + n],
        spacing_um=SPACING_UM,
        jpeg_quality=90,
        downsamples=[1],
        aperio=True,
    )


def ndpi_page(rgb: Rgb, down: int) -> tf.Page:
    """A level as scanners write it: one JPEG of full color, restart markers, index."""
    height, width = rgb.shape[:2]
    out = io.BytesIO()
    Image.fromarray(rgb).save(
        out,
        "jpeg",
        quality=80,
        subsampling=0,
        restart_marker_blocks=NDPI_INTERVAL_PX // 8 // down,
    )
    jpeg = out.getvalue()
    at = 2
    while True:
        is_scan = jpeg[at + 1] == 0xDA
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if is_scan:
            break
    codes = np.frombuffer(jpeg, np.uint8)
    marks = np.flatnonzero((codes[:-1] == 0xFF) & (codes[1:] & 0xF8 == 0xD0))
    starts = [at, *(int(mark) + 2 for mark in marks if mark >= at)]
    per_cm = round(1e4 / (SPACING_UM * down))
    return tf.Page(
        {
            256: (tf.LONG, [width]),
            257: (tf.LONG, [height]),
            258: (tf.SHORT, [8, 8, 8]),
            259: (tf.SHORT, [7]),
            262: (tf.SHORT, [6]),
            271: (tf.ASCII, b"Hamamatsu\0"),
            277: (tf.SHORT, [3]),
            278: (tf.LONG, [height]),
            282: (tf.RATIONAL, [per_cm, 1]),
            283: (tf.RATIONAL, [per_cm, 1]),
            296: (tf.SHORT, [3]),
            65420: (tf.SHORT, [1]),
            65421: (tf.FLOAT, [40.0 / down]),
            65424: (tf.SLONG, [0]),
            65426: (tf.LONG, starts),
        },
        [jpeg],
        tiled=False,
    )


def write_ndpi(path: Path, cores: list[Rgb]) -> None:
    rgb = np.concatenate(
        [np.concatenate(cores[:2], axis=1), np.concatenate(cores[2:4], axis=1)]
    )
    quarter = np.asarray(Image.fromarray(rgb).reduce(4))
    tf.lay_out(tf.NDPI, [ndpi_page(rgb, 1), ndpi_page(quarter, 4)]).write(path)


def make_slides(folder: Path) -> dict[str, Path]:
    """Writes what is not there yet."""
    names = ("cores.svs", "halves.svs", "single.svs", "noisy.svs", "cores.ndpi")
    paths = {name: folder / name for name in names}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        cores = load_cores()
        for name, downs in (
            ("cores.svs", [1, 4, 16]),
            ("halves.svs", [1, 2, 4, 8]),
            ("single.svs", [1]),
        ):
            if name in missing:
                write_svs(paths[name], cores, downs)
        if "noisy.svs" in missing:
            write_noisy_svs(paths["noisy.svs"], cores[0])
        if "cores.ndpi" in missing:
            write_ndpi(paths["cores.ndpi"], cores)
    return paths


def grid(step_px: int, side_px: int, count: int) -> Coords:
    """Neighboring tiles row by row, as a grid over a slide is read."""
    across = side_px // step_px
    index = np.arange(min(count, across * across), dtype=np.int64)
    return np.stack([index % across * step_px, index // across * step_px], axis=1)


def within(side_px: int, source_px: int, count: int) -> Coords:
    """Random places in a square region of 10 % of the slide."""
    rng = np.random.default_rng(11)
    roi_px = round(side_px * 0.1**0.5)
    corner = (side_px - roi_px) // 2
    return corner + rng.integers(0, roi_px - source_px, (count, 2))


def make_cases(paths: dict[str, Path], few: int = 1) -> list[Case]:
    """`few` divides the number of tiles."""
    svs, halves, single = (paths[k] for k in ("cores.svs", "halves.svs", "single.svs"))
    noisy, ndpi = paths["noisy.svs"], paths["cores.ndpi"]
    u, s = SPACING_UM, SIDE_PX
    n, small = NDPI_SIDE_PX, NOISY_SIDE_PX

    def tiles(step_px: int, side_px: int, count: int) -> Coords:
        return grid(step_px, side_px, max(64, count // few))

    return [
        Case("level-256", svs, 0, 1, 256, 256, u, u, tiles(256, s, 2000)),
        Case("level-512", svs, 0, 1, 512, 512, u, u, tiles(512, s, 400)),
        # 0.2 um/px at level 0: the 1/4 level has 0.8, so 320 px become 256.
        Case("um-1-4-16", svs, 1, 4, 320, 256, 0.2, 1.0, tiles(1280, s, 256)),
        Case("um-1-2-4-8", halves, 2, 4, 320, 256, 0.2, 1.0, tiles(1280, s, 256)),
        Case("half", svs, 0, 1, 512, 256, u, 2 * u, tiles(512, s, 400)),
        Case("quarter", single, 0, 1, 1024, 256, u, 4 * u, tiles(1024, s, 100)),
        Case(
            "random-roi",
            svs,
            0,
            1,
            256,
            256,
            u,
            u,
            within(s, 256, max(64, 400 // few)),
            aligned=False,
        ),
        Case("high-bit-rate", noisy, 0, 1, 256, 256, u, u, tiles(256, small, 400)),
        Case("ndpi", ndpi, 0, 1, 256, 256, u, u, tiles(256, n, 1200)),
        Case("ndpi-half", ndpi, 0, 1, 512, 256, u, 2 * u, tiles(512, n, 300)),
    ]
