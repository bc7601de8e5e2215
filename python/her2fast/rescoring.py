# SPDX-License-Identifier: Apache-2.0
"""Decides again on stored measurements: no model, no pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from her2fast.errors import SlideError, UsageError
from her2fast.exports import ExportOptions, write_tables
from her2fast.manifest import check_regions, read_ish, roi_for
from her2fast.measure import crash_as_code
from her2fast.membrane_decision import (
    CellsNotMeasured,
    MembraneMeasurement,
    MembraneResult,
    decide_membranes,
    failed_membranes,
)
from her2fast.membrane_run import stored_membranes
from her2fast.models.package import MEMBRANE
from her2fast.record import (
    DecideSettings,
    Provenance,
    Record,
    failed_record,
    settings_for,
)
from her2fast.reopen import reopen
from her2fast.run import exit_code_of
from her2fast.scoring import Measurement, Result, RoiLike, as_roi, decide, decide_with
from her2fast.slide_job import AnyResult, take_region, write_result
from her2fast.store import ResultsFolder

Stored = Measurement | MembraneMeasurement

#: How a slide ends whose region is refused, or cannot be read.
_OF_REGIONS = ("ROI_INVALID", "ROI_OUTSIDE", "NOT_FOUND", "IO")


def rescore(
    measurement: Stored | str | os.PathLike[str],
    *,
    roi: RoiLike = None,
    guideline: str | None = None,
    ish: str | None = None,
) -> AnyResult | list[Rescored]:
    """Decides again with another ROI, guideline or ISH result.

    Parameters
    ----------
    measurement : Measurement, MembraneMeasurement or path
        A measurement, or a results folder whose slides are all decided again.
    roi : str, Path or polygons, optional
        GeoJSON file; for a folder of results also a folder with `<slide>.geojson`.
    guideline : str, optional
        A rule set's name, or "none" for areas only.
    ish : {"positive", "negative"} or str, optional
        ISH result; for a folder of results a CSV with the columns slide and ish.

    Returns
    -------
    Result or MembraneResult
        Of a measurement: what a full run with these settings gives.
    list of Rescored
        Of a results folder, whose files are rewritten.

    Raises
    ------
    UsageError
        The call is wrong, or the decision needs cells that were never measured.
    """
    if isinstance(measurement, Measurement):
        return decide(measurement, roi=roi, guideline=guideline, ish=ish)
    if isinstance(measurement, MembraneMeasurement):
        return _decide_cells(measurement, roi, guideline, ish)
    if roi is not None and not isinstance(roi, str | os.PathLike):
        raise UsageError("need a file or folder as roi for a results folder")
    return rescore_folder(
        measurement,
        roi=None if roi is None else os.fspath(roi),
        guideline=guideline,
        ish=None if ish is None else read_ish(ish),
    )


def _decide_cells(
    measurement: MembraneMeasurement,
    roi: RoiLike,
    guideline: str | None,
    ish: str | None,
) -> MembraneResult:
    source = measurement.provenance
    try:
        settings = settings_for(
            source.method or {}, roi=as_roi(roi), guideline=guideline, ish=ish
        )
    except SlideError as error:
        return failed_membranes(source, error, measurement)
    return decide_membranes(measurement, settings)


@dataclass(frozen=True)
class Rescored:
    """One slide of `rescore_folder`, or a file there that is no record."""

    name: str
    #: Empty of a file that is no record.
    record: Record
    #: Why nothing was decided; empty where it was.
    skipped: str = ""
    #: What was not given for this slide, though it was for others; else empty.
    note: str = ""


def exit_code(done: list[Rescored]) -> int:
    """As of a run, over every slide; one that was left as it was has failed."""
    return exit_code_of(
        ["failed" if item.skipped else str(item.record["status"]) for item in done]
    )


def rescore_folder(
    out: str | os.PathLike[str],
    *,
    roi: str | None = None,
    guideline: str | None = None,
    ish: dict[str, str] | None = None,
    exports: ExportOptions | None = None,
) -> list[Rescored]:
    """Decides again on the measurements of a results folder: no model, no pixels.

    What is not given stays as it was; `roi="none"` drops the regions. Raises
    `UsageError` before anything is written: `roi` is not there or would serve two
    slides, `ish` names no slide of the folder or one that two slides are called. A file
    of `results/` that is no record is left as it is, and says so in its `Rescored`.
    """
    folder = ResultsFolder(out)
    files = folder.records_and_others()
    records = [(name, got) for name, got in files if not isinstance(got, SlideError)]
    if roi is not None and roi != "none":
        if not os.path.exists(roi):
            raise UsageError(f"--roi {roi}: no such file or folder")
        check_regions([(_file_name(record), name) for name, record in records], roi)
    _check_ish([_file_name(record) for _, record in records], ish or {})
    done = [
        Rescored(name, {}, _as_skipped(found))
        if isinstance(found, SlideError)
        else _rescore_one(folder, name, found, roi, guideline, ish or {}, exports)
        for name, found in files
    ]
    write_tables(folder)
    return done


def _file_name(record: Record) -> str:
    return str(record["slide"]["name"])


def _check_ish(slides: list[str], ish: dict[str, str]) -> None:
    for slide in ish:
        if slides.count(slide) > 1:
            raise UsageError(
                f"the ISH result of {slide!r} would be that of {slides.count(slide)} "
                "slides of this name; give it in the manifest of `her2fast score`"
            )
    if ish and not set(ish) & set(slides):
        raise UsageError(
            f"no slide of the ISH table ({', '.join(sorted(ish)[:3])}, ...) is in this "
            "results folder; need the slides' file names"
        )


def _rescore_one(
    folder: ResultsFolder,
    name: str,
    record: Record,
    roi: str | None,
    guideline: str | None,
    ish: dict[str, str],
    exports: ExportOptions | None,
) -> Rescored:
    try:
        with crash_as_code(), folder.lock(name):
            now = folder.read_record(name)
            if now is None:
                return Rescored(name, record, "its record is gone")
            record = now  # another run may have written it since
            stored = read_stored(folder, name, record)
            if stored is None:
                return Rescored(name, record, "no measurement")
            source = stored.provenance
            options = exports or ExportOptions(**folder.read_exports(name))
            inputs = folder.read_inputs(name)
            slide = _file_name(record)
            if guideline is not None:
                inputs["guideline"] = guideline
            inputs["ish"] = ish.get(slide, inputs["ish"])
            note = ""
            try:
                path = None if roi in (None, "none") else roi_for(slide, roi, name)
                if path is not None:
                    take_region(inputs, lambda: path)
                elif roi == "none":
                    inputs.update(roi=(), roi_refused=False)
                elif roi is not None:
                    note = f"no region of it in {roi}: kept as it was"
                if _was_refused(inputs, record):  # and nothing took its place
                    raise _refusal(record)
            except SlideError as error:
                # A full run with this region is refused; the old score must not stand.
                result = _refused(stored, error)
            else:
                settings = settings_for(
                    source.method or {},
                    roi=inputs["roi"],
                    guideline=inputs["guideline"],
                    ish=inputs["ish"],
                )
                try:
                    result = _decide(stored, settings)
                except CellsNotMeasured as error:
                    return Rescored(name, record, str(error))
            write_result(
                folder,
                name,
                result,
                exports=options,
                inputs=inputs,
                open_reader=lambda: reopen(folder, name, record),
            )
            return Rescored(name, result.record, note=note)
    except SlideError as error:
        return Rescored(name, record, _as_skipped(error))


def _as_skipped(error: SlideError) -> str:
    return f"{error.code}: {error}"


def _was_refused(inputs: Mapping[str, Any], record: Record) -> bool:
    """Whether the last region was; of older folders the record alone says it."""
    said = inputs["roi_refused"]
    if said is not None:
        return bool(said)
    outside = record["code"] == "ROI_OUTSIDE" and not inputs["roi"]
    return outside or record["code"] == "ROI_INVALID"


def _refusal(record: Record) -> SlideError:
    """The error of a record whose region was refused.

    A run that was killed between the two files leaves a record of before.
    """
    if record["code"] in _OF_REGIONS:
        return SlideError(str(record["message"]), str(record["code"]))
    return SlideError(
        "the region of the last run was refused; give another, or --roi none for the "
        "whole slide",
        "ROI_INVALID",
    )


def read_stored(folder: ResultsFolder, name: str, record: Record) -> Stored | None:
    """What a results folder holds of the slide of a record; None where nothing."""
    source = Provenance.from_record(record)
    method = source.method or {}
    if method.get("kind") != MEMBRANE:
        sha256 = source.slide.get("sha256")
        core = folder.read_measurement(name, source.measurement_key, sha256)
        return None if core is None else Measurement(core, source)
    # Folders of older releases do not say what their tumor was measured from.
    return stored_membranes(folder, name, source) if "tumor" in method else None


def _decide(stored: Stored, settings: DecideSettings) -> AnyResult:
    if isinstance(stored, MembraneMeasurement):
        return decide_membranes(stored, settings)
    return decide_with(stored, settings)


def _refused(stored: Stored, error: SlideError) -> AnyResult:
    if isinstance(stored, MembraneMeasurement):
        return failed_membranes(stored.provenance, error)
    return Result(failed_record(stored.provenance, error))
