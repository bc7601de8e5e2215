# SPDX-License-Identifier: Apache-2.0
"""Membranes of a slide, cell by cell (Khameneh et al., 2019), in the tumor that another
package finds at 1 um/px.

Tiles of the network are read where there is tumor, and round it; three rows of them
stand in memory. A cell belongs to the tile of its seed, a membrane to the whole slide:
what comes out does not depend on the tiles, nor on how many threads there are
(docs/design/cells.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from her2fast.errors import SlideError, UsageError
from her2fast.kernels.cells import (
    CELLS_REACH_PX,
    Cells,
    cell_stains,
    cells,
    cells_reach_px,
    glass_dab,
)
from her2fast.kernels.membrane import (
    Compartments,
    MembraneMerge,
    Membranes,
    membrane_label,
    membrane_prune,
    prune_reach_px,
)
from her2fast.measure import OnProgress, Progress
from her2fast.methods.cell_tiles import CORRUPT, MISSING, READ, CellTiles
from her2fast.methods.glass import Color

Bytes = npt.NDArray[np.uint8]
Place = tuple[int, int]  # column, row of a tile

#: Compartments of this area can hold one cell; smaller ones are holes in a membrane,
#: larger ones lumens, stroma and nests.
CELL_UM2 = (20.0, 600.0)
#: A membrane as long as one cell's outline, 15 um across, connects; see `connectivity`.
CONNECTED_UM = 47.0


class Finder(Protocol):
    """What finds stained membrane in tiles; thread-safe.

    One with an attribute `halo_px` is shown so much beyond a tile on each side: white
    beyond the slide.
    """

    def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        """(N, W, W, 3) tiles -> (N, S, S) masks of the tiles without their halo.

        `places_px` are the corners of the masks; W is S where there is no halo.
        """
        ...


def halo_of(find: Finder) -> int:
    """Pixels that a finder is shown beyond a tile on each side."""
    halo_px: int = getattr(find, "halo_px", 0)
    return halo_px


class Reader(Protocol):
    """The part of the native reader that is used."""

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        """Pixels and "ok", "warned", "corrupt" or "missing"."""
        ...


@dataclass
class MembraneTotals:
    """Sums over the membranes and compartments of a slide; whole numbers."""

    membranes: int = 0
    closed: int = 0
    px: int = 0
    density_sum: int = 0  # hundredths, over px
    length_nm: int = 0
    connected_nm: int = 0
    incomplete: int = 0  # border on a tile that was not looked at
    #: Compartments of a cell's size, by nuclei in them.
    one_nucleus: int = 0
    no_nucleus: int = 0
    several_nuclei: int = 0
    large: int = 0  # compartments larger than a cell

    def add(self, membranes: Membranes, gaps: Compartments, spacing_um: float) -> None:
        """Add what a merge has finished."""
        self.membranes += len(membranes)
        self.closed += int(membranes.closed.sum())
        self.px += int(membranes.px.sum())
        sums = np.rint(membranes.density_mean * membranes.px * 100.0)
        self.density_sum += int(sums.sum())
        self.incomplete += int(membranes.incomplete.sum())
        # Whole nanometers: a sum of floats would depend on the order.
        length_nm = np.rint(membranes.length_px * spacing_um * 1000.0).astype(np.int64)
        self.length_nm += int(length_nm.sum())
        self.connected_nm += int(length_nm[length_nm >= 1000 * CONNECTED_UM].sum())
        area_um2 = gaps.px * spacing_um**2
        self.large += int((area_um2 > CELL_UM2[1]).sum())
        sized = gaps.nuclei[(area_um2 >= CELL_UM2[0]) & (area_um2 <= CELL_UM2[1])]
        self.one_nucleus += int((sized == 1).sum())
        self.no_nucleus += int((sized == 0).sum())
        self.several_nuclei += int((sized > 1).sum())


@dataclass(frozen=True)
class CellMeasurement:
    """Cells and membranes of a slide's tumor, before anything is decided.

    Attributes
    ----------
    cells : Cells
        Whose nuclei lie in the tumor; px of the grid from the slide's origin.
    spacing_um, step
        Of the network's picture, and its pixels to one of the grid.
    tiles : CellTiles
        Where cells near a tile that could not be read may be others than they seem.
    prune_px
        Longest spurs that were taken off the masks.
    glass_rgb
        The color of empty glass, under whose density no membrane is perceptible; None
        where none was seen.
    """

    cells: Cells
    totals: MembraneTotals
    spacing_um: float
    step: int
    tiles: CellTiles
    prune_px: int = 0
    glass_rgb: Color | None = None

    @property
    def grid_um(self) -> float:
        """Spacing of the cells' grid."""
        return self.spacing_um * self.step

    @property
    def reach_um(self) -> float:
        """How far from its seed a cell depends on what is seen."""
        return self.spacing_um * cells_reach_px(self.step, self.prune_px)


