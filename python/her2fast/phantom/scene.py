# SPDX-License-Identifier: Apache-2.0
"""A scene: how much of each stain lies where, and what is tumor of which class.

A first, simple anatomy: tumor as glands, nests or sheets of packed cells; stroma with
fibers, spindle cells and lymphocytes; fat, vessels with red cells, glass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import Floats, generator
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid, draw_layout, quantile
from her2fast.phantom.stroma import draw_fat, draw_stroma
from her2fast.phantom.tumor import draw_regions, draw_tumor


@dataclass(frozen=True)
class Scene:
    """Stain amounts and truth of one phantom, at the fine grid."""

    amounts: Floats  # (4, h, w): hematoxylin, DAB, pigment, blood; optical density
    class_map: npt.NDArray[np.int8]  # (h, w): 0 to 3, or -1 where there is no tumor
    tissue: npt.NDArray[np.uint8]  # (h, w): values of `ground.Tissue`


def compose(
    seed: int,
    shape: tuple[int, int],
    spacing_um: float,
    mixture: tuple[float, float, float, float],
    *,
    tumor: bool = True,
) -> Scene:
    """Draw a scene on a fine grid of `shape` at `spacing_um`."""
    rng = generator(seed)
    grid = Grid.over(shape, spacing_um)
    layout = draw_layout(rng, grid)
    depth, lumen = layout.depth_um, layout.lumen_um
    if not tumor:
        depth, lumen = np.full_like(depth, -100.0), np.full_like(lumen, -100.0)
    tissue = np.ones(shape, np.bool_)
    if rng.random() < 0.5:
        outline = grid.noise(rng, rng.uniform(150.0, 400.0)) + 0.1 * grid.noise(
            rng, 20.0
        )
        tissue = outline > quantile(outline, rng.uniform(0.03, 0.35))
    tumor_at = (depth > 0.0) & (lumen <= 0.0) & tissue
    hollow = (lumen > 0.0) | ~tissue

    hematoxylin, pigment = draw_stroma(rng, grid)
    if rng.random() < 0.25:
        hematoxylin = draw_fat(rng, grid, hematoxylin)
    # A cleft between tumor and stroma, as fixation shrinks them apart.
    cleft_um = rng.uniform(0.0, 5.0) * np.clip(grid.noise(rng, 50.0), 0.0, 1.0)
    hematoxylin = np.where((depth <= 0.0) & (depth > -cleft_um), 0.01, hematoxylin)
    hematoxylin = np.where(hollow, 0.0, hematoxylin).astype(np.float32)
    pigment = np.where(hollow, 0.0, pigment).astype(np.float32)
    dab = np.zeros(shape, np.float32)
    class_map = np.full(shape, -1, np.int8)
    region = draw_regions(rng, grid, tumor_at, mixture)
    if tumor_at.any():
        h_tumor, dab_tumor, kind = draw_tumor(rng, grid, tumor_at, layout, region)
        hematoxylin[tumor_at] = h_tumor
        pigment[tumor_at] = 0.0
        dab[tumor_at] = dab_tumor
        class_map[tumor_at] = kind

    # Debris in open spaces, dust-like pigment, and a veil of unspecific stain.
    specks = grid.noise(rng, 3.0) > rng.uniform(2.6, 3.6)
    hematoxylin += np.where(hollow & specks, 0.08, 0.0).astype(np.float32)
    grains = grid.noise(rng, 2.2) > rng.uniform(3.6, 4.4)
    dab += np.where(grains & ~hollow, rng.uniform(0.2, 0.8), 0.0).astype(np.float32)
    if rng.random() < 0.3:
        veil = rng.uniform(0.0, 0.035) * np.clip(1.0 + grid.noise(rng, 80.0), 0.0, 2.5)
        dab += np.where(hollow, 0.1 * veil, veil).astype(np.float32)
    dab = ndimage.gaussian_filter(dab, 0.25 / spacing_um)
    ground = Ground(
        np.stack([hematoxylin, dab, pigment, np.zeros_like(dab)]),
        np.full(shape, Tissue.STROMA, np.uint8),
    )
    ground.tissue[hollow] = Tissue.GLASS
    ground.tissue[(lumen > 0.0) & tissue] = Tissue.LUMEN
    ground.tissue[tumor_at] = Tissue.TUMOR
    return Scene(ground.amounts, class_map, ground.tissue)
