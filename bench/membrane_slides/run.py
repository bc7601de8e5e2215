# SPDX-License-Identifier: Apache-2.0
"""Slides scored by their membranes: right or wrong, and how fast. See README.md."""

from __future__ import annotations

import argparse
import json
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
from her2fast.kernels.cells import CELL_CUTS
from her2fast.measure import default_workers
from her2fast.membranes import MembraneScorer, NetworkFinder, measure_cells
from her2fast.methods import cell_file
from her2fast.methods.cell_decision import MIN_CELLS, decide_cells
from her2fast.methods.membrane import Finder
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.package import load_package
from her2fast.opened_slide import open_input
from her2fast.phantom.cohort import Request, make_cohort, slide_name
from her2fast.phantom.spec import SlideSpec
from her2fast.record import digest, method_record, settings_for
from her2fast.scoring import Scorer, decide_with

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import load, machine, store, tell, versions

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
    """Pairs of slide and the folder of its truth, the scores in turn."""
    count = slides // 4
    folders = []
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
        make_cohort(Request(str(folder), count, FIRST_SEED + index, spec))
        folders.append(folder)
    return [
        (folder / "slides" / f"{slide_name(k)}.svs", folder / "truth" / slide_name(k))
        for k in range(count)
        for folder in folders
    ]


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


class Bench:
    """The contenders; one slide at a time."""

    def __init__(self, package: Path | None, workers: int) -> None:
        self.workers = workers
        self.tumor = Scorer(load_package(None), workers=workers)
        self.network: NetworkFinder | None = None
        if package is not None:
            membranes = load_membrane_package(package)
            MembraneScorer(membranes, self.tumor)  # they go together
            self.network = NetworkFinder(membranes)

    @property
    def finders(self) -> list[str]:
        return ["true_mask", *(["network"] if self.network else [])]

    @property
    def key(self) -> str:
        """What the figures of a slide hang on."""
        membranes = self.network and self.network.package
        return digest(
            {
                "her2fast": _core.__version__,
                "tumor": method_record(self.tumor.package),
                # Its record leaves the models to the provenance.
                "models": [
                    model and model.sha256
                    for model in (
                        self.tumor.package.segment,
                        self.tumor.package.classify,
                    )
                ],
                "cells": [cell_file.MAGIC.decode(), CELL_CUTS],
                "network": membranes and [membranes.model.sha256, membranes.halo_px],
            }
        )

    def slide(self, path: Path, truth: Path) -> dict[str, Any]:
        """Rows by contender, seconds of all threads, seconds by the clock, tiles."""
        shares, by_cells, by_areas = true_scores(truth)
        base = {
            "slide": path.stem,
            "true_fractions": shares,
            "by_cells": by_cells,
            "by_areas": by_areas,
        }
        slide = open_input(path)
        began = time.perf_counter()
        measured = self.tumor.measure(slide)
        wall = {"tumor": time.perf_counter() - began}
        area = decide_with(measured, settings_for(method_record(self.tumor.package)))
        rows: dict[str, Any] = {
            "areas": {
                **base,
                "score": area.score,
                "fractions": list(area.fractions.values()),
                "flagged": area.review_required,
            }
        }
        finders: dict[str, Finder] = {
            "true_mask": TrueMask(truth / "membrane_mask.png")
        }
        if self.network is not None:
            finders["network"] = self.network
        spent = {}
        tiles = 0
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
                workers=self.workers,
            )
            wall[name] = time.perf_counter() - began
            spent[name] = seconds.to_dict()
            tiles = cells.tiles.counts()["read"]
            decision = decide_cells(cells, slide_spacing_um=slide.spacing_um)
            guideline = decision.guideline or {"score": None, "review_required": False}
            rows[name] = {
                **base,
                "score": guideline["score"],
                "fractions": decision.record["fractions"],
                "flagged": guideline["review_required"],
                "cells": decision.record["count"],
                "enough": decision.record["count"] >= MIN_CELLS,
            }
        return {"rows": rows, "spent": spent, "wall": wall, "tiles": tiles}

    def kept(self, work: Path, path: Path, truth: Path) -> dict[str, Any]:
        """As `slide`; what an earlier run has measured is taken from there."""
        score = path.parent.parent.name
        file = work / "measured" / self.key[:16] / f"{score}-{path.stem}.json"
        if not file.exists():
            text = json.dumps(self.slide(path, truth))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".part").write_text(text, encoding="utf-8")
            file.with_suffix(".part").rename(file)
            sys.stderr.write(f"{score}/{path.stem}\n")
        out: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return out


def sums(parts: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(part[key] for part in parts), 2) for key in parts[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--package", type=Path, help="membrane package")
    parser.add_argument("--slides", type=int, default=40)
    parser.add_argument("--side-um", type=float, default=1500)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    load_before = load()
    bench = Bench(chosen.package, chosen.workers)
    slides = draw(chosen.work, chosen.slides, chosen.side_um)
    if not slides:
        raise SystemExit(f"need --slides 4 or more, got {chosen.slides}")
    measured = [bench.kept(chosen.work, *pair) for pair in slides]
    rows = {
        name: [one["rows"][name] for one in measured]
        for name in [*bench.finders, "areas"]
    }
    membranes = bench.network and bench.network.package
    result = {
        "question": "Which score does a whole slide get from its membranes?",
        "synthetic": True,
        "profile": "unseen",
        "slides": len(slides),
        "side_um": chosen.side_um,
        "network_sha256": membranes and membranes.model.sha256,
        "halo_px": membranes and membranes.halo_px,
        "tiles_read": sum(one["tiles"] for one in measured),
        **{
            name: {
                "against_true_cells": figures(table, "by_cells"),
                "against_true_areas": figures(table, "by_areas"),
            }
            for name, table in rows.items()
        },
        "seconds_of_all_threads": {
            name: sums([one["spent"][name] for one in measured])
            for name in bench.finders
        },
        "wall_s": sums([one["wall"] for one in measured]),
        "rows": rows,
        "machine": machine(workers=chosen.workers, load_before=load_before),
        "versions": versions("numpy"),
    }
    store(result, chosen.json)
    result.pop("rows")
    tell(result, None)


if __name__ == "__main__":
    main()
