# SPDX-License-Identifier: Apache-2.0
"""Kernels on images: arrays of uint8 in, one function per operation.

Arrays are NumPy's or another library's, and what comes out is of the kind of the first
(`her2fast.kernels.arrays`).
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast._core import StainCensus, is_wrong_stain
from her2fast.kernels import arrays, on_cuda
from her2fast.kernels.arrays import AnyArray, as_bytes

__all__ = [
    "FOCUS_LIMIT",
    "H_DAB",
    "TISSUE_REACH_PX",
    "StainCensus",
    "focus",
    "is_wrong_stain",
    "normalize_batch",
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
Triple = tuple[float, float, float]


@overload
def tumor_count(
    mask: npt.NDArray[Any], *, patch_px: int, stride_px: int, device: str | None = ...
) -> npt.NDArray[np.uint32]: ...
@overload
def tumor_count(
    mask: AnyArray, *, patch_px: int, stride_px: int, device: str | None = ...
) -> Any: ...
def tumor_count(
    mask: AnyArray, *, patch_px: int, stride_px: int, device: str | None = None
) -> Any:
    """Count the tumor pixels in every patch of a mask.

    Parameters
    ----------
    mask : (H, W) array of uint8 or bool
        Any value but 0 is tumor.
    patch_px, stride_px : int
        Side of a patch and distance between patches, 1 to 4096. Patch (r, c) covers
        rows ``[r * stride_px, r * stride_px + patch_px)``, columns alike; patches that
        do not fit are left out.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (rows, columns) array of uint32
        Pixel counts, 0 to ``patch_px ** 2``.

    Raises
    ------
    her2fast.errors.ArrayError
        The mask is not uint8 or bool, or cannot be read where it lies (a TypeError).
    ValueError
        The grid or the shape is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[1, 1, 0, 0], [1, 0, 0, 255]], np.uint8)
    >>> tumor_count(mask, patch_px=2, stride_px=2).tolist()
    [[3, 1]]
    """
    if arrays.on_cuda(mask):
        return on_cuda.tumor_count(mask, patch_px, stride_px, device)
    counts = _core.tumor_count(
        arrays.mask(mask, "mask"), patch_px, stride_px, arrays.host_device(device)
    )
    return arrays.like(mask, counts)


@overload
def normalize_batch(
    rgb: npt.NDArray[Any],
    *,
    mean: Triple,
    std: Triple,
    half: bool = ...,
    device: str | None = ...,
) -> npt.NDArray[Any]: ...
@overload
def normalize_batch(
    rgb: AnyArray,
    *,
    mean: Triple,
    std: Triple,
    half: bool = ...,
    device: str | None = ...,
) -> Any: ...
def normalize_batch(
    rgb: AnyArray,
    *,
    mean: Triple,
    std: Triple,
    half: bool = False,
    device: str | None = None,
) -> Any:
    """Turn a batch of images into what a model takes.

    ``(v / 255 - mean[c]) / std[c]``, every step rounded to float32 as torch's ToTensor
    and Normalize do, in planes of a channel each.

    Parameters
    ----------
    rgb : (n, H, W, 3) array of uint8
    mean, std : tuple of three float
        Of red, green and blue after division by 255; finite, `std` above 0. Rounded to
        float32 first.
    half : bool
        Float16, rounded once more, instead of float32.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (n, 3, H, W) array of float32 or float16

    Raises
    ------
    her2fast.errors.ArrayError
        The images are not uint8, or cannot be read where they lie (a TypeError).
    ValueError
        The shape, a mean or a deviation is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> rgb = np.array([[[[255, 0, 51]]]], np.uint8)
    >>> normalize_batch(rgb, mean=(0.5, 0.5, 0.2), std=(0.5, 0.5, 1)).ravel().tolist()
    [1.0, -1.0, 0.0]
    """
    if arrays.on_cuda(rgb):
        return on_cuda.normalize_batch(rgb, mean, std, half, device)
    out = _core.normalize_batch(
        arrays.host(rgb, np.uint8, "rgb"), mean, std, half, arrays.host_device(device)
    )
    return arrays.like(rgb, out)


@overload
def tissue_mask(
    rgb: npt.NDArray[Any], *, white_rgb: White = ..., device: str | None = ...
) -> npt.NDArray[np.uint8]: ...
@overload
def tissue_mask(
    rgb: AnyArray, *, white_rgb: White = ..., device: str | None = ...
) -> Any: ...
def tissue_mask(
    rgb: AnyArray,
    *,
    white_rgb: White = (255, 255, 255),
    device: str | None = None,
) -> Any:
    """Mark tissue by a fixed, local rule on optical density.

    A pixel is tissue where the surrounding 9 x 9 px are dense or textured enough and
    such pixels fill an 11 x 11 box; pen ink and what touches it is not. Pale and
    DAB-heavy tissue stay; empty glass, small dust and ink go. The answer at a pixel
    depends on nothing further away than `TISSUE_REACH_PX`; outside the image is white.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        Meant for 0.5 to 2 um/px.
    white_rgb : tuple of three int
        The color of empty glass, 128 to 255 in every channel.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (H, W) array of uint8
        1 is tissue, 0 is not.

    Raises
    ------
    her2fast.errors.ArrayError
        The image is not uint8, or cannot be read where it lies (a TypeError).
    ValueError
        The shape or the white point is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> rgb = np.full((64, 64, 3), 255, np.uint8)
    >>> rgb[16:48, 16:48] = (190, 180, 205)
    >>> mask = tissue_mask(rgb)
    >>> int(mask[32, 32]), int(mask[0, 0])
    (1, 0)
    """
    if arrays.on_cuda(rgb):
        return on_cuda.tissue_mask(rgb, white_rgb, device)
    pixels = as_bytes(rgb, "rgb")
    mask = _core.tissue_mask(pixels, white_rgb, arrays.host_device(device))
    return arrays.like(rgb, mask)


@overload
def focus(
    rgb: npt.NDArray[Any],
    mask: AnyArray,
    *,
    patch_px: int,
    stride_px: int,
    device: str | None = ...,
) -> npt.NDArray[np.uint32]: ...
@overload
def focus(
    rgb: AnyArray,
    mask: AnyArray,
    *,
    patch_px: int,
    stride_px: int,
    device: str | None = ...,
) -> Any: ...
def focus(
    rgb: AnyArray,
    mask: AnyArray,
    *,
    patch_px: int,
    stride_px: int,
    device: str | None = None,
) -> Any:
    """Measure the sharpness of every patch.

    One hundred times the energy of the Laplacian over the energy of the gradient, of
    the smoothed luminance, at the tissue pixels: a ratio, so that contrast cancels and
    pale tissue in focus is not taken for blur.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        Meant for about 1 um/px.
    mask : (H, W) array of uint8 or bool
        Only pixels that are not 0 count.
    patch_px, stride_px : int
        Side of a patch and distance between patches, 1 to 4096.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (rows, columns) array of uint32
        Dimensionless; larger is sharper, below `FOCUS_LIMIT` is out of focus. 0 where
        the patch has too little tissue (a sixteenth of its area) or contrast to tell.

    Raises
    ------
    her2fast.errors.ArrayError
        An array is not uint8, or cannot be read where it lies (a TypeError).
    ValueError
        The grid or a shape is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

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
    arrays.refuse_cuda("focus", rgb, mask)
    sharpness = _core.focus(
        as_bytes(rgb, "rgb"),
        arrays.mask(mask, "mask"),
        patch_px,
        stride_px,
        arrays.host_device(device),
    )
    return arrays.like(rgb, sharpness)


