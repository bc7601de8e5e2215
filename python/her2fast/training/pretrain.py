# SPDX-License-Identifier: Apache-2.0
"""`her2fast train pretrain`: every patch gets its slide's label (section 3.5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from her2fast.training.augment import Augmentation, normalized
from her2fast.training.classify import Floats, predict, slide_figures
from her2fast.training.config import PretrainConfig
from her2fast.training.loop import EpochPlan, epoch_seed
from her2fast.training.losses import disagreement, soft_cross_entropy
from her2fast.training.patches import Longs, Pieces, epoch_batches, to_device

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
#: Pieces by their numbers, (n, 2 side, 2 side, 3) at half of their spacing.
FinerPieces = Callable[[Longs], npt.NDArray[np.uint8]]


class PretrainWork:
    """Cross-entropy of patches to their slide's label, or its readers' shares."""

    monitor = "val_accuracy"
    larger_is_better = True
    fresh_optimizer = False
    frozen_norms = False
    begins_trained = False

    def __init__(
        self,
        fabric: Any,
        config: PretrainConfig,
        train: Pieces,
        val: Pieces,
        statistics: Statistics,
        targets: tuple[Floats, Floats] | None = None,
        finer: FinerPieces | None = None,
    ) -> None:
        """`targets` are (n, 4) class shares of every patch of train and val, where
        patches have labels of their own; else each has its slide's. `finer` gives the
        pictures of `train` that are coded; else those of `train` are.
        """
        if finer is not None and config.augment.jpeg_agreement == 0:
            raise ValueError("need jpeg_agreement > 0 with finer pictures")
        self._finer = finer
        self._fabric = fabric
        self._config = config
        self._train, self._val = train, val
        self._statistics = statistics
        self._augmentation = Augmentation(config.augment, "classes")
        self._targets, self._val_targets = targets or (
            slide_targets(train),
            slide_targets(val),
        )

    def begin(self, epoch: int, network: nn.Module) -> EpochPlan:
        """Patches in random order, balanced where asked."""
        seed, rank = self._config.run.seed, self._fabric.global_rank
        cuts = epoch_batches(
            self._train,
            self._config.train,
            seed=epoch_seed(seed, epoch, 1),
            rank=rank,
            ranks=self._fabric.world_size,
        )

        def made() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for step, cut in enumerate(cuts):
                if self._finer is None:
                    taken = self._train.take("rgb", cut)
                else:
                    taken = self._finer(cut)
                rgb = torch.from_numpy(taken).to(self._fabric.device)
                drawn = epoch_seed(seed, epoch, 2, step, rank)
                if self._config.augment.jpeg_agreement > 0:
                    finer = self._finer is not None
                    rgb = self._augmentation.twice(rgb, drawn, finer=finer)
                else:
                    rgb, _ = self._augmentation(rgb, drawn)
                yield (
                    normalized(rgb, *self._statistics),
                    to_device(self._targets[cut], self._fabric.device),
                )

        return EpochPlan(len(cuts), made())

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """Cross-entropy; of pictures coded in two ways both, and what they disagree."""
        pictures, target = batch
        logits = network(pictures)
        weight = self._config.augment.jpeg_agreement
        if weight == 0:
            return soft_cross_entropy(logits, target)
        first, second = logits.chunk(2)
        both = soft_cross_entropy(logits, target.repeat(2, 1))
        return both + weight * disagreement(first, second)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Accuracy of patches against their targets, and the slides' figures."""
        logits = predict(self._fabric, network, self._val, self._statistics)
        target = self._val_targets
        loss = soft_cross_entropy(torch.from_numpy(logits), torch.from_numpy(target))
        correct = logits.argmax(1) == target.argmax(1)
        figures = {"val_accuracy": float(correct.mean()), "val_loss": float(loss)}
        if all(slide.label is not None for slide in self._val.slides):
            figures |= slide_figures(logits, self._val)
        return figures


def slide_targets(pieces: Pieces) -> Floats:
    """(n, 4): the label of the slide, or its readers' shares, for every patch."""
    shares = np.array([slide.shares for slide in pieces.slides], np.float32)
    return shares[pieces.slide_of(np.arange(len(pieces)))]
