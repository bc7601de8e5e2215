# SPDX-License-Identifier: Apache-2.0
"""Slides: pixels at any spacing, one region at a time or as a stream of tiles.

Positions are level-0 pixels, x right, y down. Sizes are pixels at the asked spacing, on
a grid that starts at the slide's origin: grid pixel (i, j) at spacing s covers level-0
[i * s / sx, (i + 1) * s / sx) x [j * s / sy, (j + 1) * s / sy), and its color is the
area-weighted mean of what lies under it. A position stands for the last grid pixel
whose corner, floored to level-0 pixels, is at or before it; so the corners that `tiles`
reports lead back to the same pixels. Beyond the slide is white.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["Level", "Slide", "TileBatch", "open_slide"]

Rgb = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.int64]
Reading = Literal["scaled", "exact", "level0"]
OnDamage = Literal["raise", "white"]

_PM_PER_UM = 1_000_000  # the core holds spacings as whole picometers
_BATCHES_AHEAD = 2  # at least: the one asked for, and what threads fill meanwhile
_ROI_CHUNK = 65_536  # tiles whose rectangles are built at once


class Level(NamedTuple):
    """One level of the pyramid; level 0 is the finest."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    downsample: float


@dataclass(frozen=True, slots=True)
class TileBatch:
    """Tiles in the order asked.

    Attributes
    ----------
    x_px, y_px : (N,) int64
        Level-0 pixel of each tile's upper left corner, floored.
    rgb : (N, tile_px, tile_px, 3) uint8
        White where the slide ends and where a source tile is corrupt or missing.
    status : N of "ok", "warned", "corrupt", "missing"
        The worst of the source tiles under each tile.
    """

    x_px: Pixels
    y_px: Pixels
    rgb: Rgb
    status: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.status)


@functools.cache
def _prepare_openslide() -> None:
    """Tell the core where openslide-bin keeps its library; nothing is loaded yet."""
    spec = importlib.util.find_spec("openslide_bin")
    for folder in spec.submodule_search_locations or () if spec else ():
        for name in ("libopenslide.so.1", "libopenslide.1.dylib", "libopenslide-1.dll"):
            library = Path(folder) / name
            if library.is_file():
                _core.set_openslide_library(str(library))
                return


def open_slide(
    path: str | os.PathLike[str],
    mpp: float | None = None,
    reading: Reading = "scaled",
) -> Slide:
    """Open a slide of any supported format; no pixel is decoded yet.

    Parameters
    ----------
    path : str or path
        Aperio SVS and tiled TIFF are read natively, other formats through OpenSlide.
    mpp : float, optional
        Spacing of level 0 in um/px; wins over what the file states.
    reading : "scaled", "exact" or "level0"
        "scaled" lets the JPEG decoder work at 1/2, 1/4 or 1/8 where that is fine
        enough; "exact" decodes fully and averages. Both take the coarsest level that is
        fine enough; "level0" is "scaled" of level 0, whose pixels were compressed once
        and not at the working spacing. All are defined to the bit.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        With a reason code: not a slide, damaged, no or an implausible spacing.
    """
    _prepare_openslide()
    return Slide(_core.Slide.open(os.fspath(path)), mpp=mpp, reading=reading)


