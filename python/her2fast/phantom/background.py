# SPDX-License-Identifier: Apache-2.0
"""Puts together what is no tumor: what lies under it, and what lies over everything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.benign import draw_ducts, draw_lobules
from her2fast.phantom.blood import RedCells, draw_red_cells, draw_vessels
from her2fast.phantom.debris import draw_calcification, draw_mucin, draw_necrosis
from her2fast.phantom.fields import Floats
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.immune import (
    draw_diffuse_inflammation,
    draw_follicles,
    draw_histiocytes,
    draw_lymphocytes,
    draw_plasma_cells,
)
from her2fast.phantom.layout import Grid
from her2fast.phantom.muscle import draw_muscle
from her2fast.phantom.pigment import (
    draw_black_granules,
    draw_brown_macrophages,
    draw_dab_dots,
    draw_hemosiderin,
)
from her2fast.phantom.rings import Room
from her2fast.phantom.stroma import StromaMix, draw_adipose, draw_connective, patch_of
from her2fast.phantom.textures import child
from her2fast.phantom.unspecific import (
    draw_brown_stroma,
    draw_edge_artifact,
    draw_nuclear_dab,
    draw_refraction,
    draw_veil,
)


def draw_ground(
    rng: np.random.Generator,
    grid: Grid,
    clear_um: Floats,
    mix: StromaMix,
    dead: npt.NDArray[np.bool_] | None = None,
) -> Ground:
    """Everything that lies under the tumor, over the whole picture.

    Parameters
    ----------
    rng
        Its numbers decide all; each kind of thing has a stream of its own, so that
        leaving one out moves no other.
    grid
        The picture.
    clear_um
        (h, w), about the distance from tumor; negative inside it.
    mix
        How probable each kind of thing is.
    dead
        (h, w), necrosis in the tumor; see `carve_necrosis`.

    Returns
    -------
        Stain amounts and tissues.
    """
    ground = Ground.empty(grid.shape)
    outside = clear_um > 0.0
    room = Room.beside(grid, outside)

    def wanted(chance: float) -> np.random.Generator | None:
        own = child(rng)
        return own if own.random() < chance else None

    draw_connective(child(rng), grid, ground, clear_um)
    if own := wanted(mix.fat):
        share = float(own.uniform(0.1, 0.7))
        at = patch_of(own, grid, float(own.uniform(120.0, 320.0)), share, outside)
        draw_adipose(own, grid, ground, at)
    if own := wanted(mix.muscle):
        share = 1.0 if own.random() < 0.35 else float(own.uniform(0.2, 0.8))
        at = patch_of(own, grid, float(own.uniform(120.0, 400.0)), share, outside)
        draw_muscle(own, grid, ground, at)
    if own := wanted(mix.diffuse_inflammation):
        draw_diffuse_inflammation(own, grid, ground, outside)
    if own := wanted(mix.lymphocytes):
        share = float(own.uniform(0.01, 0.25))
        at = patch_of(own, grid, float(own.uniform(35.0, 120.0)), share, outside)
        draw_lymphocytes(own, grid, ground, at)
    if own := wanted(mix.plasma_cells):
        share = float(own.uniform(0.02, 0.4))
        at = patch_of(own, grid, float(own.uniform(60.0, 150.0)), share, outside)
        draw_plasma_cells(own, grid, ground, at)
    if own := wanted(mix.histiocytes):
        share = float(own.uniform(0.01, 0.25))
        at = patch_of(own, grid, float(own.uniform(35.0, 120.0)), share, outside)
        draw_histiocytes(own, grid, ground, at)
    stained = (own := wanted(mix.benign_stained)) is not None
    if own := wanted(mix.follicles):
        draw_follicles(own, grid, ground, room)
    if own := wanted(mix.benign_lobules):
        draw_lobules(own, grid, ground, room, stained)
    if own := wanted(mix.benign_ducts):
        draw_ducts(own, grid, ground, room, stained)
    if own := wanted(mix.mucin):
        draw_mucin(own, grid, ground, room)
    if own := wanted(mix.calcification):
        draw_calcification(own, grid, ground, room)
    cells = RedCells.draw(child(rng), grid)
    if own := wanted(mix.vessels):
        draw_vessels(own, grid, ground, room, cells)
    if own := wanted(mix.necrosis):
        share = float(own.uniform(0.03, 0.3))
        at = patch_of(own, grid, float(own.uniform(60.0, 200.0)), share, outside)
        draw_necrosis(own, grid, ground, at)
    if own := wanted(mix.red_cells):
        share = float(own.uniform(0.01, 0.25))
        at = patch_of(own, grid, float(own.uniform(25.0, 120.0)), share, outside)
        draw_red_cells(own, grid, ground, at, cells)
    if own := wanted(mix.hemosiderin):
        draw_hemosiderin(own, grid, ground, outside)
    if own := wanted(mix.anthracosis):
        draw_black_granules(own, grid, ground, outside, fine=False)
    if own := wanted(mix.brown_macrophages):
        draw_brown_macrophages(own, grid, ground, outside)
    own = child(rng)
    if dead is not None:
        draw_necrosis(own, grid, ground, dead & outside)
    return ground


def carve_necrosis(
    rng: np.random.Generator, coarse: Grid, depth_um: Floats, mix: StromaMix
) -> npt.NDArray[np.bool_] | None:
    """Take dead parts out of the tumor's depth map, in place; where they are."""
    inside = depth_um > 0.0
    if rng.random() >= mix.tumor_necrosis or not inside.any():
        return None
    # The middle dies first: far from vessels.
    field = coarse.noise(rng, float(rng.uniform(50.0, 160.0)))
    field += np.clip(depth_um / 60.0, 0.0, 1.5)
    level = float(np.quantile(field[inside], 1.0 - rng.uniform(0.05, 0.35)))
    dead: npt.NDArray[np.bool_] = inside & (field > level)
    depth_um[dead] = -4.0
    return dead


def draw_overlay(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    mix: StromaMix,
) -> None:
    """What lies over tumor and stroma alike: precipitate, haze, brown edges."""
    within = (ground.tissue != Tissue.GLASS) & (ground.tissue != Tissue.LUMEN)

    def wanted(chance: float) -> np.random.Generator | None:
        own = child(rng)
        return own if own.random() < chance else None

    if own := wanted(mix.lumen_debris):
        share = float(own.uniform(0.2, 0.8))
        at = patch_of(
            own,
            grid,
            float(own.uniform(30.0, 150.0)),
            share,
            ground.tissue == Tissue.LUMEN,
        )
        if own.random() < 0.6:
            draw_necrosis(own, grid, ground, at)
        else:
            draw_red_cells(own, grid, ground, at, RedCells.draw(own, grid))
        within |= at
    if own := wanted(mix.nuclear_dab):
        draw_nuclear_dab(own, grid, ground, within)
    if own := wanted(mix.brown_stroma):
        draw_brown_stroma(own, grid, ground)
    if own := wanted(mix.edge_artifact):
        draw_edge_artifact(own, grid, ground)
    if own := wanted(mix.veil):
        draw_veil(own, grid, ground)
    if own := wanted(mix.refraction):
        draw_refraction(own, grid, ground)
    if own := wanted(mix.formalin_pigment):
        labels = ground.tissue.copy()
        draw_black_granules(own, grid, ground, within, fine=True)
        # Dust on tumor leaves it tumor.
        ground.tissue[labels == Tissue.TUMOR] = Tissue.TUMOR
    if own := wanted(mix.dab_dots):
        draw_dab_dots(own, grid, ground, np.ones(grid.shape, np.bool_))
