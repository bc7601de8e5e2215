# SPDX-License-Identifier: Apache-2.0
"""Regions of interest from GeoJSON, as QuPath writes it, in level-0 pixels.

A region is a list of polygons ``(exclude, rings)``: the first ring is the outline, the
others are holes, each a float64 array (n, 2) of x, y without the closing vertex. What
counts is the union of the included polygons less the excluded ones; with excluded ones
alone it is the whole slide less those.

Whatever is doubtful is refused with the place, never repaired: a mended outline is not
the one that the pathologist drew.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from her2fast.errors import SlideError

__all__ = [
    "MAX_BYTES",
    "MAX_COORDINATE_PX",
    "MAX_DEPTH",
    "MAX_VERTICES",
    "Roi",
    "check_inside",
    "load_roi",
]

Ring = npt.NDArray[np.float64]
Roi = list[tuple[bool, list[Ring]]]

# A day's drawing is some hundred kB. Beyond these a file is no drawing, and Python's
# lists for it would take ten times its bytes.
MAX_BYTES = 64 << 20
MAX_VERTICES = 2_000_000
# FeatureCollection > features > Feature > geometry > coordinates > polygon > ring >
# vertex is 8 deep; metadata in properties has all the rest.
MAX_DEPTH = 64
#: Far beyond any slide, and far below where level-0 arithmetic in 64 bits could wrap.
MAX_COORDINATE_PX = 1e9

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def load_roi(
    source: str | os.PathLike[str] | Mapping[str, Any] | list[Any],
    *,
    origin_px: tuple[float, float] = (0.0, 0.0),
) -> Roi:
    """Read a region of interest.

    Parameters
    ----------
    source : path, or parsed GeoJSON
        A FeatureCollection, a list of Features (older QuPath), a Feature or a bare
        geometry; Polygon or MultiPolygon; plain or gzip.
    origin_px : (x, y)
        Where the file's frame begins, in level-0 pixels. QuPath crops slides to
        ``openslide.bounds-x/y``; give those for its drawings on such slides.

    Returns
    -------
    list of (exclude, rings)
        `exclude` is set for features whose classification or name is ``Exclude`` or
        ``Control``, or begins with ``Ignore`` (any case).

    Raises
    ------
    SlideError
        NOT_FOUND, IO; ROI_INVALID with the feature and the place.

    Examples
    --------
    >>> square = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    >>> load_roi({"type": "Polygon", "coordinates": [square]})[0][1][0].shape
    (4, 2)
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.path.basename(os.fspath(source))
        document: object = _parse(_read(Path(source)), name)
    else:
        name = "the region"
        document = source
    reader = _Reader(name, origin_px)
    roi = list(reader.polygons(document))
    if not roi:
        _refuse(f"{name}: it holds no polygon; draw at least one")
    return roi


def check_inside(roi: Roi, size_px: tuple[int, int]) -> None:
    """Refuse polygons that no pixel of the slide can lie in.

    A polygon wholly beyond the slide was drawn in another frame; the others of the
    same file would be somewhere else, too.

    Raises
    ------
    SlideError
        ROI_OUTSIDE
    """
    import shapely

    width_px, height_px = size_px
    slide = shapely.box(0, 0, width_px, height_px)
    for index, (_, rings) in enumerate(roi):
        low, high = rings[0].min(axis=0), rings[0].max(axis=0)
        if (low >= 0).all() and (high <= (width_px, height_px)).all():
            continue
        if shapely.intersection(shapely.Polygon(rings[0], rings[1:]), slide).area > 0:
            continue
        spans = " x ".join(f"{a:g}..{b:g}" for a, b in zip(low, high, strict=True))
        raise SlideError(
            f"polygon {index} of the region lies outside the slide: it spans {spans} px"
            f" in x and y, the slide 0..{width_px} x 0..{height_px} px; is it from"
            " another slide, another level, or a cropped view?",
            "ROI_OUTSIDE",
        )


def _refuse(message: str) -> NoReturn:
    raise SlideError(message, "ROI_INVALID")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SlideError(f"{path.name}: no such region file", "NOT_FOUND") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SlideError(f"{path.name}: cannot be read: {error}", "IO") from error
    if data[:2] == b"\x1f\x8b" and len(data) <= MAX_BYTES:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            _refuse(f"{path.name}: broken gzip: {error}")
    if len(data) > MAX_BYTES:
        _refuse(f"{path.name}: need at most {MAX_BYTES} bytes of GeoJSON, got more")
    return data


def _depth(data: bytes) -> int:
    """How deep the brackets nest; exact for valid JSON, and all of it in C."""
    brackets = _STRING.sub(b"", _ESCAPE.sub(b"", data)).translate(None, _NO_BRACKETS)
    codes = np.frombuffer(brackets, np.uint8)
    opens = (codes == ord("[")) | (codes == ord("{"))
    steps = np.where(opens, 1, -1).cumsum(dtype=np.int64)
    return int(steps.max(initial=0))


