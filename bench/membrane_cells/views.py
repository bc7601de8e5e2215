# SPDX-License-Identifier: Apache-2.0
"""Pictures as another spacing shows them, and masks of their membranes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.kernels.cells import cell_stains
from her2fast.kernels.membrane import membrane_prune

Bytes = npt.NDArray[np.uint8]

SIDE_PX, SPACING_UM = 1024, 0.25
SPACINGS_UM = (0.25, 0.5, 1.0)
#: Cells are found on this grid whatever the spacing, so that nuclei are looked for with
#: the sizes that they were chosen for: pixels of 1 um are repeated.
GRID_UM = 0.5
#: Hundredths of DAB from which the plain threshold calls a pixel membrane.
DAB_CUT = 15


@dataclass(frozen=True)
class View:
    """A picture and its mask as cells are looked for in it.

    `step` pixels lie along one of the grid, `spacing_um` is theirs; `shown_um` is that
    of the picture before pixels were repeated.
    """

    rgb: Bytes
    mask: Bytes
    step: int
    spacing_um: float
    shown_um: float


def coarser(picture: npt.NDArray[Any], times: int) -> npt.NDArray[np.float64]:
    """Means of squares of `times` pixels."""
    height, width = picture.shape[:2]
    squares = picture.reshape(height // times, times, width // times, times, -1)
    means = squares.mean((1, 3), dtype=np.float64)
    return means.reshape(means.shape[:2] + picture.shape[2:])


def view(
    rgb: Bytes, mask: npt.NDArray[np.bool_], spacing_um: float, *, least: float = 0.5
) -> View:
    """What a picture of that spacing shows; `mask` is of 0.25 um/px.

    A pixel is membrane where at least the share `least` of it is; 0: any of it.
    """
    times = round(spacing_um / SPACING_UM)
    shown = np.floor(coarser(rgb, times) + 0.5).astype(np.uint8)
    share = coarser(mask.astype(np.uint8), times)
    walls = (share > 0 if least == 0 else share >= least).astype(np.uint8)
    return on_grid(shown, walls, spacing_um)


def on_grid(shown: Bytes, walls: Bytes, shown_um: float) -> View:
    """Repeats pixels that are coarser than the grid."""
    repeat = max(round(shown_um / GRID_UM), 1)
    spacing_um = shown_um / repeat
    return View(
        np.ascontiguousarray(shown.repeat(repeat, 0).repeat(repeat, 1)),
        np.ascontiguousarray(walls.repeat(repeat, 0).repeat(repeat, 1)),
        round(GRID_UM / spacing_um),
        spacing_um,
        shown_um,
    )


def pruned(given: View, length_um: float) -> View:
    """The view without spurs up to a length."""
    length_px = round(length_um / given.spacing_um)
    mask = membrane_prune(given.mask, length_px=length_px)
    return View(given.rgb, mask, given.step, given.spacing_um, given.shown_um)


def by_threshold(rgb: Bytes, spacing_um: float) -> View:
    """What DAB above a cut calls membrane: a segmentation with spurs and specks."""
    times = round(spacing_um / SPACING_UM)
    shown = np.floor(coarser(rgb, times) + 0.5).astype(np.uint8)
    _, dab = cell_stains(shown, step=1)
    return on_grid(shown, (dab >= DAB_CUT).astype(np.uint8), spacing_um)


def by_network(folder: Path) -> tuple[str, Callable[[Bytes], View]]:
    """A package's network at its own spacing, and a name for it."""
    from her2fast.membranes import NetworkFinder
    from her2fast.methods.membrane_picture import find_in_picture
    from her2fast.models.membrane_package import load_membrane_package
    from her2fast.models.runner import one_intra_op_thread

    package = load_membrane_package(folder)
    finder = NetworkFinder(package)
    side, batch = package.tile_px, package.model.batch_size
    spacing_um = package.spacing_um
    times = round(spacing_um / SPACING_UM)
    wide = SIDE_PX // times
    if times * SPACING_UM != spacing_um or wide % side:
        raise SystemExit(
            f"need a network of 0.25 or 0.5 um/px whose tiles divide {wide} px, got "
            f"{spacing_um:g} um/px and {side} px"
        )

    def find(rgb: Bytes) -> View:
        shown = np.floor(coarser(rgb, times) + 0.5).astype(np.uint8)
        with one_intra_op_thread():
            mask = find_in_picture(finder, shown, tile_px=side, batch_size=batch)
        return pruned(on_grid(shown, mask, spacing_um), package.prune_um)

    return f"network {package.name}", find
