# SPDX-License-Identifier: Apache-2.0
"""The adaptor on a fake OpenSlide: frames, holes, hostile numbers, threads.

`fake_openslide.c` serves what no file of ours can show. A process keeps the first
library that it loads, so the fake is asked in processes of their own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake OpenSlide with")
    out = tmp_path_factory.mktemp("fake") / "libfake_openslide.so"
    source = HERE / "fake_openslide.c"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(out), str(source)]
    subprocess.run([*words, "-lm", "-lpthread"], check=True)
    return out


Ask = Callable[[str, str], Any]


@pytest.fixture
def ask(fake_library: Path, tmp_path: Path) -> Ask:
    """Runs code on the fake slide `path`; what it puts into `answer` comes back."""

    def run(text: str, code: str) -> Any:
        path = tmp_path / "slide.fake"
        path.write_text(textwrap.dedent(text))
        head = f"""
            import json, os, sys
            import numpy as np
            from her2fast import _core
            from her2fast.errors import SlideError
            os.environ["FAKE_OPENSLIDE_LOG"] = {str(tmp_path / "log")!r}
            _core.set_openslide_library({str(fake_library)!r})
            path, answer = {str(path)!r}, None
        """
        script = textwrap.dedent(head) + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", script + "\nprint(json.dumps(answer))"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


PLAIN = """
    vendor {vendor}
    level 1024 768 1
    level 256 192 4
    property openslide.mpp-x 0.25
    property openslide.mpp-y 0.25
