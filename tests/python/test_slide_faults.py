# SPDX-License-Identifier: Apache-2.0
"""Damaged slides, odd paths and full disks: each ends in its code or status."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide_bin
import pytest
import tifffile

from her2fast import _core
from her2fast.errors import SlideError

Rgb = npt.NDArray[np.uint8]
TILE_PX = 128


@pytest.fixture(scope="module", autouse=True)
def _openslide_library() -> None:
    library = Path(openslide_bin.__file__).parent / "libopenslide.so.1"
    _core.set_openslide_library(library)


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:400, 0:600]
    waves = np.stack([x / 37.0, y / 23.0, (x + y) / 51.0], axis=-1)
    rgb = (127.5 + 100 * np.sin(waves)).astype(np.uint8)
    path = tmp_path / "slide.svs"
    _core.write_pyramid(
        path, rgb, spacing_um=0.25, tile_px=TILE_PX, downsamples=[1, 2], aperio=True
    )
    return path


def code_of_open(path: Any) -> str:
    with pytest.raises(SlideError) as caught:
        _core.Slide.open(path)
    return caught.value.code


def statuses(slide: Any, level: int = 0) -> dict[tuple[int, int], str]:
    width, height, tile_width, tile_height, _ = slide.levels[level]
    return {
        (column, row): slide.read_tile(level, column, row)[1]
        for row in range(-(-height // tile_height))
        for column in range(-(-width // tile_width))
    }


def test_truncation_is_found_at_open(slide_path: Path) -> None:
    whole = slide_path.read_bytes()
    cut = slide_path.with_name("cut.svs")
    for size in np.linspace(4, len(whole) - 1, 200).astype(int):
        cut.write_bytes(whole[:size])
        assert code_of_open(cut) == "TRUNCATED", size


def tile_entries(path: Path) -> tuple[list[int], list[int], int]:
    """Offsets and sizes of level 0's tiles, and where the file keeps the sizes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        counts = page.tags["TileByteCounts"]
        return list(page.dataoffsets), list(page.databytecounts), counts.valueoffset


