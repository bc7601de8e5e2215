# SPDX-License-Identifier: Apache-2.0
"""Thousands of malformed slides: the right code, or the sound slide's pixels.

Never a crash, a hang, memory without bound, another frame, or other pixels that are not
flagged.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import numpy.typing as npt
import openslide_bin
import pytest
import tiff_files as tf

from her2fast import _core
from her2fast.errors import SlideError

Rgb = npt.NDArray[np.uint8]
Pixels = tuple[Rgb, npt.NDArray[np.bool_]]

MAX_SECONDS = 2.0
MAX_RSS_KIB = 256 << 10
SPACING_UM = (0.25, 0.25)


@pytest.fixture(scope="module", autouse=True)
def _openslide_library() -> None:
    library = Path(openslide_bin.__file__).parent / "libopenslide.so.1"
    _core.set_openslide_library(library)


def read_levels(slide: Any) -> dict[tuple[int, int], Pixels]:
    """By size: the pixels, and which of them are from tiles that are ok."""
    levels = {}
    for level, (width, height, tile_width, tile_height, _) in enumerate(slide.levels):
        assert width * height <= 1 << 20, "a size that is not the slide's"
        rgb = np.zeros((height, width, 3), np.uint8)
        is_ok = np.zeros((height, width), bool)
        for y in range(0, height, tile_height):
            for x in range(0, width, tile_width):
                place = (level, x // tile_width, y // tile_height)
                tile, status = slide.read_tile(*place)
                part = rgb[y : y + tile_height, x : x + tile_width]
                part[:] = tile[: part.shape[0], : part.shape[1]]
                is_ok[y : y + tile_height, x : x + tile_width] = status == "ok"
        levels[width, height] = (rgb, is_ok)
    return levels


def outcome(path: Path, sound: dict[tuple[int, int], Pixels]) -> str:
    try:
        slide = _core.Slide.open(path)
    except SlideError as error:
        return error.code if path.name in str(error) else f"nameless: {error}"
    levels = read_levels(slide)
    assert slide.levels[0][:2] == (corpus.SIDE_PX, corpus.SIDE_PX), "another frame"
    if slide.reader == "native":
        assert set(levels) <= set(sound), "a level that is none"
    flagged = False
    for size in set(levels) & set(sound):
        rgb, is_ok = levels[size]
        np.testing.assert_array_equal(rgb[is_ok], sound[size][0][is_ok])
        flagged |= not is_ok.all()
    try:
        spacing = _core.resolve_frame(slide)[0]
    except SlideError as error:
        return error.code
    if spacing != SPACING_UM:
        assert spacing == pytest.approx((0.635, 0.635))
        return "INCH"
    if flagged:
        return "flagged"
    return "opens" if set(levels) >= set(sound) else "fewer"


@pytest.mark.parametrize("dialect", corpus.DIALECTS, ids=lambda d: d.name)
def test_every_file_ends_as_it_should(tmp_path: Path, dialect: tf.Dialect) -> None:
    path = tmp_path / "slide.tiff"
    path.write_bytes(tf.lay_out(dialect, corpus.pages(dialect)).to_bytes())
    sound = read_levels(_core.Slide.open(path))
    assert all(is_ok.all() for _, is_ok in sound.values())
    for rgb, n in zip(sound.values(), (1, 2), strict=True):
        error = np.abs(rgb[0].astype(int) - corpus.picture()[::n, ::n])
        assert error.mean() < 6  # it is the picture, but for JPEG's loss
    rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong, count = [], 0
    for case, data in corpus.cases(dialect):
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            got = outcome(path, sound)
        except AssertionError as error:
            got = f"wrong: {str(error).strip().splitlines()[0]}"
        seconds = time.perf_counter() - start
        allowed = corpus.expected(case)
        if got not in allowed:
            wrong.append(f"{case.name}: {got}, need {sorted(allowed)}")
        if seconds > MAX_SECONDS:
            wrong.append(f"{case.name}: {seconds:.1f} s")
        count += 1
    assert not wrong, "\n".join(wrong)
    assert count > 650
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_kib
    assert grown_kib < MAX_RSS_KIB


def test_there_are_19_tags_and_over_1000_files() -> None:
    total = 0
    for dialect in corpus.DIALECTS:
        tags = corpus.tags_of(tf.lay_out(dialect, corpus.pages(dialect)))
        assert len(tags) == 19, (dialect.name, tags)
        total += len(tags) * len(corpus.OPERATIONS) * 2
        total += len(corpus.JPEG_EDITS) + corpus.TRUNCATIONS
    assert total > 1000


@pytest.mark.parametrize("count", [1025, 5])
def test_chains_of_directories_end(tmp_path: Path, count: int) -> None:
    """A chain longer than any slide's, and one that comes back to its start."""
    for dialect in corpus.DIALECTS:
        page = corpus.pages(dialect)[0]
        pages = [page, *(tf.Page({256: (tf.LONG, [1])}, []) for _ in range(count))]
        layout = tf.lay_out(dialect, pages)
        data = bytearray(layout.to_bytes())
        code = "LIMIT_EXCEEDED"
        if count < 1024:
            code = "IFD_CYCLE"
            wide = dialect.big or dialect.ndpi
            first, last = (
                next(at for at, part in layout.pieces if at == link)
                for link in (8 if dialect.big else 4, links(layout, dialect)[-1])
            )
            size = 8 if wide else 4
            data[last : last + size] = data[first : first + size]
        path = tmp_path / "chain.tiff"
        path.write_bytes(data)
        with pytest.raises(SlideError) as caught:
            _core.Slide.open(path)
        assert caught.value.code == code


def links(layout: tf.Layout, dialect: tf.Dialect) -> list[int]:
    """Where directories name the next one: behind their last entry."""
    size = 20 if dialect.big else 12
    ends: dict[int, int] = {}
    for (page, _), at in layout.entries.items():
        ends[page] = max(ends.get(page, 0), at + size)
    return [ends[page] for page in sorted(ends)]
