# SPDX-License-Identifier: Apache-2.0
"""Images for the kernel tests: generated, and real ones at about 1 um/px."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from PIL import Image

Rgb = npt.NDArray[np.uint8]
WHITE = (255, 255, 255)
CORES = [
    "core_0_a",
    "core_0_b",
    "core_1_a",
    "core_2_ishneg_a",
    "core_2_ishpos_a",
    "core_3_left_half",
]
COLORS = [
    (255, 255, 255),
    (236, 235, 245),
    (200, 200, 218),
    (128, 152, 177),
    (150, 120, 100),
    (90, 60, 40),
    (84, 127, 194),
    (20, 140, 80),
    (205, 30, 40),
    (15, 15, 18),
    (220, 110, 170),
]


@st.composite
def images(draw: st.DrawFn, least: int = 1, most: int = 60) -> Rgb:
    """Patches of glass, tissue and ink colors under noise, or noise alone."""
    height, width = draw(st.integers(least, most)), draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.integers(0, 4)) == 0:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = np.full((height, width, 3), COLORS[draw(st.integers(0, 1))], np.int64)
    for _ in range(draw(st.integers(0, 6))):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
        out[y : y + h, x : x + w] = COLORS[rng.integers(0, len(COLORS))]
    out += rng.integers(-20, 21, out.shape) * draw(st.sampled_from([0, 1]))
    return np.clip(out, 0, 255).astype(np.uint8)


@st.composite
def masked_images(draw: st.DrawFn, most: int = 48) -> tuple[Rgb, npt.NDArray[np.uint8]]:
    rgb = draw(images(most=most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    mask = (rng.random(rgb.shape[:2]) < share).astype(np.uint8)
    return rgb, mask * np.uint8(draw(st.sampled_from([1, 255])))


whites = st.sampled_from([WHITE, (236, 235, 245), (128, 200, 255)])


def box_mean(rgb: Rgb, factor: int) -> Rgb:
    h, w = rgb.shape[0] // factor * factor, rgb.shape[1] // factor * factor
    blocks = rgb[:h, :w].astype(np.uint32)
    blocks = blocks.reshape(h // factor, factor, w // factor, factor, 3).sum((1, 3))
    return ((blocks + factor**2 // 2) // factor**2).astype(np.uint8)


def load(path: Path, factor: int = 1) -> Rgb:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return box_mean(np.array(Image.open(path).convert("RGB")), factor)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def core(folder: Path, name: str) -> Rgb:
    """A real core at 0.96 um/px."""
    return load(folder / f"her2_cores/{name}.jpg", 4)


def slide(folder: Path, name: str, level: int = 0, factor: int = 2) -> Rgb:
    import openslide

    with openslide.OpenSlide(folder / f"slides/{name}") as opened:
        size = opened.level_dimensions[level]
        rgba = np.array(opened.read_region((0, 0), level, size))
    rgb = np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)
    return box_mean(rgb, factor)
