# SPDX-License-Identifier: Apache-2.0
"""Tissue islands and control tissue, patch against patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reference.guideline import guideline

Counts = npt.NDArray[np.int64]
SCORES_APART = 2
MIX_APART_PERCENT = 40
MIN_PERCENT = 10
QUIET_PERCENT = 20
PARTS = 2**20  # shares are compared in parts of this


def label_islands(tissue: npt.NDArray[np.uint8], radius: int) -> npt.NDArray[np.int32]:
    """Patches whose squares of `radius` overlap or share an edge are one island."""
    places = [tuple(p) for p in np.argwhere(tissue).tolist()]
    out = np.full(tissue.shape, -1, np.int32)
    count = 0
    for start in places:
        if out[start] >= 0:
            continue
        todo = [start]
        out[start] = count
        while todo:
            r, c = todo.pop()
            for place in places:
                near, far = sorted((abs(place[0] - r), abs(place[1] - c)))
                if out[place] < 0 and near <= 2 * radius and far <= 2 * radius + 1:
                    out[place] = count
                    todo.append(place)
        count += 1
    return out


def _score(island: Counts, rule_set: str, floor_percent: int) -> int:
    score, _ = guideline(
        island[:4].tolist(), rule_set, floor_percent, island[4:].tolist()
    )
    assert score is not None
    return score


def compare_islands(
    islands: Counts, rule_set: str, floor_percent: int, min_px: int
) -> tuple[bool, int, list[int]]:
    """Suspected, islands with tumor, compared tumor by the score each has alone."""
    tissue, islands = islands[:, 8], islands[:, :8]
    with_tumor = islands[:, :4].sum(axis=1) > 0
    whole = islands.sum(axis=0)
    quiet = 0
    slide_score = _score(whole, rule_set, floor_percent) if with_tumor.any() else 0
    for island, patches in zip(islands, tissue.tolist(), strict=True):
        alone = island[:4].any()
        score_alone = _score(island, rule_set, floor_percent) if alone else 0
        if slide_score - score_alone >= SCORES_APART:
            quiet += patches
    suspected = slide_score >= SCORES_APART and quiet > 0
    suspected &= 100 * quiet >= QUIET_PERCENT * tissue.sum()
    islands = islands[with_tumor]
    everything = islands.sum(axis=0)
    all_px = everything[:4].sum()

    def is_large(island: Counts) -> bool:
        px = island[:4].sum()
        return bool(px >= min_px or 100 * px >= MIN_PERCENT * all_px)

    def score(island: Counts) -> int:
        return _score(island, rule_set, floor_percent)

    large = [island for island in islands if is_large(island)]
    # In quarters of 2^-18, as the core rounds.
    means = [
        (int(island[1] + 2 * island[2] + 3 * island[3]) << 18)
        // int(island[:4].sum())
        * 4
        for island in large
    ]
    if means:
        suspected |= 2 * (max(means) - min(means)) >= 3 * PARTS
    small = [island for island in islands if not is_large(island)]
    groups: Sequence[Counts] = [*large, *([np.sum(small, axis=0)] if small else [])]
    for island in [*small, *groups]:
        rest = everything - island
        if rest[:4].sum() >= island[:4].sum() and rest[:4].sum() > 0:
            suspected |= abs(score(everything) - score(rest)) >= SCORES_APART
    alike = np.zeros((4, 8), np.int64)
    for island in groups:
        if is_large(island):
            alike[score(island)] += island
    for low in range(4):
        for high in range(low + SCORES_APART, 4):
            a, b = alike[low][:4], alike[high][:4]
            if a.sum() and b.sum():
                apart = np.abs(a * PARTS // a.sum() - b * PARTS // b.sum()).sum()
                suspected |= bool(50 * apart >= MIX_APART_PERCENT * PARTS)
    return bool(suspected), len(islands), alike[:, :4].sum(axis=1).tolist()
