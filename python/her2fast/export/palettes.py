# SPDX-License-Identifier: Apache-2.0
"""The colors of the classes; defined here alone.

A class is always written as well: color alone is lost on one reader in twelve.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DEFAULT_PALETTE", "PALETTES", "Color", "class_colors", "hex_color"]

Color = tuple[int, int, int]

DEFAULT_PALETTE = "qupath"

#: QuPath's colors of Negative, 1+, 2+, 3+ are what its users read without thinking;
#: Pham et al. (Fig. 12) print green, blue, pink, yellow, here in Okabe and Ito's tones.
PALETTES: dict[str, dict[str, Color]] = {
    "qupath": {
        "0": (90, 90, 180),
        "1+": (255, 215, 0),
        "2+": (225, 150, 50),
        "3+": (200, 50, 50),
    },
    "pham": {
        "0": (0, 158, 115),
        "1+": (0, 114, 178),
        "2+": (204, 121, 167),
        "3+": (240, 228, 66),
    },
}

# For packages with other classes, in the order of the classes.
_OTHERS: tuple[Color, ...] = (
    (90, 90, 180),
    (200, 50, 50),
    (0, 158, 115),
    (225, 150, 50),
    (204, 121, 167),
    (86, 180, 233),
    (120, 94, 60),
    (110, 110, 110),
)


def class_colors(
    class_names: Sequence[str], palette: str = DEFAULT_PALETTE
) -> tuple[Color, ...]:
    """Name a color for each class.

    Raises
    ------
    ValueError
        An unknown palette.

    Examples
    --------
    >>> class_colors(["0", "3+"])
    ((90, 90, 180), (200, 50, 50))
    """
    if palette not in PALETTES:
        raise ValueError(f"need a palette of {', '.join(PALETTES)}, got {palette!r}")
    colors = PALETTES[palette]
    return tuple(
        colors.get(name, _OTHERS[index % len(_OTHERS)])
        for index, name in enumerate(class_names)
    )


def hex_color(color: Color) -> str:
    """Write a color for HTML.

    Examples
    --------
    >>> hex_color((90, 90, 180))
    '#5a5ab4'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)
