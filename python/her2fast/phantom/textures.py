# SPDX-License-Identifier: Apache-2.0
"""Ready-made textures that scenes look up, and small pictures that they stamp.

A texture is drawn once for the process from a fixed seed; a scene moves, turns and
scales it by its own random numbers, so it stays a pure function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from her2fast.phantom.fields import AnyFloats, Floats, Indices, generator
from her2fast.phantom.layout import Grid

#: Texture side, a power of two: a place is found with a bit mask.
SIDE = 1024
#: Texture pixels per blob: so smooth that the nearest pixel serves.
BLOB_PX = 6.0
#: Cells per side of a packed tile and its pixels per cell.
TILE_CELLS = 12
TILE_CELL_PX = 64


def child(rng: np.random.Generator) -> np.random.Generator:
    """Numbers of its own for one object: leaving it out moves no other."""
    return np.random.Generator(np.random.Philox(key=rng.integers(0, 2**62, 2)))


@lru_cache(maxsize=1)
def _grain() -> Floats:
    noise = generator(20_250_101).standard_normal((SIDE, SIDE), np.float32)
    noise = ndimage.gaussian_filter(noise, BLOB_PX / 2.5, mode="wrap")
    flat: Floats = (noise / noise.std()).astype(np.float32).ravel()
    return flat


def grain(
    rng: np.random.Generator, u: AnyFloats, v: AnyFloats, u_um: float, v_um: float
) -> Floats:
    """Noise of unit variance with blobs of u_um by v_um at (u, v), um.

    Long blobs along `u` are fibers. Repeats after about 170 blobs.
    """
    shift = rng.integers(0, SIDE, 2)
    at_u = u * np.float32(BLOB_PX / u_um) + np.float32(shift[0])
    at_v = v * np.float32(BLOB_PX / v_um) + np.float32(shift[1])
    index = at_v.astype(np.int32)
    index &= SIDE - 1
    index *= SIDE
    index += at_u.astype(np.int32) & (SIDE - 1)
    return np.take(_grain(), index)


def clouds(
    rng: np.random.Generator, x_um: AnyFloats, y_um: AnyFloats, scale_um: float
) -> Floats:
    """`grain` for blobs of many pixels: interpolated, so no steps show."""
    shift = rng.integers(0, SIDE, 2)
    scale = np.float32(BLOB_PX / scale_um)
    at = np.stack([y_um * scale + shift[0], x_um * scale + shift[1]])
    field = ndimage.map_coordinates(
        _grain().reshape(SIDE, SIDE), at, order=1, mode="grid-wrap"
    )
    return np.asarray(field, np.float32)


@lru_cache(maxsize=1)
def _tile() -> Floats:
    """Packed cells that repeat: (3, P, P) edge, distance (pitches), cell's number."""
    rng = generator(20_250_102)
    count, side = TILE_CELLS, TILE_CELLS * TILE_CELL_PX
    base = np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1).reshape(-1, 2)
    centers = base + 0.5 + rng.uniform(-0.34, 0.34, base.shape)
    centers[:, 0] += 0.5 * (base[:, 1] % 2)  # staggered rows: most cells get six sides
    centers %= count
    tree = spatial.cKDTree(centers, boxsize=count)
    at = (np.arange(side) + 0.5) / TILE_CELL_PX
    points = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    away, which = tree.query(points, k=2)
    between = centers[which[:, 1]] - centers[which[:, 0]]
    between -= count * np.rint(between / count)
    apart = np.maximum(np.hypot(between[:, 0], between[:, 1]), 1e-6)
    edge = (away[:, 1] ** 2 - away[:, 0] ** 2) / (2.0 * apart)
    planes = np.stack([edge, away[:, 0], which[:, 0]]).astype(np.float32)
    return planes.reshape(3, side, side)


@dataclass(frozen=True)
class Packed:
    """Packed cells at points; the arrays have the points' shape."""

    edge: Floats  # to the border with the next cell, pitches
    distance: Floats  # to the cell's center, pitches; empty unless asked for
    cell: npt.NDArray[np.int32]  # 0 to TILE_CELLS ** 2 - 1


