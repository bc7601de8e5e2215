# SPDX-License-Identifier: Apache-2.0
"""Cells, slides and packages whose membranes are known without training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import packages
import torch
from slides import write_slide

from her2fast.kernels.cells import Cells
from her2fast.methods.cell_tiles import READ, CellTiles
from her2fast.methods.glass import Color
from her2fast.methods.membrane import (
    CellMeasurement,
    Finder,
    MembraneMeasure,
    MembraneTotals,
)

Bytes = npt.NDArray[np.uint8]
UM = (0.25, 0.25)
HALO_PX = 32


def all_read(rows: int, columns: int) -> CellTiles:
    """Tiles of 512 px with tumor, none of them lost."""
    tiles = CellTiles.of(np.ones((rows, columns), np.bool_), 128.0)
    for row in range(rows):
        for column in range(columns):
            tiles.set(column, row, READ)
    return tiles


def cells_at(points: Sequence[tuple[int, int]], rays: Sequence[int]) -> CellMeasurement:
    """Cells with so many stained directions, all of 0.6 OD x um."""
    count = len(points)
    at = np.array(points, np.int32).reshape(count, 2)
    stained = np.array([(1 << n) - 1 for n in rays], np.uint32)
    cells = Cells(
        x=at[:, 0].copy(),
        y=at[:, 1].copy(),
        px=np.full(count, 400, np.int32),
        nucleus_px=np.full(count, 100, np.int32),
        ray_px=np.full((count, 32), 10, np.uint8),
        stained=stained,
        dab_sum=np.array([480 * n for n in rays], np.uint32),
        dab_px=np.array([12 * n for n in rays], np.uint32),
    )
    return CellMeasurement(cells, MembraneTotals(), 0.25, 2, all_read(1, 1))


class ArrayReader:
    """A slide in memory, at its spacing; white beyond.

    `bad` are tiles of 256 px and what became of them.
    """

    def __init__(self, rgb: Bytes, bad: dict[tuple[int, int], str] | None = None):
        self.rgb, self.bad = rgb, bad or {}

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        out = np.full((height_px, width_px, 3), 255, np.uint8)
        top, left = max(y_px, 0), max(x_px, 0)
        part = self.rgb[top : y_px + height_px, left : x_px + width_px]
        at = np.s_[top - y_px :, left - x_px :]
        out[at][: part.shape[0], : part.shape[1]] = part
        touched = {
            status
            for (x, y), status in self.bad.items()
            if x_px < x + 256 and x < x_px + width_px
            if y_px < y + 256 and y < y_px + height_px
        }
        return out, max(touched, default="ok")


def measured_array(
    rgb: Bytes,
    find: Finder,
    tile_px: int = 256,
    *,
    workers: int = 2,
    batch_size: int = 3,
    wanted: npt.NDArray[np.bool_] | None = None,
    bad: dict[tuple[int, int], str] | None = None,
    prune_px: int = 0,
    glass_rgb: Color | None = None,
) -> CellMeasurement:
    """Cells of a slide in memory at 0.25 um/px, all of it tumor."""
    height, width = rgb.shape[:2]
    if wanted is None:
        wanted = np.ones((-(-height // tile_px), -(-width // tile_px)), np.bool_)
    return MembraneMeasure(
        ArrayReader(rgb, bad),
        find,
        size_px=(width, height),
        spacing_um=0.25,
        step=2,
        tile_px=tile_px,
        batch_size=batch_size,
        prune_px=prune_px,
        glass_rgb=glass_rgb,
        wanted=wanted,
        is_tumor=lambda x, y: np.ones(len(x), np.bool_),
    ).run(workers=workers)


class BrownMembrane(torch.nn.Module):
    """Membrane where red is clearly lighter than blue; an edge that nobody reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brown = 40.0 * (x[:, 0:1] - x[:, 2:3] - 0.12)
        return torch.cat((brown, brown), 1)


def lattice() -> Bytes:
    """Cells every 15 um on 0.4 x 0.4 mm; those on the left have brown rings."""
    side, pitch = 1600, 60
    y, x = np.mgrid[:side, :side]
    rgb = np.empty((side, side, 3), np.int16)
    rgb[:] = (176, 162, 190)
    away = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    rgb[away < 13] = (112, 98, 160)
    rgb[(np.abs(away - 24) < 4) & (x < 420)] = (150, 96, 52)
    rgb += np.random.default_rng(0).integers(-5, 6, rgb.shape, np.int16)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def write_case(root: Path) -> Path:
    """A slide, a tumor package and a membrane package."""
    write_slide(root / "lattice.svs", lattice(), 0.25)
    packages.write_method(root / "tumor")
    package = root / "brown"
    packages.write_model(
        package / "membrane",
        BrownMembrane(),
        keys={
            "task": "membrane",
            "activation": "sigmoid",
            "batch_size": 2,
            "halo_px": HALO_PX,
        },
        num_classes=2,
        class_names=["membrane", "edge"],
        patch_size_pixels=512 + 2 * HALO_PX,
        spacing_um_px=0.25,
    )
    method = {
        "name": "brown",
        "method": "membrane",
        "models": {"membrane": "membrane"},
        "tile_px": 512,
        "guideline": "asco-cap-2018",
        "stain": "h-dab",
        "synthetic": True,
    }
    (package / "method.json").write_text(json.dumps(method))
    return root


def arguments(root: Path, out: Path, *more: object) -> list[str]:
    """The command that scores the case's slide into `out`."""
    words = ["membranes", root / "lattice.svs", "-o", out, "-m", root / "brown"]
    words += ["--tumor-model", root / "tumor", "--allow-unknown-model"]
    return [str(word) for word in (*words, *more)]


def region_file(path: Path, x0: float, y0: float, x1: float, y1: float) -> Path:
    """A box as a GeoJSON file."""
    ring = box(x0, y0, x1, y1)[0][1][0].tolist()
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def files(root: Path) -> dict[str, bytes]:
    """What a results folder holds, but for locks, times and hosts."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and ".locks" not in path.parts
        and not path.name.startswith(("run_", "events_"))
    }


def box(x0: float, y0: float, x1: float, y1: float) -> list[Any]:
    """A region as `load_roi` gives it."""
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return [(False, [np.array(corners, np.float64)])]


def altered(folder: Path, to: Path, **keys: Any) -> Path:
    """A copy of the membrane package whose model states other keys of ours."""
    shutil.copytree(folder / "brown", to)
    packages.edit_json(
        to / "membrane/config.json", lambda c: c["her2fast"].update(keys)
    )
    return to
