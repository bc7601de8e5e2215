# SPDX-License-Identifier: Apache-2.0
"""Cells for QuPath: one detection each, streamed; many of them deflated."""

from __future__ import annotations

import math
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from her2fast.export.geojson import _classification, _collection
from her2fast.export.palettes import DEFAULT_PALETTE, class_colors
from her2fast.kernels.cells import CELL_RAYS, CellClasses, Cells

__all__ = ["GZIP_ABOVE", "cell_detections", "gzipped"]

#: QuPath reads both; beyond this many the plain text takes tens of megabytes.
GZIP_ABOVE = 50_000
#: Every second ray: at 0.5 um/px the others move the outline by less than a pixel.
_EVERY = 2
_NAMESPACE = uuid.UUID("2f0c7d1e-8d0b-5a43-9a2f-6c1c6f0f4b19")


def cell_detections(
    cells: Cells,
    classes: CellClasses,
    *,
    grid_um: float,
    slide_spacing_um: tuple[float, float],
    class_names: Sequence[str],
    decision_key: str,
    palette: str = DEFAULT_PALETTE,
) -> Iterator[bytes]:
    """Write one detection per cell, in reading order of their seeds.

    Parameters
    ----------
    cells, classes
        As they count in the decision.
    grid_um : float
        Spacing of the cells' grid.
    decision_key : str
        Identifiers derive from it, so the same decision gives the same file.

    Yields
    ------
    bytes
        Pieces of one JSON text in UTF-8; only one cell stands in memory.
    """
    named = [
        _classification(*pair)
        for pair in zip(class_names, class_colors(class_names, palette), strict=True)
    ]
    scale = grid_um / slide_spacing_um[0], grid_um / slide_spacing_um[1]
    turn = 2 * np.pi * np.arange(0, CELL_RAYS, _EVERY) / CELL_RAYS
    directions = np.stack([np.cos(turn), np.sin(turn)], 1)

    def outline(index: int) -> list[list[float]]:
        # A ray ends at the first pixel that is no longer the cell's: half a pixel less.
        reach = cells.ray_px[index, ::_EVERY, None] - 0.5
        points: npt.NDArray[np.float64] = directions * reach
        points += (cells.x[index] + 0.5, cells.y[index] + 0.5)
        points *= scale
        ring: list[list[float]] = np.round(points, 1).tolist()
        return [*ring, ring[0]]

    complete, density = cells.completeness, cells.dab_mean

    def features() -> Iterator[dict[str, object]]:
        for index in range(len(cells)):
            x, y = int(cells.x[index]), int(cells.y[index])
            measured = {
                "completeness": round(float(complete[index]), 4),
                "area_um2": round(int(cells.px[index]) * grid_um**2, 2),
                "nucleus_um2": round(int(cells.nucleus_px[index]) * grid_um**2, 2),
            }
            if not math.isnan(density[index]):
                measured["membrane_density"] = round(float(density[index]), 4)
            yield {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{decision_key}/{x},{y}")),
                "geometry": {"type": "Polygon", "coordinates": [outline(index)]},
                "properties": {
                    "objectType": "detection",
                    "classification": named[int(classes.her2[index])],
                    "measurements": measured,
                },
            }

    return _collection(features())


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream without name and time, so that equal input gives equal bytes."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        data = squeeze.compress(piece)
        if data:
            yield data
    yield squeeze.flush()
