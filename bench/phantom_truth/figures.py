# SPDX-License-Identifier: Apache-2.0
"""From rows of scored phantoms to figures; no pixels, no models."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SCORES = ("0", "1+", "2+", "3+")
RULES = ("pham-2022", "asco-cap-2018")
#: Truth near the 10 % cut, where an error of a share moves the score.
NEAR_CUT = (0.05, 0.15)
Row = dict[str, Any]


def confusion(truth: list[str], predicted: list[str | None]) -> npt.NDArray[np.int64]:
    """(4, 5): rows are the truth, the last column holds slides without a score."""
    out = np.zeros((4, 5), np.int64)
    for true, found in zip(truth, predicted, strict=True):
        out[SCORES.index(true), 4 if found is None else SCORES.index(found)] += 1
    return out


def macro_f1(table: npt.NDArray[np.int64]) -> float:
    """Mean F1 of the classes that truth or prediction holds; no score is a miss."""
    hits = np.diag(table[:, :4])
    both = table.sum(1) + table[:, :4].sum(0)
    there = both > 0
    return float(np.mean(2.0 * hits[there] / both[there])) if there.any() else 0.0


def interval(
    truth: list[str], predicted: list[str | None], draws: int = 2000
) -> list[float]:
    """95 % percentile interval of macro-F1 over slides drawn with replacement."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        picks = rng.integers(len(truth), size=len(truth))
        table = confusion([truth[i] for i in picks], [predicted[i] for i in picks])
        values.append(macro_f1(table))
    return [round(float(v), 3) for v in np.quantile(values, (0.025, 0.975))]


def _spread(values: list[float]) -> dict[str, float] | None:
    """Mean and both ends, with the quartiles."""
    if not values:
        return None
    low, first, middle, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    return {
        "mean": round(float(np.mean(values)), 4),
        "lowest": round(float(low), 4),
        "quartile_1": round(float(first), 4),
        "median": round(float(middle), 4),
        "quartile_3": round(float(third), 4),
        "highest": round(float(high), 4),
    }


def by_rule(rows: list[Row], rule: str) -> dict[str, Any]:
    """Slide scores under one rule set, against the truth under the same one."""
    truth = [str(row["truth"][rule]) for row in rows]
    found = [row["predicted"][rule] for row in rows]
    table = confusion(truth, found)
    return {
        "macro_f1": round(macro_f1(table), 3),
        "macro_f1_interval_95": interval(truth, found),
        "right": int(np.trace(table[:, :4])),
        "off_by_two_or_more": sum(
            f is not None and abs(SCORES.index(t) - SCORES.index(f)) > 1
            for t, f in zip(truth, found, strict=True)
        ),
        "without_score": int(table[:, 4].sum()),
        "review_required": sum(bool(row["review"][rule]) for row in rows),
        # A wrong score that asks for no look is the worst of all ends.
        "wrong_without_flag": sum(
            f is not None and t != f and not row["review"][rule]
            for t, f, row in zip(truth, found, rows, strict=True)
        ),
        "confusion_truth_rows": table.tolist(),
    }


def summarize(rows: list[Row]) -> dict[str, Any]:
    """All figures of one cohort."""
    measured = [row for row in rows if row["found_fractions"] is not None]
    truth = np.array([row["true_fractions"] for row in measured]).reshape(-1, 4)
    found = np.array([row["found_fractions"] for row in measured]).reshape(-1, 4)
    error = np.abs(truth - found)
    near = (truth >= NEAR_CUT[0]) & (truth <= NEAR_CUT[1])
    patches = np.sum([row["patches"] for row in rows], axis=0).astype(np.int64)
    of_truth = patches.sum(1)
    ordered = sorted(
        range(len(measured)), key=lambda i: (float(error[i].mean()), i), reverse=True
    )

    def ends(order: list[int]) -> list[dict[str, Any]]:
        keys = ("index", "truth", "predicted", "true_fractions", "found_fractions")
        return [
            {
                "fraction_mae": round(float(error[i].mean()), 4),
                **{k: measured[i][k] for k in (*keys, "tumor_dice")},
            }
            for i in order
        ]

    return {
        "slides": len(rows),
        "flags": {
            flag: sum(flag in row.get("flags", ()) for row in rows)
            for flag in sorted({f for row in rows for f in row.get("flags", ())})
        },
        "rules": {rule: by_rule(rows, rule) for rule in RULES},
        "fraction_mae": _spread([float(e) for e in error.mean(1)]),
        "fraction_mae_by_class": [round(float(e), 4) for e in error.mean(0)],
        "fraction_bias_by_class": [round(float(e), 4) for e in (found - truth).mean(0)],
        "fraction_error_near_cut": {
            "truth_from": NEAR_CUT[0],
            "truth_to": NEAR_CUT[1],
            "values": int(near.sum()),
            "error": _spread([float(e) for e in error[near]]),
            "by_class_values": [int(n) for n in near.sum(0)],
            "by_class_mae": [
                round(float(error[near[:, k], k].mean()), 4)
                if near[:, k].any()
                else None
                for k in range(4)
            ],
        },
        "tumor_dice": _spread([float(row["tumor_dice"]) for row in rows]),
        "patches": {
            "confusion_truth_rows": patches.tolist(),
            "accuracy": round(float(np.trace(patches) / max(of_truth.sum(), 1)), 4),
            "accuracy_by_class": [
                round(float(patches[k, k] / of_truth[k]), 4) if of_truth[k] else None
                for k in range(4)
            ],
        },
        "worst": ends(ordered[:5]),
        "best": ends(ordered[::-1][:5]),
    }
