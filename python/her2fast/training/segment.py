# SPDX-License-Identifier: Apache-2.0
"""`her2fast train segment`: invasive tumor on drawn areas (section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from her2fast.training.augment import Augmentation, normalized
from her2fast.training.config import SegmentConfig
from her2fast.training.extract import IGNORED, TUMOR
from her2fast.training.loop import EpochPlan, epoch_seed
from her2fast.training.losses import focal_loss
from her2fast.training.patches import Pieces, epoch_batches, in_order

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

#: The weight of tumor stays within these, however rare tumor is.
ALPHA_LIMITS = (0.05, 0.95)


class SegmentWork:
    """Weighted focal loss on tiles of 256 px; pixels outside the region are ignored."""

    monitor = "val_loss"
    larger_is_better = False
    fresh_optimizer = False
    frozen_norms = False
    begins_trained = False

    def __init__(
        self,
        fabric: Any,
        config: SegmentConfig,
        train: Pieces,
        val: Pieces,
        statistics: Statistics,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._train, self._val = train, val
        self._statistics = statistics
        self._augmentation = Augmentation(config.augment, "tumor")
        alpha = config.loss.alpha
        self.alpha = balanced_alpha(train) if alpha == "balanced" else float(alpha)

    def begin(self, epoch: int, network: nn.Module) -> EpochPlan:
        """Tiles in random order, sites and scores equally often."""
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
                rgb = torch.from_numpy(self._train.take("rgb", cut)).to(device)
                mask = torch.from_numpy(self._train.take("mask", cut)).to(device)
                rgb, turned = self._augmentation(
                    rgb, epoch_seed(seed, epoch, 2, step, rank), mask
                )
                assert turned is not None
                yield normalized(rgb, *self._statistics), turned

        return EpochPlan(len(cuts), made())

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """Focal loss of the labelled pixels."""
        pictures, mask = batch
        return focal_loss(
            network(pictures)[:, 0],
            (mask == TUMOR).float(),
            alpha=self.alpha,
            gamma=self._config.loss.gamma,
            valid=mask != IGNORED,
        )

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Loss, and Dice, precision and recall of the pixels (Eq. 21) at p >= 0.5.

        Every process computes all of it: the tiles are few, the answer must be one.
        """
        was_training = network.training
        network.eval()
        device = self._fabric.device
        loss = pixels = 0.0
        both = predicted = true = 0
        with torch.inference_mode():
            for part in in_order(len(self._val), self._config.train.batch_size):
                rgb = torch.from_numpy(self._val.take("rgb", part)).to(device)
                mask = torch.from_numpy(self._val.take("mask", part)).to(device)
                valid = mask != IGNORED
                logits = network(normalized(rgb, *self._statistics))[:, 0].float()
                count = float(valid.sum())
                loss += count * float(
                    focal_loss(
                        logits,
                        (mask == TUMOR).float(),
                        alpha=self.alpha,
                        gamma=self._config.loss.gamma,
                        valid=valid,
                    )
                )
                pixels += count
                called = (logits >= 0) & valid
                tumor = mask == TUMOR
                both += int((called & tumor).sum())
                predicted += int(called.sum())
                true += int(tumor.sum())
        network.train(was_training)
        return {
            "val_loss": loss / max(pixels, 1.0),
            "val_dice": 2 * both / max(predicted + true, 1),
            "val_precision": both / max(predicted, 1),
            "val_recall": both / max(true, 1),
        }


def balanced_alpha(train: Pieces) -> float:
    """1 - tumor's share of the labelled training pixels, so that both weigh alike."""
    tumor = labelled = 0
    for arrays in train.arrays:
        for mask in arrays["mask"]:
            tumor += int(np.count_nonzero(mask == TUMOR))
            labelled += int(np.count_nonzero(mask != IGNORED))
    low, high = ALPHA_LIMITS
    return min(max(1.0 - tumor / max(labelled, 1), low), high)
