# SPDX-License-Identifier: Apache-2.0
"""The class map as a report shows it: picture, scale bar, and where patches lie."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from her2fast.export.class_map import scale_bar_mm

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MAX_MAP_BYTES", "MAX_MAP_SIDE_PX", "map_view"]

# A report is mailed and archived: enough for a printed page, no more.
MAX_MAP_SIDE_PX = 1600
MAX_MAP_BYTES = 900_000
_LONGEST_BAR = 0.3  # of the picture's width
# Lines between colors stay sharp, and tissue takes a fifth of what a PNG needs.
_QUALITIES = (88, 75, 60)


def map_view(
    picture: Image.Image, slide: Mapping[str, Any], cards: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the template draws; `cards` are the gallery's, for their places."""
    data, (width, height) = _jpeg(picture)
    view: dict[str, Any] = {
        "src": "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii"),
        "width": width,
        "height": height,
        "letter": max(width, height) / 72,
        "marks": [],
        "bar": None,
    }
    size_px = _two_numbers(slide.get("size_px"))
    spacing_um = _two_numbers(slide.get("spacing_um"))
    if size_px is None:
        return view
    across, down = width / size_px[0], height / size_px[1]
    for card in cards:
        x0, y0, x1, y1 = card["box"]
        view["marks"].append(
            {
                "number": card["number"],
                "x": x0 * across,
                "y": y0 * down,
                "width": (x1 - x0) * across,
                "height": (y1 - y0) * down,
            }
        )
    if spacing_um is not None:
        slide_mm = size_px[0] * spacing_um[0] / 1000
        length_mm, text = scale_bar_mm(_LONGEST_BAR * slide_mm)
        view["bar"] = {"percent": 100 * length_mm / slide_mm, "text": text}
    return view


def _two_numbers(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    if not all(isinstance(v, (int, float)) and v > 0 for v in value):
        return None
    return float(value[0]), float(value[1])


def _jpeg(picture: Image.Image) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image

    image = picture.convert("RGB")
    side_px = MAX_MAP_SIDE_PX
    while True:
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, subsampling=0)
            if out.tell() <= MAX_MAP_BYTES:
                return out.getvalue(), image.size
        side_px = side_px * 3 // 4
