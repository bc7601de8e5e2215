# SPDX-License-Identifier: Apache-2.0
"""Changes of stain and scanner that a network must bear.

Pictures are taken apart into hematoxylin, DAB and a residual by Beer and Lambert, each
is given another strength and another color, and light is put together again. Where DAB
is taken away at random, a segmenter cannot lean on it: unstained tumor is tumor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from her2fast.phantom import PROFILES, Profile
from her2fast.phantom.optics import DAB, HEMATOXYLIN, bluish, brownish, turned


@dataclass(frozen=True)
class Spread:
    """How far a batch's looks lie apart; the names say what is moved."""

    hematoxylin: float = 0.25  # sigma of the logarithm of its strength
    dab: float = 0.12
    vector: float = 0.03  # sigma of each stain's direction
    gamma: float = 0.06
    balance: float = 0.025  # sigma of each channel's light
    no_dab: float = 0.0  # share of the pictures that lose most of their DAB
    soften: float = 0.3  # share of the pictures that are blurred
    sharpen: float = 0.3
    noise: float = 0.010  # largest sigma of the noise, of full light
    defocus: float = 0.0  # share of the pictures out of focus
    defocus_px: float = 2.5  # their largest sigma


#: Density where light would fall under a thousandth.
DARKEST = 6.9
#: Where a Gaussian is cut off.
REACH_SIGMAS = 2.5
#: Items of a batch that share a draw of grain, which is most of the random numbers.
SHARED_GRAINS = 8

#: Strength of DAB is what a class is: little may be moved.
FOR_CLASSES = Spread()
#: Tumor is tumor whatever its stain.
FOR_TUMOR = Spread(dab=0.4, no_dab=0.25)
#: A membrane is one however strong its stain; yet the truth has a cut in density. At
#: 0.25 um/px scanners differ most in sharpness.
FOR_MEMBRANES = Spread(dab=0.1, hematoxylin=0.3, defocus=0.3)


def wide_profile(rng: np.random.Generator) -> Profile:
    """A laboratory and a scanner that no list names."""
    base = PROFILES[int(rng.integers(len(PROFILES)))]
    light = np.array(base.white_rgb) + rng.normal(0.0, 5.0) + rng.normal(0.0, 3.0, 3)
    light = np.clip(light, 212.0, 254.0)
    return replace(
        base,
        name=f"wide-{base.name}",
        white_rgb=(float(light[0]), float(light[1]), float(light[2])),
        hematoxylin=turned(rng, base.hematoxylin, 0.04),
        dab=turned(rng, base.dab, 0.03),
        hematoxylin_gain=_times(rng, base.hematoxylin_gain, 0.25),
        dab_gain=_times(rng, base.dab_gain, 0.10),
        gamma=_times(rng, base.gamma, 0.06),
        blur_um=base.blur_um * float(rng.uniform(0.6, 2.0)),
        sharpen=max(0.0, base.sharpen + float(rng.uniform(-0.2, 0.4))),
        noise=base.noise * float(rng.uniform(0.4, 2.2)),
        jpeg_quality=int(rng.integers(60, 96)),
    )


def any_laboratory(rng: np.random.Generator) -> Profile:
    """As far from the eight laboratories as others may be: wider than `wide_profile`.

    Strength of hematoxylin, sharpness and noise do not hang on the laboratory that the
    stains' colors come from.
    """
    base = PROFILES[int(rng.integers(len(PROFILES)))]
    light = rng.uniform(216.0, 250.0) + rng.normal(0.0, 3.5, 3)
    light = np.clip(light, 210.0, 254.0)
    return replace(
        base,
        name="any",
        white_rgb=(float(light[0]), float(light[1]), float(light[2])),
        hematoxylin=bluish(turned(rng, base.hematoxylin, 0.06)),
        dab=brownish(turned(rng, base.dab, 0.04)),
        hematoxylin_gain=_even_in_logarithms(rng, 0.5, 2.2),
        dab_gain=_times(rng, base.dab_gain, 0.12),
        gamma=_times(rng, 1.0, 0.08),
        blur_um=_even_in_logarithms(rng, 0.12, 1.0),
        sharpen=float(rng.uniform(0.0, 0.6)),
        noise=_even_in_logarithms(rng, 0.4, 3.0),
        chroma_blur_um=float(rng.uniform(0.1, 0.9)),
    )


def _times(rng: np.random.Generator, value: float, spread: float) -> float:
    return value * float(np.exp(rng.normal(0.0, spread)))


