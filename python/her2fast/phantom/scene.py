# SPDX-License-Identifier: Apache-2.0
"""A scene: how much of each stain lies where, and what is tumor of which class.

A first, simple anatomy: tumor as glands, nests or sheets of packed cells; stroma with
fibers, spindle cells and lymphocytes; fat, vessels with red cells, glass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import (
    TABLE,
    Cells,
    Floats,
    fibers,
    generator,
    per_cell,
)
from her2fast.phantom.layout import Grid, Layout, draw_layout, quantile

#: Membrane width of class 0 to 3, mean and spread in um. 1+ to 3+: Scheel et al., Diagn
#: Pathol 2018;13:19. Class 0 has no membrane; the width serves its few faint cells.
MEMBRANE_UM = ((0.5, 0.05), (0.64, 0.10), (1.0, 0.23), (2.14, 0.40))
#: Optical density of the membrane: low and high of the slide's usual value.
MEMBRANE_DENSITY = ((0.0, 0.05), (0.20, 0.36), (0.34, 0.62), (0.60, 1.25))
#: Share of each cell's outline that is stained.
COMPLETENESS = ((0.0, 0.25), (0.25, 0.65), (0.75, 1.05), (0.95, 1.10))
#: DAB in the cytoplasm, low and high of the slide's usual value.
BLUSH_DENSITY = ((0.0, 0.02), (0.015, 0.06), (0.03, 0.10), (0.05, 0.20))


@dataclass(frozen=True)
class Scene:
    """Stain amounts and truth of one phantom, at the fine grid."""

    amounts: Floats  # (3, h, w): hematoxylin, DAB, pigment; optical density
    class_map: npt.NDArray[np.int8]  # (h, w): 0 to 3, or -1 where there is no tumor


def _regions(
    rng: np.random.Generator,
    grid: Grid,
    inside: npt.NDArray[np.bool_],
    mixture: tuple[float, float, float, float],
) -> npt.NDArray[np.int8]:
    """Regions of classes 0 to 3 whose areas follow the mixture, within `inside`."""
    field = grid.noise(rng, rng.uniform(120.0, 350.0))
    field += 0.15 * grid.noise(rng, 25.0)
    sample = field[inside]
    if sample.size == 0:
        return np.zeros(grid.shape, np.int8)
    below = np.cumsum(mixture)[:3]
    cuts = np.quantile(sample[::7], np.clip(below, 0.0, 1.0))
    # A share of zero gets no pixel at all, not even at the field's extremes.
    cuts[below < 1e-9] = -np.inf
    cuts[below > 1.0 - 1e-9] = np.inf
    return np.searchsorted(cuts, field, side="left").astype(np.int8)


def _spread(
    rng: np.random.Generator, table: tuple[tuple[float, float], ...]
) -> npt.NDArray[np.float32]:
    """One slide's usual value for every class: the same quantile for all."""
    where = rng.beta(2.0, 2.0)
    return np.array([low + where * (high - low) for low, high in table], np.float32)


