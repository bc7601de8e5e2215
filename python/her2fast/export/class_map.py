# SPDX-License-Identifier: Apache-2.0
"""The class map: classified patches over the slide, legend and scale beside it.

A class has a color, a hatching that grows denser with it, and its name on its largest
regions: on a grey print, and for a reader who sees two of the colors as one, it stays
what it is.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from her2fast.export.dissolve import dissolve
from her2fast.export.names import printable
from her2fast.export.numbers import percent
from her2fast.export.palettes import DEFAULT_PALETTE, Color, class_colors
from her2fast.export.patches import Outcomes, PatchGrid

__all__ = [
    "CLASS_WORDS",
    "class_map_png",
    "class_picture",
    "scale_bar_mm",
    "with_legend",
]

#: What the classes mean, for readers of a map or a report.
CLASS_WORDS = {
    "0": "no staining",
    "1+": "faint, incomplete",
    "2+": "weak to moderate",
    "3+": "intense, complete",
}

Rgb = npt.NDArray[np.uint8]  # (H, W, 3)

_OPACITY = 0.45  # stain and structure stay visible, and the four colors apart
_PANEL_PX = 300
_MIN_HEIGHT_PX = 420  # for the legend beside a flat slide
_MARGIN_PX = 18
_INK = (34, 34, 34)
_PALE = (110, 110, 110)
_HATCH_OPACITY = 0.5
_HATCH_PX = 8  # about three patches on a large slide, a fifth of one on a small one
_LABELS_PER_CLASS = 3
_LABEL_MIN_PX = 18  # a region narrower than this cannot carry its name


def class_picture(
    thumbnail: Rgb,
    outcomes: Outcomes,
    grid: PatchGrid,
    *,
    size_px: tuple[int, int],
    class_names: Sequence[str],
    palette: str = DEFAULT_PALETTE,
) -> Image.Image:
    """Draw the classes over the slide.

    Parameters
    ----------
    thumbnail : (H, W, 3) uint8
        The whole slide, at any scale.
    size_px : (width, height)
        The slide's level-0 size.

    Returns
    -------
    PIL.Image.Image
        Of the thumbnail's size; every class is named on its largest regions.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise ValueError(f"need (H, W, 3) uint8, got {thumbnail.shape}")
    if min(thumbnail.shape[:2]) < 1 or min(size_px) < 1:
        raise ValueError(f"need a slide, got {thumbnail.shape} of {size_px} px")
    colors = class_colors(class_names, palette)
    classes = _class_of_pixels(thumbnail.shape[:2], outcomes, grid, size_px)
    height, width = thumbnail.shape[:2]
    picture = Image.fromarray(_blend(thumbnail, classes, colors))
    draw = ImageDraw.Draw(picture)
    scale = (width / size_px[0], height / size_px[1])
    for index, name in enumerate(class_names):
        for x, y in _label_places(outcomes, grid, index, scale):
            draw.text(
                (x, y),
                printable(name),
                font=_font(15),
                fill=_INK,
                anchor="mm",
                stroke_width=3,
                stroke_fill=(255, 255, 255),
            )
    return picture


def with_legend(
    picture: Image.Image,
    *,
    px_per_mm: float,
    class_names: Sequence[str],
    class_px: Sequence[int],
    class_mm2: Sequence[float],
    title: str = "",
    notes: Sequence[str] = (),
    amounts: Sequence[str] = (),
    palette: str = DEFAULT_PALETTE,
) -> bytes:
    """Write a class picture with its legend, scale bar and notes beside it, as PNG.

    Parameters
    ----------
    px_per_mm
        Pixels of the picture per millimeter of the slide.
    class_px, class_mm2 : (classes,)
        As in the result.
    notes : lines of text
        Below the legend, such as the intended use.
    amounts : (classes,) of text
        What stands beside the percentages; areas where not given.
    """
    width, height = picture.size
    canvas = Image.new(
        "RGB", (width + _PANEL_PX, max(height, _MIN_HEIGHT_PX)), (255, 255, 255)
    )
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    panel = _Panel(draw, width + _MARGIN_PX, _PANEL_PX - 2 * _MARGIN_PX)
    panel.text("HER2 class map", 19)
    if title:
        panel.text(printable(title), 13, _PALE)
    panel.gap(8)
    colors = class_colors(class_names, palette)
    for index, (name, px, mm2) in enumerate(
        zip(class_names, class_px, class_mm2, strict=True)
    ):
        canvas.paste(_swatch(index, colors[index]), panel.place)
        amount = amounts[index] if amounts else f"{mm2:.3f} mm2"
        panel.entry(name, f"{percent(px, sum(class_px))}   {amount}")
    panel.gap(6)
    panel.scale_bar(px_per_mm)
    for note in notes:
        panel.text(printable(note), 12, _PALE)
    png = io.BytesIO()
    canvas.save(png, "PNG")
    return png.getvalue()


