# SPDX-License-Identifier: Apache-2.0
"""Outlines of sets of grid cells.

Time and memory go with the length of the boundary; a geometry library's union of boxes
takes far longer on salt and pepper.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Polygon", "dissolve"]

Integers = npt.NDArray[np.int64]
#: Outline first, then holes: each (n, 2) of column and row corners, closed.
Polygon = list[Integers]

# Directions of an edge whose cell lies to its right (y grows downward).
_EAST, _SOUTH, _WEST, _NORTH = range(4)


def dissolve(columns: npt.ArrayLike, rows: npt.ArrayLike) -> list[Polygon]:
    """Merge cells into polygons with holes.

    Parameters
    ----------
    columns, rows : (n,) integers >= 0
        The cells; cell (c, r) covers [c, c + 1) x [r, r + 1). Duplicates count once.

    Returns
    -------
    list of polygons, from the top, then the left
        Valid in the sense of OGC: cells that only meet at a corner are not connected,
        every ring is simple, and rings touch at points at most. Outlines run
        counter-clockwise by the shoelace formula, holes the other way.

    Examples
    --------
    >>> [[ring.tolist() for ring in polygon] for polygon in dissolve([0, 1], [0, 0])]
    [[[[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]]]
    """
    column = np.asarray(columns, np.int64)
    row = np.asarray(rows, np.int64)
    if column.shape != row.shape or column.ndim != 1:
        raise ValueError(
            f"need as many columns as rows, got {column.shape}, {row.shape}"
        )
    if len(column) == 0:
        return []
    if min(column.min(), row.min()) < 0:
        raise ValueError("need columns and rows >= 0")
    width = int(column.max()) + 2  # of the lattice of corners
    cells = np.unique(row * width + column)
    polygons: dict[int, Polygon] = {}
    holes: list[tuple[int, Integers]] = []
    for component, ring in _rings(cells, _components(cells, width), width):
        if _doubled_area(ring) > 0:
            polygons[component] = [ring]
        else:
            holes.append((component, ring))
    for component, ring in holes:
        polygons[component].append(ring)
    return list(polygons.values())


def _contains(cells: Integers, wanted: Integers) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(cells, wanted)
    found: npt.NDArray[np.bool_] = cells[np.minimum(at, len(cells) - 1)] == wanted
    return found


def _components(cells: Integers, width: int) -> Integers:
    """Label each cell by its component, sides connecting, by runs of cells."""
    begins = np.empty(len(cells), np.bool_)
    begins[0] = True
    # A lattice row has one cell more than columns, so a run never wraps round.
    begins[1:] = np.diff(cells) != 1
    run_of = np.cumsum(begins) - 1
    below = cells + width
    meets = _contains(cells, below)
    upper = run_of[meets]
    lower = run_of[np.searchsorted(cells, below[meets])]
    pairs = np.unique(np.stack([upper, lower], axis=1), axis=0).tolist()

    parent = list(range(int(run_of[-1]) + 1))

    def find(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for a, b in pairs:
        a, b = find(a), find(b)
        parent[max(a, b)] = min(a, b)
    roots = np.array([find(run) for run in range(len(parent))], np.int64)
    labels: Integers = roots[run_of]
    return labels


def _rings(cells: Integers, labels: Integers, width: int) -> list[tuple[int, Integers]]:
    """Trace the boundary: (component, closed simple ring) in the order of the cells."""
    # Corner of a cell where its edge begins, and the cell beyond the edge.
    corner = {_EAST: 0, _SOUTH: 1, _WEST: width + 1, _NORTH: width}
    step = np.array([1, width, -1, -width], np.int64)
    keys, owners = [], []
    for direction, beyond in (
        (_EAST, -width),
        (_SOUTH, 1),
        (_WEST, width),
        (_NORTH, -1),
    ):
        bare = ~_contains(cells, cells + beyond)
        keys.append((cells[bare] + corner[direction]) * 4 + direction)
        owners.append(labels[bare])
    key = np.concatenate(keys)
    order = np.argsort(key)
    key, owner = key[order], np.concatenate(owners)[order]

    start, direction_of = key // 4, key % 4
    end = start + step[direction_of]
    following = np.full(len(key), -1, np.int64)
    # Right first: it stays with the same cell, which parts cells that meet at a corner.
    for turn in (1, 0, 3):
        wanted = end * 4 + (direction_of + turn) % 4
        fits = (following < 0) & _contains(key, wanted)
        following[fits] = np.searchsorted(key, wanted[fits])

    corners = np.zeros(len(key), np.bool_)  # the boundary turns where this edge begins
    corners[following[direction_of[following] != direction_of]] = True
    pinch = np.zeros(len(key), np.bool_)  # two edges begin at this edge's start
    pinch[1:] |= start[1:] == start[:-1]
    pinch[:-1] |= start[1:] == start[:-1]
    traced = _trace(
        following.tolist(), corners.tolist(), pinch.tolist(), start.tolist()
    )
    return [
        (int(owner[edge]), np.stack([ring % width, ring // width], axis=1))
        for edge, ring in traced
    ]


def _trace(
    following: list[int], corners: list[bool], pinch: list[bool], start: list[int]
) -> list[tuple[int, Integers]]:
    """Follow the edges round; cut a ring that meets itself into simple ones."""
    rings: list[tuple[int, Integers]] = []
    done = [False] * len(following)

    def emit(edge: int, path: list[int]) -> None:
        rings.append((edge, np.array([*path, path[0]], np.int64)))

    for first in range(len(following)):
        if done[first] or not corners[first]:
            continue
        path: list[int] = []
        seen: dict[int, int] = {}  # pinched corner -> its place on the path
        edge = first
        while not done[edge]:
            done[edge] = True
            if corners[edge]:
                vertex = start[edge]
                place = seen.get(vertex) if pinch[edge] else None
                if place is None:
                    if pinch[edge]:
                        seen[vertex] = len(path)
                    path.append(vertex)
                else:
                    emit(edge, path[place:])
                    for cut in path[place + 1 :]:
                        seen.pop(cut, None)
                    del path[place + 1 :]
            edge = following[edge]
        emit(first, path)
    return rings


def _doubled_area(ring: Integers) -> int:
    x, y = ring[:, 0], ring[:, 1]
    return int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
