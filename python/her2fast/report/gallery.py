# SPDX-License-Identifier: Apache-2.0
"""Which patches a report pictures: the surest, the middle, the least sure of a class.

The choice is a pure function of the decision's patches: no random number, no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.export.class_map import CLASS_WORDS
from her2fast.export.names import printable
from her2fast.export.numbers import probabilities
from her2fast.export.palettes import class_colors, hex_color
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.report.pictures import (
    Pictures,
    View,
    jpeg_url,
    missing_words,
)

__all__ = ["MAX_PICTURES", "Choice", "Gallery", "choose_patches", "gallery_view"]

#: In all; six of each of four classes.
MAX_PICTURES = 24
_EACH = 6
# Hides the last bits in which mathematical libraries differ.
_DIGITS = 6


@dataclass(frozen=True)
class Choice:
    """One patch of the gallery."""

    class_index: int
    column: int
    row: int
    #: "surest", "middle" or "least sure" of its class.
    place: str
    #: Per class, as in the patch table.
    shares: tuple[float, ...]
    #: Level-0 px of its upper left corner, and of its lower right one (not in it).
    x0_px: int
    y0_px: int
    x1_px: int
    y1_px: int


def choose_patches(outcomes: Outcomes, grid: PatchGrid) -> list[Choice]:
    """Choose up to `MAX_PICTURES` patches that count, as many of each class.

    A class's patches stand by the log-odds of their class, the highest first, then by
    row and column. Of six, two come from each end and two from the middle; a class
    with no more patches than that shows all.

    Returns
    -------
    list of Choice
        Class by class, in the order of the classes; within one the surest first.
    """
    classes = outcomes.logits.shape[1]
    each = min(_EACH, max(1, MAX_PICTURES // max(1, classes)))
    chosen: list[Choice] = []
    for index in range(min(classes, MAX_PICTURES)):
        members = np.flatnonzero(outcomes.of_class(index))
        sureness = _log_odds(outcomes.logits[members], index).round(_DIGITS)
        order = np.lexsort((outcomes.column[members], outcomes.row[members], -sureness))
        ranked = members[order]
        chosen += [
            _choice(outcomes, grid, index, ranked, rank)
            for rank in _ranks(len(ranked), each)
        ]
    return chosen


def _log_odds(logits: npt.NDArray[np.float64], index: int) -> npt.NDArray[np.float64]:
    """Of one class against all the others together; probabilities would tie at 1."""
    if logits.shape[1] < 2:
        return logits[:, index]
    others = np.delete(logits, index, axis=1)
    highest = others.max(axis=1, initial=-np.inf)
    rest = np.log(np.exp(others - highest[:, None]).sum(axis=1)) + highest
    odds: npt.NDArray[np.float64] = logits[:, index] - rest
    return odds


def _ranks(count: int, each: int) -> list[int]:
    if count <= each:
        return list(range(count))
    ends = each // 3
    middle = each - 2 * ends
    begin = (count - middle) // 2
    return [
        *range(ends),
        *range(begin, begin + middle),
        *range(count - ends, count),
    ]


def _choice(
    outcomes: Outcomes,
    grid: PatchGrid,
    index: int,
    ranked: npt.NDArray[np.intp],
    rank: int,
) -> Choice:
    patch = int(ranked[rank])
    column, row = int(outcomes.column[patch]), int(outcomes.row[patch])
    thirds = 3 * rank // len(ranked) if len(ranked) > 1 else 0
    (x0_px, x1_px), (y0_px, y1_px) = (
        grid.x0_px([column, column + 1]).tolist(),
        grid.y0_px([row, row + 1]).tolist(),
    )
    return Choice(
        class_index=index,
        column=column,
        row=row,
        place=("surest", "middle", "least sure")[thirds],
        shares=tuple(probabilities(outcomes.logits[patch].tolist()) or ()),
        x0_px=x0_px,
        y0_px=y0_px,
        x1_px=x1_px,
        y1_px=y1_px,
    )


@dataclass(frozen=True)
class Gallery:
    """What a report shows of single patches."""

    choices: Sequence[Choice]
    pictures: Pictures[View]
    class_names: Sequence[str]
    #: Patches of each class that count, of which these are some.
    class_patches: Sequence[int]


def gallery_view(gallery: Gallery, palette: str) -> dict[str, Any] | None:
    """Text and pictures of the section, the highest class first; None without any."""
    if not gallery.choices:
        return None
    names = [printable(name) for name in gallery.class_names]
    colors = [hex_color(c) for c in class_colors(gallery.class_names, palette)]
    classes: list[dict[str, Any]] = [
        {
            "name": names[index],
            "index": index,
            "color": colors[index],
            "words": CLASS_WORDS.get(names[index], ""),
            "of": f"{int(gallery.class_patches[index]):,}",
            "cards": [],
        }
        for index in range(len(names))
    ]
    ordered = sorted(
        enumerate(gallery.choices), key=lambda pair: (-pair[1].class_index, pair[0])
    )
    shown = 0
    for number, (_, choice) in enumerate(ordered, start=1):
        jpeg = gallery.pictures.jpegs.get((choice.column, choice.row))
        shown += jpeg is not None
        classes[choice.class_index]["cards"].append(
            {
                "number": number,
                "src": jpeg_url(jpeg),
                "place": choice.place,
                "shares": _shares(choice, names, colors),
                "at": f"x {choice.x0_px:,}, y {choice.y0_px:,}",
                "box": (choice.x0_px, choice.y0_px, choice.x1_px, choice.y1_px),
            }
        )
    view = gallery.pictures.view
    return {
        "classes": [c for c in reversed(classes) if c["cards"]],
        "missing": missing_words(
            len(ordered) - shown, len(ordered), gallery.pictures.missing
        ),
        "frame_percent": 100 * view.margin_px / view.side_px,
        "side_um": f"{view.side_px * view.spacing_um:g}",
        "patch_um": f"{view.patch_px * view.spacing_um:g}",
        "spacing_um": f"{view.spacing_um:g}",
    }


def _shares(
    choice: Choice, names: Sequence[str], colors: Sequence[str]
) -> list[dict[str, Any]]:
    """Its own class first, then the others, the likeliest first."""
    order = sorted(
        range(len(choice.shares)),
        key=lambda i: (i != choice.class_index, -choice.shares[i], i),
    )
    return [
        {
            "name": names[i],
            "index": i,
            "color": colors[i],
            "width": 100 * choice.shares[i],
            "text": _percent(choice.shares[i]),
        }
        for i in order
    ]


def _percent(share: float) -> str:
    """Whole percents, and never 0 or 100 by rounding."""
    if 0 < share < 0.005:
        return "<1\u00a0%"
    if 0.995 <= share < 1:
        return ">99\u00a0%"
    return f"{100 * share:.0f}\u00a0%"
