# SPDX-License-Identifier: Apache-2.0
"""Epithelium of slides by a superpixel package: maps, outlines, areas.

Synthetic packages, research use only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.export.atomic import Together
from her2fast.export.dissolve import dissolve
from her2fast.export.geojson import annotation
from her2fast.export.patches import PatchGrid
from her2fast.manifest import Entry
from her2fast.measure import crash_as_code, default_workers
from her2fast.methods.epithelium import CELL_PX, EpitheliumMap, find_epithelium
from her2fast.methods.membrane import unreadable
from her2fast.models.package import ModelPackage, load_segmenter
from her2fast.models.superpixel_svm import SuperpixelRunner
from her2fast.opened_slide import (
    OpenedSlide,
    check_unchanged,
    display_name,
    nameless,
    open_input,
)
from her2fast.record import empty_slide
from her2fast.run import exit_code_of
from her2fast.store import ResultsFolder

Record = dict[str, Any]
#: Folder of the results folder, and how its outlines are named and colored in QuPath.
FOLDER = "epithelium"
CLASS_NAME, CLASS_COLOR = "Epithelium", (160, 90, 160)
#: What a measured slide has beside its record.
MAPS = (".png", ".geojson")


@dataclass(frozen=True)
class EpitheliumOptions:
    """What a run was asked for."""

    out: str
    model: str
    mpp: float | None = None
    workers: int | None = None
    reading: str = "scaled"
    allow_unknown_model: bool = False


def load_epithelium_package(
    model: str | Path, *, allow_unknown_model: bool = False
) -> ModelPackage:
    """A package of `her2fast train epithelium`, hashed; nothing is parsed.

    Raises `UsageError`, and `SlideError` MODEL_HASH.
    """
    package = load_segmenter(Path(model))
    if package.config.her2fast.superpixel_svm is None:
        raise UsageError(
            f"{package.folder}: need a package of `her2fast train epithelium`; this "
            "one holds a network, which `her2fast score` runs"
        )
    if not (package.known or allow_unknown_model):
        raise SlideError(
            f"{package.file}: sha256 {package.sha256} is in no list of known models; "
            "if you trust it, pass --allow-unknown-model",
            "MODEL_HASH",
        )
    return package


def map_epithelium(
    slide: OpenedSlide,
    runner: SuperpixelRunner,
    *,
    spacing_um: float = 1.0,
    workers: int = 1,
    reading: str = "scaled",
    record: Record | None = None,
) -> EpitheliumMap:
    """Epithelium of an opened slide; `record` gets its `tiles` whatever they hold.

    Raises `SlideError`: NO_LEVEL, INPUT_CHANGED, MISSING_TILES, CORRUPT_TILES and what
    reading raises.
    """
    reader = slide.reader(workers=1, reading=reading)
    reader.plan(spacing_um)  # NO_LEVEL before any work
    width, height = (
        -(-round(side * um * 1e6) // round(spacing_um * 1e6))
        for side, um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    found = find_epithelium(
        reader,
        runner.machine,
        size_px=(width, height),
        spacing_um=spacing_um,
        workers=workers,
    )
    check_unchanged(slide)
    if record is not None:
        record["tiles"] = found.tiles
    tiles = found.tiles
    needed = tiles["tissue"] + tiles["missing"] + tiles["corrupt"]
    error = unreadable(
        {**tiles, "wanted": needed},
        float(_core.LIMITS["max_bad_tiles_percent"]),
        "blocks with tissue or unread",
    )
    if error is not None:
        raise error
    return found


def probability_png(found: EpitheliumMap) -> bytes:
    """The probability as a gray picture: a pixel a cell of 8 px, white is 1."""
    out = io.BytesIO()
    Image.fromarray(found.probability).save(out, "PNG", optimize=True)
    return out.getvalue()


def outlines_geojson(
    found: EpitheliumMap, slide: OpenedSlide, key: str
) -> Iterator[bytes]:
    """The outline as one annotation for QuPath, in level-0 pixels."""
    rows, columns = found.inside.nonzero()
    return annotation(
        dissolve(columns, rows),
        PatchGrid(CELL_PX, found.spacing_um, slide.spacing_um),
        name=CLASS_NAME,
        color=CLASS_COLOR,
        key=f"{key}/{slide.record['fingerprint']}",
        measurements={"area_mm2": area_mm2(found.epithelium_px, found.spacing_um)},
        size_px=slide.size_px,
    )


def area_mm2(px: int, spacing_um: float) -> float:
    """Area of pixels, mm2."""
    return px * (spacing_um / 1000.0) ** 2


def run_epithelium(
    options: EpitheliumOptions,
    entries: Sequence[Entry],
    on_slide: Callable[[Record], None] | None = None,
) -> int:
    """Maps slides into `OUT/epithelium`; returns the exit code.

    Raises `UsageError`, of the package `SlideError`, and `OSError` where the folder
    cannot be made. A bad slide is a record.
    """
    package = load_epithelium_package(
        options.model, allow_unknown_model=options.allow_unknown_model
    )
    runner = SuperpixelRunner(package)
    folder = ResultsFolder(options.out)
    folder.create()
    names = folder.claim_names([entry.slide for entry in entries])
    statuses = []
    for entry, name in zip(entries, names, strict=True):
        record = _one(options, runner, package, folder, entry, name)
        statuses.append("scored" if record["code"] is None else record["status"])
        if on_slide is not None:
            on_slide(record)
    return exit_code_of(statuses)


def _one(
    options: EpitheliumOptions,
    runner: SuperpixelRunner,
    package: ModelPackage,
    folder: ResultsFolder,
    entry: Entry,
    name: str,
) -> Record:
    record: Record = {
        "slide": empty_slide(display_name(entry.slide)),
        "status": "measured",
        "code": None,
        "message": "",
        "model": package.to_record(),
        "intended_use": package.config.her2fast.intended_use,
        "working_spacing_um": package.config.spacing_um_px,
        "reading_mode": options.reading,
        "cell_px": CELL_PX,
    }
    place = folder.root / FOLDER / name
    try:
        with crash_as_code(), folder.lock(name, entry.slide):
            try:
                with crash_as_code():
                    return _measured(options, runner, package, entry, place, record)
            except SlideError as error:
                failed = _failed(record, error, entry)
                _write(place, failed)
                return failed
    except SlideError as error:
        # No lock, or no room for the record: nothing of this is written.
        return _failed(record, error, entry)


def _measured(
    options: EpitheliumOptions,
    runner: SuperpixelRunner,
    package: ModelPackage,
    entry: Entry,
    place: Path,
    record: Record,
) -> Record:
    mpp = options.mpp if options.mpp is not None else entry.mpp
    slide = open_input(entry.slide, mpp, record["slide"])
    found = map_epithelium(
        slide,
        runner,
        spacing_um=package.config.spacing_um_px,
        workers=options.workers or default_workers(),
        reading=options.reading,
        record=record,
    )
    measured = {
        **record,
        "tissue_mm2": area_mm2(found.tissue_px, found.spacing_um),
        "epithelium_mm2": area_mm2(found.epithelium_px, found.spacing_um),
        "warnings": list(slide.warnings),
    }
    maps = (probability_png(found), outlines_geojson(found, slide, package.sha256))
    _write(place, measured, dict(zip(MAPS, maps, strict=True)))
    return measured


def _failed(record: Record, error: SlideError, entry: Entry) -> Record:
    plain = nameless(error, entry.slide)
    return {
        **record,
        "status": plain.status,
        "code": plain.code,
        "message": str(plain),
    }


def _write(
    place: Path,
    record: Record,
    maps: Mapping[str, bytes | Iterator[bytes]] | None = None,
) -> None:
    """All files of a slide at once; maps of an earlier result go if there are none."""
    maps = maps or {}
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    place.parent.mkdir(parents=True, exist_ok=True)
    with Together() as files:
        for suffix, data in maps.items():
            files.add(_file(place, suffix), data)
        files.add(
            _file(place, ".json"), (text + "\n").encode("utf-8", "backslashreplace")
        )
        for suffix in MAPS:
            if suffix not in maps:
                _file(place, suffix).unlink(missing_ok=True)


def _file(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)
