# SPDX-License-Identifier: Apache-2.0
"""Tissue microarrays into one slide per core, with a manifest.

The folder holds `cores.json` (what it is made of, written first), a slide per core,
`cores.csv` (every place of the array, missing ones too) and `manifest.csv` for `score`
and `train`, written last. A run that was killed is started again and makes what is
missing; a folder made of something else is refused.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.convert import Box, Converted, convert_slide
from her2fast.errors import UsageError
from her2fast.export.atomic import atomic_write
from her2fast.opened_slide import OpenedSlide, open_input
from her2fast.tma_grid import CELL_UM, Core, clipped, find_islands, lay_grid
from her2fast.tma_list import read_cores

__all__ = ["SplitCore", "find_cores", "split_cores"]

PLAN, TABLE, MANIFEST = "cores.json", "cores.csv", "manifest.csv"
DETECT = "detect"
#: The mask reaches some pixels beyond tissue: coarser, and neighboring cores meet.
MASK_SPACING_UM = 4.0
WHITE_RGB = (255, 255, 255)
BAND_CELLS = 64  # rows of cells looked at together
TABLE_COLUMNS = [
    "name",
    "status",
    "slide",
    "x0_px",
    "y0_px",
    "width_px",
    "height_px",
    "tissue_mm2",
    "overlaps",
    "copied",
    "missing_tiles",
    "damaged_tiles",
]

OnCore = Callable[["SplitCore", int, int], None]


@dataclass(frozen=True)
class SplitCore:
    """A core, the box that was cut for it, and its slide; None where it is missing."""

    core: Core
    box_px: Box
    overlaps: tuple[str, ...] = ()
    file: str | None = None
    converted: Converted | None = None


def split_cores(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    cores: str | os.PathLike[str] = DETECT,
    diameter_um: float | None = None,
    mpp: float | None = None,
    quality: int = 90,
    copy_tiles: bool = True,
    overwrite: bool = False,
    workers: int = 2,
    on_core: OnCore | None = None,
) -> list[SplitCore]:
    """Writes a slide per core into the folder `output`.

    `cores` is "detect" or the path of a list (`her2fast.tma_list`). Raises `UsageError`
    and `SlideError`.
    """
    slide = open_input(source, mpp)
    if os.fspath(cores) == DETECT:
        found = find_cores(slide, diameter_um, workers=workers)
    else:
        found = read_cores(cores, slide.spacing_um, diameter_um)
    plan = _plan(found, slide, copy_tiles)
    folder = Path(output)
    state = {
        "fingerprint": slide.record["fingerprint"],
        "spacing_um": list(slide.spacing_um),
        "quality": quality,
        "cores": [[item.core.name, item.core.status, *item.box_px] for item in plan],
        "her2fast": _core.__version__,
    }
    notes = _prepare(folder, state, overwrite)
    done = []
    for index, item in enumerate(plan, start=1):
        made = item
        if item.file is not None:
            path = folder / item.file
            converted = None
            if item.file not in notes:
                converted = convert_slide(
                    slide.core,
                    path,
                    mpp=mpp,
                    quality=quality,
                    box=item.box_px,
                    copy_tiles=copy_tiles,
                    overwrite=True,
                    workers=workers,
                )
                notes[item.file] = {
                    "copied": converted.copied,
                    "missing": converted.missing,
                    "damaged": converted.damaged,
                }
                _write_plan(folder, state, notes)
            made = SplitCore(
                item.core, item.box_px, item.overlaps, item.file, converted
            )
        done.append(made)
        if on_core is not None:
            on_core(made, index, len(plan))
    atomic_write(folder / TABLE, _table(done, notes))
    atomic_write(folder / MANIFEST, _manifest(done))
    return done


def find_cores(
    slide: OpenedSlide, diameter_um: float | None = None, *, workers: int = 2
) -> list[Core]:
    """Cores on the slide's tissue; raises `UsageError` where it holds no array."""
    reader = slide.reader(workers=workers, reading="scaled")
    islands = find_islands(tissue_cells(slide, reader))
    return lay_grid(islands, slide.spacing_um, diameter_um)


