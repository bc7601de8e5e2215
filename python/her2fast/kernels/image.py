# SPDX-License-Identifier: Apache-2.0
"""Kernels on images: arrays of uint8 in, one function per operation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast._core import StainCensus, is_wrong_stain

__all__ = [
    "FOCUS_LIMIT",
    "H_DAB",
    "TISSUE_REACH_PX",
    "StainCensus",
    "focus",
    "is_wrong_stain",
    "stain_census",
    "stain_unmix",
    "tissue_mask",
    "tumor_count",
]

#: A patch whose focus is at least 1 and below this is out of focus.
FOCUS_LIMIT: int = _core.FOCUS_LIMIT
#: No pixel of the tissue mask depends on a pixel further away than this, in px.
TISSUE_REACH_PX: int = _core.TISSUE_REACH_PX
#: Rows are the unit density vectors of hematoxylin, DAB and their normal.
H_DAB: npt.NDArray[np.float64] = np.array(_core.H_DAB)
H_DAB.setflags(write=False)

White = tuple[int, int, int]


def as_bytes(array: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """Check the type here; shapes and values are the core's business."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"need {name} as an array of uint8, got {kind}")
    return np.ascontiguousarray(array)


def tumor_count(
    mask: npt.NDArray[np.uint8], *, patch_px: int, stride_px: int, device: str = "cpu"
) -> npt.NDArray[np.uint32]:
    """Count the tumor pixels in every patch of a mask.

    Parameters
    ----------
    mask : (H, W) ndarray of uint8
        Any value but 0 is tumor.
    patch_px, stride_px : int
        Side of a patch and distance between patches, 1 to 4096. Patch (r, c) covers
        rows ``[r * stride_px, r * stride_px + patch_px)``, columns alike; patches that
        do not fit are left out.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    (rows, columns) ndarray of uint32
        Pixel counts, 0 to ``patch_px ** 2``.

    Raises
    ------
    TypeError
        The mask is not uint8.
    ValueError
        The grid or the shape is wrong.
    her2fast.errors.DeviceError
        This build or this machine lacks `device`.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[1, 1, 0, 0], [1, 0, 0, 255]], np.uint8)
    >>> tumor_count(mask, patch_px=2, stride_px=2).tolist()
    [[3, 1]]
    """
    return _core.tumor_count(as_bytes(mask, "mask"), patch_px, stride_px, device)


def tissue_mask(
    rgb: npt.NDArray[np.uint8],
    *,
    white_rgb: White = (255, 255, 255),
    device: str = "cpu",
) -> npt.NDArray[np.uint8]:
    """Mark tissue by a fixed, local rule on optical density.

    A pixel is tissue where the surrounding 9 x 9 px are dense or textured enough and
    such pixels fill an 11 x 11 box; pen ink and what touches it is not. Pale and
    DAB-heavy tissue stay; empty glass, small dust and ink go. The answer at a pixel
    depends on nothing further away than `TISSUE_REACH_PX`; outside the image is white.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        Meant for 0.5 to 2 um/px.
    white_rgb : tuple of three int
        The color of empty glass, 128 to 255 in every channel.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    (H, W) ndarray of uint8
        1 is tissue, 0 is not.

    Raises
    ------
    TypeError
        The image is not uint8.
    ValueError
        The shape or the white point is wrong.
    her2fast.errors.DeviceError
        This build or this machine lacks `device`.

    Examples
    --------
    >>> import numpy as np
    >>> rgb = np.full((64, 64, 3), 255, np.uint8)
    >>> rgb[16:48, 16:48] = (190, 180, 205)
    >>> mask = tissue_mask(rgb)
    >>> int(mask[32, 32]), int(mask[0, 0])
    (1, 0)
    """
    return _core.tissue_mask(as_bytes(rgb, "rgb"), white_rgb, device)