class Slide:
    """A whole-slide image; made by `open_slide`. Threads may share it."""

    def __init__(
        self,
        core: _core.Slide,
        *,
        mpp: float | None = None,
        reading: Reading = "scaled",
    ) -> None:
        spacing_um, source, warning = _core.resolve_frame(core, mpp)
        self._core: _core.Slide | None = core
        self._reading = reading
        self._spacing_um = spacing_um
        self._spacing_source = source
        self._spacing_warning = warning
        self._levels = tuple(Level(*level) for level in core.levels)
        self._reader: _core.TileReader | None = _core.TileReader(
            core, spacing_um, workers=1, mode=reading
        )

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""
        return self._levels[0].width_px, self._levels[0].height_px

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest level first."""
        return self._levels

    @property
    def spacing_um(self) -> tuple[float, float]:
        """Level-0 spacing in um/px, x and y."""
        return self._spacing_um

    @property
    def spacing_source(self) -> str:
        """Where the spacing is from: "user", "vendor" or "tiff-resolution"."""
        return self._spacing_source

    @property
    def spacing_warning(self) -> str | None:
        """What is odd about the spacing, such as `mpp` against the file's own."""
        return self._spacing_warning

    @property
    def format(self) -> str:
        """The container, such as "aperio" or "generic-tiff"."""
        return self._open_core().format

    @property
    def properties(self) -> dict[str, str]:
        """Scanner metadata that passed an allow-list; no patient data."""
        return self._open_core().properties

    def fingerprint(self) -> str:
        """SHA-256 over size and sampled blocks of the file, in hex."""
        return self._open_core().fingerprint()

    def read(
        self,
        x0_px: int,
        y0_px: int,
        size_px: int | tuple[int, int],
        spacing_um: float = 1.0,
        *,
        on_damage: OnDamage = "raise",
    ) -> Rgb:
        """Read one region.

        Parameters
        ----------
        x0_px, y0_px : int
            Level-0 pixel where the region starts; may lie beyond the slide. Snapped
            down to the grid (see the module's text).
        size_px : int or (int, int)
            Width and height in pixels at `spacing_um`.
        spacing_um : float
            Spacing of the result, at most 1 % finer than level 0.
        on_damage : "raise" or "white"
            Source tiles that are missing, corrupt or decoded with warnings raise, or
            are given as they are: white where nothing was decoded.

        Returns
        -------
        rgb : (height, width, 3) uint8

        Raises
        ------
        SlideError
            NO_LEVEL where the slide is too coarse; MISSING_TILES, CORRUPT_TILES; IO.
        """
        if on_damage not in ("raise", "white"):
            raise ValueError(f'need on_damage "raise" or "white", got {on_damage!r}')
        width_px, height_px = (
            (size_px, size_px) if isinstance(size_px, int) else map(int, size_px)
        )
        x_px, y_px = self._to_grid(np.array([[x0_px, y0_px]], np.int64), spacing_um)
        rgb, status = self._open_reader().read(
            int(x_px[0]), int(y_px[0]), width_px, height_px, spacing_um
        )
        if status != "ok" and on_damage == "raise":
            missing = status == "missing"
            raise SlideError(
                f"the region at ({x0_px}, {y0_px}) lies on source tiles that are "
                f"{'missing' if missing else 'damaged'}; "
                'on_damage="white" reads it anyway',
                "MISSING_TILES" if missing else "CORRUPT_TILES",
            )
        return rgb

    def tiles(
        self,
        tile_px: int = 256,
        spacing_um: float = 1.0,
        batch_size: int = 32,
        workers: int = 2,
        coords_px: npt.ArrayLike | None = None,
        roi: str | os.PathLike[str] | BaseGeometry | None = None,
    ) -> Iterator[TileBatch]:
        """Read many tiles on native threads, in batches, in the order asked.

        Parameters
        ----------
        tile_px : int
            Side of a tile in pixels at `spacing_um`.
        spacing_um : float
            Spacing of the tiles in um/px.
        batch_size : int
            Tiles a batch; the last one may be shorter.
        workers : int
            Decoding threads. The bytes are the same for any number.
        coords_px : (n, 2) int array, optional
            Level-0 corners x, y; default: the grid that covers the slide, row by row.
        roi : path or shapely geometry, optional
            GeoJSON as QuPath writes it, or a geometry in level-0 pixels: only tiles
            that share an area with it are read.

        Yields
        ------
        TileBatch
        """
        if not 1 <= tile_px <= 1 << 14:
            raise ValueError(f"need 1 <= tile_px <= 16384, got tile_px={tile_px}")
        if not 1 <= batch_size <= 1 << 14:
            raise ValueError(
                f"need 1 <= batch_size <= 16384, got batch_size={batch_size}"
            )
        if coords_px is None:
            x_px, y_px = self._covering_grid(tile_px, spacing_um)
        else:
            coords = np.asarray(coords_px)
            if coords.size == 0:
                coords = np.empty((0, 2), np.int64)
            if (
                coords.ndim != 2
                or coords.shape[1] != 2
                or coords.dtype.kind not in "iu"
            ):
                raise ValueError(
                    "need coords_px as an (n, 2) integer array, got shape "
                    f"{coords.shape} of {coords.dtype}"
                )
            x_px, y_px = self._to_grid(coords.astype(np.int64), spacing_um)
        if roi is not None:
            geometry = _as_geometry(roi, self.dimensions)
            keep = self._touching(geometry, x_px, y_px, tile_px, spacing_um)
            x_px, y_px = x_px[keep], y_px[keep]
        # While the caller looks at one, the others keep every thread at work.
        batches = max(_BATCHES_AHEAD, 1 + -(-workers // batch_size))
        reader = _core.TileReader(
            self._open_core(),
            self._spacing_um,
            workers=workers,
            max_ahead=batches * batch_size,
            mode=self._reading,
        )
        reader.plan(spacing_um)  # refuse here, not at the first batch
        return self._stream(
            reader, x_px, y_px, tile_px, spacing_um, batch_size, batches
        )

    def _stream(
        self,
        reader: _core.TileReader,
        x_px: Pixels,
        y_px: Pixels,
        tile_px: int,
        spacing_um: float,
        batch_size: int,
        batches: int,
    ) -> Iterator[TileBatch]:
        # Workers write into the batches themselves: the arrays must outlive `cancel`.
        buffers = _core.BatchBuffers()
        ahead: deque[tuple[slice, Rgb]] = deque()
        starts = iter(range(0, len(x_px), batch_size))
        try:
            while True:
                for start in itertools.islice(starts, batches - len(ahead)):
                    part = slice(start, min(start + batch_size, len(x_px)))
                    rgb = buffers.take(part.stop - start, tile_px, tile_px)
                    ahead.append((part, rgb))
                    reader.submit_tiles(x_px[part], y_px[part], spacing_um, rgb)
                if not ahead:
                    return
                part, rgb = ahead[0]
                status = reader.next_statuses(len(rgb))
                ahead.popleft()
                yield TileBatch(
                    x_px=self._floor_px(x_px[part], 0, spacing_um),
                    y_px=self._floor_px(y_px[part], 1, spacing_um),
                    rgb=rgb,
                    status=tuple(status),
                )
                del rgb
        finally:
            reader.cancel()

    def close(self) -> None:
        """Let go of the file; later reads raise ValueError."""
        self._reader = None
        self._core = None

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width_px, height_px = self.dimensions
        return (
            f"<Slide {width_px} x {height_px} px, {self._spacing_um[0]:g} x "
            f"{self._spacing_um[1]:g} um/px, {len(self._levels)} levels>"
        )

    def _open_core(self) -> _core.Slide:
        if self._core is None:
            raise ValueError("need an open slide, got a closed one")
        return self._core

    def _open_reader(self) -> _core.TileReader:
        if self._reader is None:
            raise ValueError("need an open slide, got a closed one")
        return self._reader

    def _spacings_pm(self, axis: int, spacing_um: float) -> tuple[int, int]:
        if not (math.isfinite(spacing_um) and 0 < spacing_um <= 1e6):
            raise ValueError(f"need a spacing in um/px above 0, got {spacing_um}")
        return _to_pm(self._spacing_um[axis]), _to_pm(spacing_um)

    def _floor_px(self, grid_px: Pixels, axis: int, spacing_um: float) -> Pixels:
        """Level-0 pixel of each grid pixel's corner, rounded down."""
        level0_pm, target_pm = self._spacings_pm(axis, spacing_um)
        return _scale(grid_px, target_pm, level0_pm)

    def _to_grid(self, corners_px: Pixels, spacing_um: float) -> tuple[Pixels, Pixels]:
        """Grid pixels that the level-0 pixels (n, 2) stand for."""
        columns = []
        for axis in (0, 1):
            level0_pm, target_pm = self._spacings_pm(axis, spacing_um)
            # The largest i with floor(i * s / sx) <= x is ceil((x + 1) * sx / s) - 1.
            ends = -(corners_px[:, axis] + 1)
            columns.append(-_scale(ends, level0_pm, target_pm) - 1)
        return columns[0], columns[1]

    def _covering_grid(self, tile_px: int, spacing_um: float) -> tuple[Pixels, Pixels]:
        counts = []
        for axis, size_px in enumerate(self.dimensions):
            level0_pm, target_pm = self._spacings_pm(axis, spacing_um)
            counts.append(-(-size_px * level0_pm // (target_pm * tile_px)))
        x_px, y_px = np.meshgrid(
            np.arange(counts[0], dtype=np.int64) * tile_px,
            np.arange(counts[1], dtype=np.int64) * tile_px,
        )
        return x_px.ravel(), y_px.ravel()

    def _touching(
        self,
        geometry: BaseGeometry,
        x_px: Pixels,
        y_px: Pixels,
        tile_px: int,
        spacing_um: float,
    ) -> npt.NDArray[np.bool_]:
        """Tiles that share an area, not only an edge, with a geometry in level-0 px."""
        import shapely

        shapely.prepare(geometry)
        per_x, per_y = (spacing_um / spacing for spacing in self._spacing_um)
        keep = np.zeros(len(x_px), np.bool_)
        for start in range(0, len(x_px), _ROI_CHUNK):
            part = slice(start, start + _ROI_CHUNK)
            boxes = shapely.box(
                x_px[part] * per_x,
                y_px[part] * per_y,
                (x_px[part] + tile_px) * per_x,
                (y_px[part] + tile_px) * per_y,
            )
            keep[part] = shapely.intersects(geometry, boxes) & ~shapely.touches(
                geometry, boxes
            )
        return keep


def _to_pm(spacing_um: float) -> int:
    # As the core rounds: half away from zero, of a positive number.
    return math.floor(spacing_um * _PM_PER_UM + 0.5)


def _scale(values: Pixels, numerator: int, denominator: int) -> Pixels:
    """floor(values * numerator / denominator), exactly."""
    common = math.gcd(numerator, denominator)
    numerator, denominator = numerator // common, denominator // common
    bound = int(np.abs(values).max(initial=0)) * numerator
    if bound < 1 << 62:
        return values * numerator // denominator
    exact = [int(value) * numerator // denominator for value in values]
    return np.array(exact, np.int64)


def _as_geometry(
    roi: str | os.PathLike[str] | BaseGeometry, size_px: tuple[int, int]
) -> BaseGeometry:
    """The area of a GeoJSON file, its excluded polygons subtracted; or a geometry."""
    import shapely

    if isinstance(roi, shapely.Geometry):
        return roi
    from her2fast.roi import check_inside, load_roi

    regions = load_roi(Path(roi))
    check_inside(regions, size_px)
    included, excluded = (
        shapely.union_all(
            [
                shapely.Polygon(rings[0], rings[1:])
                for out, rings in regions
                if out == side
            ]
        )
        for side in (False, True)
    )
    if all(out for out, _ in regions):  # only exclusions: the slide less those
        included = shapely.box(0, 0, *size_px)
    return shapely.difference(included, excluded)
