# SPDX-License-Identifier: Apache-2.0
"""The stored cells of a slide, `measurements/<slide>.h2c`: equal cells, equal bytes."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from her2fast.errors import SlideError
from her2fast.kernels.cells import CELL_RAYS, Cells
from her2fast.kernels.membrane import PRUNE_MAX_LENGTH_PX
from her2fast.methods.cell_tiles import CellTiles
from her2fast.methods.glass import Color
from her2fast.methods.membrane import CellMeasurement, MembraneTotals

MAGIC = b"H2C4"
#: Slides hold a few million cells; more is a damaged header.
MAX_CELLS = 50_000_000
#: A slide of a quarter of a million pixels a side has as many of the smallest tiles.
MAX_TILES = 4_000_000
_KINDS = {"ray_px": "<u1", "stained": "<u4", "dab_sum": "<u4", "dab_px": "<u4"}


def to_bytes(measured: CellMeasurement, key: str) -> bytes:
    """ "H2C4", a JSON header, columns and tiles deflated one by one, CRC-32 of all."""
    columns = []
    for column in fields(Cells):
        values = getattr(measured.cells, column.name)
        kind = _KINDS.get(column.name, "<i4")
        columns.append(zlib.compress(np.ascontiguousarray(values, kind).tobytes(), 6))
    columns.append(zlib.compress(measured.tiles.state.tobytes(), 6))
    header = {
        "key": key,
        "cells": len(measured.cells),
        "spacing_um": measured.spacing_um,
        "step": measured.step,
        "prune_px": measured.prune_px,
        "glass_rgb": measured.glass_rgb,
        "tile_um": measured.tiles.side_um,
        "tiles": list(measured.tiles.state.shape),
        "totals": asdict(measured.totals),
        "column_bytes": [len(data) for data in columns],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *columns])
    return body + zlib.crc32(body).to_bytes(4, "little")


def from_bytes(data: bytes) -> tuple[CellMeasurement, str]:
    """The measurement and its key.

    Raises `SlideError` TRUNCATED, HASH_MISMATCH or BAD_HEADER; memory stays bounded by
    what the header states, and that by `MAX_CELLS`.
    """
    if len(data) < 12 or data[:4] != MAGIC:
        raise SlideError(
            "cells: is no file of cells; score the slide again", "BAD_HEADER"
        )
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise SlideError(
            "cells: the checksum differs; score the slide again", "HASH_MISMATCH"
        )
    size = int.from_bytes(data[4:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        count = int(header["cells"])
        if not 0 <= count <= MAX_CELLS:
            raise ValueError(f"{count} cells")
        at, columns = 8 + size, {}
        for column, length in zip(
            fields(Cells), header["column_bytes"][:-1], strict=True
        ):
            kind = np.dtype(_KINDS.get(column.name, "<i4"))
            width = CELL_RAYS if column.name == "ray_px" else 1
            want = count * width * kind.itemsize
            raw = _inflated(data[at : at + length], want, column.name)
            values = np.frombuffer(raw, kind).astype(kind.newbyteorder("="))
            columns[column.name] = values.reshape(-1, width) if width > 1 else values
            at += length
        rows, across = (int(side) for side in header["tiles"])
        if rows < 0 or across < 0 or rows * across > MAX_TILES:
            raise ValueError(f"{rows} x {across} tiles")
        raw = _inflated(data[at:-4], rows * across, "tiles")
        state = np.frombuffer(raw, np.uint8).reshape(rows, across)
        measured = CellMeasurement(
            Cells(**columns),
            MembraneTotals(**header["totals"]),
            float(header["spacing_um"]),
            int(header["step"]),
            CellTiles(float(header["tile_um"]), state),
            _spur_px(header["prune_px"]),
            _color(header["glass_rgb"]),
        )
        return measured, str(header["key"])
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise SlideError(
            f"cells: the header contradicts the file: {error}; score the slide again",
            "BAD_HEADER",
        ) from error


def _spur_px(value: Any) -> int:
    """Raises `ValueError` for what no package can ask for."""
    if not 0 <= int(value) <= PRUNE_MAX_LENGTH_PX:
        raise ValueError(f"spurs of {value} px")
    return int(value)


def _color(value: Any) -> Color | None:
    """Raises `ValueError` for what is no color."""
    if value is None:
        return None
    red, green, blue = (int(v) for v in value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError(f"glass of {value}")
    return red, green, blue


def _inflated(data: bytes, want: int, what: str) -> bytes:
    """Exactly `want` bytes, whatever the data would grow to."""
    raw = zlib.decompressobj().decompress(data, want + 1)
    if len(raw) != want:
        raise ValueError(f"{what} of {len(raw)} bytes, not {want}")
    return raw