def _tumor(
    rng: np.random.Generator,
    grid: Grid,
    at: npt.NDArray[np.bool_],
    layout: Layout,
    region: npt.NDArray[np.int8],
) -> tuple[Floats, Floats, npt.NDArray[np.int8]]:
    """Hematoxylin, DAB and class of the tumor's pixels (flat, in the order of `at`)."""
    pitch_um = 7.0 * float(np.exp(rng.uniform(0.0, 0.95)))
    stretch = float(rng.uniform(1.0, 2.4 if pitch_um < 11.0 else 1.6))
    bend = rng.uniform(0.5, 3.0)
    along_pitch_um = pitch_um * stretch
    across_pitch_um = np.full(int(at.sum()), pitch_um, np.float32)
    angle = layout.nest[at]
    if layout.place_um is not None and layout.middle_um is not None:
        # Palisades: cells stand on the gland's wall, long side toward the lumen.
        from_x, from_y = layout.place_um[0][at], layout.place_um[1][at]
        r_um = np.hypot(from_x, from_y)
        middle_um = layout.middle_um[at]
        u = (r_um + bend * grid.noise(rng, 18.0)[at]) / along_pitch_um
        v = np.arctan2(from_y, from_x) * middle_um / pitch_um
        across_pitch_um = (pitch_um * np.maximum(r_um / middle_um, 0.3)).astype("f4")
    else:
        x_um = (grid.x_um + bend * grid.noise(rng, 18.0))[at]
        y_um = (grid.y_um + bend * grid.noise(rng, 18.0))[at]
        cos, sin = np.cos(angle), np.sin(angle)
        u = (cos * x_um + sin * y_um) / along_pitch_um
        v = (cos * y_um - sin * x_um) / pitch_um
    # Nests are far apart in the table of cells, so that no two look alike.
    shift = np.rint(angle * 997.0)
    packing = Cells(rng)(u + shift, v + 2.0 * shift)
    cell = packing.cell
    off_u = packing.du * np.float32(along_pitch_um)
    off_v = packing.dv * across_pitch_um
    radius_um = np.hypot(off_u, off_v)
    edge_um = packing.edge / np.hypot(
        packing.normal_u / np.float32(along_pitch_um),
        packing.normal_v / across_pitch_um,
    )

    step = np.zeros(TABLE * TABLE, np.int8)
    odd = rng.random(TABLE * TABLE)
    variety = rng.uniform(0.0, 0.10)
    step[odd < variety / 2.0] = -1
    step[odd > 1.0 - variety / 2.0] = 1
    here = np.clip(region[at] + step[cell], 0, 3).astype(np.int8)
    kinds = np.bincount(region[at], minlength=4) > 0
    here = np.where(kinds[here], here, region[at]).astype(np.int8)

    # Membrane: a band along the border, drawn by area coverage of the fine pixel.
    width = np.array([mean for mean, _ in MEMBRANE_UM], np.float32)
    width *= np.float32(np.clip(rng.normal(0.97, 0.14), 0.7, 1.25))
    sigma = np.array([spread for _, spread in MEMBRANE_UM], np.float32)
    unit = np.clip(rng.standard_normal(TABLE * TABLE, np.float32), -2.0, 2.0)
    half_um = np.maximum((width[here] + sigma[here] * unit[cell]) / 2.0, 0.15)
    cover = np.clip((half_um - edge_um) / np.float32(grid.spacing_um) + 0.5, 0.0, 1.0)
    complete = _spread(rng, COMPLETENESS)[here] + per_cell(rng, -0.12, 0.12)[cell]
    turn = np.arctan2(packing.dv, packing.du) + per_cell(rng, 0.0, 6.28)[cell]
    outline = 0.5 + 0.3 * np.sin(turn) + 0.2 * np.sin(3.0 * turn + unit[cell])
    stained = np.clip((complete - outline) / 0.12 + 0.5, 0.0, 1.0)
    patchy = rng.uniform(0.1, 0.4) * grid.noise(rng, rng.uniform(4.0, 9.0))[at]
    grain = np.clip(1.0 + 0.4 * grid.noise(rng, 2.0)[at] + patchy, 0.15, 2.2)
    uneven = np.clip(1.0 + 0.18 * grid.noise(rng, 60.0)[at], 0.5, 1.6)
    density = _spread(rng, MEMBRANE_DENSITY)[here]
    density *= np.exp(per_cell(rng, -0.18, 0.18)[cell]) * uneven
    blush = _spread(rng, BLUSH_DENSITY)[here] * (0.6 + 0.4 * uneven) * grain

    # Nucleus: an ellipse at the center with a rim, a nucleolus and chromatin.
    room_um = pitch_um * float(np.sqrt(stretch))
    nuclear = float(rng.uniform(0.24, 0.40))
    big_um = np.clip(nuclear * room_um, 2.4, 8.0) * per_cell(rng, 0.75, 1.2)[cell]
    long = per_cell(rng, 0.8, 1.25)[cell] * np.float32(1.0 + 0.4 * (stretch - 1.0))
    # Not every section passes through the middle of its cell.
    aside = np.float32(0.12 * pitch_um)
    slide_u = (off_u + aside * unit[cell]) / (big_um * long)
    slide_v = off_v * np.sqrt(long) / big_um
    from_center = np.hypot(slide_u, slide_v)
    fine = np.float32(grid.spacing_um)
    body = np.clip((1.0 - from_center) * big_um / fine + 0.5, 0.0, 1.0)
    body *= per_cell(rng, 0.0, 1.0)[cell] < rng.uniform(0.75, 0.98)
    rim = np.exp(-(((from_center - 0.9) * big_um / 0.6) ** 2))
    nucleolus = np.clip(1.3 - radius_um, 0.0, 1.0)
    mottle = rng.uniform(0.15, 0.45) * grid.noise(rng, 1.6)[at]
    mottle += rng.uniform(0.1, 0.3) * grid.noise(rng, rng.uniform(3.0, 5.0))[at]
    chromatin = np.clip(1.0 + mottle, 0.3, 2.0)
    tone = rng.uniform(0.06, 0.20) * per_cell(rng, 0.7, 1.5)[cell]
    nucleus = body * tone * (chromatin + rng.uniform(0.0, 0.7) * rim)
    nucleus += body * nucleolus * rng.uniform(0.0, 0.2)
    cytoplasm = rng.uniform(0.03, 0.10) * (0.4 + 0.6 * chromatin)
    cytoplasm *= per_cell(rng, 0.75, 1.3)[cell]
    if rng.random() < 0.3:  # vacuoles and mucin: pale holes beside the nucleus
        pale = grid.noise(rng, rng.uniform(5.0, 9.0))[at] > rng.uniform(0.9, 1.6)
        cytoplasm = np.where(pale, 0.3 * cytoplasm, cytoplasm)
    hematoxylin = cytoplasm * (1.0 - body) + nucleus + 0.5 * body * cytoplasm
    outline_h = rng.uniform(0.0, 0.05) * np.clip(1.0 - edge_um / 0.8, 0.0, 1.0)
    dab = cover * stained * density * grain + blush * (1.0 - 0.7 * body)
    return (
        (hematoxylin + outline_h).astype(np.float32),
        dab.astype(np.float32),
        here,
    )


