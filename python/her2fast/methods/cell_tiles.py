# SPDX-License-Identifier: Apache-2.0
"""Tiles of the membrane network: where tumor lies, and which could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.record import Roi

#: What became of a tile; 0: it was not needed.
READ, MISSING, CORRUPT = 1, 2, 3
_STATUS, _WANTED = 3, 4


@dataclass(frozen=True)
class CellTiles:
    """Every tile of a slide.

    Attributes
    ----------
    side_um : float
    state : (rows, columns) ndarray of uint8
        `READ`, `MISSING` or `CORRUPT`, and 4 more where the tile holds tumor.
    """

    side_um: float
    state: npt.NDArray[np.uint8]

    @staticmethod
    def of(wanted: npt.NDArray[np.bool_], side_um: float) -> CellTiles:
        """Tiles of which none is read yet."""
        return CellTiles(side_um, wanted.astype(np.uint8) * np.uint8(_WANTED))

    def set(self, column: int, row: int, status: int) -> None:
        """Note what became of a tile."""
        self.state[row, column] = (self.state[row, column] & _WANTED) | status

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """0, `READ`, `MISSING` or `CORRUPT`."""
        return self.state & np.uint8(_STATUS)

    @property
    def unreadable(self) -> npt.NDArray[np.bool_]:
        """Tiles that were needed and could not be read."""
        return self.status > READ

    def readable(self, column: int, row: int) -> bool:
        """Whether a tile was read."""
        return bool(self.status[row, column] == READ)

    def tumor(
        self, roi: Roi = (), slide_spacing_um: tuple[float, float] = (1.0, 1.0)
    ) -> npt.NDArray[np.bool_]:
        """Tiles that hold tumor and meet the regions, which are in level-0 px."""
        wanted = (self.state & _WANTED) > 0
        rows, columns = np.nonzero(wanted)
        out = np.zeros_like(wanted)
        x_um, y_um = columns * self.side_um, rows * self.side_um
        meets = _meets(
            (x_um, y_um, x_um + self.side_um, y_um + self.side_um),
            roi,
            slide_spacing_um,
        )
        out[rows, columns] = meets
        return out

    def counts(self, chosen: npt.NDArray[np.bool_] | None = None) -> dict[str, int]:
        """Tiles with tumor, of these and those round them read, missing, corrupt."""
        state = self.state if chosen is None else self.state[chosen]
        found = np.bincount(state.ravel() & _STATUS, minlength=_STATUS + 1)
        return {
            "wanted": int((state & _WANTED > 0).sum()),
            "read": int(found[READ]),
            "missing": int(found[MISSING]),
            "corrupt": int(found[CORRUPT]),
        }

    def near_unreadable(
        self,
        x_um: npt.NDArray[np.floating[Any]],
        y_um: npt.NDArray[np.floating[Any]],
        reach_um: float,
    ) -> npt.NDArray[np.bool_]:
        """Whether points lie in such a tile, or within `reach_um` of it.

        `reach_um` is at most a tile's side.
        """
        bad = np.pad(self.unreadable, 2)
        column = (x_um // self.side_um).astype(np.int64)
        row = (y_um // self.side_um).astype(np.int64)
        near = np.zeros(len(x_um), np.bool_)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = bad[row + dy + 2, column + dx + 2]
                for at, tile in ((x_um, column + dx), (y_um, row + dy)):
                    low = tile * self.side_um
                    inside &= at >= low - reach_um
                    inside &= at <= low + self.side_um + reach_um
                near |= inside
        return near


def _meets(
    bounds_um: Sequence[npt.NDArray[np.floating[Any]]],
    roi: Roi,
    slide_spacing_um: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Whether boxes share area with a region that counts, and lie in none excluded."""
    import shapely

    count = len(bounds_um[0])
    if not roi:
        return np.ones(count, np.bool_)
    x_um, y_um = slide_spacing_um
    spacing = (x_um, y_um, x_um, y_um)
    px = [bound / um for bound, um in zip(bounds_um, spacing, strict=True)]
    boxes = shapely.box(*px)
    drawn = [rings for exclude, rings in roi if not exclude]
    inside = np.full(count, not drawn)
    for exclude, rings in sorted(roi, key=lambda item: item[0]):
        polygon = shapely.Polygon(rings[0], rings[1:])
        shapely.prepare(polygon)
        if exclude:
            inside &= ~shapely.covers(polygon, boxes)
        else:
            meets = shapely.intersects(polygon, boxes)
            inside |= meets & ~shapely.touches(polygon, boxes)
    return np.asarray(inside, np.bool_)
