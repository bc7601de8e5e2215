# SPDX-License-Identifier: Apache-2.0
"""Slow twin of `her2fast.phantom.fields.Cells`: every center of a wide window."""

from __future__ import annotations

import math


def nearest_two(u, v, centers):
    """Distance to the nearest center, its offset, and the distance to the border."""
    ranked = sorted(centers, key=lambda center: math.dist((u, v), center))
    first, second = ranked[0], ranked[1]
    middle = ((first[0] + second[0]) / 2, (first[1] + second[1]) / 2)
    apart = math.dist(first, second)
    across = ((second[0] - first[0]) / apart, (second[1] - first[1]) / apart)
    edge = (middle[0] - u) * across[0] + (middle[1] - v) * across[1]
    return math.dist((u, v), first), (u - first[0], v - first[1]), edge
