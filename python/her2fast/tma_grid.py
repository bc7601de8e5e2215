# SPDX-License-Identifier: Apache-2.0
"""Cores of a tissue microarray, found on a coarse tissue mask and named by their grid.

Islands of tissue are taken for cores where they are of one size. Their centers give the
grid's turn, rows and columns; a place of the grid without an island is a missing core,
an island over several places is several cores that touch. Names are QuPath's: rows A,
B, C from above, columns 1, 2, 3 from the left, "A-1".
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from her2fast.errors import UsageError

__all__ = [
    "CELL_UM",
    "Core",
    "Island",
    "clipped",
    "find_islands",
    "lay_grid",
    "place_name",
]

#: Side of a cell of the mask. A gap of one cell in a core is bridged; cores are farther
#: apart: arrayers leave 0.2 mm and more.
CELL_UM = 40.0
BRIDGE_CELLS = 2
#: A cell with less tissue is glass with dust on it.
MIN_CELL_FRACTION = 0.1
DUST_MM2 = 0.02
#: The largest needles of arrayers are 2 mm, whole sections are larger than 4.
MAX_DIAMETER_UM = 4000.0
MARGIN = 0.1  # of the diameter, on each side
TOUCHING = 1.5  # times the diameter: an island of several cores
PARTIAL = 0.5  # times the diameter: a fragment


class Island(NamedTuple):
    """Tissue in one piece: its box in micrometers from the slide's corner, its area."""

    x0_um: float
    y0_um: float
    x1_um: float
    y1_um: float
    mm2: float

    @property
    def center_um(self) -> tuple[float, float]:
        """The middle of the box."""
        return (self.x0_um + self.x1_um) / 2, (self.y0_um + self.y1_um) / 2

    @property
    def side_um(self) -> float:
        """The longer side of the box."""
        return max(self.x1_um - self.x0_um, self.y1_um - self.y0_um)


@dataclass(frozen=True)
class Core:
    """A core or an empty place of the grid.

    Attributes
    ----------
    name : str
    box_px : (x0, y0, width, height)
        Level-0 pixels; not clipped to the slide.
    status : str
        "found"; "partial", much smaller than the others; "touching", one of several
        that no glass parts; "missing"; "given", by the user's list.
    tissue_mm2 : float or None
    """

    name: str
    box_px: tuple[int, int, int, int]
    status: str
    tissue_mm2: float | None = None


def place_name(row: int, column: int) -> str:
    """ "A-1" for the place above left; rows go on from Z with AA."""
    letters = ""
    row += 1
    while row > 0:
        row, letter = divmod(row - 1, 26)
        letters = string.ascii_uppercase[letter] + letters
    return f"{letters}-{column + 1}"


def find_islands(
    fraction: npt.NDArray[np.floating], cell_um: float = CELL_UM
) -> list[Island]:
    """Islands of a mask: (rows, columns) with each cell's tissue share in [0, 1]."""
    cells = np.argwhere(fraction >= MIN_CELL_FRACTION)
    left = {(int(y), int(x)) for y, x in cells}
    reach = range(-BRIDGE_CELLS, BRIDGE_CELLS + 1)
    steps = [(dy, dx) for dy in reach for dx in reach if dy or dx]
    found = []
    for start in map(tuple, cells.tolist()):
        if start not in left:
            continue
        left.remove(start)
        stack, island = [start], []
        while stack:
            y, x = stack.pop()
            island.append((y, x))
            for dy, dx in steps:
                near = (y + dy, x + dx)
                if near in left:
                    left.remove(near)
                    stack.append(near)
        ys, xs = np.array(island).T
        mm2 = float(fraction[ys, xs].sum()) * cell_um * cell_um * 1e-6
        if mm2 >= DUST_MM2:
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            x0, y0, x1, y1 = (float(side) * cell_um for side in box)
            found.append(Island(x0, y0, x1, y1, mm2))
    return found


