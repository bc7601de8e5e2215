# SPDX-License-Identifier: Apache-2.0
"""Membranes of a slide from its tiles: how fast? See README.md for the rules."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import scipy
from scipy import ndimage

from her2fast import __version__
from her2fast.kernels.membrane import MembraneMerge, find_membranes, membrane_label
from her2fast.phantom import render

TILE_PX = 512
PATTERN_PX = 2048
OURS = ("her2fast", "her2fast_2_threads")
Bytes = npt.NDArray[np.uint8]


def make_pattern(seed: int) -> tuple[Bytes, Bytes]:
    """Membranes of a phantom at 0.25 um/px, and a density for each pixel."""
    phantom = render(
        seed,
        (PATTERN_PX, PATTERN_PX),
        spacing_um=0.25,
        mixture=(0.1, 0.3, 0.3, 0.3),
    )
    rng = np.random.default_rng(seed)
    density = rng.integers(0, 200, phantom.membrane_mask.shape).astype(np.uint8)
    return phantom.membrane_mask.astype(np.uint8), density


def make_slide(pattern: Bytes, columns: int, rows: int) -> Bytes:
    """The pattern and its reflections, so that all joins are seamless."""
    height, width = rows * TILE_PX, columns * TILE_PX
    period = np.block(
        [[pattern, pattern[:, ::-1]], [pattern[::-1], pattern[::-1, ::-1]]]
    )
    repeats = (-(-height // period.shape[0]), -(-width // period.shape[1]))
    return np.ascontiguousarray(np.tile(period, repeats)[:height, :width])


def merge(mask: Bytes, density: Bytes | None) -> tuple[npt.NDArray[np.int64], int]:
    """Areas, and the highest number of bytes held between tiles."""
    height, width = mask.shape
    merger = MembraneMerge(width, height, tile_px=TILE_PX)
    tables, peak = [], 0
    for row in range(height // TILE_PX):
        for column in range(width // TILE_PX):
            at = np.s_[
                row * TILE_PX : (row + 1) * TILE_PX,
                column * TILE_PX : (column + 1) * TILE_PX,
            ]
            part = None if density is None else density[at]
            merger.add(column, row, membrane_label(mask[at], part))
        peak = max(peak, merger.memory_bytes)
        tables.append(merger.take()[0])
    tables.append(merger.finish()[0])
    areas = np.concatenate([table.px for table in tables])
    return areas, peak


def label_scipy(mask: Bytes) -> npt.NDArray[Any]:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(labels)


def label_cc3d(mask: Bytes) -> npt.NDArray[Any]:
    return np.asarray(cc3d.connected_components(mask, connectivity=8))


def areas_of(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.sort(np.bincount(labels.ravel())[1:])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = call()
    return time.perf_counter() - start, out


def measure(
    columns: int, rows: int, pattern: Bytes, density: Bytes, rounds: int
) -> dict[str, Any]:
    mask = make_slide(pattern, columns, rows)
    depth = make_slide(density, columns, rows)
    found, peak = merge(mask, None)
    for label in (label_scipy, label_cc3d):
        if not np.array_equal(np.sort(found), areas_of(label(mask))):
            sys.exit(f"{label.__name__} finds other membranes")
    calls: dict[str, Callable[[], Any]] = {
        "her2fast": lambda: merge(mask, None),
        "her2fast_2_threads": lambda: find_membranes(mask, workers=2),
        "her2fast_with_density": lambda: merge(mask, depth),
        "scipy": lambda: label_scipy(mask),
        "cc3d": lambda: label_cc3d(mask),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):  # side by side, so that a noisy minute meets all
        for name, call in calls.items():
            seconds[name].append(round(timed(call)[0], 3))
    if not np.array_equal(
        np.sort(find_membranes(mask, workers=2)[0].px), np.sort(found)
    ):
        sys.exit("two threads find other membranes")
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "tiles": columns * rows,
        "membrane_share": round(float(mask.mean()), 4),
        "membranes": len(found),
        "seconds": seconds,
        "megapixels_per_second": {
            name: round(mask.size / value / 1e6, 1) for name, value in median.items()
        },
        "times_scipy": {
            name: round(median["scipy"] / median[name], 2) for name in OURS
        },
        "times_cc3d": {name: round(median["cc3d"] / median[name], 2) for name in OURS},
        "peak_megabytes_held": round(peak / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=3000, help="tiles")
    arguments = parser.parse_args()
    load_before = [round(v, 2) for v in os.getloadavg()]
    pattern, density = make_pattern(7)
    shapes = [(20, 15), (40, 25), (60, 50)]
    cases = [
        measure(columns, rows, pattern, density, arguments.rounds)
        for columns, rows in shapes
        if columns * rows <= arguments.largest
    ]
    result = {
        "question": "membranes of a slide from its tiles: how fast",
        "machine": {
            "cores": os.cpu_count(),
            "load_before": load_before,
            "load_after": [round(v, 2) for v in os.getloadavg()],
            "system": platform.platform(),
        },
        "versions": {
            "her2fast": __version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "cc3d": version("connected-components-3d"),
            "python": platform.python_version(),
        },
        "cases": cases,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
