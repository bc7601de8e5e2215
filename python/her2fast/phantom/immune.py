# SPDX-License-Identifier: Apache-2.0
"""Lymphocytes, follicles, plasma cells and histiocytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.rings import Room, ring
from her2fast.phantom.textures import Points, disks, grain, nuclei, paste, scatter


def draw_lymphocytes(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Small round dark nuclei, packed or loose, in `at`."""
    points = scatter(rng, grid, float(rng.uniform(6.8, 10.0)))
    keep = at[points.row, points.column] & (
        rng.random(len(points)) < rng.uniform(0.4, 1)
    )
    _small_round(rng, grid, ground, points.of(keep))
    ground.tissue[at] = Tissue.LYMPHOID


def draw_diffuse_inflammation(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Single round cells all over loose tissue, more here and fewer there."""
    points = scatter(rng, grid, float(rng.uniform(8.0, 16.0)), jitter=0.5)
    crowd = grain(rng, points.x_um, points.y_um, 70.0, 70.0)
    chance = np.clip(rng.uniform(0.1, 0.6) + 0.3 * crowd, 0.0, 1.0)
    # They wander through loose tissue, not through dense collagen, muscle or fat.
    chance *= ground.tissue[points.row, points.column] == Tissue.STROMA
    keep = at[points.row, points.column] & (rng.random(len(points)) < chance)
    _small_round(rng, grid, ground, points.of(keep))


def _small_round(
    rng: np.random.Generator, grid: Grid, ground: Ground, points: Points
) -> None:
    stamps = nuclei(
        rng,
        grid.spacing_um,
        (2.3, 3.6),
        (2.0, 3.3),
        rim=0.35,
        mottle=0.3,
        angles=1,
        variants=24,
    )
    which = stamps.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.2, 0.34) * rng.uniform(0.75, 1.2, len(points))
    paste(ground.hematoxylin, stamps, which, points, tone)


def draw_follicles(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room
) -> None:
    """Round crowds of 60 to 220 um radius, many with a paler center of larger cells."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    for _ in range(1 + int(rng.poisson(0.8 * area_mm2))):
        radius = float(rng.uniform(60.0, 220.0))
        center = room.take(rng, 0.8 * radius)
        if center is None:
            continue
        shape = ring(rng, grid, center, radius, wobble=0.08, stretch=1.4)
        rows, columns = shape.window
        points = scatter(rng, grid, float(rng.uniform(6.6, 8.0)), shape.window)
        depth = shape.depth_um[points.row - rows.start, points.column - columns.start]
        # The border frays: fewer and fewer cells.
        chance = np.clip((depth + 12.0) / 24.0, 0.0, 0.95)
        chance *= (depth < 0.45 * radius) | (rng.random() < 0.4)
        _small_round(rng, grid, ground, points.of(rng.random(len(points)) < chance))
        middle = scatter(rng, grid, float(rng.uniform(9.0, 11.0)), shape.window)
        depth = shape.depth_um[middle.row - rows.start, middle.column - columns.start]
        middle = middle.of(depth > 0.45 * radius)
        large = nuclei(
            rng,
            grid.spacing_um,
            (3.0, 4.6),
            (2.6, 4.0),
            rim=0.7,
            angles=1,
            variants=16,
        )
        which = large.pick(rng, np.zeros(len(middle)))
        tone = rng.uniform(0.11, 0.2, len(middle))
        paste(ground.hematoxylin, large, which, middle, tone)
        ground.tissue[rows, columns][shape.depth_um > 0.0] = Tissue.LYMPHOID


def draw_plasma_cells(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Nuclei at one side of an oval, bluish-grey cytoplasm; clumped chromatin."""
    points = scatter(rng, grid, float(rng.uniform(10.0, 16.0)))
    keep = at[points.row, points.column] & (
        rng.random(len(points)) < rng.uniform(0.3, 1)
    )
    points = points.of(keep)
    bodies = disks(rng, grid.spacing_um, (3.8, 5.6), variants=16)
    which = bodies.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.05, 0.12) * rng.uniform(0.8, 1.2, len(points))
    paste(ground.hematoxylin, bodies, which, points, tone)
    paste(ground.pigment, bodies, which, points, 0.25 * tone)
    turn = rng.uniform(0.0, 2.0 * np.pi, len(points))
    shift_px = 2.0 / grid.spacing_um
    row = points.row + np.rint(shift_px * np.sin(turn)).astype(np.int64)
    column = points.column + np.rint(shift_px * np.cos(turn)).astype(np.int64)
    moved = Points(
        points.x_um,
        points.y_um,
        np.clip(row, 0, grid.shape[0] - 1),
        np.clip(column, 0, grid.shape[1] - 1),
    )
    cores = nuclei(
        rng,
        grid.spacing_um,
        (2.2, 3.0),
        (2.0, 2.8),
        rim=0.5,
        mottle=0.5,
        angles=1,
        variants=16,
    )
    which = cores.pick(rng, np.zeros(len(moved)))
    paste(ground.hematoxylin, cores, which, moved, rng.uniform(0.18, 0.3, len(moved)))


def draw_histiocytes(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Sheets or single large pale cells, foamy or even, with one small nucleus."""
    pitch_um = float(rng.uniform(11.0, 18.0))
    points = scatter(rng, grid, pitch_um, jitter=0.25)
    keep = at[points.row, points.column] & (
        rng.random(len(points)) < rng.uniform(0.5, 1)
    )
    points = points.of(keep)
    bodies = disks(
        rng, grid.spacing_um, (0.36 * pitch_um, 0.54 * pitch_um), variants=16
    )
    which = bodies.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.02, 0.09) * rng.uniform(0.8, 1.2, len(points))
    plane = np.zeros(grid.shape, np.float32)
    paste(plane, bodies, which, points, tone)
    foam = grain(rng, grid.x_um, grid.y_um, 1.6, 1.6)
    plane *= np.clip(1.0 + rng.uniform(0.1, 0.6) * foam, 0.1, 2.2)
    full = plane > 0.0
    ground.hematoxylin[full] = plane[full]
    ground.pigment[full] = np.float32(rng.uniform(0.0, 0.3)) * plane[full]
    ground.tissue[full] = Tissue.LYMPHOID
    cores = nuclei(
        rng, grid.spacing_um, (2.2, 3.6), (1.7, 2.8), rim=0.5, angles=1, variants=16
    )
    which = cores.pick(rng, np.zeros(len(points)))
    row = points.row + rng.integers(-2, 3, len(points)) * round(1 / grid.spacing_um)
    column = points.column + rng.integers(-2, 3, len(points)) * round(
        1 / grid.spacing_um
    )
    moved = Points(
        points.x_um,
        points.y_um,
        np.clip(row, 0, grid.shape[0] - 1),
        np.clip(column, 0, grid.shape[1] - 1),
    )
    paste(ground.hematoxylin, cores, which, moved, rng.uniform(0.12, 0.26, len(moved)))
