# SPDX-License-Identifier: Apache-2.0
"""Decides again on stored measurements: no model, no pixels."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from her2fast.errors import SlideError, UsageError
from her2fast.exports import ExportOptions, write_exports, write_tables
from her2fast.manifest import read_ish, roi_for
from her2fast.record import Provenance, Record, settings_for
from her2fast.run import exit_code_of
from her2fast.scoring import Measurement, Result, RoiLike, as_roi, decide, decide_with
from her2fast.store import ResultsFolder


def rescore(
    measurement: Measurement | str | os.PathLike[str],
    *,
    roi: RoiLike = None,
    guideline: str | None = None,
    ish: str | None = None,
) -> Result | list[Rescored]:
    """Decides again with another ROI, guideline or ISH result.

    Parameters
    ----------
    measurement : Measurement or path
        A measurement, or a results folder whose slides are all decided again.
    roi : str, Path or polygons, optional
        GeoJSON file; for a folder of results also a folder with `<slide>.geojson`.
    guideline : str, optional
        A rule set's name, or "none" for areas only.
    ish : {"positive", "negative"} or str, optional
        ISH result; for a folder of results a CSV with the columns slide and ish.

    Returns
    -------
    Result
        Of a measurement: what a full run with these settings gives.
    list of Rescored
        Of a results folder, whose files are rewritten.
    """
    if isinstance(measurement, Measurement):
        return decide(measurement, roi=roi, guideline=guideline, ish=ish)
    if roi is not None and not isinstance(roi, str | os.PathLike):
        raise UsageError("need a file or folder as roi for a results folder")
    return rescore_folder(
        measurement,
        roi=None if roi is None else os.fspath(roi),
        guideline=guideline,
        ish=None if ish is None else read_ish(ish),
    )


@dataclass(frozen=True)
class Rescored:
    """One slide of `rescore_folder`."""

    name: str
    record: Record
    #: Why nothing was decided; empty where it was.
    skipped: str = ""


def exit_code(done: list[Rescored]) -> int:
    """As of a run, over every slide in the folder."""
    return exit_code_of([str(item.record["status"]) for item in done])


def rescore_folder(
    out: str | os.PathLike[str],
    *,
    roi: str | None = None,
    guideline: str | None = None,
    ish: dict[str, str] | None = None,
    exports: ExportOptions | None = None,
) -> list[Rescored]:
    """Decides again on the measurements of a results folder: no model, no pixels.

    What is not given stays as it was; `roi="none"` drops the regions.
    """
    folder = ResultsFolder(out)
    done = [
        _rescore_one(folder, name, record, roi, guideline, ish or {}, exports)
        for name, record in folder.records()
    ]
    write_tables(folder)
    return done


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
        with folder.lock(name):
            core = folder.read_measurement(name, record["measurement_key"])
            if core is None:
                return Rescored(name, record, "no measurement")
            source = Provenance.from_record(record)
            inputs = folder.read_inputs(name)
            slide = str(record["slide"]["name"])
            if roi is not None:
                path = None if roi == "none" else roi_for(slide, roi)
                inputs["roi"] = as_roi(path)
            if guideline is not None:
                inputs["guideline"] = guideline
            inputs["ish"] = ish.get(slide, inputs["ish"])
            if source.method is None:
                raise UsageError(f"{name}: its record names no method")
            settings = settings_for(source.method, **inputs)
            measurement = Measurement(core, source)
            result: Result = decide_with(measurement, settings)
            options = exports or ExportOptions(**folder.read_exports(name))
            files = write_exports(folder.root, name, result, options=options)
            folder.write_record(
                name,
                result.record,
                files=files,
                inputs=inputs,
                exports=asdict(options),
            )
            return Rescored(name, result.record)
    except SlideError as error:
        return Rescored(name, record, f"{error.code}: {error}")