def tissue_cells(
    slide: OpenedSlide, reader: _core.TileReader
) -> npt.NDArray[np.float32]:
    """(rows, columns) cells of `CELL_UM`: their share of tissue; 0 where unread."""
    side = round(CELL_UM / MASK_SPACING_UM)
    columns, rows = (
        max(1, int(size * um / CELL_UM))
        for size, um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    out = np.zeros((rows, columns), np.float32)
    for top in range(0, rows, BAND_CELLS):
        for left in range(0, columns, BAND_CELLS):
            height = min(BAND_CELLS, rows - top)
            width = min(BAND_CELLS, columns - left)
            rgb, status = reader.read(
                left * side, top * side, width * side, height * side, MASK_SPACING_UM
            )
            if status not in ("ok", "warned"):
                continue
            mask = np.asarray(_core.tissue_mask(rgb, WHITE_RGB), np.float32) > 0
            cells = mask.reshape(height, side, width, side).mean(axis=(1, 3))
            out[top : top + height, left : left + width] = cells
    return out


def _plan(
    cores: Sequence[Core], slide: OpenedSlide, copy_tiles: bool
) -> list[SplitCore]:
    """Boxes inside the slide; with whole tiles where that takes in no other core."""
    inside: list[tuple[Core, Box]] = []
    for core in cores:
        part = clipped(core, slide.size_px)
        if part is None and core.status != "missing":
            raise UsageError(
                f"core {core.name!r} at {core.box_px[:2]} lies beyond the slide of "
                f"{slide.size_px[0]} x {slide.size_px[1]} px"
            )
        inside.append((core, part.box_px if part else (0, 0, 0, 0)))
    present = [(core, box) for core, box in inside if core.status != "missing"]
    files: dict[str, str] = {}
    plan = []
    for core, box in inside:
        if core.status == "missing":
            plan.append(SplitCore(core, box))
            continue
        overlaps = tuple(
            other.name for other, near in present if other != core and _meet(box, near)
        )
        whole = _whole_tiles(box, slide) if copy_tiles and not overlaps else box
        if any(_meet(whole, near) for other, near in present if other != core):
            whole = box
        file = re.sub(r"[^\w.+-]", "_", core.name) + ".svs"
        taken = files.setdefault(file.lower(), core.name)
        if taken != core.name:
            raise UsageError(
                f"cores {taken!r} and {core.name!r} would share the file {file}"
            )
        plan.append(SplitCore(core, whole, overlaps, file))
    return plan


def _meet(a: Box, b: Box) -> bool:
    return (
        a[0] < b[0] + b[2]
        and b[0] < a[0] + a[2]
        and a[1] < b[1] + b[3]
        and b[1] < a[1] + a[3]
    )


def _whole_tiles(box: Box, slide: OpenedSlide) -> Box:
    """The box's tiles: then they are copied, and nothing is encoded again."""
    tile_width, tile_height = slide.core.levels[0][2:4]
    if slide.core.reader != "native" or tile_width != tile_height:
        return box
    x0, y0 = box[0] // tile_width * tile_width, box[1] // tile_height * tile_height
    x1 = min(-(-(box[0] + box[2]) // tile_width) * tile_width, slide.size_px[0])
    y1 = min(-(-(box[1] + box[3]) // tile_height) * tile_height, slide.size_px[1])
    return x0, y0, x1 - x0, y1 - y0


def _prepare(
    folder: Path, state: dict[str, Any], overwrite: bool
) -> dict[str, dict[str, Any]]:
    """Makes the folder this plan's; returns what is known of the cores it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / PLAN
    if plan.is_file() and not overwrite:
        try:
            there = json.loads(plan.read_text("utf-8"))
            made_of, notes = there["plan"], dict(there["done"])
        except (ValueError, KeyError, TypeError):
            made_of, notes = None, {}
        if made_of != state:
            raise UsageError(
                f"{folder}: holds the cores of another slide, list or setting; name "
                "another folder, or --overwrite"
            )
        return {name: n for name, n in notes.items() if (folder / name).is_file()}
    if not overwrite and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; name another folder or --overwrite")
    for name in (MANIFEST, TABLE):  # of an earlier conversion
        (folder / name).unlink(missing_ok=True)
    _write_plan(folder, state, {})
    return {}


def _write_plan(
    folder: Path, state: dict[str, Any], notes: dict[str, dict[str, Any]]
) -> None:
    """What the folder is made of, and which cores are finished."""
    document = {"plan": state, "done": notes}
    text = json.dumps(document, indent=1, ensure_ascii=False)
    atomic_write(folder / PLAN, (text + "\n").encode("utf-8"))


def _table(done: Sequence[SplitCore], notes: dict[str, dict[str, Any]]) -> bytes:
    rows: list[list[object]] = [list(TABLE_COLUMNS)]
    for item in done:
        note = notes.get(item.file or "", {})
        mm2 = item.core.tissue_mm2
        rows.append(
            [
                item.core.name,
                item.core.status,
                item.file or "",
                *item.box_px,
                "" if mm2 is None else f"{mm2:g}",
                " ".join(item.overlaps),
                "" if not note else str(note["copied"]).lower(),
                note.get("missing", ""),
                note.get("damaged", ""),
            ]
        )
    return _csv(rows)


def _manifest(done: Sequence[SplitCore]) -> bytes:
    rows: list[list[object]] = [["slide", "case"]]
    rows += [[item.file, item.core.name] for item in done if item.file is not None]
    return _csv(rows)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8")
