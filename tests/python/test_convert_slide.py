# SPDX-License-Identifier: Apache-2.0
"""Slides to pyramids: tiles copied to the byte, damage kept, nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import slides
import tiff_files as tf
import tifffile
import vendor_slides
from test_slide_formats import box_mean, difference, read_level, smooth_image

import her2fast
from her2fast import _core, cli
from her2fast.convert import convert
from her2fast.errors import SlideError, UsageError
from her2fast.slide import open_slide

Rgb = npt.NDArray[np.uint8]

TILE_PX = 128


def write_jpeg_slide(
    path: Path,
    rgb: Rgb,
    *,
    holes: tuple[int, ...] = (),
    cut: tuple[int, ...] = (),
    broken: tuple[int, ...] = (),
    icc: bytes = b"",
    rgb_coded: bool = False,
) -> Path:
    """One level of JPEG tiles that hold their tables or share them."""
    height, width = rgb.shape[:2]
    blobs = []
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
            part = rgb[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            blobs.append(tf.encode_jpeg(tile, subsampling=0))
    for index in holes:
        blobs[index] = b""
    for index in cut:  # a decoder fills the rest with gray, and warns
        blobs[index] = blobs[index][: len(blobs[index]) // 2]
    for index in broken:
        blobs[index] = b"\xff\xd8 no picture"
    tags: dict[int, Any] = {
        256: (tf.LONG, [width]),
        257: (tf.LONG, [height]),
        258: (tf.SHORT, [8, 8, 8]),
        259: (tf.SHORT, [7]),
        262: (tf.SHORT, [2 if rgb_coded else 6]),
        277: (tf.SHORT, [3]),
        282: (tf.RATIONAL, [20000, 1]),
        283: (tf.RATIONAL, [20000, 1]),
        284: (tf.SHORT, [1]),
        296: (tf.SHORT, [3]),
        322: (tf.LONG, [TILE_PX]),
        323: (tf.LONG, [TILE_PX]),
        530: (tf.SHORT, [1, 1]),
    }
    if icc:
        tags[34675] = (7, icc)
    tf.lay_out(tf.CLASSIC_LE, [tf.Page(tags, blobs)]).write(path)
    return path


def raw_tiles(path: Path, level: int = 0) -> list[bytes]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        data = path.read_bytes()
        pairs = zip(page.dataoffsets, page.databytecounts, strict=True)
        return [data[at : at + size] for at, size in pairs]


@pytest.mark.parametrize("suffix", [".svs", ".tiff"])
def test_tiles_are_copied_to_the_byte(
    shared_data: Path, suffix: str, tmp_path: Path
) -> None:
    source = shared_data / "slides" / "CMU-1-Small-Region.svs"
    made = convert(source, tmp_path / f"a{suffix}", quality=0)
    assert made.copied
    assert (made.missing, made.damaged) == (0, 0)
    assert raw_tiles(made.path) == raw_tiles(source)
    with tifffile.TiffFile(source) as old, tifffile.TiffFile(made.path) as new:
        assert new.pages[0].jpegtables == old.pages[0].jpegtables
        assert new.pages[0].photometric == old.pages[0].photometric
        texts = [str(page.tags.values()) for page in new.pages]
    assert not any("ScanScope" in text for text in texts)
    before, after = open_slide(source), open_slide(made.path)
    assert after.spacing_um == before.spacing_um
    assert after.dimensions == before.dimensions
    core = after._open_core()
    full = read_level(core, 0)
    np.testing.assert_array_equal(full, read_level(before._open_core(), 0))
    quarter = read_level(core, 1)
    np.testing.assert_array_equal(quarter, box_mean(full, 4))
    with openslide.OpenSlide(made.path) as oracle:
        assert oracle.level_dimensions == ((2220, 2967), (555, 741))
        seen = np.asarray(oracle.read_region((500, 600), 0, (300, 200)))[..., :3]
    assert difference(seen, full[600:800, 500:800]) <= 2


@pytest.mark.parametrize("rgb_coded", [False, True])
def test_color_coding_and_own_tables_come_along(
    tmp_path: Path, rgb_coded: bool
) -> None:
    rgb = smooth_image(300, 400)
    source = write_jpeg_slide(tmp_path / "a.tiff", rgb, rgb_coded=rgb_coded)
    made = convert(source, tmp_path / "b.svs")
    assert made.copied
    assert raw_tiles(made.path) == raw_tiles(source)
    new, old = open_slide(made.path)._open_core(), open_slide(source)._open_core()
    np.testing.assert_array_equal(read_level(new, 0), read_level(old, 0))


def test_a_rectangle_of_whole_tiles_is_copied_any_other_is_encoded(
    tmp_path: Path,
) -> None:
    rgb = smooth_image(700, 900)
    source = write_jpeg_slide(tmp_path / "a.tiff", rgb)
    full = read_level(open_slide(source)._open_core(), 0)
    x0, y0, width, height = box = (2 * TILE_PX, TILE_PX, 300, 500)
    made = convert(source, tmp_path / "b.tiff", box=box)
    assert made.copied
    got = read_level(open_slide(made.path)._open_core(), 0)
    np.testing.assert_array_equal(got, full[y0 : y0 + height, x0 : x0 + width])
    for box, quality, copy in (
        ((7, 9, 300, 500), 0, True),
        ((0, 0, 900, 700), 0, False),
    ):
        x0, y0, width, height = box
        path = tmp_path / f"{x0}.tiff"
        made = convert(source, path, box=box, quality=quality, copy_tiles=copy)
        assert not made.copied
        got = read_level(open_slide(path)._open_core(), 0)
        np.testing.assert_array_equal(got, full[y0 : y0 + height, x0 : x0 + width])
    for box in ((0, 0, 901, 1), (-1, 0, 5, 5), (0, 0, 0, 5), (899, 699, 2, 1)):
        with pytest.raises(UsageError, match="inside the slide"):
            convert(source, tmp_path / "c.tiff", box=box)
    assert not (tmp_path / "c.tiff").exists()


def statuses(path: Path, level: int) -> list[str]:
    core = open_slide(path)._open_core()
    width, height, tile, _, _ = core.levels[level]
    return [
        core.read_tile(level, column, row)[1]
        for row in range(-(-height // tile))
        for column in range(-(-width // tile))
    ]


@pytest.mark.parametrize("copy", [True, False])
def test_damage_never_becomes_a_sound_tile(tmp_path: Path, copy: bool) -> None:
    """What a bad tile reaches into is missing in the new file, not white or gray."""
    side = 16 * TILE_PX
    source = write_jpeg_slide(
        tmp_path / "a.tiff",
        smooth_image(side, side),
        holes=(0,),
        cut=(12,),
        broken=(9 * 16 + 1,),
    )
    assert [statuses(source, 0)[i] for i in (0, 12, 145)] == [
        "missing",
        "warned",
        "corrupt",
    ]
    made = convert(source, tmp_path / "b.tiff", copy_tiles=copy)
    assert (made.copied, made.missing, made.damaged) == (copy, 1, 2)
    assert "1 are missing and 2 damaged" in made.line()
    got = statuses(made.path, 0)
    if copy:  # the source's tiles
        bad = {0: "missing", 12: "warned", 145: "corrupt"}
    else:  # tiles of 256 px: 8 x 8
        bad = {0: "missing", 6: "missing", 4 * 8: "missing"}
    assert {i: status for i, status in enumerate(got) if status != "ok"} == bad
    # A tile of 1/4 lies over 4 x 4 of level 0: there are 4 x 4 of it, or 2 x 2.
    quarter = statuses(made.path, 1)
    assert len(quarter) == (16 if copy else 4)
    at = {0, 3, 8} if copy else {0, 1, 2}
    assert {i for i, status in enumerate(quarter) if status != "ok"} == at
    assert set(quarter) == {"ok", "missing"}


@pytest.mark.parametrize("suffix", [".svs", ".tiff"])
def test_color_profiles_are_kept(tmp_path: Path, suffix: str) -> None:
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgb = smooth_image(300, 300)
    slide = write_jpeg_slide(tmp_path / "a.tiff", rgb, icc=profile)
    plain = tmp_path / "a.png"
    Image.fromarray(rgb).save(plain, icc_profile=profile)
    for source in (slide, plain):
        for copy in (True, False):
            path = tmp_path / f"{source.suffix}{copy}{suffix}"
            convert(source, path, mpp=0.5, copy_tiles=copy)
            with tifffile.TiffFile(path) as tiff:
                assert bytes(tiff.pages[0].tags[34675].value) == profile


def test_a_damaged_slide_is_not_healed_by_conversion(tmp_path: Path) -> None:
    """End to end: 3+ tissue whose tiles are half gone ends without a score."""
    import packages

    rgb = slides.paint((1024, 1024), stains=(3, 3))
    source = write_jpeg_slide(tmp_path / "a.tiff", rgb, holes=(18, 19), broken=(27,))
    method = packages.write_method(tmp_path / "m")
    for path in (source, convert(source, tmp_path / "b.svs", quality=90).path):
        result = her2fast.score(path, model=method, mpp=1.0, allow_unknown_model=True)
        assert result.score is None
        assert result.code in ("MISSING_TILES", "CORRUPT_TILES")


@pytest.mark.parametrize("vendor", ["a.scn", "a.mrxs", "a.bif", "p.tiff"])
def test_slides_of_other_formats_keep_pixels_and_spacing(
    tmp_path: Path, vendor: str
) -> None:
    writers: dict[str, Any] = {
        "a.scn": vendor_slides.write_scn,
        "a.mrxs": vendor_slides.write_mirax,
        "a.bif": vendor_slides.write_bif,
        "p.tiff": vendor_slides.write_philips,
    }
    rgb = np.repeat(np.repeat(smooth_image(128, 160), 8, axis=0), 8, axis=1)
    areas = [(256, 256, 512, 256), (768, 512, 256, 512)]
    source = writers[vendor](tmp_path / vendor, rgb, areas, 0.5)
    made = convert(source, tmp_path / "out.svs", quality=0)
    assert not made.copied
    old, new = open_slide(source), open_slide(made.path)
    assert (new.dimensions, new.spacing_um) == (old.dimensions, old.spacing_um)
    assert new._open_core().reader == "native"
    size = new.dimensions
    np.testing.assert_array_equal(
        new.read(0, 0, size, spacing_um=0.5), old.read(0, 0, size, spacing_um=0.5)
    )


def test_ndpi_comes_out_with_equal_pixels(tmp_path: Path) -> None:
    rgb = smooth_image(512, 768)
    path = tmp_path / "a.ndpi"
    pages = tf.ndpi_pages(rgb, restart_mcus=96)
    tf.lay_out(tf.NDPI, pages).write(path)
    made = convert(path, tmp_path / "b.tiff", quality=0)
    old, new = open_slide(path), open_slide(made.path)
    um = old.spacing_um[0]
    assert new.spacing_um == old.spacing_um
    np.testing.assert_array_equal(
        new.read(0, 0, (768, 512), spacing_um=um),
        old.read(0, 0, (768, 512), spacing_um=um),
    )


def test_two_spacings_stay_two(tmp_path: Path) -> None:
    """1 % apart is accepted, and neither takes the other's place."""
    path = tmp_path / "a.tiff"
    _core.write_pyramid(path, smooth_image(300, 300), spacing_um=0.5)
    core = _core.Slide.open(path)
    for name in ("b.tiff", "b.svs"):
        _core.convert_slide(
            core,
            tmp_path / name,
            spacing_um=(0.5, 0.505),
            box_px=(0, 0, 300, 300),
            jpeg_quality=0,
            aperio=name.endswith("svs"),
        )
        assert open_slide(tmp_path / name).spacing_um == pytest.approx((0.5, 0.505))


