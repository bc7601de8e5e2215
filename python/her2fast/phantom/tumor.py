# SPDX-License-Identifier: Apache-2.0
"""Tumor of a scene: regions of classes, packed cells, nuclei and membranes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2fast.phantom.cells import CellTable
from her2fast.phantom.fields import (
    TABLE,
    Cells,
    Floats,
    Indices,
    Packing,
    per_cell,
)
from her2fast.phantom.layout import Grid, Layout
from her2fast.phantom.marker import NuclearMarker, Nuclei

#: Membrane width of class 0 to 3, mean and spread in um. 1+ to 3+: Scheel et al., Diagn
#: Pathol 2018;13:19. Class 0 has no membrane; the width serves its few faint cells.
MEMBRANE_UM = ((0.5, 0.05), (0.64, 0.10), (1.0, 0.23), (2.14, 0.40))
#: Optical density of the membrane: low and high of the slide's usual value.
MEMBRANE_DENSITY = ((0.0, 0.03), (0.14, 0.27), (0.24, 0.47), (0.36, 0.85))
#: Optical density that no membrane passes.
DENSEST = 1.5
#: Share of each cell's outline that is stained.
COMPLETENESS = ((0.0, 0.25), (0.25, 0.65), (0.75, 1.05), (0.95, 1.10))
#: DAB in the cytoplasm, low and high of the slide's usual value.
BLUSH_DENSITY = ((0.0, 0.015), (0.01, 0.045), (0.02, 0.07), (0.02, 0.11))
#: A pixel belongs to the membrane mask where membrane DAB is above this density,
#: averaged over the pixel: what an eye at high power would call stained.
MEMBRANE_CUT = 0.07
#: Channel-mean absorption of a unit of DAB; light, not density, is averaged in a pixel.
_MEAN_DAB = 0.54


def draw_regions(
    rng: np.random.Generator,
    coarse: Grid,
    inside: npt.NDArray[np.bool_],
    mixture: tuple[float, float, float, float],
) -> npt.NDArray[np.int8]:
    """Regions of classes 0 to 3 whose areas follow the mixture, within `inside`.

    Mostly neighbors in class are neighbors in place; in a third of all scenes the
    order is shuffled, so that 3+ can lie as a cluster amid 0.
    """
    field = coarse.noise(rng, float(np.exp(rng.uniform(np.log(50.0), np.log(350.0)))))
    field += 0.15 * coarse.noise(rng, 25.0)
    shuffled = rng.random() < 1.0 / 3.0
    order = rng.permutation(4) if shuffled else np.arange(4)
    sample = field[inside]
    if sample.size == 0:
        return np.zeros(coarse.shape, np.int8)
    shares = np.array(mixture)[order]
    below = np.cumsum(shares)[:3]
    cuts = np.quantile(sample[::3], np.clip(below, 0.0, 1.0))
    # A share of zero gets no pixel at all, not even at the field's extremes.
    cuts[below < 1e-9] = -np.inf
    cuts[below > 1.0 - 1e-9] = np.inf
    kinds = np.searchsorted(cuts, field, side="left")
    return order.astype(np.int8)[kinds]


def _spread(
    rng: np.random.Generator, table: tuple[tuple[float, float], ...]
) -> npt.NDArray[np.float32]:
    """One slide's usual value for every class: the same quantile for all."""
    where = rng.beta(2.0, 2.0)
    return np.array([low + where * (high - low) for low, high in table], np.float32)


@dataclass(frozen=True)
class Painted:
    """Tumor pixels of a band, flat, in the order asked."""

    hematoxylin: Floats
    dab: Floats
    kind: npt.NDArray[np.int8]
    membrane: npt.NDArray[np.bool_]
    cells: CellTable


@dataclass(frozen=True)
class _Places:
    """Where pixels lie in their cells; all arrays (n,), lengths in um."""

    packing: Packing
    off_u: Floats  # from the cell's center, along it
    off_v: Floats  # and across
    edge_um: Floats  # to the border with the next cell
    kind: npt.NDArray[np.int8]  # class
    nest: Indices
    radial: npt.NDArray[np.bool_]  # the cell stands round a center


