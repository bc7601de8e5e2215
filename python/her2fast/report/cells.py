# SPDX-License-Identifier: Apache-2.0
"""The page of a slide scored cell by cell: figures, map, and cells of every class.

Refers to nothing outside itself; equal inputs give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from her2fast.export.class_map import CLASS_WORDS
from her2fast.export.names import printable
from her2fast.export.numbers import percent
from her2fast.export.palettes import DEFAULT_PALETTE, class_colors, hex_color
from her2fast.kernels.cells import CellClasses, Cells
from her2fast.report import words
from her2fast.report.html import template
from her2fast.report.pictures import (
    Pictures,
    Reader,
    jpeg_url,
    missing_words,
    read_square,
)
from her2fast.report.view import intended_use, printable_all

__all__ = ["CellChoice", "CellGallery", "CellView", "cells_html", "choose_cells"]

#: Cells shown of each class, and the side of what is shown round one.
EACH = 6
VIEW_UM = 40.0
_QUALITY = 85
_MAP_PX = 1200


@dataclass(frozen=True)
class CellChoice:
    """One cell of the gallery."""

    her2: int
    completeness: float
    density: float | None
    #: Its seed on the cells' grid, and in level-0 px.
    seed: tuple[int, int]
    x0_px: int
    y0_px: int


@dataclass(frozen=True)
class CellView:
    """How cells are pictured: the network's spacing, the seed in the middle."""

    grid_um: float
    spacing_um: float

    def read(self, reader: Reader, place: tuple[int, int]) -> bytes | None:
        """One picture as JPEG; None where its tiles cannot be read whole."""
        side_px = round(VIEW_UM / self.spacing_um)
        middle = [(at + 0.5) * self.grid_um / self.spacing_um for at in place]
        x_px, y_px = (round(at) - side_px // 2 for at in middle)
        return read_square(reader, x_px, y_px, side_px, self.spacing_um)


@dataclass(frozen=True)
class CellGallery:
    """What a page shows of single cells."""

    choices: Sequence[CellChoice]
    pictures: Pictures[CellView]


def choose_cells(
    cells: Cells,
    classes: CellClasses,
    *,
    grid_um: float,
    slide_spacing_um: Sequence[float],
) -> list[CellChoice]:
    """Choose up to `EACH` cells of each class, class by class.

    A class stands from its weakest cell to its strongest (directions stained, then DAB,
    then place); those shown lie evenly in it, both ends among them.
    """
    out: list[CellChoice] = []
    rays = np.bitwise_count(cells.stained)
    for kind in range(4):
        members = np.flatnonzero(classes.her2 == kind)
        order = np.lexsort(
            (cells.x[members], cells.y[members], cells.dab_sum[members], rays[members])
        )
        ranked = members[order]
        count = min(EACH, len(ranked))
        ranks = np.linspace(0, len(ranked) - 1, count).round().astype(np.int64)
        for index in ranked[ranks].tolist():
            seed = int(cells.x[index]), int(cells.y[index])
            x_um, y_um = ((at + 0.5) * grid_um for at in seed)
            density = float(cells.dab_mean[index])
            out.append(
                CellChoice(
                    kind,
                    float(cells.completeness[index]),
                    None if np.isnan(density) else density,
                    seed,
                    int(x_um / slide_spacing_um[0]),
                    int(y_um / slide_spacing_um[1]),
                )
            )
    return out


def cells_html(
    record: Mapping[str, Any],
    *,
    picture: Any = None,
    overview: Any = None,
    gallery: CellGallery | None = None,
    palette: str = DEFAULT_PALETTE,
) -> bytes:
    """Write the page of one slide.

    Parameters
    ----------
    record : mapping
        The slide's record, scored or not.
    picture : PIL.Image.Image, optional
        The map of classes.
    overview : PIL.Image.Image, optional
        The slide as it looks, where there is no map.
    gallery : CellGallery, optional
        Single cells; one without its picture is left out, and the page says so.
    """
    clean = printable_all(record)
    shown = _cards(gallery)
    cells = clean.get("cells")
    names = clean["class_names"] or ["0", "1+", "2+", "3+"]
    colors = [hex_color(color) for color in class_colors(names, palette)]
    counts = cells["class_cells"] if cells else []
    classes = [
        {
            "name": name,
            "color": colors[index],
            "index": index,
            "words": CLASS_WORDS.get(name, ""),
            "cells": f"{counts[index]:,}",
            "percent": percent(counts[index], sum(counts)),
            "cards": [card for kind, card in shown if kind == index],
        }
        for index, name in enumerate(names)
        if cells
    ]
    score = clean["score"]
    page = template("cells.html.j2").render(
        slide_name=clean["slide"]["name"] or "unnamed slide",
        score=score,
        color=colors[names.index(score)] if score in names else "#5f6368",
        status=words.STATUSES[str(clean["status"])],
        message=clean["message"],
        code=clean["code"],
        intended_use=intended_use(clean),
        lines=_lines(clean),
        flags=[words.FLAGS[flag] for flag in clean["review_flags"]],
        classes=classes,
        cuts=_cuts(clean),
        figures=_figures(clean),
        map=None if picture is None else _data_url(picture),
        overview=None if overview is None else _data_url(overview),
        missing=(
            None
            if gallery is None
            else missing_words(
                len(gallery.choices) - len(shown),
                len(gallery.choices),
                gallery.pictures.missing,
            )
        ),
        provenance=_provenance(clean),
    )
    return page.encode()


def _lines(record: Mapping[str, Any]) -> list[str]:
    guideline = record.get("guideline")
    out = []
    if guideline:
        out.append(f"{guideline['rule_set']}, by counts of {guideline['unit']}.")
        for key, table in (
            ("three_way", words.THREE_WAY),
            ("her2_view", words.HER2_VIEWS),
        ):
            if guideline[key] in table:
                out.append(table[guideline[key]])
        staining = guideline["ihc0_membrane_staining"]
        if staining != "not_assessable":
            out.append(f"Score 0: {staining}.")
        if guideline["alternative"]:
            out.append(f"Alternative: {guideline['alternative']}.")
    reading = record.get("area_reading")
    if reading and reading["score"]:
        out.append(
            f"{reading['method']} reads the areas at "
            f"{reading['working_spacing_um']:g} µm/px as {reading['score']}."
        )
    return out


def _cuts(record: Mapping[str, Any]) -> list[str]:
    guideline, cells = record.get("guideline"), record.get("cells")
    if not guideline or not cells:
        return []
    total = cells["count"]
    out = []
    for margin in guideline["margins"]:
        side = "passed" if margin["passed"] else "not passed"
        away = abs(margin["margin"]) / 10
        out.append(
            f"{margin['cut']}: {margin['area']:,} of {total:,} cells "
            f"({percent(margin['area'], total)}), {side}, {away:g} cells from the cut"
        )
    return out


def _figures(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    cells = record.get("cells")
    if not cells:
        return []
    membranes = cells["membranes"]
    gaps = membranes["compartments"]

    def text(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        ("H-score", text(cells["h_score"], 0)),
        ("Complete cells", f"{cells['complete_cells']:,}"),
        ("Moderate to intense, incomplete", f"{cells['unusual_cells']:,}"),
        ("Faint but complete", f"{cells['faint_complete_cells']:,}"),
        ("Dropped beside unreadable tiles", f"{cells['dropped_cells']:,}"),
        ("Mean completeness of stained cells", text(cells["mean_completeness"])),
        ("Mean optical density of membranes", text(cells["mean_density"])),
        ("Closed membranes of all", text(membranes["closed_ratio"])),
        ("Connectivity", text(membranes["connectivity"])),
        ("Compartments with one nucleus", f"{gaps['one_nucleus']:,}"),
        ("Artifacts: none, several nuclei", _artifacts(gaps)),
        ("Empty glass, R G B", _color(cells["glass_rgb"])),
        ("Tumor", f"{text(record['tumor_mm2'])} mm²"),
    ]


def _color(glass_rgb: Sequence[int] | None) -> str:
    return "not seen" if glass_rgb is None else " ".join(map(str, glass_rgb))


def _artifacts(gaps: Mapping[str, Any]) -> str:
    return f"{gaps['no_nucleus']:,}, {gaps['several_nuclei']:,}"


def _cards(gallery: CellGallery | None) -> list[tuple[int, dict[str, str | None]]]:
    """Class and card of every cell that has a picture."""
    if gallery is None:
        return []
    return [
        (choice.her2, _card(choice, jpeg))
        for choice in gallery.choices
        if (jpeg := gallery.pictures.jpegs.get(choice.seed)) is not None
    ]


def _card(choice: CellChoice, jpeg: bytes) -> dict[str, str | None]:
    density = "" if choice.density is None else f", density {choice.density:.2f}"
    return {
        "src": jpeg_url(jpeg),
        "text": f"{100 * choice.completeness:.0f} % of the outline{density}",
        "place": f"x {choice.x0_px}, y {choice.y0_px} px",
    }


def _data_url(picture: Any) -> str | None:
    shown = picture.convert("RGB")
    shown.thumbnail((_MAP_PX, _MAP_PX))
    data = io.BytesIO()
    shown.save(data, "JPEG", quality=_QUALITY)
    return jpeg_url(data.getvalue())


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    models = "; ".join(f"{m['name']} {m['sha256'][:12]}" for m in record["models"])
    values: list[tuple[str, object]] = [
        ("Method", (record.get("method") or {}).get("name")),
        ("Models", models),
        ("Spacing of membranes", record.get("working_spacing_um")),
        ("Measurement", record.get("measurement_key")),
        ("Decision", record.get("decision_key")),
        ("her2fast", record["versions"]["her2fast"]),
    ]
    return [(name, printable(str(value))) for name, value in values if value]
