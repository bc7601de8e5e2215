# SPDX-License-Identifier: Apache-2.0
"""Nuclei and cells of planes with a halo, slowly: whole arrays, fixpoints, loops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from reference.optical_density import density_units

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

RAYS = 32
#: Hundredths of optical density over glass; less is no stain.
FAINTEST_DAB = 3


def shifted(plane: Ints, dy: int, dx: int, fill: int) -> Ints:
    """Element (y, x) of the result is (y + dy, x + dx) of the plane."""
    height, width = plane.shape
    reach = max(abs(dy), abs(dx))
    padded = np.pad(plane, reach, constant_values=fill)
    return padded[
        reach + dy : reach + dy + height, reach + dx : reach + dx + width
    ].copy()


def box(plane: Ints, radius: int) -> Ints:
    height, width = plane.shape
    sums = np.pad(plane, radius).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    side = 2 * radius + 1
    return (
        sums[side : side + height, side : side + width]
        - sums[:height, side : side + width]
        - sums[side : side + height, :width]
        + sums[:height, :width]
    )


def stains(
    rgb: Bytes, step: int, white: tuple[int, int, int] = (255, 255, 255)
) -> tuple[Ints, Ints]:
    density = density_units(rgb, white)
    r, g, b = (density[..., k].astype(np.int64) for k in range(3))
    amount = (-706 * r + 24 * g + 1545 * b) >> 10
    dab = np.clip((amount * 100 + 512) >> 10, 0, 255)
    height, width = r.shape
    blocks = (height // step, step, width // step, step)
    r, g, b = (c.reshape(blocks).sum((1, 3)) * (4 // step**2) for c in (r, g, b))
    brown = np.maximum((-706 * r + 24 * g + 1545 * b) >> 10, 0) * 307 >> 10
    hematoxylin = ((1229 * r + 702 * g - 940 * b) >> 10) - brown
    return np.clip(hematoxylin, 0, 3277), dab


def walls(mask: Bytes, step: int) -> npt.NDArray[np.bool_]:
    height, width = mask.shape
    blocks = mask.reshape(height // step, step, width // step, step)
    return np.asarray((blocks != 0).any((1, 3)))


def dark(hematoxylin: Ints, wall: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    h = np.minimum(hematoxylin, 3277)
    soft = box(box(h, 1), 1)
    mean = box(np.where(wall, 0, h), 24)
    count = box((~wall).astype(np.int64), 24)
    found = (soft * count > 81 * (mean + 20 * count)) & (soft > 81 * 82)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    as_int = found.astype(np.int64)
    grown = np.maximum.reduce([shifted(as_int, *s, 0) for s in steps])
    closed = np.minimum.reduce([shifted(grown, *s, 1) for s in steps])
    return np.asarray((closed == 1) & ~wall)


def nuclei(
    hematoxylin: Ints, mask: Bytes, step: int, halo: int
) -> tuple[list[tuple[int, int]], npt.NDArray[np.bool_]]:
    """(y, x) from the inner corner, and the dark pixels."""
    wall = walls(mask, step)
    is_dark = dark(hematoxylin, wall)
    squared = np.where(is_dark, 256, 0).astype(np.int64)
    for dy in range(-16, 17):
        for dx in range(-16, 17):
            away = dy * dy + dx * dx
            if away < 256:
                bright = shifted((~is_dark).astype(np.int64), dy, dx, 0) == 1
                squared[bright] = np.minimum(squared[bright], away)
    roots = np.array([math.floor(16 * math.sqrt(n) + 0.5) for n in range(257)])
    depth = box(box(roots[squared], 2), 2)
    height, width = depth.shape
    found = []
    for y in range(halo, height - halo):
        for x in range(halo, width - halo):
            if squared[y, x] < 8:
                continue
            near = [
                (-int(depth[y + dy, x + dx]), y + dy, x + dx)
                for dy in range(-6, 7)
                for dx in range(-6, 7)
            ]
            if min(near) == (-int(depth[y, x]), y, x):
                found.append((y - halo, x - halo))
    return found, is_dark


def owners(
    seeds: list[tuple[int, int]],
    is_dark: npt.NDArray[np.bool_],
    wall: npt.NDArray[np.bool_],
) -> Ints:
    """The seed that comes to each pixel first; -1 for none. Relaxed to a fixpoint."""
    count = len(seeds) + 1
    never = 10**9
    best = np.full(wall.shape, never, np.int64)
    for number, (y, x) in enumerate(seeds):
        if not wall[y, x]:
            best[y, x] = number
    blocked = wall.astype(np.int64)
    pale = np.where(is_dark, 1, 2)
    while True:
        before = best.copy()
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dy == 0 and dx == 0:
                    continue
                cost = pale * (3 if dy and dx else 2)
                came = shifted(before, dy, dx, never) + cost * count
                if dy and dx:
                    side = shifted(blocked, dy, 0, 1) + shifted(blocked, 0, dx, 1)
                    came = np.where(side > 0, never, came)
                came = np.where(came // count > 72, never, came)
                best = np.minimum(best, came)
        best[wall] = never
        if (best == before).all():
            return np.where(best < never, best % count, -1)


def cells(
    hematoxylin: Ints, dab: Ints, mask: Bytes, step: int, halo: int, glass_dab: int = 0
) -> list[dict[str, object]]:
    """Cells of the inner part; all nuclei of the planes compete."""
    least = 53
    found, is_dark = nuclei(hematoxylin, mask, step, least)
    seeds = [(y + least, x + least) for y, x in found]
    wall = walls(mask, step)
    owner = owners(seeds, is_dark, wall)
    height, width = owner.shape
    rows = []
    for number, (y, x) in enumerate(seeds):
        if not (halo <= y < height - halo and halo <= x < width - halo):
            continue
        own = owner == number
        rays, stained, dab_sum, dab_px = [], 0, 0, 0
        for k in range(RAYS):
            along = [round(1024 * math.cos(2 * math.pi * k / RAYS))]
            along.append(round(1024 * math.sin(2 * math.pi * k / RAYS)))

            def at(
                px: int, along: list[int] = along, y: int = y, x: int = x
            ) -> tuple[int, int]:
                return y + (px * along[1] + 512 >> 10), x + (px * along[0] + 512 >> 10)

            px = next(t for t in range(1, 99) if not own[at(t)])
            rays.append(px)
            wall_px = next((t for t in range(px, px + 3) if wall[at(t)]), None)
            if wall_px is None:
                continue
            ray_sum = ray_px = 0
            for t in range(wall_px, wall_px + 5):
                row, column = at(t)
                if not wall[row, column]:
                    break
                block = np.s_[
                    row * step : (row + 1) * step, column * step : (column + 1) * step
                ]
                is_membrane = mask[block] != 0
                ray_sum += int(dab[block][is_membrane].sum())
                ray_px += int(is_membrane.sum())
            if ray_sum >= (glass_dab + FAINTEST_DAB) * ray_px:
                stained |= 1 << k
                dab_sum, dab_px = dab_sum + ray_sum, dab_px + ray_px
        rows.append(
            {
                "y": y - halo,
                "x": x - halo,
                "px": int(own.sum()),
                "nucleus_px": int((own & is_dark).sum()),
                "ray_px": rays,
                "stained": stained,
                "dab_sum": dab_sum,
                "dab_px": dab_px,
            }
        )
    return rows
