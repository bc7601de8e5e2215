# SPDX-License-Identifier: Apache-2.0
"""Losses of training in plain NumPy, item by item, with their gradients."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(row: Floats) -> Floats:
    shifted = np.exp(row - row.max())
    return np.asarray(shifted / shifted.sum())


def partial_label(row: Floats, admissible: list[int]) -> tuple[float, Floats]:
    """Loss and gradient to the logits (Pham et al., Eq. 1 and 2, target constant)."""
    shares = softmax(row)
    outside = [k for k in range(len(row)) if k not in admissible]
    spread = sum(shares[k] for k in outside) / len(admissible)
    target = np.zeros(len(row))
    for j in admissible:
        target[j] = shares[j] + spread
    loss = -sum(target[j] * math.log(shares[j]) for j in admissible)
    # d/dz of -sum t log softmax(z) is softmax(z) - t where t adds to 1
    gradient = np.array(
        [-spread if j in admissible else shares[j] for j in range(len(row))]
    )
    return loss, gradient


def focal(logit: float, tumor: bool, alpha: float, gamma: float) -> float:
    """Lin et al. (2017), Eq. 5."""
    p = 1.0 / (1.0 + math.exp(-logit))
    p_t, a_t = (p, alpha) if tumor else (1.0 - p, 1.0 - alpha)
    return -a_t * (1.0 - p_t) ** gamma * math.log(p_t)
