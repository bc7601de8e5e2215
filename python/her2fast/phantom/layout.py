# SPDX-License-Identifier: Apache-2.0
"""Where tumor, lumens and stroma lie, and how the cells of each nest are turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import (
    Cells,
    Floats,
    Ints,
    Noise,
    make_noise,
    per_cell,
    resize,
    stretch_blocks,
)

#: The architectures of a tumor, and how often each is drawn.
ARCHITECTURES = ("field", "glands", "crowded", "nests", "cords", "buds")
ARCHITECTURE_SHARES = (0.24, 0.14, 0.26, 0.18, 0.12, 0.06)
#: Layouts are drawn at about this spacing and interpolated: borders are smooth.
COARSE_UM = 2.0
#: Outside of everything, um.
FAR_UM = -100.0


@dataclass(frozen=True)
class Grid:
    """A picture's pixel centers, um."""

    shape: tuple[int, int]
    spacing_um: float
    x_um: Floats
    y_um: Floats

    @staticmethod
    def over(shape: tuple[int, int], spacing_um: float) -> Grid:
        """The grid of `shape` with its corner at the origin (read-only views)."""
        rows = (np.arange(shape[0], dtype=np.float32) + 0.5) * np.float32(spacing_um)
        columns = (np.arange(shape[1], dtype=np.float32) + 0.5) * np.float32(spacing_um)
        x_um = np.broadcast_to(columns[None, :], shape)
        y_um = np.broadcast_to(rows[:, None], shape)
        return Grid(shape, spacing_um, x_um, y_um)

    def field(self, rng: np.random.Generator, scale_um: float) -> Noise:
        """Smooth noise with blobs of `scale_um`, to be read row by row."""
        return make_noise(rng, self.shape, scale_um / self.spacing_um)

    def noise(self, rng: np.random.Generator, scale_um: float) -> Floats:
        """Smooth noise with blobs of `scale_um`, the whole grid."""
        return self.field(rng, scale_um).full()


@dataclass(frozen=True)
class Layout:
    """Coarse maps, all (h, w) at about `COARSE_UM`; `shape` is the picture's."""

    shape: tuple[int, int]
    spacing_um: float
    coarse_um: float
    depth_um: Floats  # about the distance into the tumor; negative outside
    lumen_um: Floats  # about the distance into a lumen; negative outside
    tissue_um: Floats  # about the distance into the tissue; negative on glass
    angle: Floats  # in [0, pi), of each nest
    nest: Ints  # number of the nest
    # Round glands: place from the center, radius of the cell layer's middle in um;
    # 0 where cells do not stand round a center.
    place_x_um: Floats
    place_y_um: Floats
    middle_um: Floats
    lean: float  # angle and stretch of the frame that the place is given in
    stretch: float
    architecture: str

    def smooth(self, field: Floats, begin: int, end: int) -> Floats:
        """Rows [begin, end) of a coarse map, interpolated."""
        return resize(field, self.shape, begin, end)

    def blocks(self, field: npt.NDArray[Any], begin: int, end: int) -> Any:
        """Rows [begin, end) of a coarse map, nearest."""
        return stretch_blocks(field, self.shape, begin, end)

    def distance(self, field: Floats) -> Floats:
        """Distance in um to where a coarse map is 0: good to a few um, rough beyond."""
        slope = np.hypot(*np.gradient(field, self.coarse_um))
        # Where the map jumps, its values are distances already.
        slope = np.where(slope > 6.0, 1.0, np.maximum(slope, 0.25))
        return (field / slope).astype(np.float32)

    def tumor(self) -> npt.NDArray[np.bool_]:
        """Where tumor lies, on the coarse grid."""
        inside: npt.NDArray[np.bool_] = (
            (self.depth_um > 0.0) & (self.lumen_um <= 0.0) & (self.tissue_um > 0.0)
        )
        return inside


def quantile(field: npt.NDArray[np.float32], share: float) -> float:
    """Value below which `share` of the field lies (every fourth pixel is asked)."""
    return float(np.quantile(field[::4, ::4], share))


def _as_depth(field: Floats, level: float, spacing_um: float) -> Floats:
    """About the distance, um, from where the field passes `level`."""
    slope = np.hypot(*np.gradient(field[::2, ::2], 2.0 * spacing_um))
    return ((field - level) / max(float(np.median(slope)), 1e-4)).astype(np.float32)


def _tissue(rng: np.random.Generator, coarse: Grid) -> Floats:
    """About the distance into the tissue; glass on one side in half of all scenes."""
    if rng.random() >= 0.5:
        return np.full(coarse.shape, -10.0 * FAR_UM, np.float32)
    outline = coarse.noise(rng, rng.uniform(150.0, 400.0))
    level = quantile(outline, rng.uniform(0.03, 0.35))
    rough = rng.uniform(1.0, 6.0) * coarse.noise(rng, rng.uniform(8.0, 25.0))
    return _as_depth(outline, level, coarse.spacing_um) + rough


