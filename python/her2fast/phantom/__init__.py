# SPDX-License-Identifier: Apache-2.0
"""Phantoms: generated H-DAB pictures whose truth is known at every pixel.

Needs SciPy (`pip install her2fast[train]`). Synthetic data, research use only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2fast.phantom.cells import CellTable
from her2fast.phantom.fields import generator
from her2fast.phantom.ground import Tissue
from her2fast.phantom.optics import PROFILES, UNSEEN, Profile, expose, jittered
from her2fast.phantom.optics import profile_by_name as profile_by_name
from her2fast.phantom.scene import Scene, compose
from her2fast.phantom.stroma import StromaMix
from her2fast.phantom.tumor import MEMBRANE_CUT

__all__ = [
    "MEMBRANE_CUT",
    "PROFILES",
    "UNSEEN",
    "CellTable",
    "Phantom",
    "Profile",
    "Scene",
    "StromaMix",
    "Tissue",
    "compose_scene",
    "develop",
    "profile_by_name",
    "render",
]

#: Fine pixels per pixel, per axis. Membranes and nuclei are drawn by the area of a
#: pixel that they cover, so one is enough at any spacing.
OVERSAMPLING = 1


@dataclass(frozen=True)
class Phantom:
    """A picture and its truth."""

    rgb: npt.NDArray[np.uint8]  # (H, W, 3)
    tumor_mask: npt.NDArray[np.bool_]  # (H, W)
    class_map: npt.NDArray[np.int8]  # (H, W): 0 to 3 on tumor, -1 elsewhere
    tissue: npt.NDArray[np.uint8]  # (H, W): values of `ground.Tissue`
    fractions: tuple[float, float, float, float]  # of the tumor's pixels, in [0, 1]
    spacing_um: float
    profile: Profile
    membrane_mask: npt.NDArray[np.bool_]  # (H, W): membrane DAB above MEMBRANE_CUT
    cells: CellTable


def compose_scene(
    seed: int,
    size_px: tuple[int, int],
    *,
    spacing_um: float = 1.0,
    mixture: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
    tumor: bool = True,
    oversampling: int = OVERSAMPLING,
    mix: StromaMix | None = None,
) -> Scene:
    """Geometry, stains and truth of a phantom, before any laboratory's look.

    `mix` says how probable each thing is that is no tumor; None: the usual ones.
    """
    width, height = size_px
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise ValueError(f"need 16 <= width, height <= 8192, got size_px={size_px}")
    if not 0.2 <= spacing_um <= 2.0:
        raise ValueError(f"need 0.2 <= spacing_um <= 2.0, got {spacing_um}")
    if min(mixture) < 0.0 or len(mixture) != 4 or abs(sum(mixture) - 1.0) > 1e-6:
        raise ValueError(f"need four shares that add to 1, got mixture={mixture}")
    shape = (height * oversampling, width * oversampling)
    return compose(
        seed,
        shape,
        spacing_um / oversampling,
        mixture,
        tumor=tumor,
        oversampling=oversampling,
        mix=mix,
    )


def develop(
    scene: Scene,
    profile: Profile,
    seed: int,
    *,
    spacing_um: float,
    jitter: bool = True,
    oversampling: int | None = None,
) -> Phantom:
    """Photograph a scene; `jitter` moves the profile a little, by `seed`.

    `oversampling` is the scene's own; given, it must be equal.
    """
    step = scene.oversampling
    if oversampling is not None and oversampling != step:
        raise ValueError(f"need oversampling={step} of the scene, got {oversampling}")
    rng = generator(seed, 1 + zlib.crc32(profile.name.encode()))
    look = jittered(profile, rng) if jitter else profile
    rgb = expose(scene.amounts, look, rng, spacing_um=spacing_um, oversampling=step)
    class_map = np.ascontiguousarray(scene.class_map[::step, ::step])
    counts = np.bincount(class_map[class_map >= 0], minlength=4)
    total = max(int(counts.sum()), 1)
    shares = [int(count) / total for count in counts]
    return Phantom(
        rgb,
        class_map >= 0,
        class_map,
        np.ascontiguousarray(scene.tissue[::step, ::step]),
        (shares[0], shares[1], shares[2], shares[3]),
        spacing_um,
        look,
        np.ascontiguousarray(scene.membrane_mask[::step, ::step]),
        scene.cells,
    )


def render(
    seed: int,
    size_px: tuple[int, int],
    *,
    spacing_um: float = 1.0,
    mixture: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
    profile: str | Profile = "reference",
    jitter: bool = True,
    mix: StromaMix | None = None,
) -> Phantom:
    """One phantom: a pure function of its arguments.

    Parameters
    ----------
    seed
        Any non-negative integer.
    size_px
        Width and height of the picture.
    spacing_um
        0.2 to 2.0; membranes keep their width in micrometers.
    mixture
        Wanted shares of 0, 1+, 2+ and 3+ tumor; what came of it is in `fractions`.
    profile
        Stain and scanner: a name from `PROFILES`, or "unseen", or a profile.
    jitter
        Move stain and scanner a little, as from day to day.
    mix
        How probable each thing is that is no tumor; None: the usual ones.

    Returns
    -------
        A `Phantom`.

    Raises
    ------
    ValueError
        A size, spacing or mixture out of range, or an unknown profile.
    """
    look = profile_by_name(profile) if isinstance(profile, str) else profile
    scene = compose_scene(
        seed, size_px, spacing_um=spacing_um, mixture=mixture, mix=mix
    )
    return develop(scene, look, seed, spacing_um=spacing_um, jitter=jitter)
