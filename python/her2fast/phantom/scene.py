# SPDX-License-Identifier: Apache-2.0
"""A scene: how much of each stain lies where, and what is tumor of which class.

Tumor as sheets, glands, nests, cords or buds of packed cells, drawn band by band so
that memory stays a few planes; stroma, fat, vessels and lymphocytes round it; glass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from her2fast.phantom.background import carve_necrosis, draw_ground, draw_overlay
from her2fast.phantom.cells import CellTable, gather, no_cells
from her2fast.phantom.fields import Floats, generator
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import FAR_UM, Grid, Layout, draw_layout
from her2fast.phantom.marker import NuclearMarker
from her2fast.phantom.stroma import StromaMix
from her2fast.phantom.tumor import TumorPainter, draw_regions

#: Independent streams of random numbers, so that a part can change without the others.
_LAYOUT, _STROMA, _REGION, _TUMOR, _SPECKS, _OVERLAY, _NECROSIS, _MARKER = (
    2**40 + part for part in range(8)
)
#: A scene meant to hold tumor is laid out anew where it got less than this share.
_LEAST_TUMOR, _ATTEMPTS = 0.06, 8
#: Pixels of a band: its planes stay in a core's cache.
_BAND_PX = 1 << 16


@dataclass(frozen=True)
class Scene:
    """Stain amounts and truth of one phantom, at the fine grid."""

    amounts: Floats  # (4, h, w): hematoxylin, DAB, pigment, blood; optical density
    class_map: npt.NDArray[np.int8]  # (h, w): 0 to 3, or -1 where there is no tumor
    tissue: npt.NDArray[np.uint8]  # (h, w): values of `ground.Tissue`
    membrane_mask: npt.NDArray[np.bool_]  # (h, w): membrane DAB above MEMBRANE_CUT
    cells: CellTable = field(default_factory=no_cells)
    oversampling: int = 1  # fine pixels per pixel of the picture, per axis


def compose(
    seed: int,
    shape: tuple[int, int],
    spacing_um: float,
    mixture: tuple[float, float, float, float],
    *,
    tumor: bool = True,
    oversampling: int = 1,
    mix: StromaMix | None = None,
) -> Scene:
    """Draw a scene on a fine grid of `shape` at `spacing_um`."""
    grid = Grid.over(shape, spacing_um)
    for attempt in range(_ATTEMPTS):
        layout = draw_layout(generator(seed, _LAYOUT + (attempt << 8)), grid)
        if not tumor or layout.tumor().mean() >= _LEAST_TUMOR:
            break
    if not tumor:
        layout.depth_um[...] = FAR_UM
        layout.lumen_um[...] = FAR_UM

    mix = mix if mix is not None else StromaMix()
    fine = (0, shape[0])
    carving = Grid.over(layout.depth_um.shape, layout.coarse_um)
    dead = carve_necrosis(generator(seed, _NECROSIS), carving, layout.depth_um, mix)
    ground = draw_ground(
        generator(seed, _STROMA),
        grid,
        -layout.smooth(layout.depth_um, *fine),
        mix,
        None if dead is None else layout.blocks(dead, *fine),
    )

    inside = layout.tumor()
    coarse = Grid.over(inside.shape, layout.coarse_um)
    region = draw_regions(generator(seed, _REGION), coarse, inside, mixture)
    painter = None
    if inside.any():
        own = generator(seed, _MARKER)
        marked = own.random() < mix.tumor_nuclear_dab
        marker = NuclearMarker(own, grid) if marked else None
        painter = TumorPainter(generator(seed, _TUMOR), grid, layout, region, marker)
    class_map = np.full(shape, -1, np.int8)
    membrane = np.zeros(shape, np.bool_)
    cells = _fill(
        generator(seed, _SPECKS), layout, grid, painter, ground, class_map, membrane
    )
    draw_overlay(generator(seed, _OVERLAY), grid, ground, mix)
    return Scene(
        ground.amounts, class_map, ground.tissue, membrane, cells, oversampling
    )


class _Relief:
    """What all tissue has beside its stain: thickness, refraction, a grey of its own.

    Without it pale tissue is too flat and too pure in color.
    """

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        self.fine = grid.field(rng, rng.uniform(0.6, 2.0))
        self.fine_od = np.float32(rng.uniform(0.003, 0.025))
        self.wide = grid.field(rng, rng.uniform(5.0, 25.0))
        self.thick = np.float32(rng.uniform(0.05, 0.30))
        self.tint = np.float32(rng.uniform(0.0, 0.25))
        # How soon more nucleus takes up no more hematoxylin.
        self.full = np.float32(rng.uniform(0.0, 2.5))

    def lay(self, begin: int, end: int, ground: Ground) -> None:
        """Rows [begin, end)."""
        part = slice(begin, end)
        hematoxylin, pigment = ground.hematoxylin[part], ground.pigment[part]
        one = np.float32(1.0)
        wide = self.wide.rows(begin, end)
        # Thin stain is greyer than dense nuclei.
        grey = np.minimum(hematoxylin, np.float32(0.08))
        grey *= self.tint * np.clip(one + np.float32(0.6) * wide, 0.0, 2.5)
        present = np.clip(hematoxylin * np.float32(20.0), 0.0, 1.0)
        grey += self.fine_od * present * self.fine.rows(begin, end)
        pigment += grey
        hematoxylin *= np.clip(one + self.thick * wide, 0.2, 2.0)
        hematoxylin /= one + self.full * hematoxylin


def _fill(
    rng: np.random.Generator,
    layout: Layout,
    grid: Grid,
    painter: TumorPainter | None,
    ground: Ground,
    class_map: npt.NDArray[np.int8],
    membrane: npt.NDArray[np.bool_],
) -> CellTable:
    """Cut lumens and glass out of the stroma and put the tumor in, band by band."""
    debris_above = rng.uniform(2.6, 3.6)
    # A cleft between tumor and stroma, as fixation shrinks them apart.
    cleft_um = np.float32(rng.uniform(0.0, 5.0) if rng.random() < 0.6 else 0.0)
    cleft = grid.field(rng, 50.0)
    specks = grid.field(rng, 3.0)
    relief = _Relief(rng, grid)
    height, width = grid.shape
    step = max(8, _BAND_PX // width)
    found: list[CellTable] = []
    for begin in range(0, height, step):
        end = min(begin + step, height)
        part = slice(begin, end)
        depth = layout.smooth(layout.depth_um, begin, end)
        lumen = layout.smooth(layout.lumen_um, begin, end)
        into = layout.smooth(layout.tissue_um, begin, end)
        hollow = (lumen > 0.0) | (into <= 0.0)
        hematoxylin, dab = ground.hematoxylin[part], ground.dab[part]
        if cleft_um > 0.0:
            gap = cleft_um * np.clip(cleft.rows(begin, end), 0.0, 1.0)
            hematoxylin[(depth <= 0.0) & (depth > -gap)] = 0.01
        for plane in ground.amounts:
            plane[part][hollow] = 0.0
        ground.tissue[part][hollow] = Tissue.LUMEN
        ground.tissue[part][into <= 0.0] = Tissue.GLASS
        debris = hollow & (specks.rows(begin, end) > debris_above)
        hematoxylin[debris] += 0.08
        at = np.flatnonzero((depth > 0.0) & ~hollow)
        if painter is not None and at.size:
            drawn = painter.paint(begin, end, at)
            for plane in ground.amounts:
                plane[part].reshape(-1)[at] = 0.0
            hematoxylin.reshape(-1)[at] = drawn.hematoxylin
            dab.reshape(-1)[at] = drawn.dab
            ground.tissue[part].reshape(-1)[at] = Tissue.TUMOR
            class_map[part].reshape(-1)[at] = drawn.kind
            membrane[part].reshape(-1)[at] = drawn.membrane
            found.append(drawn.cells)
        relief.lay(begin, end, ground)
    return gather(found) if found else no_cells()
