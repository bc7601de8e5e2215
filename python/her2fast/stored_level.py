# SPDX-License-Identifier: Apache-2.0
"""Says where tiles are read from a level that JPEG compressed at its own spacing.

Compressing takes faint color away; averaging a finer level hides most of that, and a
level stored at about the working spacing is not averaged (docs/design/embedding.md,
"Raw pixels and JPEG").
"""

from __future__ import annotations

from her2fast import _core
from her2fast.errors import SlideError

__all__ = ["stored_level_warning"]


def stored_level_warning(
    slide: _core.Slide,
    slide_spacing_um: tuple[float, float],
    spacing_um: float,
    reading: str,
) -> str | None:
    """What a record warns of; None where nothing is to be said.

    Parameters
    ----------
    slide : Slide
        The native slide.
    slide_spacing_um : (float, float)
        Of level 0, x and y.
    spacing_um : float
        At which tiles are wanted, um/px.
    reading : {"scaled", "exact", "level0"}
        As in `her2fast.open_slide`.

    Returns
    -------
    str or None
        Text where the level that is read is coarser than level 0, coarser than half of
        the wanted spacing, and JPEG that is decoded here. What OpenSlide decodes is not
        known, and nothing is said of it.
    """
    reader = _core.TileReader(slide, slide_spacing_um, workers=1, mode=reading)
    try:
        level, _ = reader.plan(spacing_um)
    except SlideError:
        return None  # no level is fine enough: measuring says so with its code
    level_um = max(slide_spacing_um) * slide.levels[level][4]
    if level == 0 or 2 * level_um <= spacing_um or not slide.can_scale(level, 2):
        return None
    return (
        f"tiles are read from a level stored at {level_um:.3g} um/px, compressed by "
        "JPEG at that spacing: class areas can differ by several percent points from "
        'those of the scanner\'s pixels; reading "level0" is nearer to them'
    )
