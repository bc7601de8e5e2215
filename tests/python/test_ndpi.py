# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu NDPI: pixels of OpenSlide and of the whole JPEG, with an index and without.

On files with full color resolution both oracles are matched exactly. Where color is
subsampled, the decoder interpolates it across rows and columns of a stream, and a
tile's border has no neighbor: there the whole JPEG differs, by what interpolation adds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tiff_files as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from her2fast import _core
from her2fast.errors import SlideError

Rgb = npt.NDArray[np.uint8]

# This build of libjpeg-turbo against Pillow's and OpenSlide's; 0 has been seen so far.
JPEG_TOLERANCE = 1


def read_level(slide: Any, level: int, n: int = 1, status: str = "ok") -> Rgb:
    width, height, tile_width, tile_height, _ = slide.levels[level]
    out = np.zeros((-(-height // n), -(-width // n), 3), np.uint8)
    for row in range(-(-height // tile_height)):
        for column in range(-(-width // tile_width)):
            tile, got = slide.read_tile(level, column, row, n)
            assert got == status
            y, x = row * tile_height // n, column * tile_width // n
            part = out[y : y + tile.shape[0], x : x + tile.shape[1]]
            part[:] = tile[: part.shape[0], : part.shape[1]]
    return out


def difference(a: Rgb, b: Rgb) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def image(width: int, height: int, seed: int = 3) -> Rgb:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x / 17.0, y / 13.0, (x + y) / 31.0], axis=-1)
    values = 127.5 + 90 * np.sin(waves) + rng.normal(0, 5, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def code_of_open(path: Path) -> str:
    with pytest.raises(SlideError) as caught:
        _core.Slide.open(path)
    return caught.value.code


def test_the_shared_slide_equals_openslide(shared_data: Path) -> None:
    """OpenSlide's last three levels are the fourth, decoded at 1/2, 1/4 and 1/8."""
    path = shared_data / "slides/hamamatsu_fluorescence.ndpi"
    slide = _core.Slide.open(path)
    assert (slide.format, slide.reader) == ("hamamatsu", "native")
    assert slide.properties == {"hamamatsu.SourceLens": "40"}
    assert slide.spacing_um == (0.228175, 0.228175)
    with openslide.OpenSlide(path) as oracle:
        assert float(oracle.properties["openslide.mpp-x"]) == pytest.approx(0.228175)
        for level, size in enumerate(oracle.level_dimensions):
            if level < 2:
                continue  # test_slide_formats.py compares them
            native, n = min(level, 3), 1 << max(0, level - 3)
            expected = np.asarray(oracle.read_region((0, 0), level, size))
            pixels = read_level(slide, native, n)
            assert difference(pixels, expected[..., :3]) <= JPEG_TOLERANCE


def test_random_regions_equal_openslide(shared_data: Path) -> None:
    path = shared_data / "slides/hamamatsu_fluorescence.ndpi"
    slide = _core.Slide.open(path)
    spacing = slide.spacing_um
    reader = _core.TileReader(slide, spacing)
    rng = np.random.default_rng(5)
    with openslide.OpenSlide(path) as oracle:
        for _ in range(20):
            x, y = int(rng.integers(0, 3700)), int(rng.integers(0, 4600))
            got, status = reader.read(x, y, 200, 150, spacing[0])
            expected = np.asarray(oracle.read_region((x, y), 0, (200, 150)))[..., :3]
            assert (status, difference(got, expected) <= JPEG_TOLERANCE) == ("ok", True)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("restart_mcus", [16, 96])  # six in a row, and one
def test_written_files_equal_openslide_and_the_whole_jpeg(
    tmp_path: Path, restart_mcus: int, indexed: bool
) -> None:
    pages = tf.ndpi_pages(image(768, 416), restart_mcus=restart_mcus, index=indexed)
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, pages).write(path)
    slide = _core.Slide.open(path)
    assert (slide.format, slide.reader) == ("hamamatsu", "native")
    assert slide.spacing_um == (0.25, 0.25)
    assert [level[:2] for level in slide.levels] == [(768, 416), (384, 208), (192, 104)]
    assert [level[4] for level in slide.levels] == [1.0, 2.0, 4.0]
    with openslide.OpenSlide(path) as oracle:
        for level, page in enumerate(pages[:3]):
            whole = tf.decode_jpeg(page.blobs[0])
            pixels = read_level(slide, level)
            assert difference(pixels, whole) <= JPEG_TOLERANCE
            size = (whole.shape[1], whole.shape[0])
            region = np.asarray(oracle.read_region((0, 0), level, size))[..., :3]
            assert difference(pixels, region) <= JPEG_TOLERANCE


@pytest.mark.parametrize("subsampling", [1, 2])
def test_subsampled_color_differs_at_borders_of_tiles_only(
    tmp_path: Path, subsampling: int
) -> None:
    jpeg = tf.encode_jpeg(image(2048, 1024), restart_mcus=64, subsampling=subsampling)
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [tf.ndpi_page(jpeg, (2048, 1024))]).write(path)
    slide = _core.Slide.open(path)
    tile_width, tile_height = slide.levels[0][2:4]
    assert (tile_width, tile_height) == (1024, 256)
    pixels, whole = read_level(slide, 0), tf.decode_jpeg(jpeg)
    error = np.abs(pixels.astype(int) - whole.astype(int)).max(axis=2)
    y, x = np.mgrid[0:1024, 0:2048]
    near_x = (x % tile_width == 0) | (x % tile_width == tile_width - 1)
    near_y = (y % tile_height == 0) | (y % tile_height == tile_height - 1)
    inside = ~(near_x | near_y) if subsampling == 2 else ~near_x
    assert error[inside].max() <= JPEG_TOLERANCE
    assert error.max() < 40


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mcus_x=st.integers(1, 24),
    height=st.integers(1, 90),
    cut=st.integers(0, 7),
    share=st.integers(1, 24),
    indexed=st.booleans(),
    n=st.sampled_from([1, 2, 4, 8]),
)
def test_any_size_and_interval(
    tmp_path: Path,
    mcus_x: int,
    height: int,
    cut: int,
    share: int,
    indexed: bool,
    n: int,
) -> None:
    width = mcus_x * 8 - cut
    restart = next(r for r in range(share, 0, -1) if mcus_x % r == 0)
    jpeg = tf.encode_jpeg(image(width, height), restart_mcus=restart)
    page = tf.ndpi_page(jpeg, (width, height), index=indexed)
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [page]).write(path)
    slide = _core.Slide.open(path)
    whole = tf.decode_jpeg(jpeg)
    assert difference(read_level(slide, 0), whole) <= JPEG_TOLERANCE
    scaled = read_level(slide, 0, n)
    if n > 1:  # the same decoder at the same scale, on one tile of the whole image
        single = tf.encode_jpeg(image(width, height))
        tf.lay_out(tf.NDPI, [tf.ndpi_page(single, (width, height))]).write(path)
        other = _core.Slide.open(path)
        assert difference(scaled, read_level(other, 0, n)) == 0


def test_intervals_of_several_rows(tmp_path: Path) -> None:
    jpeg = tf.encode_jpeg(image(160, 200), restart_mcus=60)  # three rows of 20 MCUs
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [tf.ndpi_page(jpeg, (160, 200))]).write(path)
    pixels = read_level(_core.Slide.open(path), 0)
    assert difference(pixels, tf.decode_jpeg(jpeg)) <= JPEG_TOLERANCE


def mosaic(columns: int, rows: int) -> tuple[bytes, list[int], list[bytes], bytes]:
    """A JPEG of columns x rows intervals of 2048 x 8 px, from 16 of them."""
    source = tf.encode_jpeg(image(2048, 128), restart_mcus=256)
    header, intervals = tf.split_jpeg(source)
    rng = np.random.default_rng(1)
    chosen = [int(i) for i in rng.integers(0, 16, columns * rows)]
    header = tf.set_jpeg_size(header, 0, rows * 8)
    jpeg, _ = tf.join_jpeg(header, [intervals[i] for i in chosen])
    return jpeg, chosen, intervals, source


@pytest.mark.parametrize("indexed", [True, False])
def test_sides_beyond_65535_px(tmp_path: Path, indexed: bool) -> None:
    columns, rows = 34, 4
    jpeg, chosen, _, source = mosaic(columns, rows)
    page = tf.ndpi_page(jpeg, (columns * 2048, rows * 8), index=indexed)
    path = tmp_path / "wide.ndpi"
    tf.lay_out(tf.NDPI, [page]).write(path)
    slide = _core.Slide.open(path)
    assert slide.levels[0][:2] == (69632, 32)
    bands = tf.decode_jpeg(source).reshape(16, 8, 2048, 3)
    expected = np.concatenate(
        [
            np.concatenate([bands[chosen[r * columns + c]] for c in range(columns)], 1)
            for r in range(rows)
        ]
    )
    assert difference(read_level(slide, 0), expected) <= JPEG_TOLERANCE


def holes_are_free(folder: Path) -> bool:
    probe = folder / "probe"
    with probe.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"x")
    small = probe.stat().st_blocks * 512 < 1 << 20
    probe.unlink()
    return small


