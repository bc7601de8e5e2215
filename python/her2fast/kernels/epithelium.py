# SPDX-License-Identifier: Apache-2.0
"""Superpixels, what they are told by, and the decision of a support vector machine.

Together they tell epithelium from the rest of a slide (docs/design/epithelium.md).
Research use only.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels import arrays
from her2fast.kernels.arrays import AnyArray
from her2fast.kernels.image import White

__all__ = [
    "COLOR_BINS",
    "COLOR_PLANES",
    "FEATURE_ONE",
    "PATTERN_BINS",
    "SUPERPIXEL_FEATURES",
    "SUPERPIXEL_RULE",
    "local_patterns",
    "superpixel_features",
    "superpixel_roots",
    "superpixels",
    "svm_decision",
]

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Counts = npt.NDArray[np.uint32]
Features = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]

#: Seven planes of 32 bins are the 224 of color, ten patterns follow.
COLOR_PLANES: int = _core.COLOR_PLANES
COLOR_BINS: int = _core.COLOR_BINS
PATTERN_BINS: int = _core.PATTERN_BINS
SUPERPIXEL_FEATURES: int = _core.SUPERPIXEL_FEATURES
#: The feature of a bin that holds its whole plane.
FEATURE_ONE: int = _core.FEATURE_ONE
#: Defaults of `superpixels`: size_px, compactness, iterations.
SUPERPIXEL_RULE: dict[str, float] = dict(_core.SUPERPIXEL_RULE)


@overload
def superpixels(
    rgb: npt.NDArray[Any],
    *,
    size_px: int = ...,
    compactness: float = ...,
    iterations: int = ...,
    device: str | None = ...,
) -> tuple[Labels, int]: ...
@overload
def superpixels(
    rgb: AnyArray,
    *,
    size_px: int = ...,
    compactness: float = ...,
    iterations: int = ...,
    device: str | None = ...,
) -> tuple[Any, int]: ...
def superpixels(
    rgb: AnyArray,
    *,
    size_px: int = int(SUPERPIXEL_RULE["size_px"]),
    compactness: float = SUPERPIXEL_RULE["compactness"],
    iterations: int = int(SUPERPIXEL_RULE["iterations"]),
    device: str | None = None,
) -> tuple[Any, int]:
    """Part a picture into superpixels of similar color (SLIC).

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        1 to 4096 px a side.
    size_px : int
        Side of the square that a superpixel would be, 2 to 64.
    compactness : float
        How much `size_px` of distance weighs against CIELAB, 0.01 to 1000.
    iterations : int
        1 to 100.

    Returns
    -------
    (H, W) array of int32
        Labels 0 to count - 1 in the order of first pixels; each 4-connected.
    int
        The count.

    Raises
    ------
    ValueError
        Shapes or settings out of range.

    References
    ----------
    Achanta et al., IEEE TPAMI 2012;34:2274-2282.

    Examples
    --------
    >>> import numpy as np
    >>> labels, count = superpixels(np.full((32, 48, 3), 200, np.uint8), size_px=16)
    >>> count, np.bincount(labels.ravel()).tolist()
    (6, [289, 272, 255, 255, 240, 225])
    """
    arrays.refuse_cuda("superpixels", rgb)
    labels, count = _core.superpixels(
        arrays.host(rgb, np.uint8, "rgb"),
        size_px,
        compactness,
        iterations,
        arrays.host_device(device),
    )
    return arrays.like(rgb, labels), count


@overload
def local_patterns(gray: npt.NDArray[Any], *, device: str | None = ...) -> Bytes: ...
@overload
def local_patterns(gray: AnyArray, *, device: str | None = ...) -> Any: ...
def local_patterns(gray: AnyArray, *, device: str | None = None) -> Any:
    """Uniform local binary patterns, 8 neighbors at a distance of 1 px.

    Parameters
    ----------
    gray : (H, W) array of uint8
        Beyond it is 0.

    Returns
    -------
    (H, W) array of uint8
        0 to 8: so many neighbors, in one arc, are as light as the pixel or lighter; 9:
        they are in several arcs.

    References
    ----------
    Ojala et al., IEEE TPAMI 2002;24:971-987.

    Examples
    --------
    >>> import numpy as np
    >>> int(local_patterns(np.array([[9, 1, 1], [1, 5, 1], [1, 1, 1]], np.uint8))[1, 1])
    1
    """
    arrays.refuse_cuda("local_patterns", gray)
    patterns = _core.local_patterns(
        arrays.host(gray, np.uint8, "gray"), arrays.host_device(device)
    )
    return arrays.like(gray, patterns)


@overload
def superpixel_features(
    rgb: npt.NDArray[Any],
    labels: AnyArray,
    count: int,
    *,
    white: White = ...,
    device: str | None = ...,
) -> Counts: ...
@overload
def superpixel_features(
    rgb: AnyArray,
    labels: AnyArray,
    count: int,
    *,
    white: White = ...,
    device: str | None = ...,
) -> Any: ...
def superpixel_features(
    rgb: AnyArray,
    labels: AnyArray,
    count: int,
    *,
    white: White = (255, 255, 255),
    device: str | None = None,
) -> Any:
    """Pixels of every superpixel by color and by pattern.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
    labels : (H, W) array of int32
        0 to count - 1.
    white : (int, int, int)
        Color of empty glass, for the stains.

    Returns
    -------
    (count, 234) array of uint32
        32 bins each of R, G, B, a*, b*, hematoxylin and DAB, then 10 patterns of the
        luminance (csrc/include/her2fast/superpixel_features.h).

    Raises
    ------
    ValueError
        Shapes, the white point or a label out of range.
    """
    arrays.refuse_cuda("superpixel_features", rgb, labels)
    counts = _core.superpixel_features(
        arrays.host(rgb, np.uint8, "rgb"),
        arrays.host(labels, np.int32, "labels"),
        count,
        white,
        arrays.host_device(device),
    )
    return arrays.like(rgb, counts)


@overload
def superpixel_roots(
    counts: npt.NDArray[Any], *, device: str | None = ...
) -> Features: ...
@overload
def superpixel_roots(counts: AnyArray, *, device: str | None = ...) -> Any: ...
def superpixel_roots(counts: AnyArray, *, device: str | None = None) -> Any:
    """Counts as features: roots of shares of a plane, 2560 is a share of 1.

    Parameters
    ----------
    counts : (n, 234) array of uint32
        From `superpixel_features`.

    Returns
    -------
    (n, 234) array of int16
        0 to `FEATURE_ONE`.
    """
    arrays.refuse_cuda("superpixel_roots", counts)
    features = _core.superpixel_roots(
        arrays.host(counts, np.uint32, "counts"), arrays.host_device(device)
    )
    return arrays.like(counts, features)


@overload
def svm_decision(
    features: npt.NDArray[Any],
    vectors: AnyArray,
    coefficients: AnyArray,
    *,
    intercept: float,
    gamma: float,
    device: str | None = ...,
) -> Doubles: ...
@overload
def svm_decision(
    features: AnyArray,
    vectors: AnyArray,
    coefficients: AnyArray,
    *,
    intercept: float,
    gamma: float,
    device: str | None = ...,
) -> Any: ...
def svm_decision(
    features: AnyArray,
    vectors: AnyArray,
    coefficients: AnyArray,
    *,
    intercept: float,
    gamma: float,
    device: str | None = None,
) -> Any:
    """Decision of a support vector machine with an RBF kernel.

    Parameters
    ----------
    features : (n, d) array of int16
        0 to 2560; d up to 320.
    vectors : (m, d) array of int16
        Support vectors, alike.
    coefficients : (m,) array of float64
        Of the vectors, with the sign of their class.
    intercept : float
    gamma : float
        Over 0, of the features as they are given.

    Returns
    -------
    (n,) array of float64
        Above 0: the second class; the same bits on every machine, within 1e-10 times
        the sum of the coefficients' sizes of exact.

    Raises
    ------
    ValueError
        Shapes, values or gamma out of range.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.zeros((1, 3), np.int16)
    >>> svm_decision(one, one, np.array([2.0]), intercept=-0.5, gamma=0.1)
    array([1.5])
    """
    arrays.refuse_cuda("svm_decision", features, vectors, coefficients)
    decisions = _core.svm_decision(
        arrays.host(features, np.int16, "features"),
        arrays.host(vectors, np.int16, "vectors"),
        arrays.host(coefficients, np.float64, "coefficients"),
        intercept,
        gamma,
        arrays.host_device(device),
    )
    return arrays.like(features, decisions)
