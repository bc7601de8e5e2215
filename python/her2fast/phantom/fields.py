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
CHUNK = 1 << 13
#: Cells repeat after this many per axis; more than a nest has.
TABLE = 256
#: Fine noise repeats after this many pixels; too fine for the eye to find again.
TILE_PX = 512


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Counter-based random numbers; streams of one seed are independent."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], "u8")))


def _places(
    count: int, coarse: int, begin: int = 0, end: int | None = None
) -> tuple[Indices, Indices, Floats]:
    """Left and right coarse neighbor of fine pixels [begin, end), and the share."""
    fine = np.arange(begin, count if end is None else end)
    at = (fine + 0.5) * (coarse / count) - 0.5
    at = np.clip(at, 0.0, coarse - 1.0)
    left = np.floor(at).astype(np.int64)
    right = np.minimum(left + 1, coarse - 1)
    return left, right, (at - left).astype(np.float32)


def resize(
    field: Floats, shape: tuple[int, int], begin: int = 0, end: int | None = None
) -> Floats:
    """Rows [begin, end) of a coarse field, interpolated linearly to `shape`."""
    top, bottom, share = _places(shape[0], field.shape[0], begin, end)
    start = field.take(top, axis=0)
    rows = start + (field.take(bottom, axis=0) - start) * share[:, None]
    left, right, share = _places(shape[1], field.shape[1])
    out = rows.take(left, axis=1)
    step = rows.take(right, axis=1)
    step -= out
    step *= share
    out += step
    return out


def stretch_blocks(
    field: npt.NDArray[Any], shape: tuple[int, int], begin: int = 0, end: int = -1
) -> npt.NDArray[Any]:
    """Rows [begin, end) of a coarse field at `shape`, nearest: labels must not mix."""
    last = shape[0] if end < 0 else end
    rows = np.arange(begin, last) * field.shape[0] // shape[0]
    columns = np.arange(shape[1]) * field.shape[1] // shape[1]
    out: npt.NDArray[Any] = field.take(rows, axis=0).take(columns, axis=1)
    return out


@dataclass(frozen=True)
class Noise:
    """Smooth noise of zero mean and unit variance, kept coarse, given row by row."""

    coarse: Floats
    shape: tuple[int, int]
    tiled: bool  # `coarse` repeats at full resolution instead of being stretched

    def rows(self, begin: int, end: int) -> Floats:
        """Rows [begin, end), (end - begin, W)."""
        if not self.tiled:
            return resize(self.coarse, self.shape, begin, end)
        height, width = self.coarse.shape
        rows = self.coarse.take(np.arange(begin, end) % height, axis=0)
        if width >= self.shape[1]:
            return np.ascontiguousarray(rows[:, : self.shape[1]])
        tiled: Floats = rows.take(np.arange(self.shape[1]) % width, axis=1)
        return tiled

    def full(self) -> Floats:
        """All rows."""
        return self.rows(0, self.shape[0])