def _parse(data: bytes, name: str) -> object:
    # The depth first: a parser that recurses must not meet what only nests.
    depth = _depth(data)
    if depth > MAX_DEPTH:
        _refuse(f"{name}: need JSON at most {MAX_DEPTH} deep, got {depth}")

    def constant(text: str) -> NoReturn:
        _refuse(f"{name}: need finite numbers, got {text}")

    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=constant)
    except UnicodeDecodeError as error:
        _refuse(f"{name}: not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        _refuse(f"{name}: not JSON: {error.msg} (line {error.lineno}, {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of over 4300 digits
        _refuse(f"{name}: not JSON: {error}")


def _is_excluded(feature: Mapping[str, Any]) -> bool:
    properties = feature.get("properties")
    if not isinstance(properties, Mapping):
        return False
    names: list[object] = [properties.get("name")]
    classification = properties.get("classification")
    if isinstance(classification, Mapping):
        names.append(classification.get("name"))
        parts = classification.get("names")  # QuPath 0.4 on, for derived classes
        names.extend(parts if isinstance(parts, list) else [])
    else:
        names.append(classification)
    for name in names:
        if not isinstance(name, str):
            continue
        for part in name.casefold().split(":"):  # "Control: Tumor" derives from Control
            word = part.strip()
            if word in ("exclude", "control") or word.startswith("ignore"):
                return True
    return False


class _Reader:
    """One document's walk: it knows the file's name and counts vertices."""

    def __init__(self, name: str, origin_px: tuple[float, float]) -> None:
        self._name = name
        self._origin_px = np.asarray(origin_px, np.float64)
        self._vertices = 0

    def polygons(self, document: object) -> Iterator[tuple[bool, list[Ring]]]:
        """Every polygon, in the file's order."""
        if isinstance(document, list):
            features: object = document
        elif (
            isinstance(document, Mapping)
            and document.get("type") == "FeatureCollection"
        ):
            features = document.get("features")
        else:
            features = [document]
        if not isinstance(features, list):
            _refuse(f"{self._name}: need a list of features, got {_kind(features)}")
        for index, feature in enumerate(features):
            place = f"{self._name}: feature {index}"
            if not isinstance(feature, Mapping):
                _refuse(f"{place}: need an object, got {_kind(feature)}")
            geometry: object = feature
            if feature.get("type") == "Feature":
                geometry = feature.get("geometry")
            exclude = _is_excluded(feature)
            for rings in self._geometry(geometry, place):
                yield exclude, rings

    def _geometry(self, geometry: object, place: str) -> Iterator[list[Ring]]:
        if not isinstance(geometry, Mapping):
            _refuse(f"{place}: need a geometry, got {_kind(geometry)}")
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            _refuse(f"{place}: need a Polygon or MultiPolygon, got {_show(kind)}")
        if kind == "Polygon":
            yield self._polygon(coordinates, place)
            return
        for part, polygon in enumerate(_items(coordinates, place, "polygon")):
            yield self._polygon(polygon, f"{place}, polygon {part}")

    def _polygon(self, coordinates: object, place: str) -> list[Ring]:
        import shapely

        rings = [
            self._ring(ring, f"{place}, ring {index}")
            for index, ring in enumerate(_items(coordinates, place, "ring"))
        ]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if not polygon.is_valid:
            reason = shapely.is_valid_reason(polygon)
            _refuse(f"{place}: the outline is not simple: {reason} (x y in pixels)")
        if polygon.area == 0:
            _refuse(f"{place}: the polygon has no area")
        return rings

    def _ring(self, positions: object, place: str) -> Ring:
        items = _items(positions, place, "vertex")
        self._vertices += len(items)
        if self._vertices > MAX_VERTICES:
            _refuse(f"{place}: need at most {MAX_VERTICES} vertices in all, got more")
        for index, item in enumerate(items):
            # GeoJSON allows a third number, the altitude
            if not isinstance(item, (list, tuple)) or len(item) not in (2, 3):
                _refuse(f"{place}, vertex {index}: need [x, y], got {_show(item)}")
        if not set(map(type, chain.from_iterable(items))) <= {int, float}:
            _refuse(f"{place}: need numbers as coordinates, got something else")
        for index, item in enumerate(items):
            if not all(abs(value) <= MAX_COORDINATE_PX for value in item[:2]):
                _refuse(
                    f"{place}, vertex {index}: need finite coordinates of at most"
                    f" {MAX_COORDINATE_PX:g} px, got {_show(item[0])}, {_show(item[1])}"
                )
        ring = np.array([item[:2] for item in items], np.float64)
        if len(ring) < 4:
            _refuse(f"{place}: need at least 4 vertices, the last one being the first")
        if not (ring[0] == ring[-1]).all():
            _refuse(
                f"{place}: the ring is not closed: its last vertex is not its first"
            )
        return np.ascontiguousarray(ring[:-1] + self._origin_px)


def _items(value: object, place: str, what: str) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        _refuse(f"{place}: need at least one {what}, got {_kind(value)}")
    return list(value)


def _show(value: object) -> str:
    """A short text of anything, however deep, long or large."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, float)):
        return repr(value[:40] if isinstance(value, str) else value)
    return _kind(value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__