@pytest.mark.parametrize("hole_bytes", [5 << 30, 9 << 30])
@pytest.mark.parametrize("indexed", [True, False])
def test_files_over_4_gb(tmp_path: Path, indexed: bool, hole_bytes: int) -> None:
    if not holes_are_free(tmp_path):
        pytest.skip("the file system stores holes")
    pages = tf.ndpi_pages(image(512, 256), restart_mcus=16, index=indexed)
    pages[1].hole_bytes = hole_bytes  # the second level and all directories lie behind
    path = tmp_path / "large.ndpi"
    tf.lay_out(tf.NDPI, pages).write(path)
    assert path.stat().st_size > hole_bytes > 1 << 32
    assert path.stat().st_blocks * 512 < 4 << 20
    slide = _core.Slide.open(path)
    assert slide.format == "hamamatsu"
    for level, page in enumerate(pages[:3]):
        whole = tf.decode_jpeg(page.blobs[0])
        assert difference(read_level(slide, level), whole) <= JPEG_TOLERANCE
    os.truncate(path, path.stat().st_size - 1)
    assert code_of_open(path) == "TRUNCATED"


def sparse_strip(path: Path, high_tag: bool) -> tuple[tf.Page, bytes]:
    """A level whose 48 intervals are told apart by holes: offsets inside it pass 4 GB.

    The holes are zeros before an interval's marker: entropy that is never decoded, as
    the tests read the other intervals only.
    """
    jpeg = tf.encode_jpeg(image(64, 384), restart_mcus=8)
    header, intervals = tf.split_jpeg(jpeg)
    _, starts = tf.join_jpeg(header, intervals)
    hole = 5 << 30
    strip_at = 1 << 20
    moved = [s if i <= 20 else s + hole for i, s in enumerate(starts)]
    page = tf.ndpi_page(jpeg, (64, 384), index=False)
    page.tags[65426] = (tf.LONG, [s & 0xFFFFFFFF for s in moved])
    if high_tag:
        page.tags[65432] = (tf.LONG, [s >> 32 for s in moved])
    page.blobs = []
    page.tags[273] = (tf.LONG, [strip_at])
    page.tags[279] = (tf.LONG, [len(jpeg) + hole])
    with path.open("wb") as file:
        file.seek(strip_at)
        file.write(jpeg[: starts[20] + 2])
        file.seek(strip_at + starts[20] + 2 + hole)
        file.write(jpeg[starts[20] + 2 :])
    return page, jpeg