@overload
def stain_unmix(
    rgb: npt.NDArray[Any],
    *,
    white_rgb: White = ...,
    stains: npt.ArrayLike | None = ...,
    device: str | None = ...,
) -> npt.NDArray[np.float32]: ...
@overload
def stain_unmix(
    rgb: AnyArray,
    *,
    white_rgb: White = ...,
    stains: npt.ArrayLike | None = ...,
    device: str | None = ...,
) -> Any: ...
def stain_unmix(
    rgb: AnyArray,
    *,
    white_rgb: White = (255, 255, 255),
    stains: npt.ArrayLike | None = None,
    device: str | None = None,
) -> Any:
    """Separate stains by Beer-Lambert unmixing of optical density.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        The image; 0 is read as 1.
    white_rgb : tuple of three int
        The color of empty glass, 1 to 255.
    stains : (3, 3) array_like, optional
        Rows are density vectors (R, G, B) of the stains; `H_DAB` if not given.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (H, W, 3) array of float32
        Amount of each stain: optical density, base 10, along its vector. With `H_DAB`:
        hematoxylin, DAB, residual. Negative where the color lies outside their cone.

    Raises
    ------
    her2fast.errors.ArrayError
        The image is not uint8, or cannot be read where it lies (a TypeError).
    ValueError
        The shape is wrong, the stains are dependent or not finite, a white point of 0.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

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
    if arrays.on_cuda(rgb):
        return on_cuda.stain_unmix(rgb, white_rgb, rows.tolist(), device)
    pixels = as_bytes(rgb, "rgb")
    amounts = _core.stain_unmix(
        pixels, white_rgb, rows.tolist(), arrays.host_device(device)
    )
    return arrays.like(rgb, amounts)


def stain_census(
    rgb: AnyArray,
    mask: AnyArray,
    *,
    white_rgb: White = (255, 255, 255),
    device: str | None = None,
) -> StainCensus:
    """Count pixels by what they are stained with.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        The image.
    mask : (H, W) array of uint8 or bool
        Tissue mask.
    white_rgb : tuple of three int
        The color of empty glass, 128 to 255 in every channel.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    StainCensus
        Counts in px: ``pixels``, ``dark``, ``tissue``, ``stained``, ``eosin``,
        ``h_dab``. Censuses of tiles add; `is_wrong_stain` judges their sum.

    Raises
    ------
    her2fast.errors.ArrayError
        An array is not uint8, or cannot be read where it lies (a TypeError).
    ValueError
        A shape or the white point is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> pink = np.full((40, 40, 3), (220, 110, 170), np.uint8)
    >>> census = stain_census(pink, np.ones((40, 40), np.uint8))
    >>> census.eosin, is_wrong_stain(census), is_wrong_stain(StainCensus())
    (1600, True, False)
    """
    arrays.refuse_cuda("stain_census", rgb, mask)
    return _core.stain_census(
        as_bytes(rgb, "rgb"),
        arrays.mask(mask, "mask"),
        white_rgb,
        arrays.host_device(device),
    )
