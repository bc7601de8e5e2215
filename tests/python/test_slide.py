# SPDX-License-Identifier: Apache-2.0
"""Slides from Python: frames, tiles in order, regions, and OpenSlide as the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import her2fast
from her2fast import _core
from her2fast.errors import SlideError
from reference import resample as reference

SIZE = (1500, 1100)
SPACING_UM = 0.2439


def picture() -> npt.NDArray[np.uint8]:
    """Smooth colors, different everywhere, so that a shift by one pixel shows."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    planes = [120 + 100 * np.sin(x / 37 + y / 91), x * 255 / SIZE[0], y * 255 / SIZE[1]]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "picture.tiff"
    _core.write_pyramid(
        str(path),
        picture(),
        spacing_um=SPACING_UM,
        tile_px=128,
        jpeg_quality=0,
        downsamples=[1, 4],
    )
    return path


def all_tiles(
    slide: her2fast.Slide, **keywords: object
) -> dict[str, npt.NDArray[np.int64]]:
    batches = list(slide.tiles(**keywords))  # type: ignore[arg-type]
    return {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("x_px", "y_px", "rgb")
    }


def test_frame(path: Path) -> None:
    with her2fast.open_slide(path) as slide:
        assert slide.dimensions == SIZE
        assert slide.spacing_um == (SPACING_UM, SPACING_UM)
        assert slide.spacing_source == "tiff-resolution"
        assert [(level.width_px, level.downsample) for level in slide.levels] == [
            (1500, 1.0),
            (375, 4.0),
        ]
        assert slide.format == "generic-tiff"
        assert "1500 x 1100" in repr(slide)
    with pytest.raises(ValueError, match="closed"):
        slide.read(0, 0, 8)
    with pytest.raises(ValueError, match="closed"):
        next(slide.tiles())


def test_mpp_wins_and_warns(path: Path) -> None:
    slide = her2fast.open_slide(path, mpp=0.3)
    assert slide.spacing_um == (0.3, 0.3)
    assert slide.spacing_source == "user"
    assert slide.spacing_warning is not None
    assert her2fast.open_slide(path, mpp=SPACING_UM).spacing_warning is None


def test_level_0_comes_back_as_written(path: Path) -> None:
    slide = her2fast.open_slide(path)
    rgb = slide.read(700, 300, (201, 99), spacing_um=SPACING_UM)
    np.testing.assert_array_equal(rgb, picture()[300:399, 700:901])


def test_beyond_the_slide_is_white(path: Path) -> None:
    slide = her2fast.open_slide(path)
    rgb = slide.read(-50, 1000, 200, spacing_um=SPACING_UM)
    assert (rgb[:, :50] == 255).all()
    assert (rgb[100:] == 255).all()
    np.testing.assert_array_equal(rgb[:100, 50:], picture()[1000:, :150])


