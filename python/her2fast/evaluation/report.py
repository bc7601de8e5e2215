# SPDX-License-Identifier: Apache-2.0
"""What an evaluation holds: one JSON from which page and figures are made."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast._core import __version__
from her2fast.evaluation import metrics
from her2fast.evaluation.cases import (
    Case,
    Labelled,
    Results,
    collect_results,
    file_sha256,
    read_fractions,
    read_labels,
    shares_of,
)
from her2fast.evaluation.dice import dice_by_label
from her2fast.manifest import LABELS

Fractions = Mapping[str, tuple[float, ...]]


def evaluate(
    folders: Mapping[str, Path],
    labels: Path,
    *,
    split: str | None = None,
    fractions: Path | None = None,
    annotations: Path | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any], list[Results]]:
    """Results folders by name against one set of labels.

    Figures are of the slides that have a score; how many have none stands beside
    them. Where there are several folders, differences to the first are of the slides
    that both scored, with a bootstrap of the same draws.
    """
    known = read_labels(labels, split)
    truth = {} if fractions is None else read_fractions(fractions)
    found = [collect_results(name, path, known) for name, path in folders.items()]
    content: dict[str, Any] = {
        "her2fast": __version__,
        "labels_sha256": file_sha256(labels),
        "split": split,
        "labelled_slides": len(known),
        "patients": len({one.patient for one in known}),
        "replicates": replicates,
        "seed": seed,
        "results": {
            one.name: _one(one, truth, replicates=replicates, seed=seed)
            for one in found
        },
        "differences": {
            f"{other.name} - {found[0].name}": _difference(
                found[0], other, replicates=replicates, seed=seed
            )
            for other in found[1:]
        },
        "readers": reader_tables(known),
    }
    if annotations is not None:
        for one in found:
            content["results"][one.name]["tumor"] = dice_by_label(one, annotations)
    return _finite(content), found


def _one(
    results: Results, truth: Fractions, *, replicates: int, seed: int
) -> dict[str, Any]:
    scored = results.scored
    label = np.array([case.label for case in scored], np.int64)
    score = np.array([case.score for case in scored], np.int64)
    patients = [case.patient for case in scored]
    views = {}
    for view, (names, _) in metrics.VIEWS.items():
        a, b = metrics.seen_as(label, view), metrics.seen_as(score, view)
        views[view] = metrics.agreement(a, b, names)
        if len(names) == 2:
            views[view] |= metrics.percent_agreement(a, b)
        tables = metrics.patient_tables(patients, a, b, len(names))
        drawn = metrics.drawn_tables(tables, replicates, seed)
        views[view]["intervals"] = metrics.percentiles(
            metrics.headline_of_tables(drawn)
        )
    shares = shares_of(scored)
    content: dict[str, Any] = {
        "rule_set": results.rule_set,
        "counted": results.counted,
        "intended_use": list(results.intended_use),
        "models_sha256": list(results.models),
        "scored": len(scored),
        "not_scored": dict(
            Counter(
                case.code or case.status for case in results.cases if case.score is None
            )
        ),
        "unlabelled": len(results.unlabelled),
        "left_out": {name: error.code for name, error in results.left_out.items()},
        "accuracy_all": float(np.sum(label == score)) / len(results.cases),
        "review_flags": dict(Counter(f for case in scored for f in case.flags)),
        "views": views,
        "auc": {
            f"{LABELS[least]} or more": metrics.area_under_curve(label, shares, least)
            for least in (1, 2, 3)
        },
        "zero_against_one": _zero_against_one(label, score),
        "discordant": [
            _discordant(case) for case in scored if case.score != case.label
        ],
    }
    if results.counted == "cells":
        content["cells"] = cells_by_label(scored)
    known = [case for case in scored if case.name in truth]
    if known:
        want = np.array([truth[case.name] for case in known])
        got = shares_of(known)
        content["fractions"] = {
            name: metrics.bland_altman(want[:, kind], got[:, kind])
            for kind, name in enumerate(LABELS)
        }
        content["fraction_mae"] = float(np.abs(want - got).mean())
    return content


def cells_by_label(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """What was counted on the slides of each label; the H-score is a slide's."""
    found = {}
    for kind, name in enumerate(LABELS):
        cells = [case.cells for case in cases if case.label == kind and case.cells]
        counts = [int(one["count"]) for one in cells]
        total = sum(counts)
        heights = [float(one["h_score"]) for one in cells if one["count"]]
        found[name] = {
            "slides": len(cells),
            "cells": total,
            "fewest": min(counts, default=None),
            "dropped": sum(int(one["dropped_cells"]) for one in cells),
            "complete_share": _share(cells, "complete_cells", total),
            "unusual_share": _share(cells, "unusual_cells", total),
            "h_score": {
                "least": min(heights, default=None),
                "median": float(np.median(heights)) if heights else None,
                "most": max(heights, default=None),
            },
        }
    return found


