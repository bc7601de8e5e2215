# SPDX-License-Identifier: Apache-2.0
"""The frame in which a whole slide is looked at in one picture."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["OVERVIEW_PX", "overview_frame"]

#: Longest side of that picture.
OVERVIEW_PX = 1024


def overview_frame(
    size_px: Sequence[int], spacing_um: Sequence[float], *, least_um: float = 0.0
) -> tuple[int, int, float]:
    """Width, height and um/px of a slide's overview.

    Parameters
    ----------
    size_px, spacing_um : (x, y)
        Of level 0.
    least_um : float
        No finer than this.

    Examples
    --------
    >>> overview_frame((80_000, 40_000), (0.25, 0.25))
    (1024, 512, 19.53125)
    >>> overview_frame((4_000, 2_000), (0.25, 0.25), least_um=2.0)
    (500, 250, 2.0)
    """
    sides_um = [size * um for size, um in zip(size_px, spacing_um, strict=True)]
    coarse_um = round(max(*sides_um, *spacing_um) / OVERVIEW_PX, 6)
    coarse_um = max(coarse_um, *spacing_um, least_um)
    width_px, height_px = (max(1, int(side / coarse_um)) for side in sides_um)
    return width_px, height_px, coarse_um
