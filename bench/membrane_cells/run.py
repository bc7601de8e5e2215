# SPDX-License-Identifier: Apache-2.0
"""Which class does each cell get, and how complete is its membrane? See README.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from views import (
    GRID_UM,
    SIDE_PX,
    SPACING_UM,
    SPACINGS_UM,
    View,
    by_network,
    by_threshold,
    pruned,
    view,
)

from her2fast import phantom
from her2fast.kernels.cells import (
    CELL_CUTS,
    CELLS_REACH_PX,
    Cells,
    cell_stains,
    cells,
    classify_cells,
    find_cells,
    nuclei,
)
from her2fast.kernels.membrane import MembraneMerge, membrane_label
from her2fast.methods.glass import glass_of_picture
from her2fast.methods.membrane import CELL_UM2
from her2fast.training.membrane_cuts import pairs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import load, machine, tell, versions

CLASSES = ("0", "1+", "2+", "3+")
FIRST_SEED = 9_420_000
TILE_PX, STEP = 512, 2
MIXED = 4
#: Longest spurs that are tried; 0 leaves the mask as it is.
PRUNE_UM = (0.0, 1.0, 2.0, 4.0)

Mask = npt.NDArray[np.uint8]


def in_tumor(found: Cells, tumor: npt.NDArray[np.bool_]) -> Cells:
    return found.take(tumor[found.y * STEP, found.x * STEP])


class Tally:
    """Sums over pictures, by the true class of cells."""

    def __init__(self) -> None:
        self.confusion = np.zeros((4, 4), np.int64)
        self.true_cells = np.zeros(4, np.int64)
        self.visible = np.zeros(4, np.int64)
        self.share_found = np.zeros(4, np.int64)
        self.differences: list[list[float]] = [[] for _ in range(4)]
        self.gaps = dict.fromkeys(("one", "none", "several"), 0)
        self.unusual = self.cells = 0
        self.membranes = self.closed = self.px = 0

    def add(self, picture: Any, given: View) -> None:
        glass = glass_of_picture(picture.rgb, SPACING_UM)
        found = find_cells(given.rgb, given.mask, step=given.step, glass=glass)
        inside = in_tumor(found, picture.tumor_mask)
        classes = classify_cells(inside, grid_um=GRID_UM, step=given.step)
        truth = picture.cells
        real, own = pairs(inside, truth, GRID_UM)
        kinds = truth.kind[real]
        np.add.at(self.confusion, (kinds, classes.her2[own]), 1)
        self.true_cells += np.bincount(truth.kind, minlength=4)
        self.visible += np.bincount(truth.kind[truth.has_nucleus], minlength=4)
        self.share_found += np.bincount(classes.her2, minlength=4)
        self.unusual += int(classes.unusual.sum())
        self.cells += len(inside)
        difference = inside.completeness[own] - np.clip(truth.completeness[real], 0, 1)
        for kind in range(4):
            self.differences[kind] += difference[kinds == kind].tolist()
        self._add_gaps(given, found)

    def _add_gaps(self, given: View, found: Cells) -> None:
        side = len(given.mask)
        merge = MembraneMerge(side, side, tile_px=side)
        seeds = np.stack([found.x, found.y], 1) * given.step
        at = np.ascontiguousarray(seeds, np.int32)
        merge.add(0, 0, membrane_label(given.mask, nuclei=at))
        membranes, gaps = merge.finish()
        self.membranes += len(membranes)
        self.closed += int(membranes.closed.sum())
        self.px += int(membranes.px.sum())
        area = gaps.px * given.spacing_um**2
        sized = gaps.nuclei[(area >= CELL_UM2[0]) & (area <= CELL_UM2[1])]
        self.gaps["one"] += int((sized == 1).sum())
        self.gaps["none"] += int((sized == 0).sum())
        self.gaps["several"] += int((sized > 1).sum())

    def figures(self) -> dict[str, Any]:
        rows = self.confusion.sum(1)
        recall = np.diag(self.confusion) / np.maximum(rows, 1)
        columns = np.maximum(self.confusion.sum(0), 1)
        precision = np.diag(self.confusion) / columns
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        sized = sum(self.gaps.values())
        return {
            "true_cells": self.true_cells.tolist(),
            "found": _rounded(rows / np.maximum(self.visible, 1)),
            "confusion_true_by_called": self.confusion.tolist(),
            "recall": _rounded(recall),
            "macro_recall": round(float(recall.mean()), 4),
            "macro_f1": round(float(f1.mean()), 4),
            "class_shares_of_cells_found": _rounded(
                self.share_found / max(self.cells, 1)
            ),
            "class_shares_true": _rounded(
                self.true_cells / max(int(self.true_cells.sum()), 1)
            ),
            "unusual_share": round(self.unusual / max(self.cells, 1), 4),
            "completeness": {
                name: {
                    "mean_absolute": round(float(np.mean(np.abs(values))), 4),
                    "bias": round(float(np.mean(values)), 4),
                }
                for name, values in zip(CLASSES, self.differences, strict=True)
                if values
            },
            "membranes": {
                "all": self.membranes,
                "closed": self.closed,
                "closed_share": round(self.closed / max(self.membranes, 1), 4),
                "px": self.px,
            },
            "compartments_of_a_cells_size": {
                **self.gaps,
                "artifact_share": round(
                    (self.gaps["none"] + self.gaps["several"]) / max(sized, 1), 4
                ),
            },
        }


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [round(float(value), 4) for value in values]


def scenes(count: int, profile: str, kinds: Sequence[int]) -> Any:
    """Pictures of one class each; kind 4 is a mixture of all."""
    for kind in kinds:
        mixture = tuple(float(kind == other) for other in range(4))
        if kind == MIXED:
            mixture = (0.25, 0.25, 0.25, 0.25)
        for index in range(count):
            yield phantom.render(
                FIRST_SEED + 100 * kind + index,
                (SIDE_PX, SIDE_PX),
                spacing_um=SPACING_UM,
                mixture=mixture,  # type: ignore[arg-type]
                profile=profile,
            )


def speed(rgb: npt.NDArray[np.uint8], mask: Mask, rounds: int) -> dict[str, float]:
    """CPU milliseconds of one thread a tile of 512 px, by part."""
    halo = CELLS_REACH_PX
    side = TILE_PX + 2 * STEP * halo
    at = (SIDE_PX - TILE_PX) // 2
    wide = np.pad(rgb, ((side, side), (side, side), (0, 0)), mode="reflect")[
        side + at - STEP * halo :
    ][:side, side + at - STEP * halo :][:, :side]
    walls = np.pad(mask, side, mode="reflect")
    walls = walls[side + at - STEP * halo :][:side, side + at - STEP * halo :][:, :side]
    wide, walls = np.ascontiguousarray(wide), np.ascontiguousarray(walls)
    inner = np.s_[STEP * halo : -STEP * halo, STEP * halo : -STEP * halo]
    own = np.ascontiguousarray(wide[inner])
    parts: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        began = time.process_time()
        out = work(*given, **named)
        parts.setdefault(name, []).append(time.process_time() - began)
        return out

    hematoxylin, dab = cell_stains(wide)
    tile_mask = np.ascontiguousarray(walls[inner])
    tile_dab = np.ascontiguousarray(dab[inner])
    for _ in range(rounds):
        timed("stains", cell_stains, own)
        timed("nuclei_alone", nuclei, hematoxylin, walls, halo_px=halo)
        found = timed("nuclei_and_cells", cells, hematoxylin, dab, walls, halo_px=halo)
        seeds = np.ascontiguousarray(np.stack([found.x, found.y], 1) * STEP, np.int32)
        tile = timed("label", membrane_label, tile_mask, tile_dab, nuclei=seeds)
        merge = MembraneMerge(TILE_PX, TILE_PX, tile_px=TILE_PX)
        timed("merge", merge.add, 0, 0, tile)
    out = {f"{k}_ms": round(1e3 * statistics.median(v), 2) for k, v in parts.items()}
    out["together_ms"] = round(
        sum(v for k, v in out.items() if k != "nuclei_alone_ms"), 2
    )
    return out


Look = Callable[[Any], View]


def true_mask(spacing_um: float = SPACING_UM, *, least: float = 0.5) -> Look:
    return lambda picture: view(
        picture.rgb, picture.membrane_mask, spacing_um, least=least
    )


def looks(packages: Sequence[Path]) -> dict[str, dict[str, Look]]:
    """What is measured, by the question that it answers."""
    own = dict(by_network(folder) for folder in packages)
    networks: dict[str, Look] = {
        name: (lambda picture, find=find: find(picture.rgb))
        for name, find in own.items()
    }
    by_spacing = {
        f"{name} {spacing:g} um/px": true_mask(spacing, least=least)
        for name, least in (("half a pixel", 0.5), ("any of a pixel", 0.0))
        for spacing in SPACINGS_UM[least == 0.0 :]
    }

    def without_spurs(look: Look, length_um: float) -> Look:
        return lambda picture: pruned(look(picture), length_um)

    masks: dict[str, Look] = {
        "true mask": true_mask(),
        "threshold": lambda picture: by_threshold(picture.rgb, SPACING_UM),
        **networks,
    }
    spurs = {
        f"{name} {length:g} um": without_spurs(look, length)
        for name, look in masks.items()
        for length in PRUNE_UM
    }
    return {
        "cells": {"true_mask": true_mask(), **networks},
        "by_spacing": by_spacing,
        "by_longest_spur": spurs,
    }


def measured(
    pictures: Iterator[Any], asked: dict[str, dict[str, Look]]
) -> dict[str, dict[str, Any]]:
    tallies = {
        question: {name: Tally() for name in views} for question, views in asked.items()
    }
    for picture in pictures:
        for question, views in asked.items():
            for name, look in views.items():
                tallies[question][name].add(picture, look(picture))
    return {
        question: {name: tally.figures() for name, tally in of.items()}
        for question, of in tallies.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--package", type=Path, action="append", default=[], help="membrane package"
    )
    parser.add_argument("--scenes", type=int, default=6, help="of each class")
    parser.add_argument("--profile", default="unseen")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    load_before = load()
    asked = looks(chosen.package)
    times = []
    for picture in scenes(1, chosen.profile, range(4)):
        mask = picture.membrane_mask.astype(np.uint8)
        times.append(speed(picture.rgb, mask, chosen.rounds))
    single = measured(scenes(chosen.scenes, chosen.profile, range(4)), asked)
    mixed = measured(scenes(chosen.scenes, chosen.profile, (MIXED,)), asked)
    result = {
        "question": "Which class does each cell get, and how complete is its membrane?",
        "synthetic": True,
        "profile": chosen.profile,
        "scenes_per_class": chosen.scenes,
        "cuts": CELL_CUTS,
        **single["cells"],
        "mixed_pictures": mixed["cells"],
        "by_spacing": single["by_spacing"],
        "mixed_by_spacing": mixed["by_spacing"],
        "by_longest_spur": single["by_longest_spur"],
        "mixed_by_longest_spur": mixed["by_longest_spur"],
        "speed_cpu": {
            key: round(statistics.median(t[key] for t in times), 2) for key in times[0]
        },
        "machine": machine(load_before=load_before),
        "versions": versions("numpy"),
    }
    tell(result, chosen.json, indent=2)


if __name__ == "__main__":
    main()
