# SPDX-License-Identifier: Apache-2.0
"""How many tiles a second? See README.md beside this file for the rules."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import SOURCE_TILE_PX, Case, make_cases, make_slides
from contenders import CONTENDERS, BareJpeg, Contender

import her2fast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import tell

ROUNDS = 5
# Contenders bring their own libjpeg; `scaled` replaces a mean by a smaller DCT.
MAX_MEAN_DIFFERENCE = 1.0  # grey levels, over all tiles
MAX_TILE_DIFFERENCE = 3.0  # of 99 % of the tiles
BARE_CASES = ("level-256", "high-bit-rate")
BARE = "bare libjpeg-turbo"

# What was asked: (case, threads, contender, ratio of her2fast to it).
TARGETS = (
    ("level-256", 2, "cucim", 0.95),
    ("level-256", 1, "openslide-python", 6.5),
    ("level-256", 1, BARE, 0.9),
    ("level-256", 2, BARE, 0.9),
    ("half", 2, "cucim", 1.5),
    ("quarter", 2, "cucim", 2.0),
    ("half", 1, "openslide-python", 6.0),
    ("quarter", 1, "openslide-python", 6.0),
    ("um-1-4-16", 1, "openslide-python", 6.0),
    ("um-1-2-4-8", 1, "openslide-python", 6.0),
    ("ndpi", 1, "openslide-python", 3.0),
    ("ndpi", 2, "openslide-python", 3.0),
    ("ndpi-half", 1, "openslide-python", 3.0),
)


def bits_per_px(case: Case) -> float:
    import tifffile

    if case.path.suffix == ".ndpi":
        return round(8 * case.path.stat().st_size / (10752**2 * (1 + 1 / 16)), 3)
    with tifffile.TiffFile(case.path) as tiff:
        page = tiff.pages[case.level]
        assert isinstance(page, tifffile.TiffPage)
        return round(
            8 * sum(page.databytecounts) / (page.imagewidth * page.imagelength), 3
        )


def check(case: Case, contenders: list[Contender]) -> dict[str, dict[str, float]]:
    """Every tile of every contender against her2fast's, and 1 against 2 threads."""
    first = contenders[0]
    want = [tile.copy() for tile in first.read(case, 2)]
    for one, two in zip(first.read(case, 1), want, strict=True):
        if not np.array_equal(one, two):
            raise SystemExit(f"{case.name}: 1 and 2 threads give different pixels")
    out = {}
    for contender in contenders[1:]:
        differences = []
        for got, wanted in zip(contender.read(case, 2), want, strict=True):
            if got.shape != wanted.shape:
                raise SystemExit(f"{contender.name}: other shapes in {case.name}")
            difference = np.abs(got.astype(np.int16) - wanted)
            differences.append(float(difference.mean()))
        mean = statistics.fmean(differences)
        most = float(np.quantile(differences, 0.99))
        if mean >= MAX_MEAN_DIFFERENCE or most >= MAX_TILE_DIFFERENCE:
            raise SystemExit(
                f"{contender.name} gives other pixels in case {case.name}: "
                f"{mean:.2f} off, 99 % of tiles under {most:.2f}"
            )
        out[contender.name] = {
            "mean": round(mean, 4),
            "99_percent_of_tiles_under": round(most, 4),
        }
    return out


Run = Callable[[], int]