def make_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float
) -> Noise:
    """Noise over `shape` with blobs of about `scale_px`."""
    step = scale_px / 3.0
    if step <= 1.0:
        side = min(TILE_PX, shape[0]), min(TILE_PX, shape[1])
        noise = rng.standard_normal(side, np.float32)
        noise = ndimage.gaussian_filter(noise, scale_px / 2.5, mode="wrap")
        return Noise(noise / max(float(noise.std()), 1e-6), shape, True)
    coarse = (int(shape[0] / step) + 8, int(shape[1] / step) + 8)
    noise = rng.standard_normal(coarse, np.float32)
    noise = ndimage.gaussian_filter(noise, 3.0 / 2.5)
    noise = noise / max(float(noise.std()), 1e-6)
    # A whole number of coarse cells would tie the pattern to the frame: cut, then fit.
    rows = min(coarse[0], int(np.ceil(shape[0] / step)) + 1)
    columns = min(coarse[1], int(np.ceil(shape[1] / step)) + 1)
    return Noise(np.ascontiguousarray(noise[:rows, :columns]), shape, False)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float
) -> Floats:
    """Smooth noise, (H, W), zero mean and unit variance, blobs of about `scale_px`."""
    return make_noise(rng, shape, scale_px).full()


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
        self._ju = _uniform(rng, -jitter, jitter, size)
        self._jv = _uniform(rng, -jitter, jitter, size)

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
        floor_u, floor_v = np.floor(u), np.floor(v)
        base_u, base_v = floor_u.astype(np.intp), floor_v.astype(np.intp)
        in_u, in_v = u - floor_u, v - floor_v
        columns = [(base_u + step) & (TABLE - 1) for step in (-1, 0, 1)]
        rows = [((base_v + step) & (TABLE - 1)) * TABLE for step in (-1, 0, 1)]
        size = u.size
        first = np.full(size, np.inf, np.float32)
        second = np.full(size, np.inf, np.float32)
        keys = np.empty((9, size), np.intp)
        off_u = np.empty((9, size), np.float32)
        off_v = np.empty((9, size), np.float32)
        nearest = np.zeros(size, np.intp)
        runner_up = np.zeros(size, np.intp)
        square, part = np.empty((2, size), np.float32)
        for index in range(9):
            step_v, step_u = divmod(index, 3)
            key = np.add(rows[step_v], columns[step_u], out=keys[index])
            du, dv = off_u[index], off_v[index]
            np.subtract(in_u, np.float32(step_u - 0.5), out=du)
            du -= self._ju.take(key)
            np.subtract(in_v, np.float32(step_v - 0.5), out=dv)
            dv -= self._jv.take(key)
            np.multiply(du, du, out=square)
            np.multiply(dv, dv, out=part)
            square += part
            closer = square < first
            np.copyto(runner_up, index, where=square < second)
            np.copyto(runner_up, nearest, where=closer)
            np.copyto(nearest, index, where=closer)
            np.minimum(second, np.maximum(first, square, out=part), out=second)
            np.minimum(first, square, out=first)
        at = np.arange(size)
        nearest *= size
        nearest += at
        runner_up *= size
        runner_up += at
        np.take(off_u, nearest, out=out[0])
        np.take(off_v, nearest, out=out[1])
        # From this cell's center to the next one's: offsets point the other way.
        normal_u = out[0] - off_u.take(runner_up)
        normal_v = out[1] - off_v.take(runner_up)
        apart = np.sqrt(normal_u * normal_u + normal_v * normal_v)
        np.maximum(apart, np.float32(1e-6), out=apart)
        np.sqrt(first, out=out[2])
        np.divide(second - first, np.float32(2.0) * apart, out=out[3])
        np.divide(normal_u, apart, out=out[4])
        np.divide(normal_v, apart, out=out[5])
        found: Ints = keys.take(nearest).astype(np.int32)
        return found


def _uniform(rng: np.random.Generator, low: float, high: float, size: int) -> Floats:
    values = rng.random(size, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def per_cell(rng: np.random.Generator, low: float, high: float) -> Floats:
    """A table of one uniform number per cell."""
    return _uniform(rng, low, high, TABLE * TABLE)


def fibers(
    rng: np.random.Generator, along_um: AnyFloats, across_um: AnyFloats, width_um: float
) -> Floats:
    """Streaks of `width_um`, many times as long, along the first coordinate."""
    side = 512
    texture = rng.standard_normal((side, side), np.float32)
    texture = ndimage.gaussian_filter(texture, (1.0, 1.4), mode="wrap")
    texture /= max(float(texture.std()), 1e-6)
    across = np.ascontiguousarray(across_um, np.float32).ravel()
    along = np.ascontiguousarray(along_um, np.float32).ravel()
    out = np.empty(across.size, np.float32)
    for begin in range(0, across.size, CHUNK):
        part = slice(begin, begin + CHUNK)
        out[part] = _wrapped(
            texture,
            across[part] * np.float32(2.0 / width_um),
            along[part] * np.float32(1.0 / (width_um * 6.0)),
        )
    return out.reshape(across_um.shape)


def _wrapped(texture: Floats, row: Floats, column: Floats) -> Floats:
    """Linear interpolation in a square texture that repeats; its side is 2 ** n."""
    side = texture.shape[0]
    top, left = np.floor(row), np.floor(column)
    down, right = row - top, column - left
    first = (top.astype(np.intp) & (side - 1)) * side
    second = (first + side) & (side * side - 1)
    start = left.astype(np.intp) & (side - 1)
    stop = (start + 1) & (side - 1)
    above: Floats = texture.take(first + start)
    above += (texture.take(first + stop) - above) * right
    below = texture.take(second + start)
    below += (texture.take(second + stop) - below) * right
    below -= above
    below *= down
    above += below
    return above
