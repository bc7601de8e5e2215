# SPDX-License-Identifier: Apache-2.0
"""Slides that come through OpenSlide: frames, regions, damage, companion files.

`vendor_slides` writes files that the real OpenSlide opens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import slides
import vendor_slides
from vendor_slides import Box

import her2fast
from her2fast import _core
from her2fast.errors import SlideError
from her2fast.slide import open_slide

Rgb = npt.NDArray[np.uint8]
Writer = Callable[[Path, Rgb, list[Box], float], Path]

HERE = Path(__file__).parent
AREAS: list[Box] = [(256, 256, 512, 256), (768, 512, 256, 512)]
CANVAS_PX = (1280, 1024)
#: Where each format's frame begins in the canvas, its size and reader's levels.
VENDORS: dict[str, tuple[str, Writer, Box, tuple[int, ...]]] = {
    "leica": ("a.scn", vendor_slides.write_scn, (256, 256, 768, 768), (1, 4)),
    "mirax": ("a.mrxs", vendor_slides.write_mirax, (256, 256, 768, 768), (1, 2, 4)),
    "philips": ("a.tiff", vendor_slides.write_philips, (0, 0, 1280, 1024), (1, 2, 4)),
    "ventana": ("a.bif", vendor_slides.write_bif, (0, 256, 1024, 768), (1, 2)),
}


def canvas(seed: int = 3) -> Rgb:
    rng = np.random.default_rng(seed)
    width_px, height_px = CANVAS_PX
    coarse = rng.integers(0, 256, (height_px // 8, width_px // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def as_scanned(
    rgb: Rgb, areas: list[Box], n: int = 1, whole_tiles: bool = False
) -> Rgb:
    """Level 1/n of what a reader must see: white where nothing was scanned."""
    seen = np.zeros(rgb.shape[:2], np.bool_)
    side = 256 * n if whole_tiles else 1
    for x0, y0, w, h in areas:
        seen[
            y0 // side * side : -(-(y0 + h) // side) * side,
            x0 // side * side : -(-(x0 + w) // side) * side,
        ] = True
    out = vendor_slides.shrink(rgb, n)
    out[~seen[: out.shape[0] * n : n, : out.shape[1] * n : n]] = 255
    return out


@pytest.mark.parametrize("vendor", VENDORS)
def test_vendor_slides_read_as_painted(tmp_path: Path, vendor: str) -> None:
    """Frame, levels, spacing and pixels; what was not scanned is white and ok."""
    name, write, frame, levels = VENDORS[vendor]
    rgb = canvas()
    path = write(tmp_path / name, rgb, AREAS, 0.5)
    slide = open_slide(path)
    assert slide.format == vendor
    assert slide.spacing_um == (0.5, 0.5)
    assert slide.dimensions == frame[2:]
    assert [level.downsample for level in slide.levels] == list(levels)
    assert "secret" not in json.dumps(slide.properties)
    core = slide._open_core()
    for index, n in enumerate(levels):
        # A coarse image of these formats may hold level-0 ones that were not scanned.
        padded = vendor in ("mirax", "philips")
        expected = as_scanned(rgb, AREAS, n, whole_tiles=padded)
        x0, y0, width, height = (value // n for value in frame)
        expected = expected[y0 : y0 + height, x0 : x0 + width]
        level = slide.levels[index]
        assert (level.width_px, level.height_px) == (width, height)
        got = np.empty_like(expected)
        for row in range(-(-height // level.tile_height_px)):
            for column in range(-(-width // level.tile_width_px)):
                tile, status = core.read_tile(index, column, row)
                assert status == "ok"
                y, x = row * level.tile_height_px, column * level.tile_width_px
                part = got[y : y + level.tile_height_px, x : x + level.tile_width_px]
                part[:] = tile[: part.shape[0], : part.shape[1]]
        np.testing.assert_array_equal(got, expected)
    # One request across the hole between the areas, at the level of 1/2 or finer.
    n = 2
    pixels = slide.read(0, 0, (frame[2] // n, frame[3] // n), spacing_um=0.5 * n)
    inner = as_scanned(rgb, AREAS)[frame[1] : frame[1] + frame[3]]
    inner = inner[:, frame[0] : frame[0] + frame[2]]
    if vendor not in ("mirax", "philips"):
        np.testing.assert_array_equal(pixels, vendor_slides.shrink(inner, n))


@pytest.mark.parametrize("vendor", VENDORS)
def test_pixels_equal_openslide_by_its_own_frame(tmp_path: Path, vendor: str) -> None:
    """The bounds' corner is what lies between the two frames, on every level."""
    name, write, _, _ = VENDORS[vendor]
    path = write(tmp_path / name, canvas(), AREAS, 0.5)
    slide = open_slide(path)
    with openslide.OpenSlide(path) as oracle:
        corner = [
            int(oracle.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy"
        ]
        for index, level in enumerate(slide.levels):
            region = oracle.read_region((corner[0], corner[1]), index, (64, 48))
            seen = np.asarray(region)
            tile, _ = slide._open_core().read_tile(index, 0, 0)
            opaque = seen[..., 3] == 255
            np.testing.assert_array_equal(tile[:48, :64][opaque], seen[opaque][:, :3])
            assert (tile[:48, :64][~opaque] == 255).all()
            assert level.tile_width_px >= 64


def test_a_whole_mirax_slide_is_scored(tmp_path: Path) -> None:
    """Half of the canvas was never scanned: no tile is missing for that."""
    painted = np.full((2048, 2048, 3), 255, np.uint8)
    painted[256:1792, 256:1280] = slides.paint((1024, 1536), stains=(3, 3, 3))
    path = vendor_slides.write_mirax(
        tmp_path / "a.mrxs", painted, [(256, 256, 1024, 1536), (1792, 0, 256, 256)], 1.0
    )
    import packages

    result = her2fast.score(
        path, model=packages.write_method(tmp_path / "m"), allow_unknown_model=True
    )
    assert (result.status, result.score) == ("scored", "3+")
    tiles = result.record["tiles"]
    assert tiles["missing"] == tiles["corrupt"] == tiles["warned"] == 0
    assert tiles["read"] == tiles["total"] == 7 * 7


def test_a_region_drawn_in_qupath_lies_where_it_was_drawn(tmp_path: Path) -> None:
    """QuPath's level 0 begins at the bounds: 3+ stands at (64, 64) of its frame."""
    painted = np.full((2048, 2048, 3), 255, np.uint8)
    painted[512:1536, 512:1536] = slides.paint((1024, 1024), stains=(3, 0))
    path = vendor_slides.write_mirax(
        tmp_path / "a.mrxs", painted, [(512, 512, 1024, 1024)], 1.0
    )
    import packages

    method = packages.write_method(tmp_path / "m")
    scores = []
    for x0 in (64, 576):
        ring = [[x0, 64], [x0 + 384, 64], [x0 + 384, 960], [x0, 960], [x0, 64]]
        roi = tmp_path / f"{x0}.geojson"
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"},
        }
        collection = {"type": "FeatureCollection", "features": [feature]}
        roi.write_text(json.dumps(collection))
        result = her2fast.score(path, model=method, roi=roi, allow_unknown_model=True)
        scores.append(result.score)
        assert "(512, 512)" in result.record["warnings"][0]
    assert scores == ["3+", "0"]


