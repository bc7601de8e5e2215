# SPDX-License-Identifier: Apache-2.0
"""Pictures of the patches or cells in a report: read from the slide once, then kept.

They are kept beside the measurement (`measurements/<slide>.patches.zip`), so that
deciding again needs the slide only where other patches are chosen.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from her2fast.errors import SlideError

__all__ = [
    "OpenReader",
    "Pictures",
    "Reader",
    "View",
    "ViewT",
    "collect",
    "jpeg_url",
    "missing_words",
    "pack",
    "read_square",
    "unpack",
    "view_for",
]

#: Column and row of a patch.
Place = tuple[int, int]

#: A picture shows a patch and half its side around it, in at most this many pixels.
SIDE_PX = 256
_QUALITIES = (82, 60, 40, 20)
#: Tissue takes 8 to 20 KB; noise must not fill the report.
MAX_PICTURE_BYTES = 32_000
# No picture is older than another: the file is a pure function of its pictures.
_TIME = (1980, 1, 1, 0, 0, 0)


class Reader(Protocol):
    """What `_core.TileReader` does for one region."""

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[npt.NDArray[np.uint8], str]:
        """The region at `spacing_um`, its corner on that grid, and its state."""
        ...


@dataclass(frozen=True)
class View:
    """How patches are pictured."""

    spacing_um: float
    #: The patch's side in the picture, and what is shown on each side of it.
    patch_px: int
    margin_px: int

    @property
    def side_px(self) -> int:
        """The picture's side."""
        return self.patch_px + 2 * self.margin_px

    def read(self, reader: Reader, place: Place) -> bytes | None:
        """One picture as JPEG; None where its tiles cannot be read whole."""
        column, row = place
        return read_square(
            reader,
            column * self.patch_px - self.margin_px,
            row * self.patch_px - self.margin_px,
            self.side_px,
            self.spacing_um,
        )


def read_square(
    reader: Reader, x_px: int, y_px: int, side_px: int, spacing_um: float
) -> bytes | None:
    """A square of the slide as JPEG; None where its tiles cannot be read whole."""
    try:
        rgb, state = reader.read(x_px, y_px, side_px, side_px, spacing_um)
    except SlideError:
        return None
    return _jpeg(rgb) if state == "ok" else None


def view_for(
    patch_px: int, spacing_um: float, slide_spacing_um: tuple[float, float]
) -> View:
    """Finest view of a patch that fits: the working spacing, halved or doubled.

    The pictures' grid is the patches' own, so a patch lies on whole pixels.
    """
    finest_um = max(slide_spacing_um) / 1.01  # as the reader allows
    side_px, view_um = patch_px, spacing_um
    while side_px * 4 <= SIDE_PX and view_um / 2 >= finest_um:
        side_px, view_um = side_px * 2, view_um / 2
    while side_px * 2 > SIDE_PX and side_px % 2 == 0:
        side_px, view_um = side_px // 2, view_um * 2
    return View(view_um, side_px, side_px // 2)


class Viewing(Protocol):
    """How something at a place is pictured."""

    def read(self, reader: Reader, place: Place) -> bytes | None:
        """One picture as JPEG; None where its tiles cannot be read whole."""
        ...


ViewT = TypeVar("ViewT", bound=Viewing)


@dataclass
class Pictures(Generic[ViewT]):
    """The pictures of a report, and why some are missing."""

    view: ViewT
    jpegs: dict[Place, bytes] = field(default_factory=dict)
    #: In words, where a picture is missing; else empty.
    missing: str = ""
    #: Whether the slide could not be opened, so that a later report may have more.
    unopened: bool = False


OpenReader = Callable[[], "Reader | str"]


def collect(
    places: Iterable[Place],
    view: ViewT,
    kept: Mapping[Place, bytes],
    open_reader: OpenReader | None,
) -> Pictures[ViewT]:
    """Take the pictures that are kept, and read the others from the slide.

    `open_reader` gives a reader, or in words why there is none.
    """
    wanted = list(dict.fromkeys(places))
    found = Pictures(view, {p: kept[p] for p in wanted if p in kept})
    lacking = [place for place in wanted if place not in kept]
    if not lacking:
        return found
    reader = "the slide was not opened" if open_reader is None else open_reader()
    if isinstance(reader, str):
        found.missing, found.unopened = reader, True
        return found
    for place in lacking:
        jpeg = view.read(reader, place)
        if jpeg is None:
            found.missing = "the slide can be read only in part"
        else:
            found.jpegs[place] = jpeg
    return found


def jpeg_url(jpeg: bytes | None) -> str | None:
    """A picture as a page holds it."""
    if jpeg is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def missing_words(lacking: int, of: int, why: str) -> str | None:
    """What a page says where `lacking` of its pictures are not there."""
    if not lacking:
        return None
    count = "The" if lacking == of else f"{lacking} of the {of}"
    return (
        f"{count} pictures are missing: {why}. Positions and figures are as measured; "
        "score the slide again where it can be read."
    )


def pack(pictures: Mapping[Place, bytes], key: str) -> bytes:
    """The file that keeps pictures of one measurement."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = key.encode()
        for (column, row), jpeg in sorted(pictures.items()):
            archive.writestr(zipfile.ZipInfo(f"{column}_{row}.jpg", _TIME), jpeg)
    return out.getvalue()


def unpack(data: bytes, key: str) -> dict[Place, bytes]:
    """The pictures of a file; none where it is damaged or of another measurement."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.comment != key.encode():
                return {}
            for info in archive.infolist():
                column, _, row = info.filename.removesuffix(".jpg").partition("_")
                if info.file_size <= MAX_PICTURE_BYTES:
                    found[int(column), int(row)] = archive.read(info)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return {}
    return found


def _jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    for quality in _QUALITIES:
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "JPEG", quality=quality)
        if out.tell() <= MAX_PICTURE_BYTES:
            break
    return out.getvalue()
