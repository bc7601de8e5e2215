# SPDX-License-Identifier: Apache-2.0
"""Nuclei, cells round them, and the class of a cell by its membrane.

They are found on a grid of about 0.5 um/px: `step` 2 for pictures at 0.25 um/px, 1 at
0.5 (docs/design/cells.md).

Research use only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels.image import White, as_bytes

__all__ = [
    "CELLS_REACH_PX",
    "CELL_CUTS",
    "CELL_RAYS",
    "NUCLEI_REACH_PX",
    "CellClasses",
    "Cells",
    "cell_stains",
    "cells",
    "classify_cells",
    "find_cells",
    "nuclei",
]

Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int32]

#: A nucleus, and a cell, depend on nothing further from their seed; px of the grid.
NUCLEI_REACH_PX: int = _core.NUCLEI_REACH_PX
CELLS_REACH_PX: int = _core.CELLS_REACH_PX
#: Directions in which a cell's outline is looked for.
CELL_RAYS: int = _core.CELL_RAYS
#: Where the classes of cells part (csrc/include/her2fast/cell_class.h).
CELL_CUTS: dict[str, int] = dict(_core.CELL_CUTS)


@dataclass(frozen=True)
class Cells:
    """One element per cell, sorted by (y, x) of its seed. Pixels of the grid.

    Attributes
    ----------
    x, y : (n,) ndarray of int32
        Seed of the nucleus: the cell's identity.
    px, nucleus_px : (n,) ndarray of int32
        Area of the cell, and of what is as dark as a nucleus in it.
    ray_px : (n, 32) ndarray of uint8
        From the seed to the outline, in direction 2 pi k / 32, y down.
    stained : (n,) ndarray of uint32
        Bit k: membrane lies there.
    dab_sum, dab_px : (n,) ndarray of uint32
        DAB of that membrane in hundredths of optical density, and over how many pixels
        of the picture.
    """

    x: Ints
    y: Ints
    px: Ints
    nucleus_px: Ints
    ray_px: Bytes
    stained: npt.NDArray[np.uint32]
    dab_sum: npt.NDArray[np.uint32]
    dab_px: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def completeness(self) -> npt.NDArray[np.float64]:
        """Stained share of the outline, in [0, 1]."""
        return np.bitwise_count(self.stained) / np.float64(CELL_RAYS)

    @property
    def dab_mean(self) -> npt.NDArray[np.float64]:
        """Mean optical density of the membrane; NaN where there is none."""
        some = np.where(self.dab_px > 0, self.dab_px, 1)
        return np.where(self.dab_px > 0, self.dab_sum / (100.0 * some), np.nan)

    def take(self, chosen: npt.NDArray[Any]) -> Cells:
        """The cells that a mask or indices choose."""
        return Cells(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def moved(self, x: int, y: int) -> Cells:
        """The same cells counted from another corner."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["x"] = (self.x + np.int32(x)).astype(np.int32)
        values["y"] = (self.y + np.int32(y)).astype(np.int32)
        return Cells(**values)

    @staticmethod
    def joined(parts: Sequence[Cells]) -> Cells:
        """The cells of several tiles, sorted by (y, x)."""
        parts = [*parts, no_cells()]
        columns = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(Cells)
        }
        order = np.lexsort((columns["x"], columns["y"]))
        return Cells(**{name: values[order] for name, values in columns.items()})


def no_cells() -> Cells:
    """A table without rows."""
    kinds: dict[str, Any] = {
        "stained": np.uint32,
        "dab_sum": np.uint32,
        "dab_px": np.uint32,
    }
    rows = {f.name: np.zeros(0, kinds.get(f.name, np.int32)) for f in fields(Cells)}
    return Cells(**{**rows, "ray_px": np.zeros((0, CELL_RAYS), np.uint8)})


@dataclass(frozen=True)
class CellClasses:
    """The class of each cell.

    Attributes
    ----------
    her2 : (n,) ndarray of int8
        0 no membrane staining, 1 faint, 2 weak to moderate, 3 complete and intense.
    complete : (n,) ndarray of bool
        Three quarters of the outline or more are stained.
    unusual : (n,) ndarray of bool
        Moderate to intense and incomplete; counted as 2.
    """

    her2: npt.NDArray[np.int8]
    complete: npt.NDArray[np.bool_]
    unusual: npt.NDArray[np.bool_]

    def counts(self) -> tuple[int, int, int, int]:
        """Cells of class 0, 1+, 2+ and 3+."""
        found = np.bincount(self.her2, minlength=4)
        return int(found[0]), int(found[1]), int(found[2]), int(found[3])