def _share(cells: Sequence[Mapping[str, Any]], key: str, total: int) -> float | None:
    return sum(int(one[key]) for one in cells) / total if total else None


def _zero_against_one(
    label: npt.NDArray[np.int64], score: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """The table that decides who may get a drug for HER2-low."""
    among = (label <= 1) & (score <= 1)
    table = np.zeros((2, 2), int)
    np.add.at(table, (label[among], score[among]), 1)
    return {
        "table": table.tolist(),
        "agreement": metrics.share_with_interval(int(table.trace()), int(table.sum())),
    }


def _discordant(case: Case) -> dict[str, Any]:
    assert case.score is not None
    return {
        "slide": case.name,
        "label": LABELS[case.label],
        "score": LABELS[case.score],
        "steps": case.score - case.label,
        "fractions": list(case.fractions or ()),
        "cells": None if case.cells is None else int(case.cells["count"]),
        "review_flags": list(case.flags),
    }


def _difference(
    first: Results, other: Results, *, replicates: int, seed: int
) -> dict[str, Any]:
    """Of the slides that both scored; the same patients are drawn for both."""
    left = {case.name: case for case in first.scored}
    pairs = [(left[case.name], case) for case in other.scored if case.name in left]
    if not pairs:
        return {"slides": 0}
    label = np.array([a.label for a, _ in pairs], np.int64)
    a, b = (np.array([pair[i].score for pair in pairs], np.int64) for i in (0, 1))

    patients = [case.patient for case, _ in pairs]
    before, after = metrics.headline(label, a), metrics.headline(label, b)
    drawn = [
        metrics.headline_of_tables(
            metrics.drawn_tables(
                metrics.patient_tables(patients, label, score, len(LABELS)),
                replicates,
                seed,
            )
        )
        for score in (a, b)
    ]
    return {
        "slides": len(pairs),
        **{name: after[name] - before[name] for name in before},
        "intervals": metrics.percentiles(
            {name: drawn[1][name] - drawn[0][name] for name in drawn[0]}
        ),
    }


def reader_tables(labels: Sequence[Labelled]) -> list[dict[str, Any]]:
    """Every two readers, and every reader against the label, on what both scored."""
    names = sorted({name for one in labels for name in one.readers})
    columns: dict[str, dict[str, int]] = {
        name: {one.name: one.readers[name] for one in labels if name in one.readers}
        for name in names
    }
    columns["label"] = {one.name: one.label for one in labels}
    tables = []
    for a, b in itertools.combinations([*names, "label"], 2):
        both = sorted(columns[a].keys() & columns[b].keys())
        if not both or not names:
            continue
        first = np.array([columns[a][name] for name in both], np.int64)
        second = np.array([columns[b][name] for name in both], np.int64)
        table = metrics.agreement(first, second, LABELS)
        kept = ("slides", "accuracy", "kappa", "kappa_quadratic", "confusion")
        tables.append({"rows": a, "columns": b, **{key: table[key] for key in kept}})
    return tables


def _finite(value: Any) -> Any:
    """NaN is no JSON, and "not defined" is no number."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
