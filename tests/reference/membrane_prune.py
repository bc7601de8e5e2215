# SPDX-License-Identifier: Apache-2.0
"""Pruning of a membrane mask, pixel by pixel over sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Pixel = tuple[int, int]  # (y, x)
Pixels = set[Pixel]

HALF_WIDTH_PX = 6
#: Clockwise from the pixel above.
ROUND = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def around(pixel: Pixel, of: Pixels) -> list[bool]:
    y, x = pixel
    return [(y + dy, x + dx) in of for dy, dx in ROUND]


def grown(pixels: Pixels) -> Pixels:
    return pixels | {(y + dy, x + dx) for y, x in pixels for dy, dx in ROUND}


def goes(p: list[bool], second: bool) -> bool:
    """Guo and Hall (1989), algorithm A1; p[0] is their p2."""
    parts = sum(not p[k] and (p[k + 1] or p[(k + 2) % 8]) for k in (0, 2, 4, 6))
    n1 = sum(p[k - 1] or p[k] for k in (0, 2, 4, 6))
    n2 = sum(p[k] or p[k + 1] for k in (0, 2, 4, 6))
    if second:
        other_side = (p[0] or p[1] or not p[3]) and p[2]
    else:
        other_side = (p[4] or p[5] or not p[7]) and p[6]
    return parts == 1 and 2 <= min(n1, n2) <= 3 and not other_side


def thinned(pixels: Pixels) -> Pixels:
    for _ in range(HALF_WIDTH_PX):
        for second in (False, True):
            pixels = {p for p in pixels if not goes(around(p, pixels), second)}
    return pixels


def is_end(pixel: Pixel, of: Pixels) -> bool:
    p = around(pixel, of)
    beside = any(p[k] and p[(k + 1) % 8] for k in range(8))
    return sum(p) == 1 or (sum(p) == 2 and beside)


def kept_line(line: Pixels, length_px: int) -> Pixels:
    left = set(line)
    for _ in range(length_px):
        ends = {p for p in left if is_end(p, left)}
        left -= {p for p in ends if not any(around(p, ends))}
    back = {p for p in left if is_end(p, left) or not any(around(p, left))}
    for _ in range(length_px):
        back |= grown(back) & (line - left)
    return left | back


def half_width(pixel: Pixel, mask: Pixels) -> int:
    """Of the largest square round the pixel that fits the mask, at most the limit."""
    y, x = pixel
    size = 0
    while size < HALF_WIDTH_PX and all(
        (y + dy, x + dx) in mask
        for dy in range(-size - 1, size + 2)
        for dx in range(-size - 1, size + 2)
    ):
        size += 1
    return size


def squares(line: Pixels, mask: Pixels) -> Pixels:
    out: Pixels = set()
    for y, x in line:
        size = half_width((y, x), mask)
        steps = range(-size, size + 1)
        out |= {(y + dy, x + dx) for dy in steps for dx in steps}
    return out


def prune(mask: Bytes, length_px: int) -> Bytes:
    pixels = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    out = np.zeros(mask.shape, np.uint8)
    if length_px > 0:
        line = thinned(pixels)
        left = kept_line(line, length_px)
        kept = squares(left, pixels)
        lost = squares(line - left, pixels) - kept
        for _ in range(HALF_WIDTH_PX):
            more = (grown(kept) & pixels) - lost
            gone = (grown(lost) & pixels) - kept
            kept |= more
            lost |= gone - more
        pixels -= lost
    for pixel in pixels:
        out[pixel] = 1
    return out
