# SPDX-License-Identifier: Apache-2.0
"""Truth per cell: where it lies, its class, and how its membrane is stained."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Floats, Indices


@dataclass(frozen=True)
class CellTable:
    """Tumor cells; all arrays have one length."""

    number: Indices  # of the cell, unique in its scene
    off_um: Floats  # from the pixel named to the true center
    x_um: Floats  # center of the nucleus, or of the cell where it shows none
    y_um: Floats
    kind: npt.NDArray[np.int8]  # class, 0 to 3
    has_nucleus: npt.NDArray[np.bool_]
    completeness: Floats  # stained share of the outline, in [0, 1]
    density: Floats  # optical density of its stained membrane

    def __len__(self) -> int:
        return int(self.number.size)

    def take(self, at: npt.NDArray[np.intp]) -> CellTable:
        """The cells at `at`."""
        return CellTable(
            **{field.name: getattr(self, field.name)[at] for field in fields(self)}
        )


def gather(parts: list[CellTable]) -> CellTable:
    """One row per cell, the pixel nearest to its center, in reading order."""
    joined = CellTable(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(CellTable)
        }
    )
    order = np.lexsort((joined.off_um, joined.number))
    number = joined.number[order]
    first = np.ones(number.size, np.bool_)
    first[1:] = number[1:] != number[:-1]
    kept = joined.take(order[first])
    return kept.take(np.lexsort((kept.x_um, kept.y_um)))


def no_cells() -> CellTable:
    """A table without rows."""
    empty = np.empty(0, np.float32)
    return CellTable(
        number=np.empty(0, np.int64),
        off_um=empty,
        x_um=empty,
        y_um=empty,
        kind=np.empty(0, np.int8),
        has_nucleus=np.empty(0, np.bool_),
        completeness=empty,
        density=empty,
    )
