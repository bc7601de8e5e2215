# SPDX-License-Identifier: Apache-2.0
"""Things that are not HER2: real pen and nuclear DAB, drawn red cells and debris."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Rgb = npt.NDArray[np.uint8]

#: Spacing that the cores are taken to have, um/px.
CORE_UM = 0.24
#: Glass of the cores' scanner.
GLASS = (233, 232, 241)
#: Side of what is added: 0.3 mm2.
SIDE_PX = 2300
#: Optical density of R, G, B for hemoglobin and for DAB.
BLOOD = (0.22, 0.48, 0.85)
DAB = (0.268, 0.570, 0.776)


def read_rgb(path: Path) -> Rgb:
    """Pixels without alpha."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def on_glass(rgb: Rgb, width_px: int) -> Rgb:
    """The picture with so much glass on its right."""
    glass = np.full((rgb.shape[0], width_px, 3), GLASS, np.uint8)
    return np.concatenate([rgb, glass], axis=1)


def over(rgb: Rgb, addition: Rgb) -> Rgb:
    """The addition over the middle of the picture: light is multiplied."""
    out = rgb.copy()
    height, width = addition.shape[:2]
    y, x = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    under = out[y : y + height, x : x + width].astype(np.float32)
    light = under * addition / np.array(GLASS, np.float32)
    out[y : y + height, x : x + width] = np.clip(np.rint(light), 0, 255)
    return out


def beside(rgb: Rgb, addition: Rgb) -> Rgb:
    """The addition on the glass at the picture's right, in its middle."""
    out = rgb.copy()
    height, width = addition.shape[:2]
    y, x = (rgb.shape[0] - height) // 2, rgb.shape[1] - width - 100
    out[y : y + height, x : x + width] = addition
    return out


def _tiled(tile: Rgb) -> Rgb:
    """Turned and mirrored copies, so that no seam repeats."""
    side = min(tile.shape[:2])
    tile = tile[:side, :side]
    count = -(-SIDE_PX // side)
    rows = []
    for row in range(count):
        turned = [
            np.rot90(tile, (row + k) % 4)[:: 1 - 2 * (k % 2)] for k in range(count)
        ]
        rows.append(np.concatenate(turned, axis=1))
    return np.ascontiguousarray(np.concatenate(rows, axis=0)[:SIDE_PX, :SIDE_PX])


def nuclear_dab(folder: Path, name: str) -> Rgb:
    """A field of nuclear DAB brought from 0.25 um/px to the cores' spacing."""
    field = read_rgb(folder / f"{name}.png")[:, :512]
    side = round(field.shape[0] * 0.25 / CORE_UM)
    with Image.fromarray(field) as image:
        return _tiled(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)))


def green_pen(folder: Path) -> Rgb:
    """The middle of a green stroke over H&E, enlarged (its spacing is not known)."""
    stroke = read_rgb(folder / "tcga-green-pen.png")[430:600, 180:300]
    with Image.fromarray(stroke) as image:
        size = (SIDE_PX * 120 // 170, SIDE_PX)
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def blue_pen(folder: Path) -> Rgb:
    """A stroke in the blue pen's median color, with the grain of its pixels."""
    rgb = read_rgb(folder / "wsi-blue-pen.png")
    ink = rgb[rgb[..., 2].astype(int) - rgb[..., 0] > 60]
    rng = np.random.default_rng(0)
    small = ink[rng.integers(len(ink), size=(SIDE_PX // 10, SIDE_PX // 30))]
    with Image.fromarray(small) as image:
        size = (SIDE_PX // 3, SIDE_PX)
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _stained(density: npt.NDArray[np.float64], vector: tuple[float, ...]) -> Rgb:
    light = 10.0 ** -(density[..., None] * np.array(vector)) * np.array(GLASS)
    return np.asarray(np.clip(np.rint(light), 0, 255), np.uint8)


def _discs(
    rng: np.random.Generator, pitch_um: float, radius_um: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Discs with a darker border on a jittered grid; about 1 inside, 0 outside."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] * CORE_UM
    out = np.zeros((SIDE_PX, SIDE_PX))
    count = int(SIDE_PX * CORE_UM / pitch_um)
    for row in range(count):
        for column in range(count):
            cy, cx = (np.array([row, column]) + rng.uniform(0.25, 0.75, 2)) * pitch_um
            radius = rng.uniform(*radius_um)
            reach = int(radius / CORE_UM) + 3
            py, px = int(cy / CORE_UM), int(cx / CORE_UM)
            part = np.s_[
                max(py - reach, 0) : py + reach, max(px - reach, 0) : px + reach
            ]
            apart = np.hypot(y[part] - cy, x[part] - cx) / radius
            disc = np.clip((1.0 - apart) * radius / CORE_UM + 0.5, 0.0, 1.0)
            disc *= 0.7 + 0.6 * np.exp(-(((apart - 0.85) / 0.15) ** 2))
            out[part] = np.maximum(out[part], disc)
    return out


def red_cells(vector: tuple[float, ...], density: float) -> Rgb:
    """A lake of red cells of 5 to 7 um."""
    rng = np.random.default_rng(1)
    return _stained(density * _discs(rng, 6.5, (2.5, 3.4)), vector)


def debris() -> Rgb:
    """Sparse black-brown specks of 2 to 20 um."""
    rng = np.random.default_rng(2)
    specks = _discs(rng, 60.0, (1.0, 10.0))
    return _stained(0.9 * specks, (0.55, 0.58, 0.60))


#: Name, picture, and whether it is also laid over the tissue.
ADDITIONS: tuple[tuple[str, Callable[[Path], Rgb], bool], ...] = (
    ("green pen over H&E (real)", green_pen, False),
    ("blue pen (real color)", blue_pen, True),
    ("red cells, tan (drawn)", lambda _: red_cells(BLOOD, 0.35), True),
    ("red cells, brown (drawn)", lambda _: red_cells(DAB, 0.35), True),
    ("debris (drawn)", lambda _: debris(), True),
    ("nuclear DAB a (real)", lambda f: nuclear_dab(f, "nuclear_dab_a"), False),
    ("nuclear DAB pair (real)", lambda f: nuclear_dab(f, "nuclear_dab_pair"), False),
)
