# SPDX-License-Identifier: Apache-2.0
"""Finds a measured slide again, for pictures of it; opens no model."""

from __future__ import annotations

import os
import re

from her2fast import _core
from her2fast.errors import SlideError
from her2fast.full_hash import full_sha256
from her2fast.opened_slide import open_core
from her2fast.record import Record
from her2fast.store import ResultsFolder

__all__ = ["reopen"]

_ODD_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")


def reopen(folder: ResultsFolder, name: str, record: Record) -> _core.TileReader | str:
    """A reader of the slide that `record` is of, or in words why there is none.

    Only the very slide will do: its place is that of its last run, and its fingerprint
    the record's, as is every byte where the record has their hash.
    """
    place = folder.slide_place(name)
    if place is None:
        return "this results folder does not say where the slide lies"
    path = _as_bytes_of_the_system(place)
    if not os.path.exists(path):
        return "the slide is not where it was when it was scored"
    try:
        core = open_core(path)
        if core.fingerprint() != record["slide"]["fingerprint"]:
            return "the file where the slide was is another one now"
        sha256 = record["slide"].get("sha256")
        if sha256 is not None and full_sha256(path) != sha256:
            return "the file where the slide was is another one now"
        x_um, y_um = record["slide"]["spacing_um"]
        return _core.TileReader(core, (x_um, y_um), workers=1)
    except SlideError as error:
        return f"the slide cannot be opened any more ({error.code})"


def _as_bytes_of_the_system(place: str) -> str:
    r"""A place is stored with ``\udcNN`` for bytes that are no UTF-8."""
    if os.path.exists(place):
        return place
    return _ODD_BYTE.sub(lambda odd: chr(0xDC00 + int(odd[1], 16)), place)
