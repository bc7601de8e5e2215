# SPDX-License-Identifier: Apache-2.0
"""A scorer that makes no mistake: what the flags do when every patch is right.

The truth travels in the lowest three bits of red, where the session's own tissue mask
and focus do not see it; the "models" read it there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.phantom.slide import Slide
from her2fast.phantom.truth import CONTROL_OFFSET, Maps

_BITS = np.uint8(7)
CLASSES = ["0", "1+", "2+", "3+"]


def with_truth(slide: Slide, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture with red's lowest bits 0, or the class plus 1 of its tumor."""
    kinds = Maps(slide).classes
    kinds[kinds > CONTROL_OFFSET] -= CONTROL_OFFSET
    out = rgb.copy()
    out[..., 0] = (rgb[..., 0] & ~_BITS) | kinds
    return out


def measure(slide: Slide, picture: npt.NDArray[np.uint8]) -> _core.Measurement:
    """A measurement whose every patch has its true tumor and majority."""
    if slide.spec.slide.spacing_um != 1.0:
        raise ValueError("need a slide at 1 um/px: the truth must not be resampled")
    rgb = with_truth(slide, picture)
    height, width = rgb.shape[:2]
    session = _core.PatchSession(
        (width, height),
        (1.0, 1.0),
        spacing_um=1.0,
        patch_px=64,
        tile_px=256,
        halo_px=32,
        class_names=CLASSES,
        classify_batch=32,
        has_segmenter=True,
        segment_batch=8,
        segment_channels=1,
    )
    while True:
        requests = session.wanted(16)
        for request in requests:
            session.push(request.id, _crop(rgb, request), "ok")
        batch = session.next_batch()
        if batch is None and not requests:
            return session.finish()
        while batch is not None:
            session.put(batch.id, _answer(batch))
            batch = session.next_batch()


def _crop(rgb: npt.NDArray[np.uint8], request: Any) -> npt.NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    out = np.full((request.height_px, request.width_px, 3), 255, np.uint8)
    out[..., 0] &= ~_BITS
    x0, y0 = max(request.x_px, 0), max(request.y_px, 0)
    x1 = min(request.x_px + request.width_px, width)
    y1 = min(request.y_px + request.height_px, height)
    if x1 > x0 and y1 > y0:
        there = (
            slice(y0 - request.y_px, y1 - request.y_px),
            slice(x0 - request.x_px, x1 - request.x_px),
        )
        out[there] = rgb[y0:y1, x0:x1]
    return out


def _answer(batch: Any) -> npt.NDArray[np.float32]:
    """Logits of a batch: model 0 finds tumor, model 1 the majority's class."""
    kinds = np.asarray(batch.rgb)[..., 0] & _BITS
    if batch.model == 0:
        tumor = np.where(kinds > 0, np.float32(10.0), np.float32(-10.0))
        return np.ascontiguousarray(tumor[:, None])
    areas = np.stack([(kinds == k + 1).sum((1, 2)) for k in range(4)], 1)
    return np.ascontiguousarray(areas, np.float32)
