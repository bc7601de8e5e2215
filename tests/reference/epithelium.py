# SPDX-License-Identifier: Apache-2.0
"""Slow, readable twins of the kernels of epithelium."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from reference import cells

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

#: sRGB to X, Y, Z (IEC 61966-2-1), and the white of D65 at 2 degrees.
TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE_XYZ = np.array([0.95047, 1.0, 1.08883])


def light_values() -> npt.NDArray[np.float64]:
    """Light of the 256 values of sRGB, 16384 is 1; not rounded."""
    v = np.arange(256) / 255.0
    return 16384 * np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


def root_values() -> npt.NDArray[np.float64]:
    """CIELAB's root at 8193 steps from 0 to 1, 16384 is 1; not rounded."""
    t = np.arange(8193) / 8192
    return 16384 * np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)


def lab(rgb: Bytes) -> Longs:
    """(H, W, 3) of L*, a*, b* in 1/64."""
    light = np.floor(light_values() + 0.5).astype(np.int64)[rgb]
    matrix = np.rint(TO_XYZ / WHITE_XYZ[:, None] * 32768).astype(np.int64)
    steps = np.minimum((light @ matrix.T + 32768) >> 16, 8192)
    x, y, z = np.moveaxis(np.floor(root_values() + 0.5).astype(np.int64)[steps], -1, 0)
    half = 8192
    return np.stack(
        [
            ((116 * 64 * y + half) >> 14) - 16 * 64,
            (500 * 64 * (x - y) + half) >> 14,
            (200 * 64 * (y - z) + half) >> 14,
        ],
        axis=-1,
    )


