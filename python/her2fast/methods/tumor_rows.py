# SPDX-License-Identifier: Apache-2.0
"""The tumor that was found at 1 um/px, for what is measured at a finer spacing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import UsageError
from her2fast.methods.membrane import tumor_tiles


class TumorRows:
    """The tumor's mask, bit by bit, asked for by tiles and by seeds."""

    def __init__(
        self,
        tumor: _core.Measurement,
        tile_um: float,
        size_px: Sequence[int],
        tile_px: int,
    ) -> None:
        """Tiles are `tile_um` wide, and `tile_px` where the slide has `size_px`."""
        self._spacing_um = tumor.spacing_um
        self._shape = tuple(-(-side // tile_px) for side in reversed(size_px))
        self._tile = tile_um / self._spacing_um
        width = tumor.tiles_x * tumor.tile_px
        height = tumor.tiles_y * tumor.tile_px
        self._width = width
        rows = []
        for y in range(0, height, tumor.tile_px):
            mask = tumor.tumor_mask(0, y, width, tumor.tile_px)
            rows.append(np.packbits(mask, axis=1))
        self._bits = np.concatenate(rows)

    def wanted(self) -> npt.NDArray[np.bool_]:
        """(rows, columns) tiles of the network that hold tumor."""
        rows, columns = self._shape
        if self._tile != int(self._tile):
            raise UsageError(
                "need a tile of the membrane network that is a whole number of tumor "
                f"pixels, got {self._tile:g}"
            )
        tile = int(self._tile)
        masks = []
        for row in range(rows):
            bits = self._bits[row * tile : (row + 1) * tile]
            mask = np.zeros((1, columns * tile), np.bool_)
            if len(bits):
                any_row = np.bitwise_or.reduce(bits, axis=0)
                flat = np.unpackbits(any_row)[: columns * tile].astype(np.bool_)
                mask[0, : len(flat)] = flat
            masks.append(mask)
        return tumor_tiles(masks, tile)

    def holds(
        self,
        x: npt.NDArray[np.int32],
        y: npt.NDArray[np.int32],
        grid_um: float,
    ) -> npt.NDArray[np.bool_]:
        """Whether the tumor pixel round each seed's middle is set."""
        column = ((x + 0.5) * grid_um / self._spacing_um).astype(np.int64)
        row = ((y + 0.5) * grid_um / self._spacing_um).astype(np.int64)
        inside = (row < len(self._bits)) & (column < self._width)
        out = np.zeros(len(x), np.bool_)
        at = row[inside], column[inside]
        out[inside] = self._bits[at[0], at[1] // 8] >> (7 - at[1] % 8) & 1 == 1
        return out
