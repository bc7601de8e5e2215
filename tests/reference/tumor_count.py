# SPDX-License-Identifier: Apache-2.0
"""Tumor pixels in every patch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def count_along(length_px: int, patch_px: int, stride_px: int) -> int:
    return len(range(0, length_px - patch_px + 1, stride_px))


def tumor_count(
    mask: npt.NDArray[np.uint8], patch_px: int, stride_px: int
) -> npt.NDArray[np.uint32]:
    rows = count_along(mask.shape[0], patch_px, stride_px)
    columns = count_along(mask.shape[1], patch_px, stride_px)
    out = np.zeros((rows, columns), np.uint32)
    for r in range(rows):
        for c in range(columns):
            y, x = r * stride_px, c * stride_px
            out[r, c] = np.count_nonzero(mask[y : y + patch_px, x : x + patch_px])
    return out