#: Steps of this width do not show: the nearest pixel of the tile serves, not its
#: neighbors' mean.
FINE_UM = 0.7


def packed(
    rng: np.random.Generator,
    u: AnyFloats,
    v: AnyFloats,
    u_um: float,
    v_um: float,
    *,
    distance: bool = False,
) -> Packed:
    """Cells of u_um by v_um at (u, v), um; they repeat after TILE_CELLS of them."""
    tile = _tile()
    side = tile.shape[1]
    shift = rng.uniform(0.0, side, 2)
    at_u = u * np.float32(TILE_CELL_PX / u_um) + np.float32(shift[0])
    at_v = v * np.float32(TILE_CELL_PX / v_um) + np.float32(shift[1])
    index = np.floor(at_v).astype(np.int32) % side
    index *= side
    index += np.floor(at_u).astype(np.int32) % side
    flat = tile.reshape(3, -1)
    cell = flat[2].take(index).astype(np.int32)
    planes = []
    for k in (0, 1)[: 1 + distance]:
        if max(u_um, v_um) <= FINE_UM * TILE_CELL_PX:
            planes.append(flat[k].take(index))
            continue
        at = np.stack([at_v, at_u]) - np.float32(0.5)
        planes.append(ndimage.map_coordinates(tile[k], at, order=1, mode="grid-wrap"))
    return Packed(planes[0], planes[1] if distance else np.empty(0, np.float32), cell)


def texture_step(grid: Grid) -> int:
    """Pixels per texture pixel: textures are drawn at about 0.5 um, no finer."""
    return max(1, int(0.5 / grid.spacing_um + 1e-6))


