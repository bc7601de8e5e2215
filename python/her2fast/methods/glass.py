# SPDX-License-Identifier: Apache-2.0
"""The color of empty glass: what is not denser than it is no stain.

Counted from 255, as densities of cells are, glass itself has 0.02 to 0.1, which is what
a faint membrane has (docs/design/cells.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

#: Glass is smooth: gray levels between neighbors of 3 x 3, at most.
SMOOTH_LEVELS = 6
#: And bright, and nearly gray: darker or more colored is smooth tissue, or no slide in
#: transmitted light. Real pictures had 203 or more, and differed by 16 at most.
DARKEST, MOST_COLORED = 180, 30
#: Glass is the most frequent brightness of those within so many gray levels of the
#: highest that has the least share of the picture. With more, smooth pale tissue of a
#: picture with little glass passes for it; a glass taken for too bright only weakens
#: what it is for.
DEEP_LEVELS = 8
LEAST_SHARE = 0.002
#: Pictures are looked at no finer than this: finer ones show the sensor's noise.
PICTURE_UM = 2.0


def glass_color(rgb: Rgb) -> Color | None:
    """The color of empty glass in an overview; None where there is none to be seen.

    Of pixels that are bright, nearly gray and like their neighbors, the median of those
    about the most frequent brightness near the highest. Exact white is no glass but
    where nothing was scanned. A picture wholly of smooth, pale, nearly gray tissue
    shows no glass, and its tissue is taken for it.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        At 2 um/px or coarser, so that noise is averaged away.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"need (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
    if min(rgb.shape[:2]) < 3:
        return None
    inner = rgb[1:-1, 1:-1].astype(np.int16)
    low, high = inner.min(2), inner.max(2)
    green = inner[..., 1]
    around = np.lib.stride_tricks.sliding_window_view(rgb[..., 1], (3, 3))
    smooth = (around.max((2, 3)) - green <= SMOOTH_LEVELS) & (
        green - around.min((2, 3)) <= SMOOTH_LEVELS
    )
    glass = smooth & (low >= DARKEST) & (high - low <= MOST_COLORED) & (low < 255)
    least = max(1, round(LEAST_SHARE * rgb.shape[0] * rgb.shape[1]))
    found = inner[glass]
    if len(found) < least:
        return None
    light = found.sum(1) // 3
    counts = np.bincount(light, minlength=256)
    # Counted from the brightest on: specks that refract light are brighter than glass.
    brightest = 255 - int(np.searchsorted(counts[::-1].cumsum(), least))
    near = np.convolve(counts, np.ones(5, np.int64), "same")
    bottom = max(brightest - DEEP_LEVELS, 0)
    most = bottom + int(near[bottom : brightest + 1].argmax())
    chosen = found[np.abs(light - most) <= 2]
    red, green_, blue = (int(v) for v in np.median(chosen, axis=0))
    return red, green_, blue


def glass_of_picture(rgb: Rgb, spacing_um: float) -> Color | None:
    """As `glass_color`, of a picture at its own spacing."""
    block = max(1, round(PICTURE_UM / spacing_um))
    height, width = (side // block * block for side in rgb.shape[:2])
    if min(height, width) == 0:
        return None
    blocks = rgb[:height, :width].reshape(
        height // block, block, width // block, block, 3
    )
    return glass_color(np.rint(blocks.mean((1, 3))).astype(np.uint8))
