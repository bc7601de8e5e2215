# SPDX-License-Identifier: Apache-2.0
"""What a results folder holds beside the record: tables, regions, maps, the report.

With `membrane_exports` the one place that calls `her2fast.export` and `.report`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError
from her2fast.export.atomic import Together, atomic_write
from her2fast.export.class_map import class_picture, with_legend
from her2fast.export.geojson import patch_tiles, regions
from her2fast.export.palettes import DEFAULT_PALETTE
from her2fast.export.patch_csv import patch_table
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.export.results_table import (
    results_csv,
    results_parquet,
    worklist_csv,
)
from her2fast.opened_slide import OpenedSlide
from her2fast.overview import OVERVIEW_PX, overview_frame
from her2fast.record import Record
from her2fast.report import cohort_html, report_html
from her2fast.report.gallery import Gallery, choose_patches
from her2fast.report.pictures import (
    OpenReader,
    Pictures,
    ViewT,
    collect,
    pack,
    unpack,
    view_for,
)
from her2fast.report.view import AREAS_MEAN_SOMETHING
from her2fast.scoring import Result
from her2fast.store import ResultsFolder

if TYPE_CHECKING:
    from PIL import Image

PATCH_TABLES = "model-outputs-csv"
REGIONS = "regions"
CLASS_MAPS = "class-maps"
REPORTS = "reports"
COHORT = "cohort.html"
OVERVIEW_QUALITY = 90


@dataclass(frozen=True)
class ExportOptions:
    """How the files for people look."""

    geojson: str = "regions"
    palette: str = "qupath"


@dataclass(frozen=True)
class Written:
    """What `write_exports` wrote."""

    files: list[Path]
    #: The report lacks pictures that another run may have, the slide being readable.
    pictures_missing: bool = False


@dataclass(frozen=True)
class _Drawn:
    """What the report shares with the other files of a measured slide."""

    picture: Image.Image
    gallery: Gallery


def write_exports(
    root: Path,
    name: str,
    result: Result,
    *,
    options: ExportOptions,
    open_reader: OpenReader | None = None,
) -> Written:
    """Writes every file for people; an error on the way leaves the old ones whole.

    A slide that failed or was refused has a report only: classes of a wrong stain, say,
    mean nothing, and a map of them would look as if they did.
    `open_reader` is called where the report needs pictures that are not kept.
    """
    with Together() as files:
        return _write_all(files, root, name, result, options, open_reader)


def _write_all(
    files: Together,
    root: Path,
    name: str,
    result: Result,
    options: ExportOptions,
    open_reader: OpenReader | None,
) -> Written:
    drawn = None
    told = result.status in AREAS_MEAN_SOMETHING
    if (
        told
        and result.measurement is not None
        and result.record["class_px"] is not None
    ):
        drawn = _write_measured(files, root, name, result, options, open_reader)
    page = report_html(
        result.record,
        drawn.picture if drawn else as_it_looks(root, name, result.record),
        gallery=drawn.gallery if drawn else None,
        palette=options.palette,
    )
    files.add(root / REPORTS / f"{name}.html", page)
    missing = drawn is not None and drawn.gallery.pictures.unopened
    return Written(files.paths, missing)


def _write_measured(
    files: Together,
    root: Path,
    name: str,
    result: Result,
    options: ExportOptions,
    open_reader: OpenReader | None,
) -> _Drawn:
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
    folder = ResultsFolder(root)
    picture = class_picture(
        read_overview(folder.overview_path(name)),
        outcomes,
        grid,
        size_px=core.slide_size_px,
        class_names=names,
        palette=options.palette,
    )
    class_map = with_legend(
        picture,
        px_per_mm=1000
        / grid.slide_spacing_um[0]
        * picture.width
        / core.slide_size_px[0],
        class_names=names,
        class_px=result.record["class_px"],
        class_mm2=result.record["class_mm2"],
        title=str(result.record["slide"]["name"]),
        notes=[str(result.record["intended_use"])],
        palette=options.palette,
    )
    choices = choose_patches(outcomes, grid)
    pictures = kept_pictures(
        files,
        folder.patches_path(name),
        [(choice.column, choice.row) for choice in choices],
        view_for(grid.patch_px, grid.spacing_um, grid.slide_spacing_um),
        core.key,
        open_reader,
    )
    gallery = Gallery(choices, pictures, names, result.record["class_patches"])
    files.add(root / PATCH_TABLES / f"{name}.csv", table)
    files.add(root / REGIONS / f"{name}.geojson", shapes)
    files.add(root / CLASS_MAPS / f"{name}.png", class_map)
    return _Drawn(picture, gallery)


def kept_pictures(
    files: Together,
    path: Path,
    places: Sequence[tuple[int, int]],
    view: ViewT,
    key: str,
    open_reader: OpenReader | None,
) -> Pictures[ViewT]:
    """The pictures of these places; what is kept in `path` is written anew."""
    kept: dict[tuple[int, int], bytes] = {}
    with contextlib.suppress(OSError):
        kept = unpack(path.read_bytes(), key)
    pictures = collect(places, view, kept, open_reader)
    # Without the slide nothing that is kept is given up: another decision may need it.
    if not pictures.unopened:
        files.add(path, pack(pictures.jpegs, key))
    return pictures


def write_overview(path: Path, slide: OpenedSlide, workers: int) -> None:
    """Stores the whole slide at most `OVERVIEW_PX` wide and high."""
    from PIL import Image

    width_px, height_px, spacing_um = overview_frame(slide.size_px, slide.spacing_um)
    reader = slide.reader(workers=workers, reading="scaled")
    rgb, _ = reader.read(0, 0, width_px, height_px, spacing_um)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=OVERVIEW_QUALITY)
    atomic_write(path, out.getvalue())


def as_it_looks(root: Path, name: str, record: Record) -> Image.Image | None:
    """A slide that was read and has no map, without any class; None where it was not.

    A region that misses the slide is refused before anything is read.
    """
    from PIL import Image

    path = ResultsFolder(root).overview_path(name)
    if record["tiles"] is None or not path.is_file():
        return None
    return Image.fromarray(read_overview(path))


def read_overview(path: Path) -> npt.NDArray[np.uint8]:
    """The stored picture; white where it is gone."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return np.full((OVERVIEW_PX // 4, OVERVIEW_PX // 4, 3), 255, np.uint8)


def write_tables(folder: ResultsFolder) -> list[tuple[str, SlideError]]:
    """`results.csv`, `results.parquet`, `worklist.csv`, `cohort.html` from records.

    Returns what else lies among the records, by name, and why it is none.
    """
    # Read and written by one run at a time: the last one to write has seen all.
    with folder.alone():
        files = folder.records_and_others()
        records = [
            {**found, "folder": name}
            for name, found in files
            if not isinstance(found, SlideError)
        ]
        atomic_write(folder.root / "results.csv", results_csv(records))
        atomic_write(folder.root / "results.parquet", results_parquet(records))
        atomic_write(folder.root / "worklist.csv", worklist_csv(records))
        page = cohort_html(records, palette=_palette_of(folder, records))
        atomic_write(folder.root / COHORT, page)
    return [(name, found) for name, found in files if isinstance(found, SlideError)]


def _palette_of(folder: ResultsFolder, records: Sequence[Record]) -> str:
    """The palette of the reports, where they share one: a color must not mean two."""
    looks = {
        folder.read_exports(str(record["folder"])).get("palette") for record in records
    } - {None}
    (palette,) = looks if len(looks) == 1 else (DEFAULT_PALETTE,)
    return str(palette)
