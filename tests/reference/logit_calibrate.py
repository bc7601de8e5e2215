# SPDX-License-Identifier: Apache-2.0
"""The hard loss of slide labels (Pham et al., Eq. 18 to 20), and a search by force."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

GROUPS = [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3)]


def class_px(
    logits: npt.NDArray[np.float32], tumor_px: Any, offsets: Any, values: Any, mode: str
) -> npt.NDArray[np.int64]:
    """Tumor pixels of every slide by class."""
    wide = logits.astype(np.float64)
    wide = wide * np.asarray(values) if mode == "scale" else wide + np.asarray(values)
    predicted = wide.argmax(axis=1) if len(wide) else np.zeros(0, np.int64)
    rows = [
        np.bincount(predicted[a:b], tumor_px[a:b], minlength=4)
        for a, b in pairwise(offsets)
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def loss(
    areas: npt.NDArray[np.int64], labels: Any, lower: Any, upper: Any, margin: int = 0
) -> tuple[float, int]:
    """Loss and count of broken slides, in exact fractions, rounded to 2^-40 a slide."""
    fixed = broken = 0
    for row, y in zip(areas.tolist(), labels, strict=True):
        total = sum(row)
        if total == 0:
            continue
        over = max(0, (lower[y] + margin) * total - 1000 * row[y]) if lower[y] else 0
        bad = 1000 * row[y] < lower[y] * total
        for c in range(y + 1, 4):
            if upper[y][c] <= 1000:
                over += max(0, 1000 * row[c] - (upper[y][c] - margin) * total)
                bad |= 1000 * row[c] >= upper[y][c] * total
        fixed += int(Fraction(over, 1000 * total) * 2**40 + Fraction(1, 2))
        broken += bad
    return fixed / 2**40, broken


def line_points(
    logits: npt.NDArray[np.float32], values: Any, group: tuple[int, ...], mode: str
) -> Iterator[npt.NDArray[np.float64]]:
    """One point inside every stretch of a line, found by comparing all pairs."""
    wide = logits.astype(np.float64)
    values = np.asarray(values, np.float64)
    inside, outside = list(group), [c for c in range(4) if c not in group]
    places = set()
    for row in wide * values if mode == "scale" else wide + values:
        for i in inside:
            for o in outside:
                if mode == "bias":
                    places.add(row[o] - row[i])
                elif row[i] * row[o] > 0:
                    places.add(row[o] / row[i])
    ends = sorted(places) or [1.0]
    if mode == "scale":
        ts = [ends[0] / 2, *(np.sqrt(a * b) for a, b in pairwise(ends)), ends[-1] * 2]
    else:
        ts = [ends[0] - 1, *((a + b) / 2 for a, b in pairwise(ends)), ends[-1] + 1]
    for t in ts:
        moved = values.copy()
        moved[inside] = moved[inside] * t if mode == "scale" else moved[inside] + t
        yield moved


def splits() -> set[frozenset[frozenset[int]]]:
    """Every way to part four classes in two: what GROUPS has to name once each."""
    return {
        frozenset({frozenset(g), frozenset(range(4)) - frozenset(g)})
        for size in (1, 2, 3)
        for g in combinations(range(4), size)
    }