def lay_grid(
    islands: Sequence[Island],
    spacing_um: tuple[float, float],
    diameter_um: float | None = None,
) -> list[Core]:
    """Names the islands by the grid that they lie on; row by row, empty places too.

    Raises `UsageError` where they are no array.
    """
    diameter_um = diameter_um or _diameter(islands)
    disc_mm2 = math.pi / 4 * diameter_um * diameter_um * 1e-6
    whole = [i for i in islands if i.side_um <= TOUCHING * diameter_um]
    joined = [i for i in islands if i.side_um > TOUCHING * diameter_um]
    singles: list[Island] = []
    fragments: list[Island] = []
    for island in whole:
        small = island.side_um < PARTIAL * diameter_um
        (fragments if small else singles).append(island)
    for fragment in fragments:
        near = _nearest(singles, fragment.center_um)
        if near is not None and near[1] <= 0.75 * diameter_um:
            singles[near[0]] = _joined(singles[near[0]], fragment)
        elif fragment.mm2 >= 0.05 * disc_mm2:
            singles.append(fragment)
    if len(singles) < 2 or diameter_um > MAX_DIAMETER_UM:
        raise UsageError(
            f"found no array of cores: {len(singles)} islands of tissue of one size; "
            "give their positions with --cores FILE, or their size with "
            "--core-diameter-um"
        )
    turned = _Turned(singles)
    places: dict[tuple[int, int], Island] = {}
    for island in singles:
        place = turned.place_of(island.center_um)
        there = places.get(place)
        places[place] = island if there is None else _joined(there, island)
    cores = {}
    for place, island in places.items():
        partial = island.mm2 < 0.25 * disc_mm2 or island.side_um < PARTIAL * diameter_um
        box = _widened(island, MARGIN * diameter_um, turned.pitch_um)
        status = "partial" if partial else "found"
        cores[place] = _core(place, box, spacing_um, status, island.mm2)
    for island in joined:
        inside = [
            place
            for place in turned.all_places()
            if place not in cores and _holds(island, turned.center_of(place))
        ]
        for place in inside:
            box = _square(turned.center_of(place), diameter_um)
            share = island.mm2 / len(inside)
            cores[place] = _core(place, box, spacing_um, "touching", share)
        if not inside:
            raise UsageError(
                "an island of tissue of "
                f"{island.side_um / 1000:.1f} mm at ({island.x0_um / 1000:.1f}, "
                f"{island.y0_um / 1000:.1f}) mm lies on no place of the grid; give the "
                "positions with --cores FILE"
            )
    for place in turned.all_places():
        if place not in cores:
            box = _square(turned.center_of(place), diameter_um)
            cores[place] = _core(place, box, spacing_um, "missing", 0.0)
    return [cores[place] for place in sorted(cores)]


class _Turned:
    """Rows and columns of centers, seen along the grid."""

    def __init__(self, islands: Sequence[Island]) -> None:
        centers = np.array([island.center_um for island in islands])
        apart = centers[:, None] - centers[None]
        distance = np.hypot(apart[..., 0], apart[..., 1])
        np.fill_diagonal(distance, np.inf)
        pitch_um = float(np.median(distance.min(axis=1)))
        near = distance < 1.3 * pitch_um
        angles = np.arctan2(apart[..., 1], apart[..., 0])[near]
        # Neighbors lie in four directions: what is left of a quarter turn is the slope.
        slopes = (angles + np.pi / 4) % (np.pi / 2) - np.pi / 4
        angle = float(np.median(slopes))
        self._turn = np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        along = centers @ self._turn.T
        self._columns = _lines(along[:, 0], pitch_um)
        self._rows = _lines(along[:, 1], pitch_um)
        self.pitch_um = pitch_um

    def place_of(self, center_um: tuple[float, float]) -> tuple[int, int]:
        """Row and column of the nearest place."""
        x_um, y_um = self._turn @ np.array(center_um)
        return (
            int(np.abs(self._rows - y_um).argmin()),
            int(np.abs(self._columns - x_um).argmin()),
        )

    def center_of(self, place: tuple[int, int]) -> tuple[float, float]:
        """Where a place's core is expected."""
        along = np.array([self._columns[place[1]], self._rows[place[0]]])
        x_um, y_um = self._turn.T @ along
        return float(x_um), float(y_um)

    def all_places(self) -> Iterable[tuple[int, int]]:
        """Row by row."""
        rows, columns = len(self._rows), len(self._columns)
        return ((row, column) for row in range(rows) for column in range(columns))


