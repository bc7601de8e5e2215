# SPDX-License-Identifier: Apache-2.0
"""Slides and plain images to pyramids that OpenSlide, QuPath and her2fast open."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError

__all__ = ["Box", "Converted", "convert", "convert_image", "convert_slide"]

#: Decoded pixels of a plain image are held in memory: 2 Gpx are 6 GB.
MAX_PIXELS = 2_000_000_000
SUFFIXES = (".tif", ".tiff", ".svs")
MAX_ICC_BYTES = 16 << 20

#: x0, y0, width and height in level-0 pixels.
Box = tuple[int, int, int, int]
OnRows = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes
    ----------
    path : Path
        The new file.
    size_px : (int, int)
        Its level 0.
    spacing_um : (float, float)
        Of its level 0, x and y.
    levels, tiles : int
        Levels written; tiles of level 0.
    copied : bool
        Whether level 0 holds the source's JPEG tiles as they were.
    missing, damaged : int
        Tiles of level 0 whose source is missing, or is corrupt or gave a decoder
        warning. They are left out, and readers count them as missing; copied ones that
        are damaged stay so.
    """

    path: Path
    size_px: tuple[int, int]
    spacing_um: tuple[float, float]
    levels: int
    tiles: int
    copied: bool = False
    missing: int = 0
    damaged: int = 0

    def line(self) -> str:
        """One line for a person."""
        x_um, y_um = self.spacing_um
        um = f"{x_um:g}" if x_um == y_um else f"{x_um:g} x {y_um:g}"
        text = f"{self.path}: {self.size_px[0]} x {self.size_px[1]} px at {um} um/px"
        if self.copied:
            text += ", tiles copied"
        if self.missing or self.damaged:
            text += (
                f"; of {self.tiles} tiles {self.missing} are missing and "
                f"{self.damaged} damaged in the source, and count as such here"
            )
        return text


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    quality: int = 90,
    box: Box | None = None,
    copy_tiles: bool = True,
    overwrite: bool = False,
    workers: int = 2,
    on_rows: OnRows | None = None,
) -> Converted:
    """Writes a slide or, if it is none, a plain image as a pyramid.

    Raises `UsageError` where `output` exists or a plain image comes without `mpp`, and
    `SlideError` with an input code.
    """
    from her2fast.opened_slide import open_core

    target = check_output(output, overwrite)
    if target.exists() and os.path.exists(source) and target.samefile(source):
        raise UsageError(f"{target}: would replace the slide that it is made of")
    try:
        core = open_core(source)
    except SlideError as error:
        if error.code not in ("UNSUPPORTED_FORMAT", "UNSUPPORTED_PIXELS"):
            raise
        if box is not None:
            raise
        try:
            return convert_image(
                source, output, mpp=mpp, quality=quality, overwrite=overwrite
            )
        except SlideError as second:
            # No image either: then what the slide readers said is to the point.
            if second.code == "UNSUPPORTED_FORMAT":
                raise error from second
            raise
    return convert_slide(
        core,
        output,
        mpp=mpp,
        quality=quality,
        box=box,
        copy_tiles=copy_tiles,
        overwrite=overwrite,
        workers=workers,
        on_rows=on_rows,
    )


def convert_slide(
    core: _core.Slide,
    output: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    quality: int = 90,
    box: Box | None = None,
    copy_tiles: bool = True,
    overwrite: bool = False,
    workers: int = 2,
    on_rows: OnRows | None = None,
) -> Converted:
    """Writes an opened slide, or a rectangle of it, as a pyramid.

    JPEG tiles of level 0 are copied as they are where `copy_tiles` is true, the source
    is read natively and the rectangle begins at a tile's corner; otherwise they are
    encoded anew with `quality`.
    """
    target = check_output(output, overwrite)
    spacing_um, _, _ = _core.resolve_frame(core, mpp)
    width_px, height_px = core.levels[0][:2]
    x0, y0, box_width, box_height = box or (0, 0, width_px, height_px)
    if not (
        0 <= x0 < x0 + box_width <= width_px and 0 <= y0 < y0 + box_height <= height_px
    ):
        raise UsageError(
            f"need a region inside the slide of {width_px} x {height_px} px, got "
            f"{box_width} x {box_height} px at ({x0}, {y0})"
        )

    def progress(rows_px: int) -> None:
        if on_rows is not None:
            on_rows(rows_px, box_height)

    report = _core.convert_slide(
        core,
        target,
        spacing_um=spacing_um,
        box_px=(x0, y0, box_width, box_height),
        jpeg_quality=quality,
        aperio=target.suffix.lower() == ".svs",
        copy_tiles=copy_tiles,
        workers=workers,
        progress=progress,
    )
    return Converted(
        path=target,
        size_px=(box_width, box_height),
        spacing_um=spacing_um,
        levels=report["levels"],
        tiles=report["tiles"],
        copied=bool(report["copied"]),
        missing=report["missing"],
        damaged=report["damaged"],
    )


