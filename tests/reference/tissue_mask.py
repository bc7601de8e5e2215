# SPDX-License-Identifier: Apache-2.0
"""The local tissue rule, on an image padded with white by its whole reach."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reference.optical_density import box_sum, density_units

REACH_PX = 16


def ink(d: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Pen colors by density (1/1024)."""
    r, g, b = d[..., 0], d[..., 1], d[..., 2]
    cool = (8 * r - 7 * g > 1000) & (r > 410)
    blue = (4 * r - 5 * g > 123) & (2 * r - 5 * b > 0)
    teal = 5 * r - 6 * g > 410
    red = (g > 5 * r) & (4 * b > 3 * g) & (g > 307)
    black = (d.min(2) > 819) & (d.max(2) - d.min(2) < 360)
    return cool | blue | teal | red | black


def tissue_mask(
    rgb: npt.NDArray[np.uint8], white: tuple[int, int, int]
) -> npt.NDArray[np.uint8]:
    pad = REACH_PX + 2
    d = np.pad(density_units(rgb, white), ((pad, pad), (pad, pad), (0, 0)))
    density = np.minimum(d.sum(2), 400)
    texture = np.zeros_like(density)
    texture[2:-2, 2:-2] = np.minimum(
        np.abs(density[2:-2, 4:] - density[2:-2, :-4]), 64
    ) + np.minimum(np.abs(density[4:, 2:-2] - density[:-4, 2:-2]), 64)
    candidate = (box_sum(density, 4) >= 184 * 81) | (box_sum(texture, 4) >= 45 * 81)
    solid = box_sum(candidate.astype(np.int64), 5) >= 97
    body = box_sum(solid.astype(np.int64), 5) > 0
    inked = box_sum(ink(d).astype(np.int64), 5) >= 54
    near_ink = box_sum(inked.astype(np.int64), 8) > 0
    return (body & ~near_ink)[pad:-pad, pad:-pad].astype(np.uint8)
