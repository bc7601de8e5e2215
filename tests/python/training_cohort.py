# SPDX-License-Identifier: Apache-2.0
"""A small cohort on disk for tests of training: slides, drawings, manifest, configs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from slides import paint, write_slide

from her2fast.phantom import render
from her2fast.training import config_file

LABELS = ("0", "1+", "2+", "3+")
#: Label, part and the classes of the painted bands; all obey `pham-2022`.
PAINTED = (
    (0, "train", (0, 0, 0)),
    (1, "train", (0, 1, 1)),
    (2, "train", (0, 2, 1)),
    (3, "train", (3, 2, 3)),
    (0, "val", (0,)),
    (1, "val", (1, 0)),
    (2, "val", (2, 0)),
    (3, "val", (3, 0)),
)


def write_mask(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


def write_manifest(
    folder: Path, rows: list[dict[str, str]], name: str = "cohort.csv"
) -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def painted_cohort(folder: Path, side_px: int = 384) -> Path:
    """Slides of brown bands; the tumor is the left two thirds of the tissue."""
    (folder / "drawn").mkdir(parents=True)
    rows = []
    for number, (label, part, stains) in enumerate(PAINTED):
        name = f"s{number}"
        rgb = paint((side_px, side_px), stains, seed=number)
        write_slide(folder / f"{name}.svs", rgb)
        mask = np.zeros((side_px, side_px), np.bool_)
        mask[64 : side_px - 64, 64 : side_px - 64] = True
        write_mask(folder / "drawn" / f"{name}.png", mask)
        rows.append(
            {
                "slide": f"{name}.svs",
                "label": LABELS[label],
                "patient": f"p{number}",
                "site": "AB"[number % 2],
                "split": part,
            }
        )
    return write_manifest(folder, rows)


def phantom_cohort(folder: Path) -> Path:
    """Eight small phantoms with their true tumor as drawings."""
    mixtures = ((1, 0, 0, 0), (0.4, 0.6, 0, 0), (0.3, 0.3, 0.4, 0), (0, 0.1, 0.1, 0.8))
    (folder / "drawn").mkdir(parents=True)
    rows = []
    for number in range(8):
        label = number % 4
        side_px = 448 if number == 7 else 288
        picture = render(7100 + number, (side_px, side_px), mixture=mixtures[label])
        name = f"p{number}"
        write_slide(folder / f"{name}.svs", picture.rgb)
        write_mask(folder / "drawn" / f"{name}.png", picture.tumor_mask)
        rows.append(
            {
                "slide": f"{name}.svs",
                "label": LABELS[label],
                "patient": name,
                "scanner": "AB"[number % 2],
                "split": "train" if number < 4 else "val",
            }
        )
    return write_manifest(folder, rows)


def config_text(**tables: Any) -> str:
    """A stage's file."""
    return config_file.config_text(tables)
