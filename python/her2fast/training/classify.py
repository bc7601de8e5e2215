# SPDX-License-Identifier: Apache-2.0
"""What the stages of the patch classifier share: tables, predictions, slide figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from her2fast.guidelines import decide
from her2fast.kernels.training import calibration_loss
from her2fast.manifest import LABELS
from her2fast.training.augment import normalized
from her2fast.training.patches import Pieces, in_order, to_device

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]

CLASSES = len(LABELS)
#: Patches a forward pass, where nothing is trained.
PREDICT_BATCH = 512


def predict(
    fabric: Any,
    network: nn.Module,
    pieces: Pieces,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> Floats:
    """(n, 4) logits of every patch, without augmentation; the work is shared."""
    was_training = network.training
    network.eval()
    total = len(pieces)
    ranks, rank = fabric.world_size, fabric.global_rank
    each = -(-total // ranks)
    mine = np.arange(rank * each, min((rank + 1) * each, total), dtype=np.int64)
    out = torch.zeros(each, CLASSES, device=fabric.device)
    with torch.inference_mode():
        for part in in_order(len(mine), PREDICT_BATCH):
            rgb = to_device(pieces.take("rgb", mine[part]), fabric.device)
            logits = network(normalized(rgb, *statistics))
            out[part[0] : part[-1] + 1] = logits.float()
    if ranks > 1:
        shares = [torch.empty_like(out) for _ in range(ranks)]
        torch.distributed.all_gather(shares, out)
        out = torch.cat(shares)
    network.train(was_training)
    logits_table = np.ascontiguousarray(out[:total].cpu().numpy())
    if not np.isfinite(logits_table).all():
        raise ArithmeticError("the network gives logits that are not finite")
    return logits_table


def hard_labels(pieces: Pieces) -> Longs:
    """The label of every slide; they were checked when the cohort was read."""
    return np.array([slide.label for slide in pieces.slides], np.int64)


def slide_figures(logits: Floats, pieces: Pieces) -> dict[str, float]:
    """How well slides obey their labels: loss of the limits, accuracy, macro-F1."""
    tumor = pieces.column("tumor_px").astype(np.uint32)
    labels = hard_labels(pieces)
    loss, broken = calibration_loss(
        logits, tumor, pieces.offsets, labels, (1.0, 1.0, 1.0, 1.0)
    )
    predicted = slide_scores(class_areas(logits.argmax(1), tumor, pieces.offsets))
    return {
        "limit_loss": loss / len(labels),
        "broken_slides": float(broken),
        "slide_accuracy": float((predicted == labels).mean()),
        "slide_macro_f1": macro_f1(labels, predicted),
    }


def class_areas(
    classes: npt.NDArray[Any], tumor_px: npt.NDArray[np.uint32], offsets: Longs
) -> Longs:
    """(slides, 4) tumor pixels by class."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    out = np.zeros((len(offsets) - 1, CLASSES), np.int64)
    np.add.at(out, (owner, classes.astype(np.int64)), tumor_px.astype(np.int64))
    return out


def slide_scores(areas: Longs, rule_set: str = "pham-2022") -> Longs:
    """The score of every slide by a guideline, as the core decides it."""
    scores = []
    for row in areas.tolist():
        score = decide(tuple(row), rule_set=rule_set).score
        scores.append(-1 if score is None else LABELS.index(score))
    return np.array(scores, np.int64)


def macro_f1(truth: Longs, predicted: Longs) -> float:
    """Mean F1 over the classes that occur in either."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", zero_division=0.0))