def texture_grid(grid: Grid) -> Grid:
    """The same area in the pixels that textures are drawn in."""
    step = texture_step(grid)
    if step == 1:
        return grid
    shape = (-(-grid.shape[0] // step), -(-grid.shape[1] // step))
    return Grid.over(shape, step * grid.spacing_um)


def covered(at: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.bool_]:
    """Texture pixels that pixels `at` are interpolated from."""
    if step == 1:
        return at
    grown: npt.NDArray[np.bool_] = ndimage.maximum_filter(at[::step, ::step], 5)
    return grown


@dataclass(frozen=True)
class Points:
    """Places in a picture, and their pixels."""

    x_um: Floats
    y_um: Floats
    row: Indices
    column: Indices

    def of(self, keep: npt.NDArray[np.bool_]) -> Points:
        """Those kept."""
        return Points(
            self.x_um[keep], self.y_um[keep], self.row[keep], self.column[keep]
        )

    def __len__(self) -> int:
        return int(self.row.size)


def scatter(
    rng: np.random.Generator,
    grid: Grid,
    pitch_um: float,
    window: tuple[slice, slice] | None = None,
    jitter: float = 0.42,
) -> Points:
    """Points about `pitch_um` apart, in the whole picture or a window of it."""
    rows, columns = window if window is not None else (slice(None), slice(None))
    top, bottom, _ = rows.indices(grid.shape[0])
    left, right, _ = columns.indices(grid.shape[1])
    pitch_px = max(pitch_um / grid.spacing_um, 1.0)
    y, x = np.mgrid[top:bottom:pitch_px, left:right:pitch_px]
    x[1::2] += pitch_px / 2.0
    y = y.ravel() + rng.uniform(-jitter, jitter, y.size) * pitch_px
    x = x.ravel() + rng.uniform(-jitter, jitter, x.size) * pitch_px
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    x, y = x[inside], y[inside]
    return Points(
        ((x + 0.5) * grid.spacing_um).astype(np.float32),
        ((y + 0.5) * grid.spacing_um).astype(np.float32),
        y.astype(np.int64),
        x.astype(np.int64),
    )


@dataclass(frozen=True)
class Stamps:
    """Small pictures, (angles * variants, K, K); K is odd."""

    pictures: Floats
    angles: int

    def pick(self, rng: np.random.Generator, angle: AnyFloats) -> Indices:
        """A picture for each angle (radians; turned by half a circle is the same)."""
        variants = self.pictures.shape[0] // self.angles
        turn = np.rint(np.asarray(angle) * (self.angles / np.pi)).astype(np.int64)
        which = rng.integers(0, variants, turn.shape)
        found: Indices = (turn % self.angles) * variants + which
        return found


def nuclei(
    rng: np.random.Generator,
    spacing_um: float,
    long_um: tuple[float, float],
    thin_um: tuple[float, float],
    *,
    rim: float = 0.4,
    mottle: float = 0.3,
    blunt: float = 2.0,
    angles: int = 12,
    variants: int = 5,
) -> Stamps:
    """Nuclei of half axes drawn from the two ranges; about 1 in the inside.

    `blunt` above 2 gives cigar shapes. Round nuclei need one angle only.
    """
    half = int(np.ceil(long_um[1] / spacing_um)) + 1
    side = 2 * half + 1
    along, across = np.mgrid[-half : half + 1, -half : half + 1] * spacing_um
    total = angles * variants
    long = rng.uniform(*long_um, total).reshape(-1, 1, 1)
    thin = np.minimum(rng.uniform(*thin_um, total).reshape(-1, 1, 1), long)
    turn = np.repeat(np.arange(angles) * (np.pi / angles), variants).reshape(-1, 1, 1)
    if angles == 1:
        turn = rng.uniform(0.0, np.pi, total).reshape(-1, 1, 1)
    u = (np.cos(turn) * across + np.sin(turn) * along) / long
    v = (np.cos(turn) * along - np.sin(turn) * across) / thin
    v = v + rng.uniform(-0.25, 0.25, (total, 1, 1)) * u * u  # some are bent
    from_center = (np.abs(u) ** blunt + np.abs(v) ** blunt) ** (1.0 / blunt)
    inside_um = (1.0 - from_center) * thin
    body = np.clip(inside_um / spacing_um + 0.5, 0.0, 1.0)
    noise = rng.standard_normal((total, side, side), np.float32)
    sigma = max(0.5 / spacing_um, 0.4)
    noise = ndimage.gaussian_filter(noise, (0.0, sigma, sigma))
    noise /= max(float(noise.std()), 1e-6)
    edge = np.exp(-(((inside_um - 0.3) / 0.45) ** 2))
    value = body * np.clip(1.0 + mottle * noise + rim * (edge - 0.3), 0.2, 2.2)
    return Stamps(value.astype(np.float32), angles)


def disks(
    rng: np.random.Generator,
    spacing_um: float,
    radius_um: tuple[float, float],
    variants: int = 12,
) -> Stamps:
    """Even, slightly wobbly dots."""
    return nuclei(
        rng,
        spacing_um,
        radius_um,
        (0.7 * radius_um[0], radius_um[1]),
        rim=0.0,
        mottle=0.08,
        angles=1,
        variants=variants,
    )


def paste(
    plane: Floats,
    stamps: Stamps,
    which: Indices,
    points: Points,
    tone: AnyFloats,
    *,
    add: bool = False,
) -> None:
    """Stamp pictures times their tone: the darker of the two stays, or their sum."""
    half = stamps.pictures.shape[1] // 2
    height, width = plane.shape
    merge = np.add if add else np.maximum
    places = zip(
        points.row.tolist(),
        points.column.tolist(),
        which.tolist(),
        np.asarray(tone, np.float32).tolist(),
        strict=True,
    )
    for row, column, index, strength in places:
        top, left = row - half, column - half
        stamp = stamps.pictures[index]
        if top < 0 or left < 0 or row + half >= height or column + half >= width:
            stamp = stamp[
                max(-top, 0) : height - top if row + half >= height else None,
                max(-left, 0) : width - left if column + half >= width else None,
            ]
            top, left = max(top, 0), max(left, 0)
        part = plane[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        merge(part, stamp * np.float32(strength), out=part)
