# SPDX-License-Identifier: Apache-2.0
"""Membrane losses and edge maps in plain NumPy, pixel by pixel, with gradients."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def sigmoid(value: float) -> float:
    """The logistic function, for values of moderate size."""
    return 1.0 / (1.0 + math.exp(-value))


def cross_entropy(
    logits: Floats, mask: Bools, valid: Bools, beta: float
) -> tuple[float, Floats]:
    """Eq. 1 by K1, and its gradient: beta (p - 1) on membrane, (1 - beta) p off it."""
    count = max(int(valid.sum()), 1)
    loss, gradient = 0.0, np.zeros(logits.shape)
    for place in np.argwhere(valid):
        at = tuple(place)
        p = sigmoid(float(logits[at]))
        if mask[at]:
            loss -= beta * math.log(p)
            gradient[at] = beta * (p - 1.0) / count
        else:
            loss -= (1.0 - beta) * math.log(1.0 - p)
            gradient[at] = (1.0 - beta) * p / count
    return loss / count, gradient


def dice(logits: Floats, mask: Bools, valid: Bools, epsilon: float = 1.0):
    """Eq. 2 by K2, and its gradient by the quotient rule."""
    both = total = 0.0
    shares = np.vectorize(sigmoid)(logits) if logits.size else logits
    for place in np.argwhere(valid):
        at = tuple(place)
        both += shares[at] * mask[at]
        total += shares[at] + mask[at]
    above, below = 2.0 * both + epsilon, total + epsilon
    gradient = np.zeros(logits.shape)
    for place in np.argwhere(valid):
        at = tuple(place)
        slope = (2.0 * mask[at] * below - above) / below**2
        gradient[at] = -slope * shares[at] * (1.0 - shares[at])
    return 1.0 - above / below, gradient


def edge_map(mask: Bools, edge_px: int = 3) -> Bools:
    """Outermost membrane pixels and what lies within (edge_px - 1) / 2 of them."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    reach = edge_px // 2
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            beside = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if any(
                0 <= v < height and 0 <= u < width and not mask[v, u] for v, u in beside
            ):
                top, left = max(y - reach, 0), max(x - reach, 0)
                out[top : y + reach + 1, left : x + reach + 1] = True
    return out