def cell_stains(
    rgb: Bytes, *, step: int = 2, white: White = (255, 255, 255), device: str = "cpu"
) -> tuple[Shorts, Bytes]:
    """Hematoxylin on the grid and DAB of the picture.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        Sides are multiples of `step`.
    step : {1, 2}
        Pixels of the picture along one of the grid.
    white : (int, int, int)
        Color of empty glass.

    Returns
    -------
    (H / step, W / step) ndarray of uint16
        Hematoxylin less 0.3 of DAB, in 1/4096 of optical density, at most 0.8.
    (H, W) ndarray of uint8
        DAB in hundredths of optical density, 0 to 2.55.

    Raises
    ------
    ValueError
        Shapes, step or white point out of range.

    References
    ----------
    Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291-299 (the H-DAB matrix).
    """
    return _core.cell_stains(as_bytes(rgb, "rgb"), white, step, device)


def nuclei(
    hematoxylin: Shorts,
    mask: Bytes,
    *,
    halo_px: int,
    step: int = 2,
    device: str = "cpu",
) -> tuple[Ints, Ints, Bytes]:
    """Seeds of nuclei in the inner part of the planes.

    Parameters
    ----------
    hematoxylin : (h, w) ndarray of uint16
        From `cell_stains`; 0 beyond the slide.
    mask : (h * step, w * step) ndarray of uint8
        Any value but 0 is membrane, which parts nuclei.
    halo_px : int
        Of the grid, on all four sides; at least `NUCLEI_REACH_PX`.

    Returns
    -------
    (n,) ndarray of int32, (n,) ndarray of int32
        x and y, counted from the corner of the inner part, sorted by (y, x).
    (h, w) ndarray of uint8
        Pixels of nuclei, 0 or 1; not settled within `NUCLEI_REACH_PX` of the border.

    Raises
    ------
    ValueError
        Shapes, step or halo out of range.
    """
    found = _core.nuclei(
        _shorts(hematoxylin), as_bytes(mask, "mask"), step, halo_px, device
    )
    return found["x"], found["y"], found["dark"]


def cells(
    hematoxylin: Shorts,
    dab: Bytes,
    mask: Bytes,
    *,
    halo_px: int,
    step: int = 2,
    device: str = "cpu",
) -> Cells:
    """Cells whose seeds lie in the inner part of the planes (decisions K6, K9).

    A cell is what is nearer to its nucleus than to another without crossing membrane.

    Parameters
    ----------
    hematoxylin, mask, step
        As for `nuclei`.
    dab : (h * step, w * step) ndarray of uint8
        From `cell_stains`.
    halo_px : int
        Of the grid, on all four sides; at least `CELLS_REACH_PX`.

    Raises
    ------
    ValueError
        Shapes, step or halo out of range.
    """
    found = _core.cells(
        _shorts(hematoxylin),
        as_bytes(dab, "dab"),
        as_bytes(mask, "mask"),
        step,
        halo_px,
        device,
    )
    return Cells(**found)


def classify_cells(found: Cells, *, grid_um: float, step: int = 2) -> CellClasses:
    """Class of each cell from completeness and intensity of its membrane.

    Intensity is density times thickness, averaged over the stained directions.

    Parameters
    ----------
    found : Cells
        From `cells`.
    grid_um : float
        Spacing of the grid, um/px: `step` times that of the picture.
    step : {1, 2}
        As the cells were found with.

    Examples
    --------
    >>> import numpy as np
    >>> ring = no_cells()
    >>> classify_cells(ring, grid_um=0.5).counts()
    (0, 0, 0, 0)
    """
    return CellClasses(
        **_core.classify_cells(found.stained, found.dab_sum, grid_um, step)
    )


def find_cells(
    rgb: Bytes,
    mask: Bytes,
    *,
    step: int = 2,
    white: White = (255, 255, 255),
) -> Cells:
    """Cells of a picture in memory, beyond which is glass.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
    mask : (H, W) ndarray of uint8
        Any value but 0 is membrane.

    Raises
    ------
    ValueError
        Shapes differ, or as `cell_stains`.
    """
    if rgb.shape[:2] != mask.shape:
        raise ValueError(f"need a mask of {rgb.shape[:2]}, got {mask.shape}")
    halo = CELLS_REACH_PX
    hematoxylin, dab = cell_stains(rgb, step=step, white=white)
    return cells(
        np.pad(hematoxylin, halo),
        np.pad(dab, halo * step),
        np.pad(as_bytes(mask, "mask"), halo * step),
        halo_px=halo,
        step=step,
    )


def _shorts(array: Shorts) -> Shorts:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint16:
        kind = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"need hematoxylin as an array of uint16, got {kind}")
    return np.ascontiguousarray(array)
