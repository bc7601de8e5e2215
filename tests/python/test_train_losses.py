# SPDX-License-Identifier: Apache-2.0
"""Losses: against the closed form, by hand, and with bad input."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from her2fast.training.losses import (
    admissible_classes,
    focal_loss,
    partial_label_loss,
    soft_cross_entropy,
)
from reference import losses as reference

LOGITS = arrays(np.float64, 4, elements=st.floats(-8, 8))


def _bits(classes: list[int]) -> torch.Tensor:
    return admissible_classes(torch.tensor([sum(1 << c for c in classes)]))


@given(row=LOGITS, bits=st.integers(1, 15))
def test_partial_label_equals_the_closed_form(
    row: npt.NDArray[np.float64], bits: int
) -> None:
    inside = [c for c in range(4) if bits >> c & 1]
    logits = torch.tensor(row[None], requires_grad=True)
    loss = partial_label_loss(logits, _bits(inside))
    loss.backward()
    want, gradient = reference.partial_label(row, inside)
    assert loss.item() == pytest.approx(want, rel=1e-5, abs=1e-5)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0].numpy(), gradient, atol=2e-6)


@given(row=LOGITS, bits=st.integers(1, 14))
def test_admissible_classes_are_pushed_alike(
    row: npt.NDArray[np.float64], bits: int
) -> None:
    inside = [c for c in range(4) if bits >> c & 1]
    logits = torch.tensor(row[None], requires_grad=True)
    partial_label_loss(logits, _bits(inside)).backward()
    assert logits.grad is not None
    pushes = logits.grad[0, inside].numpy()
    np.testing.assert_allclose(pushes, pushes[0], atol=1e-6)
    assert (pushes <= 0).all()
    outside = [c for c in range(4) if c not in inside]
    assert (logits.grad[0, outside].numpy() >= 0).all()


def test_partial_label_by_hand() -> None:
    # shares .5 .25 .125 .125; class 0 is out, its mass goes to the three others: 1/6
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]])).requires_grad_()
    loss = partial_label_loss(logits, _bits([1, 2, 3]))
    loss.backward()
    target = [0.25 + 1 / 6, 0.125 + 1 / 6, 0.125 + 1 / 6]
    want = -sum(
        t * math.log(p) for t, p in zip(target, (0.25, 0.125, 0.125), strict=True)
    )
    assert loss.item() == pytest.approx(want, abs=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(
        logits.grad[0].numpy(), [0.5, -1 / 6, -1 / 6, -1 / 6], atol=1e-6
    )


def test_one_admissible_class_is_cross_entropy() -> None:
    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 4
    want = torch.nn.functional.cross_entropy(logits, labels)
    got = partial_label_loss(logits, admissible_classes(1 << labels))
    soft = soft_cross_entropy(logits, torch.nn.functional.one_hot(labels, 4))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(soft, want)


def test_all_admissible_has_no_gradient_and_extremes_stay_finite() -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0, 0.0]], requires_grad=True)
    partial_label_loss(logits, _bits([0, 1, 2, 3])).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), 0.0, atol=1e-6)
    assert torch.isfinite(partial_label_loss(logits.detach(), _bits([1])))


def test_weights_of_the_mean() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    mask = admissible_classes(torch.tensor([1, 6, 8]))
    each = partial_label_loss(logits, mask, reduction="none")
    got = partial_label_loss(logits, mask, weights=torch.tensor([0.0, 3.0, 1.0]))
    torch.testing.assert_close(got, (3.0 * each[1] + each[2]) / 4.0)


@given(
    logit=st.floats(-30, 30),
    tumor=st.booleans(),
    alpha=st.floats(0.05, 0.95),
    gamma=st.floats(0, 4),
)
def test_focal_equals_reference(
    logit: float, tumor: bool, alpha: float, gamma: float
) -> None:
    got = focal_loss(
        torch.tensor([logit], dtype=torch.float32),
        torch.tensor([float(tumor)]),
        alpha=alpha,
        gamma=gamma,
    )
    want = reference.focal(float(np.float32(logit)), tumor, alpha, gamma)
    assert got.item() == pytest.approx(want, rel=2e-4, abs=1e-6)


def test_focal_by_hand_and_ignored_pixels() -> None:
    # p = .5: -(.25) * .5^2 * log(.5)
    got = focal_loss(torch.zeros(1), torch.ones(1), alpha=0.25, gamma=2.0)
    assert got.item() == pytest.approx(0.25 * 0.25 * math.log(2), rel=1e-6)
    logits, mask = torch.tensor([0.0, 9.0]), torch.tensor([1.0, 0.0])
    kept = focal_loss(
        logits, mask, alpha=0.25, gamma=2.0, valid=torch.tensor([True, False])
    )
    torch.testing.assert_close(kept, got)
    none = torch.zeros(2, dtype=torch.bool)
    assert focal_loss(logits, mask, alpha=0.5, gamma=2, valid=none).item() == 0.0


def test_bad_input_is_named() -> None:
    logits = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="at least one admissible"):
        partial_label_loss(logits, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="one shape"):
        partial_label_loss(logits, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="as bool"):
        partial_label_loss(logits, torch.ones(2, 4))
    with pytest.raises(ValueError, match="masks of 1 to 15"):
        admissible_classes(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="reduction"):
        soft_cross_entropy(logits, logits, reduction="sum")
    with pytest.raises(ValueError, match="alpha"):
        focal_loss(torch.zeros(1), torch.zeros(1), alpha=1.0, gamma=2.0)
    with pytest.raises(ValueError, match="need weights of shape"):
        soft_cross_entropy(logits, logits, weights=torch.ones(3))
