# SPDX-License-Identifier: Apache-2.0
"""Slow twin of `her2fast.phantom.truth.patch_table`: pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def patch_table(
    classes: npt.NDArray[np.uint8], spacing_um: float, patch_um: float = 64.0
) -> npt.NDArray[np.int64]:
    """(rows, columns, 8): pixels of the values 1 to 8 whose center is in a patch."""
    height, width = classes.shape

    def place(index: int) -> int:
        return math.floor((index + 0.5) * spacing_um / patch_um)

    out = np.zeros((place(height - 1) + 1, place(width - 1) + 1, 8), np.int64)
    for y in range(height):
        for x in range(width):
            if classes[y, x] > 0:
                out[place(y), place(x), classes[y, x] - 1] += 1
    return out