class TumorPainter:
    """Draws all random numbers once; then paints any rows, in any order."""

    def __init__(
        self,
        rng: np.random.Generator,
        grid: Grid,
        layout: Layout,
        region: npt.NDArray[np.int8],
        marker: NuclearMarker | None = None,
    ) -> None:
        self.grid, self.layout, self.region = grid, layout, region
        self.marker = marker
        self.kinds = np.bincount(region[layout.tumor()], minlength=4) > 0
        self.depth_um = layout.distance(layout.depth_um)
        self.lumen_um = layout.distance(-layout.lumen_um)
        self._draw_packing(rng, grid)
        self._draw_membranes(rng, grid)
        self._draw_nuclei(rng, grid)
        self._draw_cytoplasm(rng, grid)

    def _draw_packing(self, rng: np.random.Generator, grid: Grid) -> None:
        self.pitch_um = 6.5 * float(np.exp(rng.uniform(0.0, 0.85)))
        self.stretch = float(rng.uniform(1.0, 2.5 if self.pitch_um < 10.0 else 1.6))
        self.along_um = self.pitch_um * self.stretch
        bend, crumple = rng.uniform(0.5, 3.5), rng.uniform(0.2, 1.1)
        self.bend, self.crumple = np.float32(bend), np.float32(crumple)
        self.bends = [grid.field(rng, 18.0) for _ in range(2)]
        self.crumples = [grid.field(rng, rng.uniform(4.0, 8.0)) for _ in range(2)]
        self.packing = Cells(rng, float(rng.uniform(0.30, 0.46)))
        step = np.zeros(TABLE * TABLE, np.int8)
        odd = rng.random(TABLE * TABLE)
        variety = rng.uniform(0.0, 0.10)
        step[odd < variety / 2.0] = -1
        step[odd > 1.0 - variety / 2.0] = 1
        self.step = step

    def _draw_membranes(self, rng: np.random.Generator, grid: Grid) -> None:
        width = np.array([mean for mean, _ in MEMBRANE_UM], np.float32)
        self.width = width * np.float32(np.clip(rng.normal(0.97, 0.14), 0.7, 1.25))
        self.sigma = np.array([spread for _, spread in MEMBRANE_UM], np.float32)
        unit = rng.standard_normal(TABLE * TABLE, np.float32)
        self.unit = np.clip(unit, -2.0, 2.0)
        self.complete = _spread(rng, COMPLETENESS)
        self.complete_of = per_cell(rng, -0.15, 0.12)
        self.phase = per_cell(rng, 0.0, 6.28)
        # Membranes toward stroma and toward lumens, as in most and in some tumors.
        self.outer = bool(rng.random() < 0.8)
        self.luminal = bool(rng.random() < 0.5)
        # Glands may leave the side toward the lumen unstained.
        self.apical = np.float32(rng.uniform(0.3, 1.0) if rng.random() < 0.4 else 0.0)
        self.density = _spread(rng, MEMBRANE_DENSITY)
        self.density_of = np.exp(per_cell(rng, -0.35, 0.30))
        self.blush = _spread(rng, BLUSH_DENSITY)
        self.patchy = np.float32(rng.uniform(0.15, 0.5))
        self.patches = grid.field(rng, rng.uniform(3.0, 8.0))
        self.fine = grid.field(rng, rng.uniform(0.8, 2.0))
        self.large = grid.field(rng, 60.0)
        # Brown that has run from the membrane into the cell.
        self.run = np.float32(rng.uniform(0.0, 0.22))
        self.run_um = np.float32(rng.uniform(1.0, 2.5))
        self.grainy = np.float32(rng.uniform(0.15, 0.5))
        # Unspecific stain of class 0 and up, without any membrane.
        veil = 0.05 * rng.random() if rng.random() < 0.25 else 0.0
        self.veil = np.float32(veil)

    def _draw_nuclei(self, rng: np.random.Generator, grid: Grid) -> None:
        room_um = self.pitch_um * float(np.sqrt(self.stretch))
        nuclear = float(rng.uniform(0.20, 0.42))
        self.big_um = np.clip(nuclear * room_um, 2.2, 8.0) * per_cell(rng, 0.7, 1.25)
        self.long = per_cell(rng, 0.8, 1.3) * np.float32(
            1.0 + 0.5 * (self.stretch - 1.0)
        )
        # Not every section passes through the middle of its cell, and nuclei of long
        # cells stand at different heights.
        self.aside_um = np.float32(0.12 * self.pitch_um + 0.10 * self.along_um)
        self.has_nucleus = per_cell(rng, 0.0, 1.0) < rng.uniform(0.7, 0.98)
        tone = float(np.exp(rng.uniform(np.log(0.06), np.log(0.26))))
        self.usual_tone = tone
        self.tone = np.float32(tone) * np.exp(per_cell(rng, -0.4, 0.4))
        # Vesicular nuclei: clear inside, a thin dark rim, one or two nucleoli.
        vesicular = float(rng.random())
        self.clear = np.clip(vesicular + per_cell(rng, -0.3, 0.3), 0.0, 0.95)
        self.rim = np.float32(rng.uniform(0.1, 0.9))
        self.nucleolus = np.float32(rng.uniform(0.0, 0.25))
        self.nucleolus_um = per_cell(rng, 0.3, 1.5)
        self.chromatin = grid.field(rng, rng.uniform(0.7, 1.6))
        self.clumps = grid.field(rng, rng.uniform(2.2, 4.0))
        self.mottle = np.float32(rng.uniform(0.2, 0.6))
        self.clumpy = np.float32(rng.uniform(0.1, 0.5))

    def _draw_cytoplasm(self, rng: np.random.Generator, grid: Grid) -> None:
        # Mostly paler than the nuclei, seldom nearly as dark; or almost clear.
        tone = min(
            float(np.exp(rng.uniform(np.log(0.008), np.log(0.12)))),
            float(rng.uniform(0.35, 0.9) * self.usual_tone),
        )
        self.cytoplasm = np.float32(tone) * np.exp(per_cell(rng, -0.3, 0.3))
        self.granular = np.float32(rng.uniform(0.1, 0.5))
        # Borders of cells: drawn by hematoxylin, not seen, or pale clefts.
        self.border = np.float32(rng.choice((0.0, 0.0, 1.0)) * rng.uniform(0.01, 0.06))
        self.cleft_um = np.float32(
            rng.uniform(0.3, 1.0) if rng.random() < 0.3 else -9.0
        )
        self.holes = grid.field(rng, rng.uniform(4.0, 9.0))
        self.blotchy = np.float32(rng.uniform(0.0, 0.35))
        # Vacuoles and mucin: pale holes beside the nucleus.
        self.hollow_above = np.float32(
            rng.uniform(0.8, 1.8) if rng.random() < 0.35 else 9.0
        )

    def _coordinates(self, begin: int, end: int, at: Indices) -> _Places:
        """The cells at pixels `at` of a band."""
        layout, spacing = self.layout, np.float32(self.grid.spacing_um)
        width = self.grid.shape[1]
        row = at // width
        x_um = (at - row * width + np.float32(0.5)).astype(np.float32) * spacing
        y_um = (row + np.float32(begin + 0.5)).astype(np.float32) * spacing
        x = x_um + self.bend * self.bends[0].rows(begin, end).take(at)
        y = y_um + self.bend * self.bends[1].rows(begin, end).take(at)
        x += self.crumple * self.crumples[0].rows(begin, end).take(at)
        y += self.crumple * self.crumples[1].rows(begin, end).take(at)
        angle = layout.blocks(layout.angle, begin, end).take(at)
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = np.float32(self.along_um), np.float32(self.pitch_um)
        u = (cos * x + sin * y) / along
        v = (cos * y - sin * x) / across
        across_um = np.full(at.size, across, np.float32)
        middle = layout.blocks(layout.middle_um, begin, end).take(at)
        radial = np.flatnonzero(middle > 0.0)
        if radial.size:
            # Palisades: cells stand on the gland's wall, long side toward the lumen.
            around = middle.take(radial)
            picked = at.take(radial)
            from_x = layout.smooth(layout.place_x_um, begin, end).take(picked)
            from_y = layout.smooth(layout.place_y_um, begin, end).take(picked)
            from_x += (x - x_um).take(radial)
            from_y += (y - y_um).take(radial)
            r_um = np.hypot(from_x, from_y)
            theta = np.arctan2(from_y, from_x)
            u[radial] = r_um / along
            v[radial] = theta * around / across
            across_um[radial] = across * np.maximum(r_um / around, 0.3)
        # Nests are far apart in the table of cells, so that no two look alike.
        shift = np.rint(angle * np.float32(997.0))
        packing = self.packing(u + shift, v + np.float32(2.0) * shift)
        off_u = packing.du * along
        off_v = packing.dv * across_um
        edge_um = packing.edge / np.hypot(
            packing.normal_u / along, packing.normal_v / across_um
        )
        # The class of a cell is that of the region at its center.
        back_x, back_y = cos * off_u - sin * off_v, sin * off_u + cos * off_v
        if radial.size:
            cos, sin = np.cos(theta), np.sin(theta)
            ru, rv = off_u.take(radial), off_v.take(radial)
            px = (cos * ru - sin * rv) * np.float32(layout.stretch)
            py = sin * ru + cos * rv
            lean_cos = np.float32(np.cos(layout.lean))
            lean_sin = np.float32(np.sin(layout.lean))
            back_x[radial] = lean_cos * px - lean_sin * py
            back_y[radial] = lean_sin * px + lean_cos * py
        scale = np.float32(1.0 / layout.coarse_um)
        rows, columns = self.region.shape
        to_row = np.clip(((y - back_y) * scale).astype(np.intp), 0, rows - 1)
        to_column = np.clip(((x - back_x) * scale).astype(np.intp), 0, columns - 1)
        region = self.region.take(to_row * columns + to_column)
        kind = np.clip(region + self.step.take(packing.cell), 0, 3)
        kind = np.where(self.kinds.take(kind), kind, region).astype(np.int8)
        kind = np.where(self.kinds.take(kind), kind, int(np.argmax(self.kinds)))
        nest = layout.blocks(layout.nest, begin, end).take(at).astype(np.int64)
        radial_at = np.zeros(at.size, np.bool_)
        radial_at[radial] = True
        return _Places(
            packing, off_u, off_v, edge_um, kind.astype(np.int8), nest, radial_at
        )

    def stained(
        self,
        complete: Floats,
        turn: Floats,
        unit: Floats,
        inward: Floats,
    ) -> Floats:
        """Whether the outline is stained in direction `turn`, 0 to 1.

        `inward` is how far a point lies toward a gland's lumen, 0 to 1.
        """
        three = np.float32(3.0)
        outline = np.float32(0.3) * np.sin(turn)
        outline += np.float32(0.2) * np.sin(three * turn + unit)
        outline += np.float32(0.5)
        share = (complete - outline) * np.float32(1.0 / 0.12) + np.float32(0.5)
        clipped: Floats = np.clip(share, 0.0, 1.0)
        return clipped * (np.float32(1.0) - self.apical * inward)

    def paint(self, begin: int, end: int, at: Indices) -> Painted:
        """Paint pixels `at` (flat, ascending) of rows [begin, end)."""
        places = self._coordinates(begin, end, at)
        packing, kind, edge_um = places.packing, places.kind, places.edge_um
        spacing = np.float32(self.grid.spacing_um)
        one = np.float32(1.0)
        cell = packing.cell
        unit = self.unit.take(cell)
        fine = self.fine.rows(begin, end).take(at)
        patches = self.patches.rows(begin, end).take(at)
        uneven = np.float32(0.18) * self.large.rows(begin, end).take(at) + one
        np.clip(uneven, 0.5, 1.6, out=uneven)

        # Membrane: a band along the border, both sides of it, by area coverage.
        half_um = np.maximum(
            (self.width.take(kind) + self.sigma.take(kind) * unit) * np.float32(0.5),
            np.float32(0.15),
        )
        half_um = half_um * np.clip(one + np.float32(0.25) * patches, 0.4, 1.7)
        # Cells at the tumor's border have a membrane there of their own.
        depth_um = self.layout.smooth(self.depth_um, begin, end).take(at)
        lumen_um = self.layout.smooth(self.lumen_um, begin, end).take(at)
        outer_um = np.minimum(depth_um, lumen_um) if self.luminal else depth_um
        if self.outer:
            edge_um = np.minimum(edge_um, np.abs(outer_um - half_um))
        half_px, edge_px = half_um / spacing, edge_um / spacing
        cover = np.minimum(half_px, edge_px + np.float32(0.5))
        cover -= np.maximum(-half_px, edge_px - np.float32(0.5))
        np.clip(cover, 0.0, 1.0, out=cover)
        complete = self.complete.take(kind) + self.complete_of.take(cell)
        turn = np.arctan2(packing.dv, packing.du) + self.phase.take(cell)
        inward = np.clip(packing.du * np.float32(-2.5), 0.0, 1.0) * places.radial
        stained = self.stained(complete, turn, unit, inward)
        grain = np.exp(self.patchy * patches + self.grainy * fine)
        np.clip(grain, 0.1, 2.4, out=grain)
        density = self.density.take(kind) * self.density_of.take(cell)
        strength = density * uneven * grain * stained
        # The precipitate saturates: no membrane is black.
        strength /= np.sqrt(one + (strength / np.float32(DENSEST)) ** 2)
        # The pixel's mean light, as a density again.
        k = np.float32(_MEAN_DAB * np.log(10.0))
        membrane = np.log1p(cover * np.expm1(-k * strength)) / -k
        blush = self.blush.take(kind) * (np.float32(0.6) + np.float32(0.4) * uneven)
        blush = (blush + self.veil) * grain
        run = np.exp(edge_um / -self.run_um)
        blush += self.run * density * uneven * stained * run

        nuclei = self._nuclei(begin, end, at, places, unit)
        body, nucleus = nuclei.cover, nuclei.stain
        granules = np.clip(one + self.granular * fine, 0.2, 2.2)
        cytoplasm = self.cytoplasm.take(cell) * granules * uneven
        holes = self.holes.rows(begin, end).take(at)
        cytoplasm *= np.clip(one - self.blotchy * holes, 0.2, 2.0)
        if self.hollow_above < 5.0:
            pale = holes > self.hollow_above
            cytoplasm = np.where(pale, np.float32(0.25) * cytoplasm, cytoplasm)
        if self.cleft_um > 0.0:
            cytoplasm *= np.clip(
                (edge_um - self.cleft_um) / spacing + np.float32(0.5), 0.1, 1.0
            )
        if self.border > 0.0:
            wall = np.float32(0.4) / spacing - edge_px + np.float32(0.5)
            cytoplasm += self.border * np.clip(wall, 0.0, 1.0)
        rim = np.clip(np.minimum(depth_um, lumen_um) - np.float32(0.7), 0.0, 1.0)
        body, nucleus = body * rim, nucleus * rim
        outside = one - body
        hematoxylin = cytoplasm * (outside + np.float32(0.4) * body) + nucleus
        dab = membrane + blush * (one - np.float32(0.7) * body)
        if self.marker is not None:
            brown, left = self.marker.paint(begin, end, at, cell, nuclei)
            hematoxylin, dab = hematoxylin * left, dab + brown * rim
        here = np.flatnonzero(nuclei.from_um < spacing)
        cells = self._cells(begin, at, here, nuclei.from_um, places, density)
        return Painted(hematoxylin, dab, kind, membrane > MEMBRANE_CUT, cells)

    def _nuclei(
        self,
        begin: int,
        end: int,
        at: Indices,
        places: _Places,
        unit: Floats,
    ) -> Nuclei:
        """The nuclei nearest to pixels `at`."""
        one, spacing = np.float32(1.0), np.float32(self.grid.spacing_um)
        cell, off_u, off_v = places.packing.cell, places.off_u, places.off_v
        big_um, long = self.big_um.take(cell), self.long.take(cell)
        from_u = off_u + self.aside_um * unit
        from_um = np.hypot(from_u, off_v)
        away = np.hypot(from_u / long, off_v * np.sqrt(long))
        depth_um = big_um - away
        body = np.clip(depth_um / spacing + np.float32(0.5), 0.0, 1.0)
        visible = self.has_nucleus.take(cell)
        body *= visible
        fine = self.chromatin.rows(begin, end).take(at)
        clumps = self.clumps.rows(begin, end).take(at)
        chromatin = one + self.mottle * fine
        chromatin += self.clumpy * clumps
        np.clip(chromatin, 0.2, 2.4, out=chromatin)
        clear = self.clear.take(cell)
        ring = np.abs(depth_um - np.float32(0.5))
        ring = np.clip(np.float32(1.1) - ring, 0.0, 1.0) * (self.rim + clear)
        spot_um = self.nucleolus_um.take(cell)
        spot = np.clip((spot_um - from_um) / spacing + np.float32(0.5), 0.0, 1.0)
        inside = one - np.float32(0.65) * clear
        nucleus = body * self.tone.take(cell) * (chromatin * inside + ring)
        nucleus += body * spot * self.nucleolus
        return Nuclei(
            body, nucleus, from_um, depth_um, visible.astype(np.float32), fine, clumps
        )

    def _cells(
        self,
        begin: int,
        at: Indices,
        here: Indices,
        from_um: Floats,
        places: _Places,
        density: Floats,
    ) -> CellTable:
        """Candidates for centers: pixels nearest to one; the caller picks the best."""
        spacing, width = self.grid.spacing_um, self.grid.shape[1]
        key = places.packing.cell.take(here)
        place = at.take(here)
        kinds = places.kind.take(here)
        complete = self.complete.take(kinds) + self.complete_of.take(key)
        turn = np.arange(24, dtype=np.float32) * np.float32(2.0 * np.pi / 24.0)
        radial = places.radial.take(here)[:, None]
        inward = np.clip(-np.cos(turn) * np.float32(1.25), 0.0, 1.0) * radial
        share = self.stained(
            complete[:, None],
            turn + self.phase.take(key)[:, None],
            self.unit.take(key)[:, None],
            inward.astype(np.float32),
        )
        return CellTable(
            number=places.nest.take(here) * (TABLE * TABLE) + key,
            off_um=from_um.take(here),
            x_um=((place % width + 0.5) * spacing).astype(np.float32),
            y_um=((begin + place // width + 0.5) * spacing).astype(np.float32),
            kind=kinds,
            has_nucleus=self.has_nucleus.take(key),
            completeness=share.mean(axis=1).astype(np.float32),
            density=density.take(here),
        )