def _even_in_logarithms(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _stains() -> torch.Tensor:
    """(3, 3): unit rows of hematoxylin, DAB and what neither explains."""
    hematoxylin = torch.tensor(HEMATOXYLIN) / torch.tensor(HEMATOXYLIN).norm()
    dab = torch.tensor(DAB) / torch.tensor(DAB).norm()
    residual = torch.linalg.cross(hematoxylin, dab)
    return torch.stack([hematoxylin, dab, residual / residual.norm()])


def _near_one(
    shape: tuple[int, ...], spread: float, random: torch.Generator
) -> torch.Tensor:
    drawn = torch.randn(shape, generator=random) * spread
    return drawn.clamp(-2.0 * spread, 2.0 * spread).exp()


def augment(
    rgb: torch.Tensor, random: torch.Generator, spread: Spread = FOR_CLASSES
) -> torch.Tensor:
    """Other stain, other scanner: (N, H, W, 3) uint8 in, the same out.

    Stains are taken apart, changed and put together by one matrix an item, and color
    planes are kept apart: that is three times as fast on a CPU.
    """
    count, height, width, _ = rgb.shape
    planes = rgb.permute(0, 3, 1, 2).contiguous().flatten(2)
    density = -torch.log(planes.float().clamp_(min=1.0).mul_(1.0 / 255.0))
    stains = _stains()
    strength = torch.cat(
        [
            _near_one((count, 1), spread.hematoxylin, random),
            _near_one((count, 1), spread.dab, random),
            torch.rand((count, 1), generator=random) + 0.3,
        ],
        1,
    )
    bare = torch.rand(count, generator=random) < spread.no_dab
    left = 0.3 * torch.rand(count, generator=random)
    strength[:, 1] = torch.where(bare, left, strength[:, 1])
    turned = stains + torch.randn((count, 3, 3), generator=random) * spread.vector
    apart = torch.linalg.inv(stains)
    change = (apart * strength[:, None, :]) @ turned
    density = change.transpose(1, 2) @ density
    # Light times balance to the power of gamma, in logarithms.
    density -= _near_one((count, 3, 1), spread.balance, random).log()
    density *= _near_one((count, 1, 1), spread.gamma, random)
    light = torch.exp(-density.clamp_(max=DARKEST)).reshape(count, 3, height, width)

    if spread.defocus > 0.0:
        out = torch.rand(count, generator=random) < spread.defocus
        sigma = spread.defocus_px * torch.rand(count, generator=random)
        far = torch.nonzero(out).flatten()
        if len(far):
            light[far] = _gaussian(light[far], sigma[far])
    pick = torch.rand(count, generator=random)
    amount = torch.rand(count, generator=random)
    blur = torch.where(pick < spread.soften, amount, torch.zeros(count))
    sharp = torch.where(pick > 1.0 - spread.sharpen, 1.2 * amount, torch.zeros(count))
    moved = torch.nonzero(blur != sharp).flatten()
    if len(moved):
        part = light[moved]
        weight = (blur - sharp)[moved, None, None, None]
        light[moved] = part + (_box3(part) - part) * weight
    sigma = spread.noise * torch.rand((count, 1, 1, 1), generator=random)
    grains = torch.randn(
        (-(-count // SHARED_GRAINS), 3, height, width), generator=random
    )
    light += sigma * grains[torch.randint(len(grains), (count,), generator=random)]
    mixed = light.mul_(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    return mixed.permute(0, 2, 3, 1).contiguous()


def _gaussian(planes: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) blurred, each item by its own sigma; the border is repeated."""
    reach = max(1, math.ceil(REACH_SIGMAS * float(sigma_px.max())))
    away = torch.arange(-reach, reach + 1, dtype=planes.dtype)
    weights = torch.exp(-0.5 * (away / sigma_px[:, None].clamp(min=0.05)) ** 2)
    weights /= weights.sum(1, keepdim=True)
    # Items are the channels of the convolution, so that each has its own weights.
    items = planes.transpose(0, 1)
    rows = functional.pad(items, (reach, reach, 0, 0), mode="replicate")
    rows = functional.conv2d(rows, weights[:, None, None, :], groups=len(planes))
    both = functional.pad(rows, (0, 0, reach, reach), mode="replicate")
    both = functional.conv2d(both, weights[:, None, :, None], groups=len(planes))
    return both.transpose(0, 1)


def _box3(planes: torch.Tensor) -> torch.Tensor:
    """Mean of 3 x 3 pixels; at the border of those that are there."""
    rows = planes.clone()
    rows[:, :, 1:] += planes[:, :, :-1]
    rows[:, :, :-1] += planes[:, :, 1:]
    both = rows.clone()
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    height, width = planes.shape[2:]
    return both.div_(_neighbors(height)[:, None] * _neighbors(width)[None])


def _neighbors(length: int) -> torch.Tensor:
    """How many of a pixel and its two neighbors along a side are there."""
    counts = torch.full((length,), 3.0)
    counts[0] -= 1.0
    counts[-1] -= 1.0
    return counts
