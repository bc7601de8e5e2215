# SPDX-License-Identifier: Apache-2.0
"""The results folder of slides scored cell by cell (docs/guide/membranes.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from her2fast.export.atomic import Together
from her2fast.export.cells_geojson import GZIP_ABOVE, cell_detections, gzipped
from her2fast.export.class_map import class_picture, with_legend
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.exports import (
    CLASS_MAPS,
    REPORTS,
    ExportOptions,
    Written,
    as_it_looks,
    kept_pictures,
    read_overview,
)
from her2fast.membrane_decision import MembraneResult
from her2fast.methods.cell_decision import CLASS_NAMES
from her2fast.report.cells import CellGallery, CellView, cells_html, choose_cells
from her2fast.report.pictures import OpenReader
from her2fast.store import ResultsFolder

if TYPE_CHECKING:
    from PIL import Image

CELLS = "cells"
#: The map shows squares of this side, by the cells in them.
MAP_UM = 64.0
#: A square with fewer cells is left open: two cells are no region.
MAP_LEAST_CELLS = 3


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
    options: ExportOptions,
    open_reader: OpenReader | None = None,
) -> Written:
    """Write every file for people; as `exports.write_exports`, of cells."""
    page_parts: dict[str, Any] = {}
    missing = False
    with Together() as files:
        if result.cells is not None and result.decision is not None:
            folder = ResultsFolder(root)
            _add_cells(files, root, name, result, options.palette)
            picture = _add_map(files, folder, name, result, options.palette)
            gallery = _gallery(files, folder, name, result, open_reader)
            missing = gallery.pictures.unopened
            page_parts = {"picture": picture, "gallery": gallery}
        else:
            page_parts = {"overview": as_it_looks(root, name, result.record)}
        page = cells_html(result.record, palette=options.palette, **page_parts)
        files.add(root / REPORTS / f"{name}.html", page)
    return Written(files.paths, missing)


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


def _gallery(
    files: Together,
    folder: ResultsFolder,
    name: str,
    result: MembraneResult,
    open_reader: OpenReader | None,
) -> CellGallery:
    assert result.cells is not None
    assert result.decision is not None
    choices = choose_cells(
        result.cells.cells.take(result.decision.chosen),
        result.decision.classes,
        grid_um=result.cells.grid_um,
        slide_spacing_um=result.record["slide"]["spacing_um"],
    )
    view = CellView(result.cells.grid_um, result.cells.spacing_um)
    pictures = kept_pictures(
        files,
        folder.patches_path(name),
        [choice.seed for choice in choices],
        view,
        str(result.record["measurement_key"]),
        open_reader,
    )
    return CellGallery(choices, pictures)


__all__ = ["squares", "write_membranes"]
