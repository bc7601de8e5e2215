# SPDX-License-Identifier: Apache-2.0
"""What moves between two scores of the same glass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import her2fast
from her2fast import _core

Row = dict[str, Any]


def patches(result: her2fast.Result) -> dict[tuple[int, int], tuple[int, int, float]]:
    """Of kept patches: class, tumor px, the lead of the best class in logits."""
    assert result.measurement is not None
    core = result.measurement.core
    found = _core.patch_outcomes(core, **result.settings.core_arguments())
    ordered = np.sort(found["logits"], axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    return {
        (int(row), int(column)): (int(kind), int(tumor), float(gap))
        for row, column, kind, tumor, gap, kept in zip(
            found["row"],
            found["column"],
            found["predicted"],
            found["tumor_px"],
            lead,
            found["kept"],
            strict=True,
        )
        if kept
    }


def shares(areas: list[int]) -> npt.NDArray[np.float64]:
    total = sum(areas)
    return np.asarray(areas, np.float64) / max(total, 1)


def points(first: list[int], second: list[int]) -> float:
    """Largest difference of a class's share, percent points."""
    return round(100 * float(np.abs(shares(first) - shares(second)).max()), 3)


def compare(first: her2fast.Result, second: her2fast.Result) -> Row:
    """What moved from the first to the second."""
    a, b = patches(first), patches(second)
    tumor = sum(px for _, px, _ in a.values())
    both = a.keys() & b.keys()
    changed = [key for key in both if a[key][0] != b[key][0]]
    alone = [a[key] for key in a.keys() - both] + [b[key] for key in b.keys() - both]
    turned = np.zeros((4, 4))
    for key in changed:
        turned[a[key][0], b[key][0]] += 100 * a[key][1] / max(tumor, 1)
    one = first.record["class_px"]
    other = second.record["class_px"]
    leads = [a[key][2] for key in changed]
    return {
        "points": points(one, other),
        "points_by_class": [
            round(100 * float(d), 3) for d in shares(other) - shares(one)
        ],
        "class_px": other,
        "tumor_change_percent": round(100 * (sum(other) / max(sum(one), 1) - 1), 3),
        "patches": len(a),
        "patches_changed": len(changed),
        "tumor_changed_percent": round(
            100 * sum(a[key][1] for key in changed) / max(tumor, 1), 3
        ),
        "turned_percent": np.round(turned, 3).tolist(),
        "turned_up_percent": round(float(np.triu(turned, 1).sum()), 3),
        "turned_down_percent": round(float(np.tril(turned, -1).sum()), 3),
        "patches_kept_in_one": len(alone),
        "tumor_kept_in_one_percent": round(
            100 * sum(px for _, px, _ in alone) / max(tumor, 1), 3
        ),
        "lead_of_changed": round(float(np.median(leads)), 3) if leads else None,
        "lead_of_all": round(float(np.median([gap for *_, gap in a.values()])), 3),
        "score": second.score,
        "score_before": first.score,
    }
