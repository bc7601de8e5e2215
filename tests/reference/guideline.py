# SPDX-License-Identifier: Apache-2.0
"""The guideline rules in fractions: docs/decisions/guidelines.md, read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

TENTH = Fraction(1, 10)
POINT = Fraction(1, 100)


def is_present(share: Fraction, floor_percent: int, patches: int | None) -> bool:
    """Whether a share of the tumor counts at all."""
    if share == 0:
        return False
    if floor_percent == 0:
        return True
    return share >= Fraction(floor_percent, 100) and (patches is None or patches >= 3)


def guideline(
    areas: Sequence[int],
    rule_set: str,
    floor_percent: int = 1,
    patches: Sequence[int] | None = None,
) -> tuple[int | None, tuple[str, ...]]:
    """The score (None without tumor) and the flags, in their order."""
    total = sum(areas)
    if total == 0:
        return None, ()
    share = [Fraction(area, total) for area in areas]
    above = [sum(share[c:], Fraction()) for c in range(4)]
    present = [
        is_present(share[c], floor_percent, None if patches is None else patches[c])
        for c in range(4)
    ]

    table_1 = max((c for c in (1, 2, 3) if share[c] >= TENTH), default=0)
    highest = max((c for c in (1, 2, 3) if present[c]), default=0)
    section_6_1 = max(table_1, highest - 1)
    if rule_set == "pham-2022":
        score, compared = table_1, share
    elif rule_set == "pham-2022-heterogeneous":
        score, compared = section_6_1, share
    elif rule_set == "gastric-2016":
        score = max((c for c in (1, 2, 3) if above[c] >= TENTH), default=0)
        compared = above
    else:
        score = max((c for c in (1, 2, 3) if above[c] > TENTH), default=0)
        if present[3]:
            score = max(score, 2)
        compared = above

    flags = []
    some_low = None if patches is None else patches[1] + patches[2]
    if score == 0 and is_present(share[1] + share[2], floor_percent, some_low):
        flags.append("ULTRALOW")
    if score < 2 and present[2]:
        flags.append("GUIDELINE_GAP")
    if any(abs(compared[c] - TENTH) <= POINT for c in (1, 2, 3)):
        flags.append("BORDERLINE")
    if section_6_1 != table_1:
        flags.append("HETEROGENEOUS")
    return score, tuple(flags)
