# SPDX-License-Identifier: Apache-2.0
"""Slides of every format: what opens, what is refused, and the pixels of both.

OpenSlide is the oracle. Both decode JPEG with libjpeg-turbo's default inverse DCT, but
not with the same build of it, so JPEG pixels may differ by `JPEG_TOLERANCE` gray
levels; Deflate pixels are equal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import openslide_bin
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from her2fast import _core
from her2fast.errors import SlideError

Rgb = npt.NDArray[np.uint8]

JPEG_TOLERANCE = 2


@pytest.fixture(scope="module", autouse=True)
def _openslide_library() -> None:
    library = Path(openslide_bin.__file__).parent / "libopenslide.so.1"
    _core.set_openslide_library(library)


def read_level(slide: Any, level: int) -> Rgb:
    """The whole of a level from its tiles, each of them "ok"."""
    width, height, tile_width, tile_height, _ = slide.levels[level]
    out = np.zeros((height, width, 3), np.uint8)
    for row in range(-(-height // tile_height)):
        for column in range(-(-width // tile_width)):
            tile, status = slide.read_tile(level, column, row)
            assert status == "ok"
            y, x = row * tile_height, column * tile_width
            out[y : y + tile_height, x : x + tile_width] = tile[
                : height - y, : width - x
            ]
    return out


def oracle_level(path: Path, level: int, tile_px: int | None = None) -> Rgb:
    """The whole of a level in one read from its origin, or from tiles.

    OpenSlide takes level-0 corners in whole pixels and resamples where a corner divided
    by the downsample is no whole level pixel: so one read is exact, and tiles of its
    adaptor are what a caller with those tiles gets.
    """
    with openslide.OpenSlide(path) as slide:
        width, height = slide.level_dimensions[level]
        down = slide.level_downsamples[level]
        step = tile_px or max(width, height)
        out = np.zeros((height, width, 3), np.uint8)
        for y in range(0, height, step):
            for x in range(0, width, step):
                size = (min(step, width - x), min(step, height - y))
                corner = (round(x * down), round(y * down))
                region = slide.read_region(corner, level, size)
                over = Image.new("RGBA", size, "white")
                over.alpha_composite(region)
                out[y : y + size[1], x : x + size[0]] = np.asarray(over)[..., :3]
    return out


def difference(a: Rgb, b: Rgb) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize(
    ("name", "fmt", "native", "level_count", "spacing_um"),
    [
        ("CMU-1-Small-Region.svs", "aperio", True, 1, 0.499),
        ("tiny16.svs", "aperio", True, 1, 0.499),
        ("absurd_mpp.tiff", "generic-tiff", True, 4, 352.77778),
        ("aperio_no_mpp.svs", "aperio", False, 2, None),  # JPEG 2000 tiles
        ("hamamatsu_fluorescence.ndpi", "hamamatsu", True, 4, 0.228175),
        ("sm_image.dcm", "dicom", False, 1, 0.499),
    ],
)
def test_shared_slides_open_with_the_pixels_of_openslide(
    shared_data: Path,
    name: str,
    fmt: str,
    native: bool,
    level_count: int,
    spacing_um: float | None,
) -> None:
    path = shared_data / "slides" / name
    slide = _core.Slide.open(path)
    assert slide.format == fmt
    assert slide.reader.startswith("native" if native else "openslide 4.")
    assert len(slide.levels) == level_count
    assert slide.spacing_um == (
        None if spacing_um is None else (spacing_um, spacing_um)
    )
    for level in range(level_count):
        oracle = oracle_level(path, level, None if native else slide.levels[level][2])
        assert difference(read_level(slide, level), oracle) <= JPEG_TOLERANCE


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RGB-8bit.czi", "UNSUPPORTED_FORMAT"),
        ("unopenable.tiff", "UNSUPPORTED_FORMAT"),
        ("broken.svs", "UNSUPPORTED_FORMAT"),
        ("sm_image_grayscale.dcm", "UNSUPPORTED_PIXELS"),
        ("smalltif.tif", "UNSUPPORTED_PIXELS"),
    ],
)
def test_refused_files_have_their_code_and_name_the_file(
    shared_data: Path, name: str, code: str
) -> None:
    with pytest.raises(SlideError, match=name) as caught:
        _core.Slide.open(shared_data / "refused" / name)
    assert (caught.value.code, caught.value.status) == (code, "refused")


@pytest.mark.parametrize(
    ("name", "code"),
    [("absurd_mpp.tiff", "BAD_SPACING"), ("aperio_no_mpp.svs", "NO_SPACING")],
)
def test_spacing_is_never_guessed(shared_data: Path, name: str, code: str) -> None:
    slide = _core.Slide.open(shared_data / "slides" / name)
    with pytest.raises(SlideError, match="--mpp") as caught:
        _core.resolve_frame(slide)
    assert caught.value.code == code
    spacing, source, _ = _core.resolve_frame(slide, 0.5)
    assert (spacing, source) == ((0.5, 0.5), "user")


def smooth_image(height: int, width: int, seed: int = 7) -> Rgb:
    """Smooth colors with some noise, so that JPEG has something to lose."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x / 37.0, y / 23.0, (x + y) / 51.0], axis=-1)
    values = 127.5 + 100 * np.sin(waves) + rng.normal(0, 6, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def box_mean(rgb: Rgb, n: int) -> Rgb:
    """The slow twin: the mean of n x n blocks, rounded half up, remainders cut."""
    height, width = rgb.shape[0] // n, rgb.shape[1] // n
    blocks = rgb[: height * n, : width * n].reshape(height, n, width, n, 3)
    sums = blocks.astype(np.int64).sum(axis=(1, 3))
    return ((2 * sums + n * n) // (2 * n * n)).astype(np.uint8)


@pytest.mark.parametrize("big_tiff", [False, True])
@pytest.mark.parametrize("aperio", [False, True])
@pytest.mark.parametrize("jpeg_quality", [90, 0])
def test_written_pyramids_open_everywhere_with_equal_pixels(
    tmp_path: Path, jpeg_quality: int, aperio: bool, big_tiff: bool
) -> None:
    rgb = smooth_image(611, 1003)
    path = tmp_path / ("slide.svs" if aperio else "slide.tiff")
    _core.write_pyramid(
        path,
        rgb,
        spacing_um=0.2428,
        tile_px=128,
        jpeg_quality=jpeg_quality,
        downsamples=[1, 2, 3, 4, 16],
        aperio=aperio,
        big_tiff=big_tiff,
    )
    slide = _core.Slide.open(path)
    vendor = "aperio" if aperio else "generic-tiff"
    assert (slide.format, slide.reader) == (vendor, "native")
    assert slide.spacing_um == (0.2428, 0.2428)
    assert slide.spacing_source == ("vendor" if aperio else "tiff-resolution")
    assert [level[:2] for level in slide.levels] == [
        (1003, 611),
        (501, 305),
        (334, 203),
        (250, 152),
    ]
    assert [level[4] for level in slide.levels] == [1.0, 2.0, 3.0, 4.0]
    with openslide.OpenSlide(path) as oracle:
        assert oracle.properties["openslide.vendor"] == vendor
        assert oracle.level_count == len(slide.levels)
        mpp = float(oracle.properties["openslide.mpp-x"])
        assert mpp == pytest.approx(0.2428, rel=1e-6)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff == big_tiff
        pages = [page.asarray() for page in tiff.pages]
    for index, level in enumerate(slide.levels):
        pixels = read_level(slide, index)
        tolerance = JPEG_TOLERANCE if jpeg_quality else 0
        assert difference(pixels, oracle_level(path, index)) <= tolerance
        assert difference(pixels, pages[index]) <= tolerance
        expected = box_mean(rgb, round(level[4]))
        if jpeg_quality == 0:
            np.testing.assert_array_equal(pixels, expected)
        else:
            error = np.abs(pixels.astype(int) - expected.astype(int)).mean()
            assert error < 6.0  # noise at quality 90 with half the color resolution


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    tile_px=st.sampled_from([64, 80, 128]),
    more=st.sets(st.integers(2, 7), max_size=3),
    aperio=st.booleans(),
    big_tiff=st.booleans(),
    workers=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_lossless_levels_equal_the_box_mean(
    tmp_path: Path,
    height: int,
    width: int,
    tile_px: int,
    more: set[int],
    aperio: bool,
    big_tiff: bool,
    workers: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path / "slide.tiff"
    downsamples = [1, *sorted(more)]
    _core.write_pyramid(
        path,
        rgb,
        spacing_um=0.5,
        tile_px=tile_px,
        jpeg_quality=0,
        downsamples=downsamples,
        aperio=aperio,
        big_tiff=big_tiff,
        workers=workers,
    )
    kept = [n for n in downsamples if n == 1 or min(height, width) // n >= tile_px]
    slide = _core.Slide.open(path)
    assert [level[4] for level in slide.levels] == kept
    for index, n in enumerate(kept):
        np.testing.assert_array_equal(read_level(slide, index), box_mean(rgb, n))


def test_blocks_round_half_up(tmp_path: Path) -> None:
    """By hand: 0, 0, 1, 1 is 0.5, which is 1; 0, 0, 0, 1 is 0.25, which is 0."""
    rgb = np.zeros((128, 128, 3), np.uint8)
    rgb[1, 0:2] = 1
    rgb[1, 2] = 1
    rgb[126:, 126:] = 255
    path = tmp_path / "slide.tiff"
    _core.write_pyramid(
        path, rgb, spacing_um=0.5, tile_px=64, jpeg_quality=0, downsamples=[1, 2]
    )
    half = read_level(_core.Slide.open(path), 1)
    assert half[0, :3, 0].tolist() == [1, 0, 0]
    assert half[63, 63].tolist() == [255, 255, 255]


def test_written_bytes_do_not_depend_on_workers(tmp_path: Path) -> None:
    rgb = smooth_image(300, 700)
    contents = set()
    for workers in (1, 2, 5):
        path = tmp_path / f"{workers}.tiff"
        _core.write_pyramid(path, rgb, spacing_um=0.5, tile_px=64, workers=workers)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    rows = tmp_path / "rows.tiff"
    _core.write_pyramid_rows(
        rows, 700, 300, lambda y, n: rgb[y : y + n], spacing_um=0.5, tile_px=64
    )
    assert rows.read_bytes() in contents
    assert sorted(os.listdir(tmp_path)) == ["1.tiff", "2.tiff", "5.tiff", "rows.tiff"]
