# SPDX-License-Identifier: Apache-2.0
"""Cells placed by random sequential addition and painted as deformed ellipses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import spatial

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def sequential_addition(
    points_um: npt.NDArray[np.floating],
    radius_um: npt.NDArray[np.floating],
    closeness: float,
) -> Indices:
    """Which of the points are kept, taking them one after another.

    A point is kept unless one kept before lies nearer than `closeness` times the sum of
    both radii. Rounds over all pairs give exactly what the one-by-one loop gives.
    """
    count = len(points_um)
    if count == 0:
        return np.zeros(0, np.int64)
    tree = spatial.cKDTree(points_um)
    reach = 2.0 * closeness * float(radius_um.max())
    pairs = tree.query_pairs(reach, output_type="ndarray")
    gap = points_um[pairs[:, 0]] - points_um[pairs[:, 1]]
    limit = closeness * (radius_um[pairs[:, 0]] + radius_um[pairs[:, 1]])
    pairs = pairs[np.einsum("ij,ij->i", gap, gap) < limit**2]
    earlier, later = pairs.min(1), pairs.max(1)
    state = np.zeros(count, np.int8)  # 0 open, 1 kept, -1 out
    while True:
        blocked = np.zeros(count, np.bool_)
        blocked[later] = True  # an open earlier neighbor still decides
        fresh = (state == 0) & ~blocked
        state[fresh] = 1
        if earlier.size == 0:
            break
        state[later[state[earlier] == 1]] = -1
        live = (state[earlier] == 0) & (state[later] == 0)
        earlier, later = earlier[live], later[live]
    return np.flatnonzero(state == 1)


@dataclass(frozen=True)
class Cells:
    """All arrays have one entry per cell, or (cells, k)."""

    x_um: Floats
    y_um: Floats
    radius_um: Floats
    aspect: Floats
    angle: Floats
    wobble: Floats  # (n, 2): second and third harmonics of the outline, relative
    phase: Floats  # (n, 4): of the outline and of the stained arcs
    band_um: Floats  # membrane width
    complete: Floats  # share of the outline that is stained
    nucleus_um: Floats
    nucleus_off: Floats  # (n, 2), share of the radius


@dataclass(frozen=True)
class Painted:
    """Pixels of a batch of cells, in painting order: what comes later lies on top."""

    at: Indices  # flat pixel index
    cell: Indices
    share: Floats  # of the pixel that membrane covers
    nucleus: Floats  # in [0, 1]
    rim: Floats  # in [0, 1]: the nuclear envelope


def paint(
    cells: Cells, order: Indices, shape: tuple[int, int], spacing_um: float
) -> Painted:
    """Rasterize the cells of `order` (first in packing comes last: it covers)."""
    long_um = cells.radius_um[order] * np.sqrt(cells.aspect[order]) * 1.25
    reach_um = float((long_um + cells.band_um[order]).max())
    reach = int(np.ceil(reach_um / spacing_um)) + 1
    side = np.arange(-reach, reach + 1)
    middle_x = np.floor(cells.x_um[order] / spacing_um).astype(np.int64)
    middle_y = np.floor(cells.y_um[order] / spacing_um).astype(np.int64)
    columns = middle_x[:, None] + side  # (n, k)
    rows = middle_y[:, None] + side
    dx = (columns + 0.5) * spacing_um - cells.x_um[order][:, None]
    dy = (rows + 0.5) * spacing_um - cells.y_um[order][:, None]
    cos, sin = np.cos(cells.angle[order]), np.sin(cells.angle[order])
    stretch = np.sqrt(cells.aspect[order])
    dx, dy = dx.astype(np.float32)[:, None, :], dy.astype(np.float32)[:, :, None]
    radius = cells.radius_um[order][:, None, None]
    u = (cos[:, None, None] * dx + sin[:, None, None] * dy) / stretch[:, None, None]
    v = (cos[:, None, None] * dy - sin[:, None, None] * dx) * stretch[:, None, None]
    far = np.hypot(u, v)
    # Cheap cut first: trigonometry only where the cell can reach.
    near = far < radius * 1.3 + cells.band_um[order][:, None, None]
    near &= ((rows >= 0) & (rows < shape[0]))[:, :, None]
    near &= ((columns >= 0) & (columns < shape[1]))[:, None, :]
    which, row, column = np.nonzero(near)
    u, v, far = u[near], v[near], far[near]
    cell = order[which]
    theta = np.arctan2(v, u)
    phase = cells.phase[cell]
    outline = 1.0 + cells.wobble[cell, 0] * np.cos(2.0 * theta + phase[:, 0])
    outline += cells.wobble[cell, 1] * np.cos(3.0 * theta + phase[:, 1])
    inside_um = cells.radius_um[cell] * outline - far
    half = np.float32(spacing_um / 2.0)
    band = cells.band_um[cell]
    # Length of the pixel's row across the outline that lies within the band.
    share = np.minimum(inside_um + half, band) - np.maximum(inside_um - half, 0.0)
    share = np.clip(share / (2.0 * half), 0.0, 1.0)
    arcs = np.cos(theta + phase[:, 2]) + 0.8 * np.cos(2.0 * theta + phase[:, 3])
    # Quantiles of that sum run from about -1.3 to 1.8, close to evenly.
    cut = np.float32(1.8) - np.float32(3.1) * cells.complete[cell]
    share *= np.clip((arcs - cut) / np.float32(0.3) + 0.5, 0.0, 1.0)
    off = cells.nucleus_off[cell] * cells.radius_um[cell, None]
    big = cells.nucleus_um[cell]
    depth_um = big - np.hypot(u - off[:, 0], (v - off[:, 1]) * np.float32(1.2))
    nucleus = np.clip(depth_um / (2.0 * half) + 0.5, 0.0, 1.0)
    rim = np.clip(1.0 - np.abs(depth_um - 0.4) / 0.9, 0.0, 1.0)
    body = inside_um > -half
    at = (rows[which, row] * shape[1] + columns[which, column])[body]
    return Painted(
        at,
        cell[body],
        share[body].astype(np.float32),
        nucleus[body].astype(np.float32),
        rim[body].astype(np.float32),
    )
