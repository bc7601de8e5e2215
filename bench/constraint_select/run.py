# SPDX-License-Identifier: Apache-2.0
"""Choosing an epoch's patches: how far from sorting? See README.md for the rules."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import loads, quiet_machine, tell, versions
from her2fast.kernels import FractionLimits, constraint_select
from reference import constraint_select as twin

LIMITS = FractionLimits()
PER_SLIDE = 5000


def make_table(patches: int, slides: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(patches + slides)
    logits = rng.standard_normal((patches, 4), dtype=np.float32)
    offset = rng.normal(size=(slides, 4)).astype(np.float32)
    logits += np.repeat(offset, patches // slides, axis=0)
    px = rng.integers(410, 4097, patches, dtype=np.uint32)
    offsets = np.arange(slides + 1) * (patches // slides)
    return logits, px, offsets, rng.integers(0, 4, slides)


def best_ns(call: Callable[[], Any], patches: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(min(times) / patches * 1e9, 2)


def numpy_select(table: tuple[Any, ...]) -> dict[str, Any]:
    return twin.constraint_select(
        *table, LIMITS.lower_permille, LIMITS.upper_permille, "neighbors"
    )


def measure(patches: int, slides: int) -> dict[str, Any]:
    table = make_table(patches, slides)
    found = constraint_select(*table)
    want = numpy_select(table)
    for field in dataclasses.fields(found):
        if not np.array_equal(getattr(found, field.name), want[field.name]):
            sys.exit(f"{field.name} differs at {patches} patches")
    rounds = 15 if patches <= 100_000 else 5
    ns = {
        f"her2fast_{workers}": best_ns(
            lambda workers=workers: constraint_select(*table, workers=workers),
            patches,
            rounds,
        )
        for workers in (1, 2)
    }
    numpy_rounds = 1 if patches > 1_000_000 else 3
    ns["numpy"] = best_ns(lambda: numpy_select(table), patches, numpy_rounds)
    return {
        "patches": patches,
        "slides": slides,
        "selected_share": round(float((found.action > 0).mean()), 3),
        "ns_per_patch": ns,
        "times_numpy": round(ns["numpy"] / min(ns["her2fast_1"], ns["her2fast_2"]), 1),
        "times_numpy_1_thread": round(ns["numpy"] / ns["her2fast_1"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--largest", type=int, default=10_000_000)
    arguments = parser.parse_args()
    load_before = loads()
    sizes = [n for n in (100_000, 1_000_000, 10_000_000) if n <= arguments.largest]
    cases = [measure(n, n // PER_SLIDE) for n in sizes] + [measure(1_000_000, 1)]
    result = {
        "question": "choosing an epoch's patches: how far from sorting",
        "machine": quiet_machine(load_before),
        "versions": versions("numpy", "python"),
        "cases": cases,
        "largest_to_smallest": {
            name: round(
                cases[len(sizes) - 1]["ns_per_patch"][name]
                / cases[0]["ns_per_patch"][name],
                2,
            )
            for name in ("her2fast_1", "her2fast_2")
        },
    }
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
