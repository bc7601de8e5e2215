# SPDX-License-Identifier: Apache-2.0
"""Does `convert` write more than 4 GB? See README.md beside this file for the rules."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile

import her2fast
from her2fast.convert import convert

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))  # writes TIFF
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiff_files as tf  # noqa: E402

from conditions import tell  # noqa: E402

TILE_PX = 64
TILE_BYTES = 1_000_000
SIDE_TILES = 66  # 4.36 GB
SMALL_TILES = 29  # 0.84 GB
CLASSIC_BYTES = 1 << 32
NEEDED_BYTES = 5 << 30


def long_jpeg() -> bytes:
    """A tile of TILE_BYTES: comments stand between its header's first segments."""
    rgb = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    rgb[..., 0] = 4 * np.arange(TILE_PX)
    rgb[..., 1] = 4 * np.arange(TILE_PX)[:, None]
    jpeg = tf.encode_jpeg(rgb)
    missing = TILE_BYTES - len(jpeg)
    comments = []
    while missing > 0:
        body = min(missing - 4, 60_000)
        comments.append(b"\xff\xfe" + struct.pack(">H", body + 2) + bytes(body))
        missing -= 4 + body
    return jpeg[:2] + b"".join(comments) + jpeg[2:]


def write_source(path: Path, side_tiles: int, jpeg: bytes) -> None:
    side_px = side_tiles * TILE_PX
    tags = {
        256: (tf.LONG, [side_px]),
        257: (tf.LONG, [side_px]),
        258: (tf.SHORT, [8, 8, 8]),
        259: (tf.SHORT, [7]),
        262: (tf.SHORT, [6]),
        277: (tf.SHORT, [3]),
        282: (tf.RATIONAL, [40000, 1]),
        283: (tf.RATIONAL, [40000, 1]),
        296: (tf.SHORT, [3]),
        322: (tf.SHORT, [TILE_PX]),
        323: (tf.SHORT, [TILE_PX]),
    }
    layout = tf.lay_out(tf.BIG, [tf.Page(tags, [jpeg])])
    tile_at, count = layout.blobs[0, 0], side_tiles**2
    data = bytearray(layout.to_bytes())
    for tag, width, value in ((324, np.uint64, tile_at), (325, np.uint32, len(jpeg))):
        entry = layout.entries[0, tag]
        data[entry + 4 : entry + 12] = count.to_bytes(8, "little")
        data[entry + 12 : entry + 20] = len(data).to_bytes(8, "little")
        data += np.full(count, value, width).tobytes()
    path.write_bytes(data)


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"wrong answer: {what}")


def check(path: Path, side_tiles: int, jpeg: bytes, big: bool) -> dict[str, Any]:
    """Raises SystemExit where anything is not as the README says."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        offsets, sizes = page.dataoffsets, page.databytecounts
        expect(tiff.is_bigtiff == big, f"BigTIFF is {tiff.is_bigtiff}, not {big}")
    expect(len(offsets) == side_tiles**2, f"{len(offsets)} tiles")
    expect((max(offsets) >= CLASSIC_BYTES) == big, f"offsets up to {max(offsets)}")
    beyond = next((i for i, at in enumerate(offsets) if at >= CLASSIC_BYTES), 1)
    with (
        path.open("rb") as file,
        her2fast.open_slide(path) as slide,
        openslide.OpenSlide(path) as oracle,
    ):
        want = tf.decode_jpeg(jpeg)
        for i in (0, beyond - 1, beyond, len(offsets) - 1):
            file.seek(offsets[i])
            expect(file.read(sizes[i]) == jpeg, f"tile {i} has other bytes")
            x_px, y_px = i % side_tiles * TILE_PX, i // side_tiles * TILE_PX
            got = slide.read(x_px, y_px, TILE_PX, 0.25)
            expect(np.array_equal(got, want), f"tile {i} has other pixels")
            region = oracle.read_region((x_px, y_px), 0, (TILE_PX, TILE_PX))
            same = np.array_equal(np.asarray(region.convert("RGB")), want)
            expect(same, f"tile {i} has other pixels in OpenSlide")
    return {"bytes": path.stat().st_size, "last_offset": max(offsets), "big_tiff": big}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folder", type=Path, help="for 5 GB of temporary files")
    arguments = parser.parse_args()
    jpeg = long_jpeg()
    expect(len(jpeg) == TILE_BYTES, f"a tile of {len(jpeg)} bytes")
    result: dict[str, Any] = {
        "question": "does convert write more than 4 GB",
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load_before": [round(v, 2) for v in os.getloadavg()],
        },
        "version": her2fast.__version__,
        "cases": {},
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if free < NEEDED_BYTES:
            raise SystemExit(
                f"need 5 GB of free disk in {folder}, got {free >> 20} MiB"
            )
        for case, side_tiles in (("classic", SMALL_TILES), ("big", SIDE_TILES)):
            source, path = folder / "source.tiff", folder / f"{case}.tiff"
            write_source(source, side_tiles, jpeg)
            start = time.perf_counter()
            report = convert(source, path, workers=2)
            seconds = time.perf_counter() - start
            expect(report.copied, "the tiles were not copied")
            figures = check(path, side_tiles, jpeg, case == "big")
            figures["seconds"] = round(seconds, 1)
            figures["megabytes_per_s"] = round(figures["bytes"] / seconds / 1e6)
            result["cases"][case] = figures
            path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_megabytes"] = round(peak / 1024)
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
