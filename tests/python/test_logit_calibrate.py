# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_tables import synthetic, tables, uppers

from her2fast.errors import DeviceError
from her2fast.kernels import FractionLimits, calibration_loss, logit_calibrate
from reference import logit_calibrate as twin

PHAM = FractionLimits()
MODES = ("scale", "bias")
modes = st.sampled_from(MODES)
limits = st.builds(
    FractionLimits, st.tuples(*[st.sampled_from([0, 100, 700, 1000])] * 4), uppers
)
values = {
    "scale": st.tuples(*[st.sampled_from([0.125, 0.5, 0.7, 1.0, 2.0, 9.0])] * 4),
    "bias": st.tuples(*[st.sampled_from([-3.0, -0.5, 0.0, 0.3, 1.0])] * 4),
}


def twin_loss(table, vector, mode, limits=PHAM, margin=0):
    logits, px, offsets, labels = table
    areas = twin.class_px(logits, px, offsets, vector, mode)
    return twin.loss(
        areas, labels, limits.lower_permille, limits.upper_permille, margin
    )


@settings(max_examples=100)
@given(
    data=st.data(), table=tables(), limits=limits, mode=modes, margin=st.integers(0, 99)
)
def test_loss_equals_twin(data, table, limits, mode, margin):
    vector = data.draw(values[mode])
    got = calibration_loss(
        *table, vector, mode=mode, limits=limits, margin_permille=margin
    )
    want = twin_loss(table, vector, mode, limits, margin)
    assert got[1] == want[1]
    # The core rounds to doubles before it rounds to 2^-40.
    assert abs(got[0] - want[0]) <= 2**-40 * len(table[3])


@settings(max_examples=100)
@given(data=st.data(), table=tables(), mode=modes, seed=st.integers(0, 2**64 - 1))
def test_never_above_any_start(data, table, mode, seed):
    """Ties and awkward scales included; also where a sample proposes."""
    initial = data.draw(st.lists(values[mode], max_size=3))
    found = logit_calibrate(
        *table, mode=mode, initial=initial, seed=seed, starts=4, search_patches=30
    )
    identity = (1.0,) * 4 if mode == "scale" else (0.0,) * 4
    for start in [identity, *initial]:
        assert found.loss <= calibration_loss(*table, start, mode=mode)[0]
    assert (found.loss, found.broken_slides) == calibration_loss(
        *table, found.values, mode=mode
    )
    assert found.identity_loss == calibration_loss(*table, identity, mode=mode)[0]


@settings(max_examples=60)
@given(table=tables(most_slides=3, most_patches=8), mode=modes)
def test_no_line_leads_lower(table, mode):
    """The end is a minimum along every line: comparing all pairs finds nothing."""
    found = logit_calibrate(*table, mode=mode, starts=3)
    for group in twin.GROUPS:
        for point in twin.line_points(table[0], found.values, group, mode):
            there = calibration_loss(*table, point, mode=mode)[0]
            # A stretch too narrow for doubles may hide from one of the two.
            assert found.loss <= there + 1e-9 or not clear(table, point, mode)


def clear(table, point, mode):
    """The predictions do not hang on the last bits."""
    for factor in (1 - 1e-7, 1 + 1e-7):
        for c in range(4):
            near = np.array(point)
            near[c] = near[c] * factor if mode == "scale" else near[c] + factor - 1
            if twin_loss(table, near, mode) != twin_loss(table, point, mode):
                return False
    return True


def test_the_lines_are_every_split():
    named = {
        frozenset({frozenset(g), frozenset(range(4)) - frozenset(g)})
        for g in twin.GROUPS
    }
    assert named == twin.splits()


def one_slide(rows, label):
    logits = np.array(rows, np.float32)
    return logits, np.full(len(logits), 10, np.uint32), [0, len(logits)], [label]


def test_loss_by_hand():
    # Label 1+, V = [.50, .36, .14, 0]: class 2 is over its limit by .04.
    table = one_slide(np.repeat(np.eye(4), [50, 36, 14, 0], axis=0), 1)
    loss, broken = calibration_loss(*table, (1, 1, 1, 1))
    assert loss == pytest.approx(0.04, abs=1e-11)
    assert broken == 1
    # Label 3+ with none of it: .1 missing; no class is higher.
    loss, _ = calibration_loss(*table[:3], [3], (1, 1, 1, 1))
    assert loss == pytest.approx(0.1, abs=1e-11)
    # Label 0: .2 of class 0 missing, .26 and .04 in excess.
    loss, _ = calibration_loss(*table[:3], [0], (1, 1, 1, 1))
    assert loss == pytest.approx(0.5, abs=1e-11)
    loss, _ = calibration_loss(*table[:3], [0], (1, 1, 1, 1), margin_permille=10)
    assert loss == pytest.approx(0.53, abs=1e-11)