def test_more_bytes_than_classic_tiff_holds_become_a_bigtiff(tmp_path: Path) -> None:
    """The limit is lowered; the offsets are what 4 GB would need."""
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(600, 600))
    core = _core.Slide.open(source)
    size = sum(map(len, raw_tiles(source)))
    for limit, big in ((size // 2, True), (10 * size, False)):
        path = tmp_path / f"{big}.tiff"
        report = _core.convert_slide(
            core,
            path,
            spacing_um=(0.5, 0.5),
            box_px=(0, 0, 600, 600),
            jpeg_quality=90,
            aperio=True,
            classic_bytes=limit,
        )
        assert bool(report["big_tiff"]) == big
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_bigtiff == big
        assert raw_tiles(path) == raw_tiles(source)
        with openslide.OpenSlide(path) as oracle:
            assert oracle.dimensions == (600, 600)


def test_bytes_do_not_depend_on_workers(tmp_path: Path) -> None:
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(700, 900), holes=(3,))
    contents = {
        convert(source, tmp_path / f"{n}.svs", workers=n).path.read_bytes()
        for n in (1, 2, 5)
    }
    assert len(contents) == 1


def test_memory_is_a_band(tmp_path: Path) -> None:
    """Eight times the height, the same memory: 4,096 x 2,048 and x 16,384."""
    script = """
import resource, sys
from pathlib import Path
from her2fast.convert import convert
convert(sys.argv[1], sys.argv[2], workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    band = smooth_image(256, 4096)
    peaks = []
    for height in (2048, 16384):
        source = tmp_path / f"{height}.svs"
        _core.write_pyramid_rows(
            source, 4096, height, lambda y, n: band[:n], spacing_um=0.5, aperio=True
        )
        out = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                str(source),
                str(tmp_path / f"{height}.tiff"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(out.stdout) >> 10)
        assert raw_tiles(tmp_path / f"{height}.tiff") == raw_tiles(source)
    assert peaks[1] - peaks[0] < 24  # MiB; the pixels of the taller one are 192


def test_a_killed_conversion_leaves_no_file_and_can_be_repeated(tmp_path: Path) -> None:
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(1024, 512))
    target = tmp_path / "b.tiff"
    script = """
import sys, time
from her2fast.convert import convert
def slow(rows_px, all_px):
    print(rows_px, flush=True)
    time.sleep(0.5)
convert(sys.argv[1], sys.argv[2], on_rows=slow)
"""
    words = [sys.executable, "-c", script, str(source), str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "128"
        os.kill(child.pid, signal.SIGKILL)
    assert not target.exists()
    assert convert(source, target).copied
    with pytest.raises(UsageError, match="--overwrite"):
        convert(source, target)


def test_an_interrupt_ends_a_conversion_at_once(tmp_path: Path) -> None:
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(1024, 512))

    def stop(rows_px: int, all_px: int) -> None:
        raise KeyboardInterrupt

    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "b.tiff", on_rows=stop)
    assert time.monotonic() - begun_s < 10
    assert sorted(os.listdir(tmp_path)) == ["a.tiff"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(600, 600))
    words = ["convert", str(source), str(tmp_path / "b.svs")]
    assert cli.run([*words, "--region", "128,128,256,200"]) == 0
    assert "256 x 200 px at 0.5 um/px, tiles copied" in capsys.readouterr().out
    assert cli.run(words) == 64
    assert cli.run([*words, "--overwrite", "--re-encode", "--mpp", "0.25"]) == 0
    assert open_slide(tmp_path / "b.svs").spacing_um == (0.25, 0.25)
    assert cli.run(["convert", words[2], words[2], "--overwrite"]) == 64
    for more in (["--region", "1,2,3"], ["--region", "0,0,601,1"]):
        assert cli.run(["convert", str(source), str(tmp_path / "c.svs"), *more]) == 64
    assert cli.run(["convert", str(source), str(tmp_path / "c.png")]) == 64
    assert cli.run(["convert", str(source), str(tmp_path / "no" / "c.svs")]) == 74
    assert cli.run(["convert", str(tmp_path / "none.svs"), words[2]]) == 64
    assert sorted(os.listdir(tmp_path)) == ["a.tiff", "b.svs"]


def test_a_slide_that_cannot_be_read_keeps_its_code(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    source = write_jpeg_slide(tmp_path / "a.tiff", smooth_image(600, 600))
    path.write_bytes(source.read_bytes()[:-3000])
    with pytest.raises(SlideError) as caught:
        convert(path, tmp_path / "b.svs")
    assert caught.value.code in ("TRUNCATED", "BAD_HEADER")
    with pytest.raises(SlideError) as caught:
        convert(tmp_path / "none.svs", tmp_path / "b.svs")
    assert caught.value.code == "NOT_FOUND"
