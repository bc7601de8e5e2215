# SPDX-License-Identifier: Apache-2.0
"""Draws the study's slides: one folder of `her2fast phantom` a group, then one cohort.

What is finished is kept: a rerun draws what is missing.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from design import SIDE_UM, SPACING_UM, Group, groups

from her2fast.phantom.cohort import Request, make_cohort, slide_name
from her2fast.phantom.spec import SlideSpec, check_spec


@dataclass(frozen=True)
class Drawn:
    """One slide of the cohort and what is true of it."""

    name: str
    group: Group
    truth: Path  # folder with truth.json, class_map.png, tumor_mask.png
    areas: tuple[int, int, int, int]  # true tumor pixels of 0, 1+, 2+, 3+

    @property
    def fractions(self) -> tuple[float, ...]:
        return tuple(area / sum(self.areas) for area in self.areas)


def spec_of(group: Group) -> SlideSpec:
    """Everything but size, score and scanner is the generator's default."""
    return check_spec(
        {
            "slide": {
                "width_um": SIDE_UM,
                "height_um": SIDE_UM,
                "spacing_um": SPACING_UM,
            },
            "tumor": {"score": group.score},
            "scanner": {"profile": group.profile},
        },
        group.name,
    )


def draw_slides(work: Path, *, workers: int) -> list[Drawn]:
    """All slides under `work`: slides/NAME.svs and masks/NAME.png beside the truth."""
    slides, masks = work / "slides", work / "masks"
    for folder in (slides, masks):
        folder.mkdir(parents=True, exist_ok=True)
    found = []
    for group in groups():
        root = work / "drawn" / group.name
        request = Request(
            os.fspath(root), group.count, group.seed, spec_of(group), workers
        )
        make_cohort(request)
        sys.stderr.write(f"{group.name}: {group.count} slides\n")
        for index in range(group.count):
            own = slide_name(index)
            name = f"{group.name}-{index + 1:03d}"
            _link(root / "slides" / f"{own}.svs", slides / f"{name}.svs")
            truth = root / "truth" / own
            _link(truth / "tumor_mask.png", masks / f"{name}.png")
            facts = json.loads((truth / "truth.json").read_text(encoding="utf-8"))
            found.append(Drawn(name, group, truth, tuple(facts["tumor_px"])))
    return found


def _link(source: Path, target: Path) -> None:
    """The same file under the name that it has in the cohort."""
    if not target.exists():
        os.link(source, target)


if __name__ == "__main__":
    draw_slides(Path(sys.argv[1]), workers=2)
