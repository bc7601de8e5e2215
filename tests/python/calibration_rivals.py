# SPDX-License-Identifier: Apache-2.0
"""What people reach for instead of an exact search; shared by test and bench."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from her2fast.kernels import FractionLimits, calibration_loss


def _vector(x, mode):
    return np.exp(np.clip(x, -6, 6)) if mode == "scale" else x


def nelder_mead(table, mode):
    """On the hard loss itself."""
    found = minimize(
        lambda x: calibration_loss(*table, _vector(x, mode), mode=mode, workers=1)[0],
        np.zeros(4),
        method="Nelder-Mead",
        options={"initial_simplex": 0.3 * np.vstack([np.zeros(4), np.eye(4)])},
    )
    return _vector(found.x, mode)


def _soft(x, table, mode, temperature):
    """Eq. 20 with softmax(logits / temperature) for the argmax; value and gradient."""
    logits, px, offsets, labels = table
    limits = FractionLimits()
    vector = _vector(x, mode)
    wide = logits.astype(np.float64)
    z = (wide * vector if mode == "scale" else wide + vector) / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    v = np.add.reduceat(p * px[:, None], offsets[:-1], axis=0)
    total = np.add.reduceat(px.astype(np.float64), offsets[:-1])
    fractions = v / total[:, None]
    value, slope = 0.0, np.zeros_like(fractions)
    for s, y in enumerate(labels):
        missing = limits.lower_permille[y] / 1000 - fractions[s, y]
        if missing > 0:
            value += missing
            slope[s, y] -= 1
        for c in range(y + 1, 4):
            excess = fractions[s, c] - limits.upper_permille[y][c] / 1000
            if excess > 0:
                value += excess
                slope[s, c] += 1
    slide = np.repeat(np.arange(len(labels)), np.diff(offsets))
    g = slope[slide] * (px / total[slide])[:, None]
    dz = p * (g - (g * p).sum(axis=1, keepdims=True)) / temperature
    gradient = (dz * wide * vector if mode == "scale" else dz).sum(axis=0)
    return value, gradient


def bfgs(table, mode):
    """Cooling: each temperature starts where the last one ended."""
    x = np.zeros(4)
    for temperature in (1.0, 0.3, 0.1):
        x = minimize(
            _soft, x, args=(table, mode, temperature), jac=True, method="BFGS"
        ).x
    return _vector(x, mode)
