# SPDX-License-Identifier: Apache-2.0
"""Kernels of training: patches of many slides in one table, slide labels as targets.

A table is four arrays: logits and tumor pixels per patch, offsets and labels per slide;
slide i holds the patches ``[offsets[i], offsets[i + 1])``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels import arrays, on_cuda
from her2fast.kernels.arrays import AnyArray

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]


class PatchAction(enum.IntEnum):
    """What training does with a patch in this epoch."""

    NONE = 0
    UPPER = 1
    LOWER = 2


@dataclass(frozen=True)
class FractionLimits:
    """Shares of tumor area that a slide's label asks for, in thousandths (Eq. 3).

    Parameters
    ----------
    lower_permille : four int
        A slide of label Y needs at least ``lower_permille[Y]`` of class Y; 0 is off.
    upper_permille : 4 x 4 int
        It must have less than ``upper_permille[Y][c]`` of class c; 1001 is off. Only
        c > Y is read.

    Raises
    ------
    ValueError
        A limit is out of its range: 0 to 1000, and 1 to 1001.

    Examples
    --------
    >>> FractionLimits().lower_permille
    (700, 100, 100, 100)
    """

    lower_permille: tuple[int, ...] = tuple(_core.FractionLimits.pham().lower_permille)
    upper_permille: tuple[tuple[int, ...], ...] = tuple(
        tuple(row) for row in _core.FractionLimits.pham().upper_permille
    )

    def __post_init__(self) -> None:
        self._native()

    def _native(self) -> _core.FractionLimits:
        if [len(self.lower_permille), *map(len, self.upper_permille)] != [4] * 5:
            raise ValueError("need four lower limits and 4 x 4 upper limits")
        return _core.FractionLimits(self.lower_permille, self.upper_permille)


@dataclass(frozen=True)
class ConstraintSelection:
    """The training set of an epoch; arrays of the kind of the logits.

    Attributes
    ----------
    action : (n,) ndarray of uint8
        `PatchAction` of every patch.
    class_id : (n,) ndarray of int8
        The class to leave (UPPER) or to reach (LOWER); -1 for NONE.
    admissible : (n,) ndarray of uint8
        Bit c is set where class c is a target: a set for UPPER, the label for LOWER.
    class_px : (slides, 4) ndarray of int64
        Tumor pixels by predicted class.
    excess_px, pushed_px : (slides, 4) ndarray of int64
        Pixels of a class that must leave at least, 0 where the limit holds; and pixels
        selected for it (some of them go to the slide's label instead).
    missing_px, pulled_px : (slides,) ndarray of int64
        Pixels that the label lacks, 0 where the limit holds; and pixels selected.
    reach : (slides,) ndarray of int32
        How many classes away these come from: 1, or more where that did not suffice.
    """

    action: Bytes
    class_id: npt.NDArray[np.int8]
    admissible: Bytes
    class_px: Longs
    excess_px: Longs
    missing_px: Longs
    pushed_px: Longs
    pulled_px: Longs
    reach: npt.NDArray[np.int32]


@dataclass(frozen=True)
class LogitCalibration:
    """Four values for the logits, and what they cost.

    Attributes
    ----------
    mode : str
        "scale" or "bias".
    values : tuple of four float
        Factors of geometric mean 1, or offsets of mean 0.
    loss, identity_loss : float
        `calibration_loss` with these values, and without calibration; dimensionless.
    broken_slides : int
        Slides that break a limit with these values, the margin left aside.
    sweeps : int
        Lines searched.
    """

    mode: str
    values: tuple[float, float, float, float]
    loss: float
    identity_loss: float
    broken_slides: int
    sweeps: int

    @property
    def scale(self) -> tuple[float, ...]:
        """Factors of a package's calibration."""
        return self.values if self.mode == "scale" else (1.0,) * 4

    @property
    def bias(self) -> tuple[float, ...]:
        """Offsets of a package's calibration."""
        return self.values if self.mode == "bias" else (0.0,) * 4


def _table(
    logits: AnyArray,
    tumor_px: AnyArray,
    offsets: npt.ArrayLike,
    labels: npt.ArrayLike,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32], Longs, Longs]:
    """Check the types here; shapes and values are the core's business."""
    return (
        arrays.host(logits, np.float32, "logits"),
        arrays.host(tumor_px, np.uint32, "tumor_px"),
        arrays.integers(offsets, "offsets"),
        arrays.integers(labels, "labels"),
    )


