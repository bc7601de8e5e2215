# SPDX-License-Identifier: Apache-2.0
"""The pixel definition in plain integers: slow, readable, the truth for the reader.

One grid pixel is the area-weighted mean of the source pixels under it. Along an axis,
grid pixel i covers the source interval [i * step, (i + 1) * step), `step` an exact
fraction. The share of the interval that lies left of each source pixel's right edge is
rounded half up to 16 bits; a pixel's weight is the difference of two neighboring
shares, so weights sum to 65536 exactly. The value is
floor((sum of wy * wx * v + 2**31) / 2**32). Beyond the source is white.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
import numpy.typing as npt

WHITE = 255
ONE = 1 << 16

Rgb = npt.NDArray[np.uint8]


def source_step(
    target_pm: int, level0_pm: int, down: Fraction, denominator: int = 1
) -> Fraction:
    """Source pixels per grid pixel: spacing over the decoded pixels' spacing."""
    return Fraction(target_pm) / (level0_pm * down * denominator)


def axis_weights(index: int, step: Fraction) -> tuple[int, list[int]]:
    """First source pixel of grid pixel `index`, and the weights from there on."""
    left, right = index * step, (index + 1) * step
    first, end = floor(left), ceil(right)
    shares = [0]
    for pixel in range(first, end):
        share = (min(Fraction(pixel + 1), right) - left) / step
        shares.append(floor(share * ONE + Fraction(1, 2)))
    return first, [b - a for a, b in pairwise(shares)]


def resample(
    source: Rgb,
    x_px: int,
    y_px: int,
    width_px: int,
    height_px: int,
    step_x: Fraction,
    step_y: Fraction,
) -> Rgb:
    """Grid pixels from (x_px, y_px) on, out of `source` (H, W, 3)."""
    height, width, channels = source.shape
    out = np.empty((height_px, width_px, channels), np.uint8)
    columns = [axis_weights(x_px + i, step_x) for i in range(width_px)]
    for j in range(height_px):
        first_y, weights_y = axis_weights(y_px + j, step_y)
        for i, (first_x, weights_x) in enumerate(columns):
            window = np.full(
                (len(weights_y), len(weights_x), channels), WHITE, np.int64
            )
            y0, y1 = max(first_y, 0), min(first_y + len(weights_y), height)
            x0, x1 = max(first_x, 0), min(first_x + len(weights_x), width)
            if y0 < y1 and x0 < x1:
                window[y0 - first_y : y1 - first_y, x0 - first_x : x1 - first_x] = (
                    source[y0:y1, x0:x1]
                )
            wy = np.array(weights_y, np.int64)[:, None, None]
            wx = np.array(weights_x, np.int64)[None, :, None]
            total = (wy * wx * window).sum(axis=(0, 1))  # at most 255 * 2**32
            out[j, i] = (total + (1 << 31)) >> 32
    return out


def plan(
    target_pm: int,
    level0_pm: tuple[int, int],
    downs: list[tuple[Fraction, Fraction]],
    denominators: list[list[int]],
) -> tuple[int, int] | None:
    """Level and decode denominator for a spacing; None where level 0 is too coarse."""

    def passes(level: int, denominator: int) -> bool:
        return all(
            100 * spacing * down * denominator <= 101 * target_pm
            for spacing, down in zip(level0_pm, downs[level], strict=True)
        )

    levels = [k for k in range(len(downs)) if passes(k, 1)]
    if not levels:
        return None
    level = max(levels, key=lambda k: downs[k][0])
    return level, max(d for d in denominators[level] if passes(level, d))
