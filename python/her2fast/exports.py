# SPDX-License-Identifier: Apache-2.0
"""What a results folder holds beside the record: tables, regions, maps, the report.

The one place that calls `her2fast.export` and `her2fast.report`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.export.atomic import atomic_write
from her2fast.export.class_map import class_map_png
from her2fast.export.geojson import patch_tiles, regions
from her2fast.export.patch_csv import patch_table
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.export.results_table import (
    results_csv,
    results_parquet,
    worklist_csv,
)
from her2fast.report import report_html
from her2fast.scoring import OpenedSlide, Result
from her2fast.store import ResultsFolder

PATCH_TABLES = "model-outputs-csv"
REGIONS = "regions"
CLASS_MAPS = "class-maps"
REPORTS = "reports"
#: Longest side of the picture that maps and reports are drawn on.
OVERVIEW_PX = 1024
OVERVIEW_QUALITY = 90


@dataclass(frozen=True)
class ExportOptions:
    """How the files for people look."""

    geojson: str = "regions"
    palette: str = "qupath"


def write_exports(
    root: Path, name: str, result: Result, *, options: ExportOptions
) -> list[Path]:
    """Writes every file for people; returns what was written.

    A slide that was not decided on (it was refused, say) has a report only.
    """
    measured = result.measurement is not None and result.record["class_px"] is not None
    return [
        *(_write_measured(root, name, result, options) if measured else []),
        _write_report(root, name, result, options),
    ]


def _write_report(
    root: Path, name: str, result: Result, options: ExportOptions
) -> Path:
    class_map = None
    with contextlib.suppress(FileNotFoundError):
        if result.record["class_px"] is not None:
            class_map = (root / CLASS_MAPS / f"{name}.png").read_bytes()
    page = report_html(result.record, class_map, palette=options.palette)
    return _write(root / REPORTS / f"{name}.html", page)


def _write_measured(
    root: Path, name: str, result: Result, options: ExportOptions
) -> list[Path]:
    assert result.measurement is not None
    core = result.measurement.core
    outcomes = Outcomes.from_dict(
        _core.patch_outcomes(core, **result.settings.core_arguments())
    )
    grid = PatchGrid(core.patch_px, core.spacing_um, core.slide_spacing_um)
    names = list(core.class_names)
    key = str(result.record["decision_key"])
    if options.geojson == "patches":
        shapes = patch_tiles(
            outcomes,
            grid,
            class_names=names,
            decision_key=key,
            palette=options.palette,
        )
    else:
        shapes = regions(
            outcomes,
            grid,
            class_names=names,
            class_mm2=result.record["class_mm2"],
            decision_key=key,
            palette=options.palette,
        )
    table = patch_table(outcomes, grid, class_names=names)
    overview = read_overview(ResultsFolder(root).overview_path(name))
    class_map = class_map_png(
        overview,
        outcomes,
        grid,
        size_px=core.slide_size_px,
        class_names=names,
        class_px=result.record["class_px"],
        class_mm2=result.record["class_mm2"],
        title=str(result.record["slide"]["name"]),
        notes=[str(result.record["intended_use"])],
        palette=options.palette,
    )
    return [
        _write(root / PATCH_TABLES / f"{name}.csv", table),
        _write(root / REGIONS / f"{name}.geojson", shapes),
        _write(root / CLASS_MAPS / f"{name}.png", class_map),
    ]


def write_overview(path: Path, slide: OpenedSlide, workers: int) -> None:
    """Stores the whole slide at most `OVERVIEW_PX` wide and high."""
    from PIL import Image

    sides_um = [
        size * um for size, um in zip(slide.size_px, slide.spacing_um, strict=True)
    ]
    spacing_um = round(max(*sides_um, *slide.spacing_um) / OVERVIEW_PX, 6)
    spacing_um = max(spacing_um, *slide.spacing_um)
    width_px, height_px = (max(1, int(side / spacing_um)) for side in sides_um)
    reader = slide.reader(workers=workers, reading="scaled")
    rgb, _ = reader.read(0, 0, width_px, height_px, spacing_um)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=OVERVIEW_QUALITY)
    atomic_write(path, out.getvalue())


def read_overview(path: Path) -> npt.NDArray[np.uint8]:
    """The stored picture; white where it is gone."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return np.full((OVERVIEW_PX // 4, OVERVIEW_PX // 4, 3), 255, np.uint8)


def write_tables(folder: ResultsFolder) -> None:
    """`results.csv`, `results.parquet` and `worklist.csv` from the records."""
    # Read and written by one run at a time: the last one to write has seen all.
    with folder.alone():
        records = [record for _, record in folder.records()]
        atomic_write(folder.root / "results.csv", results_csv(records))
        atomic_write(folder.root / "results.parquet", results_parquet(records))
        atomic_write(folder.root / "worklist.csv", worklist_csv(records))


def _write(path: Path, data: bytes | Iterable[bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, data)
    return path
