# SPDX-License-Identifier: Apache-2.0
"""Slides far larger than a test may write: shared tiles, holes, levels in SubIFDs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiff_files as tf
from corpus import TILE_PX, picture, tiled_page
from test_ndpi import holes_are_free, read_level

from her2fast import _core
from her2fast.errors import SlideError

# Offsets and sizes of its tiles are all that a reader keeps of a slide: 12 bytes each,
# and 16 while the directory is parsed; the rest is what an allocator may round up.
BYTES_PER_TILE = 48
TILES_READ = 400


def write_repeated(path: Path, side_tiles: int) -> None:
    """A level of side_tiles x side_tiles tiles of 256 px, all the same bytes."""
    rgb = np.tile(picture()[:128, :128], (2, 2, 1))
    side_px = side_tiles * 256
    page = tf.Page(
        {
            256: (tf.LONG, [side_px]),
            257: (tf.LONG, [side_px]),
            258: (tf.SHORT, [8, 8, 8]),
            259: (tf.SHORT, [7]),
            262: (tf.SHORT, [6]),
            277: (tf.SHORT, [3]),
            282: (tf.RATIONAL, [40000, 1]),
            283: (tf.RATIONAL, [40000, 1]),
            296: (tf.SHORT, [3]),
            322: (tf.SHORT, [256]),
            323: (tf.SHORT, [256]),
        },
        [tf.encode_jpeg(rgb)],
    )
    layout = tf.lay_out(tf.BIG, [page])
    tile_at = layout.blobs[0, 0]
    count = side_tiles * side_tiles
    data = bytearray(layout.to_bytes())
    for tag, width, value in (
        (324, np.uint64, tile_at),
        (325, np.uint32, len(page.blobs[0])),
    ):
        entry = layout.entries[0, tag]
        values = np.full(count, value, width).tobytes()
        data[entry + 4 : entry + 12] = count.to_bytes(8, "little")
        data[entry + 12 : entry + 20] = len(data).to_bytes(8, "little")
        data += values
    path.write_bytes(data)


# In a process of its own: what other tests did must not count.
PROGRAM = """
import json, resource, sys
import numpy as np
from her2fast import _core, open_slide

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
with open_slide(sys.argv[1]) as slide:
    side = slide.dimensions[0] // 256
    index = np.linspace(0, side * side - 1, int(sys.argv[2])).astype(np.int64)
    corners = np.stack([index % side, index // side], axis=1) * 256 + 7
    total = 0
    for batch in slide.tiles(256, 0.25, 16, 2, coords_px=corners[:-1]):
        assert set(batch.status) == {"ok"}
        total += len(batch.rgb)
print(json.dumps([side, total, peak() - before]))
"""


def grown_kib(path: Path) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(TILES_READ)],
        capture_output=True,
        text=True,
        check=True,
    )
    side, total, grown = json.loads(done.stdout)
    assert total == TILES_READ - 1
    return side, grown


def test_memory_is_flat_from_1_to_40_gigapixels(tmp_path: Path) -> None:
    peaks = {}
    for gigapixels, side_tiles in ((1, 124), (40, 782)):
        path = tmp_path / f"{gigapixels}.tiff"
        write_repeated(path, side_tiles)
        assert (side_tiles * 256) ** 2 >= gigapixels * 10**9 * 0.999
        side, peaks[gigapixels] = grown_kib(path)
        assert side == side_tiles
    index_kib = (782**2 - 124**2) * BYTES_PER_TILE // 1024
    noise_kib = 8 << 10  # of allocators and thread stacks
    assert peaks[40] - peaks[1] <= index_kib + noise_kib, peaks
    # The cache, the batches ahead and the threads, and nothing else.
    assert peaks[1] < 160 << 10, peaks


@pytest.mark.parametrize("dialect", [tf.BIG, tf.NDPI], ids=lambda d: d.name)
def test_tiles_beyond_4_gb_are_read(tmp_path: Path, dialect: tf.Dialect) -> None:
    if not holes_are_free(tmp_path):
        pytest.skip("the file system stores holes")
    rgb = picture()
    half = np.ascontiguousarray(rgb[::2, ::2])
    pages = (
        tf.ndpi_pages(rgb, restart_mcus=8)[:2]
        if dialect.ndpi
        else [tiled_page(rgb, 1), tiled_page(half, 2)]
    )
    path = tmp_path / "small.tiff"
    tf.lay_out(dialect, pages).write(path)
    expected = [read_level(_core.Slide.open(path), level) for level in (0, 1)]
    pages[0].hole_bytes = 5 << 30
    path = tmp_path / "large.tiff"
    tf.lay_out(dialect, pages).write(path)
    assert path.stat().st_size > 5 << 30
    slide = _core.Slide.open(path)
    for level in (0, 1):
        np.testing.assert_array_equal(read_level(slide, level), expected[level])


def write_with_sub_ifd(path: Path, dialect: tf.Dialect, target: str) -> None:
    """The second level hangs below the first; nothing follows the first directory."""
    rgb = picture()
    first = tiled_page(rgb, 1)
    kind = tf.LONG8 if dialect.big else tf.LONG
    first.tags[330] = (kind, [0])
    pages = [first, tiled_page(np.ascontiguousarray(rgb[::2, ::2]), 2)]
    layout = tf.lay_out(dialect, pages)
    data = bytearray(layout.to_bytes())
    word, entry_size, count_size = (8, 20, 8) if dialect.big else (4, 12, 2)
    order = "little" if dialect.little else "big"
    directories = [
        min(at for (page, _), at in layout.entries.items() if page == number)
        - count_size
        for number in (0, 1)
    ]
    last = max(at for (page, _), at in layout.entries.items() if page == 0)
    link = last + entry_size
    data[link : link + word] = bytes(word)
    value = {
        "level": directories[1],
        "itself": directories[0],
        "past the end": len(data) + 4,
    }[target]
    at = layout.entries[0, 330] + entry_size - word
    data[at : at + word] = value.to_bytes(word, order)  # type: ignore[arg-type]
    path.write_bytes(data)


TILED = (tf.CLASSIC_LE, tf.CLASSIC_BE, tf.BIG)


@pytest.mark.parametrize("dialect", TILED, ids=lambda d: d.name)
def test_levels_in_sub_ifds_are_levels(tmp_path: Path, dialect: tf.Dialect) -> None:
    path = tmp_path / "chained.tiff"
    rgb = picture()
    half = np.ascontiguousarray(rgb[::2, ::2])
    tf.lay_out(dialect, [tiled_page(rgb, 1), tiled_page(half, 2)]).write(path)
    chained = _core.Slide.open(path)
    path = tmp_path / "sub.tiff"
    write_with_sub_ifd(path, dialect, "level")
    slide = _core.Slide.open(path)
    assert slide.levels == chained.levels
    assert [level[2] for level in slide.levels] == [TILE_PX, TILE_PX]
    for level in (0, 1):
        np.testing.assert_array_equal(
            read_level(slide, level), read_level(chained, level)
        )


@pytest.mark.parametrize("dialect", TILED, ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("target", "code"), [("itself", "IFD_CYCLE"), ("past the end", "TRUNCATED")]
)
def test_damaged_sub_ifds_have_their_code(
    tmp_path: Path, dialect: tf.Dialect, target: str, code: str
) -> None:
    path = tmp_path / "sub.tiff"
    write_with_sub_ifd(path, dialect, target)
    with pytest.raises(SlideError) as caught:
        _core.Slide.open(path)
    assert caught.value.code == code
