# SPDX-License-Identifier: Apache-2.0
"""The patch table that users of WSInfer and QuPath know."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from her2fast.export.numbers import probabilities
from her2fast.export.patches import Outcomes, PatchGrid

__all__ = ["patch_table"]

_ROWS_PER_CHUNK = 4096


def patch_table(
    outcomes: Outcomes, grid: PatchGrid, *, class_names: Sequence[str]
) -> Iterator[bytes]:
    """Write RFC 4180: minx, miny, width, height in level-0 px, then what was measured.

    ``prob_<class>`` are calibrated probabilities, empty where the patch was not
    classified; ``tumor_fraction`` is of the patch's pixels; ``kept`` patches count.

    Yields
    ------
    bytes
        Pieces of one UTF-8 text, rows in the order of the outcomes.
    """
    if outcomes.logits.shape[1] != len(class_names):
        raise ValueError(
            f"need {len(class_names)} logits a patch, got {outcomes.logits.shape[1]}"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    header = ["minx", "miny", "width", "height"]
    header += [f"prob_{name}" for name in class_names]
    writer.writerow([*header, "tumor_px", "tumor_fraction", "kept"])

    x0, x1 = grid.x0_px(outcomes.column), grid.x0_px(outcomes.column + 1)
    y0, y1 = grid.y0_px(outcomes.row), grid.y0_px(outcomes.row + 1)
    patch_area_px = grid.patch_px * grid.patch_px
    columns = zip(
        x0.tolist(),
        y0.tolist(),
        (x1 - x0).tolist(),
        (y1 - y0).tolist(),
        outcomes.logits.tolist(),
        outcomes.tumor_px.tolist(),
        outcomes.kept.tolist(),
        strict=True,
    )
    for index, (x, y, width, height, logits, tumor_px, kept) in enumerate(columns):
        fraction = repr(tumor_px / patch_area_px)
        place = [x, y, width, height]
        known = probabilities(logits)
        shares = [""] * len(logits) if known is None else [repr(p) for p in known]
        state = "true" if kept else "false"
        writer.writerow([*place, *shares, tumor_px, fraction, state])
        if index % _ROWS_PER_CHUNK == _ROWS_PER_CHUNK - 1:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()
