# SPDX-License-Identifier: Apache-2.0
"""The constrained method on one array without tiles: what the session must equal.

The whole slide is held at the working spacing, masks are computed once on all of it,
and the models are plain functions of a patch. Slow, with no machinery of the session.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reference.tissue_mask import tissue_mask

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def tumor_mask(
    slide: Image, segment: Callable[[Image], npt.NDArray[np.float32]] | None
) -> Mask:
    """Tissue, AND where the segmenter's logit is at least 0 (p >= 0.5)."""
    tissue = tissue_mask(slide, (255, 255, 255)).astype(bool)
    return tissue if segment is None else tissue & (segment(slide) >= 0)


def class_areas(
    slide: Image,
    segment: Callable[[Image], npt.NDArray[np.float32]] | None,
    classify: Callable[[Image], npt.NDArray[np.float32]],
    roi: Mask,
    classes: int,
    patch_px: int,
) -> tuple[list[int], int]:
    """Tumor pixels per class in the kept patches, and what the filter dropped."""
    height, width = slide.shape[:2]
    rows, columns = -(-height // patch_px), -(-width // patch_px)
    padded = np.full((rows * patch_px, columns * patch_px, 3), 255, np.uint8)
    padded[:height, :width] = slide
    tumor = np.zeros(padded.shape[:2], bool)
    tumor[:height, :width] = tumor_mask(slide, segment) & roi
    areas, dropped = [0] * classes, 0
    for r in range(rows):
        for c in range(columns):
            window = np.s_[
                r * patch_px : (r + 1) * patch_px, c * patch_px : (c + 1) * patch_px
            ]
            count = int(tumor[window].sum())
            if 10 * count > patch_px * patch_px:
                areas[int(np.argmax(classify(padded[window])))] += count
            else:
                dropped += count
    return areas, dropped
