# SPDX-License-Identifier: Apache-2.0
"""Round things in a window: where they may lie, and their polar coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import AnyFloats, Floats
from her2fast.phantom.layout import Grid
from her2fast.phantom.textures import Points

#: Free places are sought on squares of this width.
ROOM_UM = 4.0


@dataclass
class Room:
    """Free places outside the tumor; what is taken stays taken."""

    grid: Grid
    clear_um: Floats  # distance from tumor, coarse: one value per ROOM_UM square
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    @staticmethod
    def beside(grid: Grid, outside: npt.NDArray[np.bool_]) -> Room:
        """Room in `outside`, (h, w)."""
        step = max(1, round(ROOM_UM / grid.spacing_um))
        free = outside[::step, ::step]
        if free.all():
            return Room(grid, np.full(free.shape, 1e6, np.float32))
        away = ndimage.distance_transform_edt(free) * (step * grid.spacing_um)
        return Room(grid, away.astype(np.float32))

    def take(
        self, rng: np.random.Generator, radius_um: float, tries: int = 40
    ) -> tuple[float, float] | None:
        """A center for a disk of this radius; None where there is no room."""
        height, width = self.grid.shape
        rows, columns = self.clear_um.shape
        step = self.grid.spacing_um
        for x, y in rng.uniform(0.0, 1.0, (tries, 2)).tolist():
            if float(self.clear_um[int(y * rows), int(x * columns)]) < 0.8 * radius_um:
                continue
            x_um, y_um = x * width * step, y * height * step
            if all(
                np.hypot(x_um - other[0], y_um - other[1]) > radius_um + other[2]
                for other in self.taken
            ):
                self.taken.append((x_um, y_um, radius_um))
                return x_um, y_um
        return None


@dataclass(frozen=True)
class Ring:
    """A wobbly ellipse in its window; arrays have the window's shape."""

    window: tuple[slice, slice]
    x_um: Floats
    y_um: Floats
    angle: Floats  # of the pixel seen from the center
    depth_um: Floats  # into the outline, about; negative outside
    center_um: tuple[float, float]
    outline_um: Floats  # radius at OUTLINE angles from 0 to 2 pi

    def at(self, angle: AnyFloats, depth_um: AnyFloats, grid: Grid) -> Points:
        """Points at angles and depths, those in the picture."""
        share = np.mod(angle, 2.0 * np.pi) * (self.outline_um.size / (2.0 * np.pi))
        radius = self.outline_um[share.astype(np.int64) % self.outline_um.size]
        radius = np.maximum(radius - depth_um, 0.0)
        x = self.center_um[0] + radius * np.cos(angle)
        y = self.center_um[1] + radius * np.sin(angle)
        row = np.floor(y / grid.spacing_um).astype(np.int64)
        column = np.floor(x / grid.spacing_um).astype(np.int64)
        return Points(x.astype(np.float32), y.astype(np.float32), row, column)


#: Steps round an outline.
OUTLINE = 720


def inside(points: Points, grid: Grid) -> npt.NDArray[np.bool_]:
    """Which points lie in the picture."""
    ok = (points.row >= 0) & (points.column >= 0)
    ok &= (points.row < grid.shape[0]) & (points.column < grid.shape[1])
    return np.asarray(ok, np.bool_)


def ring(
    rng: np.random.Generator,
    grid: Grid,
    center_um: tuple[float, float],
    radius_um: float,
    *,
    wobble: float = 0.08,
    stretch: float = 1.3,
    margin_um: float = 10.0,
) -> Ring:
    """An outline of mean radius `radius_um` with `wobble` as a share of it."""
    theta = np.linspace(0.0, 2.0 * np.pi, OUTLINE, endpoint=False)
    outline = np.ones(OUTLINE)
    for order in range(2, 7):
        size = wobble * rng.normal() / order**0.5
        outline += size * np.cos(order * theta + rng.uniform(0.0, 6.28))
    long = float(rng.uniform(1.0, stretch))
    turn = float(rng.uniform(0.0, np.pi))
    outline /= np.hypot(np.cos(theta - turn) / long, np.sin(theta - turn) * long)
    rim = (radius_um * np.clip(outline, 0.3, 2.5)).astype(np.float32)
    reach = float(rim.max()) + margin_um
    step = grid.spacing_um
    low = [int((at - reach) / step) for at in center_um]
    high = [int((at + reach) / step) + 2 for at in center_um]
    rows = slice(max(low[1], 0), min(high[1], grid.shape[0]))
    columns = slice(max(low[0], 0), min(high[0], grid.shape[1]))
    x_um, y_um = grid.x_um[rows, columns], grid.y_um[rows, columns]
    off_x = x_um - np.float32(center_um[0])
    off_y = y_um - np.float32(center_um[1])
    angle = np.mod(np.arctan2(off_y, off_x), np.float32(2.0 * np.pi))
    share = angle * np.float32(OUTLINE / (2.0 * np.pi))
    radius = rim[share.astype(np.int32) % OUTLINE]
    depth = np.asarray(radius - np.hypot(off_x, off_y), np.float32)
    return Ring((rows, columns), x_um, y_um, angle, depth, center_um, rim)


def cover(distance_um: AnyFloats, grid: Grid) -> Floats:
    """Share of a pixel that lies on the positive side of a border."""
    share = distance_um / np.float32(grid.spacing_um) + np.float32(0.5)
    return np.asarray(np.clip(share, 0.0, 1.0), np.float32)
