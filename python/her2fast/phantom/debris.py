# SPDX-License-Identifier: Apache-2.0
"""Necrosis, mucin and calcification."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.rings import Room, cover, ring
from her2fast.phantom.textures import clouds, disks, grain, nuclei, paste, scatter


def draw_necrosis(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Smudged remains of cells, nuclear dust and smears of unspecific brown."""
    if not at.any():
        return
    # Its border frays.
    fray = grain(rng, grid.x_um, grid.y_um, 5.0, 5.0)
    soft = ndimage.uniform_filter(
        at.astype(np.float32), max(3, int(9 / grid.spacing_um))
    )
    at = at & (soft + 0.12 * fray > 0.5)
    if not at.any():
        return
    x_um, y_um = grid.x_um[at], grid.y_um[at]
    ghost = grain(rng, x_um, y_um, 7.0, 7.0) * rng.uniform(0.1, 0.5)
    ghost += grain(rng, x_um, y_um, 2.0, 2.0) * rng.uniform(0.1, 0.5)
    pale = clouds(rng, x_um, y_um, 22.0) > rng.uniform(0.8, 2.5)
    smudge = np.clip(1.0 + ghost, 0.0, 2.5) * np.where(pale, 0.3, 1.0)
    ground.hematoxylin[at] = np.float32(rng.uniform(0.02, 0.10)) * smudge
    ground.pigment[at] = np.float32(rng.uniform(0.0, 0.05)) * smudge
    ground.blood[at] = 0.0
    brown = clouds(rng, x_um, y_um, float(rng.uniform(6.0, 40.0)))
    brown = np.clip(brown + rng.uniform(-0.8, 1.5), 0.0, 2.0) * smudge
    strength = rng.uniform(0.05, 0.35) if rng.random() < 0.7 else 0.0
    ground.dab[at] = np.float32(strength) * brown
    ground.tissue[at] = Tissue.NECROSIS

    dust = scatter(rng, grid, float(rng.uniform(5.0, 16.0)), jitter=0.5)
    dust = dust.of(at[dust.row, dust.column] & (rng.random(len(dust)) < 0.8))
    crumbs = disks(rng, grid.spacing_um, (0.4, 1.6), variants=20)
    which = crumbs.pick(rng, np.zeros(len(dust)))
    tone = rng.uniform(0.1, 0.35) * rng.uniform(0.5, 1.4, len(dust))
    paste(ground.hematoxylin, crumbs, which, dust, tone)
    # Some shadows of cells: shrunken, even nuclei.
    shadows = scatter(rng, grid, float(rng.uniform(12.0, 30.0)), jitter=0.5)
    shadows = shadows.of(at[shadows.row, shadows.column])
    bodies = nuclei(
        rng, grid.spacing_um, (2.0, 4.0), (1.4, 3.0), rim=0.0, angles=1, variants=12
    )
    which = bodies.pick(rng, np.zeros(len(shadows)))
    paste(
        ground.hematoxylin, bodies, which, shadows, rng.uniform(0.05, 0.2, len(shadows))
    )


def draw_mucin(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room
) -> None:
    """Pools of pale, streaky, faintly blue mucus with a few cells afloat."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    for _ in range(1 + int(rng.poisson(rng.uniform(0.5, 3.0) * area_mm2))):
        radius = float(rng.uniform(30.0, 140.0))
        center = room.take(rng, radius)
        if center is None:
            continue
        shape = ring(rng, grid, center, radius, wobble=0.15, stretch=1.8)
        share = cover(shape.depth_um, grid)
        turn = float(rng.uniform(0.0, np.pi))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        bent = 14.0 * clouds(rng, shape.x_um, shape.y_um, 60.0)
        along = cos * shape.x_um + sin * shape.y_um
        streaks = grain(rng, along, cos * shape.y_um - sin * shape.x_um + bent, 40, 3)
        value = rng.uniform(0.005, 0.05) * np.clip(0.7 + 0.6 * streaks, 0.0, 2.2)
        rows, columns = shape.window
        for k in range(4):
            ground.amounts[k, rows, columns] *= 1.0 - share
        ground.amounts[0, rows, columns] += share * value
        label = ground.tissue[rows, columns]
        label[shape.depth_um > 0.0] = Tissue.MUCIN
        afloat = scatter(rng, grid, float(rng.uniform(25.0, 60.0)), shape.window)
        deep = shape.depth_um[afloat.row - rows.start, afloat.column - columns.start]
        afloat = afloat.of(deep > 5.0)
        bodies = nuclei(rng, grid.spacing_um, (1.8, 3.2), (1.4, 2.8), angles=1)
        which = bodies.pick(rng, np.zeros(len(afloat)))
        tone = rng.uniform(0.1, 0.24, len(afloat))
        paste(ground.hematoxylin, bodies, which, afloat, tone)


def draw_calcification(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room
) -> None:
    """Dark blue, layered or cracked bodies of 8 to 90 um."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    coarse = rng.random() < 0.4
    count = 1 + int(rng.poisson(rng.uniform(1.0, 12.0) * area_mm2))
    for _ in range(count):
        radius = float(rng.uniform(20.0, 90.0) if coarse else rng.uniform(4.0, 22.0))
        center = room.take(rng, radius)
        if center is None:
            continue
        shape = ring(rng, grid, center, radius, wobble=0.1 + 0.1 * coarse, stretch=1.5)
        share = cover(shape.depth_um, grid)
        layers = np.sin(shape.depth_um * np.float32(6.28 / rng.uniform(2.0, 6.0)))
        rough = grain(rng, shape.x_um, shape.y_um, 2.5, 2.5)
        value = rng.uniform(0.2, 0.8) * np.clip(
            1.0 + rng.uniform(0.0, 0.35) * layers + 0.25 * rough, 0.1, 2.0
        )
        cracks = np.abs(clouds(rng, shape.x_um, shape.y_um, 22.0)) < 0.05
        value *= np.where(cracks & coarse, 0.1, 1.0)
        rows, columns = shape.window
        for k in range(4):
            ground.amounts[k, rows, columns] *= 1.0 - share
        ground.amounts[0, rows, columns] += share * value
        ground.amounts[2, rows, columns] += share * value * rng.uniform(0.0, 0.6)
        label = ground.tissue[rows, columns]
        label[shape.depth_um > 0.0] = Tissue.CALCIFICATION