def test_equal_to_an_upper_limit_costs_nothing_but_is_broken():
    table = one_slide(np.repeat(np.eye(4), [50, 40, 10, 0], axis=0), 1)
    assert calibration_loss(*table, (1, 1, 1, 1)) == (0.0, 1)
    assert calibration_loss(*table, (1, 1, 1, 1), margin_permille=10)[0] > 0


@pytest.mark.parametrize("mode", MODES)
def test_middle_of_the_best_stretch(mode):
    """Class 1 wins 4 of 10; at most 0 may stay below .1: the last must fall, too."""
    rows = [[2, -9, -9, -9]] * 6 + [[2, x, -9, -9] for x in (2.5, 3, 3.5, 4)]
    found = logit_calibrate(*one_slide(rows, 0), mode=mode, starts=1)
    assert found.loss == 0
    ratio = found.values[1] / found.values[0]
    offset = found.values[1] - found.values[0]
    # One patch of class 1 is .1: no loss between the last two changes, or beyond both.
    if mode == "scale":
        assert ratio < 2 / 3.5
        assert np.prod(found.values) == pytest.approx(1, rel=1e-12)
        assert (found.scale, found.bias) == (found.values, (0.0,) * 4)
    else:
        assert offset < -1.5
        assert sum(found.values) == pytest.approx(0, abs=1e-12)
        assert (found.scale, found.bias) == ((1.0,) * 4, found.values)


def test_negative_logits_turn_the_half_line():
    """All below 0: a larger factor makes class 1 win less. One slide must lose it (at
    more than 2 / 1.9), the other keep it (below 2 / 1.5)."""
    rows = [[-2, -1.9, -9, -9]] * 10 + [[-2, -1.5, -9, -9]] * 10
    logits = np.array(rows, np.float32)
    px = np.full(20, 10, np.uint32)
    found = logit_calibrate(logits, px, [0, 10, 20], [0, 1], starts=1)
    assert found.loss == 0
    middle = np.sqrt(2 / 1.9 * 2 / 1.5)
    assert found.values[1] / found.values[0] == pytest.approx(middle, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_same_for_any_number_of_threads_and_on_a_sample(mode):
    table = synthetic(3, 40, 300)
    options = {"mode": mode, "search_patches": 3000, "seed": 5}
    one = logit_calibrate(*table, workers=1, **options)
    assert one == logit_calibrate(*table, workers=3, **options)
    whole = logit_calibrate(*table, mode=mode, seed=5)
    assert one.loss <= one.identity_loss / 2
    assert one.loss <= whole.loss * 1.2 + 0.01


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_not_above_scipy(mode, seed):
    """Nelder-Mead on the hard loss; BFGS on a softmax of it (bench: 200 problems)."""
    from calibration_rivals import bfgs, nelder_mead

    table = synthetic(seed, 15, 60)
    found = logit_calibrate(*table, mode=mode)
    for rival in (bfgs, nelder_mead):
        vector = rival(table, mode)
        loss = calibration_loss(*table, vector, mode=mode)[0]
        assert found.loss <= loss, rival.__name__


def test_bad_input():
    table = one_slide(np.eye(4), 0)
    with pytest.raises(ValueError, match="mode"):
        logit_calibrate(*table, mode="both")
    with pytest.raises(ValueError, match="factors > 0"):
        logit_calibrate(*table, initial=[(1, 1, 0, 1)])
    with pytest.raises(ValueError, match="finite offsets"):
        logit_calibrate(*table, mode="bias", initial=[(1, 1, np.nan, 1)])
    with pytest.raises(TypeError):
        logit_calibrate(*table, initial=[(1, 1, 1)])
    with pytest.raises(ValueError, match="margin_permille"):
        logit_calibrate(*table, margin_permille=100)
    with pytest.raises(ValueError, match="starts"):
        logit_calibrate(*table, starts=0)
    with pytest.raises(ValueError, match="search_patches"):
        logit_calibrate(*table, search_patches=0)
    with pytest.raises(ValueError, match="workers"):
        logit_calibrate(*table, workers=0)
    with pytest.raises(ValueError, match="labels"):
        logit_calibrate(*table[:3], [-1])
    broken = table[0].copy()
    broken[2, 0] = np.nan
    with pytest.raises(ValueError, match="finite logits, got another at patch 2"):
        logit_calibrate(broken, *table[1:])
    with pytest.raises(TypeError, match="float32"):
        logit_calibrate(table[0].astype(np.float64), *table[1:])
    with pytest.raises(DeviceError, match="logit_calibrate"):
        logit_calibrate(*table, device="cuda")
