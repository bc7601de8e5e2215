# SPDX-License-Identifier: Apache-2.0
"""Scenes that `membrane-tiny` learns from: each of a laboratory that no list names.

A scene is drawn once and photographed by several laboratories; what is cut from it is
kept in a cache, so that a killed recipe goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.manifest import Entry
from her2fast.phantom import Phantom, Profile, compose_scene, develop
from her2fast.phantom.fields import generator
from her2fast.phantom.ground import Tissue
from her2fast.phantom.stroma import StromaMix
from her2fast.training.cache import Arrays, SlideCache
from her2fast.training.cohort import TrainingSlide
from her2fast.training.extract import IGNORED
from her2fast.training.looks import wide_profile
from her2fast.training.patches import Pieces

Say = Callable[[str], None]

#: Seeds of these scenes start here; evaluation, demo and other recipes use others.
FIRST_SEED = 1_500_000
SPACING_UM = 0.25
#: Logarithm of the largest error of a stated spacing.
SPACING_SPREAD = 0.06
#: Sigma of the lens, um; day-to-day jitter takes a half off or puts a half on.
BLUR_UM = (0.15, 0.8)
#: One scene in so many validates.
VAL_EVERY = 13
#: Brown nuclei are what is most like membrane and is none; other tissue as usual.
MIX = StromaMix(nuclear_dab=0.3)
#: Of six scenes four are of one class, one is of all, one of random shares.
ROUND = 6
#: In scenes of nuclear DAB tumor has brown nuclei, other tissue often. No membrane is
#: stained that is no tumor's, so that benign epithelium counts as well.
NUCLEAR_MIX = StromaMix(nuclear_dab=0.6, tumor_nuclear_dab=1.0, benign_stained=0.0)


@dataclass(frozen=True)
class Plan:
    """How scenes are drawn and cut."""

    side_px: int = 1024
    tile_px: int = 256
    exposures: int = 2


def mixture_of(
    rng: np.random.Generator, number: int
) -> tuple[float, float, float, float]:
    """Class shares of a scene's tumor."""
    kind = number % ROUND
    if kind < 4:
        one = [float(kind == other) for other in range(4)]
        return one[0], one[1], one[2], one[3]
    if kind == 4:
        return 0.25, 0.25, 0.25, 0.25
    shares = rng.dirichlet([0.5] * 4)
    return float(shares[0]), float(shares[1]), float(shares[2]), float(shares[3])


def nuclear_mixture(
    rng: np.random.Generator, number: int
) -> tuple[float, float, float, float]:
    """Class shares under brown nuclei: of six scenes four have no stained membrane."""
    kind = number % ROUND
    if kind == 4:
        return 0.0, 1.0, 0.0, 0.0
    return mixture_of(rng, number) if kind == 5 else (1.0, 0.0, 0.0, 0.0)


def laboratory(rng: np.random.Generator) -> Profile:
    """`wide_profile` with any sharpness: at this spacing that is what differs most."""
    low, high = (math.log(value) for value in BLUR_UM)
    return replace(wide_profile(rng), blur_um=math.exp(rng.uniform(low, high)))


def blue_laboratory(rng: np.random.Generator) -> Profile:
    """One whose counterstain is sky blue and whose glass is cream.

    Between such nuclei cytoplasm looks brown, in thin lines where they are packed.
    """
    look = laboratory(rng)
    vector = np.array(
        [
            rng.uniform(low, high)
            for low, high in ((0.76, 0.88), (0.48, 0.58), (0.12, 0.26))
        ]
    )
    red, green, blue = (float(value) for value in vector / np.linalg.norm(vector))
    light = float(rng.uniform(212.0, 236.0))
    white = (light + 2.0, light - 2.0, light - float(rng.uniform(6.0, 14.0)))
    return replace(look, hematoxylin=(red, green, blue), white_rgb=white)


@dataclass(frozen=True)
class Kind:
    """A kind of scenes: what they hold, and who photographs them."""

    name: str
    offset: int  # of their seeds from `FIRST_SEED`
    mixture: Callable[[np.random.Generator, int], tuple[float, float, float, float]]
    mix: StromaMix
    laboratory: Callable[[np.random.Generator], Profile]
    benign_stained: bool  # benign epithelium may hold membrane

    def seed(self, number: int) -> int:
        """A scene's seed."""
        return FIRST_SEED + self.offset + number


