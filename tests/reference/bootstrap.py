# SPDX-License-Identifier: Apache-2.0
"""The block bootstrap in NumPy: docs/design/decide.md, read aloud."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from reference.guideline import guideline

SEED = int.from_bytes(b"HER2FAST", "big")
MIN_BLOCKS = 8


def draws(replicates: int, blocks: int) -> npt.NDArray[np.int64]:
    """(replicates, blocks): which block each draw takes; splitmix64 of a counter."""
    replicate = np.arange(replicates, dtype=np.uint64)[:, None]
    draw = np.arange(blocks, dtype=np.uint64)[None, :]
    counter = replicate * np.uint64(2**32) + draw + np.uint64(1)
    with np.errstate(over="ignore"):
        z = np.uint64(SEED) + np.uint64(0x9E3779B97F4A7C15) * counter
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (((z >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)).astype(int)


def blocks_of(
    column: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    tumor_px: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    side: int,
    classes: int = 4,
) -> tuple[npt.NDArray[np.int64], int]:
    """(blocks, 2 * classes): pixels, then patches, row by row; and the side taken."""
    while True:
        places = sorted(set(zip(row // side, column // side, strict=True)))
        if len(places) >= MIN_BLOCKS or side == 1:
            break
        side //= 2
    number = {place: i for i, place in enumerate(places)}
    out = np.zeros((len(places), 2 * classes), np.int64)
    for x, y, px, c in zip(column, row, tumor_px, predicted, strict=True):
        block = out[number[y // side, x // side]]
        block[c] += px
        block[classes + c] += 1
    return out, side


def bootstrap(
    blocks: npt.NDArray[np.int64],
    rule_set: str | None,
    floor_percent: int,
    replicates: int,
) -> tuple[list[list[float]], list[int]] | None:
    """95 % intervals of the fractions, and how often each score came."""
    count, classes = blocks.shape[0], blocks.shape[1] // 2
    if count < MIN_BLOCKS or replicates == 0:
        return None
    sums = blocks[draws(replicates, count)].sum(axis=1)
    px, patches = sums[:, :classes], sums[:, classes:]
    fractions = np.sort(px / px.sum(axis=1, keepdims=True), axis=0)
    # 2.5 %, less what few blocks lack
    tail = int(replicates * Fraction(25, 1000) * Fraction(count - 7, count))
    intervals = np.stack([fractions[tail], fractions[replicates - 1 - tail]], axis=1)
    counts = [0, 0, 0, 0]
    if rule_set is not None:
        for areas, seen in zip(px.tolist(), patches.tolist(), strict=True):
            score, _ = guideline(areas, rule_set, floor_percent, seen)
            assert score is not None
            counts[score] += 1
    return intervals.tolist(), counts
