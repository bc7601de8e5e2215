# SPDX-License-Identifier: Apache-2.0
"""Augmentation of batches: turns and flips per item, colors and blur per small group.

The paper's list (section 3.4): rotation, flipping, brightness, contrast, blur, hue and
saturation; and, where asked for, compression (coding.py). Everything drawn follows from
one seed, so a resumed run sees the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch

from her2fast.training.coding import SCANNERS, Coding, code, code_twice
from her2fast.training.config_sections import Augment
from her2fast.training.vision import submodule

Task = Literal["classes", "tumor", "membranes"]


class Augmentation:
    """Changes (N, H, W, 3) uint8 pictures, and masks with them.

    `task` says how far other looks may go: what a class is must not be moved.
    """

    def __init__(self, config: Augment, task: Task) -> None:
        self.config = config
        self._task = task
        # torchvision: contrast and the rest by factors near 1, hue by a shift
        self._functional = submodule("transforms.v2.functional")

    def __call__(
        self, rgb: torch.Tensor, seed: int, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pictures, and masks (N, H, W) turned alike; the same seed, the same result.

        Raises `ValueError` where pictures are not square.
        """
        random = torch.Generator().manual_seed(seed)
        rgb, mask = self._scanned(rgb, random, mask)
        return self._coded(rgb, random), mask

    def twice(
        self, rgb: torch.Tensor, seed: int, *, finer: bool = False
    ) -> torch.Tensor:
        """(2 N, H, W, 3): every picture as in a call, coded in two ways.

        The first half is what a call gives. `finer` pictures are (N, 2 H, 2 W, 3), at
        half of the spacing (coding.py).
        """
        random = torch.Generator().manual_seed(seed)
        rgb, _ = self._scanned(rgb, random, None)
        return code_twice(rgb, random, self._coding(), finer=finer)

    def _scanned(
        self, rgb: torch.Tensor, random: torch.Generator, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """All but the file: stain, scanner, turns, colors, blur."""
        if rgb.ndim != 4 or rgb.shape[1] != rgb.shape[2] or rgb.shape[3] != 3:
            raise ValueError(
                f"need pictures of shape (N, side, side, 3), got {tuple(rgb.shape)}"
            )
        if self.config.looks:
            rgb = _other_looks(rgb, random, self._task)
        turns = torch.randint(4, (len(rgb),), generator=random)
        flips = torch.randint(2, (len(rgb),), generator=random)
        if not self.config.rotations:
            turns.zero_()
        if not self.config.flips:
            flips.zero_()
        rgb = _turned(rgb, turns, flips)
        mask = None if mask is None else _turned(mask, turns, flips)
        return self._colored(rgb, random), mask

    def _coded(self, rgb: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        if self.config.jpeg_share == 0:
            return rgb
        # Last, as in a scanner: the stain is there before the file.
        return code(rgb, random, self._coding())

    def _coding(self) -> Coding:
        return replace(SCANNERS, share=self.config.jpeg_share)

    def _colored(self, rgb: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        config, change = self.config, self._functional
        planes = rgb.permute(0, 3, 1, 2)
        parts = []
        for part in torch.split(planes, config.group):
            drawn = torch.rand(6, generator=random).tolist()
            for strength, value, adjust in (
                (config.brightness, drawn[0], change.adjust_brightness),
                (config.contrast, drawn[1], change.adjust_contrast),
                (config.saturation, drawn[2], change.adjust_saturation),
            ):
                if strength > 0:
                    part = adjust(part, 1.0 + strength * (2.0 * value - 1.0))
            if config.hue > 0:
                part = change.adjust_hue(part, config.hue * (2.0 * drawn[3] - 1.0))
            if drawn[4] < config.blur_share:
                sigma_px = config.blur_sigma_px * max(drawn[5], 0.1)
                side_px = 2 * max(1, math.ceil(2.0 * sigma_px)) + 1
                part = change.gaussian_blur(part, [side_px, side_px], [sigma_px] * 2)
            parts.append(part)
        return torch.cat(parts).permute(0, 2, 3, 1)


def _other_looks(
    rgb: torch.Tensor, random: torch.Generator, task: Task
) -> torch.Tensor:
    # Needs SciPy through the generator's stains, so only where it is asked for.
    from her2fast.training import looks

    spread = {
        "classes": looks.FOR_CLASSES,
        "tumor": looks.FOR_TUMOR,
        "membranes": looks.FOR_MEMBRANES,
    }[task]
    return looks.augment(rgb.cpu(), random, spread).to(rgb.device)


def _turned(
    pictures: torch.Tensor, turns: torch.Tensor, flips: torch.Tensor
) -> torch.Tensor:
    """Quarter turns, then a mirror image, for every picture (N, side, side, ...)."""
    out = torch.empty_like(pictures)
    for turn in range(4):
        for flip in range(2):
            chosen = torch.nonzero((turns == turn) & (flips == flip)).flatten()
            if len(chosen) == 0:
                continue
            chosen = chosen.to(pictures.device)
            part = torch.rot90(pictures[chosen], turn, (1, 2))
            out[chosen] = part.flip(2) if flip else part
    return out


def normalized(
    rgb: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, channels-last, as a package does."""
    values = rgb.to(torch.float32).div_(255.0)
    values -= torch.tensor(mean, device=rgb.device)
    values /= torch.tensor(std, device=rgb.device)
    return values.permute(0, 3, 1, 2)