def measure(runs: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Contenders take turns; medians over rounds, ratios within each round."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    cpu_ms: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds):
        # The order turns, so that nobody always follows the same one.
        names = list(runs)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start, cpu_start = time.perf_counter(), time.process_time()
            count = runs[name]()
            elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            rates[name].append(count / elapsed)
            cpu_ms[name].append(1000 * cpu / count)
    base = rates["her2fast"]
    times = {
        name: [a / b for a, b in zip(base, rate, strict=True)]
        for name, rate in rates.items()
    }
    return {
        name: {
            "tiles_per_s": round(statistics.median(rates[name]), 1),
            "lowest": round(min(rates[name]), 1),
            "highest": round(max(rates[name]), 1),
            "her2fast_is_times_faster": round(statistics.median(times[name]), 3),
            "cpu_ms_per_tile": round(statistics.median(cpu_ms[name]), 4),
        }
        for name in runs
    }


def runs_of(case: Case, contenders: list[Contender], workers: int) -> dict[str, Run]:
    def run_of(contender: Contender) -> Run:
        def run() -> int:
            count = sum(1 for _ in contender.read(case, workers))
            assert count == len(case.corners_px), contender.name
            return count

        return run

    return {contender.name: run_of(contender) for contender in contenders}


def bench_case(
    case: Case, contenders: list[Contender], bare: BareJpeg | None, rounds: int
) -> dict[str, Any]:
    contenders = [c for c in contenders if c.takes(case)]
    pixels = check(case, contenders)  # warms the file cache, too
    workers = {}
    if bare is not None and case.name in BARE_CASES:
        bare.load(case)
    for count in (1, 2):
        runs = runs_of(case, contenders, count)
        if bare is not None and case.name in BARE_CASES:
            runs[BARE] = lambda count=count: bare.run(count)  # type: ignore[misc]
            bare.run(count)
        workers[str(count)] = measure(runs, rounds)
    return {
        "tiles": len(case.corners_px),
        "source_px": case.source_px,
        "tile_px": case.tile_px,
        "spacing_um": {"level_0": case.mpp, "tiles": case.spacing_um},
        "level_downsample": case.down,
        "bits_per_px": bits_per_px(case),
        "source_tiles_per_tile": round((case.source_px / SOURCE_TILE_PX) ** 2, 2),
        "same_pixels_for_1_and_2_threads": True,
        "mean_difference": pixels,
        "workers": workers,
    }


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    out = []
    for name, threads, contender, asked in TARGETS:
        case = result["cases"].get(name, {"workers": {}})
        row = case["workers"].get(str(threads), {}).get(contender)
        got = None if row is None else row["her2fast_is_times_faster"]
        out.append(
            {
                "case": name,
                "threads": threads,
                "contender": contender,
                "asked": asked,
                "got": got,
                "met": got is not None and got >= asked,
            }
        )
    return out


def version(name: str) -> str:
    for package in (name, f"{name}-cu12", f"{name}-python", f"{name}-python-headless"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def load() -> list[float]:
    return [round(v, 2) for v in os.getloadavg()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--slides", type=Path, help="keep the slides here, or reuse")
    parser.add_argument("--cases", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--few", type=int, default=1, help="divides the tiles")
    arguments = parser.parse_args()
    contenders, skipped = [], {}
    for contender in CONTENDERS:
        try:
            if contender.module:
                __import__(contender.module)
            contenders.append(contender)
        except Exception as error:
            skipped[contender.name] = f"cannot be imported: {error}"
    try:
        __import__("cv2")
    except ImportError as error:
        skipped["OpenCV's area resize"] = f"cannot be imported: {error}"
        contenders = [c for c in contenders if not c.needs_opencv]
    bare = None
    try:
        bare = BareJpeg()
    except Exception as error:
        skipped[BARE] = f"cannot be compiled: {error}"
    start = time.perf_counter()
    result: dict[str, Any] = {
        "question": "how many tiles a second",
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "load_before": load(),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "her2fast": her2fast.__version__,
            **{n: version(n) for n in ("openslide", "openslide-bin", "tifffile")},
            **{n: version(n) for n in ("imagecodecs", "cucim", "pillow", "opencv")},
        },
        "rounds": arguments.rounds,
        "skipped": skipped,
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = make_slides(arguments.slides or Path(folder))
        for case in make_cases(paths, arguments.few):
            if arguments.cases and case.name not in arguments.cases:
                continue
            result["cases"][case.name] = bench_case(
                case, contenders, bare, arguments.rounds
            )
            print(f"{case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    result["targets"] = targets(result)
    result["seconds"] = round(time.perf_counter() - start)
    result["machine"]["load_after"] = load()
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
