# SPDX-License-Identifier: Apache-2.0
"""Positions of cores that a user states: a CSV, or what QuPath exports."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from her2fast.errors import UsageError
from her2fast.manifest import read_utf8
from her2fast.tma_grid import Core

__all__ = ["read_cores"]

MAX_CORES = 10_000
#: Ways to state a core, by the columns of a CSV or of QuPath's measurement table.
BOX = ("x0_px", "y0_px", "width_px", "height_px")
CENTER = ("x_px", "y_px")
CENTER_UM = ("centroid x µm", "centroid y µm")
CENTER_PX = ("centroid x px", "centroid y px")
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


def read_cores(
    path: str | os.PathLike[str],
    spacing_um: tuple[float, float],
    diameter_um: float | None = None,
) -> list[Core]:
    """Cores of a list, those marked as missing among them.

    A CSV (or a table with tabs) has `name` and x0_px, y0_px, width_px, height_px; or
    x_px, y_px (or QuPath's `Centroid X µm`) with diameter_px, or with `diameter_um`;
    `missing` is optional. A GeoJSON of QuPath's has a feature for each core.

    Raises `UsageError` that names the line or feature.
    """
    place = os.fspath(path)
    text = read_utf8(path)
    if text.lstrip()[:1] in ("{", "["):
        cores = _of_geojson(text, place)
    else:
        cores = _of_table(text, place, spacing_um, diameter_um)
    if not cores:
        raise UsageError(f"{place}: lists no core")
    if len(cores) > MAX_CORES:
        raise UsageError(f"{place}: need at most {MAX_CORES} cores, got {len(cores)}")
    seen: dict[str, int] = {}
    for index, core in enumerate(cores, start=1):
        first = seen.setdefault(core.name, index)
        if first != index:
            raise UsageError(
                f"{place}: core {core.name!r} stands twice, as number {first} "
                f"and {index}"
            )
    return cores


def _of_table(
    text: str,
    place: str,
    spacing_um: tuple[float, float],
    diameter_um: float | None,
) -> list[Core]:
    first_line = text.partition("\n")[0]
    delimiter = "\t" if "\t" in first_line else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    cores = []
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{place}, line {rows.line_num}"
            if not header:
                header = [cell.strip().lower().replace("μ", "µ") for cell in row]
                _check_header(header, where, diameter_um)
                continue
            if len(row) != len(header):
                raise UsageError(f"{where}: need {len(header)} cells, got {len(row)}")
            cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
            cores.append(_of_row(cells, where, spacing_um, diameter_um))
    except csv.Error as error:
        raise UsageError(f"{place}, line {rows.line_num}: {error}") from error
    return cores


def _check_header(header: list[str], where: str, diameter_um: float | None) -> None:
    known = [
        names for names in (BOX, CENTER, CENTER_UM, CENTER_PX) if _has(header, names)
    ]
    if "name" not in header or not known:
        raise UsageError(
            f"{where}: need the columns name, {', '.join(BOX)}; or name, "
            f"{', '.join(CENTER)} (QuPath: Centroid X µm, Centroid Y µm) and a diameter"
        )
    if known[0] != BOX and "diameter_px" not in header and diameter_um is None:
        raise UsageError(
            f"{where}: centers need a size: a column diameter_px, or --core-diameter-um"
        )


def _has(header: list[str], names: tuple[str, ...]) -> bool:
    return all(name in header for name in names)


def _of_row(
    cells: Mapping[str, str],
    where: str,
    spacing_um: tuple[float, float],
    diameter_um: float | None,
) -> Core:
    name = cells["name"]
    if not name:
        raise UsageError(f"{where}: column 'name' is empty")
    missing = cells.get("missing", "").lower()
    if missing not in (*TRUE, *FALSE):
        raise UsageError(f"{where}: column 'missing': need true or false")
    status = "missing" if missing in TRUE else "given"

    def number(column: str) -> float:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or abs(value) > 1e9:
            raise UsageError(
                f"{where}: column {column!r}: need a number, got {cells[column]!r}"
            )
        return value

    if _has(list(cells), BOX):
        x0, y0, width, height = (round(number(column)) for column in BOX)
    else:
        columns = next(
            c for c in (CENTER, CENTER_PX, CENTER_UM) if _has(list(cells), c)
        )
        center = [number(column) for column in columns]
        if columns == CENTER_UM:
            center = [v / um for v, um in zip(center, spacing_um, strict=True)]
        if "diameter_px" in cells:
            sides = [number("diameter_px")] * 2
        else:
            assert diameter_um is not None  # the header was checked
            sides = [diameter_um / um for um in spacing_um]
        x0, y0 = (round(v - side / 2) for v, side in zip(center, sides, strict=True))
        width, height = (round(side) for side in sides)
    if width < 1 or height < 1:
        raise UsageError(
            f"{where}: need a core of at least 1 px, got {width} x {height}"
        )
    return Core(name, (x0, y0, width, height), status)


def _of_geojson(text: str, place: str) -> list[Core]:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: is no JSON: {error}") from error
    features = document.get("features") if isinstance(document, dict) else document
    if not isinstance(features, list):
        raise UsageError(f"{place}: need a FeatureCollection")
    cores = []
    for index, feature in enumerate(features, start=1):
        where = f"{place}, feature {index}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict):
            raise UsageError(f"{where}: need an object with properties")
        kind = str(properties.get("objectType", "")).lower().replace("_", "")
        if kind != "tmacore":
            continue  # annotations stand beside the cores
        name = properties.get("name") or feature.get("name")
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{where}: has no name")
        missing = properties.get("isMissing", properties.get("missing", False))
        x0, y0, x1, y1 = _extent(feature.get("geometry"), where)
        box = (x0, y0, x1 - x0, y1 - y0)
        cores.append(Core(name.strip(), box, "missing" if missing is True else "given"))
    if not cores:
        raise UsageError(f"{place}: has no feature of objectType tma_core")
    return cores


def _extent(geometry: Any, where: str) -> tuple[int, int, int, int]:
    try:
        ring = geometry["coordinates"][0]
        points = [(float(point[0]), float(point[1])) for point in ring]
        xs, ys = zip(*points, strict=True)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: need the polygon of a core") from error
    if not all(math.isfinite(v) and abs(v) < 1e9 for v in (*xs, *ys)):
        raise UsageError(f"{where}: coordinates are no pixels")
    x0, y0 = math.floor(min(xs)), math.floor(min(ys))
    x1, y1 = math.ceil(max(xs)), math.ceil(max(ys))
    if x1 <= x0 or y1 <= y0:
        raise UsageError(f"{where}: need a core of at least 1 px")
    return x0, y0, x1, y1
