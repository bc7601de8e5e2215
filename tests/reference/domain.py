# SPDX-License-Identifier: Apache-2.0
"""How much tumor lies far from the training data, patch by patch in Python numbers."""

from __future__ import annotations

from collections.abc import Sequence


def judge(
    tumor_px: Sequence[int],
    distances: Sequence[Sequence[float]],
    cuts: Sequence[float],
    max_share: float,
) -> tuple[int, list[float], bool]:
    """Tumor pixels outside, mean of each distance over tumor, and the flag.

    Parameters
    ----------
    tumor_px
        Of each kept patch.
    distances
        Per patch one number for each cut.
    cuts, max_share
        As `method.json` states them.
    """
    outside = 0
    sums = [0.0] * len(cuts)
    for area, values in zip(tumor_px, distances, strict=True):
        if any(value > cut for value, cut in zip(values, cuts, strict=True)):
            outside += area
        for k, value in enumerate(values):
            sums[k] += area * value
    whole = sum(tumor_px)
    return outside, [total / whole for total in sums], outside > max_share * whole
