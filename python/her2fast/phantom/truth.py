# SPDX-License-Identifier: Apache-2.0
"""The truth of a phantom slide as files (docs/guide/phantoms.md).

Pictures have a pixel per pixel of level 0. The patient's tissue and the control's are
kept apart everywhere: a control is never part of a slide's fractions or score.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import guidelines
from her2fast.export.dissolve import Polygon, dissolve
from her2fast.export.palettes import PALETTES, Color
from her2fast.phantom.ground import Tissue
from her2fast.phantom.plan import COARSE_UM
from her2fast.phantom.slide import LABEL_RULES, SCORES, Slide

PATCH_UM = 64.0
#: A patch counts with more than this share of tumor, as in scoring.
KEEP_PERCENT = 10
#: `class_map.png`: 0 is no tumor, 1 to 4 the patient's 0 to 3+, 5 to 8 the control's.
CONTROL_OFFSET = 4
TUMOR_CELL_UM = 8.0
NOTICE = "generated picture, research use only; shows nobody's tissue"
_NAMESPACE = uuid.UUID("0f5f4c0e-93c8-5a2e-b6a5-3c0d5b1f2a77")
#: Drawn round the outlines, so that frayed edges lie inside.
_ROUND_CELLS = 3

FILES = {
    "class_map.png": "palette: 0 no tumor, 1 to 4 = 0, 1+, 2+, 3+, 5 to 8 of controls",
    "tumor_mask.png": "1 bit: the patient's tumor",
    "membrane_mask.png": "1 bit: stained membrane, controls included",
    "tissue.png": "palette: tissue, numbered as in `tissue_names`",
    "cells.parquet": "tumor cells: place, class, completeness, density, control",
    "patches.csv": "64 um patches with tumor on the grid that scoring uses",
    "tumor.geojson": "outlines of tumor (8 um) and controls, level-0 pixels",
}

Map = npt.NDArray[np.uint8]


class Maps:
    """Maps of a whole slide, (H, W) at level 0."""

    def __init__(self, slide: Slide) -> None:
        width, height = slide.spec.size_px
        self.classes: Map = np.zeros((height, width), np.uint8)
        self.tissue: Map = np.zeros((height, width), np.uint8)
        self.membrane = np.zeros((height, width), np.bool_)
        for patch in slide.patches:
            lobule = patch.lobule
            rows = slice(lobule.y_px, lobule.y_px + lobule.height_px)
            columns = slice(lobule.x_px, lobule.x_px + lobule.width_px)
            own = patch.own
            kinds = (patch.class_map + 1).astype(np.uint8)
            if lobule.control:
                kinds[kinds > 0] += CONTROL_OFFSET
            np.copyto(self.classes[rows, columns], kinds, where=own)
            np.copyto(self.tissue[rows, columns], patch.tissue, where=own)
            np.copyto(self.membrane[rows, columns], patch.membrane, where=own)

    @property
    def tumor(self) -> npt.NDArray[np.bool_]:
        """The patient's tumor."""
        return (self.classes > 0) & (self.classes <= CONTROL_OFFSET)

    def counts(self) -> list[int]:
        """Pixels of each value of the class map."""
        total = np.zeros(9, np.int64)
        for row in self.classes:
            total += np.bincount(row, minlength=9)
        return [int(count) for count in total]


