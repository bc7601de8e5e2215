# SPDX-License-Identifier: Apache-2.0
"""The patches of a decision and where they lie in level-0 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Outcomes", "PatchGrid"]

Integers = npt.NDArray[np.int64]

_PICOMETERS = 1_000_000  # the core holds spacings as whole picometers (geometry.h)


@dataclass(frozen=True)
class PatchGrid:
    """Patches of `patch_px` at `spacing_um`, anchored at the slide's level-0 origin.

    Corners are floors in level-0 pixels: neighbors share them, and none overlap.
    """

    patch_px: int
    spacing_um: float
    slide_spacing_um: tuple[float, float]

    def __post_init__(self) -> None:
        spacings = (self.spacing_um, *self.slide_spacing_um)
        if self.patch_px < 1 or not all(0 < value < 1e6 for value in spacings):
            raise ValueError(f"need a patch size and spacings above 0, got {self}")

    def x0_px(self, columns: npt.ArrayLike) -> Integers:
        """Left edges of columns; the right edge is the next column's left."""
        return self._edges(columns, self.slide_spacing_um[0])

    def y0_px(self, rows: npt.ArrayLike) -> Integers:
        """Top edges of rows."""
        return self._edges(rows, self.slide_spacing_um[1])

    def _edges(self, indices: npt.ArrayLike, slide_spacing_um: float) -> Integers:
        step = self.patch_px * round(self.spacing_um * _PICOMETERS)
        whole = np.asarray(indices, np.int64) * step
        edges: Integers = whole // round(slide_spacing_um * _PICOMETERS)
        return edges


@dataclass(frozen=True)
class Outcomes:
    """What `_core.patch_outcomes` returns, checked once; arrays of one length n."""

    column: Integers
    row: Integers
    tumor_px: Integers
    kept: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.int32]  # -1 where not kept
    logits: npt.NDArray[np.float64]  # (n, classes), NaN rows where not classified

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcomes:
        """Take the arrays as the core hands them out.

        Raises
        ------
        ValueError
            Lengths that differ, or logits that are no table.
        """
        outcomes = cls(
            np.asarray(values["column"], np.int64),
            np.asarray(values["row"], np.int64),
            np.asarray(values["tumor_px"], np.int64),
            np.asarray(values["kept"], np.bool_),
            np.asarray(values["predicted"], np.int32),
            np.asarray(values["logits"], np.float64),
        )
        n = len(outcomes.column)
        vectors = (outcomes.row, outcomes.tumor_px, outcomes.kept, outcomes.predicted)
        if any(v.shape != (n,) for v in vectors) or outcomes.logits.ndim != 2:
            raise ValueError(f"need {n} patches in every array and (n, classes) logits")
        if len(outcomes.logits) != n:
            raise ValueError(f"need {n} rows of logits, got {len(outcomes.logits)}")
        return outcomes

    def of_class(self, index: int) -> npt.NDArray[np.bool_]:
        """Mark the kept patches that are predicted as one class."""
        mask: npt.NDArray[np.bool_] = self.kept & (self.predicted == index)
        return mask
