# SPDX-License-Identifier: Apache-2.0
"""Mixtures of classes: they add up, make their score, and spread as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

import her2fast
from her2fast.phantom import mixtures


def many(score, count=400):
    return np.array(
        [mixtures.draw_mixture(np.random.default_rng(k), score) for k in range(count)]
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), score=st.integers(0, 3))
def test_shares_make_their_score(seed, score):
    shares = mixtures.draw_mixture(np.random.default_rng(seed), score)
    assert sum(shares) == pytest.approx(1.0, abs=1e-9)
    assert min(shares) >= 0.0
    areas = tuple(round(share * 1_000_000) for share in shares)
    made = her2fast.guidelines.decide(areas, rule_set="pham-2022")
    assert made.score == mixtures.NAMES[score]


def test_two_plus_is_mixed_and_three_plus_is_not():
    two, three = many("2+").mean(0), many("3+").mean(0)
    assert two[0] + two[1] > 0.4
    assert three[3] > 0.7
    assert three[0] + three[1] < 0.12
    assert three[2] > three[1]


def test_clusters_of_higher_classes_are_focal():
    for score in range(3):
        shares = many(score)
        higher = shares[:, score + 1 :].sum(1)
        assert higher.max() < 0.1
        assert 0.3 < (higher > 0.0).mean() < 0.8


def test_same_numbers_same_mixture():
    one = mixtures.draw_mixture(np.random.default_rng(3), "2+")
    assert one == mixtures.draw_mixture(np.random.default_rng(3), 2)


@pytest.mark.parametrize("score", [4, -1, "2", "", 1.5])
def test_unknown_score(score):
    with pytest.raises(ValueError, match="need a score"):
        mixtures.draw_mixture(np.random.default_rng(0), score)


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": 4},
        {"own": (0.0, 1.0)},
        {"above_most": 0.2},
        {"below": (1.0, 0.0, 1.0)},
    ],
)
def test_bad_distributions_cannot_exist(wrong):
    good = {
        "score": 2,
        "own": (0.2, 0.9),
        "own_beta": (1.0, 1.0),
        "above": 0.5,
        "above_most": 0.05,
        "below": (1.0, 1.0, 1.0),
    }
    assert mixtures.ScoreMix(**good).score == 2
    with pytest.raises(ValueError, match="need"):
        mixtures.ScoreMix(**{**good, **wrong})
