# SPDX-License-Identifier: Apache-2.0
"""How fast are phantom slides made? See README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import her2fast
from her2fast.phantom import truth
from her2fast.phantom.cohort import write_svs
from her2fast.phantom.ground import Tissue
from her2fast.phantom.slide import draw_slide
from her2fast.phantom.spec import check_spec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import machine, tell, versions

SEED = 41_000
#: Spacing, um/px -> width and height, um.
SIZES_UM = {1.0: (2000.0, 1500.0), 0.25: (1000.0, 750.0)}


def make(spacing_um: float, index: int, folder: Path) -> dict[str, float]:
    """CPU seconds of the steps of one slide, and its pixels."""
    width, height = SIZES_UM[spacing_um]
    spec = check_spec(
        {"slide": {"width_um": width, "height_um": height, "spacing_um": spacing_um}},
        "bench/phantom",
    )
    times = [time.process_time()]
    slide = draw_slide(spec, SEED, index)
    times.append(time.process_time())
    path = folder / "slide.svs"
    write_svs(slide, path)
    times.append(time.process_time())
    maps = truth.Maps(slide)
    table = truth.patch_table(maps, spacing_um)
    truth.classes_png(maps)
    truth.tissue_png(maps)
    truth.mask_png(maps.tumor)
    truth.mask_png(maps.membrane)
    truth.cells_parquet(slide)
    truth.patch_csv(table, spacing_um)
    truth.tumor_geojson(slide, maps)
    record = truth.truth_of(slide, maps, table)
    times.append(time.process_time())
    with her2fast.open_slide(str(path)) as opened:
        assert opened.dimensions == slide.spec.size_px
        assert abs(opened.spacing_um[0] - spacing_um) < 1e-9
    assert sum(record["tumor_px"]) > 0
    path.unlink()
    steps = np.diff(times)
    return {
        "draw_s": float(steps[0]),
        "write_s": float(steps[1]),
        "truth_s": float(steps[2]),
        "mpx": maps.classes.size / 1e6,
        "tissue_mpx": float((maps.tissue != Tissue.GLASS).sum()) / 1e6,
        "attempts": float(slide.attempts),
    }


def figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Speeds over all slides of one spacing, and their spread."""
    steps = ("draw_s", "write_s", "truth_s")
    total = [sum(row[step] for step in steps) for row in rows]
    each = [row["mpx"] / seconds for row, seconds in zip(rows, total, strict=True)]
    drawn = sum(row["tissue_mpx"] * row["attempts"] for row in rows)
    return {
        "slides": len(rows),
        "mpx_per_s": round(sum(row["mpx"] for row in rows) / sum(total), 3),
        "mpx_per_s_slowest_fastest": [round(min(each), 3), round(max(each), 3)],
        "tissue_mpx_per_s": round(
            sum(row["tissue_mpx"] for row in rows) / sum(total), 3
        ),
        "draw_tissue_mpx_per_s": round(drawn / sum(row["draw_s"] for row in rows), 3),
        "write_mpx_per_s": round(
            sum(row["mpx"] for row in rows) / sum(row["write_s"] for row in rows), 3
        ),
        "cpu_s_per_slide": {
            step: round(sum(row[step] for row in rows) / len(rows), 3) for step in steps
        },
        "tissue_share": round(
            sum(r["tissue_mpx"] for r in rows) / sum(r["mpx"] for r in rows), 3
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=4, help="slides per spacing")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for spacing_um in SIZES_UM:
            rows = [
                make(spacing_um, index, Path(folder))
                for index in range(options.repeats)
            ]
            found[f"{spacing_um:g}"] = figures(rows)
    report = {
        "question": "How fast are phantom slides made?",
        "unit": "CPU seconds of one thread, Mpx of level 0",
        "spacing_um": found,
        "machine": machine(),
        "versions": versions("numpy", "scipy"),
    }
    tell(report, options.json)


if __name__ == "__main__":
    main()
