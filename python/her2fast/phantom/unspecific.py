# SPDX-License-Identifier: Apache-2.0
"""Brown that means nothing and grey of refraction, over tumor and stroma alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import Floats, resize
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid


def draw_edge_artifact(rng: np.random.Generator, grid: Grid, ground: Ground) -> None:
    """DAB that darkens toward glass: 0.04 to 0.35 at the border, gone in 8 to 60 um."""
    step = max(1, round(4.0 / grid.spacing_um))
    glass = ground.tissue[::step, ::step] == Tissue.GLASS
    if not glass.any() or glass.all():
        return
    away_um = ndimage.distance_transform_edt(~glass).astype(np.float32)
    away_um *= np.float32(step * grid.spacing_um)
    coarse = Grid.over(glass.shape, grid.spacing_um * step)
    uneven = np.clip(0.7 + 0.6 * coarse.noise(rng, 120.0), 0.0, 1.6)
    brown = rng.uniform(0.04, 0.35) * np.exp(-away_um / rng.uniform(8.0, 60.0)) * uneven
    brown_fine = resize(brown.astype(np.float32), grid.shape)
    # Where there is more to stain, more sticks: nuclei and fibers stay visible.
    thick = np.clip(0.5 + 4.0 * ground.hematoxylin, 0.0, 1.6)
    thick[ground.tissue == Tissue.GLASS] = 0.0
    thick[ground.tissue == Tissue.LUMEN] *= 0.1
    ground.dab[:] += brown_fine * thick


def draw_nuclear_dab(
    rng: np.random.Generator, grid: Grid, ground: Ground, within: npt.NDArray[np.bool_]
) -> None:
    """Brown nuclei in some areas, of any tissue: nothing of a membrane in it."""
    step = max(1, round(2.0 / grid.spacing_um))
    local = ndimage.uniform_filter(ground.hematoxylin[::step, ::step], 11)
    above = ground.hematoxylin - np.float32(1.15) * resize(local, grid.shape)
    field = np.clip(
        grid.noise(rng, rng.uniform(40.0, 150.0)) + rng.uniform(-0.5, 1.5), 0, 1
    )
    np.clip(above, 0.0, 0.5, out=above)
    brown: Floats = np.float32(rng.uniform(0.8, 4.0)) * above * field.astype(np.float32)
    brown[~within] = 0.0
    ground.dab[:] += np.minimum(brown, np.float32(0.9))
    covered = np.float32(rng.uniform(0.2, 0.8))
    ground.hematoxylin[:] -= covered * np.minimum(brown, ground.hematoxylin)


def draw_veil(rng: np.random.Generator, grid: Grid, ground: Ground) -> None:
    """A thin brown haze: it sticks to what is there, little to loose tissue and fat."""
    veil = rng.uniform(0.0, 0.05) * np.clip(1.0 + grid.noise(rng, 80.0), 0.0, 2.5)
    veil *= np.clip(25.0 * ground.hematoxylin, 0.1, 1.0)
    bare = (ground.tissue == Tissue.GLASS) | (ground.tissue == Tissue.LUMEN)
    veil[bare] *= 0.3
    ground.dab[:] += veil.astype(np.float32)


def draw_refraction(rng: np.random.Generator, grid: Grid, ground: Ground) -> None:
    """Thin grey lines where density changes: borders of tissue, fibers and nuclei.

    0.03 to 0.25 um times the slope of hematoxylin's density, at most 0.12.
    """
    tissue = ground.hematoxylin
    strength = np.float32(rng.uniform(0.03, 0.25) / grid.spacing_um)
    most = np.float32(0.06)
    for axis in (0, 1):
        slope = np.abs(np.diff(tissue, axis=axis))
        slope *= strength
        np.minimum(slope, most, out=slope)
        ahead = ground.pigment[1:] if axis == 0 else ground.pigment[:, 1:]
        ahead += slope


def draw_brown_stroma(rng: np.random.Generator, grid: Grid, ground: Ground) -> None:
    """Fibers and muscle that bind DAB, in areas: 0.2 to 1.8 times their hematoxylin."""
    field = grid.noise(rng, rng.uniform(60.0, 250.0)) + rng.uniform(-0.5, 1.5)
    kinds = (Tissue.STROMA, Tissue.MUSCLE, Tissue.VESSEL, Tissue.FAT)
    brown = np.float32(rng.uniform(0.2, 1.8)) * np.clip(field, 0.0, 1.0)
    brown *= np.minimum(ground.hematoxylin, np.float32(0.12))
    brown[~np.isin(ground.tissue, kinds)] = 0.0
    ground.dab[:] += brown
