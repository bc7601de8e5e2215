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
Indices = npt.NDArray[np.int64]

#: Points looked up at once: what they need stays in a core's cache.
CHUNK = 1 << 14
#: Cells repeat after this many per axis; far more than fit into one phantom.
TABLE = 512


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Counter-based random numbers; streams of one seed are independent."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], "u8")))


def _places(count: int, coarse: int) -> tuple[Indices, Indices, Floats]:
    """Left and right coarse neighbor of each fine pixel's center, and the share."""
    at = (np.arange(count) + 0.5) * (coarse / count) - 0.5
    at = np.clip(at, 0.0, coarse - 1.0)
    left = np.floor(at).astype(np.int64)
    right = np.minimum(left + 1, coarse - 1)
    return left, right, (at - left).astype(np.float32)


def resize(field: Floats, shape: tuple[int, int]) -> Floats:
    """Linear interpolation of a coarse field to `shape`; both cover the same area."""
    top, bottom, share = _places(shape[0], field.shape[0])
    rows = field[top] + (field[bottom] - field[top]) * share[:, None]
    left, right, share = _places(shape[1], field.shape[1])
    start = rows[:, left]
    return start + (rows[:, right] - start) * share


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
    normal_u: Floats  # unit vector across that border
    normal_v: Floats


class Cells:
    """Voronoi cells of a jittered grid of pitch 1, evaluated at any points."""

    def __init__(self, rng: np.random.Generator, jitter: float = 0.36) -> None:
        size = TABLE * TABLE
        self._ju = rng.uniform(-jitter, jitter, size).astype(np.float32)
        self._jv = rng.uniform(-jitter, jitter, size).astype(np.float32)

    def __call__(self, u: AnyFloats, v: AnyFloats) -> Packing:
        """Find the nearest of the 3 x 3 cells round each point (u, v in pitches)."""
        flat_u = np.ascontiguousarray(u, np.float32).ravel()
        flat_v = np.ascontiguousarray(v, np.float32).ravel()
        cell = np.empty(flat_u.shape, np.int32)
        out = np.empty((6, flat_u.size), np.float32)
        for begin in range(0, flat_u.size, CHUNK):
            part = slice(begin, begin + CHUNK)
            cell[part] = self._look_up(flat_u[part], flat_v[part], out[:, part])
        shaped = [values.reshape(u.shape) for values in out]
        return Packing(cell.reshape(u.shape), *shaped)

    def _look_up(self, u: Floats, v: Floats, out: Floats) -> Ints:
        base_u = np.floor(u).astype(np.int32)
        base_v = np.floor(v).astype(np.int32)
        first = np.full(u.shape, np.inf, np.float32)
        second = np.full(u.shape, np.inf, np.float32)
        steps = [(du, dv) for dv in (-1, 0, 1) for du in (-1, 0, 1)]
        keys = np.empty((9, u.size), np.int32)
        offs = np.empty((2, 9, u.size), np.float32)
        nearest = np.zeros(u.shape, np.intp)
        runner_up = np.zeros(u.shape, np.intp)
        for index, (step_u, step_v) in enumerate(steps):
            grid_u, grid_v = base_u + step_u, base_v + step_v
            key = (grid_v & (TABLE - 1)) * TABLE + (grid_u & (TABLE - 1))
            keys[index] = key
            offs[0, index] = u - (grid_u + np.float32(0.5) + self._ju[key])
            offs[1, index] = v - (grid_v + np.float32(0.5) + self._jv[key])
            square = offs[0, index] ** 2 + offs[1, index] ** 2
            closer = square < first
            middle = ~closer & (square < second)
            np.copyto(runner_up, nearest, where=closer)
            np.copyto(runner_up, index, where=middle)
            np.copyto(nearest, index, where=closer)
            second = np.where(closer, first, np.minimum(second, square))
            np.minimum(first, square, out=first)
        at = np.arange(u.size)
        du, dv = offs[0, nearest, at], offs[1, nearest, at]
        normal_u = offs[0, runner_up, at] - du
        normal_v = offs[1, runner_up, at] - dv
        apart = np.maximum(np.hypot(normal_u, normal_v), np.float32(1e-6))
        out[0], out[1] = du, dv
        out[2] = np.sqrt(first)
        out[3] = (second - first) / (np.float32(2.0) * apart)
        # From this cell's center to the next one's: offsets point the other way.
        out[4], out[5] = -normal_u / apart, -normal_v / apart
        return keys[nearest, at]


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
