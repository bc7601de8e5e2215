# SPDX-License-Identifier: Apache-2.0
"""A slide that is to be measured: opened, its frame settled, its record begun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from her2fast import _core
from her2fast.errors import SlideError
from her2fast.full_hash import full_sha256
from her2fast.models.package import printable
from her2fast.record import Record, empty_slide


@dataclass(frozen=True)
class OpenedSlide:
    """A slide whose frame is settled."""

    core: _core.Slide
    path: str
    size_px: tuple[int, int]
    spacing_um: tuple[float, float]
    warnings: tuple[str, ...]
    record: Record
    #: Device, inode, size and time of the file when it was opened.
    file_state: tuple[int, ...] | None = None

    def reader(
        self, *, workers: int, reading: str, core: _core.Slide | None = None
    ) -> _core.TileReader:
        """Native threads that read tiles of this slide, or of a `core` round it."""
        return _core.TileReader(
            core or self.core, self.spacing_um, workers=workers, mode=reading
        )


def display_name(path: str | os.PathLike[str]) -> str:
    """The file's name as text that any file can hold; odd bytes are written \\xff."""
    return printable(os.path.basename(os.fspath(path).rstrip("/")))


def nameless(error: SlideError, path: str | os.PathLike[str]) -> SlideError:
    """The error with the slide's name for its path: no record depends on a folder."""
    place = os.fspath(path)
    text = str(error)
    for form in (place, os.fsencode(place).decode("utf-8", "backslashreplace")):
        text = text.replace(form, display_name(path))
    return SlideError(printable(text), error.code)


def open_core(path: str | os.PathLike[str]) -> _core.Slide:
    """The native slide; OpenSlide's library is found first, and loaded when needed."""
    from her2fast.slide import _prepare_openslide

    _prepare_openslide()
    return _core.Slide.open(path)


def open_input(
    path: str | os.PathLike[str],
    mpp: float | None = None,
    record: Record | None = None,
    *,
    full_hash: bool = False,
) -> OpenedSlide:
    """Opens a slide and settles its frame; raises `SlideError` with an input code.

    `record` is filled as far as the slide was understood, also where it is refused;
    with `full_hash` by the SHA-256 of all of its bytes, too.
    """
    record = empty_slide() if record is None else record
    text = os.fspath(path)
    record["name"] = display_name(text)
    state = _file_state(text)
    core = open_core(text)
    width_px, height_px = core.levels[0][:2]
    size_px = (int(width_px), int(height_px))
    record["size_px"] = list(size_px)
    record["format"] = core.format
    record["reader"] = core.reader
    record["fingerprint"] = core.fingerprint()
    if full_hash:
        record["sha256"] = full_sha256(text)
    spacing_um, source, warning = _core.resolve_frame(core, mpp)
    record["spacing_um"] = list(spacing_um)
    record["spacing_source"] = source
    warnings = [warning, _bounds_warning(core.properties)]
    stated = tuple(str(text) for text in warnings if text is not None)
    return OpenedSlide(core, text, size_px, spacing_um, stated, record, state)


def check_unchanged(slide: OpenedSlide) -> None:
    """Raises `SlideError` INPUT_CHANGED where the file is not what was opened."""
    if (
        _file_state(slide.path) != slide.file_state
        or open_core(slide.path).fingerprint() != slide.record["fingerprint"]
    ):
        raise SlideError(
            f"{slide.path}: the file changed while it was read; score it again "
            "once nothing writes to it",
            "INPUT_CHANGED",
        )


def _file_state(path: str) -> tuple[int, ...] | None:
    """What changes with a file's content; the fingerprint samples large files."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None  # the core says why it cannot be opened
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _bounds_warning(properties: Mapping[str, str]) -> str | None:
    """Slides with bounds have two frames, and a region must be in the right one."""
    origin = [properties.get(f"openslide.bounds-{axis}", "0") for axis in "xy"]
    if origin == ["0", "0"]:
        return None
    return (
        f"the slide states bounds at ({origin[0]}, {origin[1]}): regions and maps "
        "begin there, as in QuPath; OpenSlide itself counts from another corner"
    )