USUAL = Kind("scene", 0, mixture_of, MIX, laboratory, True)
NUCLEAR = Kind("nuclear", 200_000, nuclear_mixture, NUCLEAR_MIX, laboratory, False)
#: Nuclear DAB under a haze, of laboratories with a sky blue counterstain.
BLUE = Kind(
    "blue",
    350_000,
    nuclear_mixture,
    replace(NUCLEAR_MIX, veil=1.0),
    blue_laboratory,
    False,
)


def photograph(plan: Plan, number: int, kind: Kind = USUAL) -> list[Phantom]:
    """One scene as each of its laboratories shows it: a function of kind and number."""
    seed = kind.seed(number)
    rng = generator(seed, 7)
    spacing_um = SPACING_UM * math.exp(rng.uniform(-SPACING_SPREAD, SPACING_SPREAD))
    scene = compose_scene(
        seed,
        (plan.side_px, plan.side_px),
        spacing_um=spacing_um,
        mixture=kind.mixture(rng, number),
        mix=kind.mix,
    )
    return [
        develop(scene, kind.laboratory(rng), seed * 16 + k, spacing_um=spacing_um)
        for k in range(plan.exposures)
    ]


def draw_scene(plan: Plan, number: int, kind: Kind = USUAL) -> Arrays:
    """Tiles of one scene, (n, T, T, 3) and (n, T, T).

    Stained membranes of benign epithelium are no tumor's and yet look like it: that
    tissue is ignored where it may be stained. Tiles without tumor are kept: nothing is
    membrane there.
    """
    pictures = photograph(plan, number, kind)
    mask = pictures[0].membrane_mask.astype(np.uint8)
    if kind.benign_stained:
        mask[pictures[0].tissue == Tissue.BENIGN] = IGNORED
    return {
        "rgb": np.concatenate([cut(one.rgb, plan.tile_px) for one in pictures]),
        "mask": np.concatenate([cut(mask, plan.tile_px)] * plan.exposures),
    }


def validates(number: int) -> bool:
    """Every thirteenth of rounds of six: each kind of scene in turn."""
    return number % VAL_EVERY == VAL_EVERY - 1


def cut(plane: npt.NDArray[Any], tile_px: int) -> npt.NDArray[Any]:
    """(H, W, ...) -> (n, T, T, ...), row by row; sides are multiples of T."""
    rows, columns = (side // tile_px for side in plane.shape[:2])
    blocks = plane.reshape(rows, tile_px, columns, tile_px, *plane.shape[2:])
    return np.ascontiguousarray(blocks.swapaxes(1, 2)).reshape(
        rows * columns, tile_px, tile_px, *plane.shape[2:]
    )


def scene_pieces(
    cache: Path, counts: Mapping[Kind, int], plan: Plan, *, say: Say
) -> tuple[Pieces, Pieces]:
    """Tiles of so many scenes of each kind, train and val; what is missing is drawn."""
    store = SlideCache(cache)
    parts: dict[str, list[tuple[TrainingSlide, Arrays]]] = {"train": [], "val": []}
    wanted = [
        (kind, number) for kind, count in counts.items() for number in range(count)
    ]
    for done, (kind, number) in enumerate(wanted, 1):
        name = f"{kind.name}-{number:05d}"
        arrays = store.get(
            {
                "kind": "membrane scenes",
                "seed": kind.seed(number),
                "side_px": plan.side_px,
                "tile_px": plan.tile_px,
                "exposures": plan.exposures,
            },
            lambda k=kind, n=number: draw_scene(plan, n, k),  # type: ignore[misc]
        )
        if store.made and done % 50 == 0:
            say(f"{done} of {len(wanted)} scenes")
        part = "val" if validates(number) else "train"
        slide = TrainingSlide(
            id=name,
            entry=Entry(slide=name, patient=name),
            label=None,
            shares=None,
            part=part,
        )
        parts[part].append((slide, arrays))
    train, val = (
        Pieces.of([slide for slide, _ in found], [arrays for _, arrays in found])
        for found in (parts["train"], parts["val"])
    )
    return train, val