def class_map_png(
    thumbnail: Rgb,
    outcomes: Outcomes,
    grid: PatchGrid,
    *,
    size_px: tuple[int, int],
    class_names: Sequence[str],
    class_px: Sequence[int],
    class_mm2: Sequence[float],
    title: str = "",
    notes: Sequence[str] = (),
    palette: str = DEFAULT_PALETTE,
) -> bytes:
    """Draw the map with its legend: `class_picture`, then `with_legend`."""
    picture = class_picture(
        thumbnail,
        outcomes,
        grid,
        size_px=size_px,
        class_names=class_names,
        palette=palette,
    )
    return with_legend(
        picture,
        px_per_mm=1000 / grid.slide_spacing_um[0] * picture.width / size_px[0],
        class_names=class_names,
        class_px=class_px,
        class_mm2=class_mm2,
        title=title,
        notes=notes,
        palette=palette,
    )


def scale_bar_mm(longest_mm: float) -> tuple[float, str]:
    """Longest of 1, 2, 5 x 10^n mm that fits, and its name.

    Examples
    --------
    >>> scale_bar_mm(0.7), scale_bar_mm(23)
    ((0.5, '500 µm'), (20.0, '20 mm'))
    """
    power = 10.0 ** math.floor(math.log10(longest_mm))
    length_mm = max(f * power for f in (1, 2, 5) if f * power <= longest_mm)
    text = f"{length_mm:g} mm" if length_mm >= 1 else f"{length_mm * 1000:g} µm"
    return length_mm, text


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _class_of_pixels(
    shape: tuple[int, ...],
    outcomes: Outcomes,
    grid: PatchGrid,
    size_px: tuple[int, int],
) -> npt.NDArray[np.int16]:
    """Find the class at the center of each thumbnail pixel; -1 where there is none."""
    kept = outcomes.kept
    classes = np.full(shape, -1, np.int16)
    if not kept.any():
        return classes
    columns, rows = outcomes.column[kept], outcomes.row[kept]
    table = np.full((int(rows.max()) + 1, int(columns.max()) + 1), -1, np.int16)
    table[rows, columns] = outcomes.predicted[kept]

    def cells(pixels: int, slide_px: int, edges: npt.NDArray[np.int64]) -> np.ndarray:
        centers = (np.arange(pixels) + 0.5) * (slide_px / pixels)
        return np.searchsorted(edges, centers, side="right") - 1

    x = cells(shape[1], size_px[0], grid.x0_px(np.arange(table.shape[1] + 1)))
    y = cells(shape[0], size_px[1], grid.y0_px(np.arange(table.shape[0] + 1)))
    inside_x, inside_y = x < table.shape[1], y < table.shape[0]
    classes[np.ix_(inside_y, inside_x)] = table[np.ix_(y[inside_y], x[inside_x])]
    return classes


def _blend(
    thumbnail: Rgb, classes: npt.NDArray[np.int16], colors: Sequence[Color]
) -> Rgb:
    lookup = np.array([*colors, (0, 0, 0)], np.float32)  # the last one is class -1
    edge = np.zeros(classes.shape, np.bool_)
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    edge[1:] |= classes[1:] != classes[:-1]
    opacity = np.where(edge, 0.9, _OPACITY).astype(np.float32)
    opacity[classes < 0] = 0
    below = thumbnail.astype(np.float32)
    out = below + opacity[..., None] * (lookup[classes] - below)
    hatched = _hatched(classes) & ~edge
    out[hatched] += _HATCH_OPACITY * (np.array(_INK, np.float32) - out[hatched])
    blended: Rgb = np.rint(out).astype(np.uint8)
    return blended


