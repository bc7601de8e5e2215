# SPDX-License-Identifier: Apache-2.0
"""The tumor that was found at 1 um/px, for what is measured at a finer spacing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import UsageError
from her2fast.methods.membrane import tumor_tiles


def tumor_px_of_tile(tile_px: int, spacing_um: float, tumor_um: float) -> int:
    """Tumor pixels along a tile of the membrane network.

    Raises `UsageError` where that is no whole number: tiles would begin inside pixels.

    Examples
    --------
    >>> tumor_px_of_tile(512, 0.25, 1.0)
    128
    """
    tile_pm, tumor_pm = tile_px * round(spacing_um * 1e6), round(tumor_um * 1e6)
    if tile_pm % tumor_pm:
        raise UsageError(
            f"need a tile of the membrane network that is a whole number of tumor "
            f"pixels of {tumor_um:g} um, got tile_px={tile_px} of {spacing_um:g} um: "
            f"{tile_pm / tumor_pm:g} of them; these two packages do not go together"
        )
    return tile_pm // tumor_pm


class TumorRows:
    """The tumor's mask, bit by bit, asked for by tiles and by seeds."""

    def __init__(
        self,
        tumor: _core.Measurement,
        size_px: Sequence[int],
        *,
        tile_px: int,
        spacing_um: float,
    ) -> None:
        """Tiles of `tile_px` where the slide has `size_px`, at `spacing_um`.

        Raises `UsageError` as `tumor_px_of_tile` does.
        """
        self._spacing_um = tumor.spacing_um
        self._shape = tuple(-(-side // tile_px) for side in reversed(size_px))
        self._tile = tumor_px_of_tile(tile_px, spacing_um, tumor.spacing_um)
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
        (rows, columns), tile = self._shape, self._tile
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
