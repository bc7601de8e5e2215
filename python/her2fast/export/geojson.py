# SPDX-License-Identifier: Apache-2.0
"""Regions for QuPath: a FeatureCollection in level-0 pixels.

One dissolved annotation per class, or one tile object per patch, as a stream of bytes.
Identifiers derive from the decision, so the same decision gives the same file.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from her2fast.export.dissolve import Polygon, dissolve
from her2fast.export.palettes import DEFAULT_PALETTE, Color, class_colors
from her2fast.export.patches import Outcomes, PatchGrid

__all__ = ["annotation", "patch_tiles", "regions"]

#: Fixed for good: other identifiers would make QuPath take old regions for new ones.
_NAMESPACE = uuid.UUID("6d9a2f5e-6a55-5c5b-8f0e-2b9c1d3e7a41")
_CELL = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], np.int64)


def regions(
    outcomes: Outcomes,
    grid: PatchGrid,
    *,
    class_names: Sequence[str],
    class_mm2: Sequence[float],
    decision_key: str,
    palette: str = DEFAULT_PALETTE,
    origin_px: tuple[int, int] = (0, 0),
) -> Iterator[bytes]:
    """Write one annotation per class that has patches.

    Parameters
    ----------
    class_mm2 : (classes,)
        Tumor area of each class as in the result; the outline is that of the patches
        and encloses more.
    origin_px : (x, y)
        Where the reader's frame begins; QuPath crops to ``openslide.bounds-x/y``.

    Yields
    ------
    bytes
        Pieces of one JSON text in UTF-8.
    """
    colors = class_colors(class_names, palette)

    def features() -> Iterator[dict[str, object]]:
        for index, (name, color) in enumerate(zip(class_names, colors, strict=True)):
            mask = outcomes.of_class(index)
            polygons = dissolve(outcomes.column[mask], outcomes.row[mask])
            if not polygons:
                continue
            yield {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{decision_key}/class/{name}")),
                "geometry": _geometry(polygons, grid, origin_px),
                "properties": {
                    "objectType": "annotation",
                    "name": f"HER2 {name}",
                    "classification": _classification(name, color),
                    "isLocked": True,
                    "measurements": {
                        "area_mm2": float(class_mm2[index]),
                        "patches": int(mask.sum()),
                    },
                },
            }

    return _collection(features())


def patch_tiles(
    outcomes: Outcomes,
    grid: PatchGrid,
    *,
    class_names: Sequence[str],
    decision_key: str,
    palette: str = DEFAULT_PALETTE,
    origin_px: tuple[int, int] = (0, 0),
) -> Iterator[bytes]:
    """Write one tile object per kept patch, in the order of the outcomes.

    Yields
    ------
    bytes
        Pieces of one JSON text in UTF-8; only one patch stands in memory.
    """
    colors = class_colors(class_names, palette)
    classes = [_classification(*pair) for pair in zip(class_names, colors, strict=True)]

    def features() -> Iterator[dict[str, object]]:
        for index in np.flatnonzero(outcomes.kept).tolist():
            column, row = int(outcomes.column[index]), int(outcomes.row[index])
            box = np.array([column, row]) + _CELL
            yield {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{decision_key}/{column},{row}")),
                "geometry": _geometry([[box]], grid, origin_px),
                "properties": {
                    "objectType": "tile",
                    "classification": classes[int(outcomes.predicted[index])],
                    "measurements": {"tumor_px": int(outcomes.tumor_px[index])},
                },
            }

    return _collection(features())


def annotation(
    polygons: list[Polygon],
    grid: PatchGrid,
    *,
    name: str,
    color: Color,
    key: str,
    measurements: Mapping[str, float],
    size_px: tuple[int, int],
) -> Iterator[bytes]:
    """Write one annotation, or none where there are no polygons.

    Parameters
    ----------
    polygons : list of polygons
        Corners in cells of `grid`, from `dissolve`.
    name, color
        Of its class in QuPath.
    key
        What the polygons follow from; the identifier derives from it.
    size_px : (width, height)
        The slide's level-0 size: cells at its border end there.

    Yields
    ------
    bytes
        Pieces of one JSON text in UTF-8.
    """

    def features() -> Iterator[dict[str, object]]:
        if polygons:
            yield {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{key}/class/{name}")),
                "geometry": _geometry(polygons, grid, (0, 0), size_px),
                "properties": {
                    "objectType": "annotation",
                    "name": name,
                    "classification": _classification(name, color),
                    "isLocked": True,
                    "measurements": dict(measurements),
                },
            }

    return _collection(features())


def _classification(name: str, color: Color) -> dict[str, object]:
    return {"name": name, "color": list(color)}  # QuPath throws without either


def _geometry(
    polygons: list[Polygon],
    grid: PatchGrid,
    origin_px: tuple[int, int],
    size_px: tuple[int, int] | None = None,
) -> dict[str, object]:
    def ring_px(ring: npt.NDArray[np.int64]) -> list[list[int]]:
        x, y = grid.x0_px(ring[:, 0]), grid.y0_px(ring[:, 1])
        if size_px is not None:
            x, y = np.minimum(x, size_px[0]), np.minimum(y, size_px[1])
        x, y = x - origin_px[0], y - origin_px[1]
        pairs: list[list[int]] = np.stack([x, y], axis=1).tolist()
        return pairs

    parts = [[ring_px(ring) for ring in polygon] for polygon in polygons]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _collection(features: Iterable[dict[str, object]]) -> Iterator[bytes]:
    yield b'{"type":"FeatureCollection","features":['
    separator = b"\n"
    for feature in features:
        text = json.dumps(feature, separators=(",", ":"), allow_nan=False)
        yield separator + text.encode("ascii")
        separator = b",\n"
    yield b"\n]}\n"
