# SPDX-License-Identifier: Apache-2.0
"""Laplacian energy over gradient energy, patch by patch, at two sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reference.tumor_count import count_along

REACH_PX = 3


def at_scale(
    luma: npt.NDArray[np.int64],
    mask: npt.NDArray[np.uint8],
    patch_px: int,
    stride_px: int,
    scale: int,
    shape: tuple[int, int],
) -> npt.NDArray[np.uint32]:
    """Ratios of the patches, from luminance summed over scale x scale pixels."""
    height, width = mask.shape
    shift = 3 if scale == 1 else 5
    p = np.pad(luma, 1)
    along = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    s = np.pad(
        (along[:-2] + 2 * along[1:-1] + along[2:] + 2 ** (shift - 1)) >> shift, 2
    )

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
    out = np.zeros(shape, np.uint32)
    for r in range(shape[0]):
        for c in range(shape[1]):
            # Whole pixels of this scale that lie in the patch.
            begin = [-(-place * stride_px // scale) for place in (r, c)]
            end = [(place * stride_px + patch_px) // scale for place in (r, c)]
            here = (slice(begin[0], end[0]), slice(begin[1], end[1]))
            pixels = int(counted[here].sum())
            laplacian = int(curve[here][counted[here]].sum())
            gradient = int(slope[here][counted[here]].sum())
            least = max((patch_px // scale) ** 2 // 16, 1)
            if pixels >= least and gradient >= 64 * pixels:
                out[r, c] = max(100 * laplacian // gradient, 1)
    return out


def focus(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    patch_px: int,
    stride_px: int,
) -> npt.NDArray[np.uint32]:
    shape = (
        count_along(mask.shape[0], patch_px, stride_px),
        count_along(mask.shape[1], patch_px, stride_px),
    )
    luma = rgb.astype(np.int64) @ np.array([1, 2, 1])
    fine = at_scale(luma, mask, patch_px, stride_px, 1, shape)
    height, width = (side // 2 * 2 for side in mask.shape)
    blocks = luma[:height, :width].reshape(height // 2, 2, width // 2, 2)
    whole = (mask[:height, :width] != 0).reshape(height // 2, 2, width // 2, 2)
    coarse = at_scale(
        blocks.sum((1, 3)),
        whole.all((1, 3)).astype(np.uint8),
        patch_px,
        stride_px,
        2,
        shape,
    )
    return np.where(coarse == 0, fine, np.minimum(fine, coarse)).astype(np.uint32)
