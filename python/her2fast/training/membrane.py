# SPDX-License-Identifier: Apache-2.0
"""`her2fast train membrane`: stained membrane on masks (Khameneh et al., 2.5, 2.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from her2fast.training.augment import Augmentation, normalized
from her2fast.training.config import MembraneConfig
from her2fast.training.extract import IGNORED, TUMOR
from her2fast.training.loop import EpochPlan, epoch_seed
from her2fast.training.membrane_loss import membrane_loss
from her2fast.training.patches import Pieces, epoch_batches, in_order

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Counts = npt.NDArray[np.int64]

#: A mask's value of stained membrane: what is drawn is 1, as tumor is.
MEMBRANE = TUMOR
#: The weight of membrane stays within these, however rare membrane is.
BETA_LIMITS = (0.05, 0.98)
#: Cuts that validation tries: logits from -LARGEST to LARGEST, and how fine.
LARGEST_CUT, CUTS_PER_UNIT = 8, 16


class MembraneWork:
    """Tiles with masks of membrane; pixels outside the region are ignored."""

    monitor = "val_dice"
    larger_is_better = True
    fresh_optimizer = False
    frozen_norms = False
    begins_trained = False

    def __init__(
        self,
        fabric: Any,
        config: MembraneConfig,
        train: Pieces,
        val: Pieces,
        statistics: Statistics,
        match: nn.Module | None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._train, self._val = train, val
        self._statistics = statistics
        self._match = None if match is None else match.to(fabric.device)
        self._augmentation = Augmentation(config.augment, "membranes")
        beta = config.loss.beta
        self.beta = balanced_beta(train) if beta == "balanced" else float(beta)

    def begin(self, epoch: int, network: nn.Module) -> EpochPlan:
        """Tiles in random order, turned and recolored."""
        seed, rank = self._config.run.seed, self._fabric.global_rank
        cuts = epoch_batches(
            self._train,
            self._config.train,
            seed=epoch_seed(seed, epoch, 1),
            rank=rank,
            ranks=self._fabric.world_size,
        )

        def made() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            device = self._fabric.device
            for step, cut in enumerate(cuts):
                rgb = torch.from_numpy(self._train.take("rgb", cut))
                mask = torch.from_numpy(self._train.take("mask", cut))
                rgb, turned = self._augmentation(
                    rgb.to(device), epoch_seed(seed, epoch, 2, step, rank), mask
                )
                assert turned is not None
                yield self._input(rgb), turned.to(device)

        return EpochPlan(len(cuts), made())

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """Eq. 3, over the labelled pixels."""
        pictures, mask = batch
        loss = self._config.loss
        return membrane_loss(
            network(pictures),
            mask == MEMBRANE,
            beta=self.beta,
            edge_weight=loss.edge_weight,
            edge_px=loss.edge_px,
            valid=mask != IGNORED,
        )

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Loss, and Dice, precision and recall of membrane pixels at the best cut.

        `val_cut` is that cut, a logit; `val_dice_half` is the Dice at 0. Every process
        computes all of it: the tiles are few, the answer must be one.
        """
        was_training = network.training
        network.eval()
        device = self._fabric.device
        loss, seen = 0.0, 0
        counts = np.zeros((2, 2 * LARGEST_CUT * CUTS_PER_UNIT + 2), np.int64)
        with torch.inference_mode():
            for part in in_order(len(self._val), self._config.train.batch_size):
                rgb = torch.from_numpy(self._val.take("rgb", part)).to(device)
                mask = torch.from_numpy(self._val.take("mask", part)).to(device)
                outputs = network(self._input(rgb)).float()
                loss += len(part) * float(
                    membrane_loss(
                        outputs,
                        mask == MEMBRANE,
                        beta=self.beta,
                        edge_weight=self._config.loss.edge_weight,
                        edge_px=self._config.loss.edge_px,
                        valid=mask != IGNORED,
                    )
                )
                seen += len(part)
                counts += counts_by_logit(outputs[:, 0], mask)
        network.train(was_training)
        return {"val_loss": loss / max(seen, 1), **figures_by_cut(counts)}

    def _input(self, rgb: torch.Tensor) -> torch.Tensor:
        pictures = normalized(rgb, *self._statistics)
        if self._match is None:
            return pictures
        matched: torch.Tensor = self._match(pictures)
        return matched.contiguous(memory_format=torch.channels_last)


def counts_by_logit(logits: torch.Tensor, mask: torch.Tensor) -> Counts:
    """(2, bins) pixels that are no membrane, and that are, in bins of their logit.

    Bin 0 lies below every cut; bin k >= 1 begins at cut k - 1.
    """
    bins = 2 * LARGEST_CUT * CUTS_PER_UNIT + 1
    # Scaled before anything is added: exact, also a hair below a cut.
    place = torch.floor(logits.float() * CUTS_PER_UNIT) + LARGEST_CUT * CUTS_PER_UNIT
    place = (place + 1).clamp(0, bins).long()
    rows = [
        torch.bincount(place[mask == value], minlength=bins + 1).cpu().numpy()
        for value in (0, MEMBRANE)
    ]
    return np.stack(rows).astype(np.int64)


def figures_by_cut(counts: Counts) -> dict[str, float]:
    """The best cut by Dice, and what is right there; the lower of two as good."""
    # Pixels at or above each cut.
    above = counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    false, right = above
    true = int(counts[1].sum())
    dice = 2 * right / np.maximum(right + false + true, 1)
    best = int(dice.argmax())
    half = LARGEST_CUT * CUTS_PER_UNIT
    return {
        "val_dice": float(dice[best]),
        "val_precision": float(right[best] / max(int(right[best] + false[best]), 1)),
        "val_recall": float(right[best] / max(true, 1)),
        "val_cut": best / CUTS_PER_UNIT - LARGEST_CUT,
        "val_dice_half": float(dice[half]),
    }


def balanced_beta(train: Pieces) -> float:
    """K1: the share of background among the labelled training pixels."""
    membrane = labelled = 0
    for arrays in train.arrays:
        for mask in arrays["mask"]:
            membrane += int(np.count_nonzero(mask == MEMBRANE))
            labelled += int(np.count_nonzero(mask != IGNORED))
    low, high = BETA_LIMITS
    return min(max(1.0 - membrane / max(labelled, 1), low), high)