def test_tiles_cover_the_slide_row_by_row(path: Path) -> None:
    slide = her2fast.open_slide(path)
    batches = list(slide.tiles(tile_px=100, spacing_um=1.0, batch_size=5))
    assert [len(batch) for batch in batches] == [5, 5, 2]  # 3.66 x 2.68 tiles
    assert {status for batch in batches for status in batch.status} == {"ok"}
    got = all_tiles(slide, tile_px=100, spacing_um=1.0, batch_size=5)
    corner = [Fraction(100 * k) / Fraction(2439, 10000) for k in range(4)]
    assert got["x_px"].tolist() == [int(c) for c in corner] * 3
    assert got["y_px"].tolist() == [int(c) for c in corner[:3] for _ in range(4)]
    assert got["x_px"].dtype == np.int64
    assert got["rgb"].shape == (12, 100, 100, 3)
    whole = slide.read(0, 0, (400, 300))
    for k, tile in enumerate(got["rgb"]):
        y, x = 100 * (k // 4), 100 * (k % 4)
        np.testing.assert_array_equal(tile, whole[y : y + 100, x : x + 100])


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_bytes_do_not_depend_on_workers_or_batches(
    path: Path, workers: int, batch_size: int
) -> None:
    slide = her2fast.open_slide(path)
    want = all_tiles(slide, tile_px=64)
    got = all_tiles(slide, tile_px=64, workers=workers, batch_size=batch_size)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


def test_reported_corners_lead_back_to_the_same_tiles(path: Path) -> None:
    slide = her2fast.open_slide(path)
    want = all_tiles(slide, tile_px=64)
    coords = np.stack([want["x_px"], want["y_px"]], axis=1)[::-1]
    got = all_tiles(slide, tile_px=64, coords_px=coords)
    np.testing.assert_array_equal(got["x_px"], want["x_px"][::-1])
    np.testing.assert_array_equal(got["rgb"], want["rgb"][::-1])
    one = slide.read(int(coords[3, 0]), int(coords[3, 1]), 64)
    np.testing.assert_array_equal(one, got["rgb"][3])


@given(
    spacing_pm=st.integers(100_000, 900_000),
    ratio=st.floats(1.0, 40.0),
    column=st.integers(-100_000, 100_000),
)
def test_a_corner_stands_for_its_grid_pixel(
    path: Path, spacing_pm: int, ratio: float, column: int
) -> None:
    slide = her2fast.open_slide(path, mpp=spacing_pm / 1e6)
    spacing_um = round(spacing_pm * ratio) / 1e6
    corner = slide._floor_px(np.array([column], np.int64), 0, spacing_um)
    back, _ = slide._to_grid(np.array([[corner[0], 0]], np.int64), spacing_um)
    assert back.tolist() == [column]


def test_coords_are_checked(path: Path) -> None:
    slide = her2fast.open_slide(path)
    assert list(slide.tiles(coords_px=[])) == []
    for bad in ([1, 2], [[1, 2, 3]], [[0.5, 1.0]]):
        with pytest.raises(ValueError, match="coords_px"):
            slide.tiles(coords_px=bad)
    for keywords in ({"tile_px": 0}, {"batch_size": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            slide.tiles(**keywords)
    with pytest.raises(ValueError, match="spacing"):
        slide.tiles(spacing_um=float("nan"))
    with pytest.raises(ValueError, match="on_damage"):
        slide.read(0, 0, 8, on_damage="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reading"):
        her2fast.open_slide(path, reading="fast")  # type: ignore[arg-type]


def test_a_spacing_finer_than_the_slide_is_refused_at_once(path: Path) -> None:
    slide = her2fast.open_slide(path)
    for call in (lambda: slide.read(0, 0, 8, 0.2), lambda: slide.tiles(spacing_um=0.2)):
        with pytest.raises(SlideError) as caught:
            call()
        assert caught.value.code == "NO_LEVEL"


def test_roi_keeps_the_tiles_that_share_an_area_with_it(
    path: Path, tmp_path: Path
) -> None:
    import shapely

    slide = her2fast.open_slide(path, mpp=0.25)  # a tile of 64 px covers 256 level-0 px
    square = shapely.box(256, 256, 600, 512)
    got = all_tiles(slide, tile_px=64, roi=square)
    assert list(zip(got["x_px"], got["y_px"], strict=True)) == [(256, 256), (512, 256)]
    pytest.importorskip("her2fast.roi")
    ring = [[256, 256], [600, 256], [600, 512], [256, 512], [256, 256]]
    hole = [[500, 256], [600, 256], [600, 512], [500, 512], [500, 256]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [points]},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name},
            },
        }
        for points, name in ((ring, "Tumor"), (hole, "Exclude"))
    ]
    file = tmp_path / "roi.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    got = all_tiles(slide, tile_px=64, roi=file)
    assert list(zip(got["x_px"], got["y_px"], strict=True)) == [(256, 256)]


def test_a_reader_left_half_way_ends(path: Path) -> None:
    slide = her2fast.open_slide(path)
    for _ in range(10):
        stream = slide.tiles(tile_px=16, spacing_um=SPACING_UM, batch_size=3)
        next(stream)
        stream.close()  # type: ignore[attr-defined]


def test_memory_of_a_batch_serves_again_once_nobody_holds_it() -> None:
    buffers = _core.BatchBuffers()
    first = buffers.take(2, 8, 8)
    assert first.shape == (2, 8, 8, 3)
    assert first.dtype == np.uint8
    assert first.flags.writeable
    place = first.ctypes.data
    first[:] = 7
    view = first[1, 2:]
    del first
    second = buffers.take(2, 8, 8)
    assert second.ctypes.data != place  # the view holds it
    second[:] = 9
    assert (view == 7).all()
    del view
    third = buffers.take(1, 8, 8)  # a shorter last batch fits, too
    assert third.ctypes.data == place
    del buffers
    third[:] = 1  # arrays outlive what made them
    assert (second == 9).all()
    with pytest.raises(ValueError, match="tiles"):
        _core.BatchBuffers().take(0, 8, 8)


