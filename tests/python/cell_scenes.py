# SPDX-License-Identifier: Apache-2.0
"""Pictures of cells with membranes, drawn from a seed; nothing like tissue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

GLASS = (255, 255, 255)
CYTOPLASM = (222, 220, 236)
NUCLEUS = (128, 122, 178)
BROWN = (120, 84, 58)


def scene(seed: int, height: int, width: int, cells: int) -> tuple[Bytes, Bytes]:
    """(H, W, 3) picture at 0.25 um/px and (H, W) mask: nuclei, broken rings, noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    rgb = np.empty((height, width, 3), np.float64)
    rgb[:] = CYTOPLASM if rng.random() < 0.8 else GLASS
    mask = np.zeros((height, width), np.uint8)
    for _ in range(cells):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        radius, stretch = rng.uniform(5, 24), rng.uniform(0.7, 1.4)
        r = np.hypot((y - cy) * stretch, x - cx)
        rgb[r < radius] = np.array(NUCLEUS) + rng.uniform(-40, 40)
        if rng.random() < 0.7:
            ring = np.abs(r - radius * rng.uniform(1.1, 1.8)) < rng.uniform(0.6, 4.0)
            turn = np.arctan2(y - cy, x - cx) + rng.uniform(0, 6)
            ring &= np.sin(turn) < rng.uniform(-1.0, 1.3)
            mask[ring] = rng.integers(1, 256)
            rgb[ring] = np.array(BROWN) + rng.uniform(-30, 60)
    mask[rng.random(mask.shape) < 0.002] = 1
    rgb += rng.normal(0, rng.uniform(0, 9), rgb.shape)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), mask


def ring_mask(side: int, *, ring: float, gap: float) -> Bytes:
    """A ring of 3 px round the middle, of which `gap` is open, as a share."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = np.mod(np.arctan2(y, x), 2 * np.pi)
    on = (np.abs(np.hypot(y, x) - ring) < 1.5) & (turn >= 2 * np.pi * gap)
    return on.astype(np.uint8)