def check_output(output: str | os.PathLike[str], overwrite: bool) -> Path:
    """The path to write; raises `UsageError` where that must not be."""
    target = Path(output)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{target}: need an output that ends in {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}"
        )
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists; --overwrite replaces it")
    return target


def convert_image(
    image: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    mpp: float | None,
    quality: int = 90,
    overwrite: bool = False,
) -> Converted:
    """Writes a plain image as a pyramid; its spacing has to be stated.

    Raises `UsageError` where `output` exists or `mpp` is None, and `SlideError` with an
    input code.
    """
    target = check_output(output, overwrite)
    rgb, icc_profile = read_image(image)
    if mpp is None:
        raise UsageError(
            f"{os.fspath(image)}: a plain image states no spacing; give its um/px "
            "with --mpp"
        )
    _core.write_pyramid(
        os.fspath(target),
        rgb,
        spacing_um=mpp,
        jpeg_quality=quality,
        aperio=target.suffix.lower() == ".svs",
        icc_profile=icc_profile,
    )
    height_px, width_px = rgb.shape[:2]
    core = _core.Slide.open(target)
    return Converted(
        path=target,
        size_px=(width_px, height_px),
        spacing_um=(mpp, mpp),
        levels=len(core.levels),
        tiles=-(-width_px // 256) * -(-height_px // 256),
    )


def read_rgb(image: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) pixels of a plain image; 16 bit, grey and alpha are refused."""
    return read_image(image)[0]


def read_image(
    image: str | os.PathLike[str],
) -> tuple[npt.NDArray[np.uint8], bytes]:
    """(H, W, 3) pixels of a plain image, and its color profile, empty without one."""
    from PIL import Image, UnidentifiedImageError

    place = os.fspath(image)
    if not os.path.exists(place):
        raise SlideError(f"{place}: no such file", "NOT_FOUND")
    if not os.path.isfile(place):
        raise SlideError(f"{place}: is not a regular file", "NOT_REGULAR")
    try:
        # The limit is ours and checked before decoding; Pillow's warning adds nothing.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _decode(place)
    except UnidentifiedImageError as error:
        raise SlideError(
            f"{place}: is no image that Pillow reads", "UNSUPPORTED_FORMAT"
        ) from error
    except Image.DecompressionBombError as error:
        raise SlideError(f"{place}: {error}", "LIMIT_EXCEEDED") from error
    except SyntaxError as error:  # Pillow's PNG reader says so of a broken chunk
        raise SlideError(f"{place}: {error}", "BAD_HEADER") from error
    except (OSError, EOFError) as error:
        code = "TRUNCATED" if "truncated" in str(error).lower() else "IO"
        raise SlideError(f"{place}: {error}", code) from error


def _decode(place: str) -> tuple[npt.NDArray[np.uint8], bytes]:
    from PIL import Image

    allowed = Image.MAX_IMAGE_PIXELS
    try:
        # Pillow's own limit is for web services; opening decodes nothing.
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
        with Image.open(place) as opened:
            width_px, height_px = opened.size
            if width_px * height_px > MAX_PIXELS:
                raise SlideError(
                    f"{place}: need at most {MAX_PIXELS} pixels, got "
                    f"{width_px} x {height_px}",
                    "LIMIT_EXCEEDED",
                )
            images = int(getattr(opened, "n_frames", 1))
            if images != 1:
                raise SlideError(
                    f"{place}: need one image in the file, got {images}",
                    "UNSUPPORTED_PIXELS",
                )
            if opened.mode != "RGB":
                raise SlideError(
                    f"{place}: need 8-bit RGB without alpha, got mode {opened.mode}; "
                    "convert it in an image editor, so that you see what becomes of it",
                    "UNSUPPORTED_PIXELS",
                )
            profile = opened.info.get("icc_profile") or b""
            if len(profile) > MAX_ICC_BYTES:
                profile = b""
            return np.asarray(opened, np.uint8), bytes(profile)
    finally:
        Image.MAX_IMAGE_PIXELS = allowed