@pytest.mark.parametrize("high_tag", [True, False])
def test_offsets_of_intervals_pass_4_gb(tmp_path: Path, high_tag: bool) -> None:
    """Without their high words they are known from the fall of the low ones."""
    if not holes_are_free(tmp_path):
        pytest.skip("the file system stores holes")
    path = tmp_path / "long.ndpi"
    page, jpeg = sparse_strip(path, high_tag)
    base = path.stat().st_size
    tags = {tag: v for tag, v in page.tags.items() if tag not in (273, 279)}
    built = tf.lay_out(tf.NDPI, [tf.Page(tags, [b"x"], tiled=False, hole_bytes=base)])
    entry = built.entries
    with path.open("r+b") as file:
        for at, data in built.pieces:
            if data != b"x":
                file.seek(at)
                file.write(data)
        # The strip's place and size: low words in the entries, high words behind.
        first = min(entry.values())
        count = len(entry)
        for tag in (273, 279):
            value = int(page.tags[tag][1][0])
            i = (entry[0, tag] - first) // 12
            file.seek(entry[0, tag] + 4)
            file.write((1).to_bytes(4, "little"))
            file.write((value & 0xFFFFFFFF).to_bytes(4, "little"))
            file.seek(first + count * 12 + 8 + 4 * i)
            file.write((value >> 32).to_bytes(4, "little"))
    slide = _core.Slide.open(path)
    whole = tf.decode_jpeg(jpeg)
    tile_height = slide.levels[0][3]
    assert slide.levels[0][:2] == (64, 384)
    last = -(-384 // tile_height) - 1
    rows = {row: slide.read_tile(0, 0, row) for row in range(last + 1)}
    for row, (tile, status) in rows.items():
        y = row * tile_height
        if y <= 20 * 8 < y + tile_height:
            assert status == "corrupt"  # 5 GB cannot be one interval
        else:
            assert status == "ok"
            part = whole[y : y + tile_height]
            assert difference(tile[: len(part), :64], part) <= JPEG_TOLERANCE


def test_only_levels_are_read(tmp_path: Path) -> None:
    """The macro's and another focal plane's JPEG may be anything."""
    rgb = image(256, 128)
    pages = tf.ndpi_pages(rgb, restart_mcus=32)
    pages[3].blobs = [b"no JPEG at all"]
    plane = tf.ndpi_page(pages[0].blobs[0], (256, 128), focal_plane=-2500)
    plane.blobs = [b"none either"]
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [plane, *pages]).write(path)
    slide = _core.Slide.open(path)
    assert len(slide.levels) == 3
    whole = tf.decode_jpeg(pages[0].blobs[0])
    assert difference(read_level(slide, 0), whole) <= JPEG_TOLERANCE


