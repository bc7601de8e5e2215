# SPDX-License-Identifier: Apache-2.0
"""Numbers in words that no rounding may carry over a cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["percent", "probabilities"]

# What a rounded number must not seem to be: none, on the cut, all.
_TELLING_PERCENT = (0, 10, 100)
# Six digits say all that a model's output holds, and hide the last bits in which
# mathematical libraries differ.
_PROBABILITY_DIGITS = 6


def percent(part: int, whole: int) -> str:
    """Write a share with two decimals, or as many as keep it off 0, 10 and 100 %.

    Examples
    --------
    >>> percent(1, 3), percent(1, 10), percent(999_999, 10_000_000), percent(0, 0)
    ('33.33 %', '10.00 %', '9.99999 %', '-')
    """
    if whole <= 0:
        return "-"
    digits, on_cut = 2, True
    while on_cut:  # ends: a share that differs from a cut does so in some digit
        unit = 10**digits
        rounded = (2 * 100 * part * unit + whole) // (2 * whole)
        looks = rounded % unit == 0 and rounded // unit in _TELLING_PERCENT
        on_cut = looks and 100 * part * unit != rounded * whole
        text = f"{rounded // unit}.{rounded % unit:0{digits}d} %"
        digits += 1
    return text


def probabilities(logits: Sequence[float]) -> list[float] | None:
    """Softmax of one patch's logits, six digits; None where it was not classified.

    Examples
    --------
    >>> probabilities([0.0, 0.0]), probabilities([float("nan")] * 2)
    ([0.5, 0.5], None)
    """
    highest = max(logits, default=0.0)
    if not all(map(math.isfinite, logits)):
        return None
    powers = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(powers)
    return [round(power / total, _PROBABILITY_DIGITS) for power in powers]
