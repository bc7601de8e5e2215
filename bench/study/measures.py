# SPDX-License-Identifier: Apache-2.0
"""From logits of patches to figures of slides: what each stage gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from design import SCORES, SPACING_UM
from draw import Drawn

from her2fast.evaluation import metrics
from her2fast.phantom.truth import is_kept
from her2fast.training.calibrate import Fitted, calibrated, fit_calibration
from her2fast.training.classify import class_areas, slide_scores
from her2fast.training.config_sections import Calibration
from her2fast.training.patches import Pieces

Longs = npt.NDArray[np.int64]

#: A test set by the beginning of its slides' names; "both" are those of the unseen
#: scanner, "known" are of the training sites.
TEST_SETS = {"both": "test", "test": "test-", "test2": "test2-", "known": "known-"}
#: The mask that a patch's tumor pixels are counted in.
MASKS = {"predicted": "test_found_px", "true": "test_true_mask_px"}
WORKERS = 2


@dataclass(frozen=True)
class Table:
    """The stored logits of one network."""

    columns: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Table:
        with np.load(path) as stored:
            return cls({name: stored[name] for name in stored.files})

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def calibration(self, part: str, config: Calibration, seed: int) -> Fitted:
        """Values fitted on a part, as `her2fast train calibrate` fits them."""
        return fit_calibration(
            self[f"{part}_logits"], _Labelled(self, part), config, seed, WORKERS
        )


def of_test_set(table: Table, drawn: dict[str, Drawn], test_set: str) -> Table:
    """A test set as a part "adapt" that `Table.calibration` takes, with its labels."""
    offsets = table["test_offsets"]
    kept = table["test_found_px"] > 0
    logits, tumor, sizes, labels = [], [], [], []
    for index, name in enumerate(table["test_names"].tolist()):
        rows = slice(offsets[index], offsets[index + 1])
        mine = kept[rows]
        if not name.startswith(TEST_SETS[test_set]) or not mine.any():
            continue
        logits.append(table["test_logits"][rows][mine])
        tumor.append(table["test_found_px"][rows][mine])
        sizes.append(int(mine.sum()))
        labels.append(SCORES.index(drawn[name].group.score))
    return Table(
        {
            "adapt_logits": np.ascontiguousarray(np.concatenate(logits)),
            "adapt_tumor_px": np.concatenate(tumor),
            "adapt_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            "adapt_labels": np.array(labels, np.int64),
        }
    )


class _Labelled(Pieces):
    """A stored part where `fit_calibration` wants pieces: labels and tumor pixels."""

    def __init__(self, table: Table, part: str) -> None:
        slides = tuple(_Slide(int(label)) for label in table[f"{part}_labels"])
        super().__init__(slides, (), table[f"{part}_offsets"])  # type: ignore[arg-type]
        object.__setattr__(self, "_tumor", table[f"{part}_tumor_px"])

    def column(self, name: str) -> Any:
        assert name == "tumor_px"
        return self._tumor  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Slide:
    label: int


def figures_on_test(
    table: Table,
    drawn: dict[str, Drawn],
    *,
    fitted: Fitted | None,
    mask: str = "predicted",
    test_set: str = "both",
    rule_set: str = "pham-2022",
) -> dict[str, Any]:
    """Figures of one network, with or without calibration, on test slides.

    Slides by their score, patches by the class most of their true tumor has, shares
    by those of all true tumor pixels of the slide. A slide in which no patch is kept
    has no score: it is wrong in every figure, with the share 0 of every class.
    """
    logits = table["test_logits"]
    if fitted is not None:
        logits = calibrated(logits, fitted.values, fitted.mode)
    classes = logits.argmax(1)
    weights = table[MASKS[mask]].astype(np.uint32)
    areas = class_areas(classes, weights, table["test_offsets"])
    predicted = slide_scores(areas, rule_set)
    names = [str(name) for name in table["test_names"]]
    every = [name for name in drawn if name.startswith(TEST_SETS[test_set])]
    place = {name: index for index, name in enumerate(names)}
    rows = np.array([place.get(name, -1) for name in every])
    truth = np.array(
        [int(slide_scores(np.array([drawn[n].areas]), rule_set)[0]) for n in every]
    )
    shares = np.array([drawn[n].fractions for n in every])
    found_areas = np.where(rows[:, None] >= 0, areas[rows], 0)
    total = found_areas.sum(1, keepdims=True)
    found = np.where(total > 0, found_areas / np.maximum(total, 1), 0.0)
    called = np.where(rows >= 0, predicted[rows], -1)
    owner = np.repeat(np.arange(len(names)), np.diff(table["test_offsets"]))
    mine = np.isin(owner, rows[rows >= 0])
    known = mine & (weights > 0) & is_kept(table["test_true_areas"], SPACING_UM)
    patch_truth = table["test_true_areas"][known].argmax(1)
    patch_called = classes[known]
    patches = np.zeros((4, 4), np.int64)
    np.add.at(patches, (patch_truth, patch_called), 1)
    # A slide without a score is wrong: it is counted as the class furthest away.
    graded = np.where(called >= 0, called, np.where(truth >= 2, 0, 3))
    three = metrics.seen_as(truth, "3-class"), metrics.seen_as(graded, "3-class")
    confusion = np.zeros((4, 4), np.int64)
    np.add.at(confusion, (truth, graded), 1)
    per_class = patches.diagonal() / np.maximum(patches.sum(1), 1)
    error = np.abs(found - shares)
    return {
        "slides": len(every),
        "without_score": int((called < 0).sum()),
        "macro_f1": metrics.headline(truth, graded)["macro_f1"],
        "accuracy": float((truth == graded).mean()),
        "macro_f1_3class": metrics.headline(*three)["macro_f1"],
        "kappa_quadratic": metrics.headline(truth, graded)["kappa_quadratic"],
        "patches": int(patches.sum()),
        "patch_accuracy": float(patches.trace() / max(patches.sum(), 1)),
        "patch_accuracy_by_class": per_class.tolist(),
        "fraction_mae": float(error.mean()),
        "fraction_mae_by_class": error.mean(0).tolist(),
        "confusion": confusion.tolist(),
        "patch_confusion": patches.tolist(),
        "f1_by_class": _f1(confusion),
        "_names": every,
        "_truth": truth,
        "_called": graded,
        "_shares": shares,
        "_found": found,
    }


def _f1(confusion: Longs) -> list[float]:
    hits = confusion.diagonal()
    return (2 * hits / np.maximum(confusion.sum(0) + confusion.sum(1), 1)).tolist()


def differences(
    stages: dict[str, Sequence[dict[str, Any]]],
    pairs: Sequence[tuple[str, str]],
    *,
    replicates: int = 2000,
) -> dict[str, Any]:
    """Macro-F1 of a stage less another, mean over seeds, with a paired bootstrap.

    The same slides are drawn for both stages and all seeds.
    """
    first = next(iter(stages.values()))[0]
    slides = len(first["_truth"])
    drawn: dict[str, Any] = {}
    for name, seeds in stages.items():
        by_seed = []
        for one in seeds:
            tables = np.zeros((slides, 4, 4), np.int64)
            tables[np.arange(slides), one["_truth"], one["_called"]] = 1
            many = metrics.drawn_tables(tables, replicates, seed=0)
            by_seed.append(metrics.headline_of_tables(many)["macro_f1"])
        drawn[name] = np.mean(by_seed, axis=0)
    out = {}
    for later, earlier in pairs:
        gap = drawn[later] - drawn[earlier]
        low, high = np.percentile(gap, [2.5, 97.5])
        out[f"{later} - {earlier}"] = {
            "macro_f1": _mean(stages[later]) - _mean(stages[earlier]),
            "interval": [float(low), float(high)],
            "share_above_0": float((gap > 0).mean()),
        }
    return out


def _mean(seeds: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([one["macro_f1"] for one in seeds]))


def plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Without what only drawing needs."""
    return {name: value for name, value in figures.items() if not name.startswith("_")}
