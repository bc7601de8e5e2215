# SPDX-License-Identifier: Apache-2.0
"""A whole slide of real tissue: cores side by side, JPEG, levels 1, 4 and 16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import her2fast
from her2fast import _core

SIDE_PX = 24576
SPACING_UM = 0.25


def paste_cores(cores: list[Path], side_px: int) -> npt.NDArray[np.uint8]:
    """(side, side, 3): the cores in a dense grid, cut where they reach the edge."""
    out = np.full((side_px, side_px, 3), 245, np.uint8)
    x = y = row_height = index = 0
    while y < side_px:
        tile = np.asarray(Image.open(cores[index % len(cores)]).convert("RGB"))
        # The inner part: a grid of round cores would be a third glass.
        margin = min(tile.shape[:2]) // 7
        tile = tile[margin : tile.shape[0] - margin, margin : tile.shape[1] - margin]
        height, width = min(tile.shape[0], side_px - y), min(tile.shape[1], side_px - x)
        out[y : y + height, x : x + width] = tile[:height, :width]
        row_height = max(row_height, tile.shape[0])
        x += tile.shape[1]
        index += 1
        if x >= side_px:
            x, y, row_height = 0, y + row_height, 0
    return out


def make_slide(path: Path, cores: list[Path], side_px: int = SIDE_PX) -> float:
    """Writes the slide; returns JPEG bits per pixel over all levels."""
    _core.write_pyramid(
        str(path),
        paste_cores(cores, side_px),
        spacing_um=SPACING_UM,
        tile_px=256,
        jpeg_quality=80,
        downsamples=[1, 4, 16],
        aperio=True,
    )
    pixels = sum((side_px // d) ** 2 for d in (1, 4, 16))
    return path.stat().st_size * 8 / pixels


def sample_patches(path: Path, side: int) -> npt.NDArray[np.uint8]:
    """(side^2, 64, 64, 3): neighboring patches at 1 um/px from inside the slide."""
    with her2fast.open_slide(str(path)) as slide:
        width_px, height_px = slide.dimensions
        region = slide.read(width_px // 3, height_px // 3, 64 * side, spacing_um=1.0)
    patches = np.asarray(region).reshape(side, 64, side, 64, 3).swapaxes(1, 2)
    return np.ascontiguousarray(patches.reshape(side * side, 64, 64, 3))
