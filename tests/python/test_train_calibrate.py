# SPDX-License-Identifier: Apache-2.0
"""Calibration: the guard, what a package can store, the identity."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.kernels.training import calibration_loss
from her2fast.manifest import Entry
from her2fast.training.calibrate import STEP, calibrated, fit_calibration
from her2fast.training.cohort import TrainingSlide
from her2fast.training.config_sections import Calibration
from her2fast.training.patches import Pieces


def _pieces(labels: list[int], patches: int) -> Pieces:
    slides = tuple(
        TrainingSlide(str(i), Entry(str(i)), label, None, "val")
        for i, label in enumerate(labels)
    )
    arrays = tuple({"tumor_px": np.full(patches, 4096, np.uint32)} for _ in labels)
    offsets = np.arange(len(labels) + 1, dtype=np.int64) * patches
    return Pieces(slides, arrays, offsets)


def _sure(kinds: list[int]) -> Any:
    logits = np.zeros((len(kinds), 4), np.float32)
    logits[np.arange(len(kinds)), kinds] = 2.0
    return logits


def test_a_shift_is_undone() -> None:
    """Slides of 0 whose least sure patches are called 1+: an offset mends it."""
    zero = np.zeros((20, 4), np.float32)
    zero[:, 1] = np.linspace(-2.0, 0.9, 20)
    zero[:, 2:] = -3.0
    rest = [[0] * 4 + [1] * 16, [0] * 2 + [1] * 8 + [2] * 10, [0, 1] + [3] * 18]
    logits = np.concatenate([zero, zero, *map(_sure, rest)])
    pieces = _pieces([0, 0, 1, 2, 3], 20)
    found = fit_calibration(logits, pieces, Calibration(), 0, 1)
    assert found.mode == "bias"
    assert found.facts["loss_after"] < found.facts["loss_before"]
    assert found.facts["slide_accuracy_after"] == 1.0
    assert found.facts["slide_accuracy_before"] < 1.0
    for value in found.values:
        assert value / STEP == round(value / STEP)
    assert found.calibration == {"bias": list(found.values)}


@given(
    labels=st.lists(st.integers(0, 3), min_size=3, max_size=8),
    seed=st.integers(0, 1000),
    mode=st.sampled_from(["bias", "scale"]),
)
@settings(max_examples=25, deadline=None)
def test_guard_and_loss_hold(labels: list[int], seed: int, mode: Any) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (30 * len(labels), 4)).astype(np.float32)
    pieces = _pieces(labels, 30)
    config = Calibration(mode=mode, starts=4)
    facts = fit_calibration(logits, pieces, config, 0, 1).facts
    assert facts["slide_accuracy_after"] >= facts["slide_accuracy_before"]
    assert facts["loss_after"] <= facts["loss_before"]
    free = fit_calibration(
        logits, pieces, config.model_copy(update={"guard": False}), 0, 1
    )
    assert free.facts["loss_after"] <= free.facts["loss_before"]
    table = (logits, pieces.column("tumor_px"), pieces.offsets, labels)
    loss, _ = calibration_loss(
        *table, free.values, mode=mode, margin_permille=config.margin_permille
    )
    assert loss == free.facts["loss_after"]


def test_the_guard_refuses_what_the_loss_likes() -> None:
    """0 slides at half 1+ outweigh a 3+ slide that would fall below its tenth."""
    logits = np.concatenate(
        [
            np.tile(np.float32([[0, 1, -9, -9]]), (60, 1)),  # three slides of 0
            np.tile(np.float32([[0.5, -9, -9, 0.6]]), (20, 1)),  # one of 3+
        ]
    )
    pieces = _pieces([0, 0, 0, 3], 20)
    free = fit_calibration(logits, pieces, Calibration(guard=False), 0, 1).facts
    assert free["loss_after"] < free["loss_before"]
    held = fit_calibration(logits, pieces, Calibration(), 0, 1).facts
    assert held["slide_accuracy_after"] >= held["slide_accuracy_before"]


def test_none_and_nothing_to_do() -> None:
    pieces = _pieces([0, 3], 10)
    logits = np.concatenate([_sure([0] * 10), _sure([3] * 10)])
    off = fit_calibration(logits, pieces, Calibration(mode="none"), 0, 1)
    assert off.calibration == {}
    assert off.facts["identity_because"] == "not asked for"
    done = fit_calibration(logits, pieces, Calibration(), 0, 1)
    assert done.calibration == {}
    assert done.facts["identity_because"] == "no values found that lower the loss"
    assert done.facts["slide_accuracy_after"] == 1.0


def test_values_are_applied_as_the_scorer_does() -> None:
    logits = np.float32([[1, 2, 3, 4]])
    assert calibrated(logits, (2.0, 1.0, 1.0, 0.5), "scale").tolist() == [[2, 2, 3, 2]]
    assert calibrated(logits, (1.0, 0, 0, -1.0), "bias").tolist() == [[2, 2, 3, 3]]
    assert calibrated(logits, None, "bias") is logits
