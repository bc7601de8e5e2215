# SPDX-License-Identifier: Apache-2.0
"""Slides that tests paint: H-DAB colors whose classes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast import _core

WHITE = (243, 243, 243)
#: Brown of increasing strength: what `packages.BrownClassifier` calls class 0 to 3.
STAINS = ((175, 160, 185), (206, 178, 155), (180, 130, 80), (180, 90, 20))


def paint(
    size_px: tuple[int, int] = (1024, 1024),
    stains: tuple[int, ...] = (0, 1, 2, 3),
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """Vertical bands of the given classes on glass, with a little noise."""
    width_px, height_px = size_px
    rgb = np.empty((height_px, width_px, 3), np.int16)
    rgb[:] = WHITE
    inner = slice(64, height_px - 64)
    edges = np.linspace(64, width_px - 64, len(stains) + 1).astype(int)
    for stain, begin, end in zip(stains, edges[:-1], edges[1:], strict=True):
        rgb[inner, begin:end] = STAINS[stain]
    noise = np.random.default_rng(seed).integers(-6, 7, rgb.shape, np.int16)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def write_slide(
    path: Path, rgb: npt.NDArray[np.uint8] | None = None, spacing_um: float = 1.0
) -> Path:
    """A small Aperio slide."""
    pixels = paint() if rgb is None else rgb
    _core.write_pyramid(
        str(path), pixels, spacing_um=spacing_um, aperio=True, downsamples=[1, 4]
    )
    return path