def draw_layout(rng: np.random.Generator, grid: Grid) -> Layout:
    """Tumor as sheets, glands, nests between septa, cords, files or buds."""
    step = max(1, round(COARSE_UM / grid.spacing_um))
    shape = (-(-grid.shape[0] // step), -(-grid.shape[1] // step))
    spacing_um = grid.spacing_um * grid.shape[0] / shape[0]
    coarse = Grid.over(shape, spacing_um)
    tissue = _tissue(rng, coarse)
    wave = [coarse.noise(rng, 60.0) * rng.uniform(4.0, 14.0) for _ in range(2)]
    ripple = coarse.noise(rng, 14.0) * rng.uniform(0.5, 2.5)
    ripple += coarse.noise(rng, 6.0) * rng.uniform(0.2, 1.0)
    architecture = str(rng.choice(ARCHITECTURES, p=ARCHITECTURE_SHARES))
    wall_um = rng.uniform(12.0, 42.0)
    lumen: npt.NDArray[np.floating] = np.full(shape, FAR_UM, np.float32)
    pitch_um = rng.uniform(55.0, 170.0)
    if architecture == "buds":
        pitch_um = rng.uniform(28.0, 60.0)
    stretch = rng.uniform(1.0, 2.2)
    lean = rng.uniform(0.0, np.pi)
    cos, sin = np.float32(np.cos(lean)), np.float32(np.sin(lean))
    x_um, y_um = coarse.x_um + wave[0], coarse.y_um + wave[1]
    packing = Cells(rng)(
        (cos * x_um + sin * y_um) / np.float32(pitch_um * stretch),
        (cos * y_um - sin * x_um) / np.float32(pitch_um),
    )
    angle = per_cell(rng, 0.0, np.pi)[packing.cell]
    middle = np.zeros(shape, np.float32)
    odds = per_cell(rng, 0.0, 1.0)[packing.cell]
    if architecture == "field":
        field = coarse.noise(rng, rng.uniform(60.0, 220.0))
        level = quantile(field, 1.0 - rng.uniform(0.3, 0.85))
        tumor = _as_depth(field, level, spacing_um) + ripple
        if rng.random() < 0.6:
            open_here = np.where(coarse.noise(rng, 150.0) > rng.normal(0, 0.7), 0, -200)
            lumen = tumor - wall_um + ripple + open_here
    elif architecture == "cords":
        # Along the zero lines of a field; thin ones are single files of cells.
        field = coarse.noise(rng, rng.uniform(30.0, 110.0))
        width_um = float(np.exp(rng.uniform(np.log(5.0), np.log(22.0))))
        away = np.abs(_as_depth(field, rng.uniform(-0.4, 0.4), spacing_um))
        gap = coarse.noise(rng, rng.uniform(25.0, 60.0)) > rng.uniform(0.6, 2.0)
        tumor = np.where(gap, -10.0, width_um - away + 0.5 * ripple)
    elif architecture in ("glands", "crowded"):
        close = architecture == "crowded"
        sizes = (0.45, 0.85) if close else (0.25, 0.54)
        septum_um = rng.uniform(1.0, 7.0) if close else rng.uniform(4.0, 12.0)
        radius = per_cell(rng, *sizes)[packing.cell] * np.float32(pitch_um)
        present = odds < (rng.uniform(0.8, 1.0) if close else rng.uniform(0.5, 1.0))
        depth = np.minimum(
            radius - packing.distance * pitch_um,
            packing.edge * pitch_um - septum_um / 2.0,
        )
        tumor = np.where(present, depth, -20.0) + ripple
        hollow = per_cell(rng, 0.0, 1.0)[packing.cell] < rng.uniform(0.3, 1.0)
        wall = np.minimum(wall_um * 0.8, 0.8 * radius)
        ruffle = ripple * rng.uniform(0.5, 3.0)
        lumen = np.where(hollow, tumor - wall + ruffle, FAR_UM)
        if rng.random() < 0.75:
            middle = np.where(hollow, np.maximum(radius - wall / 2.0, 6.0), 0.0)
    elif architecture == "nests":
        present = odds < rng.uniform(0.6, 1.0)
        septum_um = rng.uniform(1.0, 18.0)
        depth = packing.edge * pitch_um - septum_um / 2.0
        tumor = np.where(present, depth, -20.0) + ripple
    else:  # buds: single cells and small clusters in stroma
        radius = per_cell(rng, 4.5, rng.uniform(7.0, 22.0))[packing.cell]
        present = odds < rng.uniform(0.3, 0.9)
        depth = np.minimum(
            radius - packing.distance * pitch_um, packing.edge * pitch_um - 1.5
        )
        tumor = np.where(present, depth, -20.0) + 0.5 * ripple
    return Layout(
        grid.shape,
        grid.spacing_um,
        spacing_um,
        tumor.astype(np.float32),
        lumen.astype(np.float32),
        tissue.astype(np.float32),
        angle,
        packing.cell,
        packing.du * np.float32(pitch_um),
        packing.dv * np.float32(pitch_um),
        middle.astype(np.float32),
        lean,
        stretch,
        architecture,
    )