def test_an_image_that_cannot_be_decoded_is_corrupt_not_missing(tmp_path: Path) -> None:
    painted = np.full((2048, 2048, 3), 255, np.uint8)
    painted[256:1792, 256:1280] = slides.paint((1024, 1536), stains=(3, 3, 3))
    area: list[Box] = [(256, 256, 1024, 1536)]
    path = vendor_slides.write_mirax(
        tmp_path / "a.mrxs", painted, area, 1.0, broken=[(2, 3)]
    )
    slide = open_slide(path)
    statuses = {
        (column, row): slide._open_core().read_tile(0, column, row)[1]
        for row in range(6)
        for column in range(4)
    }
    assert statuses.pop((1, 2)) == "corrupt"  # the frame begins at image (1, 1)
    assert set(statuses.values()) == {"ok"}
    with pytest.raises(SlideError, match="damaged") as caught:
        slide.read(300, 600, 64, spacing_um=1.0)
    assert caught.value.code == "CORRUPT_TILES"
    import packages

    result = her2fast.score(
        path, model=packages.write_method(tmp_path / "m"), allow_unknown_model=True
    )
    assert (result.status, result.code) == ("indeterminate", "CORRUPT_TILES")
    assert result.score is None
    assert result.record["tiles"]["corrupt"] >= 1
    assert result.record["tiles"]["missing"] == 0


def test_lost_and_cut_companion_files(tmp_path: Path) -> None:
    path = vendor_slides.write_mirax(tmp_path / "a.mrxs", canvas(), AREAS, 0.5)
    data = tmp_path / "a" / "Data0000.dat"
    whole = data.read_bytes()
    first = open_slide(path).fingerprint()
    data.write_bytes(whole[:-1000])
    with pytest.raises(SlideError):
        open_slide(path)
    data.unlink()
    with pytest.raises(SlideError):
        open_slide(path)
    changed = bytearray(whole)
    changed[200] ^= 1  # in the first image of level 0: OpenSlide's own hash is blind
    data.write_bytes(changed)
    assert open_slide(path).fingerprint() != first
    data.write_bytes(whole)
    assert open_slide(path).fingerprint() == first


def test_no_library_is_a_code(tmp_path: Path) -> None:
    """Where the stated library is none, the system's is tried, and then no other."""
    script = f"""
from her2fast import _core
from her2fast.errors import SlideError
_core.set_openslide_library({str(tmp_path / "none.so")!r})
try:
    _core.Slide.open({str(HERE / "vendor_slides.py")!r})
except SlideError as error:
    print(error.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "UNSUPPORTED_FORMAT"


def test_set_library_is_heard_only_before_the_first_slide(tmp_path: Path) -> None:
    path = vendor_slides.write_scn(tmp_path / "a.scn", canvas(), AREAS, 0.5)
    before = open_slide(path)._open_core().reader
    _core.set_openslide_library(str(tmp_path / "none.so"))
    assert open_slide(path)._open_core().reader == before
