# SPDX-License-Identifier: Apache-2.0
"""The slides of the bench and their pixels; all of them are synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast.phantom.demo_slides import DEMO_SLIDES, demo_spec
from her2fast.phantom.slide import Camera, draw_slide
from her2fast.phantom.spec import SlideSpec, check_spec

Rgb = npt.NDArray[np.uint8]

SEED = 9_400_000  # of no training, study or demo slide
#: One scanner profile for each drawn slide.
PROFILES = ("reference", "pale-blue", "dark-nuclei", "unseen")

LARGE_SEED = 9_470_000
LARGE_SIDE_UM = 3800.0
#: Spacing um/px, score, profile. More than a thousand patches each.
LARGE = (
    (0.25, "0", "violet"),
    (0.25, "1+", "unseen"),
    (0.25, "2+", "warm-scanner"),
    (0.25, "3+", "grey-blue"),
    (0.5, "0", "warm-scanner"),
    (0.5, "1+", "violet-grey"),
    (0.5, "2+", "unseen"),
    (0.5, "3+", "steel-blue"),
)


@dataclass(frozen=True)
class Case:
    """A slide to draw."""

    name: str
    kind: str
    spec: SlideSpec
    seed: int

    @property
    def large(self) -> bool:
        """Whether it has more than a thousand patches."""
        return self.kind.startswith("large")


def cases(side_um: float) -> list[Case]:
    """The demo's slides that are scored, and one small slide of each score."""
    out = [
        Case(demo.name, "demo", demo_spec(demo), demo.seed)
        for demo in DEMO_SLIDES
        if demo.status == "scored"
    ]
    for index, score in enumerate(("0", "1+", "2+", "3+")):
        values = {
            "slide": {"width_um": side_um, "height_um": side_um, "spacing_um": 0.25},
            "tumor": {"score": score},
            "scanner": {"profile": PROFILES[index]},
        }
        name = f"drawn-{score}"
        out.append(Case(name, "drawn", check_spec(values, name), SEED + index))
    return out


def large_cases() -> list[Case]:
    """Slides of more than a thousand patches."""
    out = []
    for index, (spacing_um, score, profile) in enumerate(LARGE):
        values = {
            "slide": {
                "width_um": LARGE_SIDE_UM,
                "height_um": LARGE_SIDE_UM,
                "spacing_um": spacing_um,
            },
            "tumor": {"score": score, "free_share": 0.0},
            "scanner": {"profile": profile},
        }
        name = f"large-{score}-{profile}"
        kind = f"large at {spacing_um:g} um/px"
        out.append(Case(name, kind, check_spec(values, name), LARGE_SEED + index))
    return out


def pixels(case: Case, work: Path) -> Rgb:
    """(H, W, 3) of level 0; drawn once, then mapped from the file."""
    width, height = case.spec.size_px
    path = work / f"{case.name}-{case.seed}-{width}x{height}.npy"
    if not path.exists():
        camera = Camera(draw_slide(case.spec, case.seed))
        unfinished = path.with_suffix(".drawing.npy")
        shape = (height, width, 3)
        rgb = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
        for y in range(0, height, 1024):
            count = min(1024, height - y)
            rgb[y : y + count] = camera.rows(y, count)
        rgb.flush()
        unfinished.rename(path)
    drawn: Rgb = np.load(path, mmap_mode="r")
    return drawn
