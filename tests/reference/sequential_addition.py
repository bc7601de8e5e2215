# SPDX-License-Identifier: Apache-2.0
"""Random sequential addition, one point after another."""

from __future__ import annotations

import math


def sequential_addition(points, radii, closeness):
    """Indices of the kept points."""
    kept = []
    for index, (y, x) in enumerate(points):
        if all(
            math.hypot(y - points[k][0], x - points[k][1])
            >= closeness * (radii[index] + radii[k])
            for k in kept
        ):
            kept.append(index)
    return kept