def constraint_select(
    logits: AnyArray,
    tumor_px: AnyArray,
    offsets: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    limits: FractionLimits | None = None,
    neighbors: str = "neighbors",
    workers: int = 2,
    device: str | None = None,
) -> ConstraintSelection:
    """Select the patches that break the limits of their slide's label.

    A class above the label with too much tumor gives up its least sure patches until
    what remains is below the limit. A label with too little gets the patches of the
    next classes that are most like it; where they do not suffice all of them, then
    those further away. A patch in both sets goes to the label.

    Parameters
    ----------
    logits : (n, 4) array of float32
        Finite. The highest is the prediction, the lowest class where equal.
    tumor_px : (n,) array of uint32
        Weights: tumor pixels.
    offsets : (slides + 1,) array_like of int
        Slide i holds the patches ``[offsets[i], offsets[i + 1])``.
    labels : (slides,) array_like of int
        0 to 3.
    limits : FractionLimits, optional
        The paper's if not given.
    neighbors : {"neighbors", "complement", "lower"}
        What a patch pushed from class c may become: c - 1 or c + 1, anything else, or
        c - 1 alone.
    workers : int
        Threads, 1 to 1024; they do not change the result.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    ConstraintSelection

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        A shape or a value is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    References
    ----------
    .. [1] Pham et al. (2023), Comput Med Imaging Graph 108:102261, Eq. 9, 12 to 14.

    Examples
    --------
    A slide of label 1+ with 50, 36 and 14 % of 0, 1+ and 2+, in patches of 1 %:

    >>> import numpy as np
    >>> logits = 4 * np.eye(4, dtype=np.float32)[[0] * 50 + [1] * 36 + [2] * 14]
    >>> logits[86:, 2] += np.arange(14)
    >>> found = constraint_select(logits, np.full(100, 100, np.uint32), [0, 100], [1])
    >>> found.class_px[0].tolist(), found.excess_px[0].tolist()
    ([5000, 3600, 1400, 0], [0, 0, 401, 0])
    >>> np.flatnonzero(found.action).tolist(), found.class_id[86].item()
    ([86, 87, 88, 89, 90], 2)
    """
    native = (limits or FractionLimits())._native()
    if arrays.on_cuda(logits, tumor_px):
        return ConstraintSelection(
            **on_cuda.constraint_select(
                logits,
                tumor_px,
                arrays.integers(offsets, "offsets"),
                arrays.integers(labels, "labels"),
                native,
                neighbors,
                device,
            )
        )
    found = _core.constraint_select(
        *_table(logits, tumor_px, offsets, labels),
        native,
        neighbors,
        workers,
        arrays.host_device(device),
    )
    return ConstraintSelection(**arrays.like_all(logits, found))


