# SPDX-License-Identifier: Apache-2.0
"""Brown nuclei of tumor, as a stain for ER, PR or Ki-67 gives them: no membrane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Floats, Indices, per_cell
from her2fast.phantom.layout import Grid

#: Share of the nuclei that are brown: most, as of a hormone receptor, or some, as of a
#: marker of growth.
MOST, SOME = (0.6, 1.0), (0.02, 0.5)
#: Usual optical density of DAB in a brown nucleus, faint to nearly black.
DENSITY = (0.10, 2.0)
#: Density that no nucleus passes.
DENSEST = 2.4
#: Depth over which a nucleus comes up to its full density, um: cut through its middle,
#: or its cap alone.
EDGE_UM = (0.2, 2.2)


@dataclass(frozen=True)
class Nuclei:
    """Pixels of a band and the nuclei nearest to them; all arrays (n,)."""

    cover: Floats  # of the nucleus, 0 to 1
    stain: Floats  # its hematoxylin
    from_um: Floats  # distance from its center
    depth_um: Floats  # distance into it, negative outside
    visible: Floats  # 1 where the section meets it, else 0
    fine: Floats  # chromatin: smooth noise, about normal, 0.7 to 1.6 um
    clumps: Floats  # the same, 2.2 to 4 um


class NuclearMarker:
    """Which nuclei are brown, and how: solid, mottled, or pale within a dark rim.

    All random numbers are drawn here; `paint` is a pure function of place.
    """

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        share = rng.uniform(*(MOST if rng.random() < 0.5 else SOME))
        low, high = (float(np.log(value)) for value in DENSITY)
        usual = np.exp(rng.uniform(low, high))
        spread = float(rng.uniform(0.1, 1.0))
        self.brown = per_cell(rng, 0.0, 1.0) < share
        self.density = np.float32(usual) * np.exp(per_cell(rng, -spread, 0.6 * spread))
        # Whole scenes, or areas with smooth borders.
        self.areas = grid.field(rng, float(rng.uniform(40.0, 150.0)))
        self.level = np.float32(9.0 if rng.random() < 0.6 else rng.uniform(-0.3, 1.2))
        mottled = float(rng.uniform(0.0, 1.0))
        self.fine = np.float32(0.6 * mottled)
        self.clumps = np.float32(rng.uniform(0.0, 1.0) * mottled)
        hollow = float(rng.uniform(-0.8, 0.8))
        self.clear = np.clip(hollow + per_cell(rng, -0.3, 0.3), 0.0, 0.95)
        self.rim = np.float32(rng.uniform(0.0, 0.8))
        self.rim_um = per_cell(rng, 0.3, 1.2)
        self.ragged_um = np.float32(rng.uniform(0.0, 0.7))
        low, high = (float(np.log(value)) for value in EDGE_UM)
        sharpest, softest = np.sort(np.exp(rng.uniform(low, high, 2)))
        self.edge_um = per_cell(rng, float(sharpest), float(softest))
        # How much of the blue is left under the brown.
        self.hidden = np.float32(rng.uniform(0.2, 1.0))
        # Brown that left the nucleus, and that of the cytoplasm.
        runs = rng.random() < 0.4
        self.run = np.float32(rng.uniform(0.0, 0.2) if runs else 0.0)
        self.run_um = np.float32(rng.uniform(0.4, 2.0))
        blushes = rng.random() < 0.35
        self.blush = np.float32(rng.uniform(0.01, 0.12) if blushes else 0.0)
        self.blush_of = per_cell(rng, 0.3, 1.5)

    def paint(
        self,
        begin: int,
        end: int,
        at: Indices,
        cell: npt.NDArray[np.integer[Any]],
        nuclei: Nuclei,
    ) -> tuple[Floats, Floats]:
        """Brown of pixels `at` of rows [begin, end), and the share of blue left."""
        one = np.float32(1.0)
        here = np.clip(self.areas.rows(begin, end).take(at) + self.level, 0.0, 1.0)
        here *= nuclei.visible * self.brown.take(cell)
        depth_um = nuclei.depth_um + self.ragged_um * nuclei.clumps
        within = np.clip(depth_um / self.edge_um.take(cell) + np.float32(0.3), 0.0, 1.0)
        texture = one + self.fine * nuclei.fine + self.clumps * nuclei.clumps
        np.clip(texture, 0.05, 2.5, out=texture)
        clear = self.clear.take(cell)
        wide_um = self.rim_um.take(cell)
        ring = np.clip(one - np.abs(depth_um - wide_um) / wide_um, 0.0, 1.0)
        texture *= one - clear
        texture += ring * (self.rim * texture + clear)
        brown = here * self.density.take(cell) * within * texture
        brown /= np.sqrt(one + (brown / np.float32(DENSEST)) ** 2)
        outside_um = np.maximum(-depth_um, 0.0)
        aura = here * self.density.take(cell) * np.exp(-outside_um / self.run_um)
        brown += self.run * aura * (one - within)
        brown += self.blush * self.blush_of.take(cell) * here * (one - within)
        left = one - self.hidden * np.minimum(np.float32(3.0) * brown, one) * within
        return brown, left
