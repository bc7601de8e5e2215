# SPDX-License-Identifier: Apache-2.0
"""Plain images to pyramidal tiled TIFF that OpenSlide, QuPath and her2fast open."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError

#: Decoded pixels are held in memory: 2 Gpx are 6 GB.
MAX_PIXELS = 2_000_000_000


def convert_image(
    image: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    mpp: float,
    quality: int = 90,
    overwrite: bool = False,
) -> str:
    """Writes `output`; returns a line that says so.

    Raises `UsageError` where it exists, and `SlideError` with an input code.
    """
    target = Path(output)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"{target}: need an output that ends in .tif or .tiff")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists; --overwrite replaces it")
    rgb = read_rgb(image)
    _core.write_pyramid(os.fspath(target), rgb, spacing_um=mpp, jpeg_quality=quality)
    height_px, width_px = rgb.shape[:2]
    return f"{target}: {width_px} x {height_px} px at {mpp:g} um/px"


def read_rgb(image: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) pixels of a plain image; 16 bit, grey and alpha are refused."""
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


def _decode(place: str) -> npt.NDArray[np.uint8]:
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
            return np.asarray(opened, np.uint8)
    finally:
        Image.MAX_IMAGE_PIXELS = allowed
