# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_tables import tables, uppers

from her2fast.errors import DeviceError
from her2fast.kernels import FractionLimits, PatchAction, constraint_select
from reference import constraint_select as twin

NEIGHBORS = ("neighbors", "complement", "lower")
PHAM = FractionLimits()


def as_dict(found):
    return {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}


def assert_equals_twin(table, limits, neighbors, workers=2):
    got = constraint_select(*table, limits=limits, neighbors=neighbors, workers=workers)
    want = twin.constraint_select(
        *table, limits.lower_permille, limits.upper_permille, neighbors
    )
    for name, array in as_dict(got).items():
        np.testing.assert_array_equal(array, want[name], err_msg=name)
        assert array.dtype == want[name].dtype, name
    return got


limits = st.builds(
    FractionLimits,
    st.tuples(*[st.sampled_from([0, 1, 100, 500, 700, 1000])] * 4),
    uppers,
)


@settings(max_examples=150)
@given(table=tables(), limits=limits, neighbors=st.sampled_from(NEIGHBORS))
def test_equals_twin(table, limits, neighbors):
    assert_equals_twin(table, limits, neighbors)


@pytest.mark.parametrize("seed", range(3))
def test_equals_twin_on_many_patches_for_any_number_of_threads(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3000, 12)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    logits = rng.normal(size=(offsets[-1], 4)).astype(np.float32)
    if seed == 1:
        logits = np.round(logits)  # ties: the patch index decides
    px = rng.integers(1, 4097, offsets[-1]).astype(np.uint32)
    labels = rng.integers(0, 4, 12)
    first = assert_equals_twin((logits, px, offsets, labels), PHAM, "neighbors")
    for workers in (1, 5):
        again = constraint_select(logits, px, offsets, labels, workers=workers)
        for name, array in as_dict(first).items():
            np.testing.assert_array_equal(array, as_dict(again)[name])


@given(table=tables())
def test_moving_the_selected_patches_mends_the_slide(table):
    """What was asked for: the limits hold once the selected patches have moved."""
    logits, px, offsets, labels = table
    found = constraint_select(*table)
    for s, y in enumerate(labels):
        here = slice(offsets[s], offsets[s + 1])
        action, weight = found.action[here], px[here].astype(np.int64)
        predicted = logits[here].argmax(axis=1)
        total = weight.sum()
        left = np.array(
            [weight[(predicted == c) & (action == 0)].sum() for c in range(4)]
        )
        gained = left[y] + weight[action == PatchAction.LOWER].sum()
        if total:
            assert 1000 * gained >= PHAM.lower_permille[y] * total
            assert all(1000 * left[c] < 100 * total for c in range(y + 1, 4))


def shares(percent):
    """One patch of 100 px per percent, surer by 1/16 from patch to patch."""
    classes = np.repeat(range(4), percent)
    logits = 4 * np.eye(4, dtype=np.float32)[classes]
    logits[np.arange(100), classes] += np.arange(100) / 16
    return logits, np.full(100, 100, np.uint32), [0, 100]


def test_by_hand_upper():
    found = constraint_select(*shares([50, 36, 14, 0]), [1])
    total = found.class_px.sum()
    # Over by .04 of the area; one pixel more, for what remains must be below the limit.
    assert 1000 * found.class_px[0, 2] - 100 * total == 40 * total
    assert found.excess_px.tolist() == [[0, 0, 401, 0]]
    assert np.flatnonzero(found.action).tolist() == [86, 87, 88, 89, 90]
    assert set(found.action[86:91]) == {PatchAction.UPPER}
    assert set(found.class_id[86:91]) == {2}
    assert set(found.admissible[86:91]) == {0b1010}
    assert found.pushed_px.tolist() == [[0, 0, 500, 0]]
    assert found.missing_px.tolist() == [0]


def test_exactly_equal_is_still_broken():
    found = constraint_select(*shares([50, 40, 10, 0]), [1])
    assert found.excess_px.tolist() == [[0, 0, 1, 0]]
    assert np.flatnonzero(found.action).tolist() == [90]
    assert not constraint_select(*shares([50, 41, 9, 0]), [1]).action.any()
    # And exactly enough of the label is enough.
    assert not constraint_select(*shares([90, 10, 0, 0]), [1]).action.any()


def test_by_hand_lower_wins_and_takes_the_most_alike():
    logits, px, offsets = shares([60, 0, 40, 0])
    logits[70, 1] = 6
    logits[5, 1] = 3.9
    found = constraint_select(logits, px, offsets, [1])
    assert found.missing_px.tolist() == [1000]
    assert found.pulled_px.tolist() == [1000]
    assert found.reach.tolist() == [1]
    assert found.action[70] == found.action[5] == PatchAction.LOWER
    assert found.class_id[70] == 1
    assert found.admissible[70] == 0b10
    assert found.excess_px[0, 2] == 3001
    assert found.pushed_px[0, 2] == 3100
    assert np.count_nonzero(found.action == PatchAction.LOWER) == 10


