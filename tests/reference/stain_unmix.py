# SPDX-License-Identifier: Apache-2.0
"""Beer-Lambert unmixing in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def stain_unmix(
    rgb: npt.NDArray[np.uint8],
    white: tuple[int, int, int],
    stains: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    density = -np.log10(np.maximum(rgb, 1) / np.asarray(white, float))
    return density @ np.linalg.inv(np.asarray(stains, float))
