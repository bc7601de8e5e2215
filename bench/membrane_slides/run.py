# SPDX-License-Identifier: Apache-2.0
"""Slides scored by their membranes: right or wrong, and how fast. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pyarrow import parquet

from her2fast import _core, guidelines
from her2fast.measure import default_workers
from her2fast.membranes import MembraneScorer, NetworkFinder, measure_cells
from her2fast.methods.cell_decision import MIN_CELLS, decide_cells
from her2fast.methods.membrane import Finder, Seconds
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.package import load_package
from her2fast.phantom.cohort import Request, make_cohort, slide_name
from her2fast.phantom.spec import SlideSpec
from her2fast.record import method_record, settings_for
from her2fast.scoring import Scorer, decide_with, open_input

SCORES = ("0", "1+", "2+", "3+")
FIRST_SEED = 9_430_000
SPACING_UM, STEP, TILE_PX, BATCH = 0.25, 2, 512, 4
RULES = "asco-cap-2018"

Image.MAX_IMAGE_PIXELS = None


class TrueMask:
    """The generator's mask as a finder."""

    def __init__(self, path: Path) -> None:
        self.mask = np.asarray(Image.open(path).convert("1"), np.uint8)

    def __call__(
        self, rgb: npt.NDArray[np.uint8], places_px: Sequence[tuple[int, int]]
    ) -> npt.NDArray[np.uint8]:
        out = np.zeros(rgb.shape[:3], np.uint8)
        for tile, (x, y) in zip(out, places_px, strict=False):
            part = self.mask[y : y + len(tile), x : x + len(tile)]
            tile[: part.shape[0], : part.shape[1]] = part
        return out


def draw(work: Path, slides: int, side_um: float) -> list[tuple[Path, Path]]:
    """Pairs of slide and the folder of its truth."""
    out = []
    for index, score in enumerate(SCORES):
        spec = SlideSpec.model_validate(
            {
                "slide": {
                    "width_um": side_um,
                    "height_um": side_um,
                    "spacing_um": SPACING_UM,
                },
                "tumor": {"score": score, "free_share": 0.0},
                "scanner": {"profile": "unseen"},
            }
        )
        folder = work / f"score-{index}"
        count = slides // 4
        make_cohort(Request(str(folder), count, FIRST_SEED + index, spec))
        for k in range(count):
            name = slide_name(k)
            out.append((folder / "slides" / f"{name}.svs", folder / "truth" / name))
    return out


def true_scores(truth: Path) -> tuple[list[float], str | None, str | None]:
    """Class shares of the patient's cells, their score, and the score of areas."""
    table = parquet.read_table(truth / "cells.parquet")
    kinds = table["class"].to_numpy()[~table["control"].to_numpy().astype(bool)]
    counts = np.bincount(kinds, minlength=4)
    score = guidelines.decide(counts.tolist(), RULES).score
    areas = json.loads((truth / "truth.json").read_text())["scores"][RULES]
    return (counts / max(int(counts.sum()), 1)).tolist(), score, areas


def figures(rows: list[dict[str, Any]], truth: str) -> dict[str, Any]:
    """Confusion, macro-F1, error of shares; slides without a score count as wrong."""
    confusion = np.zeros((4, 5), np.int64)
    for row in rows:
        called = SCORES.index(row["score"]) if row["score"] else 4
        confusion[SCORES.index(row[truth]), called] += 1
    right = np.diag(confusion[:, :4])
    recall = right / np.maximum(confusion.sum(1), 1)
    precision = right / np.maximum(confusion[:, :4].sum(0), 1)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    shares = [
        np.abs(np.array(row["fractions"]) - row["true_fractions"]).mean()
        for row in rows
        if row["fractions"]
    ]
    return {
        "confusion_true_by_called_or_none": confusion.tolist(),
        "macro_f1": round(float(f1.mean()), 4),
        "accuracy": round(float(right.sum() / max(len(rows), 1)), 4),
        "share_error": round(float(np.mean(shares)), 4) if shares else None,
        "flagged": sum(row["flagged"] for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--package", type=Path, help="membrane package")
    parser.add_argument("--slides", type=int, default=40)
    parser.add_argument("--side-um", type=float, default=1500)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    tumor = Scorer(load_package(None), workers=chosen.workers)
    network: MembraneScorer | None = None
    if chosen.package is not None:
        package = load_membrane_package(chosen.package)
        network = MembraneScorer(package, tumor, finder=NetworkFinder(package))
    names = ["true_mask", *(["network"] if network else []), "areas"]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    spent: dict[str, Seconds] = {name: Seconds() for name in names if name != "areas"}
    wall = dict.fromkeys(["tumor", *spent], 0.0)
    tiles = 0
    for path, truth in draw(chosen.work, chosen.slides, chosen.side_um):
        shares, by_cells, by_areas = true_scores(truth)
        slide = open_input(path)
        began = time.perf_counter()
        measured = tumor.measure(slide)
        wall["tumor"] += time.perf_counter() - began
        settings = settings_for(method_record(tumor.package))
        area = decide_with(measured, settings)
        base = {
            "slide": path.stem,
            "true_fractions": shares,
            "by_cells": by_cells,
            "by_areas": by_areas,
        }
        rows["areas"].append(
            {
                **base,
                "score": area.score,
                "fractions": list(area.fractions.values()),
                "flagged": area.review_required,
            }
        )
        finders: dict[str, Finder] = {
            "true_mask": TrueMask(truth / "membrane_mask.png")
        }
        if network is not None:
            finders["network"] = network.finder
        for name, find in finders.items():
            began = time.perf_counter()
            cells, seconds = measure_cells(
                slide,
                measured.core,
                find,
                spacing_um=SPACING_UM,
                step=STEP,
                tile_px=TILE_PX,
                batch_size=BATCH,
                workers=chosen.workers,
            )
            wall[name] += time.perf_counter() - began
            for part, value in seconds.to_dict().items():
                setattr(spent[name], part, getattr(spent[name], part) + value)
            if name == "true_mask":
                tiles += cells.tiles["read"]
            decision = decide_cells(cells, slide_spacing_um=slide.spacing_um)
            guideline = decision.guideline or {"score": None, "review_required": False}
            rows[name].append(
                {
                    **base,
                    "score": guideline["score"],
                    "fractions": decision.record["fractions"],
                    "flagged": guideline["review_required"],
                    "cells": decision.record["count"],
                    "enough": decision.record["count"] >= MIN_CELLS,
                }
            )
        sys.stderr.write(f"{path.parent.parent.name}/{path.stem}\n")
    result = {
        "question": "Which score does a whole slide get from its membranes?",
        "synthetic": True,
        "profile": "unseen",
        "slides": chosen.slides,
        "side_um": chosen.side_um,
        "tiles_read": tiles,
        **{
            name: {
                "against_true_cells": figures(table, "by_cells"),
                "against_true_areas": figures(table, "by_areas"),
            }
            for name, table in rows.items()
        },
        "seconds_of_all_threads": {n: s.to_dict() for n, s in spent.items()},
        "wall_s": {name: round(value, 2) for name, value in wall.items()},
        "rows": rows,
        "machine": {
            "cpu": platform.machine(),
            "cores": os.cpu_count(),
            "workers": chosen.workers,
            "load_before": round(load, 2),
        },
        "versions": {"her2fast": _core.__version__, "numpy": np.__version__},
    }
    text = json.dumps(result, indent=1) + "\n"
    if chosen.json is not None:
        chosen.json.write_text(text, encoding="utf-8")
    result.pop("rows")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