def test_damage_in_a_tile_is_its_own_status(slide_path: Path) -> None:
    offsets, sizes, counts_at = tile_entries(slide_path)
    data = bytearray(slide_path.read_bytes())
    struct.pack_into("<I", data, counts_at, 0)  # tile 0 has no bytes
    data[offsets[1] : offsets[1] + sizes[1]] = bytes(sizes[1])  # tile 1 is zeros
    struct.pack_into("<I", data, counts_at + 8, sizes[2] // 2)  # tile 2 is half there
    slide_path.write_bytes(data)
    slide = _core.Slide.open(slide_path)
    got = statuses(slide)
    assert got.pop((0, 0)) == "missing"
    assert got.pop((1, 0)) == "corrupt"
    assert got.pop((2, 0)) == "warned"
    assert set(got.values()) == {"ok"}
    for column in (0, 1):
        assert slide.read_tile(0, column, 0)[0].min() == 255  # white, never old memory


def test_scaled_decoding_is_the_mean_of_smooth_blocks(slide_path: Path) -> None:
    slide = _core.Slide.open(slide_path)
    assert [slide.can_scale(0, n) for n in (1, 2, 4, 8, 16)] == [True] * 4 + [False]
    full = slide.read_tile(0, 1, 1)[0].astype(float)
    for n in (2, 4, 8):
        part, status = slide.read_tile(0, 1, 1, n)
        assert (part.shape, status) == ((TILE_PX // n, TILE_PX // n, 3), "ok")
        means = full.reshape(TILE_PX // n, n, TILE_PX // n, n, 3).mean(axis=(1, 3))
        # The scaled inverse transform drops frequencies; it is no box filter.
        assert np.abs(part - means).max() < 6.0
    with pytest.raises(ValueError, match="denominator"):
        slide.read_tile(0, 0, 0, 3)
    with pytest.raises(IndexError):
        slide.read_tile(2, 0, 0)
    with pytest.raises(ValueError, match="need a tile of"):
        slide.read_tile(0, -1, 0)


def test_threads_read_the_same_tiles(slide_path: Path) -> None:
    slide = _core.Slide.open(slide_path)
    places = [(c, r) for r in range(4) for c in range(5)] * 10

    def digest(place: tuple[int, int]) -> str:
        rgb, status = slide.read_tile(0, *place)
        return hashlib.sha256(rgb.tobytes() + status.encode()).hexdigest()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, places)) == [digest(place) for place in places]


def test_openslide_reopens_after_a_damaged_tile(
    shared_data: Path, tmp_path: Path
) -> None:
    """A handle of OpenSlide answers nothing after its first error."""
    source = shared_data / "slides/aperio_no_mpp.svs"
    path = tmp_path / "damaged.svs"
    data = bytearray(source.read_bytes())
    offsets, sizes, _ = tile_entries(source)  # 18 columns of 256 px
    data[offsets[5] : offsets[5] + sizes[5]] = bytes(sizes[5])
    path.write_bytes(data)
    slide, sound = _core.Slide.open(path), _core.Slide.open(source)
    places = [(column, row) for row in range(3) for column in range(8)]
    with ThreadPoolExecutor(4) as pool:
        tiles = list(pool.map(lambda place: slide.read_tile(0, *place), places))
    for place, (rgb, status) in zip(places, tiles, strict=True):
        if place == (5, 0):  # the adaptor keeps the slide's own tiles
            assert (status, rgb.min()) == ("corrupt", 255)
        else:
            assert status == "ok"
            np.testing.assert_array_equal(rgb, sound.read_tile(0, *place)[0])


def test_paths_that_are_no_slide(tmp_path: Path) -> None:
    assert code_of_open(tmp_path / "absent.svs") == "NOT_FOUND"
    assert code_of_open(tmp_path) == "NOT_REGULAR"
    fifo = tmp_path / "fifo.svs"
    os.mkfifo(fifo)
    assert code_of_open(fifo) == "NOT_REGULAR"  # at once: nobody writes to it
    empty = tmp_path / "empty.svs"
    empty.touch()
    assert code_of_open(empty) == "UNSUPPORTED_FORMAT"
    loop = tmp_path / "loop.svs"
    loop.symlink_to(loop)
    assert code_of_open(loop) == "NOT_FOUND"


@pytest.mark.parametrize(
    "name", [b"caf\xe9.svs", b"two\nlines.svs", b"=cmd().svs", b"n" * 251 + b".svs"]
)
def test_odd_file_names_open_and_are_named(slide_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(slide_path.parent), name)
    os.rename(slide_path, path)
    for form in (path, os.fsdecode(path)):
        assert _core.Slide.open(form).format == "aperio"
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(SlideError) as caught:
        _core.Slide.open(path)
    shown = str(caught.value)
    shown.encode()  # valid text, whatever the name
    assert shown.split("\n") == [shown]


def test_the_writer_takes_a_name_of_255_bytes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".tiff")
    _core.write_pyramid(path, np.zeros((64, 64, 3), np.uint8), spacing_um=1.0)
    assert os.listdir(tmp_path) == [path.name]


def test_properties_hold_no_patient_data(slide_path: Path) -> None:
    data = slide_path.read_bytes()
    # Same length, so that nothing else moves.
    tagged = data.replace(b"|AppMag = 40|", b"|User=Secret|")
    assert tagged != data
    slide_path.write_bytes(tagged)
    assert set(_core.Slide.open(slide_path).properties) == {"aperio.MPP"}


def test_fingerprint_is_the_documented_hash(tmp_path: Path, slide_path: Path) -> None:
    mib, block = 1 << 20, 64 << 10
    small = slide_path.read_bytes()
    large = small + np.random.default_rng(1).bytes(9 * mib + 12345)  # trailing bytes
    path = tmp_path / "large.svs"
    path.write_bytes(large)
    size = len(large)
    parts = [large[:mib]]
    for i in range(64):
        start = i * (size - block) // 63
        parts.append(large[start : start + block])
    parts.append(large[-mib:])
    for file, content in ((slide_path, [small]), (path, parts)):
        total = file.stat().st_size.to_bytes(8, "little")
        expected = hashlib.sha256(total + b"".join(content)).hexdigest()
        assert _core.Slide.open(file).fingerprint() == expected


@pytest.mark.parametrize(
    "bad",
    [
        {"spacing_um": 0.01},
        {"spacing_um": float("nan")},
        {"tile_px": 100},
        {"tile_px": 32},
        {"jpeg_quality": 101},
        {"jpeg_quality": -1},
        {"downsamples": []},
        {"downsamples": [2]},
        {"downsamples": [1, 4, 4]},
        {"downsamples": [1, 5000]},
        {"workers": 0},
    ],
)
def test_the_writer_refuses_bad_settings(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = tmp_path / "slide.tiff"
    rgb = np.zeros((70, 70, 3), np.uint8)
    with pytest.raises(ValueError, match="need"):
        _core.write_pyramid(path, rgb, **{"spacing_um": 0.5, **bad})
    assert os.listdir(tmp_path) == []


def test_the_writer_refuses_bad_pixels(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        _core.write_pyramid(path, np.zeros((70, 70, 4), np.uint8), spacing_um=0.5)
    with pytest.raises(TypeError):
        _core.write_pyramid(path, np.zeros((70, 70, 3), np.uint16), spacing_um=0.5)
    with pytest.raises(ValueError, match="need"):
        _core.write_pyramid(path, np.zeros((0, 70, 3), np.uint8), spacing_um=0.5)

    def rows(y_px: int, count: int) -> Rgb:
        if y_px:
            raise RuntimeError("the source broke")
        return np.zeros((count, 70, 3), np.uint8)

    with pytest.raises(RuntimeError, match="the source broke"):
        _core.write_pyramid_rows(path, 70, 300, rows, spacing_um=0.5, tile_px=64)
    with pytest.raises(ValueError, match="need rows"):
        _core.write_pyramid_rows(
            path, 71, 300, lambda y, n: rows(0, n), spacing_um=0.5, tile_px=64
        )
    assert os.listdir(tmp_path) == []


def test_the_writer_keeps_the_old_file_when_the_folder_is_absent(
    tmp_path: Path,
) -> None:
    with pytest.raises(SlideError) as caught:
        _core.write_pyramid(
            tmp_path / "absent/slide.tiff",
            np.zeros((70, 70, 3), np.uint8),
            spacing_um=0.5,
        )
    assert caught.value.code == "IO"


FULL_DISK = """
import resource, sys
import numpy as np
from her2fast import _core
from her2fast.errors import SlideError

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rgb = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
try:
    _core.write_pyramid(sys.argv[1], rgb, spacing_um=0.5)
except SlideError as error:
    print(error.code)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: both fail amid a write."""
    path = tmp_path / "slide.tiff"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "DISK_FULL"
    assert os.listdir(tmp_path) == ["slide.tiff"]
    assert path.read_bytes() == b"old"
