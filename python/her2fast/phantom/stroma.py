# SPDX-License-Identifier: Apache-2.0
"""What is no tumor in a scene: stroma, lymphocytes, vessels, fat."""

from __future__ import annotations

import numpy as np

from her2fast.phantom.fields import Cells, Floats, fibers, per_cell
from her2fast.phantom.layout import Grid


def draw_stroma(rng: np.random.Generator, grid: Grid) -> tuple[Floats, Floats]:
    """Hematoxylin and pigment of stroma over the whole grid."""
    angle = rng.uniform(0.0, np.pi) + 0.5 * grid.noise(rng, 120.0)
    main = float(np.mean(angle))
    bend = rng.uniform(2.0, 12.0)
    x_um = grid.x_um + bend * grid.noise(rng, 70.0)
    y_um = grid.y_um + bend * grid.noise(rng, 70.0)
    along = np.float32(np.cos(main)) * x_um + np.float32(np.sin(main)) * y_um
    across = np.float32(np.cos(main)) * y_um - np.float32(np.sin(main)) * x_um
    streaks = 0.75 * fibers(rng, along, across, float(rng.uniform(1.2, 2.6)))
    streaks += 0.4 * fibers(rng, along, across, float(rng.uniform(3.0, 7.0)))
    streaks += rng.uniform(0.2, 0.7) * grid.noise(rng, rng.uniform(1.5, 4.0))
    kind = rng.choice(3, p=(0.4, 0.35, 0.25))  # loose, collagen, muscle
    base = (rng.uniform(0.008, 0.03), rng.uniform(0.03, 0.06), rng.uniform(0.04, 0.08))
    contrast = (0.8, 0.5, 0.35)[kind]
    tissue = base[kind] * np.clip(1.0 + contrast * streaks, 0.0, 3.0)
    if kind < 2:  # a net of thin fibers round the spaces of loose tissue
        net = np.abs(grid.noise(rng, rng.uniform(7.0, 16.0)) + 0.3 * streaks)
        tissue += rng.uniform(0.01, 0.09) * np.exp(-((net / 0.12) ** 2))
    slits = streaks + 0.6 * grid.noise(rng, 30.0)
    open_at = (-1.0, -1.5, -1.9)[kind]
    tissue = np.where(slits < open_at, 0.15 * tissue, tissue)
    tissue *= np.clip(1.0 + 0.25 * grid.noise(rng, 90.0), 0.4, 1.6)

    # Spindle and round nuclei; where lymphocytes crowd, smaller, round, dark ones.
    pitch_um = float(rng.uniform(6.5, 15.0))
    slender = float(rng.uniform(1.4, 3.5))
    packing = Cells(rng)(
        along / np.float32(pitch_um * 1.5), across / np.float32(pitch_um)
    )
    cell = packing.cell
    thin_um = per_cell(rng, 1.3, 2.6)[cell]
    long_um = thin_um * per_cell(rng, 1.0, slender)[cell]
    lean = per_cell(rng, -0.5, 0.5)[cell]
    off_u = packing.du * np.float32(pitch_um * 1.5)
    off_v = packing.dv * np.float32(pitch_um) + lean * off_u
    inside = (1.0 - np.hypot(off_u / long_um, off_v / thin_um)) * thin_um
    body = np.clip(inside / np.float32(grid.spacing_um) + 0.5, 0.0, 1.0)
    body *= per_cell(rng, 0.0, 1.0)[cell] < rng.uniform(0.25, 0.95)
    chromatin = np.clip(1.0 + 0.25 * grid.noise(rng, 1.6), 0.4, 1.7)
    tone = rng.uniform(0.16, 0.26) * per_cell(rng, 0.6, 1.4)[cell]
    tissue = tissue + body * tone * chromatin

    crowd = grid.noise(rng, rng.uniform(40.0, 110.0))
    crowded = crowd > rng.uniform(0.9, 2.6)
    if crowded.any():
        size_um = float(rng.uniform(7.5, 9.5))
        u, v = grid.x_um[crowded] / size_um, grid.y_um[crowded] / size_um
        packed = Cells(rng)(u.astype(np.float32), v.astype(np.float32))
        r_um = per_cell(rng, 2.3, 3.4)[packed.cell]
        round_body = np.clip(
            (r_um - packed.distance * size_um) / grid.spacing_um + 0.5, 0.0, 1.0
        )
        round_body *= per_cell(rng, 0.0, 1.0)[packed.cell] < 0.85
        dark = rng.uniform(0.2, 0.3) * per_cell(rng, 0.8, 1.2)[packed.cell]
        tissue[crowded] = np.maximum(
            tissue[crowded], round_body * dark * chromatin[crowded]
        )

    # Red cells in vessels: rings of a refractile border, no stain of their own.
    pigment = np.zeros(grid.shape, np.float32)
    vessel = grid.noise(rng, 25.0) > rng.uniform(1.9, 2.8)
    if vessel.any():
        u, v = grid.x_um[vessel] / 6.5, grid.y_um[vessel] / 6.5
        packed = Cells(rng)(u.astype(np.float32), v.astype(np.float32))
        ring = np.exp(-(((packed.distance * 6.5 - 2.6) / 0.6) ** 2))
        there = per_cell(rng, 0.0, 1.0)[packed.cell] < 0.7
        pigment[vessel] = there * (rng.uniform(0.06, 0.2) * ring + rng.uniform(0, 0.05))
        tissue[vessel] *= 0.2
    return tissue.astype(np.float32), pigment


def draw_fat(rng: np.random.Generator, grid: Grid, tissue: Floats) -> Floats:
    """Replace part of the stroma by fat: empty cells with thin walls."""
    here = grid.noise(rng, 200.0) > rng.uniform(0.3, 1.5)
    if not here.any():
        return tissue
    pitch_um = np.float32(rng.uniform(40.0, 75.0))
    packing = Cells(rng)(grid.x_um[here] / pitch_um, grid.y_um[here] / pitch_um)
    wall = np.clip(1.2 - packing.edge * pitch_um, 0.0, 1.0)
    tissue[here] = wall * rng.uniform(0.04, 0.12)
    return tissue