def _hatched(classes: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Mark the lines: none on the first class, then sparse, close, crossed, level."""
    rows, columns = np.ogrid[: classes.shape[0], : classes.shape[1]]
    rising, falling = (rows + columns) % _HATCH_PX == 0, (rows - columns) % _HATCH_PX
    patterns = (
        np.zeros(classes.shape, np.bool_),
        (rows + columns) % (2 * _HATCH_PX) == 0,
        rising,
        rising | (falling == 0),
        np.broadcast_to(rows % _HATCH_PX == 0, classes.shape),
        np.broadcast_to(columns % _HATCH_PX == 0, classes.shape),
    )
    lines: npt.NDArray[np.bool_] = np.zeros(classes.shape, np.bool_)
    for index in range(int(classes.max(initial=-1)) + 1):
        lines |= (classes == index) & patterns[index % len(patterns)]
    return lines


def _swatch(index: int, color: Color) -> Image.Image:
    pixels = np.full((31, 31, 3), color, np.uint8)
    pixels[_hatched(np.full((31, 31), index, np.int16))] = _INK
    pixels[[0, -1]] = pixels[:, [0, -1]] = _INK
    return Image.fromarray(pixels)


def _label_places(
    outcomes: Outcomes, grid: PatchGrid, index: int, scale: tuple[float, float]
) -> list[tuple[float, float]]:
    """Points well inside a class's largest regions, in thumbnail pixels."""
    import shapely

    mask = outcomes.of_class(index)
    regions = []
    for rings in dissolve(outcomes.column[mask], outcomes.row[mask]):
        scaled = [
            np.stack(
                [grid.x0_px(ring[:, 0]) * scale[0], grid.y0_px(ring[:, 1]) * scale[1]],
                axis=1,
            )
            for ring in rings
        ]
        regions.append(shapely.Polygon(scaled[0], scaled[1:]))
    regions.sort(key=lambda region: -region.area)
    places = []
    for region in regions[:_LABELS_PER_CLASS]:
        # The radius of the largest circle inside, from its center to the outline.
        circle = shapely.maximum_inscribed_circle(region, tolerance=2.0)
        if shapely.length(circle) * 2 >= _LABEL_MIN_PX:
            (x, y), _ = shapely.get_coordinates(circle)
            places.append((float(x), float(y)))
    return places


class _Panel:
    """Text and legend from the top down."""

    def __init__(self, draw: ImageDraw.ImageDraw, x_px: int, width_px: int) -> None:
        self._draw = draw
        self._x, self._y = x_px, _MARGIN_PX
        self._width = width_px

    def gap(self, height_px: int) -> None:
        self._y += height_px

    def text(self, text: str, size_px: int, color: Color = _INK) -> None:
        for line in textwrap.wrap(text, int(self._width / (0.54 * size_px))):
            self._draw.text((self._x, self._y), line, font=_font(size_px), fill=color)
            self._y += round(size_px * 1.35)

    @property
    def place(self) -> tuple[int, int]:
        """Where the next thing is drawn."""
        return self._x, self._y

    def entry(self, name: str, areas: str) -> None:
        """Name and areas of a class, beside its swatch."""
        words = CLASS_WORDS.get(name)
        head = f"{printable(name)}  {words}" if words else printable(name)
        x = self._x + 42
        self._draw.text((x, self._y - 3), head, font=_font(15), fill=_INK)
        self._draw.text((x, self._y + 16), areas, font=_font(13), fill=_PALE)
        self._y += 44

    def scale_bar(self, px_per_mm: float) -> None:
        length_mm, label = scale_bar_mm(self._width / px_per_mm)
        y, length_px = self._y + 8, round(length_mm * px_per_mm)
        self._draw.line((self._x, y, self._x + length_px, y), fill=_INK, width=3)
        for x in (self._x, self._x + length_px):
            self._draw.line((x, y - 6, x, y + 6), fill=_INK, width=2)
        label = label.replace("µ", "u")  # Pillow's own font has no such letter
        self._draw.text((self._x, y + 10), label, font=_font(14), fill=_INK)
        self._y = y + 36