def superpixels(
    rgb: Bytes, size_px: int, compactness: float, iterations: int
) -> tuple[npt.NDArray[np.int32], int]:
    """SLIC in float32, one center after the other."""
    f = np.float32
    height, width = rgb.shape[:2]
    color = lab(rgb)
    planes = color.astype(f)
    rows, columns = (_seeds(side, size_px) for side in (height, width))
    centers = [(f(0), f(0), f(0), f(x), f(y)) for y in rows for x in columns]
    per_px = compactness * 64 / size_px
    weight = f(per_px * per_px)
    x, y = np.arange(width, dtype=f), np.arange(height, dtype=f)
    labels = np.zeros((height, width), np.int32)
    for _ in range(iterations):
        nearest = np.full((height, width), np.finfo(f).max, f)
        for k, (*color_of, cx, cy) in enumerate(centers):
            in_y = _window(cy, 2 * size_px, height)
            in_x = _window(cx, 2 * size_px, width)
            at = np.ix_(in_y, in_x)
            dl, da, db = (planes[..., i][at] - mean for i, mean in enumerate(color_of))
            dx, dy = x[in_x] - cx, y[in_y] - cy
            place = (dx * dx * weight)[None] + (dy * dy * weight)[:, None]
            away = ((dl * dl + da * da) + db * db) + place
            nearer = away < nearest[at]
            nearest[at] = np.where(nearer, away, nearest[at])
            labels[at] = np.where(nearer, np.int32(k), labels[at])
        for k in range(len(centers)):
            own = labels == k
            n = int(own.sum())
            if n:
                mean = [f(int(color[..., i][own].sum()) / n) for i in range(3)]
                where = np.nonzero(own)
                place_of = [f(int(w.sum()) / n) for w in reversed(where)]
                centers[k] = (*mean, *place_of)
    return number_pieces(labels, height * width // (2 * len(centers)))


def _window(center: np.float32, reach: int, end: int) -> Longs:
    reach_px = np.float32(reach)
    first = max(math.ceil(center - reach_px), 0)
    return np.arange(first, min(math.floor(center + reach_px) + 1, end))


def _seeds(length_px: int, size_px: int) -> list[int]:
    count = max(1, (length_px + size_px // 2) // size_px)
    return [(2 * i + 1) * length_px // (2 * count) for i in range(count)]


def number_pieces(
    labels: npt.NDArray[np.int32], least: int
) -> tuple[npt.NDArray[np.int32], int]:
    """4-connected pieces in reading order; small ones join the last neighbor met."""
    height, width = labels.shape
    out = np.full((height, width), -1, np.int32)
    count = 0
    for start in np.ndindex(height, width):
        if out[start] >= 0:
            continue
        out[start] = count
        piece, queue, beside = [start], deque([start]), -1
        while queue:
            y, x = queue.popleft()
            for next_y, next_x in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                if not (0 <= next_y < height and 0 <= next_x < width):
                    continue
                near = next_y, next_x
                if out[near] < 0 and labels[near] == labels[start]:
                    out[near] = count
                    piece.append(near)
                    queue.append(near)
                elif out[near] >= 0 and out[near] != count:
                    beside = int(out[near])
        if len(piece) < least and beside >= 0:
            for pixel in piece:
                out[pixel] = beside
        else:
            count += 1
    return out, count


def gray(rgb: Bytes) -> Bytes:
    """Luminance."""
    r, g, b = np.moveaxis(rgb.astype(np.int64), -1, 0)
    return ((77 * r + 150 * g + 29 * b + 128) >> 8).astype(np.uint8)


def local_patterns(picture: Bytes) -> Bytes:
    """Uniform patterns in whole numbers: bilinear weights times 10^10."""
    inner, outer = 29289, 70711
    wide = np.pad(picture.astype(np.int64), 1)
    height, width = picture.shape

    def moved(dy: int, dx: int) -> Longs:
        return wide[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    own = moved(0, 0)
    ones = []
    for dy, dx in (
        (0, 1),
        (-1, 1),
        (-1, 0),
        (-1, -1),
        (0, -1),
        (1, -1),
        (1, 0),
        (1, 1),
    ):
        if dy == 0 or dx == 0:
            ones.append(moved(dy, dx) >= own)
            continue
        value = (
            inner * inner * own
            + inner * outer * (moved(dy, 0) + moved(0, dx))
            + outer * outer * moved(dy, dx)
        )
        ones.append(value >= own * 100_000**2)
    bits = np.stack(ones)
    changes = (bits != np.roll(bits, 1, axis=0)).sum(0)
    return np.where(changes <= 2, bits.sum(0), 9).astype(np.uint8)


def superpixel_features(
    rgb: Bytes,
    labels: npt.NDArray[np.int32],
    count: int,
    white: tuple[int, int, int] = (255, 255, 255),
) -> npt.NDArray[np.uint32]:
    """Pixels by bin, superpixel by superpixel."""
    hematoxylin, dab = cells.stains(rgb, 1, white)
    _, a, b = np.moveaxis(lab(rgb), -1, 0)
    bins = [
        *(rgb[..., channel].astype(np.int64) // 8 for channel in range(3)),
        np.clip(np.floor((a + 24 * 64) / 128), 0, 31).astype(np.int64),
        np.clip(np.floor((b + 32 * 64) / 128), 0, 31).astype(np.int64),
        hematoxylin.astype(np.int64) * 32 // 3278,
        dab.astype(np.int64) // 8,
    ]
    inner = np.zeros(labels.shape, bool)
    inner[1:-1, 1:-1] = True
    patterns = local_patterns(gray(rgb))
    out = np.zeros((count, 234), np.uint32)
    for k in range(count):
        own = labels == k
        for plane, values in enumerate(bins):
            out[k, 32 * plane : 32 * plane + 32] = np.bincount(
                values[own], minlength=32
            )
        out[k, 224:] = np.bincount(patterns[own & inner], minlength=10)
    return out


def superpixel_roots(counts: npt.NDArray[np.uint32]) -> npt.NDArray[np.int16]:
    """Roots of shares of a plane."""
    out = np.zeros(counts.shape, np.int16)
    for k, row in enumerate(counts.tolist()):
        for begin in range(0, 234, 32):
            plane = row[begin : begin + 32]
            for i, value in enumerate(plane):
                share = value / sum(plane) if value else 0.0
                out[k, begin + i] = math.floor(2560 * math.sqrt(share) + 0.5)
    return out


def svm_decision(
    features: npt.NDArray[np.int16],
    vectors: npt.NDArray[np.int16],
    coefficients: npt.NDArray[np.float64],
    intercept: float,
    gamma: float,
) -> npt.NDArray[np.float64]:
    """In double precision."""
    away = features[:, None].astype(np.float64) - vectors[None]
    return np.exp(-gamma * (away**2).sum(-1)) @ coefficients + intercept