def _stroma(rng: np.random.Generator, grid: Grid) -> tuple[Floats, Floats]:
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


def _fat(rng: np.random.Generator, grid: Grid, tissue: Floats) -> Floats:
    """Replace part of the stroma by fat: empty cells with thin walls."""
    here = grid.noise(rng, 200.0) > rng.uniform(0.3, 1.5)
    if not here.any():
        return tissue
    pitch_um = np.float32(rng.uniform(40.0, 75.0))
    packing = Cells(rng)(grid.x_um[here] / pitch_um, grid.y_um[here] / pitch_um)
    wall = np.clip(1.2 - packing.edge * pitch_um, 0.0, 1.0)
    tissue[here] = wall * rng.uniform(0.04, 0.12)
    return tissue


def compose(
    seed: int,
    shape: tuple[int, int],
    spacing_um: float,
    mixture: tuple[float, float, float, float],
    *,
    tumor: bool = True,
) -> Scene:
    """Draw a scene on a fine grid of `shape` at `spacing_um`."""
    rng = generator(seed)
    grid = Grid.over(shape, spacing_um)
    layout = draw_layout(rng, grid)
    depth, lumen = layout.depth_um, layout.lumen_um
    if not tumor:
        depth, lumen = np.full_like(depth, -100.0), np.full_like(lumen, -100.0)
    tissue = np.ones(shape, np.bool_)
    if rng.random() < 0.5:
        outline = grid.noise(rng, rng.uniform(150.0, 400.0)) + 0.1 * grid.noise(
            rng, 20.0
        )
        tissue = outline > quantile(outline, rng.uniform(0.03, 0.35))
    tumor_at = (depth > 0.0) & (lumen <= 0.0) & tissue
    hollow = (lumen > 0.0) | ~tissue

    hematoxylin, pigment = _stroma(rng, grid)
    if rng.random() < 0.25:
        hematoxylin = _fat(rng, grid, hematoxylin)
    # A cleft between tumor and stroma, as fixation shrinks them apart.
    cleft_um = rng.uniform(0.0, 5.0) * np.clip(grid.noise(rng, 50.0), 0.0, 1.0)
    hematoxylin = np.where((depth <= 0.0) & (depth > -cleft_um), 0.01, hematoxylin)
    hematoxylin = np.where(hollow, 0.0, hematoxylin).astype(np.float32)
    pigment = np.where(hollow, 0.0, pigment).astype(np.float32)
    dab = np.zeros(shape, np.float32)
    class_map = np.full(shape, -1, np.int8)
    region = _regions(rng, grid, tumor_at, mixture)
    if tumor_at.any():
        h_tumor, dab_tumor, kind = _tumor(rng, grid, tumor_at, layout, region)
        hematoxylin[tumor_at] = h_tumor
        pigment[tumor_at] = 0.0
        dab[tumor_at] = dab_tumor
        class_map[tumor_at] = kind

    # Debris in open spaces, dust-like pigment, and a veil of unspecific stain.
    specks = grid.noise(rng, 3.0) > rng.uniform(2.6, 3.6)
    hematoxylin += np.where(hollow & specks, 0.08, 0.0).astype(np.float32)
    grains = grid.noise(rng, 2.2) > rng.uniform(3.6, 4.4)
    dab += np.where(grains & ~hollow, rng.uniform(0.2, 0.8), 0.0).astype(np.float32)
    if rng.random() < 0.3:
        veil = rng.uniform(0.0, 0.035) * np.clip(1.0 + grid.noise(rng, 80.0), 0.0, 2.5)
        dab += np.where(hollow, 0.1 * veil, veil).astype(np.float32)
    dab = ndimage.gaussian_filter(dab, 0.25 / spacing_um)
    return Scene(np.stack([hematoxylin, dab, pigment]), class_map)
