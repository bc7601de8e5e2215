# SPDX-License-Identifier: Apache-2.0
"""Where tissue lies on a phantom slide: pieces, control cores, and the lobules of each.

A slide is larger than what can be drawn in one go. Each piece of tissue is cut along
wandering borders into lobules; every lobule is a scene of its own, and a septum of
fibers lies on the borders between them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import Cells, Floats, Packing, generator
from her2fast.phantom.layout import Grid
from her2fast.phantom.spec import SlideSpec

#: Spacing of the maps that outlines are drawn on; they are interpolated.
COARSE_UM = 5.0
#: A lobule's scene must fit into memory: at most about this many pixels a side.
LOBULE_PX = 3200
#: Glass round the tissue.
MARGIN_UM = 150.0
MIN_SCENE_PX = 32

Coarse = npt.NDArray[np.float32]
Point = tuple[float, float]
#: Left, top, right, bottom, um.
Box = tuple[float, float, float, float]


def seed_of(*words: object) -> int:
    """A seed that no other words share; 63 bits, as no seed of training has."""
    text = "/".join(str(word) for word in ("her2fast phantom slide", *words))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1 | 1 << 62


@dataclass(frozen=True)
class Lobule:
    """What one scene fills."""

    piece: int  # index into `Plan.control` and label - 1 of the map
    cell: int  # value in `Plan.cell`; -1: the whole piece
    control: bool
    x_px: int  # its window at level 0
    y_px: int
    width_px: int
    height_px: int
    area_um2: float


@dataclass(frozen=True)
class Plan:
    """Coarse maps of a slide; all arrays (H, W) at `COARSE_UM`."""

    label: npt.NDArray[np.uint8]  # 0 glass, else piece + 1
    depth_um: Coarse  # distance into the tissue; negative on glass
    cell: npt.NDArray[np.int32]  # lobule of the partition
    edge_um: Coarse  # to the border with the next lobule
    across_x: Coarse  # unit vector across that border
    across_y: Coarse
    control_class: tuple[int | None, ...]  # of each piece; None: the patient's
    lobules: tuple[Lobule, ...]
    free_um: Box  # where the patient's tissue may lie
    separator_x_um: float | None


def draw_plan(spec: SlideSpec, seed: int) -> Plan:
    """Outlines, lobules and control cores of one slide."""
    width_um, height_um = spec.slide.width_um, spec.slide.height_um
    shape = (int(-(-height_um // COARSE_UM)) + 1, int(-(-width_um // COARSE_UM)) + 1)
    grid = Grid.over(shape, COARSE_UM)
    rng = generator(seed_of(seed, "outline"))
    pens = [pen.width_um for pen in spec.artifacts.pen if pen.over == "glass"]
    margin = MARGIN_UM + (max(pens) if pens else 0.0)
    free = (margin, margin, width_um - margin - spec.strip_um, height_um - margin)
    label = np.zeros(shape, np.uint8)
    for outline in _specimen(spec, rng, grid, free):
        label[outline & (label == 0)] = int(label.max()) + 1
    control: list[int | None] = [None] * int(label.max())
    separator = None
    if spec.control.classes:
        separator = _add_control(spec, rng, grid, label, control)
    inside = label > 0
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    depth = (depth - ndimage.distance_transform_edt(~inside)) * COARSE_UM
    packing, pitch_um = _partition(spec, seed, grid)
    return Plan(
        label,
        depth.astype(np.float32),
        packing.cell,
        packing.edge * np.float32(pitch_um),
        packing.normal_u,
        packing.normal_v,
        tuple(control),
        tuple(_lobules(spec, label, packing.cell, control, pitch_um)),
        free,
        separator,
    )


def _disc(
    rng: np.random.Generator, grid: Grid, middle: Point, radius_um: float
) -> npt.NDArray[np.bool_]:
    """A punched core: nearly round."""
    x, y = grid.x_um - middle[0], grid.y_um - middle[1]
    edge_um = radius_um * _wobble(rng, np.arctan2(y, x), 0.02)
    return np.asarray(np.hypot(x, y) < edge_um, np.bool_)


def _wobble(rng: np.random.Generator, turn: Floats, size: float) -> Floats:
    out = np.ones_like(turn)
    for order in range(2, 8):
        part = np.cos(order * turn + rng.uniform(0.0, 6.28)) * (2.0 / order)
        out += np.float32(rng.normal(0.0, size)) * part
    return out


def _boxes(box: Box, count: int) -> list[Box]:
    """`count` equal parts, side by side and in rows, as square as may be."""
    width, height = box[2] - box[0], box[3] - box[1]
    rows = max(1, round(float(np.sqrt(count * height / max(width, 1.0)))))
    columns = -(-count // rows)
    step_x, step_y = width / columns, height / rows
    places = [(index % columns, index // columns) for index in range(count)]
    return [
        (
            box[0] + step_x * column,
            box[1] + step_y * row,
            box[0] + step_x * (column + 1),
            box[1] + step_y * (row + 1),
        )
        for column, row in places
    ]


def _specimen(
    spec: SlideSpec, rng: np.random.Generator, grid: Grid, free: Box
) -> list[npt.NDArray[np.bool_]]:
    """One mask per piece of the patient's tissue."""
    tissue = spec.tissue
    left, top, right, bottom = free
    if tissue.outline == "cores":
        step = tissue.core_um * 1.25
        most = max(1, int((right - left) // step)) * max(1, int((bottom - top) // step))
        boxes = _boxes(free, min(tissue.pieces, most))
        radius = min(tissue.core_um, right - left, bottom - top) / 2.0
        return [
            _disc(rng, grid, ((b[0] + b[2]) / 2.0, (b[1] + b[3]) / 2.0), radius)
            for b in boxes
        ]
    if tissue.outline == "biopsy":
        room = (bottom - top) / tissue.pieces
        half = min(tissue.core_um, 0.8 * room) / 2.0
        return [
            _strip(rng, grid, (left, top + room * (i + 0.5)), right - left, half)
            for i in range(tissue.pieces)
        ]
    gap = 0.0 if tissue.pieces == 1 else 60.0
    out = []
    for box in _boxes(free, tissue.pieces):
        x = (grid.x_um - (box[0] + box[2]) / 2.0) / ((box[2] - box[0]) / 2.0 - gap)
        y = (grid.y_um - (box[1] + box[3]) / 2.0) / ((box[3] - box[1]) / 2.0 - gap)
        # Between an ellipse and a rectangle, as a block of tissue is cut.
        power = rng.uniform(2.2, 3.5)
        radius = (np.abs(x) ** power + np.abs(y) ** power) ** (1.0 / power)
        out.append(radius < 0.94 * np.minimum(_wobble(rng, np.arctan2(y, x), 0.05), 1))
    return out


def _strip(
    rng: np.random.Generator, grid: Grid, begin: Point, room_um: float, half_um: float
) -> npt.NDArray[np.bool_]:
    """A needle's core: long, slightly bent, with torn ends."""
    length = room_um * rng.uniform(0.8, 0.97)
    x = grid.x_um - begin[0] - (room_um - length) * rng.uniform()
    bend = half_um * 0.12 * np.sin(x / rng.uniform(600.0, 1500.0) + rng.uniform(0, 6.3))
    torn = grid.noise(rng, 90.0) * 40.0
    width = half_um * (0.9 + 0.06 * grid.noise(rng, 200.0))
    along = np.minimum(x, length - x) + torn
    near = np.abs(grid.y_um - begin[1] - bend) < width
    return np.asarray(near & (along > 0.0), np.bool_)


def _add_control(
    spec: SlideSpec,
    rng: np.random.Generator,
    grid: Grid,
    label: npt.NDArray[np.uint8],
    control: list[int | None],
) -> float:
    """Cores in a column on the right; returns where the separator stands."""
    diameter = spec.control.diameter_um
    step = spec.slide.height_um / len(spec.control.classes)
    begin_um = spec.slide.width_um - spec.strip_um
    x = spec.slide.width_um - diameter * 0.575
    reach = begin_um + spec.control.distance_um
    for index, name in enumerate(spec.control.classes):
        y = step * (index + 0.5)
        disc = _disc(rng, grid, (x, y), diameter / 2.0) & (grid.x_um > reach)
        label[disc & (label == 0)] = int(label.max()) + 1
        control.append(["0", "1+", "2+", "3+"].index(name))
    return begin_um + spec.control.distance_um / 2.0


def _partition(spec: SlideSpec, seed: int, grid: Grid) -> tuple[Packing, float]:
    """Lobules over the whole slide, and their pitch."""
    rng = generator(seed_of(seed, "lobules"))
    pitch = min(spec.tissue.lobule_um, LOBULE_PX * spec.slide.spacing_um)
    # Borders wander, and no border lies where the slide begins.
    x = grid.x_um + 0.09 * pitch * grid.noise(rng, pitch * 0.35) + 7.3 * pitch
    y = grid.y_um + 0.09 * pitch * grid.noise(rng, pitch * 0.35) + 7.7 * pitch
    return Cells(rng, jitter=0.28)(x / pitch, y / pitch), pitch


def _lobules(
    spec: SlideSpec,
    label: npt.NDArray[np.uint8],
    cell: npt.NDArray[np.int32],
    control: list[int | None],
    pitch_um: float,
) -> list[Lobule]:
    """In the order of pieces, then of cells."""
    out = []
    boxes = ndimage.find_objects(label)
    for piece, box in enumerate(boxes):
        if box is None:
            continue
        mine = label[box] == piece + 1
        long_um = max(mine.shape) * COARSE_UM
        cells = np.unique(cell[box][mine]) if long_um > 1.6 * pitch_um else [-1]
        for number in cells:
            here = mine if number < 0 else mine & (cell[box] == number)
            rows = np.flatnonzero(here.any(1)) + box[0].start
            columns = np.flatnonzero(here.any(0)) + box[1].start
            x_px, width = _window(columns, spec, 0)
            y_px, height = _window(rows, spec, 1)
            out.append(
                Lobule(
                    piece,
                    int(number),
                    control[piece] is not None,
                    x_px,
                    y_px,
                    width,
                    height,
                    float(here.sum()) * COARSE_UM**2,
                )
            )
    return out


def _window(
    places: npt.NDArray[np.intp], spec: SlideSpec, axis: int
) -> tuple[int, int]:
    """First pixel and count that cover coarse cells, two more on each side."""
    spacing, size = spec.slide.spacing_um, spec.size_px[axis]
    first = int((int(places[0]) - 2) * COARSE_UM / spacing)
    last = int((int(places[-1]) + 3) * COARSE_UM / spacing) + 1
    first, last = max(first, 0), min(last, size)
    if last - first < MIN_SCENE_PX:
        first = max(0, min(first, size - MIN_SCENE_PX))
        last = first + MIN_SCENE_PX
    return first, last - first


def sample(field: Coarse, x_um: Floats, y_um: Floats) -> Floats:
    """Linear interpolation of a coarse map at columns `x_um` and rows `y_um`."""
    rows, down = _neighbors(y_um, field.shape[0])
    columns, right = _neighbors(x_um, field.shape[1])
    upper = field[rows] + (field[rows + 1] - field[rows]) * down[:, None]
    near = upper[:, columns]
    return np.asarray(near + (upper[:, columns + 1] - near) * right, np.float32)


def _neighbors(at_um: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    at = np.clip(at_um / COARSE_UM - 0.5, 0.0, count - 1.001)
    index = np.minimum(np.floor(at).astype(np.int64), count - 2)
    return index, (at - index).astype(np.float32)
