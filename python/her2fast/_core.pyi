# SPDX-License-Identifier: Apache-2.0
"""The native core, translation only; its documentation stands in the C++ headers."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

# --- errors -------------------------------------------------------------------------
REASON_CODES: list[tuple[str, str]]

# --- exchange of arrays ------------------------------------------------------------
cuda: Any

class DlpackView:
    @property
    def pointer(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...] | None: ...
    @property
    def typestr(self) -> str: ...
    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def read_only(self) -> bool: ...

def read_dlpack(capsule: Any) -> DlpackView: ...
def make_dlpack(
    pointer: int,
    shape: Sequence[int],
    strides: Sequence[int],
    typestr: str,
    device: tuple[int, int],
    owner: object,
    versioned: bool,
) -> Any: ...

# --- kernels ------------------------------------------------------------------------
TISSUE_REACH_PX: int
FOCUS_LIMIT: int
H_DAB: list[list[float]]

def grid_shape(
    height: int, width: int, patch_px: int, stride_px: int
) -> tuple[int, int]: ...
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
def normalize_batch(
    rgb: npt.NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    half: bool,
    device: str = ...,
) -> npt.NDArray[Any]: ...

class AxisWeights:
    def __init__(self, num: int, den: int, first: int, count: int) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def source_first(self) -> int: ...
    @property
    def source_px(self) -> int: ...

def resample(
    rgb: npt.NDArray[np.uint8], x: AxisWeights, y: AxisWeights, device: str = "cpu"
) -> npt.NDArray[np.uint8]: ...
def jpeg_decode(
    streams: Sequence[bytes], tables: bytes, height: int, width: int, rgb: bool
) -> npt.NDArray[np.uint8]: ...
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

class FractionLimits:
    def __init__(
        self,
        lower_permille: Sequence[int],
        upper_permille: Sequence[Sequence[int]],
    ) -> None: ...
    @staticmethod
    def pham() -> FractionLimits: ...
    @property
    def lower_permille(self) -> list[int]: ...
    @property
    def upper_permille(self) -> list[list[int]]: ...

def constraint_select(
    logits: npt.NDArray[np.float32],
    tumor_px: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    limits: FractionLimits,
    neighbors: str,
    workers: int,
    device: str = "cpu",
) -> dict[str, Any]: ...
def calibration_loss(
    logits: npt.NDArray[np.float32],
    tumor_px: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    values: Sequence[float],
    limits: FractionLimits,
    mode: str,
    margin_permille: int,
    workers: int,
) -> tuple[float, int]: ...
def logit_calibrate(
    logits: npt.NDArray[np.float32],
    tumor_px: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    given: Sequence[Sequence[float]],
    limits: FractionLimits,
    mode: str,
    margin_permille: int,
    starts: int,
    seed: int,
    search_patches: int,
    workers: int,
    device: str = "cpu",
) -> dict[str, Any]: ...

class MembraneTile:
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def has_density(self) -> bool: ...

def membrane_label(
    mask: npt.NDArray[np.uint8],
    density: npt.NDArray[np.uint8] | None = None,
    nuclei: npt.NDArray[np.int32] | None = None,
    *,
    device: str = "cpu",
) -> MembraneTile: ...

class MembraneMerge:
    def __init__(
        self, width: int, height: int, tile_width: int, tile_height: int
    ) -> None: ...
    def add(self, column: int, row: int, tile: MembraneTile) -> None: ...
    def finish(self) -> None: ...
    def take(self) -> tuple[dict[str, Any], dict[str, Any]]: ...
    @property
    def open_components(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

PRUNE_HALF_WIDTH_PX: int
PRUNE_MAX_LENGTH_PX: int

def prune_reach_px(length_px: int) -> int: ...
def membrane_prune(
    mask: npt.NDArray[np.uint8], length_px: int, *, device: str = "cpu"
) -> npt.NDArray[np.uint8]: ...

NUCLEI_REACH_PX: int
CELLS_REACH_PX: int
CELL_RAYS: int
CELL_CUTS: dict[str, int]

def cell_stains(
    rgb: npt.NDArray[np.uint8],
    white: tuple[int, int, int],
    step: int,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]: ...
def nuclei(
    hematoxylin: npt.NDArray[np.uint16],
    mask: npt.NDArray[np.uint8],
    step: int,
    halo_px: int,
    device: str = "cpu",
) -> dict[str, npt.NDArray[Any]]: ...
def cells(
    hematoxylin: npt.NDArray[np.uint16],
    dab: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    step: int,
    halo_px: int,
    glass_dab: int = 0,
    device: str = "cpu",
) -> dict[str, npt.NDArray[Any]]: ...
def classify_cells(
    stained: npt.NDArray[np.uint32],
    dab_sum: npt.NDArray[np.uint32],
    grid_um: float,
    step: int,
) -> dict[str, npt.NDArray[Any]]: ...

# --- guideline ----------------------------------------------------------------------
COLOR_PLANES: int
COLOR_BINS: int
PATTERN_BINS: int
SUPERPIXEL_FEATURES: int
FEATURE_ONE: int
SUPERPIXEL_RULE: dict[str, float]

def superpixels(
    rgb: npt.NDArray[np.uint8],
    size_px: int,
    compactness: float,
    iterations: int,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.int32], int]: ...
def local_patterns(
    gray: npt.NDArray[np.uint8], device: str = "cpu"
) -> npt.NDArray[np.uint8]: ...
def superpixel_features(
    rgb: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int32],
    count: int,
    white: tuple[int, int, int],
    device: str = "cpu",
) -> npt.NDArray[np.uint32]: ...
def superpixel_roots(
    counts: npt.NDArray[np.uint32], device: str = "cpu"
) -> npt.NDArray[np.int16]: ...
def svm_decision(
    features: npt.NDArray[np.int16],
    vectors: npt.NDArray[np.int16],
    coefficients: npt.NDArray[np.float64],
    intercept: float,
    gamma: float,
    device: str = "cpu",
) -> npt.NDArray[np.float64]: ...
def decide_guideline(
    areas: Sequence[int],
    rule_set: str = "asco-cap-2018",
    floor_percent: int = 1,
    patches: Sequence[int] | None = None,
    ish: str | None = None,
    unusual: int | None = None,
) -> dict[str, Any]: ...
def rule_sets() -> list[dict[str, str]]: ...

# --- review -------------------------------------------------------------------------
def flip_certificate(
    areas: Sequence[int],
    rule_set: str = "asco-cap-2018",
    floor_percent: int = 1,
    two_largest_px: Sequence[int] | None = None,
) -> dict[str, Any] | None: ...
def bootstrap(
    blocks: npt.NDArray[np.int64],
    *,
    rule_set: str | None = "asco-cap-2018",
    floor_percent: int = 1,
    replicates: int = 1000,
) -> dict[str, Any] | None: ...
def label_islands(
    tissue: npt.NDArray[np.uint8], radius: int
) -> tuple[npt.NDArray[np.int32], int]: ...
def compare_islands(
    islands: npt.NDArray[np.int64],
    *,
    rule_set: str = "asco-cap-2018",
    floor_percent: int = 1,
    min_px: int,
) -> dict[str, Any]: ...

# --- io -----------------------------------------------------------------------------
SPACING_LIMITS_UM: tuple[float, float]

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
def set_openslide_cache_bytes(bytes: int) -> None: ...
def resolve_frame(
    slide: Slide, mpp: float | None = None
) -> tuple[tuple[float, float], str, str | None]: ...
def stored_level_warning(
    slide: Slide, slide_spacing_um: tuple[float, float], spacing_um: float, mode: str
) -> str | None: ...
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
    title: str = "",
    icc_profile: bytes = b"",
) -> None: ...
def convert_slide(
    slide: Slide,
    path: str | bytes | PathLike[str],
    *,
    spacing_um: tuple[float, float],
    box_px: tuple[int, int, int, int],
    jpeg_quality: int,
    aperio: bool,
    copy_tiles: bool = True,
    big_tiff: bool = False,
    workers: int = 2,
    classic_bytes: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]: ...
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
    title: str = "",
) -> None: ...

class BatchBuffers:
    def __init__(self) -> None: ...
    def take(self, n: int, h: int, w: int) -> npt.NDArray[np.uint8]: ...

class TileReader:
    def __init__(
        self,
        slide: Slide,
        spacing_um: tuple[float, float],
        *,
        workers: int = 2,
        cache_bytes: int = 67108864,
        max_ahead: int = 64,
        mode: str = "scaled",
    ) -> None: ...
    def plan(self, spacing_um: float) -> tuple[int, int]: ...
    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[npt.NDArray[np.uint8], str]: ...
    def submit(
        self, requests: Sequence[tuple[int, int, int, int, int, float]]
    ) -> None: ...
    def submit_tiles(
        self,
        x_px: npt.NDArray[np.int64],
        y_px: npt.NDArray[np.int64],
        spacing_um: float,
        out: npt.NDArray[np.uint8],
    ) -> None: ...
    def next(self) -> tuple[int, int, int, npt.NDArray[np.uint8], str] | None: ...
    def next_statuses(self, count: int) -> list[str]: ...
    def cancel(self) -> None: ...

# --- session ------------------------------------------------------------------------
LIMITS: dict[str, float]

_RoiArgument = list[tuple[bool, list[npt.NDArray[np.float64]]]]

class Measurement:
    key: str
    @staticmethod
    def from_bytes(data: bytes) -> Measurement: ...
    def to_bytes(self) -> bytes: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def distance_names(self) -> list[str]: ...
    @property
    def spacing_um(self) -> float: ...
    @property
    def slide_size_px(self) -> tuple[int, int]: ...
    @property
    def slide_spacing_um(self) -> tuple[float, float]: ...
    @property
    def tile_px(self) -> int: ...
    @property
    def patch_px(self) -> int: ...
    @property
    def tiles_x(self) -> int: ...
    @property
    def tiles_y(self) -> int: ...
    def tumor_mask(
        self, x_px: int, y_px: int, width_px: int, height_px: int
    ) -> npt.NDArray[np.uint8]: ...

def decide(
    measurement: Measurement,
    *,
    rule_set: str | None = "asco-cap-2018",
    floor_percent: int = 1,
    ish: str | None = None,
    scale_q16: list[int] = ...,
    bias_q16: list[int] = ...,
    roi: _RoiArgument = ...,
    check_stain: bool = True,
    bootstrap_replicates: int = 1000,
    domain: tuple[list[int], int] | None = None,
) -> dict[str, Any]: ...
def patch_outcomes(
    measurement: Measurement,
    *,
    rule_set: str | None = "asco-cap-2018",
    floor_percent: int = 1,
    ish: str | None = None,
    scale_q16: list[int] = ...,
    bias_q16: list[int] = ...,
    roi: _RoiArgument = ...,
    check_stain: bool = True,
    domain: tuple[list[int], int] | None = None,
) -> dict[str, npt.NDArray[Any]]: ...

class ReadRequest:
    @property
    def id(self) -> int: ...
    @property
    def x_px(self) -> int: ...
    @property
    def y_px(self) -> int: ...
    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...
    @property
    def spacing_um(self) -> float: ...

class Batch:
    @property
    def id(self) -> int: ...
    @property
    def model(self) -> int: ...
    @property
    def valid(self) -> int: ...
    @property
    def rgb(self) -> npt.NDArray[np.uint8]: ...
    def __dlpack__(self, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class BatchMemory: ...

def pinned_memory() -> BatchMemory: ...

class DeviceRing:
    def __init__(
        self,
        models: list[tuple[tuple[float, float, float], tuple[float, float, float]]],
        device: int = 0,
        in_flight: int = ...,
    ) -> None: ...
    def run(
        self,
        session: PatchSession,
        compute: Callable[[int, int, int, int, int, int, int, int], bool],
        free_memory: Callable[[], None],
        wait: bool,
    ) -> int: ...
    @property
    def halved(self) -> bool: ...

class PatchSession:
    def __init__(
        self,
        size_px: tuple[int, int],
        slide_spacing_um: tuple[float, float],
        *,
        spacing_um: float,
        patch_px: int,
        tile_px: int,
        halo_px: int,
        class_names: list[str],
        classify_batch: int,
        has_segmenter: bool,
        segment_batch: int,
        segment_channels: int,
        white_rgb: tuple[int, int, int] = (255, 255, 255),
        max_open_bytes: int = ...,
        distance_names: list[str] = ...,
        memory: BatchMemory | None = None,
    ) -> None: ...
    @property
    def models(self) -> list[tuple[str, int, int, int, int]]: ...
    def wanted(self, max: int, wait: bool = False) -> list[ReadRequest]: ...
    def push(self, id: int, rgb: npt.NDArray[np.uint8] | None, status: str) -> None: ...
    def read_from(self, reader: TileReader, chunk: int = 8) -> None: ...
    def next_batch(self, wait: bool = False) -> Batch | None: ...
    def put(self, id: int, output: npt.NDArray[np.float32]) -> None: ...
    def progress(self) -> tuple[int, int, int, int]: ...
    def cancel(self) -> None: ...
    def fail(self, message: str, code: str) -> None: ...
    def finish(self) -> Measurement: ...
