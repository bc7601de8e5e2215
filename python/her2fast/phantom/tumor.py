# SPDX-License-Identifier: Apache-2.0
"""Tumor of a scene: regions of classes, packed cells, nuclei and membranes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import TABLE, Cells, Floats, per_cell
from her2fast.phantom.layout import Grid, Layout

#: Membrane width of class 0 to 3, mean and spread in um. 1+ to 3+: Scheel et al., Diagn
#: Pathol 2018;13:19. Class 0 has no membrane; the width serves its few faint cells.
MEMBRANE_UM = ((0.5, 0.05), (0.64, 0.10), (1.0, 0.23), (2.14, 0.40))
#: Optical density of the membrane: low and high of the slide's usual value.
MEMBRANE_DENSITY = ((0.0, 0.05), (0.20, 0.36), (0.34, 0.62), (0.60, 1.25))
#: Share of each cell's outline that is stained.
COMPLETENESS = ((0.0, 0.25), (0.25, 0.65), (0.75, 1.05), (0.95, 1.10))
#: DAB in the cytoplasm, low and high of the slide's usual value.
BLUSH_DENSITY = ((0.0, 0.02), (0.015, 0.06), (0.03, 0.10), (0.05, 0.20))


def draw_regions(
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


def draw_tumor(
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
