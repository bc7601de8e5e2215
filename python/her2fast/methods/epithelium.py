# SPDX-License-Identifier: Apache-2.0
"""Epithelium of a slide by superpixels (Khameneh et al., 2019, section 2.1 to 2.3).

A slide is cut into blocks whose grid begins at its origin; superpixels end with their
block. So a block's answer depends on its own pixels, and the slide's neither on the
order of blocks nor on threads (docs/design/epithelium.md). Research use only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2fast.errors import UsageError
from her2fast.kernels import TISSUE_REACH_PX, tissue_mask
from her2fast.methods.membrane import Reader
from her2fast.models.superpixel_svm import Machine

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

#: Side of a block, px: that of the session's tiles.
BLOCK_PX = 256
#: Side of a cell of the maps, px: half a superpixel.
CELL_PX = 8
#: Probability of 1 in the map.
FULL = 255


@dataclass(frozen=True)
class EpitheliumMap:
    """What was found, on cells of `CELL_PX` from the slide's origin.

    Attributes
    ----------
    probability : (rows, columns) ndarray of uint8
        Mean over a cell's pixels, 255 is 1; what is no tissue counts as 0.
    inside : (rows, columns) ndarray of bool
        At least half of the cell is epithelium.
    tissue_px, epithelium_px : int
        Pixels at `spacing_um`; epithelium is tissue with a probability of 0.5 or more.
    tiles : dict
        Blocks: wanted (all), tissue (read, with tissue), missing, corrupt (with a
        decoder warning, too). The last two count as neither tissue nor epithelium.
    """

    probability: Bytes
    inside: Bools
    spacing_um: float
    tissue_px: int
    epithelium_px: int
    tiles: dict[str, int]


@dataclass(frozen=True)
class _Block:
    probability: Bytes
    inside: Bools
    tissue_px: int = 0
    epithelium_px: int = 0
    status: str = "ok"


def find_epithelium(
    reader: Reader,
    machine: Machine,
    *,
    size_px: tuple[int, int],
    spacing_um: float,
    workers: int,
    on_row: Callable[[int, int], None] | None = None,
) -> EpitheliumMap:
    """Measures a slide block by block.

    Parameters
    ----------
    size_px : (int, int)
        Width and height of the slide at `spacing_um`.
    on_row : callable, optional
        Hears of the rows of blocks done and how many there are.

    Raises
    ------
    UsageError
        A side below 1 px, or no worker.
    """
    if min(size_px) < 1 or workers < 1:
        raise UsageError(f"need pixels and workers, got {size_px} and {workers}")
    columns, rows = (-(-side // BLOCK_PX) for side in size_px)
    side = BLOCK_PX // CELL_PX
    probability = np.zeros((rows * side, columns * side), np.uint8)
    inside = np.zeros(probability.shape, np.bool_)
    tissue_px = epithelium_px = 0
    tiles = {"wanted": rows * columns, "tissue": 0, "missing": 0, "corrupt": 0}

    def work(place: tuple[int, int]) -> _Block:
        return _block(reader, machine, place, size_px, spacing_um)

    with ThreadPoolExecutor(workers) as pool:
        for row in range(rows):
            places = [(column, row) for column in range(columns)]
            for (column, _), block in zip(places, pool.map(work, places), strict=True):
                at = np.s_[
                    row * side : (row + 1) * side, column * side : (column + 1) * side
                ]
                probability[at], inside[at] = block.probability, block.inside
                tissue_px += block.tissue_px
                epithelium_px += block.epithelium_px
                tiles["tissue"] += block.tissue_px > 0
                if block.status != "ok":
                    tiles[block.status] += 1
            if on_row is not None:
                on_row(row + 1, rows)
    height, width = (-(-side_px // CELL_PX) for side_px in reversed(size_px))
    return EpitheliumMap(
        np.ascontiguousarray(probability[:height, :width]),
        np.ascontiguousarray(inside[:height, :width]),
        spacing_um,
        tissue_px,
        epithelium_px,
        tiles,
    )


def _block(
    reader: Reader,
    machine: Machine,
    place: tuple[int, int],
    size_px: tuple[int, int],
    spacing_um: float,
) -> _Block:
    halo = TISSUE_REACH_PX
    side_px = BLOCK_PX + 2 * halo
    x_px, y_px = (index * BLOCK_PX for index in place)
    rgb, status = reader.read(x_px - halo, y_px - halo, side_px, side_px, spacing_um)
    cells = BLOCK_PX // CELL_PX
    nothing = np.zeros((cells, cells), np.uint8)
    if status != "ok":
        # Of the halo, too: the session does not believe such a tile either.
        kind = "missing" if status == "missing" else "corrupt"
        return _Block(nothing, nothing > 0, status=kind)
    inner = np.s_[halo:-halo, halo:-halo]
    tissue = tissue_mask(rgb)[inner] > 0
    tissue[size_px[1] - y_px :] = False
    tissue[:, size_px[0] - x_px :] = False
    if not tissue.any():
        return _Block(nothing, nothing > 0)
    logits = machine.logits(np.ascontiguousarray(rgb[inner]))
    called = tissue & (logits >= 0)
    chance = np.where(tissue, 1.0 / (1.0 + np.exp(-logits.astype(np.float64))), 0.0)
    shape = (cells, CELL_PX, cells, CELL_PX)
    means = chance.reshape(shape).mean((1, 3))
    return _Block(
        np.floor(FULL * means + 0.5).astype(np.uint8),
        2 * called.reshape(shape).sum((1, 3)) >= CELL_PX**2,
        int(tissue.sum()),
        int(called.sum()),
    )