def patch_table(maps: Maps, spacing_um: float) -> npt.NDArray[np.int64]:
    """(rows, columns, 8) tumor pixels of each class, the patient's and the control's.

    A pixel belongs to the 64 um patch that its center lies in, from the slide's origin.
    """
    height, width = maps.classes.shape

    def places(count: int) -> npt.NDArray[np.int64]:
        at_um = (np.arange(count) + 0.5) * spacing_um
        return np.asarray(at_um // PATCH_UM, np.int64)

    rows, columns = places(height), places(width)
    out = np.zeros((int(rows[-1]) + 1, int(columns[-1]) + 1, 8), np.int64)
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    row_starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for index, begin in enumerate(row_starts):
        end = height if index + 1 == len(row_starts) else int(row_starts[index + 1])
        band = maps.classes[begin:end]
        for value in range(1, 9):
            down = (band == value).sum(axis=0, dtype=np.int64)
            out[index, :, value - 1] = np.add.reduceat(down, starts)
    return out


def patch_csv(table: npt.NDArray[np.int64], spacing_um: float) -> bytes:
    """Patches with tumor: place in level-0 pixels, areas, class, whether it counts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    names = [f"px_{name}" for name in SCORES]
    head = ["minx", "miny", "width", "height", "control", *names, "class", "kept"]
    writer.writerow(head)
    side = PATCH_UM / spacing_um
    rows, columns = np.nonzero(table.sum(axis=2))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        x0, y0 = int(column * side), int(row * side)
        x1, y1 = int((column + 1) * side), int((row + 1) * side)
        for control in (False, True):
            part = slice(4, 8) if control else slice(0, 4)
            areas = table[row, column, part]
            if areas.any():
                kept = bool(is_kept(areas, spacing_um))
                name = SCORES[int(areas.argmax())]
                place = [x0, y0, x1 - x0, y1 - y0, int(control)]
                writer.writerow([*place, *areas.tolist(), name, int(kept)])
    return text.getvalue().encode("ascii")


def is_kept(areas: npt.NDArray[np.int64], spacing_um: float) -> npt.NDArray[np.bool_]:
    """Whether patches hold more than a tenth of tumor; (..., 4) areas."""
    patch_px = (PATCH_UM / spacing_um) ** 2
    return np.asarray(100 * areas.sum(axis=-1) > KEEP_PERCENT * patch_px)


def classes_png(maps: Maps) -> bytes:
    """The class map as a picture with QuPath's colors; controls are paler."""
    colors = [PALETTES["qupath"][name] for name in SCORES]
    pale: list[Color] = [
        ((c[0] + 255) // 2, (c[1] + 255) // 2, (c[2] + 255) // 2) for c in colors
    ]
    return _png(maps.classes, [(255, 255, 255), *colors, *pale])


def tissue_png(maps: Maps) -> bytes:
    """The tissue map as a picture."""
    from colorsys import hsv_to_rgb

    colors: list[Color] = [(255, 255, 255)]
    for index in range(1, len(Tissue)):
        red, green, blue = hsv_to_rgb(index * 0.618 % 1.0, 0.55, 0.85)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return _png(maps.tissue, colors)


def mask_png(mask: npt.NDArray[np.bool_]) -> bytes:
    """A mask of one bit."""
    return _png(mask, None)


def _png(values: npt.NDArray[Any], colors: list[Color] | None) -> bytes:
    from PIL import Image

    picture = Image.fromarray(values)
    if colors is not None:
        picture.putpalette([part for color in colors for part in color])
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=6)
    return out.getvalue()


def cells_parquet(slide: Slide) -> bytes:
    """Every tumor cell, in the order of lobules."""
    import pyarrow
    from pyarrow import parquet

    tables = [patch.cells for patch in slide.patches]
    control = [np.full(len(p.cells), p.lobule.control) for p in slide.patches]

    def joined(name: str, kind: str) -> Any:
        parts = [getattr(table, name) for table in tables]
        return np.concatenate([np.empty(0, kind), *parts]).astype(kind)

    columns = {
        "x_um": joined("x_um", "f4"),
        "y_um": joined("y_um", "f4"),
        "class": joined("kind", "i1"),
        "completeness": joined("completeness", "f4"),
        "density": joined("density", "f4"),
        "has_nucleus": joined("has_nucleus", "?"),
        "control": np.concatenate([np.empty(0, "?"), *control]),
    }
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def regions_geojson(slide: Slide) -> bytes:
    """What to score, as `--roi` takes it: the patient's tissue without the controls."""
    from scipy import ndimage

    plan = slide.plan
    kinds = np.array([0, *(1 if kind is None else 2 for kind in plan.control_class)])
    of = kinds[plan.label]
    features = []
    for kind, name, color in (
        (1, "Tissue", (0, 0, 0)),
        (2, "Control", (128, 128, 128)),
    ):
        mask = ndimage.binary_dilation(of == kind, iterations=_ROUND_CELLS)
        polygons = _outlines(mask & ((of == kind) | (of == 0)))
        cell_px = COARSE_UM / slide.spec.slide.spacing_um
        features += list(_features(slide, polygons, cell_px, name, color))
    return _collection(features)


def tumor_geojson(slide: Slide, maps: Maps) -> bytes:
    """Outlines of the patient's tumor and of control tissue."""
    spacing = slide.spec.slide.spacing_um
    step = max(1, round(TUMOR_CELL_UM / spacing))
    height, width = maps.classes.shape
    rows, columns = height // step * step, width // step * step
    features = []
    colors = ((200, 0, 0), (128, 128, 128))
    masks = (maps.tumor, maps.classes > CONTROL_OFFSET)
    for mask, name, color in zip(masks, ("Tumor", "Control"), colors, strict=True):
        cut = mask[:rows, :columns].reshape(rows // step, step, columns // step, step)
        most = 2 * cut.sum((1, 3), dtype=np.int64) > step * step
        features += list(_features(slide, _outlines(most), float(step), name, color))
    return _collection(features)


def _outlines(mask: npt.NDArray[np.bool_]) -> list[Polygon]:
    rows, columns = np.nonzero(mask)
    return dissolve(columns, rows)


def _features(
    slide: Slide, polygons: list[Polygon], cell_px: float, name: str, color: Color
) -> Iterator[dict[str, Any]]:
    size = np.array(slide.spec.size_px)
    for index, polygon in enumerate(polygons):
        rings = [
            np.minimum(np.rint(ring * cell_px), size).astype(np.int64).tolist()
            for ring in polygon
        ]
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{slide.seed}/{name}/{index}")),
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(color)},
            },
        }


