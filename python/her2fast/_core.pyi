# SPDX-License-Identifier: Apache-2.0
"""The native core: translation only. Each part's documentation stands in its C++ header."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

# --- errors -------------------------------------------------------------------------------
REASON_CODES: list[tuple[str, str]]

# --- kernels ------------------------------------------------------------------------------
TISSUE_REACH_PX: int
FOCUS_LIMIT: int
H_DAB: list[list[float]]

def tumor_count(
    mask: npt.NDArray[np.uint8], patch_px: int, stride_px: int, device: str = "cpu"
) -> npt.NDArray[np.uint32]: ...
def tissue_mask(
    rgb: npt.NDArray[np.uint8], white: tuple[int, int, int], device: str = "cpu"
) -> npt.NDArray[np.uint8]: ...
def focus(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    patch_px: int,
    stride_px: int,
    device: str = "cpu",
) -> npt.NDArray[np.uint32]: ...
def stain_unmix(
    rgb: npt.NDArray[np.uint8],
    white: tuple[int, int, int],
    stains: list[list[float]],
    device: str = "cpu",
) -> npt.NDArray[np.float32]: ...

class StainCensus:
    pixels: int
    dark: int
    tissue: int
    stained: int
    eosin: int
    h_dab: int
    def __init__(
        self,
        *,
        pixels: int = 0,
        dark: int = 0,
        tissue: int = 0,
        stained: int = 0,
        eosin: int = 0,
        h_dab: int = 0,
    ) -> None: ...
    def __add__(self, other: StainCensus) -> StainCensus: ...

def stain_census(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    white: tuple[int, int, int],
    device: str = "cpu",
) -> StainCensus: ...
def is_wrong_stain(census: StainCensus) -> bool: ...

# --- guideline ----------------------------------------------------------------------------
def decide_guideline(
    areas: Sequence[int],
    rule_set: str = "asco-cap-2018",
    floor_percent: int = 1,
    patches: Sequence[int] | None = None,
    ish: str | None = None,
) -> dict[str, Any]: ...
def rule_sets() -> list[dict[str, str]]: ...

# --- io -----------------------------------------------------------------------------------

# --- session ------------------------------------------------------------------------------
