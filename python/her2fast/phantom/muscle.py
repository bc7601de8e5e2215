# SPDX-License-Identifier: Apache-2.0
"""Smooth and skeletal muscle, cut along, across or both; no tumor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Floats, resize
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.textures import (
    TILE_CELLS,
    covered,
    grain,
    nuclei,
    packed,
    paste,
    scatter,
    texture_grid,
    texture_step,
)

#: Optical density of the fascicles in hematoxylin. A core of muscle measured 0.04 to
#: 0.06 at a weak counterstain; laboratories multiply this by up to two.
BODY_DENSITY = (0.03, 0.12)
#: Grey without any stain's hue.
GREY_DENSITY = (0.0, 0.03)
FASCICLE_UM = (60.0, 220.0)
SMOOTH_CELL_UM = (5.0, 9.0)
SKELETAL_FIBER_UM = (22.0, 55.0)


def draw_muscle(
    rng: np.random.Generator, grid: Grid, ground: Ground, at: npt.NDArray[np.bool_]
) -> None:
    """Fill `at` with fascicles of one bundle of muscle."""
    if not at.any():
        return
    coarse, step = texture_grid(grid), texture_step(grid)
    here = covered(at, step)
    angle = float(rng.uniform(0.0, np.pi))
    bend_um = float(rng.uniform(1.0, 14.0))
    x_um = coarse.x_um[here] + bend_um * coarse.noise(rng, 90.0)[here]
    y_um = coarse.y_um[here] + bend_um * coarse.noise(rng, 90.0)[here]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = np.asarray(cos * x_um + sin * y_um, np.float32)
    across = np.asarray(cos * y_um - sin * x_um, np.float32)
    skeletal = rng.random() < 0.3

    wide_um = float(rng.uniform(*FASCICLE_UM))
    bundle = packed(rng, along, across, wide_um * rng.uniform(2.0, 7.0), wide_um)
    # Bundles lean a little against each other; some are cut across.
    lean = rng.normal(0.0, 0.12, TILE_CELLS**2).astype(np.float32)
    cut = rng.choice(3, p=(0.5, 0.2, 0.3))  # along, across, both
    crossed = rng.random(TILE_CELLS**2) < (0.0, 1.0, 0.5)[cut]
    across = np.asarray(across + lean[bundle.cell] * along, np.float32)
    body = float(rng.uniform(*BODY_DENSITY))
    value = np.empty(x_um.shape, np.float32)
    round_cut = crossed[bundle.cell]
    some = ~round_cut
    value[some] = _cut_along(rng, along[some], across[some], skeletal)
    value[round_cut] = _cut_across(rng, x_um[round_cut], y_um[round_cut], skeletal)
    value *= 1.0 + rng.uniform(0.02, 0.12) * coarse.noise(rng, 60.0)[here]
    np.clip(value, 0.1, 2.2, out=value)

    # Loose tissue or an open cleft between bundles.
    gap_um = float(rng.choice((rng.uniform(0.3, 3.0), rng.uniform(3.0, 14.0))))
    half_gap = gap_um * np.clip(0.5 + 0.4 * coarse.noise(rng, 45.0)[here], 0.0, 1.5)
    inside_um = bundle.edge * np.float32(wide_um) - half_gap
    fill = np.clip(inside_um / np.float32(coarse.spacing_um) + 0.5, 0.0, 1.0)
    wisps = np.clip(grain(rng, x_um, y_um, 2.5, 9.0) - 0.8, 0.0, 1.0)
    between = rng.uniform(0.0, 0.06) * wisps + rng.uniform(0.0, 0.01)
    plane = np.zeros(coarse.shape, np.float32)
    plane[here] = fill * value * body + (1.0 - fill) * between

    ground.hematoxylin[at] = resize(plane, grid.shape)[at]
    grey = float(rng.uniform(*GREY_DENSITY)) / body
    ground.pigment[at] = grey * ground.hematoxylin[at]
    ground.dab[at] = 0.0
    ground.blood[at] = 0.0
    ground.tissue[at] = Tissue.MUSCLE

    # Where nuclei may lie, and in which bundle: -1 between them.
    number = np.full(coarse.shape, -1, np.int32)
    number[here] = np.where(fill > 0.9, bundle.cell, -1)
    pitch_um = float(rng.uniform(11.0, 26.0)) * (1.6 if skeletal else 1.0)
    points = scatter(rng, grid, pitch_um)
    points = points.of(at[points.row, points.column])
    cell = number[points.row // step, points.column // step]
    points, cell = points.of(cell >= 0), cell[cell >= 0]
    tone = rng.uniform(0.03, 0.16) * rng.uniform(0.6, 1.4, len(points)) + body
    long_um = float(rng.uniform(5.0, 9.0))
    rods = nuclei(
        rng,
        grid.spacing_um,
        (0.5 * long_um, long_um),
        (1.0, 1.9),
        rim=rng.uniform(0.1, 0.6),
        blunt=2.6,
    )
    dots = nuclei(rng, grid.spacing_um, (1.2, 2.6), (1.0, 2.2), angles=1, variants=12)
    round_cut = crossed[cell]
    turned = angle - np.arctan(lean[cell])
    for stamps, some in ((rods, ~round_cut), (dots, round_cut)):
        chosen = points.of(some)
        which = stamps.pick(rng, turned[some])
        paste(ground.hematoxylin, stamps, which, chosen, tone[some])


def _cut_along(
    rng: np.random.Generator, along: Floats, across: Floats, skeletal: bool
) -> Floats:
    """Parallel fibers, about 1 on average."""
    fine = grain(rng, along, across, rng.uniform(8.0, 50.0), rng.uniform(0.9, 1.8))
    dust = grain(rng, along, across, rng.uniform(1.5, 16.0), 0.9)
    if not skeletal:
        cell_um = float(rng.uniform(*SMOOTH_CELL_UM))
        cells = grain(rng, along, across, cell_um * rng.uniform(8.0, 14.0), cell_um)
        value = 1.0 + rng.uniform(0.15, 0.45) * fine + rng.uniform(0.03, 0.25) * cells
        # Cells that end, and holes round nuclei, break the lines.
        patchy = grain(rng, along, across, 14.0, 3.5)
        value += rng.uniform(0.05, 0.25) * patchy + rng.uniform(0.1, 0.4) * dust
        return np.asarray(value, np.float32)
    fiber_um = float(rng.uniform(*SKELETAL_FIBER_UM))
    fibers = packed(rng, along, across, fiber_um * 14.0, fiber_um)
    tone = rng.normal(1.0, 0.12, TILE_CELLS**2).astype(np.float32)
    inside = np.clip(fibers.edge * np.float32(fiber_um) - rng.uniform(0.2, 1.5), 0, 1)
    bands = np.sin(along * np.float32(2.0 * np.pi / 2.3))
    value = tone[fibers.cell] * (1.0 + rng.uniform(0.04, 0.15) * fine + 0.1 * dust)
    value += rng.uniform(0.0, 0.15) * bands
    return np.asarray(value * (0.25 + 0.75 * inside), np.float32)


def _cut_across(
    rng: np.random.Generator, x_um: Floats, y_um: Floats, skeletal: bool
) -> Floats:
    """Packed cross sections of fibers, about 1 on average."""
    cell_um = float(rng.uniform(*(SKELETAL_FIBER_UM if skeletal else SMOOTH_CELL_UM)))
    fibers = packed(rng, x_um, y_um, cell_um, cell_um)
    tone = rng.normal(1.05, 0.2, TILE_CELLS**2).astype(np.float32)
    border_um = rng.uniform(0.3, 0.9) if not skeletal else rng.uniform(0.8, 3.0)
    inside = np.clip(fibers.edge * np.float32(cell_um) / border_um, 0.0, 1.0)
    stipple = grain(rng, x_um, y_um, 1.1, 1.1)
    value = tone[fibers.cell] * (1.0 + rng.uniform(0.1, 0.35) * stipple)
    return np.asarray(value * (0.35 + 0.65 * inside), np.float32)