def test_too_little_next_door_looks_further():
    found = constraint_select(*shares([60, 5, 35, 0]), [3])
    assert found.reach.tolist() == [1]  # 35 % of class 2 suffice
    found = constraint_select(*shares([60, 36, 4, 0]), [3])
    assert found.reach.tolist() == [2]
    assert found.pulled_px.tolist() == [1000]
    assert (found.action[96:] == PatchAction.LOWER).all()  # all four of class 2
    assert np.count_nonzero(found.action[60:96]) == 6
    assert constraint_select(*shares([100, 0, 0, 0]), [3]).reach.tolist() == [3]


def test_neighbors():
    table = (*shares([50, 0, 0, 50]), [0])
    bits = {
        name: set(constraint_select(*table, neighbors=name).admissible[50:]) - {0, 1}
        for name in NEIGHBORS
    }
    assert bits == {"neighbors": {0b0100}, "complement": {0b0111}, "lower": {0b0100}}


def test_saturated_probabilities_are_told_apart():
    """Softmax in float32 is 1 for all of these; their order still counts."""
    logits = np.zeros((20, 4), np.float32)
    logits[:, 3] = 60 - np.arange(20) / 4
    found = constraint_select(logits, np.full(20, 10, np.uint32), [0, 20], [2])
    upper = found.action == PatchAction.UPPER
    assert np.count_nonzero(found.action) == 19
    assert np.flatnonzero(found.action == PatchAction.NONE).tolist() == [0]
    assert np.count_nonzero(upper) == 17  # two went to the label


def test_no_slide_no_patch_no_tumor():
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.uint32)
    assert constraint_select(*none, [0], []).action.shape == (0,)
    assert constraint_select(*none, [0, 0], [3]).class_px.tolist() == [[0] * 4]
    found = constraint_select(
        np.eye(4, dtype=np.float32), np.zeros(4, np.uint32), [0, 4], [0]
    )
    assert not found.action.any()


def test_largest_weights_do_not_wrap():
    px = np.full(1000, 2**32 - 1, np.uint32)
    logits = np.tile(np.float32([0, 0, 0, 1]), (1000, 1))
    found = constraint_select(logits, px, [0, 1000], [0])
    assert found.class_px[0, 3] == 1000 * (2**32 - 1)
    assert found.pushed_px[0, 3] == 901 * (2**32 - 1)
    assert np.count_nonzero(found.action == PatchAction.LOWER) == 700


def test_bad_input():
    logits, px, offsets = shares([50, 36, 14, 0])
    with pytest.raises(ValueError, match="labels 0 to 3, got 4 at slide 0"):
        constraint_select(logits, px, offsets, [4])
    with pytest.raises(ValueError, match="ascending"):
        constraint_select(logits, px, [0, 50, 40, 100], [0, 1, 2])
    with pytest.raises(ValueError, match="offsets from 0 to 100"):
        constraint_select(logits, px, [0, 99], [0])
    with pytest.raises(ValueError, match="2 offsets"):
        constraint_select(logits, px, [0, 50, 100], [0])
    with pytest.raises(ValueError, match="logits"):
        constraint_select(logits[:, :3], px, offsets, [0])
    with pytest.raises(ValueError, match="logits"):
        constraint_select(logits[:50], px, offsets, [0])
    for bad in (np.nan, np.inf):
        broken = logits.copy()
        broken[[7, 90], 2] = bad
        with pytest.raises(ValueError, match="finite logits, got another at patch 7"):
            constraint_select(broken, px, [0, 80, 100], [0, 0])
    with pytest.raises(ValueError, match="neighbors"):
        constraint_select(logits, px, offsets, [0], neighbors="all")
    with pytest.raises(ValueError, match="workers"):
        constraint_select(logits, px, offsets, [0], workers=0)
    with pytest.raises(TypeError, match="float32"):
        constraint_select(logits.astype(np.float64), px, offsets, [0])
    with pytest.raises(TypeError, match="uint32"):
        constraint_select(logits, px.astype(np.int64), offsets, [0])
    with pytest.raises(TypeError, match="labels"):
        constraint_select(logits, px, offsets, [0.5])
    with pytest.raises(ValueError, match="lower_permille"):
        FractionLimits(lower_permille=(1001, 0, 0, 0))
    with pytest.raises(ValueError, match="upper_permille"):
        FractionLimits(upper_permille=((0,) * 4,) * 4)
    with pytest.raises(ValueError, match="four lower"):
        FractionLimits(lower_permille=(1, 2))
    with pytest.raises(DeviceError, match="constraint_select"):
        constraint_select(logits, px, offsets, [0], device="cuda")