def _collection(features: list[dict[str, Any]]) -> bytes:
    document = {"type": "FeatureCollection", "features": features}
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def area_truth(class_px: list[int], spacing_um: float) -> dict[str, Any]:
    """Areas, shares and what every rule set says of them."""
    total = sum(class_px)
    scores = {
        rules.name: guidelines.decide(class_px, rules.name).score
        for rules in guidelines.rule_sets()
    }
    return {
        "tumor_px": class_px,
        "tumor_mm2": round(total * (spacing_um / 1000.0) ** 2, 6),
        "fractions": [round(n / total, 6) for n in class_px] if total else None,
        "scores": scores,
    }


def truth_of(slide: Slide, maps: Maps, table: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What `truth.json` says, but for the file, the versions and the request."""
    spacing = slide.spec.slide.spacing_um
    counts = maps.counts()
    own = area_truth(counts[1:5], spacing)
    kept = is_kept(table[..., :4], spacing)
    majority = np.zeros(4, np.int64)
    of = table[..., :4][kept]
    np.add.at(majority, of.argmax(-1), of.sum(-1))
    tissue = [int(n) for n in np.bincount(maps.tissue.ravel(), minlength=len(Tissue))]
    controls = [
        {
            "class": SCORES[kind],
            "tumor_px": sum(
                int((patch.class_map >= 0).sum())
                for patch in slide.patches
                if patch.lobule.piece == piece
            ),
        }
        for piece, kind in enumerate(slide.plan.control_class)
        if kind is not None
    ]
    return {
        "synthetic": True,
        "notice": NOTICE,
        "licence": "Apache-2.0",
        "seed": slide.seed,
        "size_px": list(slide.spec.size_px),
        "spacing_um": spacing,
        "class_names": list(SCORES),
        "label_rules": LABEL_RULES,
        "label": own["scores"][LABEL_RULES],
        **own,
        # What a scorer would report that gives every patch its true majority.
        "by_patch_majority": area_truth([int(n) for n in majority], spacing),
        "cells": [
            sum(
                int((patch.cells.kind == kind).sum())
                for patch in slide.patches
                if not patch.lobule.control
            )
            for kind in range(4)
        ],
        "control": {"tumor_px": counts[5:9], "cores": controls},
        "tissue_names": [tissue.name.lower() for tissue in Tissue],
        "tissue_px": tissue,
        "wanted_score": slide.wanted,
        "mixture": [round(share, 6) for share in slide.mixture],
        "attempts": slide.attempts,
        "scanner": asdict(slide.look),
        "files": FILES,
        "spec": slide.spec.to_json(),
    }