def focus(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    *,
    patch_px: int,
    stride_px: int,
    device: str = "cpu",
) -> npt.NDArray[np.uint32]:
    """Measure the sharpness of every patch.

    One hundred times the energy of the Laplacian over the energy of the gradient, of
    the smoothed luminance, at the tissue pixels: a ratio, so that contrast cancels and
    pale tissue in focus is not taken for blur.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        Meant for about 1 um/px.
    mask : (H, W) ndarray of uint8
        Only pixels that are not 0 count.
    patch_px, stride_px : int
        Side of a patch and distance between patches, 1 to 4096.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    (rows, columns) ndarray of uint32
        Dimensionless; larger is sharper, below `FOCUS_LIMIT` is out of focus. 0 where
        the patch has too little tissue (a sixteenth of its area) or contrast to tell.

    Raises
    ------
    TypeError
        An array is not uint8.
    ValueError
        The grid or a shape is wrong.
    her2fast.errors.DeviceError
        This build or this machine lacks `device`.

    References
    ----------
    .. [1] Subbarao, Choi and Nikzad (1993), "Focusing techniques", Optical Engineering
           32(11): gradient and Laplacian energies as measures of focus.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.meshgrid(np.arange(64), np.arange(64))
    >>> def waves(period_px):
    ...     wave = np.cos(2 * np.pi * x / period_px) * np.cos(2 * np.pi * y / period_px)
    ...     return np.repeat((200 + 20 * wave).astype(np.uint8)[..., None], 3, axis=2)
    >>> mask = np.ones((64, 64), np.uint8)
    >>> fine = focus(waves(10), mask, patch_px=64, stride_px=64)
    >>> coarse = focus(waves(30), mask, patch_px=64, stride_px=64)
    >>> bool(fine[0, 0] > FOCUS_LIMIT > coarse[0, 0])
    True
    """
    return _core.focus(
        as_bytes(rgb, "rgb"), as_bytes(mask, "mask"), patch_px, stride_px, device
    )


def stain_unmix(
    rgb: npt.NDArray[np.uint8],
    *,
    white_rgb: White = (255, 255, 255),
    stains: npt.ArrayLike | None = None,
    device: str = "cpu",
) -> npt.NDArray[np.float32]:
    """Separate stains by Beer-Lambert unmixing of optical density.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        The image; 0 is read as 1.
    white_rgb : tuple of three int
        The color of empty glass, 1 to 255.
    stains : (3, 3) array_like, optional
        Rows are density vectors (R, G, B) of the stains; `H_DAB` if not given.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    (H, W, 3) ndarray of float32
        Amount of each stain: optical density, base 10, along its vector. With `H_DAB`:
        hematoxylin, DAB, residual. Negative where the color lies outside their cone.

    Raises
    ------
    TypeError
        The image is not uint8.
    ValueError
        The shape is wrong, the stains are dependent or not finite, a white point of 0.
    her2fast.errors.DeviceError
        This build or this machine lacks `device`.

    References
    ----------
    .. [1] Ruifrok and Johnston (2001), "Quantification of histochemical staining by
           color deconvolution", Anal. Quant. Cytol. Histol. 23(4).

    Examples
    --------
    >>> import numpy as np
    >>> brown = np.uint8(np.round(255 * 10 ** -(0.5 * H_DAB[1]))).reshape(1, 1, 3)
    >>> stain_unmix(brown).round(1).tolist() == [[[0.0, 0.5, 0.0]]]
    True
    """
    rows = np.asarray(H_DAB if stains is None else stains, np.float64)
    if rows.shape != (3, 3):
        raise ValueError(f"need stains of shape (3, 3), got {rows.shape}")
    return _core.stain_unmix(as_bytes(rgb, "rgb"), white_rgb, rows.tolist(), device)


def stain_census(
    rgb: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    *,
    white_rgb: White = (255, 255, 255),
    device: str = "cpu",
) -> StainCensus:
    """Count pixels by what they are stained with.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
        The image.
    mask : (H, W) ndarray of uint8
        Tissue mask.
    white_rgb : tuple of three int
        The color of empty glass, 128 to 255 in every channel.
    device : {"cpu", "cuda"}
        Where to run.

    Returns
    -------
    StainCensus
        Counts in px: ``pixels``, ``dark``, ``tissue``, ``stained``, ``eosin``,
        ``h_dab``. Censuses of tiles add; `is_wrong_stain` judges their sum.

    Raises
    ------
    TypeError
        An array is not uint8.
    ValueError
        A shape or the white point is wrong.
    her2fast.errors.DeviceError
        This build or this machine lacks `device`.

    Examples
    --------
    >>> import numpy as np
    >>> pink = np.full((40, 40, 3), (220, 110, 170), np.uint8)
    >>> census = stain_census(pink, np.ones((40, 40), np.uint8))
    >>> census.eosin, is_wrong_stain(census), is_wrong_stain(StainCensus())
    (1600, True, False)
    """
    return _core.stain_census(
        as_bytes(rgb, "rgb"), as_bytes(mask, "mask"), white_rgb, device
    )
