# SPDX-License-Identifier: Apache-2.0
"""Membranes of a slide from its tiles: how fast? See README.md for the rules."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.kernels.membrane import (
    MembraneMerge,
    Membranes,
    find_membranes,
    membrane_label,
)
from her2fast.phantom import render

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import loads, quiet_machine, tell, versions

TILE_PX = 512
PATTERN_PX = 2048
OURS = ("her2fast", "her2fast_2_threads", "her2fast_with_density")
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


def merge(mask: Bytes, density: Bytes | None) -> tuple[Membranes, int]:
    """Membranes, and the highest number of bytes held between tiles."""
    height, width = mask.shape
    merger = MembraneMerge(width, height, tile_px=TILE_PX)
    tables: list[Membranes] = []
    peak = 0
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
    return Membranes(
        **{
            f.name: np.concatenate([getattr(table, f.name) for table in tables])
            for f in fields(Membranes)
        }
    ), peak


def label_scipy(mask: Bytes) -> npt.NDArray[Any]:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(labels)


def label_cc3d(mask: Bytes) -> npt.NDArray[Any]:
    return np.asarray(cc3d.connected_components(mask, connectivity=8))


def same_partition(found: Membranes, labels: npt.NDArray[Any]) -> bool:
    """As many components, and under the first pixel of each one of its area.

    First pixels of two membranes never carry one label then: labels would be fewer.
    """
    areas = np.bincount(labels.ravel())
    at = labels[found.y, found.x]
    return (
        len(areas) - 1 == len(found)
        and len(np.unique(at)) == len(found)
        and bool(at.all())
        and np.array_equal(areas[at], found.px)
    )


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock, and of the processor in user mode."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall = time.perf_counter() - start
    user = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before.ru_utime
    return wall, user


def measure(
    columns: int, rows: int, pattern: Bytes, density: Bytes, rounds: int
) -> dict[str, Any]:
    mask = make_slide(pattern, columns, rows)
    depth = make_slide(density, columns, rows)
    found, peak = merge(mask, None)
    for label in (label_scipy, label_cc3d):
        if not same_partition(found, label(mask)):
            sys.exit(f"{label.__name__} finds other membranes")
    two = find_membranes(mask, workers=2)[0]
    if not np.array_equal(np.sort(two.px), np.sort(found.px)):
        sys.exit("two threads find other membranes")
    calls: dict[str, Callable[[], Any]] = {
        "her2fast": lambda: merge(mask, None),
        "scipy": lambda: label_scipy(mask),
        "cc3d": lambda: label_cc3d(mask),
        "her2fast_2_threads": lambda: find_membranes(mask, workers=2),
        "her2fast_with_density": lambda: merge(mask, depth),
    }
    wall: dict[str, list[float]] = {name: [] for name in calls}
    user: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):  # in turn, so that a noisy minute meets all
        for name, call in calls.items():
            clock, processor = timed(call)
            wall[name].append(round(clock, 3))
            user[name].append(round(processor, 3))
    return {
        "tiles": columns * rows,
        "membrane_share": round(float(mask.mean()), 4),
        "membranes": len(found),
        "seconds": wall,
        "user_seconds": user,
        "megapixels_per_user_second": {
            name: round(mask.size / _median(user[name]) / 1e6, 1) for name in user
        },
        **{
            f"times_{peer}": {
                name: {
                    "clock": _ratio(wall, peer, name),
                    "user": _ratio(user, peer, name),
                }
                for name in OURS
            }
            for peer in ("scipy", "cc3d")
        },
        "peak_megabytes_held": round(peak / 1e6, 2),
    }


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _ratio(seconds: dict[str, list[float]], peer: str, name: str) -> dict[str, float]:
    """Of the medians, and the least of any round."""
    rounds = np.array(seconds[peer]) / np.array(seconds[name])
    return {
        "medians": round(_median(seconds[peer]) / _median(seconds[name]), 2),
        "least": round(float(rounds.min()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=3000, help="tiles")
    arguments = parser.parse_args()
    load_before = loads()
    pattern, density = make_pattern(7)
    shapes = [(20, 15), (40, 25), (60, 50)]
    cases = [
        measure(columns, rows, pattern, density, arguments.rounds)
        for columns, rows in shapes
        if columns * rows <= arguments.largest
    ]
    result = {
        "question": "membranes of a slide from its tiles: how fast",
        "machine": quiet_machine(load_before),
        "versions": {
            **versions("numpy", "scipy"),
            "cc3d": version("connected-components-3d"),
            **versions("python"),
        },
        "cases": cases,
    }
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
