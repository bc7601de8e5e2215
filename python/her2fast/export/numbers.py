# SPDX-License-Identifier: Apache-2.0
"""Numbers in words that no rounding may carry over a cut."""

from __future__ import annotations

__all__ = ["percent"]

# What a rounded number must not seem to be: none, on the cut, all.
_TELLING_PERCENT = (0, 10, 100)


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
