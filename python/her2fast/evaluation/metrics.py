# SPDX-License-Identifier: Apache-2.0
"""Agreement of scores with labels. Formulas are scikit-learn's and SciPy's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.errors import UsageError

Classes = npt.NDArray[np.int64]

#: Names of the classes of each view, and the class of 0, 1+, 2+, 3+ in it.
VIEWS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "4-class": (("0", "1+", "2+", "3+"), (0, 1, 2, 3)),
    "3-class": (("negative", "equivocal", "positive"), (0, 0, 1, 2)),
    "1+ or more": (("0", "1+ to 3+"), (0, 1, 1, 1)),
    "2+ or more": (("0, 1+", "2+, 3+"), (0, 0, 1, 1)),
    "3+": (("0 to 2+", "3+"), (0, 0, 0, 1)),
}
CONFIDENCE = 0.95


def seen_as(scores: Sequence[int] | Classes, view: str) -> Classes:
    """0 to 3 as classes of a view."""
    return np.asarray(VIEWS[view][1], np.int64)[np.asarray(scores, np.int64)]


def headline(truth: Classes, predicted: Classes) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro-F1, plain and quadratic kappa.

    Macro-F1 is the mean over classes that occur in either; a figure that is not
    defined (kappa of one class alone) is NaN.
    """
    _need_sklearn()
    from sklearn import metrics

    occurring = np.union1d(truth, predicted)
    one = len(occurring) == 1
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(
            metrics.recall_score(
                truth,
                predicted,
                labels=np.unique(truth),
                average="macro",
                zero_division=0.0,
            )
        ),
        "macro_f1": float(
            metrics.f1_score(truth, predicted, average="macro", zero_division=0.0)
        ),
        "kappa": math.nan
        if one
        else float(metrics.cohen_kappa_score(truth, predicted)),
        "kappa_quadratic": math.nan
        if one
        else float(metrics.cohen_kappa_score(truth, predicted, weights="quadratic")),
    }


def agreement(
    truth: Classes, predicted: Classes, names: Sequence[str]
) -> dict[str, Any]:
    """`headline`, the confusion matrix (rows are truth), and figures per class."""
    _need_sklearn()
    from sklearn import metrics

    labels = np.arange(len(names))
    table = metrics.confusion_matrix(truth, predicted, labels=labels)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=np.nan
    )
    per_class = {}
    for kind, name in enumerate(names):
        specificity = metrics.recall_score(
            truth != kind, predicted != kind, zero_division=np.nan
        )
        per_class[name] = {
            "precision": float(precision[kind]),
            "recall": float(recall[kind]),
            "specificity": float(specificity),
            "f1": float(f1[kind]),
            "support": int(support[kind]),
        }
    weighted = metrics.precision_recall_fscore_support(
        truth, predicted, average="weighted", zero_division=0.0
    )
    return {
        "slides": len(truth),
        **headline(truth, predicted),
        "weighted_precision": float(weighted[0]),
        "weighted_recall": float(weighted[1]),
        "weighted_f1": float(weighted[2]),
        "confusion": table.astype(int).tolist(),
        "per_class": per_class,
    }


