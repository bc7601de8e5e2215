# SPDX-License-Identifier: Apache-2.0
"""Vessels and red cells: refractile, tan, some brown as DAB by their peroxidase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import Floats
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.rings import Room, cover, inside, ring
from her2fast.phantom.textures import Points, Stamps, grain, nuclei, paste, scatter

#: Radius of red cells after fixation, um.
RED_CELL_UM = (2.2, 3.4)


@dataclass(frozen=True)
class RedCells:
    """The look of one scene's red cells: optical densities of one cell."""

    tan: float
    brown: float  # DAB: peroxidase of their own that was not blocked
    grey: float  # refractile borders
    stamps: Stamps
    rims: Stamps

    @staticmethod
    def draw(rng: np.random.Generator, grid: Grid) -> RedCells:
        """Tan, grey or brown ones."""
        look = int(rng.choice(3, p=(0.45, 0.25, 0.3)))
        tan = (
            rng.uniform(0.05, 0.28),
            rng.uniform(0.01, 0.06),
            rng.uniform(0.03, 0.15),
        )
        brown = (0.0, 0.0, rng.uniform(0.1, 0.7))
        grey = (rng.uniform(0.0, 0.1), rng.uniform(0.08, 0.3), rng.uniform(0.0, 0.15))
        bodies = nuclei(
            rng,
            grid.spacing_um,
            RED_CELL_UM,
            (1.3, RED_CELL_UM[1]),
            rim=rng.uniform(0.0, 0.5),
            mottle=0.08,
            angles=1,
            variants=24,
        ).pictures
        # Refraction darkens the border, about 0.6 um of it.
        wide = 2 * max(1, round(0.6 / grid.spacing_um)) + 1
        rims = bodies - ndimage.grey_erosion(bodies, (1, wide, wide))
        rims = np.clip(rims + 0.25 * bodies, 0.0, 1.0)
        return RedCells(
            float(tan[look]),
            float(brown[look]),
            float(grey[look]),
            Stamps(bodies, 1),
            Stamps(rims, 1),
        )

    def paste(self, rng: np.random.Generator, ground: Ground, points: Points) -> None:
        """Stamp cells at points."""
        which = rng.integers(0, self.stamps.pictures.shape[0], len(points))
        tone = rng.uniform(0.7, 1.3, len(points))
        paste(ground.blood, self.stamps, which, points, self.tan * tone)
        if self.brown > 0.0:
            paste(ground.dab, self.stamps, which, points, self.brown * tone)
        if self.grey > 0.02:
            paste(ground.pigment, self.rims, which, points, self.grey * tone)


def draw_red_cells(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    at: npt.NDArray[np.bool_],
    cells: RedCells,
) -> None:
    """A sheet of cells outside vessels, whole ones or lysed to an even tan film."""
    if not at.any():
        return
    dense = float(rng.uniform(0.4, 1.0))
    if rng.random() < 0.35:
        film = np.clip(
            0.8 + 0.3 * grain(rng, grid.x_um[at], grid.y_um[at], 6.0, 6.0), 0, 2
        )
        ground.blood[at] += np.float32(0.6 * cells.tan) * film
        ground.dab[at] += np.float32(0.5 * cells.brown) * film
    else:
        ground.hematoxylin[at] *= np.float32(1.0 - 0.6 * dense)
    points = scatter(rng, grid, float(rng.uniform(4.8, 6.5)))
    keep = at[points.row, points.column] & (rng.random(len(points)) < dense)
    cells.paste(rng, ground, points.of(keep))
    ground.tissue[at] = Tissue.BLOOD


