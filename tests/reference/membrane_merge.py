# SPDX-License-Identifier: Apache-2.0
"""Membranes and compartments of a mask in one piece, by flood fill, pixel by pixel."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Pixel = tuple[int, int]  # (y, x)

SIDES = [(-1, 0), (0, -1), (0, 1), (1, 0)]
ROUND = [*SIDES, (-1, -1), (-1, 1), (1, -1), (1, 1)]
BAND_END = 1.732


@dataclass
class Component:
    pixels: list[Pixel]
    compartments: list[Component] = field(default_factory=list)

    @property
    def first(self) -> Pixel:
        return min(self.pixels)

    @property
    def box(self) -> tuple[int, int, int, int]:
        ys, xs = zip(*self.pixels, strict=True)
        return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def components(mask: Bytes, value: bool, steps: list[Pixel]) -> list[Component]:
    height, width = mask.shape
    seen = np.zeros(mask.shape, bool)
    found = []
    for start in np.ndindex(height, width):
        if seen[start] or bool(mask[start]) != value:
            continue
        pixels, todo = [], [start]
        seen[start] = True
        while todo:
            y, x = todo.pop()
            pixels.append((y, x))
            for dy, dx in steps:
                to = (y + dy, x + dx)
                if not (0 <= to[0] < height and 0 <= to[1] < width):
                    continue
                if not seen[to] and bool(mask[to]) == value:
                    seen[to] = True
                    todo.append(to)
        found.append(Component(pixels))
    return found


def on_edge(component: Component, shape: tuple[int, ...]) -> bool:
    return any(
        y in (0, shape[0] - 1) or x in (0, shape[1] - 1) for y, x in component.pixels
    )


def perimeter_and_euler(component: Component) -> tuple[float, int]:
    """Windows of 2 x 2 by kind (Duda; Gray for the Euler number, 8-connected)."""
    inside = set(component.pixels)
    corners = {(y + dy, x + dx) for y, x in inside for dy in (-1, 0) for dx in (-1, 0)}
    kinds: Counter[str] = Counter()
    for y, x in corners:
        a, b = (y, x) in inside, (y, x + 1) in inside
        c, d = (y + 1, x) in inside, (y + 1, x + 1) in inside
        count = a + b + c + d
        kinds["across" if count == 2 and a == d else str(count)] += 1
    diagonal = kinds["1"] + kinds["3"] + 2 * kinds["across"]
    perimeter = kinds["2"] + diagonal * math.sqrt(0.5)
    return perimeter, (kinds["1"] - kinds["3"] - 2 * kinds["across"]) // 4


def length(px: int, perimeter: float, euler: int) -> float:
    half = perimeter / 2
    inner = half * half - 4 * BAND_END * euler * px
    return half / 2 if inner < 0 else (half + math.sqrt(inner)) / 2


def percentile(values: list[int], percent: int) -> float:
    rank = max(math.ceil(percent * len(values) / 100), 1)
    return sorted(values)[rank - 1] * 0.01


def membranes(mask: Bytes, density: Bytes | None = None) -> list[dict[str, object]]:
    """One row per membrane, sorted by its first pixel; `holes` are its compartments."""
    found = components(mask, True, ROUND)
    owner = {pixel: item for item in found for pixel in item.pixels}
    for gap in components(mask, False, SIDES):
        if not on_edge(gap, mask.shape):
            y, x = gap.first
            owner[(y - 1, x)].compartments.append(gap)
    rows = []
    for item in found:
        perimeter, euler = perimeter_and_euler(item)
        assert euler == 1 - len(item.compartments)
        px = len(item.pixels)
        row: dict[str, object] = {
            "first": item.first,
            "box": item.box,
            "px": px,
            "perimeter_px": perimeter,
            "length_px": length(px, perimeter, euler),
            "cut": on_edge(item, mask.shape),
            "holes": sorted((h.first, h.box, len(h.pixels)) for h in item.compartments),
        }
        if density is not None:
            values = [int(density[pixel]) for pixel in item.pixels]
            row["density_mean"] = sum(values) / px * 0.01
            for percent in (10, 50, 90):
                row[f"density_p{percent}"] = percentile(values, percent)
        rows.append(row)
    rows.sort(key=lambda row: row["first"])  # type: ignore[arg-type,return-value]
    return rows