def test_batches_that_are_kept_stay_as_they_were(path: Path) -> None:
    with her2fast.open_slide(path) as slide:
        kept = [batch.rgb for batch in slide.tiles(16, 1.0, batch_size=2)]
        again = [batch.rgb.copy() for batch in slide.tiles(16, 1.0, batch_size=2)]
    assert len(kept) > 8
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_share_a_slide(path: Path) -> None:
    slide = her2fast.open_slide(path)
    want = slide.read(11, 13, 300)
    same: list[bool] = []

    def work() -> None:
        same.extend(np.array_equal(slide.read(11, 13, 300), want) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 20


def test_reader_answers_single_requests_in_order(path: Path) -> None:
    core = _core.Slide.open(str(path))
    reader = _core.TileReader(core, (SPACING_UM, SPACING_UM), workers=2)
    assert reader.next() is None
    reader.submit([(7, 0, 0, 20, 10, 1.0), (8, -5, -5, 10, 10, 2.0)])
    first, second = reader.next(), reader.next()
    assert first is not None
    assert second is not None
    assert (first[0], first[3].shape, first[4]) == (7, (10, 20, 3), "ok")
    assert second[:3] == (8, -5, -5)
    assert reader.next() is None
    assert reader.plan(1.0) == (1, 1)


def test_import_is_light() -> None:
    code = (
        "import sys, her2fast; her2fast.open_slide; "
        "heavy = {'torch', 'pyarrow', 'shapely', 'matplotlib', 'openslide_bin'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_unknown_names_are_attribute_errors() -> None:
    assert "open_slide" in dir(her2fast)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = her2fast.nothing_here


def test_level0_reads_no_stored_level(tmp_path: Path) -> None:
    """A pyramid read by it is a file without its levels; the default is not."""
    noise = np.random.default_rng(0).integers(0, 40, (2048, 2048, 3))
    rgb = (noise + np.linspace(60, 200, 2048)[:, None, None]).astype(np.uint8)
    read = {}
    for levels in ([1], [1, 4]):
        path = tmp_path / f"{len(levels)}.svs"
        _core.write_pyramid(
            str(path), rgb, spacing_um=0.25, jpeg_quality=70, downsamples=levels,
            aperio=True, workers=1,
        )  # fmt: skip
        for reading in ("level0", "scaled"):
            slide = her2fast.open_slide(path, reading=reading)
            assert len(slide.levels) == len(levels)
            read[reading, len(levels)] = slide.read(8, 16, 96, 1.0).tobytes()
    assert read["level0", 1] == read["scaled", 1] == read["level0", 2]
    assert read["scaled", 2] != read["level0", 2]


# --- real slides, OpenSlide as the oracle ---


def test_exact_mode_is_openslide_level_0_through_the_twin(shared_data: Path) -> None:
    openslide = pytest.importorskip("openslide")
    path = shared_data / "slides/CMU-1-Small-Region.svs"
    slide = her2fast.open_slide(path, reading="exact")
    with openslide.OpenSlide(path) as oracle:
        x0, y0, size = 400, 700, 96
        rgb = slide.read(x0, y0, size, 1.0)
        pm = [round(s * 1e6) for s in slide.spacing_um]
        steps = [Fraction(1_000_000, p) for p in pm]
        starts = [
            -(-(v + 1) * p // 1_000_000) - 1 for v, p in zip((x0, y0), pm, strict=True)
        ]
        source = np.asarray(
            oracle.read_region((0, 0), 0, oracle.dimensions).convert("RGB")
        )
    want = reference.resample(source, *starts, size, size, *steps)
    # Two libjpeg builds may differ by their inverse DCT and upsampling: at most 1 here,
    # after the mean of four pixels.
    assert np.abs(rgb.astype(int) - want).max() <= 1


def test_scaled_mode_is_close_to_exact(shared_data: Path) -> None:
    path = shared_data / "slides/CMU-1-Small-Region.svs"
    exact = her2fast.open_slide(path, reading="exact").read(400, 700, 256, 1.0)
    scaled = her2fast.open_slide(path).read(400, 700, 256, 1.0)
    assert np.abs(exact.astype(int) - scaled).mean() < 2.0
