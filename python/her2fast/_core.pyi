# SPDX-License-Identifier: Apache-2.0
"""The native core: translation only. Each part's documentation stands in its C++ header."""

from collections.abc import Callable, Sequence
from os import PathLike
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
class Slide:
    @staticmethod
    def open(path: str | bytes | PathLike[str]) -> Slide: ...
    @property
    def format(self) -> str: ...
    @property
    def reader(self) -> str: ...
    @property
    def levels(self) -> list[tuple[int, int, int, int, float]]: ...
    @property
    def spacing_um(self) -> tuple[float, float] | None: ...
    @property
    def spacing_source(self) -> str: ...
    @property
    def properties(self) -> dict[str, str]: ...
    def fingerprint(self) -> str: ...
    def can_scale(self, level: int, denominator: int) -> bool: ...
    def read_tile(
        self, level: int, column: int, row: int, denominator: int = 1
    ) -> tuple[npt.NDArray[np.uint8], str]: ...

def set_openslide_library(path: str | bytes | PathLike[str]) -> None: ...
def resolve_frame(
    slide: Slide, mpp: float | None = None
) -> tuple[tuple[float, float], str, str | None]: ...
def write_pyramid(
    path: str | bytes | PathLike[str],
    rgb: npt.NDArray[np.uint8],
    *,
    spacing_um: float,
    tile_px: int = 256,
    jpeg_quality: int = 90,
    downsamples: list[int] = ...,
    aperio: bool = False,
    big_tiff: bool = False,
    workers: int = 2,
) -> None: ...
def write_pyramid_rows(
    path: str | bytes | PathLike[str],
    width_px: int,
    height_px: int,
    rows: Callable[[int, int], npt.NDArray[np.uint8]],
    *,
    spacing_um: float,
    tile_px: int = 256,
    jpeg_quality: int = 90,
    downsamples: list[int] = ...,
    aperio: bool = False,
    big_tiff: bool = False,
    workers: int = 2,
) -> None: ...

# --- session ------------------------------------------------------------------------------
