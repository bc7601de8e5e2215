# SPDX-License-Identifier: Apache-2.0
"""Laplacian energy over gradient energy, patch by patch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reference.tumor_count import count_along

REACH_PX = 3


def focus(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    patch_px: int,
    stride_px: int,
) -> npt.NDArray[np.uint32]:
    height, width = mask.shape
    luma = rgb.astype(np.int64) @ np.array([1, 2, 1])
    p = np.pad(luma, 1)
    along = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    s = np.pad((along[:-2] + 2 * along[1:-1] + along[2:] + 4) >> 3, 2)

    def shifted(dy: int, dx: int) -> npt.NDArray[np.int64]:
        return s[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]

    left, right, up, down = (
        shifted(0, -2),
        shifted(0, 2),
        shifted(-2, 0),
        shifted(2, 0),
    )
    curve = np.clip(left + right + up + down - 4 * shifted(0, 0), -2047, 2047) ** 2
    slope = (right - left) ** 2 + (down - up) ** 2
    counted = np.zeros(mask.shape, bool)
    inner = (slice(REACH_PX, height - REACH_PX), slice(REACH_PX, width - REACH_PX))
    if min(height, width) > 2 * REACH_PX:
        counted[inner] = mask[inner] != 0
    rows = count_along(height, patch_px, stride_px)
    columns = count_along(width, patch_px, stride_px)
    out = np.zeros((rows, columns), np.uint32)
    for r in range(rows):
        for c in range(columns):
            y, x = r * stride_px, c * stride_px
            here = (slice(y, y + patch_px), slice(x, x + patch_px))
            pixels = int(counted[here].sum())
            laplacian = int(curve[here][counted[here]].sum())
            gradient = int(slope[here][counted[here]].sum())
            if pixels >= max(patch_px**2 // 16, 1) and gradient >= 64 * pixels:
                out[r, c] = max(100 * laplacian // gradient, 1)
    return out
