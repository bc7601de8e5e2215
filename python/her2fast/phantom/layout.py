# SPDX-License-Identifier: Apache-2.0
"""Where tumor, lumens and stroma lie, and how the cells of each nest are turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Cells, Floats, per_cell, resize, smooth_noise

#: The architectures of a tumor, and how often each is drawn.
ARCHITECTURES = ("field", "glands", "nests")
ARCHITECTURE_SHARES = (0.4, 0.3, 0.3)
#: Layouts are drawn at about this spacing and interpolated: borders are smooth.
COARSE_UM = 2.0


@dataclass(frozen=True)
class Grid:
    """A picture's pixel centers, um."""

    shape: tuple[int, int]
    spacing_um: float
    x_um: Floats
    y_um: Floats

    @staticmethod
    def over(shape: tuple[int, int], spacing_um: float) -> Grid:
        """The grid of `shape` with its corner at the origin."""
        rows = (np.arange(shape[0], dtype=np.float32) + 0.5) * np.float32(spacing_um)
        columns = (np.arange(shape[1], dtype=np.float32) + 0.5) * np.float32(spacing_um)
        x_um, y_um = np.meshgrid(columns, rows)
        return Grid(shape, spacing_um, x_um, y_um)

    def noise(self, rng: np.random.Generator, scale_um: float) -> Floats:
        """Smooth noise with blobs of `scale_um`."""
        return smooth_noise(rng, self.shape, scale_um / self.spacing_um)


@dataclass(frozen=True)
class Layout:
    """All arrays (H, W)."""

    depth_um: Floats  # about the distance into the tumor; negative outside
    lumen_um: Floats  # about the distance into a lumen; negative outside
    nest: Floats  # an angle in [0, pi) of each nest; serves as its number, too
    # Round glands: place from the center, and the radius of the cell layer's middle.
    place_um: tuple[Floats, Floats] | None = None
    middle_um: Floats | None = None


def quantile(field: npt.NDArray[np.float32], share: float) -> float:
    """Value below which `share` of the field lies (every fourth pixel is asked)."""
    return float(np.quantile(field[::4, ::4], share))


def _blocks(field: Floats, step: int, shape: tuple[int, int]) -> Floats:
    """Coarse values without interpolation: labels must not be mixed."""
    grown = np.repeat(np.repeat(field, step, axis=0), step, axis=1)
    return np.ascontiguousarray(grown[: shape[0], : shape[1]])


def draw_layout(rng: np.random.Generator, grid: Grid) -> Layout:
    """Tumor as a smooth field, as round glands or as nests between septa."""
    step = max(1, round(COARSE_UM / grid.spacing_um))
    shape = (-(-grid.shape[0] // step), -(-grid.shape[1] // step))
    coarse = Grid.over(shape, grid.spacing_um * step)
    wave = [coarse.noise(rng, 60.0) * rng.uniform(4.0, 14.0) for _ in range(2)]
    ripple = coarse.noise(rng, 14.0) * rng.uniform(0.5, 2.5)
    architecture = str(rng.choice(ARCHITECTURES, p=ARCHITECTURE_SHARES))
    wall_um = rng.uniform(12.0, 42.0)
    lumen: npt.NDArray[np.floating] = np.full(shape, -100.0, np.float32)
    pitch_um = rng.uniform(55.0, 170.0)
    stretch = rng.uniform(1.0, 1.8)
    packing = Cells(rng)(
        (coarse.x_um + wave[0]) / (pitch_um * stretch),
        (coarse.y_um + wave[1]) / pitch_um,
    )
    angle = per_cell(rng, 0.0, np.pi)[packing.cell]
    place: tuple[Floats, Floats] | None = None
    middle: Floats | None = None
    if architecture == "field":
        field = coarse.noise(rng, rng.uniform(60.0, 220.0))
        level = quantile(field, 1.0 - rng.uniform(0.3, 0.85))
        slope = np.hypot(*np.gradient(field, coarse.spacing_um))
        tumor = (field - level) / max(float(np.median(slope)), 1e-4) + ripple
        if rng.random() < 0.6:
            open_here = np.where(coarse.noise(rng, 150.0) > rng.normal(0, 0.7), 0, -200)
            lumen = tumor - wall_um + ripple + open_here
    elif architecture == "glands":
        radius = per_cell(rng, 0.25, 0.54)[packing.cell] * np.float32(pitch_um)
        present = per_cell(rng, 0.0, 1.0)[packing.cell] < rng.uniform(0.5, 1.0)
        depth = np.minimum(
            radius - packing.distance * pitch_um, packing.edge * pitch_um - 2.0
        )
        tumor = np.where(present, depth, -20.0) + ripple
        hollow = per_cell(rng, 0.0, 1.0)[packing.cell] < rng.uniform(0.3, 1.0)
        wall = np.minimum(wall_um * 0.8, 0.75 * radius)
        lumen = np.where(hollow, tumor - wall, -100.0)
        if rng.random() < 0.7:
            place = (
                resize(packing.du * np.float32(pitch_um), grid.shape),
                resize(packing.dv * np.float32(pitch_um), grid.shape),
            )
            middle = _blocks(np.maximum(radius - wall / 2.0, 6.0), step, grid.shape)
    else:
        present = per_cell(rng, 0.0, 1.0)[packing.cell] < rng.uniform(0.6, 1.0)
        septum_um = rng.uniform(3.0, 18.0)
        depth = packing.edge * pitch_um - septum_um / 2.0
        tumor = np.where(present, depth, -20.0) + ripple
    return Layout(
        resize(tumor.astype(np.float32), grid.shape),
        resize(lumen.astype(np.float32), grid.shape),
        _blocks(angle, step, grid.shape),
        place,
        middle,
    )
