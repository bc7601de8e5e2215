# SPDX-License-Identifier: Apache-2.0
"""Pixels by stain, and what they say of a slide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reference.optical_density import density_units


def stain_census(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    white: tuple[int, int, int],
) -> dict[str, int]:
    d = density_units(rgb, white)
    total = d.sum(2)
    normal = d @ np.array([163, -182, 77])
    tissue = mask != 0
    stained = tissue & (total >= 410)
    magenta = normal < -23 * total
    green = normal > 41 * total
    counts = {
        "pixels": np.ones_like(tissue),
        "dark": (rgb < 40).all(2),
        "tissue": tissue,
        "stained": stained,
        "eosin": stained & magenta,
        "h_dab": stained & ~magenta & ~green,
    }
    return {name: int(pixels.sum()) for name, pixels in counts.items()}


def is_wrong_stain(census: dict[str, int]) -> bool:
    stained, tissue = census["stained"], census["tissue"]
    if 2 * census["dark"] > census["pixels"]:
        return True
    if stained < 1000:
        return False
    other = stained - census["h_dab"]
    h_and_e = 4 * census["eosin"] > stained and 10 * census["eosin"] > tissue
    return h_and_e or (2 * census["h_dab"] < stained and 10 * other > tissue)
