# SPDX-License-Identifier: Apache-2.0
"""Connective tissue and fat, and how often everything that is no tumor appears."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Floats, resize
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.textures import (
    covered,
    grain,
    nuclei,
    packed,
    paste,
    scatter,
    texture_grid,
    texture_step,
)


@dataclass(frozen=True)
class StromaMix:
    """Probability, in [0, 1], that a scene holds some of each; the rest is by size."""

    fat: float = 0.25
    muscle: float = 0.3
    lymphocytes: float = 0.5
    diffuse_inflammation: float = 0.25
    follicles: float = 0.12
    plasma_cells: float = 0.2
    histiocytes: float = 0.15
    vessels: float = 0.6
    benign_ducts: float = 0.25
    benign_lobules: float = 0.2
    benign_stained: float = 0.4  # of the scenes with benign epithelium
    red_cells: float = 0.3
    hemosiderin: float = 0.12
    anthracosis: float = 0.06
    formalin_pigment: float = 0.05
    brown_macrophages: float = 0.1
    necrosis: float = 0.12
    tumor_necrosis: float = 0.12
    lumen_debris: float = 0.2
    mucin: float = 0.1
    calcification: float = 0.08
    edge_artifact: float = 0.15
    nuclear_dab: float = 0.15
    tumor_nuclear_dab: float = 0.0  # the tumor's own nuclei, as ER or Ki-67 stains them
    brown_stroma: float = 0.12
    dab_dots: float = 0.5
    veil: float = 0.3
    refraction: float = 0.7

    def __post_init__(self) -> None:
        for one in fields(self):
            chance = getattr(self, one.name)
            if not 0.0 <= chance <= 1.0:
                raise ValueError(f"need 0 <= {one.name} <= 1, got {chance}")

    @staticmethod
    def nothing() -> StromaMix:
        """Connective tissue alone."""
        return StromaMix(**{one.name: 0.0 for one in fields(StromaMix)})


#: Optical density of connective tissue in hematoxylin: loose, then dense.
LOOSE_DENSITY = (0.005, 0.03)
DENSE_DENSITY = (0.03, 0.10)


def draw_connective(
    rng: np.random.Generator, grid: Grid, ground: Ground, clear_um: Floats
) -> None:
    """Loose and dense tissue with spindle cells over the whole picture.

    `clear_um` is about the distance from tumor (negative inside): fibers follow it.
    """
    coarse = texture_grid(grid)
    angle = float(rng.uniform(0.0, np.pi))
    bend_um = float(rng.uniform(3.0, 16.0))
    x_um = coarse.x_um + bend_um * coarse.noise(rng, 70.0)
    y_um = coarse.y_um + bend_um * coarse.noise(rng, 70.0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = cos * x_um + sin * y_um, cos * y_um - sin * x_um
    away = resize(np.clip(clear_um[::4, ::4], -10.0, 40.0), coarse.shape)
    across += np.float32(rng.uniform(0.0, 1.0)) * away
    fiber_um = float(rng.uniform(1.3, 2.6))
    streaks = 0.6 * grain(rng, along, across, fiber_um * rng.uniform(8, 16), fiber_um)
    streaks += 0.35 * grain(rng, along, across, 14.0, 0.9)
    band_um = float(rng.uniform(4.0, 12.0))
    bands = grain(rng, along, across, band_um * rng.uniform(5.0, 12.0), band_um)
    fine = grain(rng, x_um, y_um, 1.3, 1.3)
    dense = rng.uniform(-0.8, 1.4) + rng.uniform(0.2, 0.8) * coarse.noise(rng, 110.0)
    dense = np.clip(dense + rng.uniform(0.1, 0.5) * bands, 0.0, 1.0)
    loose_od, dense_od = rng.uniform(*LOOSE_DENSITY), rng.uniform(*DENSE_DENSITY)
    base = loose_od + (dense_od - loose_od) * dense
    contrast = 0.9 - 0.5 * dense
    tissue = base * np.clip(
        1.0 + contrast * (streaks + rng.uniform(0.2, 0.7) * fine), 0.0, 3.0
    )
    # Loose parts are a sponge: thin fibers round empty spaces, by two sizes of mesh.
    sponge = np.zeros(coarse.shape, np.float32)
    for mesh_um in (rng.uniform(4.0, 9.0), rng.uniform(9.0, 20.0)):
        longer = float(rng.choice((1.0, 1.3, 2.5)))
        mesh = np.abs(
            grain(rng, along, across, mesh_um * longer, mesh_um) + 0.2 * streaks
        )
        mesh *= np.float32(mesh_um / 1.7)  # about um from the fiber
        sponge += np.clip(1.0 - mesh / rng.uniform(0.5, 1.1), 0.0, 1.0)
    tissue += rng.uniform(0.01, 0.10) * sponge * (1.0 - dense) * (1.0 + 0.4 * fine)
    # Clefts that shrinkage opens.
    slits = streaks + 0.5 * bands + 0.35 * fine
    open_at = rng.uniform(-2.2, -1.1) - 0.5 * dense
    tissue = np.where(slits < open_at, 0.12 * tissue, tissue)
    tissue = np.maximum(tissue, 0.0)
    ground.hematoxylin[:] = resize(tissue.astype(np.float32), grid.shape)
    grey = rng.uniform(0.0, 0.35)
    if grey > 0.1:
        np.multiply(ground.hematoxylin, np.float32(grey), out=ground.pigment)
    _spindle_cells(rng, grid, ground, angle, clear_um)


def _spindle_cells(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    angle: float,
    clear_um: Floats,
) -> None:
    """Fibroblasts, thin and dark or plump and pale, denser here and there."""
    points = scatter(rng, grid, float(rng.uniform(7.0, 20.0)))
    crowd = smooth_at(rng, grid, 60.0, points.row, points.column)
    keep = rng.random(len(points)) < rng.uniform(0.25, 0.9) + 0.25 * crowd
    keep &= clear_um[points.row, points.column] > 0.5
    points = points.of(keep)
    lean = 0.3 * smooth_at(rng, grid, 40.0, points.row, points.column)
    lean += rng.normal(0.0, rng.uniform(0.1, 0.5), len(points))
    plump = float(rng.uniform(0.0, 1.0))
    stamps = nuclei(
        rng,
        grid.spacing_um,
        (2.4 + plump, 6.5 + 1.5 * plump),
        (0.7 + 0.5 * plump, 1.5 + 1.5 * plump),
        rim=rng.uniform(0.1, 0.6),
    )
    tone = rng.uniform(0.13, 0.26) * rng.uniform(0.6, 1.4, len(points))
    which = stamps.pick(rng, angle + lean)
    paste(ground.hematoxylin, stamps, which, points, tone)


def smooth_at(
    rng: np.random.Generator,
    grid: Grid,
    scale_um: float,
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
) -> Floats:
    """Smooth noise at some pixels only."""
    y = (row * grid.spacing_um).astype(np.float32)
    x = (column * grid.spacing_um).astype(np.float32)
    return grain(rng, x, y, scale_um, scale_um)


def draw_adipose(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Empty cells with thin walls, thicker where three meet; nuclei at the walls."""
    if not at.any():
        return
    coarse, step = texture_grid(grid), texture_step(grid)
    here = covered(at, step)
    cell_um = float(rng.uniform(38.0, 85.0))
    wave_um = float(rng.uniform(1.0, 4.0))
    x_um = coarse.x_um[here] + wave_um * coarse.noise(rng, 22.0)[here]
    y_um = coarse.y_um[here] + wave_um * coarse.noise(rng, 22.0)[here]
    turn = float(rng.uniform(0.0, np.pi))
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    stretch = float(rng.uniform(1.0, 1.3))
    u, v = cos * x_um + sin * y_um, cos * y_um - sin * x_um
    cells = packed(rng, u, v, cell_um * stretch, cell_um, distance=True)
    corner = np.clip(cells.distance - rng.uniform(0.5, 0.66), 0.0, None)
    edge_um = (cells.edge - rng.uniform(0.0, 0.5) * corner) * np.float32(cell_um)
    wall_um = float(rng.uniform(0.5, 1.1)) * (1.0 + 0.3 * grain(rng, x_um, y_um, 9, 9))
    wall = np.clip((wall_um - edge_um) / np.float32(coarse.spacing_um) + 0.5, 0.0, 1.0)
    torn = grain(rng, x_um, y_um, 16.0, 16.0) > rng.uniform(1.2, 2.6)
    wall *= np.where(torn, 0.1, 1.0)
    tone = rng.uniform(0.04, 0.16) * np.clip(
        1.0 + 0.3 * grain(rng, x_um, y_um, 2.0, 2.0), 0.3, 2.0
    )
    film = rng.uniform(0.0, 0.006)
    plane = np.zeros(coarse.shape, np.float32)
    plane[here] = wall * tone + film
    value = resize(plane, grid.shape)
    depth_um = np.full(coarse.shape, -1.0, np.float32)
    depth_um[here] = edge_um
    ground.hematoxylin[at] = value[at]
    ground.pigment[at] = np.float32(rng.uniform(0.0, 0.4)) * value[at]
    ground.dab[at] = (
        np.float32(rng.uniform(0.0, 0.25) * (rng.random() < 0.3)) * value[at]
    )
    ground.blood[at] = 0.0
    ground.tissue[at] = Tissue.FAT
    # Flat nuclei inside the walls: of many points, those at the right distance.
    points = scatter(rng, grid, cell_um / rng.uniform(6.0, 10.0), jitter=0.5)
    points = points.of(at[points.row, points.column])
    row = np.clip(points.row // step, 1, coarse.shape[0] - 2)
    column = np.clip(points.column // step, 1, coarse.shape[1] - 2)
    near_um = 1.1 * coarse.spacing_um
    depth = depth_um[row, column]
    on_wall = (depth > near_um) & (depth < near_um + 1.0)
    on_wall &= rng.random(len(points)) < rng.uniform(0.15, 0.6)
    points, row, column = points.of(on_wall), row[on_wall], column[on_wall]
    slope_y = depth_um[row + 1, column] - depth_um[row - 1, column]
    slope_x = depth_um[row, column + 1] - depth_um[row, column - 1]
    along_wall = np.arctan2(slope_y, slope_x) + np.pi / 2.0
    stamps = nuclei(rng, grid.spacing_um, (2.5, 5.0), (0.9, 1.7), angles=12)
    shade = rng.uniform(0.16, 0.3) * rng.uniform(0.7, 1.3, len(points))
    paste(ground.hematoxylin, stamps, stamps.pick(rng, along_wall), points, shade)


def patch_of(
    rng: np.random.Generator,
    grid: Grid,
    scale_um: float,
    share: float,
    within: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """A blobby part of `within`, of about `share` of the picture."""
    step = max(1, round(4.0 / grid.spacing_um))
    shape = (-(-grid.shape[0] // step), -(-grid.shape[1] // step))
    coarse = Grid.over(shape, grid.spacing_um * step)
    field = coarse.noise(rng, scale_um) + 0.12 * coarse.noise(rng, 18.0)
    level = np.float32(np.quantile(field, 1.0 - share))
    return (resize(field, grid.shape) > level) & within
