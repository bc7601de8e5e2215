# SPDX-License-Identifier: Apache-2.0
"""Measurements of drawn class fields, and simulated fields with spatial correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2fast import _core

GLASS = -1
PATCH_PX = 64
CLASSES = ["0", "1+", "2+", "3+"]


def measure(classes: npt.NDArray[np.int64]) -> _core.Measurement:
    """A slide of 1 um/px whose patch (r, c) is all tumor of `classes[r, c]`, or glass.

    Through the native session without a segmenter: tissue counts as tumor, and the
    class is written into the blue of the tissue's color.
    """
    rows, columns = classes.shape
    pad = 96 + 256 // PATCH_PX * PATCH_PX
    value = np.repeat(np.repeat(classes, PATCH_PX, 0), PATCH_PX, 1)
    rgb = np.full((*value.shape, 3), 255, np.uint8)
    inside = value >= 0
    rgb[inside] = np.stack(
        [np.full(inside.sum(), 150), np.full(inside.sum(), 110), 60 + value[inside]], 1
    )
    canvas = np.pad(rgb, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    session = _core.PatchSession(
        (columns * PATCH_PX, rows * PATCH_PX),
        (1.0, 1.0),
        spacing_um=1.0,
        patch_px=PATCH_PX,
        tile_px=256,
        halo_px=32,
        class_names=CLASSES,
        classify_batch=64,
        has_segmenter=False,
        segment_batch=1,
        segment_channels=1,
    )
    while requests := session.wanted(64):
        for r in requests:
            y, x = r.y_px + pad, r.x_px + pad
            tile = canvas[y : y + r.height_px, x : x + r.width_px]
            session.push(r.id, np.ascontiguousarray(tile), "ok")
        while (batch := session.next_batch()) is not None:
            blue = batch.rgb[:, ::4, ::4, 2].astype(int).reshape(len(batch.rgb), -1)
            counts = np.stack([(blue == 60 + c).sum(1) for c in range(4)], 1)
            session.put(batch.id, counts.astype(np.float32))
    return session.finish()


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], correlation_patches: float
) -> npt.NDArray[np.float64]:
    """A Gaussian field of variance 1; its correlation is 1/e at that distance."""
    # A Gaussian kernel of width w gives the correlation exp(-d^2 / (4 w^2)).
    width = correlation_patches / 2
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :]
    kernel = np.exp(-2 * (np.pi * width) ** 2 * (fy**2 + fx**2))
    kernel /= np.sqrt((kernel**2).mean())
    noise = np.fft.fft2(rng.normal(size=shape))
    return np.asarray(np.fft.ifft2(noise * kernel).real)


def class_field(
    rng: np.random.Generator,
    shape: tuple[int, int],
    shares: npt.ArrayLike,
    correlation_patches: float,
    nugget: float = 0.3,
) -> npt.NDArray[np.int64]:
    """Classes whose expected shares are `shares`, alike where near.

    `nugget` is the part of the variance that every patch has for itself. The field is
    cut from one twice as wide and high, so that its edges do not wrap around.
    """
    big = (2 * shape[0], 2 * shape[1])
    field = smooth_noise(rng, big, correlation_patches)[: shape[0], : shape[1]]
    mixed = np.sqrt(1 - nugget) * field + np.sqrt(nugget) * rng.normal(size=shape)
    # Thresholds of the normal distribution, by its quantiles in a large sample.
    sample = np.sort(np.random.default_rng(0).normal(size=200_001))
    ends = np.cumsum(np.asarray(shares, float))[:3]
    cuts = np.interp(ends, np.linspace(0, 1, sample.size), sample)
    return np.digitize(mixed, cuts)
