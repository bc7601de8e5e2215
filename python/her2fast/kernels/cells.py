# SPDX-License-Identifier: Apache-2.0
"""Nuclei, cells round them, and the class of a cell by its membrane.

They are found on a grid of about 0.5 um/px: `step` 2 for pictures at 0.25 um/px, 1 at
0.5 (docs/design/cells.md).

Research use only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels import arrays
from her2fast.kernels.arrays import AnyArray, as_bytes
from her2fast.kernels.image import White
from her2fast.kernels.membrane import prune_reach_px

__all__ = [
    "CELLS_REACH_PX",
    "CELL_CUTS",
    "CELL_RAYS",
    "NUCLEI_REACH_PX",
    "CellClasses",
    "Cells",
    "cell_stains",
    "cells",
    "cells_reach_px",
    "classify_cells",
    "find_cells",
    "glass_dab",
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


def cells_reach_px(step: int, prune_px: int) -> int:
    """Pixels of the network's picture on which a cell and its pruned mask depend."""
    reach = CELLS_REACH_PX * step
    return reach + prune_reach_px(prune_px) if prune_px > 0 else reach


@dataclass(frozen=True)
class Cells:
    """One element per cell, sorted by (y, x) of its seed. Pixels of the grid.

    Torch tensors where the planes that they were found in were.

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
        share = np.bitwise_count(arrays.as_numpy(self.stained)) / np.float64(CELL_RAYS)
        out: npt.NDArray[np.float64] = arrays.like(self.stained, share)
        return out

    @property
    def dab_mean(self) -> npt.NDArray[np.float64]:
        """Mean optical density of the membrane; NaN where there is none."""
        px, total = arrays.as_numpy(self.dab_px), arrays.as_numpy(self.dab_sum)
        some = np.where(px > 0, px, 1)
        mean = np.where(px > 0, total / (100.0 * some), np.nan)
        out: npt.NDArray[np.float64] = arrays.like(self.dab_px, mean)
        return out

    def take(self, chosen: AnyArray) -> Cells:
        """The cells that a mask or indices choose."""
        at = arrays.as_numpy(chosen, "chosen")
        return self._with({name: v[at] for name, v in self._columns().items()})

    def moved(self, x: int, y: int) -> Cells:
        """The same cells counted from another corner."""
        values = self._columns()
        values["x"] = (values["x"] + np.int32(x)).astype(np.int32)
        values["y"] = (values["y"] + np.int32(y)).astype(np.int32)
        return self._with(values)

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {f.name: arrays.as_numpy(getattr(self, f.name)) for f in fields(self)}

    def _with(self, columns: dict[str, npt.NDArray[Any]]) -> Cells:
        return Cells(**arrays.like_all(self.x, columns))

    @staticmethod
    def joined(parts: Sequence[Cells]) -> Cells:
        """The cells of several tiles, sorted by (y, x)."""
        first = parts[0] if parts else no_cells()
        tables = [part._columns() for part in [*parts, no_cells()]]
        columns = {
            f.name: np.concatenate([table[f.name] for table in tables])
            for f in fields(Cells)
        }
        order = np.lexsort((columns["x"], columns["y"]))
        return first._with({name: values[order] for name, values in columns.items()})


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
        found = np.bincount(arrays.as_numpy(self.her2), minlength=4)
        return int(found[0]), int(found[1]), int(found[2]), int(found[3])


@overload
def cell_stains(
    rgb: npt.NDArray[Any],
    *,
    step: int = ...,
    white: White = ...,
    device: str | None = ...,
) -> tuple[Shorts, Bytes]: ...
@overload
def cell_stains(
    rgb: AnyArray, *, step: int = ..., white: White = ..., device: str | None = ...
) -> tuple[Any, Any]: ...
def cell_stains(
    rgb: AnyArray,
    *,
    step: int = 2,
    white: White = (255, 255, 255),
    device: str | None = None,
) -> tuple[Any, Any]:
    """Hematoxylin on the grid and DAB of the picture.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        Sides are multiples of `step`.
    step : {1, 2}
        Pixels of the picture along one of the grid.
    white : (int, int, int)
        Color of empty glass.

    Returns
    -------
    (H / step, W / step) array of uint16
        Hematoxylin less 0.3 of DAB, in 1/4096 of optical density, at most 0.8.
    (H, W) array of uint8
        DAB in hundredths of optical density, 0 to 2.55.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        Shapes, step or white point out of range.

    References
    ----------
    Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291-299 (the H-DAB matrix).
    """
    arrays.refuse_cuda("cell_stains", rgb)
    pixels = as_bytes(rgb, "rgb")
    hematoxylin, dab = _core.cell_stains(
        pixels, white, step, arrays.host_device(device)
    )
    return arrays.like(rgb, hematoxylin), arrays.like(rgb, dab)


@overload
def nuclei(
    hematoxylin: npt.NDArray[Any],
    mask: AnyArray,
    *,
    halo_px: int,
    step: int = ...,
    device: str | None = ...,
) -> tuple[Ints, Ints, Bytes]: ...
@overload
def nuclei(
    hematoxylin: AnyArray,
    mask: AnyArray,
    *,
    halo_px: int,
    step: int = ...,
    device: str | None = ...,
) -> tuple[Any, Any, Any]: ...
def nuclei(
    hematoxylin: AnyArray,
    mask: AnyArray,
    *,
    halo_px: int,
    step: int = 2,
    device: str | None = None,
) -> tuple[Any, Any, Any]:
    """Seeds of nuclei in the inner part of the planes.

    Parameters
    ----------
    hematoxylin : (h, w) array of uint16
        From `cell_stains`; 0 beyond the slide.
    mask : (h * step, w * step) array of uint8 or bool
        Any value but 0 is membrane, which parts nuclei.
    halo_px : int
        Of the grid, on all four sides; at least `NUCLEI_REACH_PX`.

    Returns
    -------
    (n,) array of int32, (n,) array of int32
        x and y, counted from the corner of the inner part, sorted by (y, x).
    (h, w) array of uint8
        Pixels of nuclei, 0 or 1; not settled within `NUCLEI_REACH_PX` of the border.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        Shapes, step or halo out of range.
    """
    arrays.refuse_cuda("nuclei", hematoxylin, mask)
    found = _core.nuclei(
        arrays.host(hematoxylin, np.uint16, "hematoxylin", rows=True),
        arrays.mask(mask, "mask"),
        step,
        halo_px,
        arrays.host_device(device),
    )
    found = arrays.like_all(hematoxylin, found)
    return found["x"], found["y"], found["dark"]


def cells(
    hematoxylin: AnyArray,
    dab: AnyArray,
    mask: AnyArray,
    *,
    halo_px: int,
    step: int = 2,
    glass_dab: int = 0,
    device: str | None = None,
) -> Cells:
    """Cells whose seeds lie in the inner part of the planes (decisions K6, K9).

    A cell is what is nearer to its nucleus than to another without crossing membrane.

    Parameters
    ----------
    hematoxylin, mask, step
        As for `nuclei`.
    dab : (h * step, w * step) array of uint8
        From `cell_stains`.
    halo_px : int
        Of the grid, on all four sides; at least `CELLS_REACH_PX`.
    glass_dab : int
        What empty glass has in the DAB plane, from `glass_dab`: a direction is stained
        where the membrane has `CELL_CUTS["faintest_dab_hundredths"]` more. 0 where its
        color was the white point, or is not known.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        Shapes, step, halo or glass out of range.
    """
    arrays.refuse_cuda("cells", hematoxylin, dab, mask)
    found = _core.cells(
        arrays.host(hematoxylin, np.uint16, "hematoxylin", rows=True),
        as_bytes(dab, "dab"),
        arrays.mask(mask, "mask"),
        step,
        halo_px,
        glass_dab,
        arrays.host_device(device),
    )
    return Cells(**arrays.like_all(hematoxylin, found))


def glass_dab(color: White | None, *, white: White = (255, 255, 255)) -> int:
    """What glass of this color has in the DAB plane of `cell_stains`, hundredths.

    Examples
    --------
    >>> glass_dab((221, 219, 210)), glass_dab((255, 255, 255)), glass_dab(None)
    (8, 0, 0)
    """
    if color is None:
        return 0
    _, dab = cell_stains(np.array([[color]], np.uint8), step=1, white=white)
    return int(dab[0, 0])


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
    arrays.refuse_cuda("classify_cells", found.stained, found.dab_sum)
    classes = _core.classify_cells(
        arrays.host(found.stained, np.uint32, "stained"),
        arrays.host(found.dab_sum, np.uint32, "dab_sum"),
        grid_um,
        step,
    )
    return CellClasses(**arrays.like_all(found.stained, classes))


def find_cells(
    rgb: AnyArray,
    mask: AnyArray,
    *,
    step: int = 2,
    white: White = (255, 255, 255),
    glass: White | None = None,
) -> Cells:
    """Cells of a picture in memory, beyond which is glass; planes are padded copies.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
    mask : (H, W) array of uint8 or bool
        Any value but 0 is membrane.
    white : (int, int, int)
        From which densities are counted.
    glass : (int, int, int), optional
        The color of empty glass, below which no membrane is perceptible.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        Shapes differ, or as `cell_stains`.
    """
    arrays.refuse_cuda("find_cells", rgb, mask)
    pixels = as_bytes(rgb, "rgb")
    membrane = arrays.mask(mask, "mask")
    if pixels.shape[:2] != membrane.shape:
        raise ValueError(f"need a mask of {pixels.shape[:2]}, got {membrane.shape}")
    halo = CELLS_REACH_PX
    hematoxylin, dab = cell_stains(pixels, step=step, white=white)
    found = cells(
        np.pad(hematoxylin, halo),
        np.pad(dab, halo * step),
        np.pad(membrane, halo * step),
        halo_px=halo,
        step=step,
        glass_dab=glass_dab(glass, white=white),
    )
    return Cells(**arrays.like_all(rgb, vars(found)))
