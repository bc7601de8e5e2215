# SPDX-License-Identifier: Apache-2.0
"""The planes that everything but tumor is drawn on, and the names of tissues."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from her2fast.phantom.fields import Floats


class Tissue(IntEnum):
    """What lies at a pixel; the numbers of `Scene.tissue`."""

    GLASS = 0
    STROMA = 1
    TUMOR = 2
    BENIGN = 3  # epithelium of ducts, acini and glands that is no tumor
    FAT = 4
    MUSCLE = 5
    LYMPHOID = 6
    VESSEL = 7
    BLOOD = 8
    NECROSIS = 9
    MUCIN = 10
    CALCIFICATION = 11
    PIGMENT = 12
    LUMEN = 13


@dataclass(frozen=True)
class Ground:
    """Stain amounts and tissues; drawn on in place. All planes are (h, w)."""

    amounts: Floats  # (4, h, w): hematoxylin, DAB, pigment, blood; optical density
    tissue: npt.NDArray[np.uint8]  # values of Tissue

    @staticmethod
    def empty(shape: tuple[int, int]) -> Ground:
        """Unstained stroma all over."""
        return Ground(
            np.zeros((4, *shape), np.float32),
            np.full(shape, Tissue.STROMA, np.uint8),
        )

    @property
    def hematoxylin(self) -> Floats:
        """Plane 0."""
        plane: Floats = self.amounts[0]
        return plane

    @property
    def dab(self) -> Floats:
        """Plane 1."""
        plane: Floats = self.amounts[1]
        return plane

    @property
    def pigment(self) -> Floats:
        """Plane 2: grey-brown, absorbs evenly."""
        plane: Floats = self.amounts[2]
        return plane

    @property
    def blood(self) -> Floats:
        """Plane 3: hemoglobin, tan."""
        plane: Floats = self.amounts[3]
        return plane
