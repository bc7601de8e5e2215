# SPDX-License-Identifier: Apache-2.0
"""Brown and black that is no DAB, and DAB where no membrane is: granules and dots."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.textures import Points, disks, paste, scatter


def _heaps(
    rng: np.random.Generator,
    grid: Grid,
    per_mm2: float,
    heap_um: tuple[float, float],
    per_heap: tuple[int, int],
    within: npt.NDArray[np.bool_],
) -> Points:
    """Points in heaps, as granules lie in the cells that ate them."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    heaps = 1 + int(rng.poisson(per_mm2 * area_mm2))
    size_um = np.array([grid.shape[1], grid.shape[0]]) * grid.spacing_um
    # Heaps keep company: some places hold many, most hold none.
    nests = rng.uniform(0.0, 1.0, (1 + heaps // 8, 2)) * size_um
    middle = nests[rng.integers(0, len(nests), heaps)] + rng.normal(0, 45.0, (heaps, 2))
    count = rng.integers(per_heap[0], per_heap[1] + 1, heaps)
    radius = rng.uniform(*heap_um, heaps).repeat(count)[:, None]
    at = middle.repeat(count, axis=0) + 0.5 * radius * rng.standard_normal(
        (int(count.sum()), 2)
    )
    at = at[((at >= 0.0) & (at < size_um)).all(axis=1)]
    column = (at[:, 0] / grid.spacing_um).astype(np.int64)
    row = (at[:, 1] / grid.spacing_um).astype(np.int64)
    points = Points(
        at[:, 0].astype(np.float32), at[:, 1].astype(np.float32), row, column
    )
    return points.of(within[row, column])


def draw_hemosiderin(
    rng: np.random.Generator, grid: Grid, ground: Ground, within: npt.NDArray[np.bool_]
) -> None:
    """Golden to dark brown coarse granules, 0.5 to 2.5 um, heaped in macrophages."""
    points = _heaps(rng, grid, rng.uniform(20.0, 250.0), (3.0, 9.0), (4, 40), within)
    small = float(rng.uniform(0.3, 0.7))
    stamps = disks(rng, grid.spacing_um, (small, small * rng.uniform(1.3, 2.2)))
    which = stamps.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.4, 1.3, len(points))
    gold, brown = rng.uniform(0.2, 0.9), rng.uniform(0.1, 0.6)
    paste(ground.blood, stamps, which, points, gold * tone)
    paste(ground.dab, stamps, which, points, brown * tone)
    paste(ground.pigment, stamps, which, points, rng.uniform(0.0, 0.35) * tone)
    ground.tissue[points.row, points.column] = Tissue.PIGMENT


def draw_black_granules(
    rng: np.random.Generator,
    grid: Grid,
    ground: Ground,
    within: npt.NDArray[np.bool_],
    *,
    fine: bool,
) -> None:
    """Carbon in heaps, or, where `fine`, the black-brown dust of formalin pigment."""
    if fine:
        points = _heaps(
            rng, grid, rng.uniform(60.0, 400.0), (4.0, 14.0), (2, 14), within
        )
        radius = (0.2, 0.55)
    else:
        points = _heaps(
            rng, grid, rng.uniform(20.0, 150.0), (3.0, 10.0), (6, 60), within
        )
        radius = (0.3, 1.1)
    stamps = disks(rng, grid.spacing_um, radius)
    which = stamps.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.6, 1.8, len(points))
    paste(ground.pigment, stamps, which, points, tone)
    if fine:
        paste(ground.blood, stamps, which, points, rng.uniform(0.0, 0.6) * tone)
    ground.tissue[points.row, points.column] = Tissue.PIGMENT


def draw_brown_macrophages(
    rng: np.random.Generator, grid: Grid, ground: Ground, within: npt.NDArray[np.bool_]
) -> None:
    """Single stromal cells with brown, grainy cytoplasm and no membrane line."""
    points = scatter(rng, grid, float(rng.uniform(35.0, 120.0)), jitter=0.5)
    points = points.of(
        within[points.row, points.column] & (rng.random(len(points)) < 0.7)
    )
    bodies = disks(rng, grid.spacing_um, (3.0, 6.5))
    which = bodies.pick(rng, np.zeros(len(points)))
    tone = rng.uniform(0.08, 0.45) * rng.uniform(0.5, 1.4, len(points))
    paste(ground.dab, bodies, which, points, tone)
    cores = disks(rng, grid.spacing_um, (1.6, 2.8))
    which = cores.pick(rng, np.zeros(len(points)))
    paste(
        ground.hematoxylin, cores, which, points, rng.uniform(0.12, 0.24, len(points))
    )


def draw_dab_dots(
    rng: np.random.Generator, grid: Grid, ground: Ground, within: npt.NDArray[np.bool_]
) -> None:
    """Precipitate: sharp brown dots of 0.3 to 3 um, on tissue and glass alike."""
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    for radius, per_mm2 in (((0.25, 0.7), 400.0), ((0.6, 2.0), 40.0)):
        count = int(rng.poisson(per_mm2 * rng.uniform(0.05, 1.5) * area_mm2))
        row = rng.integers(0, grid.shape[0], count)
        column = rng.integers(0, grid.shape[1], count)
        points = Points(
            (column * grid.spacing_um).astype(np.float32),
            (row * grid.spacing_um).astype(np.float32),
            row,
            column,
        ).of(within[row, column])
        stamps = disks(rng, grid.spacing_um, radius)
        which = stamps.pick(rng, np.zeros(len(points)))
        tone = rng.uniform(0.3, 1.4) * rng.uniform(0.5, 1.3, len(points))
        paste(ground.dab, stamps, which, points, tone)