@dataclass
class Seconds:
    """Seconds of work by part, all threads together: where the time goes."""

    read: float = 0.0
    network: float = 0.0
    stains: float = 0.0
    cells: float = 0.0
    merge: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Rounded, by name."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class _Planes:
    """What is kept of a tile until its cells are found."""

    hematoxylin: npt.NDArray[np.uint16]
    dab: Bytes
    mask: Bytes


def tumor_tiles(
    rows: Iterable[npt.NDArray[np.bool_]], tile: int
) -> npt.NDArray[np.bool_]:
    """Which tiles hold tumor: each of `rows` is the tumor of one row of tiles.

    Parameters
    ----------
    rows : iterable of (h, w) ndarray of bool
        The tumor's mask, one row of tiles after the other.
    tile : int
        Side of a tile in the mask's pixels.
    """
    out = []
    for row in rows:
        columns = -(-row.shape[1] // tile)
        wide = np.zeros(columns * tile, np.bool_)
        wide[: row.shape[1]] = row.any(0)
        out.append(wide.reshape(columns, tile).any(1))
    return np.array(out, np.bool_).reshape(len(out), -1)


class MembraneMeasure:
    """Measures one slide: rows of tiles in, cells and membranes out.

    Parameters
    ----------
    size_px : (int, int)
        Width and height of the slide at `spacing_um`.
    wanted : (rows, columns) ndarray of bool
        Tiles that hold tumor.
    is_tumor : callable
        x and y of seeds, px of the grid -> whether each lies in the tumor.
    prune_px : int
        Spurs up to this length come off the masks; 0 for none.
    glass_rgb : (int, int, int), optional
        The slide's empty glass, from `methods.glass`.
    """

    def __init__(
        self,
        reader: Reader,
        find: Finder,
        *,
        size_px: tuple[int, int],
        spacing_um: float,
        step: int,
        tile_px: int,
        batch_size: int,
        wanted: npt.NDArray[np.bool_],
        is_tumor: Callable[
            [npt.NDArray[np.int32], npt.NDArray[np.int32]], npt.NDArray[np.bool_]
        ],
        prune_px: int = 0,
        glass_rgb: Color | None = None,
    ) -> None:
        """Raises `UsageError` where a tile is smaller than what a cell depends on."""
        self._side = tile_px // step
        self._prune_px = prune_px
        reach = cells_reach_px(step, prune_px)
        if tile_px < reach:
            raise UsageError(
                f"need tiles of {reach} px or more, got {tile_px}: a "
                "cell must not depend on more than the tiles beside its own"
            )
        shape = (-(-size_px[1] // tile_px), -(-size_px[0] // tile_px))
        if wanted.shape != shape:
            raise ValueError(f"need wanted tiles of {shape}, got {wanted.shape}")
        self._reader, self._find = reader, find
        self._size_px, self._spacing_um = size_px, spacing_um
        self._step, self._tile_px, self._batch = step, tile_px, batch_size
        self._glass_rgb, self._glass_dab = glass_rgb, glass_dab(glass_rgb)
        self._halo_px = halo_of(find)
        self._wanted = wanted
        grown = np.pad(wanted, 1)
        height, width = shape
        self._needed = np.logical_or.reduce(
            [grown[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        )
        self._is_tumor = is_tumor
        self._planes: dict[Place, _Planes] = {}
        self.seconds = Seconds()
        self._lock = threading.Lock()
        self._tiles = CellTiles.of(wanted, tile_px * spacing_um)
        self._on_progress: OnProgress | None = None
        self._read = self._done = 0

    def run(
        self, *, workers: int, on_progress: OnProgress | None = None
    ) -> CellMeasurement:
        """Measures; `on_progress` hears of tiles read (requests) and done (items)."""
        self._on_progress = on_progress
        merge = MembraneMerge(*self._size_px, tile_px=self._tile_px)
        totals = MembraneTotals()
        found: list[Cells] = []
        rows = len(self._wanted)
        with ThreadPoolExecutor(workers) as pool:
            for row in range(rows + 1):
                if row < rows:
                    self._read_row(pool, row)
                if row > 0:
                    found += self._finish_row(pool, row - 1, merge, totals)
                for place in [p for p in self._planes if p[1] < row - 1]:
                    del self._planes[place]
        totals.add(*merge.finish(), self._spacing_um)
        return CellMeasurement(
            Cells.joined(found),
            totals,
            self._spacing_um,
            self._step,
            self._tiles,
            self._prune_px,
            self._glass_rgb,
        )

    def _spent(self, part: str, began: float) -> float:
        """Adds the time since `began` to a part; returns now."""
        now = time.perf_counter()
        with self._lock:
            before = getattr(self.seconds, part)
            setattr(self.seconds, part, before + now - began)
        return now

    def _tell(self, *, read: int = 0, done: int = 0) -> None:
        """Of every batch: a row of a large slide takes minutes."""
        self._read += read
        self._done += done
        if self._on_progress is not None:
            needed, wanted = int(self._needed.sum()), int(self._wanted.sum())
            self._on_progress(Progress(needed, self._read, wanted, self._done))

    # --- pixels to planes -----------------------------------------------------------

    def _read_row(self, pool: ThreadPoolExecutor, row: int) -> None:
        columns = np.flatnonzero(self._needed[row]).tolist()
        batches = [
            columns[begin : begin + self._batch]
            for begin in range(0, len(columns), self._batch)
        ]
        for planes in pool.map(lambda batch: self._read_batch(batch, row), batches):
            self._planes.update(planes)
            self._tell(read=len(planes))

    def _read_batch(self, columns: list[int], row: int) -> dict[Place, _Planes]:
        side, halo = self._tile_px, self._halo_px
        wide = side + 2 * halo
        inner = slice(halo, halo + side)
        began = time.perf_counter()
        # The network's batch has one shape; what is not filled is glass.
        rgb = np.empty((self._batch, wide, wide, 3), np.uint8)
        rgb[len(columns) :] = 255
        places = [(column * side, row * side) for column in columns]
        for k, (x_px, y_px) in enumerate(places):
            # A flaw in the halo is one of the tile: what a network sees there may
            # change any pixel of its mask.
            pixels, status = self._reader.read(
                x_px - halo, y_px - halo, wide, wide, self._spacing_um
            )
            rgb[k] = pixels if status == "ok" else 255
            became = {"ok": READ, "missing": MISSING}.get(status, CORRUPT)
            with self._lock:
                self._tiles.set(columns[k], row, became)
        began = self._spent("read", began)
        masks = self._find(rgb, places)
        if masks.shape != (self._batch, side, side):
            raise ValueError(
                f"need masks of {(self._batch, side, side)} of tiles with a halo of "
                f"{halo} px, got {masks.shape}"
            )
        began = self._spent("network", began)
        out = {}
        for k, column in enumerate(columns):
            tile = np.ascontiguousarray(rgb[k, inner, inner])
            hematoxylin, dab = cell_stains(tile, step=self._step)
            readable = self._tiles.readable(column, row)
            mask = masks[k] if readable else np.zeros_like(masks[k])
            self._cut_to_slide(mask, column, row)
            out[column, row] = _Planes(hematoxylin, dab, mask)
        self._spent("stains", began)
        return out

    def _cut_to_slide(self, mask: Bytes, column: int, row: int) -> None:
        """There is no membrane beyond the slide, whatever a network says."""
        mask[self._size_px[1] - row * self._tile_px :] = 0
        mask[:, self._size_px[0] - column * self._tile_px :] = 0

    # --- planes to cells ------------------------------------------------------------

    def _finish_row(
        self,
        pool: ThreadPoolExecutor,
        row: int,
        merge: MembraneMerge,
        totals: MembraneTotals,
    ) -> Iterator[Cells]:
        # A tile that could not be read was not looked at: membranes end open beside it.
        looked_at = self._wanted[row] & ~self._tiles.unreadable[row]
        columns = np.flatnonzero(looked_at).tolist()
        for column, (found, tile) in zip(
            columns, pool.map(lambda c: self._finish_tile(c, row), columns), strict=True
        ):
            began = time.perf_counter()
            merge.add(column, row, tile)
            self._spent("merge", began)
            self._tell(done=1)
            yield found
        totals.add(*merge.take(), self._spacing_um)

    def _finish_tile(self, column: int, row: int) -> tuple[Cells, Any]:
        began = time.perf_counter()
        halo = CELLS_REACH_PX
        wide_mask = self._mask_around(column, row, halo * self._step)
        found = cells(
            self._around(column, row, "hematoxylin", halo),
            self._around(column, row, "dab", halo * self._step),
            wide_mask,
            halo_px=halo,
            step=self._step,
            glass_dab=self._glass_dab,
        )
        began = self._spent("cells", began)
        at = np.s_[
            : self._size_px[1] - row * self._tile_px,
            : self._size_px[0] - column * self._tile_px,
        ]
        inner = np.s_[halo * self._step : -halo * self._step]
        mask = wide_mask[inner, inner][at]
        dab = self._planes[column, row].dab[at]
        height, width = mask.shape
        seeds = np.stack([found.x, found.y], 1) * np.int32(self._step)
        inside = (seeds[:, 0] < width) & (seeds[:, 1] < height)
        tile = membrane_label(mask, dab, nuclei=np.ascontiguousarray(seeds[inside]))
        self._spent("merge", began)
        placed = found.moved(column * self._side, row * self._side)
        return placed.take(self._is_tumor(placed.x, placed.y)), tile

    def _mask_around(self, column: int, row: int, halo: int) -> Bytes:
        """The mask of a tile and round it, without its spurs."""
        if self._prune_px == 0:
            return self._around(column, row, "mask", halo)
        reach = prune_reach_px(self._prune_px)
        wide = self._around(column, row, "mask", halo + reach)
        pruned = membrane_prune(wide, length_px=self._prune_px)
        return np.ascontiguousarray(pruned[reach:-reach, reach:-reach])

    def _around(self, column: int, row: int, name: str, halo: int) -> npt.NDArray[Any]:
        """A plane of a tile with what lies round it; nothing where there is nothing."""
        side = self._side if name == "hematoxylin" else self._tile_px
        kind = np.uint16 if name == "hematoxylin" else np.uint8
        out = np.zeros((side + 2 * halo, side + 2 * halo), kind)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                planes = self._planes.get((column + dx, row + dy))
                if planes is not None:
                    to_y, from_y = _overlap(dy, side, halo)
                    to_x, from_x = _overlap(dx, side, halo)
                    out[to_y, to_x] = getattr(planes, name)[from_y, from_x]
        return out


def _overlap(step: int, side: int, halo: int) -> tuple[slice, slice]:
    """Where the neighbor lies in a plane with halo, and which part of it."""
    if step < 0:
        return slice(0, halo), slice(side - halo, side)
    if step > 0:
        return slice(halo + side, side + 2 * halo), slice(0, halo)
    return slice(halo, halo + side), slice(0, side)


def unreadable(
    tiles: dict[str, int],
    max_bad_percent: float,
    of: str = "tiles of the membrane network with tumor",
) -> SlideError | None:
    """MISSING_TILES or CORRUPT_TILES above the limit, of the `wanted` tiles."""
    for name, code in (("missing", "MISSING_TILES"), ("corrupt", "CORRUPT_TILES")):
        if 100 * tiles[name] > max_bad_percent * max(tiles["wanted"], 1):
            return SlideError(
                f"{tiles[name]} of {tiles['wanted']} {of} are {name}: more than "
                f"{max_bad_percent:g} %",
                code,
            )
    return None
