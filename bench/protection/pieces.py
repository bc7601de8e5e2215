# SPDX-License-Identifier: Apache-2.0
"""The price of suspicion: slides of several pieces that have no control on them."""

from __future__ import annotations

from collections.abc import Iterator

from cases import SEED, Case, base

from her2fast.phantom.slide import draw_slide


def piece_cases(index: int) -> Iterator[Case]:
    """Four cores, or three strips, of one tumor of each score in turn."""
    outline, pieces = (("cores", 4), ("biopsy", 3))[index // 4 % 2]
    spec = base(
        index,
        slide={"width_um": 2200.0, "height_um": 2200.0},
        tumor={"free_share": 0.15},
        tissue={"outline": outline, "pieces": pieces, "core_um": 800.0},
    )
    yield Case("pieces", index, outline, draw_slide(spec, SEED + 3, index))
