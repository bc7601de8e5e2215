# SPDX-License-Identifier: Apache-2.0
"""The results folder of slides scored cell by cell (docs/guide/membranes.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from her2fast.export.atomic import Together, atomic_write
from her2fast.export.cells_geojson import GZIP_ABOVE, cell_detections, gzipped
from her2fast.export.class_map import class_picture, with_legend
from her2fast.export.palettes import DEFAULT_PALETTE
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.exports import read_overview, write_overview
from her2fast.membranes import MembraneResult
from her2fast.methods.cell_decision import CLASS_NAMES
from her2fast.methods.cell_file import to_bytes
from her2fast.record import Roi
from her2fast.report.cells import (
    CellPicture,
    cells_html,
    choose_cells,
    picture_cells,
)
from her2fast.scoring import OpenedSlide
from her2fast.store import ResultsFolder

if TYPE_CHECKING:
    from PIL import Image

CELLS = "cells"
CLASS_MAPS = "class-maps"
REPORTS = "reports"
#: The map shows squares of this side, by the cells in them.
MAP_UM = 64.0
#: A square with fewer cells is left open: two cells are no region.
MAP_LEAST_CELLS = 3


@dataclass(frozen=True)
class MembraneInputs:
    """What a decision was asked for, stored for the next one."""

    roi: Roi = ()
    guideline: str | None = None
    ish: str | None = None


def cells_path(root: Path, name: str) -> Path:
    """`measurements/<name>.h2c`."""
    return root / "measurements" / f"{name}.h2c"


def squares(result: MembraneResult, slide_spacing_um: tuple[float, float]) -> Outcomes:
    """Squares of 64 um as the map draws them: the class that most of their cells have.

    Of two classes with as many cells the lower one; `tumor_px` is the number of cells.
    """
    assert result.cells is not None
    assert result.decision is not None
    cells = result.cells.cells.take(result.decision.chosen)
    grid_um = result.cells.grid_um
    column = ((cells.x + 0.5) * grid_um // MAP_UM).astype(np.int64)
    row = ((cells.y + 0.5) * grid_um // MAP_UM).astype(np.int64)
    width = int(column.max(initial=0)) + 1
    place, where = np.unique(row * width + column, return_inverse=True)
    counts = np.zeros((len(place), len(CLASS_NAMES)), np.int64)
    np.add.at(counts, (where, result.decision.classes.her2), 1)
    total = counts.sum(1)
    kept = total >= MAP_LEAST_CELLS
    return Outcomes(
        column=place % width,
        row=place // width,
        tumor_px=total,
        kept=kept,
        predicted=np.where(kept, counts.argmax(1), -1).astype(np.int32),
        logits=np.full((len(place), len(CLASS_NAMES)), np.nan),
    )


def write_membranes(
    root: Path,
    name: str,
    result: MembraneResult,
    *,
    slide: OpenedSlide | None = None,
    inputs: MembraneInputs | None = None,
    palette: str = DEFAULT_PALETTE,
) -> list[Path]:
    """Write all files of one slide, the record last; returns them.

    `slide` is read once more for the picture under the map. The caller holds the
    slide's lock of the folder.
    """
    folder = ResultsFolder(root)
    record = result.record
    files = Together()
    stored: list[Path] = []
    if result.tumor is not None:
        atomic_write(folder.measurement_path(name), result.tumor.to_bytes())
        if slide is not None:
            write_overview(folder.overview_path(name), slide, workers=1)
    page_parts: dict[str, Any] = {}
    if result.cells is not None and result.decision is not None:
        path = cells_path(root, name)
        atomic_write(path, to_bytes(result.cells, str(record["measurement_key"])))
        stored.append(path)
        with files:
            _add_cells(files, root, name, result, palette)
            page_parts["picture"] = _add_map(files, folder, name, result, palette)
        if slide is not None:
            page_parts["gallery"] = _gallery(result, slide)
    report = root / REPORTS / f"{name}.html"
    report.parent.mkdir(exist_ok=True)
    atomic_write(report, cells_html(record, palette=palette, **page_parts))
    stored.append(report)
    asked = inputs or MembraneInputs()
    folder.write_record(
        name,
        record,
        files=[*stored, *files.paths],
        inputs={"roi": asked.roi, "guideline": asked.guideline, "ish": asked.ish},
        exports={"palette": palette, "geojson": "cells"},
    )
    return [*stored, *files.paths, folder.record_path(name)]


def _add_cells(
    files: Together, root: Path, name: str, result: MembraneResult, palette: str
) -> None:
    assert result.cells is not None
    assert result.decision is not None
    cells = result.cells.cells.take(result.decision.chosen)
    spacing = result.record["slide"]["spacing_um"]
    pieces = cell_detections(
        cells,
        result.decision.classes,
        grid_um=result.cells.grid_um,
        slide_spacing_um=(spacing[0], spacing[1]),
        class_names=CLASS_NAMES,
        decision_key=str(result.record["decision_key"]),
        palette=palette,
    )
    if len(cells) > GZIP_ABOVE:
        files.add(root / CELLS / f"{name}.geojson.gz", gzipped(pieces))
    else:
        files.add(root / CELLS / f"{name}.geojson", pieces)


def _add_map(
    files: Together,
    folder: ResultsFolder,
    name: str,
    result: MembraneResult,
    palette: str,
) -> Image.Image:
    assert result.decision is not None
    record = result.record
    spacing = record["slide"]["spacing_um"]
    size = record["slide"]["size_px"]
    grid = PatchGrid(round(MAP_UM), 1.0, (spacing[0], spacing[1]))
    picture = class_picture(
        read_overview(folder.overview_path(name)),
        squares(result, (spacing[0], spacing[1])),
        grid,
        size_px=(size[0], size[1]),
        class_names=CLASS_NAMES,
        palette=palette,
    )
    counts = result.decision.classes.counts()
    page = with_legend(
        picture,
        px_per_mm=1000 / spacing[0] * picture.width / size[0],
        class_names=CLASS_NAMES,
        class_px=counts,
        class_mm2=[0.0] * len(counts),
        amounts=[f"{count:,} cells" for count in counts],
        title=str(record["slide"]["name"]),
        notes=["squares of 64 µm: the class of most cells", record["intended_use"]],
        palette=palette,
    )
    files.add(folder.root / CLASS_MAPS / f"{name}.png", page)
    return picture


def _gallery(result: MembraneResult, slide: OpenedSlide) -> list[CellPicture]:
    assert result.cells is not None
    assert result.decision is not None
    cells = result.cells.cells.take(result.decision.chosen)
    classes = result.decision.classes
    return picture_cells(
        cells,
        classes,
        choose_cells(cells, classes),
        slide.reader(workers=1, reading="scaled"),
        grid_um=result.cells.grid_um,
        spacing_um=result.cells.spacing_um,
        slide_spacing_um=slide.spacing_um,
    )


__all__ = [
    "MembraneInputs",
    "cells_path",
    "squares",
    "write_membranes",
]
