# SPDX-License-Identifier: Apache-2.0
"""Pen and folds on training pictures: what lies there is not to be scored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.artifacts import INKS
from her2fast.phantom.fields import Floats, smooth_noise

#: How many of the scenes have one.
PEN_SHARE, FOLD_SHARE = 0.15, 0.10
#: Covered more than this, a pixel's class can no longer be told.
HIDDEN = 0.5


def band(
    rng: np.random.Generator, shape: tuple[int, int], width_px: float, scale: int = 1
) -> Floats:
    """1 within a bent band across the picture, 0 outside, soft by 3 px of 1 um.

    `scale` is the pixels to one of 1 um along a side, here and below.
    """
    angle = rng.uniform(0.0, np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    y0, x0 = (rng.uniform(0.2, 0.8, 2) * shape).tolist()
    away = (x - x0) * np.sin(angle) - (y - y0) * np.cos(angle)
    away = away + rng.uniform(0.05, 0.3) * width_px * smooth_noise(
        rng, shape, 60.0 * scale
    )
    soft: Floats = np.clip(
        (width_px / 2 - np.abs(away)) / (3.0 * scale) + 0.5, 0.0, 1.0
    ).astype(np.float32)
    return soft


def _ink(
    rng: np.random.Generator, shape: tuple[int, int], scale: int
) -> tuple[Floats, Floats]:
    """(H, W, 3) optical density of a stroke, and its (H, W) cover."""
    names = sorted(INKS)
    color = np.array(INKS[names[int(rng.integers(len(names)))]], np.float32)
    color = np.maximum(color * rng.uniform(0.7, 1.3, 3), 0.0).astype(np.float32)
    cover = band(rng, shape, scale * float(rng.uniform(40.0, 250.0)), scale)
    streaks = np.clip(1.0 + 0.25 * smooth_noise(rng, shape, 12.0 * scale), 0.3, 1.7)
    strength = float(rng.uniform(0.35, 1.3))
    density: Floats = (cover * streaks * strength)[..., None] * color
    return density, cover


def spoil(
    rng: np.random.Generator,
    rgb: npt.NDArray[np.uint8],
    class_map: npt.NDArray[np.int8],
    scale: int = 1,
) -> None:
    """Draw pen or a fold on a scene's (E, H, W, 3) exposures; hide what it covers."""
    shape = class_map.shape[:2]
    size = (int(shape[0]), int(shape[1]))
    if rng.random() < PEN_SHARE:
        density, cover = _ink(rng, size, scale)
        light = np.power(np.float32(10.0), -density)
        for exposure in rgb:
            exposure[...] = np.rint(exposure * light).astype(np.uint8)
        class_map[cover > HIDDEN] = -1
    if rng.random() < FOLD_SHARE:
        cover = band(rng, size, scale * float(rng.uniform(15.0, 70.0)), scale)
        shift = tuple(scale * int(v) for v in rng.integers(20, 90, 2))
        for exposure in rgb:
            upper = np.roll(exposure, shift, (0, 1)).astype(np.float32)
            white = np.quantile(exposure, 0.99, axis=(0, 1)).astype(np.float32)
            through = 1.0 + cover[..., None] * (upper / np.maximum(white, 1.0) - 1.0)
            exposure[...] = np.clip(np.rint(exposure * through), 0, 255)
        class_map[cover > HIDDEN] = -1
