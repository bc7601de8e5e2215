# SPDX-License-Identifier: Apache-2.0
"""The segmenter's tumor against drawn tumor, by label (Pham et al., Eq. 21)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.errors import UsageError
from her2fast.evaluation.cases import Results
from her2fast.manifest import LABELS
from her2fast.training.extract import DrawnArea, Frame, annotation_of


def dice_by_label(results: Results, drawings: Path) -> dict[str, dict[str, Any]]:
    """Dice, precision and recall over all pixels of the slides of a label.

    The whole slide counts, regions aside: what is drawn must be all its tumor. Raises
    `UsageError` where no slide has both a measurement and a drawing.
    """
    counts = np.zeros((len(LABELS), 3), np.int64)  # both, predicted, true
    slides = np.zeros(len(LABELS), np.int64)
    for case in results.cases:
        place = annotation_of(case.name, drawings)
        if place is None or case.measurement is None:
            continue
        counts[case.label] += overlap_px(case.measurement, place)
        slides[case.label] += 1
    if not slides.any():
        raise UsageError(
            f"{drawings}: no slide of {results.name} has a measurement and a drawing"
        )
    return {
        name: {
            "slides": int(slides[kind]),
            "dice": _share(2 * both, predicted + true),
            "precision": _share(both, predicted),
            "recall": _share(both, true),
        }
        for kind, name in enumerate(LABELS)
        for both, predicted, true in [counts[kind].tolist()]
    }


def overlap_px(measurement: Path, drawing: Path) -> tuple[int, int, int]:
    """Pixels that are tumor in both, in the measurement, in the drawing."""
    core = _core.Measurement.from_bytes(measurement.read_bytes())
    frame = Frame(core.slide_size_px, core.slide_spacing_um)
    area = DrawnArea(frame, core.spacing_um, drawing)
    tile_px = core.tile_px
    both = predicted = true = 0
    for row in range(core.tiles_y):
        for column in range(core.tiles_x):
            x_px, y_px = column * tile_px, row * tile_px
            found = core.tumor_mask(x_px, y_px, tile_px, tile_px) > 0
            drawn = area.mask(x_px, y_px, tile_px, tile_px) > 0
            both += int((found & drawn).sum())
            predicted += int(found.sum())
            true += int(drawn.sum())
    return both, predicted, true


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