def draw_vessels(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room, cells: RedCells
) -> None:
    """Arterioles with a coat of muscle, venules and capillaries."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    flat = nuclei(rng, grid.spacing_um, (2.5, 4.5), (0.8, 1.5), rim=0.2)
    coat = nuclei(rng, grid.spacing_um, (3.0, 6.0), (0.9, 1.5), blunt=2.6)
    for kind, per_mm2 in (
        ("arteriole", rng.uniform(0.0, 6.0)),
        ("venule", rng.uniform(2.0, 14.0)),
        ("capillary", rng.uniform(10.0, 70.0)),
    ):
        for _ in range(int(rng.poisson(per_mm2 * area_mm2 + 0.3))):
            _vessel(rng, grid, ground, room, cells, kind, flat, coat)


def _vessel(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    room: Room,
    cells: RedCells,
    kind: str,
    flat: Stamps,
    coat: Stamps,
) -> None:
    if kind == "arteriole":
        radius, wall = float(rng.uniform(16.0, 60.0)), float(rng.uniform(0.3, 0.6))
        stretch, wobble = 1.4, 0.04
    elif kind == "venule":
        radius, wall = float(rng.uniform(12.0, 60.0)), float(rng.uniform(0.06, 0.16))
        stretch, wobble = 2.4, 0.09
    else:
        radius, wall = float(rng.uniform(3.5, 8.0)), 0.25
        stretch, wobble = 1.8, 0.05
    center = room.take(rng, radius + 1.0)
    if center is None:
        return
    shape = ring(
        rng, grid, center, radius, wobble=wobble, stretch=stretch, margin_um=3.0
    )
    wall_um = np.float32(max(wall * radius, 1.2))
    depth = shape.depth_um
    tissue = cover(depth, grid)
    lumen = cover(depth - wall_um, grid)
    arc = shape.angle * np.float32(radius)
    layers = grain(rng, arc, depth, 26.0, 2.2)
    value = rng.uniform(0.03, 0.10) * np.clip(1.0 + 0.35 * layers, 0.2, 2.0)
    lining = np.clip(1.0 - np.abs(depth - wall_um) / 0.9, 0.0, 1.0)
    value = (tissue - lumen) * value + lining * rng.uniform(0.02, 0.10)
    rows, columns = shape.window
    planes = [ground.amounts[k, rows, columns] for k in range(4)]
    for plane in planes:
        plane *= 1.0 - tissue
    plasma = float(rng.uniform(0.0, 0.03)) * (rng.random() < 0.4)
    planes[0] += value + lumen * np.float32(plasma)
    if rng.random() < 0.1:  # serum that took up DAB
        planes[1] += lumen * np.float32(rng.uniform(0.03, 0.3))
    if rng.random() < 0.15:  # unspecific brown in a wall
        planes[1] += (tissue - lumen) * np.float32(rng.uniform(0.02, 0.15))
    label = ground.tissue[rows, columns]
    label[depth > 0.0] = Tissue.VESSEL

    around = 2.0 * np.pi * radius
    count = max(int(around / rng.uniform(7.0, 14.0)), 1)
    theta = rng.uniform(0.0, 2.0 * np.pi, count)
    at = shape.at(theta, np.full(count, wall_um - 0.6), grid)
    ok = inside(at, grid)
    tone = rng.uniform(0.16, 0.28, count)
    which = flat.pick(rng, theta + np.pi / 2.0)
    paste(ground.hematoxylin, flat, which[ok], at.of(ok), tone[ok])
    if kind == "arteriole":
        count = int(around * float(wall_um) / 90.0) + 1
        theta = rng.uniform(0.0, 2.0 * np.pi, count)
        at = shape.at(theta, rng.uniform(0.1, 0.9, count) * wall_um, grid)
        ok = inside(at, grid)
        which = coat.pick(rng, theta + np.pi / 2.0)
        tone = rng.uniform(0.14, 0.24, count)
        paste(ground.hematoxylin, coat, which[ok], at.of(ok), tone[ok])
    if rng.random() < 0.65:
        _fill(rng, grid, ground, shape.window, depth - wall_um, cells)


def _fill(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    window: tuple[slice, slice],
    room_um: Floats,
    cells: RedCells,
) -> None:
    """Red cells in a lumen: packed, loose, or to one side."""
    points = scatter(rng, grid, float(rng.uniform(4.6, 6.0)), window)
    row = points.row - window[0].start
    column = points.column - window[1].start
    keep = room_um[row, column] > 1.5
    keep &= rng.random(len(points)) < rng.uniform(0.2, 1.0)
    cells.paste(rng, ground, points.of(keep))
    ground.tissue[window][room_um > 1.5] = Tissue.BLOOD
