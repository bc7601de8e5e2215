# SPDX-License-Identifier: Apache-2.0
"""Pixels as a slide stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from cases import Rgb

from her2fast import _core

#: Y, and Cb and Cr without their offset, of R, G, B (JFIF).
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def store(
    path: Path, rgb: Rgb, quality: int, downsamples: list[int], spacing_um: float
) -> None:
    """An SVS; quality 0 is lossless."""
    _core.write_pyramid(
        str(path),
        rgb,
        spacing_um=spacing_um,
        jpeg_quality=quality,
        downsamples=downsamples,
        aperio=True,
        workers=1,
    )


def chroma_420(rgb: Rgb, *, triangle: bool) -> Rgb:
    """The pixels with colors as 4:2:0 holds them, and nothing else of JPEG.

    Means of 2 x 2 px, spread again by a triangle (3/4 of the nearest, 1/4 of the next
    one, per axis) as libjpeg does, or repeated.
    """
    height, width = (side // 2 * 2 for side in rgb.shape[:2])
    means = np.empty((2, height // 2, width // 2), np.float32)
    out = rgb.copy()
    bands = range(0, height, 512)
    for y in bands:
        part = rgb[y : min(y + 512, height), :width].astype(np.float32)
        for plane, weights in enumerate(CHROMA):
            values = (part @ np.asarray(weights, np.float32)).reshape(
                part.shape[0] // 2, 2, width // 2, 2
            )
            means[plane, y // 2 : (y + part.shape[0]) // 2] = values.mean((1, 3))
    for y in bands:
        end = min(y + 512, height)
        part = rgb[y:end, :width].astype(np.float32)
        luma = part @ np.asarray(LUMA, np.float32)
        rows = np.arange(y, end)
        cb, cr = (spread(means[plane], rows, width, triangle) for plane in (0, 1))
        picture = np.stack(
            (
                luma + 1.402 * cr,
                luma - 0.344136 * cb - 0.714136 * cr,
                luma + 1.772 * cb,
            ),
            axis=-1,
        )
        out[y:end, :width] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return out


def spread(
    half: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    width: int,
    triangle: bool,
) -> npt.NDArray[np.float32]:
    """Rows of a plane of half the size at full size."""

    def axis(
        plane: npt.NDArray[np.float32], at: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        near = plane[at // 2]
        if not triangle:
            return near
        far = np.clip(at // 2 + np.where(at % 2 == 0, -1, 1), 0, len(plane) - 1)
        mixed: npt.NDArray[np.float32] = 0.75 * near + 0.25 * plane[far]
        return mixed

    return axis(axis(half, rows).T, np.arange(width)).T


def means(rgb: Rgb, factor: int) -> Rgb:
    """Means of factor x factor px, rounded half up; what is left over is cut off."""
    height, width = (side // factor for side in rgb.shape[:2])
    out = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, 256):
        end = min(y + 256, height)
        part = rgb[y * factor : end * factor, : width * factor]
        blocks = part.reshape(end - y, factor, width, factor, 3)
        out[y:end] = np.floor(blocks.mean((1, 3)) + 0.5).astype(np.uint8)
    return out
