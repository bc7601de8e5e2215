# SPDX-License-Identifier: Apache-2.0
"""Many slides scored cell by cell into one results folder, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from her2fast.errors import SlideError
from her2fast.export.palettes import DEFAULT_PALETTE
from her2fast.exports import write_tables
from her2fast.manifest import Entry, check_regions, region_of
from her2fast.measure import crash_as_code, default_workers
from her2fast.membrane_exports import MembraneInputs, cells_path, write_membranes
from her2fast.membranes import MembraneResult, MembraneScorer
from her2fast.methods.cell_file import from_bytes
from her2fast.methods.membrane import CellMeasurement
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.package import load_tumor_package
from her2fast.record import (
    Record,
    empty_slide,
    failed_record,
    settings_for,
    unmeasured,
)
from her2fast.run import exit_code_of
from her2fast.scoring import (
    Measurement,
    Scorer,
    as_roi,
    display_name,
    nameless,
    open_input,
)
from her2fast.store import ResultsFolder


@dataclass(frozen=True)
class MembraneOptions:
    """What a run was asked for."""

    out: str
    model: str | None = None
    tumor_model: str | None = None
    device: str = "cpu"
    guideline: str | None = None
    mpp: float | None = None
    roi: str | None = None
    workers: int | None = None
    overwrite: bool = False
    allow_unknown_model: bool = False
    palette: str = DEFAULT_PALETTE


OnSlide = Callable[[str, Record, str], None]


def make_scorer(options: MembraneOptions) -> MembraneScorer:
    """The packages, checked; raises `UsageError`, and `SlideError` MODEL_HASH."""
    package = load_membrane_package(options.model)
    tumor = load_tumor_package(options.tumor_model)
    if not options.allow_unknown_model:
        package.require_known()
        tumor.require_known()
    workers = options.workers or default_workers()
    return MembraneScorer(
        package, Scorer(tumor, device=options.device, workers=workers)
    )


def run_membranes(
    options: MembraneOptions, entries: Sequence[Entry], on_slide: OnSlide | None = None
) -> int:
    """Scores slides; returns the exit code. What is finished and unchanged is kept.

    Raises `UsageError`, `DeviceError` and, of a package, `SlideError`: nothing can be
    scored then. A bad slide is a record.
    """
    scorer = make_scorer(options)
    folder = ResultsFolder(options.out)
    names = folder.assign_names([entry.slide for entry in entries])
    pairs = zip(entries, names, strict=True)
    check_regions([(e.slide, name) for e, name in pairs if not e.roi], options.roi)
    folder.create()
    names = folder.claim_names([entry.slide for entry in entries])
    statuses = []
    for entry, name in zip(entries, names, strict=True):
        record, work = _one(scorer, options, folder, entry, name)
        statuses.append(str(record["status"]))
        if on_slide is not None:
            on_slide(display_name(entry.slide), record, work)
    write_tables(folder)
    return exit_code_of(statuses)


def _one(
    scorer: MembraneScorer,
    options: MembraneOptions,
    folder: ResultsFolder,
    entry: Entry,
    name: str,
) -> tuple[Record, str]:
    """One slide's record, and "measured", "decided" (from stored cells), "kept" or
    "none"."""
    slide_record = empty_slide(display_name(entry.slide))
    try:
        with crash_as_code(), folder.lock(name, entry.slide):
            try:
                with crash_as_code():
                    return _score(scorer, options, folder, entry, name, slide_record)
            except SlideError as error:
                failed = failed_record(
                    unmeasured(slide_record), nameless(error, entry.slide)
                )
                record = {**failed, "cells": None, "area_reading": None}
                write_membranes(folder.root, name, MembraneResult(record))
                return record, "none"
    except SlideError as error:  # no lock, or no room for the record
        return failed_record(unmeasured(slide_record), error), "none"


def _score(
    scorer: MembraneScorer,
    options: MembraneOptions,
    folder: ResultsFolder,
    entry: Entry,
    name: str,
    slide_record: Record,
) -> tuple[Record, str]:
    roi = as_roi(region_of(entry, options.roi, name))
    mpp = options.mpp if options.mpp is not None else entry.mpp
    opened = open_input(entry.slide, mpp, slide_record)
    tumor_source = scorer.tumor.provenance(opened)
    source = scorer.provenance(tumor_source)
    settings = settings_for(
        source.method or {}, roi=roi, guideline=options.guideline, ish=entry.ish
    )
    key = source.measurement_key or ""
    exports = {"palette": options.palette, "geojson": "cells"}
    if not options.overwrite and folder.is_finished(
        name, key, settings.key(key), exports
    ):
        record = folder.read_record(name)
        if record is not None:
            return record, "kept"
    core = cells = None
    if not options.overwrite:
        core = folder.read_measurement(name, tumor_source.measurement_key)
        cells = _stored_cells(folder, name, key)
    result = scorer.score(
        opened,
        roi=roi,
        guideline=options.guideline,
        ish=entry.ish,
        tumor=None if core is None else Measurement(core, tumor_source),
        cells=cells,
    )
    write_membranes(
        folder.root,
        name,
        result,
        slide=opened,
        inputs=MembraneInputs(roi, options.guideline, entry.ish),
        palette=options.palette,
    )
    return result.record, "measured" if cells is None else "decided"


def _stored_cells(folder: ResultsFolder, name: str, key: str) -> CellMeasurement | None:
    """The stored cells with this key, or None: then they are measured again."""
    try:
        cells, stored = from_bytes(cells_path(folder.root, name).read_bytes())
    except (OSError, SlideError):
        return None
    return cells if stored == key else None
