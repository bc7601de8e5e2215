# SPDX-License-Identifier: Apache-2.0
"""Epithelium that is no tumor: ducts, acini in lobules, glands; some with stain.

One even row of small nuclei round a lumen, an outer flat layer, a cuff of collagen.
The truth calls its pixels `Tissue.BENIGN`, never a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from her2fast.phantom.fields import Floats
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.rings import Ring, Room, cover, inside, ring
from her2fast.phantom.textures import Stamps, child, clouds, grain, nuclei, paste

#: Outer radius, um.
DUCT_UM = (18.0, 100.0)
ACINUS_UM = (11.0, 24.0)
#: Height of the inner cells and their width, um.
CELL_HEIGHT_UM = (7.0, 18.0)
CELL_WIDTH_UM = (4.5, 8.0)
#: Optical density of stained basolateral membranes: about 1+ to 2+ of a tumor.
STAINED_DENSITY = (0.10, 0.50)
#: Their width, um.
STAINED_UM = (0.5, 1.1)


@dataclass(frozen=True)
class Style:
    """What the epithelium of one scene has in common."""

    height_um: float
    width_um: float
    cytoplasm: float  # optical density
    nucleus: float
    outer_um: float  # height of the outer, flat layer
    membrane: float  # optical density of DAB; 0: unstained
    membrane_um: float
    apical: float  # of the membrane's density, on the lumen's side
    blush: float
    mucin: float  # share of the cell's height that is pale toward the lumen
    uneven: float  # spread of the nuclei's height, share of the cell's
    stamps: Stamps
    flat: Stamps

    @staticmethod
    def draw(rng: np.random.Generator, grid: Grid, stained: bool) -> Style:
        """A style."""
        height = float(rng.uniform(*CELL_HEIGHT_UM))
        width = float(rng.uniform(*CELL_WIDTH_UM))
        thin = 0.36 * width
        long = max(thin, float(rng.uniform(0.16, 0.26)) * height + 0.3 * thin)
        # Drawn in any case: stained or not, the same seed gives the same cells.
        membrane, apical, blush, weak = (
            float(rng.uniform(*STAINED_DENSITY)),
            float(rng.choice((0.0, 0.3, 1.0), p=(0.6, 0.2, 0.2))),
            float(rng.uniform(0.0, 0.10)),
            bool(rng.random() < 0.2),
        )
        return Style(
            height,
            width,
            float(rng.uniform(0.03, 0.14)),
            float(rng.uniform(0.18, 0.34)),
            float(rng.uniform(1.5, 4.5)),
            membrane if stained else 0.0,
            float(rng.uniform(*STAINED_UM)),
            apical,
            blush if stained else 0.4 * blush * weak,
            float(rng.uniform(0.3, 0.6)) * float(rng.random() < 0.3),
            float(rng.choice((0.05, 0.1, 0.2))),
            nuclei(
                rng,
                grid.spacing_um,
                (long, 1.25 * long),
                (0.8 * thin, thin),
                rim=0.4,
                mottle=0.25,
            ),
            nuclei(rng, grid.spacing_um, (2.5, 5.0), (0.8, 1.5), rim=0.2),
        )


def draw_epithelium(
    rng: np.random.Generator, grid: Grid, ground: Ground, shape: Ring, style: Style
) -> None:
    """Two layers round the lumen of one ring."""
    depth = shape.depth_um
    radius = float(np.median(shape.outline_um))
    outer_um = min(style.outer_um, 0.2 * radius)
    height_um = min(style.height_um, radius - outer_um)
    uneven = grain(rng, shape.x_um, shape.y_um, 7.0, 7.0)
    top_um = outer_um + height_um * (1.0 + 0.08 * uneven)  # where the lumen begins
    tissue = cover(depth, grid)
    lumen = cover(depth - top_um, grid)
    inner = cover(depth - outer_um, grid) * (1.0 - lumen)

    # Cells stand side by side: borders at jittered angles.
    middle_um = max(radius - outer_um - 0.5 * height_um, 0.5 * radius)
    count = max(int(2.0 * np.pi * middle_um / style.width_um), 5)
    jitter = rng.uniform(-0.25, 0.25, count + 1)
    jitter[-1] = jitter[0]
    place = shape.angle * np.float32(count / (2.0 * np.pi))
    cell = np.minimum(place.astype(np.int32), count - 1)
    left = cell + jitter[cell]
    right = cell + 1 + jitter[cell + 1]
    from_center = np.maximum(radius - depth, 1.0)
    to_border = np.minimum(np.abs(place - left), np.abs(place - right))
    lateral_um = to_border * from_center * np.float32(2.0 * np.pi / count)

    fine = np.clip(1.0 + 0.3 * grain(rng, shape.x_um, shape.y_um, 1.7, 1.7), 0.2, 2.0)
    body = style.cytoplasm * fine
    if style.mucin > 0.0:
        pale = cover(depth - outer_um - (1.0 - style.mucin) * height_um, grid)
        body = body * (1.0 - 0.75 * pale)
    clear = 0.35 * style.cytoplasm * fine  # the outer layer's cytoplasm
    border = np.clip(1.0 - lateral_um / 0.6, 0.0, 1.0)
    value = inner * (body + rng.uniform(0.0, 0.04) * border)
    value += (tissue - inner - lumen).clip(0.0) * clear
    line = np.clip(1.0 - np.abs(depth - 0.4) / 0.8, 0.0, 1.0)
    value += line * rng.uniform(0.01, 0.07)

    rows, columns = shape.window
    planes = [ground.amounts[k, rows, columns] for k in range(4)]
    secretion = _secretion(rng, shape) if rng.random() < 0.35 else 0.0
    keep = 1.0 - tissue
    planes[0][:] = planes[0] * keep + value + lumen * secretion
    brown = rng.uniform(1.0, 6.0) * (rng.random() < 0.12)
    planes[1][:] = planes[1] * keep + inner * style.blush * fine
    planes[1] += lumen * (brown * secretion)
    planes[2][:] = planes[2] * keep + lumen * 0.3 * secretion
    planes[3][:] = planes[3] * keep
    own = child(rng)
    if style.membrane > 0.0:
        half_um = np.float32(style.membrane_um / 2.0)
        patchy = clouds(own, shape.x_um, shape.y_um, 30.0)
        patchy = np.clip(own.uniform(0.2, 1.0) + 0.6 * patchy, 0.0, 1.3)
        grainy = np.clip(
            1.0 + 0.35 * grain(own, shape.x_um, shape.y_um, 2.0, 2.0), 0.2, 2
        )
        stain = cover(half_um - lateral_um, grid)
        stain = np.maximum(stain, cover(half_um - np.abs(depth - outer_um), grid))
        apical = cover(half_um - np.abs(depth - top_um), grid) * style.apical
        stain = np.maximum(stain * inner, apical)
        planes[1] += style.membrane * stain * patchy * grainy
    label = ground.tissue[rows, columns]
    label[depth > 0.0] = Tissue.BENIGN
    label[depth > top_um] = Tissue.LUMEN

    # Nuclei: a row at the cells' base, another of flat ones below it.
    theta = (np.arange(count) + 0.5 + rng.uniform(-0.15, 0.15, count)) * (
        2.0 * np.pi / count
    )
    sits = outer_um + height_um * rng.uniform(0.28, 0.42)
    at = shape.at(theta, sits + rng.normal(0.0, style.uneven, count) * height_um, grid)
    ok = inside(at, grid) & (rng.random(count) < 0.93)
    tone = style.nucleus * rng.uniform(0.75, 1.25, count)
    which = style.stamps.pick(rng, theta)
    paste(ground.hematoxylin, style.stamps, which[ok], at.of(ok), tone[ok])
    some = max(int(2.0 * np.pi * radius / rng.uniform(9.0, 16.0)), 3)
    theta = np.arange(some) * (2.0 * np.pi / some) + rng.uniform(-0.3, 0.3, some) * (
        5.0 / some
    )
    at = shape.at(theta, rng.uniform(0.5, 1.0, some) * outer_um, grid)
    ok = inside(at, grid) & (rng.random(some) < 0.85)
    tone = style.nucleus * rng.uniform(0.8, 1.3, some)
    which = style.flat.pick(rng, theta + np.pi / 2.0)
    paste(ground.hematoxylin, style.flat, which[ok], at.of(ok), tone[ok])


def _secretion(rng: np.random.Generator, shape: Ring) -> Floats:
    """Pale, even or curdled content of a lumen."""
    curd = grain(rng, shape.x_um, shape.y_um, 9.0, 6.0)
    filled = np.clip(curd * 2.0 + rng.uniform(-2.0, 2.5), 0.0, 1.0)
    return np.asarray(rng.uniform(0.01, 0.07) * filled, np.float32)


def _cuff(
    rng: np.random.Generator, ground: Ground, shape: Ring, thick_um: float
) -> None:
    """Collagen in circles round a duct."""
    rows, columns = shape.window
    away = -shape.depth_um
    fade = np.clip(1.0 - away / np.float32(thick_um), 0.0, 1.0) * (away > 0.0)
    arc = shape.angle * np.float32(np.median(shape.outline_um))
    rings = grain(rng, arc, away, 24.0, 1.8)
    value = rng.uniform(0.02, 0.07) * np.clip(1.0 + 0.4 * rings, 0.2, 2.0)
    plane = ground.hematoxylin[rows, columns]
    np.maximum(plane, plane * (1.0 - fade) + value * fade, out=plane)


def draw_ducts(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room, stained: bool
) -> None:
    """Ducts, or glands of a mucosa: single rings, larger or smaller."""
    style = Style.draw(rng, grid, stained)
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    small = rng.random() < 0.4
    per_mm2 = rng.uniform(20.0, 90.0) if small else rng.uniform(4.0, 20.0)
    for _ in range(1 + int(rng.poisson(per_mm2 * area_mm2))):
        radius = float(rng.uniform(14.0, 34.0))
        if not small:  # large ones are rare
            radius = float(np.exp(rng.uniform(*np.log(DUCT_UM))))
        center = room.take(rng, radius + 4.0)
        if center is None:
            continue
        cuff_um = float(rng.uniform(0.0, 30.0))
        wobble = float(rng.uniform(0.02, 0.11))
        shape = ring(
            rng,
            grid,
            center,
            radius,
            wobble=wobble,
            stretch=float(rng.choice((1.4, 1.9, 2.6))),
            margin_um=4.0 + cuff_um,
        )
        if cuff_um > 4.0:
            _cuff(rng, ground, shape, cuff_um)
        draw_epithelium(rng, grid, ground, shape, style)


def draw_lobules(
    rng: np.random.Generator, grid: Grid, ground: Ground, room: Room, stained: bool
) -> None:
    """Lobules: small acini close together in loose tissue."""
    style = Style.draw(rng, grid, stained)
    area_mm2 = grid.shape[0] * grid.shape[1] * grid.spacing_um**2 / 1e6
    for _ in range(1 + int(rng.poisson(rng.uniform(1.0, 4.0) * area_mm2))):
        size_um = float(rng.uniform(50.0, 150.0))
        center = room.take(rng, size_um)
        if center is None:
            continue
        packed_radius = float(rng.uniform(*ACINUS_UM))
        placed: list[tuple[float, float, float]] = []
        for _ in range(90):
            away = size_um * float(np.sqrt(rng.random()))
            turn = float(rng.uniform(0.0, 2.0 * np.pi))
            x = center[0] + away * float(np.cos(turn))
            y = center[1] + away * float(np.sin(turn))
            radius = packed_radius * float(rng.uniform(0.8, 1.25))
            if any(
                np.hypot(x - px, y - py) < radius + pr + 2.0 for px, py, pr in placed
            ):
                continue
            placed.append((x, y, radius))
            shape = ring(
                rng, grid, (x, y), radius, wobble=0.06, stretch=1.35, margin_um=3.0
            )
            if 0 in shape.x_um.shape:
                continue
            draw_epithelium(rng, grid, ground, shape, style)
