# SPDX-License-Identifier: Apache-2.0
"""The least area that flips a score, by trying every way to share out the tumor.

With unit costs, the least area that must move from areas `a` to areas `b` of the same
sum is what the classes that gain have gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]


@cache
def all_shares(total: int) -> Array:
    """Every (n0, n1, n2, n3) of integers >= 0 with this sum, (ways, 4)."""
    n = np.arange(total + 1)
    n3, n2, n1 = (x.ravel() for x in np.meshgrid(n, n, n, indexing="ij"))
    fits = n1 + n2 + n3 <= total
    n1, n2, n3 = n1[fits], n2[fits], n3[fits]
    return np.stack([total - n1 - n2 - n3, n1, n2, n3], axis=1)


def scores(
    areas: Array,
    rule_set: str,
    floor_percent: int,
    two_largest: Sequence[int] | None,
) -> Array:
    """The score of each row of areas, as docs/decisions/guidelines.md reads the rules.

    A class has its three patches where it holds more than its two largest do.
    """
    total = areas[0].sum()
    present = areas > 0
    if floor_percent > 0:
        present &= 100 * areas >= floor_percent * total
        if two_largest is not None:
            present &= areas > np.array(two_largest)
    above = np.cumsum(areas[:, ::-1], axis=1)[:, ::-1]
    score = np.zeros(len(areas), np.int64)
    table_1 = np.zeros(len(areas), np.int64)
    highest = np.zeros(len(areas), np.int64)
    for c in (1, 2, 3):
        table_1[10 * areas[:, c] >= total] = c
        highest[present[:, c]] = c
        if rule_set == "gastric-2016":
            score[10 * above[:, c] >= total] = c
        else:
            score[10 * above[:, c] > total] = c
    if rule_set == "pham-2022":
        return table_1
    if rule_set == "pham-2022-heterogeneous":
        return np.maximum(table_1, highest - 1)
    if rule_set in ("asco-cap-2018", "gefpics-2021"):
        return np.where(present[:, 3], np.maximum(score, 2), score)
    return score


def least_flip(
    areas: Sequence[int],
    rule_set: str,
    floor_percent: int = 1,
    two_largest: Sequence[int] | None = None,
) -> tuple[int, set[int]]:
    """The least area to move, and every score that moving so much can give."""
    start = np.array([areas])
    ways = all_shares(int(start.sum()))
    given = scores(start, rule_set, floor_percent, two_largest)[0]
    got = scores(ways, rule_set, floor_percent, two_largest)
    moved = np.maximum(ways - start, 0).sum(axis=1)
    other = got != given
    least = int(moved[other].min())
    return least, set(got[other & (moved == least)].tolist())
