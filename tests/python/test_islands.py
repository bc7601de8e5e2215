# SPDX-License-Identifier: Apache-2.0
"""Islands of tissue, and control tissue that nobody drew."""

from __future__ import annotations

import numpy as np
import pytest
from class_fields import GLASS, measure
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast import _core
from reference import islands as reference

RULE_SETS = [rule_set["name"] for rule_set in _core.rule_sets()]
#: Class mixes that score as the name says by every rule set.
MIXES = {
    "0": [0.97, 0.03, 0.0, 0.0],
    "1+": [0.55, 0.43, 0.02, 0.0],
    "2+": [0.35, 0.3, 0.35, 0.0],
    "3+": [0.1, 0.1, 0.2, 0.6],
}


@given(
    rows=st.integers(0, 12),
    columns=st.integers(0, 12),
    share=st.floats(0, 1),
    radius=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_labels_equal_reference(rows, columns, share, radius, seed):
    rng = np.random.default_rng(seed)
    tissue = (rng.random((rows, columns)) < share).astype(np.uint8)
    got, count = _core.label_islands(tissue, radius)
    expected = reference.label_islands(tissue, radius)
    np.testing.assert_array_equal(got, expected)
    assert count == expected.max(initial=-1) + 1


def test_labels_by_hand():
    tissue = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]], np.uint8)
    assert _core.label_islands(tissue, 0)[0].tolist() == [
        [0, -1, -1, -1, 1],
        [-1, 2, -1, -1, -1],
    ]
    # two empty columns between (1, 1) and (0, 4) are bridged by a radius of 1
    assert _core.label_islands(tissue, 1)[1] == 1


@settings(max_examples=200)
@given(
    count=st.integers(1, 6),
    rule_set=st.sampled_from(RULE_SETS),
    floor=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32),
)
def test_comparing_equals_reference(count, rule_set, floor, seed):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 9, (count, 4)) * rng.integers(0, 2, (count, 4))
    patches *= rng.choice([1, 1, 20], (count, 1))
    patches[0, 0] += 1
    tissue = patches.sum(1, keepdims=True) + rng.integers(0, 30, (count, 1))
    made = np.concatenate([patches * 3000, patches, tissue], axis=1)
    got = _core.compare_islands(
        made, rule_set=rule_set, floor_percent=floor, min_px=50_000
    )
    expected = reference.compare_islands(made, rule_set, floor, 50_000)
    assert (got["suspected"], got["count"], got["score_px"]) == expected