def edit_shift(starts: list[int]) -> list[int]:
    return [*starts[:20], *(s + 1 for s in starts[20:])]


def edit_halve(starts: list[int]) -> list[int]:
    out = list(starts)
    out[10] = starts[10] + (starts[11] - starts[10]) // 2
    return out


@pytest.mark.parametrize("edit", [edit_shift, edit_halve])
def test_a_wrong_index_never_gives_other_pixels(
    tmp_path: Path, edit: Callable[[list[int]], list[int]]
) -> None:
    jpeg = tf.encode_jpeg(image(4096, 512), restart_mcus=512)
    page = tf.ndpi_page(jpeg, (4096, 512))
    starts = [int(s) for s in page.tags[65426][1]]
    page.tags[65426] = (tf.LONG, edit(starts))
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [page]).write(path)
    slide = _core.Slide.open(path)
    whole = tf.decode_jpeg(jpeg)
    tile_height = slide.levels[0][3]
    statuses = []
    for row in range(512 // tile_height):
        tile, status = slide.read_tile(0, 0, row)
        statuses.append(status)
        if status == "ok":
            part = whole[row * tile_height :][:tile_height]
            assert difference(tile, part) <= JPEG_TOLERANCE, row
        else:
            assert (status, tile.min()) == ("corrupt", 255)
    assert "corrupt" in statuses


@pytest.mark.parametrize("indexed", [True, False])
def test_damage_in_one_interval_stays_there(tmp_path: Path, indexed: bool) -> None:
    """Without an index nothing behind a lost marker can be numbered."""
    jpeg = tf.encode_jpeg(image(4096, 512), restart_mcus=512)
    header, intervals = tf.split_jpeg(jpeg)
    _, starts = tf.join_jpeg(header, intervals)
    broken = bytearray(jpeg)
    broken[starts[20] - 1] = 0xD7 if broken[starts[20] - 1] != 0xD7 else 0xD6
    page = tf.ndpi_page(jpeg, (4096, 512), index=indexed)
    page.blobs = [bytes(broken)]
    path = tmp_path / "slide.ndpi"
    tf.lay_out(tf.NDPI, [page]).write(path)
    slide = _core.Slide.open(path)
    assert slide.levels[0][2:4] == (4096, 64)
    statuses = [slide.read_tile(0, 0, row)[1] for row in range(8)]
    bad = ["corrupt"] if indexed else ["corrupt"] * 6
    assert statuses == ["ok", "ok", *bad, *["ok"] * (6 - len(bad))]


def test_truncation_is_found_at_open(tmp_path: Path) -> None:
    path = tmp_path / "cut.ndpi"
    layout = tf.lay_out(tf.NDPI, tf.ndpi_pages(image(128, 64), restart_mcus=16))
    whole = layout.to_bytes()
    for size in np.linspace(12, len(whole) - 1, 200).astype(int):
        path.write_bytes(whole[:size])
        assert code_of_open(path) in ("TRUNCATED", "UNSUPPORTED_FORMAT"), size
