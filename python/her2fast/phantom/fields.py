# SPDX-License-Identifier: Apache-2.0
"""Random fields and packed cells: the geometry that phantoms are drawn from.

Every random number comes from a counter-based generator (Philox), so a scene is a pure
function of its seed. Coordinates are in micrometers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
#: Any floating type; what is computed with is float32.
AnyFloats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int32]

#: Cells repeat after this many per axis; far more than fit into one phantom.
TABLE = 512


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Counter-based random numbers; streams of one seed are independent."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], "u8")))


def resize(field: Floats, shape: tuple[int, int]) -> Floats:
    """Linear interpolation of a coarse field to `shape`."""
    zoom = (shape[0] / field.shape[0], shape[1] / field.shape[1])
    out = ndimage.zoom(field, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(out[: shape[0], : shape[1]], np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float
) -> Floats:
    """Smooth noise, (H, W), zero mean and unit variance, blobs of about `scale_px`."""
    step = max(scale_px / 3.0, 1.0)
    coarse = (int(shape[0] / step) + 8, int(shape[1] / step) + 8)
    noise = rng.standard_normal(coarse, np.float32)
    noise = ndimage.gaussian_filter(noise, 3.0 / 2.5 if step > 1.0 else scale_px / 2.5)
    noise = noise / max(float(noise.std()), 1e-6)
    # A whole number of coarse cells would tie the pattern to the frame: cut, then fit.
    rows = min(coarse[0], int(np.ceil(shape[0] / step)) + 1)
    columns = min(coarse[1], int(np.ceil(shape[1] / step)) + 1)
    return resize(noise[:rows, :columns], shape)


@dataclass(frozen=True)
class Packing:
    """Nearest cell at each point; all arrays have the points' shape."""

    cell: Ints  # index into per-cell tables of TABLE * TABLE entries
    du: Floats  # offset from the cell's center, in pitches
    dv: Floats
    distance: Floats  # to the center, in pitches
    edge: Floats  # to the border with the next cell, in pitches


class Cells:
    """Voronoi cells of a jittered grid of pitch 1, evaluated at any points."""

    def __init__(self, rng: np.random.Generator, jitter: float = 0.36) -> None:
        size = TABLE * TABLE
        self._ju = rng.uniform(-jitter, jitter, size).astype(np.float32)
        self._jv = rng.uniform(-jitter, jitter, size).astype(np.float32)

    def __call__(self, u: AnyFloats, v: AnyFloats) -> Packing:
        """Find the nearest of the 3 x 3 cells round each point (u, v in pitches)."""
        u, v = u.astype(np.float32, copy=False), v.astype(np.float32, copy=False)
        base_u = np.floor(u).astype(np.int32)
        base_v = np.floor(v).astype(np.int32)
        first = np.full(u.shape, np.inf, np.float32)
        second = np.full(u.shape, np.inf, np.float32)
        cell = np.zeros(u.shape, np.int32)
        nearest_u, nearest_v = np.zeros_like(u), np.zeros_like(u)
        next_u, next_v = np.zeros_like(u), np.zeros_like(u)
        for step_v in (-1, 0, 1):
            for step_u in (-1, 0, 1):
                grid_u, grid_v = base_u + step_u, base_v + step_v
                key = (grid_v & (TABLE - 1)) * TABLE + (grid_u & (TABLE - 1))
                off_u = u - (grid_u + np.float32(0.5) + self._ju[key])
                off_v = v - (grid_v + np.float32(0.5) + self._jv[key])
                square = off_u * off_u + off_v * off_v
                closer = square < first
                middle = ~closer & (square < second)
                np.copyto(second, first, where=closer)
                np.copyto(next_u, nearest_u, where=closer)
                np.copyto(next_v, nearest_v, where=closer)
                np.copyto(first, square, where=closer)
                np.copyto(nearest_u, off_u, where=closer)
                np.copyto(nearest_v, off_v, where=closer)
                np.copyto(cell, key, where=closer)
                np.copyto(second, square, where=middle)
                np.copyto(next_u, off_u, where=middle)
                np.copyto(next_v, off_v, where=middle)
        apart = np.hypot(next_u - nearest_u, next_v - nearest_v)
        edge = (second - first) / np.maximum(2.0 * apart, np.float32(1e-6))
        return Packing(cell, nearest_u, nearest_v, np.sqrt(first), edge)


def per_cell(rng: np.random.Generator, low: float, high: float) -> Floats:
    """A table of one uniform number per cell."""
    return rng.uniform(low, high, TABLE * TABLE).astype(np.float32)


def fibers(
    rng: np.random.Generator, along_um: AnyFloats, across_um: AnyFloats, width_um: float
) -> Floats:
    """Streaks of `width_um`, many times as long, along the first coordinate."""
    side = 512
    texture = rng.standard_normal((side, side), np.float32)
    texture = ndimage.gaussian_filter(texture, (1.0, 1.4), mode="wrap")
    texture /= max(float(texture.std()), 1e-6)
    at = np.stack([across_um / (width_um / 2.0), along_um / (width_um * 6.0)])
    out = ndimage.map_coordinates(texture, at, order=1, mode="grid-wrap")
    return np.asarray(out, np.float32)