def calibration_loss(
    logits: AnyArray,
    tumor_px: AnyArray,
    offsets: npt.ArrayLike,
    labels: npt.ArrayLike,
    values: Sequence[float],
    *,
    mode: str = "scale",
    limits: FractionLimits | None = None,
    margin_permille: int = 0,
    workers: int = 2,
) -> tuple[float, int]:
    """Measure how far the class fractions miss the limits of the slides' labels.

    Parameters
    ----------
    logits, tumor_px, offsets, labels
        As in `constraint_select`.
    values : four float
        Factors or offsets.
    mode : {"scale", "bias"}
        What `values` do to the logits.
    limits : FractionLimits, optional
        The paper's if not given.
    margin_permille : int
        Lower limits are raised and upper ones lowered by this, 0 to 99.
    workers : int
        Threads, 1 to 1024.

    Returns
    -------
    loss : float
        Sum over slides of what is missing and what is in excess, as fractions.
    broken_slides : int
        Slides that break a limit, the margin left aside.

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        A shape or a value is wrong.

    References
    ----------
    .. [1] Pham et al. (2023), Comput Med Imaging Graph 108:102261, Eq. 18 to 20.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1]]
    >>> px = np.full(5, 10, np.uint32)
    >>> loss, broken = calibration_loss(logits, px, [0, 5], [0], (1, 1, 1, 1))
    >>> round(loss, 6), broken
    (0.1, 1)
    """
    arrays.refuse_cuda("calibration_loss", logits, tumor_px)
    return _core.calibration_loss(
        *_table(logits, tumor_px, offsets, labels),
        list(values),
        (limits or FractionLimits())._native(),
        mode,
        margin_permille,
        workers,
    )


def logit_calibrate(
    logits: AnyArray,
    tumor_px: AnyArray,
    offsets: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    mode: str = "scale",
    initial: Sequence[Sequence[float]] = (),
    limits: FractionLimits | None = None,
    margin_permille: int = 0,
    starts: int = 12,
    seed: int = 0,
    search_patches: int = 60_000,
    workers: int = 2,
    device: str | None = None,
) -> LogitCalibration:
    """Find four values for the logits that make slides obey their labels.

    Exact line searches along single classes and pairs of classes, from several starts.
    The result's loss is never above that of no calibration, nor of any of `initial`.

    Parameters
    ----------
    logits, tumor_px, offsets, labels
        As in `constraint_select`. Logits have no fixed origin, which factors feel:
        log-softmax in their place is another, often better, model.
    mode : {"scale", "bias"}
        Factors on the logits (the paper), or offsets.
    initial : sequence of four float each
        Starting points: finite, and above 0 for factors.
    limits : FractionLimits, optional
        The paper's if not given.
    margin_permille : int
        Room inside the limits, 0 to 99; 10 left fewer new slides wrong in trials.
    starts : int
        Descents in all, 1 to 10000: no change, `initial`, the rest random.
    seed : int
        Of the random starts and the sample, 0 to 2**64 - 1.
    search_patches : int
        With more patches than this the starts descend on a sample of about this many,
        and the best go on with all.
    workers : int
        Threads, 1 to 1024; they do not change the result.
    device : {"cpu", "cuda"}, optional
        Where to run; where the arrays lie if not given.

    Returns
    -------
    LogitCalibration

    Raises
    ------
    her2fast.errors.ArrayError
        An array has another type, or cannot be read where it lies (a TypeError).
    ValueError
        A shape or a value is wrong.
    her2fast.errors.DeviceError
        `device` is not there, or the arrays lie elsewhere.

    References
    ----------
    .. [1] Pham et al. (2023), Comput Med Imaging Graph 108:102261, Eq. 16 to 20.

    Examples
    --------
    Class 1 is called too often on a slide of label 0:

    >>> import numpy as np
    >>> logits = np.full((10, 4), -5, np.float32)
    >>> logits[:, 0] = 2
    >>> logits[:4, 1] = [2.5, 3, 3.5, 4]
    >>> px = np.full(10, 100, np.uint32)
    >>> found = logit_calibrate(logits, px, [0, 10], [0], mode="bias")
    >>> found.identity_loss > 0, found.loss, found.broken_slides
    (True, 0.0, 0)
    """
    arrays.refuse_cuda("logit_calibrate", logits, tumor_px)
    found = _core.logit_calibrate(
        *_table(logits, tumor_px, offsets, labels),
        [list(values) for values in initial],
        (limits or FractionLimits())._native(),
        mode,
        margin_permille,
        starts,
        seed,
        search_patches,
        workers,
        arrays.host_device(device),
    )
    return LogitCalibration(mode=mode, **found)
