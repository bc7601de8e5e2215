# SPDX-License-Identifier: Apache-2.0
"""Reads `results/<slide>.json`: whatever lies in that folder may be no record."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from her2fast.errors import REASON_CODES, SlideError
from her2fast.manifest import LABELS
from her2fast.record import Record

__all__ = ["read_record_file"]

_STATUSES = ("scored", *REASON_CODES.values())
#: What tables and pages reckon with.
_NUMBERS = (
    "tumor_mm2",
    "tissue_mm2",
    "roi_mm2",
    "dropped_tumor_share",
    "out_of_focus_share",
    "working_spacing_um",
)


def read_record_file(path: Path) -> Record:
    """The record that a file holds.

    Raises
    ------
    SlideError
        NOT_FOUND, NOT_REGULAR, IO: it cannot be read. HASH_MISMATCH: it holds no
        record, being somebody else's file or a damaged one; the message says where.
    """
    try:
        # A pipe of this name would be waited for.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SlideError(f"{path}: is no regular file", "NOT_REGULAR")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SlideError(f"{path}: no such file", "NOT_FOUND") from error
    except OSError as error:
        raise SlideError(f"{path}: {error.strerror or error}", "IO") from error
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_record(path, f"no JSON ({error})") from error
    wrong = _wrong(record)
    if wrong:
        raise _no_record(path, wrong)
    found: Record = record
    return found


def _no_record(path: Path, wrong: str) -> SlideError:
    return SlideError(
        f"{path}: is no record of a slide: {wrong}; move the file elsewhere, or score "
        "the slide again",
        "HASH_MISMATCH",
    )


def _wrong(record: object) -> str:
    """What a reader of records would stumble over, in words; empty where nothing.

    Not the whole schema: records of older releases lack what came since.
    """
    if not isinstance(record, dict):
        return f"need an object, got {type(record).__name__}"
    slide, models = record.get("slide"), record.get("models")
    shares = record.get("fractions")
    if not isinstance(slide, dict) or not _text_or_none(slide, "name"):
        return "need slide.name"
    if record.get("status") not in _STATUSES:
        return "need a status"
    if not _text_or_none(record, "code"):
        return "need a code or null"
    if "score" not in record or record["score"] not in (None, *LABELS):
        return f"need a score of {', '.join(LABELS)} or null"
    if not isinstance(models, list) or not all(
        isinstance(model, dict) and isinstance(model.get("sha256"), str)
        for model in models
    ):
        return "need models, each with its sha256"
    if "fractions" not in record or not (shares is None or _numbers(shares)):
        return "need fractions or null"
    if not _texts(record.get("review_flags")):
        return "need review_flags"
    if not _texts(record.get("class_names", [])):
        return "need class_names as text"
    for key in _NUMBERS:
        if not _number_or_none(record.get(key)):
            return f"need {key} as a number or null"
    return ""


def _text_or_none(of: Record, key: str) -> bool:
    return key in of and isinstance(of[key], str | None)


def _number_or_none(value: object) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        item is not None and _number_or_none(item) for item in value
    )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
