# SPDX-License-Identifier: Apache-2.0
"""Optical density: -log10(max(v, 1) / white), also in whole 1/1024."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def density_units(
    rgb: npt.NDArray[np.uint8], white: tuple[int, int, int]
) -> npt.NDArray[np.int64]:
    """Rounded density against 255, less that of the white point, never negative."""

    def against_255(v: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.floor(1024 * np.log10(255 / np.maximum(v, 1)) + 0.5).astype(np.int64)

    glass = against_255(np.asarray(white, np.int64))
    return np.maximum(against_255(rgb.astype(np.int64)) - glass, 0)


def box_sum(values: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    """Sum over the square box around each pixel; outside is 0."""
    height, width = values.shape
    padded = np.pad(values, radius)
    total = np.zeros_like(values)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            total += padded[dy : dy + height, dx : dx + width]
    return total
