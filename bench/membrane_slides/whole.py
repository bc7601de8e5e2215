# SPDX-License-Identifier: Apache-2.0
"""A slide of 3,042 tiles scored by its membranes: how long does it take? README.md."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core, open_slide
from her2fast.measure import Progress, default_workers
from her2fast.membranes import score_membranes
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.trust import SHIPPED_DIR
from her2fast.phantom.cohort import Request, make_cohort, slide_name
from her2fast.phantom.spec import SlideSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import load, machine, tell, versions

SEED, SCORE = 9_440_000, "2+"
SPACING_UM, TILE_PX = 0.25, 512
#: 39 tiles: the generator draws 400 Mpx at most, so the half is stacked twice.
SIDE_UM, COPIES = 4992, 2


def stacked(work: Path) -> Path:
    """The slide; drawn and stacked once and kept."""
    out = work / "stacked.svs"
    if out.exists():
        return out
    spec = SlideSpec.model_validate(
        {
            "slide": {
                "width_um": SIDE_UM,
                "height_um": SIDE_UM,
                "spacing_um": SPACING_UM,
            },
            "tumor": {"score": SCORE, "free_share": 0.0},
            "tissue": {"lobule_um": 600},
            "scanner": {"profile": "unseen"},
        }
    )
    make_cohort(Request(str(work / "half"), 1, SEED, spec))
    slide = open_slide(work / "half/slides" / f"{slide_name(0)}.svs")
    width, height = slide.dimensions

    @functools.lru_cache(maxsize=1)
    def band(number: int) -> npt.NDArray[np.uint8]:
        y = number * TILE_PX
        high = min(TILE_PX, height - y)
        parts = [
            slide.read(x, y, (min(2048, width - x), high), spacing_um=SPACING_UM)
            for x in range(0, width, 2048)
        ]
        return np.concatenate(parts, axis=1)

    def rows(y: int, count: int) -> npt.NDArray[np.uint8]:
        parts = []
        while count > 0:
            number, begin = divmod(y % height, TILE_PX)
            parts.append(band(number)[begin : begin + count])
            y, count = y + len(parts[-1]), count - len(parts[-1])
        return np.ascontiguousarray(np.concatenate(parts))

    unfinished = work / "stacking.svs"
    _core.write_pyramid_rows(
        str(unfinished),
        width,
        COPIES * height,
        rows,
        spacing_um=SPACING_UM,
        jpeg_quality=85,
        downsamples=[1, 4, 16],
        aperio=True,
    )
    unfinished.rename(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--package", type=Path, default=SHIPPED_DIR / "membrane-tiny")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    path = stacked(chosen.work)
    package = load_membrane_package(chosen.package)
    passes: dict[str, list[float]] = {}

    def on_stage(stage: str, progress: Progress) -> None:
        passes.setdefault(stage, [time.perf_counter()])[1:] = [time.perf_counter()]

    load_before = load()
    began, used = time.perf_counter(), time.process_time()
    result = score_membranes(
        path, model=package, workers=chosen.workers, on_stage=on_stage
    )
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    cells = result.record["cells"]
    if result.status != "scored" or cells is None:
        raise SystemExit(f"need a score, got {result.status} {result.record['code']}")
    parts = result.seconds.to_dict()
    read = cells["tiles"]["read"]
    rest = sum(value for part, value in parts.items() if part != "network")
    out: dict[str, Any] = {
        "question": "How long does a slide of 3,042 tiles take, and where does it go?",
        "synthetic": True,
        "package": package.name,
        "sha256": package.model.sha256,
        "halo_px": package.halo_px,
        "tiles": {
            "all": COPIES * round(SIDE_UM / SPACING_UM / TILE_PX) ** 2,
            **cells["tiles"],
        },
        "cells": cells["count"],
        "drawn_as": SCORE,
        "score": result.score,
        "fractions": cells["fractions"],
        "wall_s": round(wall, 1),
        "wall_s_of_passes": {
            stage: round(times[-1] - times[0], 1) for stage, times in passes.items()
        },
        "cpu_s": round(cpu, 1),
        "seconds_of_all_threads": {k: round(v, 2) for k, v in parts.items()},
        "all_but_network": {
            "seconds_of_all_threads": round(rest, 2),
            "ms_per_tile": round(1e3 * rest / read, 2),
        },
        "network_ms_per_tile": round(1e3 * parts["network"] / read, 2),
        "machine": machine(workers=chosen.workers, load_before=load_before),
        "versions": versions("numpy"),
    }
    tell(out, chosen.json)


if __name__ == "__main__":
    main()
