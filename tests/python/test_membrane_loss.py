# SPDX-License-Identifier: Apache-2.0
"""Loss of the membrane network: closed-form gradients, by hand, bad input."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from her2fast.training.membrane_loss import (
    dice_loss,
    edge_map,
    membrane_loss,
    weighted_cross_entropy,
)
from reference import membrane_loss as reference

Bools = npt.NDArray[np.bool_]
SHAPE = (1, 5, 6)
LOGITS = arrays(np.float64, SHAPE, elements=st.floats(-8, 8))
MASK = arrays(np.bool_, SHAPE)
BETA = st.floats(0.05, 0.95)


@given(logits=LOGITS, mask=MASK, valid=MASK, beta=BETA)
def test_cross_entropy_and_its_gradient(
    logits: npt.NDArray[np.float64], mask: Bools, valid: Bools, beta: float
) -> None:
    given_ = torch.tensor(logits, requires_grad=True)
    loss = weighted_cross_entropy(
        given_, torch.tensor(mask), beta=beta, valid=torch.tensor(valid)
    )
    loss.backward()
    want, gradient = reference.cross_entropy(logits, mask, valid, beta)
    assert loss.item() == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert given_.grad is not None
    np.testing.assert_allclose(given_.grad.numpy(), gradient, atol=1e-6)


@given(logits=LOGITS, mask=MASK, valid=MASK)
def test_dice_and_its_gradient(
    logits: npt.NDArray[np.float64], mask: Bools, valid: Bools
) -> None:
    given_ = torch.tensor(logits, requires_grad=True)
    loss = dice_loss(given_, torch.tensor(mask), valid=torch.tensor(valid))
    loss.backward()
    want, gradient = reference.dice(logits, mask, valid)
    assert loss.item() == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert given_.grad is not None
    np.testing.assert_allclose(given_.grad.numpy(), gradient, atol=1e-6)


@given(
    mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    edge_px=st.sampled_from([1, 3, 5]),
)
def test_edge_map_equals_reference(mask: Bools, edge_px: int) -> None:
    got = edge_map(torch.tensor(mask[None]), edge_px)[0].numpy()
    np.testing.assert_array_equal(got, reference.edge_map(mask, edge_px))


def test_by_hand() -> None:
    """Two pixels, p = 3/4 on membrane and 1/4 off it; both edges at p = 1/2."""
    outputs = torch.zeros(1, 2, 1, 2)
    outputs[0, 0, 0] = torch.tensor([math.log(3.0), -math.log(3.0)])
    outputs.requires_grad_()
    mask = torch.tensor([[[True, False]]])
    # K1 with beta 0.9: -(0.9 ln 3/4 + 0.1 ln 3/4) / 2
    likelihood = -math.log(0.75) / 2
    # the edge map holds both pixels: (2 * 1 + 1) / (2 + 1 + 1)
    dice = 1 - 3 / 4
    loss = membrane_loss(outputs, mask, beta=0.9, edge_weight=1.1)
    loss.backward()
    assert loss.item() == pytest.approx(likelihood + 1.1 * dice, abs=1e-6)
    assert outputs.grad is not None
    slopes = outputs.grad[0, 0, 0].tolist()
    assert slopes == pytest.approx([0.9 * -0.25 / 2, 0.1 * 0.25 / 2], abs=1e-6)
    # each edge pixel: -1.1 * (2 * 4 - 3) / 16 * 1/4
    edges = outputs.grad[0, 1, 0].tolist()
    assert edges == pytest.approx([-1.1 * 5 / 64] * 2, abs=1e-6)


def test_signs_are_those_of_the_readings() -> None:
    """K1: rare membranes weigh more. K2: agreement is the minimum."""
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 3] = True
    missed = weighted_cross_entropy(torch.full((1, 8, 8), -2.0), mask, beta=7 / 8)
    invented = weighted_cross_entropy(torch.full((1, 8, 8), 2.0), mask, beta=7 / 8)
    assert missed.item() == pytest.approx(invented.item(), abs=1e-6)
    right = torch.where(mask, 9.0, -9.0)
    assert dice_loss(right, mask).item() < 0.01
    assert dice_loss(-right, mask).item() > 0.9
    empty = torch.zeros_like(mask)
    assert dice_loss(torch.full((1, 8, 8), -9.0), empty).item() < 0.02


def test_edges_of_a_thick_and_of_a_thin_line() -> None:
    mask = torch.zeros(1, 16, 12, dtype=torch.bool)
    mask[0, 4:11] = True  # 7 px thick, from side to side
    rows = edge_map(mask)[0].any(1).nonzero().flatten().tolist()
    assert rows == [3, 4, 5, 9, 10, 11]  # two bands of 3; the sides are no edge
    mask = torch.zeros(1, 16, 12, dtype=torch.bool)
    mask[0, 7] = True
    rows = edge_map(mask)[0].any(1).nonzero().flatten().tolist()
    assert rows == [6, 7, 8]


def test_bad_input_is_named() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="bool mask of one shape"):
        weighted_cross_entropy(torch.zeros(1, 4, 5), mask, beta=0.5)
    with pytest.raises(ValueError, match="bool mask of one shape"):
        dice_loss(torch.zeros(1, 4, 4), mask.float())
    with pytest.raises(ValueError, match="need 0 < beta < 1, got 1"):
        weighted_cross_entropy(torch.zeros(1, 4, 4), mask, beta=1.0)
    with pytest.raises(ValueError, match="need valid as bool"):
        dice_loss(torch.zeros(1, 4, 4), mask, valid=mask[:, :2])
    with pytest.raises(ValueError, match=r"shape \(N, 2, H, W\)"):
        membrane_loss(torch.zeros(1, 1, 4, 4), mask, beta=0.5, edge_weight=1.1)
    with pytest.raises(ValueError, match="odd edge_px >= 1, got 2"):
        edge_map(mask, 2)
    with pytest.raises(ValueError, match=r"shape \(N, H, W\)"):
        edge_map(mask[0])