"""


def test_frame_of_bounds_that_no_level_divides(ask: Ask) -> None:
    """A pixel says where it is from: the corner (101, 203) at every level."""
    bounds = """
        property openslide.bounds-x 101
        property openslide.bounds-y 203
        property openslide.bounds-width 901
        property openslide.bounds-height 400
    """
    answer = ask(
        PLAIN.format(vendor="mirax") + bounds,
        """
        slide = _core.Slide.open(path)
        first = [slide.read_tile(i, 0, 0)[0][:2, :2].tolist() for i in (0, 1)]
        far = slide.read_tile(0, 1, 0)[0][0, 0].tolist()
        answer = [slide.levels, first, far, slide.properties]
        """,
    )
    levels, first, far, properties = answer
    assert [level[:2] for level in levels] == [[901, 400], [225, 100]]
    assert [level[4] for level in levels] == [1.0, 4.0]
    assert first[0][0] == [[101, 203, 0], [102, 203, 0]]
    assert first[0][1] == [[101, 204, 0], [102, 204, 0]]
    # 101 / 4 = 25.25 and 203 / 4 = 50.75: OpenSlide is asked for (101, 203) itself.
    assert first[1][0][0] == [25, 51, 10]
    assert far == [(101 + 512) % 251, 203, 0]
    assert properties["openslide.bounds-x"] == "101"


def test_downsamples_that_are_no_whole_numbers_do_not_drift(ask: Ask) -> None:
    """2.0004 over 40,000 px: a copy at 2 would end 8 px off."""
    answer = ask(
        """
        vendor mirax
        level 80016 1024 1
        level 40000 512 2.0004
        property openslide.mpp-x 0.5
        property openslide.mpp-y 0.5
        """,
        """
        slide = _core.Slide.open(path)
        columns = -(-40000 // 512)
        answer = [
            slide.levels[1][4],
            [slide.read_tile(1, c, 0)[0][0, :2, 0].tolist() for c in range(columns)],
        ]
        """,
    )
    assert answer[0] == pytest.approx(2.0004)
    for column, pixels in enumerate(answer[1]):
        assert pixels == [(512 * column) % 251, (512 * column + 1) % 251]


@pytest.mark.parametrize(
    ("vendor", "status"),
    [
        ("mirax", "ok"),
        ("leica", "ok"),
        ("ventana", "ok"),
        ("philips", "ok"),
        ("dicom", "ok"),
        ("zeiss", "ok"),
        ("aperio", "missing"),
        ("generic-tiff", "missing"),
        ("trestle", "missing"),
        ("of-tomorrow", "missing"),
    ],
)
def test_holes(ask: Ask, vendor: str, status: str) -> None:
    """A hole of one pixel is a loss, unless the format leaves out what was not scanned.

    Partly transparent pixels are composed over white; black is never made up.
    """
    answer = ask(
        PLAIN.format(vendor=vendor)
        + "    clear 600 100 1 1\n    veil 10 10 1 1 51\n    clear 1023 767 1 1\n",
        """
        slide = _core.Slide.open(path)
        tile, status = slide.read_tile(0, 1, 0)
        veiled, near = slide.read_tile(0, 0, 0)
        corner = slide.read_tile(0, 1, 1)[1]
        answer = [tile[100, 88].tolist(), tile[99, 88].tolist(), status,
                  veiled[10, 10].tolist(), near, corner]
        """,
    )
    hole, beside, got, veiled, near, corner = answer
    assert got == status
    assert hole == [255, 255, 255]
    assert beside == ([600 % 251, 99, 0] if status == "ok" else [255, 255, 255])
    assert veiled == [10 * 51 // 255 + 204] * 2 + [204]
    assert near == "ok"
    assert corner == "ok"  # a level may end within a pixel


def test_only_the_tile_that_fails_is_corrupt(ask: Ask) -> None:
    """An error ends a handle for all threads; the others' tiles are read again."""
    answer = ask(
        """
        vendor mirax
        level 4096 4096 1
        property openslide.mpp-x 0.25
        property openslide.mpp-y 0.25
        fail 1100 600 1 1
        slow 500
        """,
        """
        from concurrent.futures import ThreadPoolExecutor
        slide = _core.Slide.open(path)
        places = [(c, r) for r in range(8) for c in range(8)]
        with ThreadPoolExecutor(8) as pool:
            tiles = list(pool.map(lambda at: slide.read_tile(0, *at), places))
        answer = []
        for (column, row), (tile, status) in zip(places, tiles):
            first = tile[0, 0].tolist()
            answer.append([column, row, status, first])
        """,
    )
    for column, row, status, first in answer:
        if (column, row) == (2, 1):
            assert (status, first) == ("corrupt", [255] * 3)
        else:
            assert status == "ok"
            assert first == [512 * column % 251, 512 * row % 251, 0]


def test_threads_read_side_by_side_with_a_cache_of_its_own(
    ask: Ask, tmp_path: Path
) -> None:
    statuses = ask(
        """
        vendor mirax
        level 4096 4096 1
        property openslide.mpp-x 0.25
        property openslide.mpp-y 0.25
        slow 20000
        """,
        """
        _core.set_openslide_cache_bytes(12345678)
        slide = _core.Slide.open(path)
        reader = _core.TileReader(slide, (0.25, 0.25), workers=4, max_ahead=64)
        at = np.arange(16, dtype=np.int64)
        out = np.empty((16, 256, 256, 3), np.uint8)
        reader.submit_tiles(at % 4 * 512, at // 4 * 512, 0.25, out)
        answer = reader.next_statuses(16)
        del reader, slide
        """,
    )
    assert statuses == ["ok"] * 16
    log = (tmp_path / "log").read_text().splitlines()
    most_readers, cache_bytes = max(log).split()
    assert int(most_readers) >= 2
    assert cache_bytes == "12345678"


HOSTILE = {
    "downsample nan": ("level 1024 768 1\nlevel 256 192 nan", "BAD_HEADER"),
    "downsample inf": ("level 1024 768 1\nlevel 256 192 inf", "BAD_HEADER"),
    "downsample 0": ("level 1024 768 0", "BAD_HEADER"),
    "downsample negative": ("level 1024 768 1\nlevel 256 192 -4", "BAD_HEADER"),
    "downsample of another": ("level 1024 768 1\nlevel 256 192 3", "BAD_HEADER"),
    "level larger": ("level 1024 768 1\nlevel 4096 3072 4", "BAD_HEADER"),
    "no level": ("", "BAD_HEADER"),
    "no pixels": ("level 0 768 1", "BAD_HEADER"),
    "negative side": ("level 1024 -1 1", "BAD_HEADER"),
    "huge side": ("level 9000000000000 768 1", "LIMIT_EXCEEDED"),
    "bounds nan": ("level 1024 768 1\n@bounds-x nan", "BAD_HEADER"),
    "bounds huge": ("level 1024 768 1\n@bounds-x 99999999999999999999", "BAD_HEADER"),
    "bounds outside": (
        "level 1024 768 1\n@bounds-x 1024\n@bounds-y 0\n@bounds-width 9\n"
        "@bounds-height 9",
        "BAD_HEADER",
    ),
    "bounds empty": (
        "level 1024 768 1\n@bounds-x 0\n@bounds-y 0\n@bounds-width 0\n@bounds-height 9",
        "BAD_HEADER",
    ),
    "bounds in part": ("level 1024 768 1\n@bounds-x 10", "BAD_HEADER"),
    "spacing nan": ("level 1024 768 1\n@mpp-x nan\n@mpp-y nan", "NO_SPACING"),
    "spacing words": ("level 1024 768 1\n@mpp-x 0.5um\n@mpp-y 0.5um", "NO_SPACING"),
    "spacing huge": ("level 1024 768 1\n@mpp-x 1e300\n@mpp-y 1e300", "BAD_SPACING"),
    "spacing apart": ("level 1024 768 1\n@mpp-x 0.5\n@mpp-y 0.25", "BAD_SPACING"),
    "tiles huge": (
        "level 1024 768 1\n@level[0].tile-width 900000000\n@mpp-x 0.5\n@mpp-y 0.5",
        None,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_numbers_end_in_a_code_at_once(ask: Ask, name: str) -> None:
    text, code = HOSTILE[name]
    lines = [
        line.replace("@", "property openslide.") for line in text.splitlines() if line
    ]
    begun_s = time.monotonic()
    answer = ask(
        "\n".join(["vendor mirax", *lines]),
        """
        import resource
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            slide = _core.Slide.open(path)
            _core.resolve_frame(slide)
            answer = [None, slide.read_tile(0, 0, 0)[1]]
        except SlideError as error:
            answer = [error.code, str(error)]
        answer.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """,
    )
    assert answer[0] == code
    if code is None:
        assert answer[1] == "ok"
    assert answer[2] < 32 << 10  # KiB
    assert time.monotonic() - begun_s < 30