def from_matrix(table: Sequence[Sequence[int]]) -> tuple[Classes, Classes]:
    """Truth and prediction of every case of a printed matrix; rows are truth."""
    counts = np.asarray(table, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
        raise ValueError("need a square matrix of counts >= 0")
    rows, columns = np.indices(counts.shape)
    return (
        np.repeat(rows.ravel(), counts.ravel()),
        np.repeat(columns.ravel(), counts.ravel()),
    )


def headline_of_tables(tables: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """`headline` of many confusion matrices (n, k, k) at once, for the bootstrap.

    scikit-learn would take a minute for a thousand draws; a test holds that these are
    its figures.
    """
    counts = tables.astype(np.float64)
    classes = counts.shape[-1]
    true, called = counts.sum(2), counts.sum(1)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    total = true.sum(1)
    step = np.arange(classes)
    distance = np.abs(step[:, None] - step[None]).astype(np.float64)
    expected = true[:, :, None] * called[:, None] / total[:, None, None]
    several = ((true + called) > 0).sum(1) > 1

    def kappa(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        seen = (weights * counts).sum((1, 2))
        chance = (weights * expected).sum((1, 2))
        found = 1.0 - seen / np.where(several, chance, 1.0)
        return np.where(several, found, np.nan)

    def mean_where(
        top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        shares = np.where(bottom > 0, top / np.maximum(bottom, 1.0), 0.0)
        return np.asarray(shares.sum(1) / (bottom > 0).sum(1))

    return {
        "accuracy": hits.sum(1) / total,
        "balanced_accuracy": mean_where(hits, true),
        "macro_f1": mean_where(2.0 * hits, true + called),
        "kappa": kappa((distance > 0).astype(np.float64)),
        "kappa_quadratic": kappa(distance**2),
    }


def patient_tables(
    patients: Sequence[str], truth: Classes, predicted: Classes, classes: int
) -> npt.NDArray[np.int64]:
    """(patients, k, k): the confusion matrix of every patient, by name."""
    _, owner = np.unique(np.asarray(patients, object).astype(str), return_inverse=True)
    tables = np.zeros((int(owner.max()) + 1, classes, classes), np.int64)
    np.add.at(tables, (owner, truth, predicted), 1)
    return tables


def drawn_tables(
    tables: npt.NDArray[np.int64], replicates: int, seed: int
) -> npt.NDArray[np.int64]:
    """(replicates, k, k): patients drawn with replacement, each with all its slides.

    The same seed draws the same patients, whatever the tables.
    """
    count = len(tables)
    drawn = np.random.default_rng(seed).integers(count, size=(replicates, count))
    times = np.zeros((replicates, count), np.int64)
    np.add.at(times, (np.arange(replicates)[:, None], drawn), 1)
    shape = tables.shape[1:]
    return (times @ tables.reshape(count, -1)).reshape(replicates, *shape)


def percentiles(
    figures: Mapping[str, npt.NDArray[np.float64]],
) -> dict[str, list[float | None]]:
    """95 % intervals; draws where a figure is not defined do not count for it."""
    low, high = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    intervals: dict[str, list[float | None]] = {}
    for name, values in figures.items():
        defined = values[np.isfinite(values)]
        intervals[name] = (
            [float(v) for v in np.percentile(defined, [low, high])]
            if len(defined)
            else [None, None]
        )
    return intervals


def share_with_interval(hits: int, total: int) -> dict[str, Any]:
    """A share with its Wilson interval."""
    if total == 0:
        return {"hits": 0, "of": 0, "share": None, "interval": None}
    from scipy.stats import binomtest

    interval = binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "hits": hits,
        "of": total,
        "share": hits / total,
        "interval": [float(interval.low), float(interval.high)],
    }


def percent_agreement(truth: Classes, predicted: Classes) -> dict[str, Any]:
    """PPA and NPA of two classes (1 is positive), with Wilson intervals."""
    positive, called = truth == 1, predicted == 1
    return {
        "ppa": share_with_interval(int((called & positive).sum()), int(positive.sum())),
        "npa": share_with_interval(
            int((~called & ~positive).sum()), int((~positive).sum())
        ),
    }


def area_under_curve(
    truth: Classes, shares: npt.NDArray[np.float64], least: int
) -> float | None:
    """AUC of "class `least` or more" by the share of tumor in these classes."""
    _need_sklearn()
    from sklearn.metrics import roc_auc_score

    positive = truth >= least
    if positive.all() or not positive.any():
        return None
    return float(roc_auc_score(positive, shares[:, least:].sum(axis=1)))


def bland_altman(
    truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Mean of predicted less true, its limits of agreement, mean absolute error."""
    difference = predicted - truth
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
    bias = float(difference.mean())
    return {
        "bias": bias,
        "limits": [bias - 1.96 * spread, bias + 1.96 * spread],
        "mean_absolute_error": float(np.abs(difference).mean()),
        "slides": len(difference),
    }


def _need_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "evaluation needs scikit-learn: pip install her2fast[train]"
        ) from error
