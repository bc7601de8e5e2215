# SPDX-License-Identifier: Apache-2.0
"""Membranes of a whole slide from the masks of its tiles.

A membrane is an 8-connected component of the mask. A compartment is a 4-connected piece
of what is not mask, enclosed by one membrane: where stained cells are packed, each cell
is a compartment of the same membrane (decisions K6, K9).

Research use only.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast._core import MembraneTile
from her2fast.kernels import arrays, on_cuda
from her2fast.kernels.arrays import AnyArray, as_bytes

__all__ = [
    "PRUNE_HALF_WIDTH_PX",
    "PRUNE_MAX_LENGTH_PX",
    "Compartments",
    "MembraneMerge",
    "MembraneTile",
    "Membranes",
    "find_membranes",
    "membrane_label",
    "membrane_prune",
    "prune_reach_px",
]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Wider membrane than twice this and one has no centerline, so no spurs.
PRUNE_HALF_WIDTH_PX: int = _core.PRUNE_HALF_WIDTH_PX
PRUNE_MAX_LENGTH_PX: int = _core.PRUNE_MAX_LENGTH_PX


@dataclass(frozen=True)
class Membranes:
    """One element per membrane, sorted by (y, x). Pixels of the slide's spacing.

    Attributes
    ----------
    x, y : (n,) ndarray of int32
        First pixel, row by row: the identity of the membrane.
    box : (n, 4) ndarray of int32
        x0, y0, x1, y1; the latter two exclusive.
    px : (n,) ndarray of int64
        Area.
    compartments : (n,) ndarray of int32
        How many it encloses.
    enclosed_px : (n,) ndarray of int64
        Area of its compartments together.
    perimeter_px : (n,) ndarray of float64
        Outer and inner, from 2 x 2 windows.
    length_px, width_px : (n,) ndarray of float64
        L = P / 2 - 1.732 * euler * w and w = px / L (decision K10).
    density_mean, density_p10, density_p50, density_p90 : (n,) ndarray of float64
        Optical density, 0 to 2.55 in steps of 0.01; percentiles by nearest rank. NaN
        where the tiles came without densities.
    closed : (n,) ndarray of bool
        It encloses something.
    cut : (n,) ndarray of bool
        It reaches the slide's edge.
    incomplete : (n,) ndarray of bool
        It borders on a tile that never came, or goes round one.
    """

    x: Ints
    y: Ints
    box: Ints
    px: Longs
    compartments: Ints
    enclosed_px: Longs
    perimeter_px: Doubles
    length_px: Doubles
    width_px: Doubles
    density_mean: Doubles
    density_p10: Doubles
    density_p50: Doubles
    density_p90: Doubles
    closed: Bools
    cut: Bools
    incomplete: Bools

    def __len__(self) -> int:
        return len(self.px)


@dataclass(frozen=True)
class Compartments:
    """One element per compartment, sorted by (y, x).

    Attributes
    ----------
    x, y, box, px
        As for `Membranes`.
    membrane_x, membrane_y : (n,) ndarray of int32
        Identity of the membrane round it.
    nuclei : (n,) ndarray of int32
        How many of those that the tiles came with lie in it.
    """

    x: Ints
    y: Ints
    box: Ints
    px: Longs
    membrane_x: Ints
    membrane_y: Ints
    nuclei: Ints

    def __len__(self) -> int:
        return len(self.px)


def membrane_label(
    mask: AnyArray,
    density: AnyArray | None = None,
    *,
    nuclei: AnyArray | None = None,
    device: str | None = None,
) -> MembraneTile:
    """Label the components of one tile (Khameneh et al., section 3.4).

    Parameters
    ----------
    mask : (H, W) array of uint8 or bool
        Any value but 0 is membrane. 1 to 8192 pixels a side.
    density : (H, W) array of uint8, optional
        DAB optical density in hundredths, 255 for 2.55 and above.
    nuclei : (n, 2) array of int32, optional
        x and y of the nuclei in the tile; those on membrane count nowhere.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
        What `MembraneMerge.add` takes.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        Shapes differ or are out of range, or a nucleus lies outside.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.
    """
    if arrays.on_cuda(mask, density, nuclei):
        return on_cuda.membrane_label(mask, density, nuclei, device)
    return _core.membrane_label(
        arrays.mask(mask, "mask"),
        None if density is None else as_bytes(density, "density"),
        None if nuclei is None else arrays.host(nuclei, np.int32, "nuclei"),
        device=arrays.host_device(device),
    )


def prune_reach_px(length_px: int) -> int:
    """How far from a pixel `membrane_prune` looks, in pixels."""
    return _core.prune_reach_px(length_px)


def membrane_prune(mask: AnyArray, *, length_px: int, device: str = "cpu") -> Any:
    """Take spurs off a mask: branches with a free end, up to a length.

    A length counts along the centerline, from the free end to where the branch joins
    the rest. Longer branches keep all of theirs, and so does what hangs on nothing: an
    incomplete membrane is no spur. Beyond the mask is none; a part with
    `prune_reach_px(length_px)` round it gives what the whole gives.

    Parameters
    ----------
    mask : (H, W) ndarray of uint8
        Any value but 0 is membrane. 1 to 16384 pixels a side.
    length_px : int
        Longest spur, 1 to `PRUNE_MAX_LENGTH_PX`; 0 takes none off.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    (H, W) ndarray of uint8
        0 or 1; nothing is set that was not.

    Raises
    ------
    ValueError
        Shape or length out of range.
    her2fast.DeviceError
        This build or this machine lacks the device.

    References
    ----------
    Khameneh et al., 2019, Fig. 8c. Guo and Hall, Commun ACM 1989;32:359-373 (thinning).

    Examples
    --------
    >>> import numpy as np
    >>> wall = np.zeros((6, 9), np.uint8)
    >>> wall[4] = 1
    >>> wall[1:4, 4] = 1
    >>> membrane_prune(wall, length_px=3)[:, 4].tolist()
    [0, 0, 0, 1, 1, 0]
    """
    arrays.refuse_cuda("membrane_prune", mask)
    pruned = _core.membrane_prune(arrays.mask(mask, "mask"), length_px, device=device)
    return arrays.like(mask, pruned)


class MembraneMerge:
    """Joins tiles over four sides and four corners, in any order.

    Memory follows the seams that wait for a neighbor. What `take` gives over time is
    the table of the mask in one piece, for every tiling and every order.

    Parameters
    ----------
    width, height : int
        Size of the slide in pixels, 1 to 2**30.
    tile_px : int or (int, int)
        Side, or width and height, of the tiles, 1 to 8192; the last are cut to fit.

    Raises
    ------
    ValueError
        A size out of range, or over 2**28 tiles.

    Examples
    --------
    >>> import numpy as np
    >>> ring = np.pad(np.zeros((2, 2), np.uint8), 1, constant_values=1)
    >>> merge = MembraneMerge(4, 4, tile_px=2)
    >>> for row in (1, 0):
    ...     for column in (0, 1):
    ...         at = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    ...         merge.add(column, row, membrane_label(ring[at]))
    >>> membranes, compartments = merge.finish()
    >>> int(membranes.px[0]), bool(membranes.closed[0]), int(compartments.px[0])
    (12, True, 4)
    """

    def __init__(
        self, width: int, height: int, *, tile_px: int | tuple[int, int]
    ) -> None:
        tile = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
        self._merge = _core.MembraneMerge(width, height, *tile)

    def add(self, column: int, row: int, tile: MembraneTile) -> None:
        """Add the tile at this place of the grid.

        Raises
        ------
        ValueError
            No such place, a wrong size, a tile that was there before, densities in one
            tile and not in another, or after `finish`. Nothing has changed then.
        """
        self._merge.add(column, row, tile)

    def take(self) -> tuple[Membranes, Compartments]:
        """All that is finished and was not taken before."""
        membranes, compartments = self._merge.take()
        return Membranes(**membranes), Compartments(**compartments)

    def finish(self) -> tuple[Membranes, Compartments]:
        """Judge the seams of tiles that never came, and take what is left.

        Membranes there are `incomplete`; what lies beyond encloses nothing.
        """
        self._merge.finish()
        return self.take()

    @property
    def open_components(self) -> int:
        """Components, of membrane or not, on seams that wait."""
        return self._merge.open_components

    @property
    def memory_bytes(self) -> int:
        """Held now, but for what `take` would give."""
        return self._merge.memory_bytes


def find_membranes(
    mask: AnyArray,
    density: AnyArray | None = None,
    *,
    tile_px: int = 512,
    workers: int = 1,
) -> tuple[Membranes, Compartments]:
    """Membranes and compartments of a mask in memory.

    Parameters
    ----------
    mask, density
        As for `membrane_label`, but of any size up to 2**30 pixels a side. The tables
        hold arrays of the kind of the mask.
    tile_px, workers : int
        Side of the tiles and threads that label them, 1 to 1024. They change the time
        it takes, and nothing else.

    Raises
    ------
    ValueError
        As `membrane_label` and `MembraneMerge`, or workers out of range.
    """
    arrays.refuse_cuda("find_membranes", mask, density)
    whole = arrays.mask(mask, "mask")
    hundredths = None if density is None else as_bytes(density, "density")
    if whole.ndim != 2:
        raise ValueError(f"need a mask of two dimensions, got {whole.ndim}")
    if hundredths is not None and hundredths.shape != whole.shape:
        raise ValueError(f"need a density of {whole.shape}, got {hundredths.shape}")
    if not 1 <= workers <= 1024:
        raise ValueError(f"need 1 to 1024 workers, got {workers}")
    height, width = whole.shape
    merge = MembraneMerge(width, height, tile_px=tile_px)
    columns = range(-(-width // tile_px))

    def label(row: int, column: int) -> MembraneTile:
        at: Any = np.s_[
            row * tile_px : (row + 1) * tile_px,
            column * tile_px : (column + 1) * tile_px,
        ]
        part = None if hundredths is None else hundredths[at]
        return membrane_label(whole[at], part)

    with ThreadPoolExecutor(workers) as pool:
        # A row at a time: what is labeled and not merged stays small.
        for row in range(-(-height // tile_px)):
            for column, tile in zip(
                columns, pool.map(partial(label, row), columns), strict=True
            ):
                merge.add(column, row, tile)
    membranes, compartments = merge.finish()
    return (
        Membranes(**arrays.like_all(mask, vars(membranes))),
        Compartments(**arrays.like_all(mask, vars(compartments))),
    )