def mixed(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Patches of a mix in a random order, in its exact numbers."""
    size = shape[0] * shape[1]
    ends = np.rint(np.cumsum(MIXES[name]) * size).astype(int)
    field = np.searchsorted(ends, np.arange(size), side="right")
    return rng.permutation(field).reshape(shape)


def slide(tissue: np.ndarray, strip: np.ndarray, gap: int) -> np.ndarray:
    """Tissue, so many empty columns, and a strip, all on glass."""
    rows = max(tissue.shape[0], strip.shape[0])
    field = np.full((rows, tissue.shape[1] + gap + strip.shape[1]), GLASS)
    field[: tissue.shape[0], : tissue.shape[1]] = tissue
    field[: strip.shape[0], tissue.shape[1] + gap :] = strip
    return field


@pytest.mark.parametrize("rule_set", RULE_SETS)
@pytest.mark.parametrize("strip_shape", [(24, 4), (4, 4), (20, 12)])
def test_a_3_plus_strip_on_a_0_slide_is_always_flagged(rule_set, strip_shape):
    rng = np.random.default_rng(strip_shape[0])
    for side in (5, 24):
        field = slide(
            mixed(rng, "0", (side, side)), mixed(rng, "3+", strip_shape), gap=8
        )
        decision = _core.decide(measure(field), rule_set=rule_set, check_stain=False)
        assert "CONTROL_SUSPECTED" in decision["review_flags"]
        assert decision["review_required"]
        islands = decision["islands"]
        assert islands["suspected"]
        assert islands["count"] == 2
        assert islands["score_px"][0] > 0 < islands["score_px"][3]


@pytest.mark.parametrize("patient", MIXES)
def test_islands_of_one_tumor_are_not(patient):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        field = slide(mixed(rng, patient, (20, 20)), mixed(rng, patient, (9, 9)), 9)
        decision = _core.decide(measure(field), check_stain=False)
        assert "CONTROL_SUSPECTED" not in decision["review_flags"]
        assert decision["islands"]["count"] == 2
        assert not decision["islands"]["suspected"]


def test_small_strips_are_seen_together():
    # three strips of 9 patches, each under 0.05 mm2 and 10 %: 3+ and, together, enough
    field = np.zeros((30, 62), int)
    field[:, 30:] = GLASS
    for row in (0, 10, 20):
        field[row : row + 3, 40:43] = 3
    decision = _core.decide(measure(field), check_stain=False)
    assert decision["islands"]["count"] == 4
    assert "CONTROL_SUSPECTED" in decision["review_flags"]


def compared(*islands: list[int]) -> bool:
    """Suspected? Each island: patches of 0, 1+, 2+, 3+ (full ones), and of tissue."""
    rows = [[*(4096 * n for n in row[:4]), *row] for row in islands]
    made = np.array(rows, np.int64)
    return bool(_core.compare_islands(made, min_px=50_000)["suspected"])


def test_tissue_that_has_no_part_in_a_high_score_is_suspicious():
    """The control alone was scored: the patient's tumor is tiny, or was not found."""
    control = [0, 0, 0, 60, 100]
    assert compared(control, [0, 0, 0, 0, 100])
    assert compared(control, [5, 0, 0, 0, 100])
    assert compared(control, [0, 0, 0, 0, 13], [2, 0, 0, 0, 12])
    # 19 of 119 patches of tissue are under a fifth: a piece of fat beside a tumor
    assert not compared(control, [0, 0, 0, 0, 19])
    assert compared(control, [0, 0, 0, 0, 25])
    # what has a part in the score may be one below it
    assert not compared(control, [0, 0, 8, 0, 100])
    # with a low score nothing can have been raised
    assert not compared([60, 0, 0, 0, 100], [0, 0, 0, 0, 100])
    assert not compared([0, 60, 0, 0, 100], [0, 0, 0, 0, 100])


def test_islands_far_apart_in_the_mean_class_are_suspicious():
    """A few patches of 0 tissue taken for 3+ bring its score next to a control's."""
    control = [0, 0, 0, 60, 70]
    assert compared(control, [54, 4, 2, 5, 70])  # 2+ by the few 3+: one below 3+
    assert compared([50, 0, 0, 10, 70], control)  # 3+ itself, but mostly 0
    # half 2+, half 3+ beside all 3+: one tumor may be so
    assert not compared(control, [0, 0, 30, 30, 70])
    # by hand: means 3 and 1.5 are on the limit, 3 and 1.525 are not
    assert compared(control, [30, 0, 0, 30, 70])
    assert not compared(control, [29, 1, 0, 30, 70])


def test_a_near_fragment_is_no_island():
    field = slide(np.zeros((12, 12), int), np.full((12, 4), 3), gap=3)
    decision = _core.decide(measure(field), check_stain=False)
    assert decision["islands"]["count"] == 1
    assert "CONTROL_SUSPECTED" not in decision["review_flags"]


def test_a_drawn_region_ends_the_search_and_an_excluded_one_does_not():
    field = slide(np.zeros((12, 12), int), np.full((12, 4), 3), gap=8)
    core = measure(field)

    def decide(exclude: bool, x0: int, x1: int):
        ring = np.array([[x0, 0], [x1, 0], [x1, 768], [x0, 768]], float) * 1.0
        return _core.decide(core, roi=[(exclude, [ring])], check_stain=False)

    assert decide(False, 0, 1600)["islands"] is None
    assert "CONTROL_SUSPECTED" not in decide(False, 0, 1600)["review_flags"]
    without_control = decide(True, 1000, 1600)
    assert without_control["islands"]["count"] == 1
    assert without_control["guideline"]["score"] == "0"
    assert "CONTROL_SUSPECTED" not in without_control["review_flags"]
    # something else taken out: the control is still there
    assert "CONTROL_SUSPECTED" in decide(True, 0, 64)["review_flags"]
    assert _core.decide(core, rule_set=None, check_stain=False)["islands"] is None


def test_flags_keep_their_order():
    field = slide(np.zeros((20, 20), int), np.full((5, 8), 3), gap=8)
    field[:2, :10] = 2
    flags = _core.decide(measure(field), check_stain=False)["review_flags"]
    order = "BORDERLINE GUIDELINE_GAP CONTROL_SUSPECTED OUT_OF_FOCUS HETEROGENEOUS"
    assert flags == [flag for flag in order.split() if flag in flags]
    assert "CONTROL_SUSPECTED" in flags
    assert "BORDERLINE" in flags


def test_bad_input():
    with pytest.raises(ValueError, match="radius"):
        _core.label_islands(np.zeros((2, 2), np.uint8), -1)
    for made, text in [
        (np.zeros((2, 8), np.int64), "four classes"),
        (np.full((1, 9), -1, np.int64), "areas"),
        (np.full((1, 9), 1 << 40, np.int64), "areas"),
        (np.array([[1] * 8 + [-1]], np.int64), "tissue"),
    ]:
        with pytest.raises(ValueError, match=text):
            _core.compare_islands(made, min_px=1)
    with pytest.raises(ValueError, match="rule set"):
        _core.compare_islands(np.ones((1, 9), np.int64), rule_set="x", min_px=1)
