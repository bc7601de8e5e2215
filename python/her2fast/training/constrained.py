# SPDX-License-Identifier: Apache-2.0
"""`her2fast train constrained`: the patches that break a slide's limits (3.5.3).

Per epoch: classify every patch, select with `constraint_select`, train on the selection
alone. Read by P1 to P18 of docs/decisions/pham.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from her2fast.kernels.training import (
    ConstraintSelection,
    PatchAction,
    constraint_select,
)
from her2fast.training.augment import Augmentation, normalized
from her2fast.training.classify import Floats, hard_labels, predict, slide_figures
from her2fast.training.config import ConstrainedConfig
from her2fast.training.loop import EpochPlan, epoch_seed
from her2fast.training.losses import admissible_classes, partial_label_loss
from her2fast.training.patches import Pieces, batches, to_device
from her2fast.training.run_folder import RunFolder

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class ConstrainedWork:
    """Partial labels for what is in excess, the slide's label for what is missing."""

    # P16: the partial loss has a floor, so the limits themselves are watched.
    monitor = "limit_loss"
    larger_is_better = False
    fresh_optimizer = True
    frozen_norms = True
    begins_trained = True

    def __init__(
        self,
        fabric: Any,
        config: ConstrainedConfig,
        train: Pieces,
        val: Pieces,
        statistics: Statistics,
        run: RunFolder,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._train, self._val = train, val
        self._statistics = statistics
        self._run = run
        self._augmentation = Augmentation(config.augment, "classes")
        self._tumor_px = train.column("tumor_px").astype(np.uint32)
        self._labels = hard_labels(train)

    def begin(self, epoch: int, network: nn.Module) -> EpochPlan | None:
        """Classify, select, write what was selected; None where no limit is broken."""
        config = self._config
        logits = predict(self._fabric, network, self._train, self._statistics)
        found = constraint_select(
            logits,
            self._tumor_px,
            self._train.offsets,
            self._labels,
            neighbors=config.constraints.neighbors,
            workers=config.compute.workers,
        )
        chosen = np.flatnonzero(found.action != PatchAction.NONE)
        if self._fabric.is_global_zero:
            self._run.write_selected(epoch, self._columns(found, chosen, logits))
        if len(chosen) == 0:
            return None
        seed = config.run.seed
        rng = np.random.default_rng(epoch_seed(seed, epoch, 1))
        shuffled = chosen[rng.permutation(len(chosen))]
        rank = self._fabric.global_rank
        cuts = batches(
            shuffled,
            config.train.batch_size,
            rank=rank,
            ranks=self._fabric.world_size,
            whole=False,
        )
        if not cuts:  # fewer patches than processes
            cuts = [shuffled]
        weights = self._weights(chosen)

        def made() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
            device = self._fabric.device
            for step, cut in enumerate(cuts):
                rgb = torch.from_numpy(self._train.take("rgb", cut)).to(device)
                rgb, _ = self._augmentation(rgb, epoch_seed(seed, epoch, 2, step, rank))
                bits = to_device(found.admissible[cut].astype(np.int64), device)
                yield (
                    normalized(rgb, *self._statistics),
                    admissible_classes(bits),
                    to_device(weights[cut], device),
                )

        owner = self._train.slide_of(chosen)
        return EpochPlan(
            len(cuts),
            made(),
            {
                "selected": float(len(chosen)),
                "pushed": float((found.action == PatchAction.UPPER).sum()),
                "pulled": float((found.action == PatchAction.LOWER).sum()),
                "selected_slides": float(len(np.unique(owner))),
            },
        )

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """Eq. 15 read by P1: with one admissible class this is cross-entropy to it."""
        pictures, admissible, weights = batch
        each = partial_label_loss(network(pictures), admissible, reduction="none")
        mean: torch.Tensor = (each * weights).mean()
        return mean

    def validate(self, network: nn.Module) -> dict[str, float]:
        """How well the slides of val obey their labels."""
        logits = predict(self._fabric, network, self._val, self._statistics)
        return slide_figures(logits, self._val)

    def _weights(self, chosen: np.ndarray[Any, Any]) -> Floats:
        """Per patch, mean 1 over the selection: equal, or equal sums per slide."""
        weights = np.zeros(len(self._train), np.float32)
        weights[chosen] = 1.0
        if self._config.constraints.average == "slide":
            owner = self._train.slide_of(chosen)
            counts = np.bincount(owner, minlength=len(self._train.slides))
            slides = np.count_nonzero(counts)
            weights[chosen] = len(chosen) / (slides * counts[owner])
        return weights

    def _columns(
        self, found: ConstraintSelection, chosen: Any, logits: Floats
    ) -> dict[str, Any]:
        owner = self._train.slide_of(chosen)
        names = np.array([slide.id for slide in self._train.slides], object)
        kept = {
            "slide": names[owner].tolist(),
            "row": self._train.column("row")[chosen],
            "column": self._train.column("column")[chosen],
            "tumor_px": self._tumor_px[chosen],
            "label": self._labels[owner].astype(np.int8),
            "action": found.action[chosen],
            "class_id": found.class_id[chosen],
            "admissible": found.admissible[chosen],
        }
        return kept | {
            f"logit_{kind}": logits[chosen, kind] for kind in range(logits.shape[1])
        }