def _lines(values: npt.NDArray[np.float64], pitch_um: float) -> npt.NDArray[np.float64]:
    """Positions of rows (or columns): groups of values, and lines of no core at all."""
    ordered = np.sort(values)
    groups = np.split(ordered, np.nonzero(np.diff(ordered) > 0.5 * pitch_um)[0] + 1)
    lines = np.array([group.mean() for group in groups])
    if len(lines) < 3:
        return lines
    gaps = np.diff(lines)
    step = float(np.median(gaps))
    out = [lines[0]]
    for line, gap in zip(lines[1:], gaps, strict=True):
        count = round(gap / step)
        # Blocks of an array are parted by any distance, lost rows by whole steps.
        if count >= 2 and abs(gap / step - count) < 0.15:
            out.extend(line - gap + gap * i / count for i in range(1, count))
        out.append(line)
    return np.array(out)


def _diameter(islands: Sequence[Island]) -> float:
    if not islands:
        raise UsageError("found no tissue, and so no cores")
    areas = np.array([island.mm2 for island in islands])
    large = areas >= 0.25 * np.quantile(areas, 0.75)
    sides = np.array([island.side_um for island in islands])
    return float(np.median(sides[large]))


def _nearest(
    islands: Sequence[Island], center_um: tuple[float, float]
) -> tuple[int, float] | None:
    if not islands:
        return None
    apart = [math.dist(island.center_um, center_um) for island in islands]
    index = int(np.argmin(apart))
    return index, apart[index]


def _joined(a: Island, b: Island) -> Island:
    return Island(
        min(a.x0_um, b.x0_um),
        min(a.y0_um, b.y0_um),
        max(a.x1_um, b.x1_um),
        max(a.y1_um, b.y1_um),
        a.mm2 + b.mm2,
    )


def _holds(island: Island, at_um: tuple[float, float]) -> bool:
    x_um, y_um = at_um
    return island.x0_um <= x_um <= island.x1_um and island.y0_um <= y_um <= island.y1_um


Area = tuple[float, float, float, float]  # x0, y0, x1, y1 in micrometers


def _widened(island: Island, margin_um: float, pitch_um: float) -> Area:
    """With a margin that does not reach over half of the way to the next core."""
    x_um, y_um = island.center_um
    half_x = (island.x1_um - island.x0_um) / 2
    half_y = (island.y1_um - island.y0_um) / 2
    half_x = max(half_x, min(half_x + margin_um, pitch_um / 2))
    half_y = max(half_y, min(half_y + margin_um, pitch_um / 2))
    return x_um - half_x, y_um - half_y, x_um + half_x, y_um + half_y


def _square(center_um: tuple[float, float], side_um: float) -> Area:
    x_um, y_um = center_um
    half = side_um / 2
    return x_um - half, y_um - half, x_um + half, y_um + half


def _core(
    place: tuple[int, int],
    area: Area,
    spacing_um: tuple[float, float],
    status: str,
    mm2: float,
) -> Core:
    x0, x1 = (round(value / spacing_um[0]) for value in (area[0], area[2]))
    y0, y1 = (round(value / spacing_um[1]) for value in (area[1], area[3]))
    box = (x0, y0, x1 - x0, y1 - y0)
    return Core(place_name(*place), box, status, round(mm2, 4))


def clipped(core: Core, size_px: tuple[int, int]) -> Core | None:
    """The core's part inside the slide; None where there is none."""
    x0, y0, width, height = core.box_px
    x1, y1 = min(x0 + width, size_px[0]), min(y0 + height, size_px[1])
    x0, y0 = max(x0, 0), max(y0, 0)
    if x1 <= x0 or y1 <= y0:
        return None
    return replace(core, box_px=(x0, y0, x1 - x0, y1 - y0))
