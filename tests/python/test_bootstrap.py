# SPDX-License-Identifier: Apache-2.0
"""The bootstrap over blocks of tumor: its twin, and how often its interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from class_fields import class_field, measure
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast import _core
from reference import bootstrap as reference

RULE_SETS = [rule_set["name"] for rule_set in _core.rule_sets()]


def blocks_of(counts) -> np.ndarray:
    """One patch of so many pixels for each class and block."""
    px = np.array(counts, np.int64)
    return np.concatenate([px, (px > 0).astype(np.int64)], axis=1)


@settings(max_examples=60)
@given(
    data=st.data(),
    count=st.integers(1, 30),
    rule_set=st.sampled_from([*RULE_SETS, None]),
    floor=st.sampled_from([0, 1, 10]),
    replicates=st.sampled_from([0, 1, 39, 40, 200]),
)
def test_equals_reference(data, count, rule_set, floor, replicates):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    px = rng.integers(0, 10, (count, 4)) * rng.choice([0, 1, 1 << 20], (count, 4))
    px[:, 0] += 1
    patches = rng.integers(0, 4, (count, 4))
    blocks = np.concatenate([px, patches], axis=1)
    got = _core.bootstrap(
        blocks, rule_set=rule_set, floor_percent=floor, replicates=replicates
    )
    expected = reference.bootstrap(blocks, rule_set, floor, replicates)
    if expected is None:
        assert got is None
        return
    assert got["intervals"] == expected[0]  # equal, not near
    assert got["score_counts"] == expected[1]
    assert (got["blocks"], got["replicates"]) == (count, replicates)


def test_by_hand():
    # Every block the same: any draw gives the same slide.
    same = _core.bootstrap(blocks_of([[85, 5, 5, 5]] * 9))
    assert same["intervals"] == [[0.85, 0.85], *[[0.05, 0.05]] * 3]
    assert same["score_counts"] == [0, 0, 1000, 0]
    # One block in ten is 3+: 3+ is above its cut in the replicates that draw it twice
    # or more, 1 - .9^10 - .9^9 = 26 %, and never drawn in .9^10 = 35 %.
    one = blocks_of([[100, 0, 0, 0]] * 9 + [[0, 0, 0, 100]])
    counts = _core.bootstrap(one, rule_set="gefpics-2021", floor_percent=0)[
        "score_counts"
    ]
    assert counts[1] == 0
    assert counts[0] / 1000 == pytest.approx(0.349, abs=0.05)
    assert counts[3] / 1000 == pytest.approx(0.264, abs=0.05)
    # Seven blocks say nothing.
    assert _core.bootstrap(blocks_of([[1, 1, 1, 1]] * 7)) is None


def test_draws_are_even():
    drawn = reference.draws(2000, 16)
    assert drawn.min() == 0
    assert drawn.max() == 15
    share = np.bincount(drawn.ravel(), minlength=16) / drawn.size
    np.testing.assert_allclose(share, 1 / 16, rtol=0.06)  # 4.2 standard deviations


@settings(max_examples=6)
@given(
    rows=st.integers(3, 40),
    columns=st.integers(3, 40),
    seed=st.integers(0, 2**16),
    rule_set=st.sampled_from([*RULE_SETS, None]),
)
def test_decide_equals_reference_on_its_patches(rows, columns, seed, rule_set):
    rng = np.random.default_rng(seed)
    field = class_field(rng, (rows, columns), [0.4, 0.3, 0.2, 0.1], 4)
    field[rng.random(field.shape) < 0.2] = -1
    core = measure(field)
    decision = _core.decide(core, rule_set=rule_set, check_stain=False)
    if decision["status"] != "scored":
        assert decision["bootstrap"] is None
        assert decision["flip"] is None
        return
    patches = _core.patch_outcomes(core, rule_set=rule_set, check_stain=False)
    kept = patches["kept"]
    blocks, side = reference.blocks_of(
        *(patches[key][kept] for key in ("column", "row", "tumor_px", "predicted")), 62
    )
    expected = reference.bootstrap(blocks, rule_set, 1, 1000)
    got = decision["bootstrap"]
    assert expected is not None
    assert got["block_px"] == side * 64
    assert got["blocks"] == len(blocks)
    assert got["intervals"] == expected[0]
    assert got["score_counts"] == expected[1]
    if rule_set is None:
        assert decision["flip"] is None
        return
    two_largest = [
        int(np.sort(patches["tumor_px"][kept & (patches["predicted"] == c)])[-2:].sum())
        for c in range(4)
    ]
    assert decision["flip"] == _core.flip_certificate(
        decision["class_px"], rule_set, 1, two_largest
    )
    unsure = got["score_counts"][decision["guideline"]["score_index"]] < 950
    near = "BORDERLINE" in decision["guideline"]["flags"]
    assert ("BORDERLINE" in decision["review_flags"]) == (unsure or near)


def test_replicates_are_a_setting():
    core = measure(np.zeros((8, 8), int))
    none = _core.decide(core, check_stain=False, bootstrap_replicates=0)
    assert none["bootstrap"] is None
    assert none["flip"] is not None
    few = _core.decide(core, check_stain=False, bootstrap_replicates=50)
    assert few["bootstrap"]["score_counts"] == [50, 0, 0, 0]
    with pytest.raises(ValueError, match="need 0 <= replicates"):
        _core.decide(core, check_stain=False, bootstrap_replicates=-1)


def test_a_score_that_rests_on_one_place_is_borderline():
    field = np.zeros((48, 48), int)
    field[:16, :20] = 3  # 13.9 % in one corner: far from the cut by the point rule
    decision = _core.decide(measure(field), check_stain=False)
    assert decision["guideline"]["score"] == "3+"
    assert "BORDERLINE" not in decision["guideline"]["flags"]
    assert decision["bootstrap"]["score_counts"][3] < 950
    assert decision["review_flags"][0] == "BORDERLINE"
    spread = np.zeros((48, 48), int)
    spread[::2, ::3] = 3  # 16.7 % everywhere
    calm = _core.decide(measure(spread), check_stain=False)
    assert calm["bootstrap"]["score_counts"] == [0, 0, 0, 1000]
    assert calm["review_flags"] == []


def test_the_interval_covers_what_the_tumor_is_a_sample_of():
    rng = np.random.default_rng(11)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    covered, slides = 0, 60
    for _ in range(slides):
        # 8.2 x 8.2 mm of tumor whose classes are alike within 0.2 mm
        field = class_field(rng, (128, 128), shares, 3)
        rows, columns = np.indices(field.shape)
        blocks, _ = reference.blocks_of(
            columns.ravel(), rows.ravel(), np.full(field.size, 4096), field.ravel(), 62
        )
        got = _core.bootstrap(blocks, rule_set=None, replicates=400)
        low, high = np.array(got["intervals"]).T
        covered += int(((low <= shares) & (shares <= high)).sum())
    # 95 % nominal; bench/bootstrap_coverage measures what it is
    assert 0.85 <= covered / (4 * slides) <= 0.99


def test_bad_input():
    good = blocks_of([[1, 1, 1, 1]] * 9)
    for blocks, changes, text in [
        (good[:, :7], {}, "shape"),
        (good[:, :6], {}, "four classes"),
        (good, {"rule_set": "x"}, "need a rule set"),
        (good, {"replicates": 100_001}, "replicates"),
        (good - 1, {}, "tumor in every block"),
        (-good, {}, "sums"),
        (good << 40, {}, "sums"),
    ]:
        with pytest.raises(ValueError, match=text):
            _core.bootstrap(np.ascontiguousarray(blocks), **changes)
