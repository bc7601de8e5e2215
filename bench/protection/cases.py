# SPDX-License-Identifier: Apache-2.0
"""The slides of bench/protection: fixed by their number before any result was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from her2fast.phantom.artifacts import plan_artifacts
from her2fast.phantom.optics import PROFILES, UNSEEN
from her2fast.phantom.slide import Slide, draw_slide
from her2fast.phantom.spec import SlideSpec, check_spec

#: Of no training and no other bench.
SEED = 31_337_000
#: Room for the patient's tissue, um: about 1.2 mm2 of it.
ROOM_UM = (1500.0, 1300.0)
SIGMAS_UM = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
STRIPS = (("3+",), ("3+", "0"), ("3+", "1+", "0"))
OUTLINES = ("resection", "biopsy", "cores")
LOOKS = (*(profile.name for profile in PROFILES), UNSEEN.name)
INKS = ("blue", "green", "black", "red")


@dataclass(frozen=True)
class Case:
    """One slide to score."""

    group: str
    index: int
    name: str
    slide: Slide


def base(index: int, **tables: dict[str, Any]) -> SlideSpec:
    """A small slide of one laboratory; `tables` go on top."""
    values: dict[str, Any] = {
        "slide": {"width_um": ROOM_UM[0], "height_um": ROOM_UM[1]},
        "tumor": {"free_share": 0.0},
        "scanner": {"profile": LOOKS[index % len(LOOKS)]},
    }
    for table, keys in tables.items():
        values[table] = {**values.get(table, {}), **keys}
    return check_spec(values, "bench/protection")


def control_cases(index: int) -> Iterator[Case]:
    """A slide of score 0 with a 3+ control beside it."""
    rng = np.random.default_rng([SEED, index])
    diameter, distance = rng.uniform(400.0, 700.0), rng.uniform(350.0, 1000.0)
    strip = STRIPS[index % len(STRIPS)]
    wide = ROOM_UM[0] + diameter * 1.15 + distance
    tall = max(ROOM_UM[1], len(strip) * diameter * 1.25)
    spec = base(
        index,
        slide={"width_um": wide, "height_um": tall},
        tumor={"score": "0"},
        tissue={
            "outline": OUTLINES[index // 3 % 3],
            "pieces": int(rng.integers(1, 3)),
            "core_um": float(rng.uniform(600.0, 1100.0)),
        },
        control={
            "classes": strip,
            "diameter_um": diameter,
            "distance_um": distance,
            "separator": bool(rng.random() < 0.5),
        },
    )
    yield Case("control", index, " ".join(strip), draw_slide(spec, SEED, index))


def blur_cases(index: int) -> Iterator[Case]:
    """A slide sharp, out of focus more and more, and half out of focus."""
    drawn = draw_slide(base(index), SEED + 1, index)
    for sigma in SIGMAS_UM:
        blurs = [{"sigma_um": sigma}] if sigma else []
        yield _with(drawn, "blur", index, f"{sigma:g}", {"blur": blurs})
    half = {"sigma_um": 3.0, "region_um": [0.0, 0.0, ROOM_UM[0] / 2, ROOM_UM[1]]}
    yield _with(drawn, "blur", index, "3 on half", {"blur": [half]})


def artifact_cases(index: int) -> Iterator[Case]:
    """A slide of 0 or 1+ with and without what may look like stain."""
    tumor = {"score": ("0", "1+")[index % 2]}
    drawn = draw_slide(base(index, tumor=tumor), SEED + 2, index)
    yield _with(drawn, "artifact", index, "clean", {})
    for ink in INKS:
        pen = [{"ink": ink, "over": "tissue", "width_um": 200.0}]
        yield _with(drawn, "artifact", index, f"{ink} pen", {"pen": pen})
    yield _with(drawn, "artifact", index, "folds", {"folds": 3})
    yield _with(drawn, "artifact", index, "dust", {"dust": 150})
    yield _with(drawn, "artifact", index, "bubbles", {"bubbles": 2})
    bled = base(index, tumor=tumor, artifacts={"blood": 4})
    yield Case("artifact", index, "red cells", draw_slide(bled, SEED + 2, index))


GROUPS = {"control": control_cases, "blur": blur_cases, "artifact": artifact_cases}


def _with(
    drawn: Slide, group: str, index: int, name: str, artifacts: dict[str, Any]
) -> Case:
    """`drawn` with artifacts that do not change what was drawn."""
    values = drawn.spec.to_json()
    values["artifacts"] = artifacts
    spec = check_spec(values, "bench/protection")
    art = plan_artifacts(spec, drawn.plan, drawn.seed)
    return Case(group, index, name, replace(drawn, spec=spec, artifacts=art))
