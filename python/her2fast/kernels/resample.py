# SPDX-License-Identifier: Apache-2.0
"""Images at another spacing, as slides are read: means by area, exact on any device.

Scoring resamples in the reader, on the CPU; nothing in it calls this. The twin on a GPU
is for tiles that lie there (`her2fast.kernels.jpeg`). The definition of a pixel is in
docs/design/reading.md.
"""

from __future__ import annotations

from fractions import Fraction
from numbers import Rational
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels import arrays, on_cuda
from her2fast.kernels.arrays import AnyArray

__all__ = ["resample", "source_box"]

#: Source pixels per grid pixel, along x and y.
Steps: TypeAlias = tuple[Fraction | int, Fraction | int]
Pair: TypeAlias = tuple[int, int]


@overload
def resample(
    rgb: npt.NDArray[Any],
    *,
    step: Steps,
    size_px: Pair,
    first_px: Pair = ...,
    device: str | None = ...,
) -> npt.NDArray[np.uint8]: ...
@overload
def resample(
    rgb: AnyArray,
    *,
    step: Steps,
    size_px: Pair,
    first_px: Pair = ...,
    device: str | None = ...,
) -> Any: ...
def resample(
    rgb: AnyArray,
    *,
    step: Steps,
    size_px: Pair,
    first_px: Pair = (0, 0),
    device: str | None = None,
) -> Any:
    """Average a batch of images by area onto a coarser (or equal, or finer) grid.

    Along an axis grid pixel i covers the source interval ``[i * step, (i + 1) *
    step)``. Weights are its shares in 65536ths, rounded so that they add up exactly; a
    value is the weighted mean, rounded once, half up. Every device gives the same bits.

    Parameters
    ----------
    rgb : (n, H, W, 3) array of uint8
        The source below the grid pixels: each image begins with the first source pixel
        of `source_box` and holds at least its size. What lies beyond does not count.
    step : tuple of two (int or Fraction)
        Source pixels per grid pixel along x and y, above 0: the wanted spacing over the
        images' own. Exact, for a rounded step drifts.
    size_px : tuple of two int
        Width and height of what comes out, each over at most 2^20 source pixels.
    first_px : tuple of two int
        The grid pixel x, y that comes out first, which says where within a source pixel
        the images begin.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    (n, height, width, 3) array of uint8

    Raises
    ------
    her2fast.errors.ArrayError
        The images are not uint8, or cannot be read where they lie (a TypeError).
    TypeError
        A step that is no fraction, such as a float.
    ValueError
        The shape, a step, a size or a first pixel is wrong; the images are too small.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> rgb = np.repeat(np.uint8([[0, 90, 255]]), 3).reshape(1, 1, 3, 3)
    >>> resample(rgb, step=(Fraction(3, 2), 1), size_px=(2, 1))[0, 0, :, 0].tolist()
    [30, 200]
    """
    x, y = _axes(step, first_px, size_px)
    if arrays.on_cuda(rgb):
        return on_cuda.resample(rgb, x, y, device)
    out = _core.resample(
        arrays.host(rgb, np.uint8, "rgb"), x, y, arrays.host_device(device)
    )
    return arrays.like(rgb, out)


def source_box(
    *, step: Steps, size_px: Pair, first_px: Pair = (0, 0)
) -> tuple[int, int, int, int]:
    """Find the source pixels that `resample` needs for a box of grid pixels.

    Parameters
    ----------
    step, size_px, first_px
        As `resample`.

    Returns
    -------
    tuple of four int
        x, y, width and height in source pixels.

    Raises
    ------
    TypeError, ValueError
        As `resample`.

    Examples
    --------
    >>> source_box(step=(Fraction(3, 2), 2), size_px=(4, 4), first_px=(1, 1))
    (1, 2, 7, 8)
    """
    x, y = _axes(step, first_px, size_px)
    return x.source_first, y.source_first, x.source_px, y.source_px


def _axes(
    step: Steps, first_px: Pair, size_px: Pair
) -> tuple[_core.AxisWeights, _core.AxisWeights]:
    lengths = len(step), len(first_px), len(size_px)
    if lengths != (2, 2, 2):
        raise ValueError(f"need step, first_px and size_px of two each, got {lengths}")
    for value in step:
        if not isinstance(value, Rational):
            raise TypeError(
                f"need step as int or Fraction, which are exact, got "
                f"{type(value).__name__}"
            )
    x, y = (
        _axis(Fraction(value), first, size)
        for value, first, size in zip(step, first_px, size_px, strict=True)
    )
    return x, y


def _axis(step: Fraction, first: int, size: int) -> _core.AxisWeights:
    if not 0 < max(step.numerator, step.denominator) < 2**62:  # what the core can take
        raise ValueError(f"need a step above 0, of terms below 2^62, got {step}")
    return _core.AxisWeights(step.numerator, step.denominator, first, size)
