# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from her2fast import guidelines
from her2fast.guidelines import decide
from reference.guideline import guideline as reference

NAMES = ("0", "1+", "2+", "3+")
RULE_SETS = [rule_set.name for rule_set in guidelines.rule_sets()]
CUMULATIVE = ("asco-cap-2018", "gefpics-2021", "gastric-2016")

# percent of 0, 1+, 2+, 3+ | pham-2022 | pham-2022-heterogeneous | asco-cap-2018 | flags
# of the last that speak of faint or uncovered staining
TABLE = [
    ((100, 0, 0, 0), "0", "0", "0", ()),
    ((98, 2, 0, 0), "0", "0", "0", ("ULTRALOW",)),
    ((90, 10, 0, 0), "1+", "1+", "0", ("ULTRALOW",)),
    ((89, 11, 0, 0), "1+", "1+", "1+", ()),
    ((82, 9, 9, 0), "0", "1+", "1+", ("GUIDELINE_GAP",)),
    ((91, 5, 4, 0), "0", "1+", "0", ("ULTRALOW", "GUIDELINE_GAP")),
    ((90, 0, 10, 0), "2+", "2+", "0", ("ULTRALOW", "GUIDELINE_GAP")),
    ((50, 36, 14, 0), "2+", "2+", "2+", ()),
    ((90, 0, 0, 10), "3+", "3+", "2+", ()),
    ((89, 0, 0, 11), "3+", "3+", "3+", ()),
    ((99, 0, 0, 1), "0", "2+", "2+", ()),
    ((73, 9, 9, 9), "0", "2+", "2+", ()),
    ((85, 0, 6, 9), "0", "2+", "2+", ()),
    ((70, 10, 10, 10), "3+", "3+", "2+", ()),
    ((0, 89, 11, 0), "2+", "2+", "2+", ()),
]

# Small numbers make cuts and floors meet; large ones would overflow.
area = st.integers(0, 30) | st.integers(0, 2**53 - 1)
four_areas = st.tuples(area, area, area, area)
count = st.integers(0, 6)
four_patches = st.none() | st.tuples(count, count, count, count)
floors = st.sampled_from([0, 1, 2, 10, 100]) | st.integers(0, 100)


def shifted(
    areas: tuple[int, int, int, int], low: int, high: int, share: float
) -> tuple[int, ...]:
    """Move a part of one class's area to a higher class."""
    moved = int(areas[low] * share)
    out = list(areas)
    out[low] -= moved
    out[high] += moved
    return tuple(out)


shifts = st.builds(
    lambda areas, pair, share: (areas, shifted(areas, *pair, share)),
    st.tuples(*[st.integers(0, 2**51)] * 4) | st.tuples(*[st.integers(0, 40)] * 4),
    st.sampled_from([(a, b) for a in range(4) for b in range(a + 1, 4)]),
    st.floats(0, 1),
)


@pytest.mark.parametrize(("percent", "pham", "heterogeneous", "asco", "flags"), TABLE)
def test_worked_table(percent, pham, heterogeneous, asco, flags):
    assert len(TABLE) == 15
    assert decide(percent, "pham-2022").score == pham
    assert decide(percent, "pham-2022-heterogeneous").score == heterogeneous
    assert decide(percent, "gefpics-2021").score == asco
    got = decide(percent)
    assert got.score == asco
    faint = {"ULTRALOW", "GUIDELINE_GAP"}
    assert tuple(flag for flag in got.flags if flag in faint) == flags
    assert ("HETEROGENEOUS" in got.flags) == (pham != heterogeneous)
    assert got.alternative == ("2+" if "GUIDELINE_GAP" in flags else None)
    assert got.ihc0_membrane_staining == "not_assessable"


@given(four_areas, st.sampled_from(RULE_SETS), floors, four_patches)
@example((0, 0, 0, 0), "pham-2022-heterogeneous", 1, None)
@example((99, 0, 0, 1), "asco-cap-2018", 1, (9, 0, 0, 2))
@example((98, 1, 1, 0), "asco-cap-2018", 2, (9, 1, 2, 0))
@example((2**53 - 1, 2**53 - 1, 2**53 - 1, 2**53 - 1), "gastric-2016", 100, None)
def test_equals_fractions(areas, rule_set, floor_percent, patches):
    got = decide(areas, rule_set, floor_percent, patches)
    score, flags = reference(areas, rule_set, floor_percent, patches)
    assert got.score == (None if score is None else NAMES[score])
    assert got.flags == flags


@given(four_areas, st.sampled_from(RULE_SETS), floors, four_patches)
def test_is_total_and_consistent(areas, rule_set, floor_percent, patches):
    got = decide(areas, rule_set, floor_percent, patches)
    assert (got.score is None) == (sum(areas) == 0)
    for_review = set(got.flags) - {"ULTRALOW"}
    assert got.review_required == (got.score is None or bool(for_review))
    assert "UNUSUAL_PATTERN" not in got.flags
    if got.score is not None:
        assert [margin.cut for margin in got.margins] == ["3+", "2+", "1+"]
        for margin in got.margins:
            assert margin.margin == 10 * margin.area - sum(areas)


@given(
    st.tuples(*[st.integers(0, 1000)] * 4),
    st.integers(1, 10**12),
    st.sampled_from(RULE_SETS),
    floors,
    four_patches,
)
def test_unit_of_area_does_not_matter(areas, unit, rule_set, floor_percent, patches):
    one = decide(areas, rule_set, floor_percent, patches)
    scaled = tuple(area * unit for area in areas)
    many = decide(scaled, rule_set, floor_percent, patches)
    assert (one.score, one.flags, one.binary) == (many.score, many.flags, many.binary)
    assert [m.margin * unit for m in one.margins] == [m.margin for m in many.margins]


@given(shifts, st.sampled_from(CUMULATIVE), floors, four_patches)
def test_darker_never_scores_lower(pair, rule_set, floor_percent, patches):
    before, after = (decide(a, rule_set, floor_percent, patches).score for a in pair)
    assert before is None or NAMES.index(after) >= NAMES.index(before)


@given(shifts)
def test_darker_never_scores_lower_with_section_6_1_without_a_floor(pair):
    before, after = (decide(a, "pham-2022-heterogeneous", 0).score for a in pair)
    assert before is None or NAMES.index(after) >= NAMES.index(before)


def test_table_1_of_pham_is_not_monotonic():
    assert decide((90, 0, 10, 0), "pham-2022").score == "2+"
    assert decide((90, 0, 9, 1), "pham-2022").score == "0"
    # nor is section 6.1 where the floor hides the class that the area moved to
    assert decide((900, 0, 100, 0), "pham-2022-heterogeneous").score == "2+"
    assert decide((900, 0, 95, 5), "pham-2022-heterogeneous").score == "1+"


@pytest.mark.parametrize(
    ("areas", "ish", "views"),
    [
        ((1, 0, 0, 0), None, ("negative", "negative", "zero")),
        ((1, 1, 0, 0), None, ("negative", "negative", "low")),
        ((1, 0, 1, 0), None, (None, "equivocal", None)),
        ((1, 0, 1, 0), "negative", ("negative", "negative", "low")),
        ((1, 0, 1, 0), "positive", ("positive", "positive", "high")),
        ((1, 0, 0, 1), None, ("positive", "positive", "high")),
        ((1, 0, 0, 1), "negative", ("positive", "positive", "high")),
        ((0, 0, 0, 0), "positive", (None, None, None)),
    ],
)
def test_views(areas, ish, views):
    got = decide(areas, ish=ish)
    assert (got.binary, got.three_way, got.her2_view) == views


def test_ultralow_alone_asks_for_no_review():
    got = decide((98, 2, 0, 0))
    assert got.flags == ("ULTRALOW",)
    assert not got.review_required
    assert decide((0, 0, 0, 0)).review_required


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_numpy_integers_are_integers(dtype):
    assert decide(np.array([82, 9, 9, 0], dtype)) == decide((82, 9, 9, 0))
    assert decide([dtype(1)] * 4, floor_percent=dtype(2)).score == "3+"


def test_decision_is_frozen_and_round_trips():
    got = decide((82, 9, 9, 0))
    with pytest.raises(FrozenInstanceError):
        got.score = "0"
    assert {got: 1}[decide((82, 9, 9, 0))] == 1


@pytest.mark.parametrize(
    "kwargs",
    [
        {"areas": (0.82, 0.09, 0.09, 0.0)},
        {"areas": (82, 9, 9, True)},
        {"areas": np.array([82.0, 9, 9, 0])},
        {"areas": np.array([True, False, True, False])},
        {"areas": "0123"},
        {"areas": b"0123"},
        {"areas": {82: 0, 9: 1, 8: 2, 1: 3}},
        {"areas": 82},
        {"areas": (82, 9, 9, None)},
        {"areas": (82, 9, 9, "0")},
        {"areas": (1, 0, 0, 0), "floor_percent": 1.0},
        {"areas": (1, 0, 0, 0), "floor_percent": True},
        {"areas": (1, 0, 0, 0), "patches": (1.0, 0, 0, 0)},
        {"areas": (1, 0, 0, 0), "rule_set": None},
        {"areas": (1, 0, 0, 0), "ish": True},
    ],
)
def test_types_are_refused(kwargs):
    with pytest.raises(TypeError, match="need"):
        decide(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"areas": (1, 2, 3)}, "got 3"),
        ({"areas": (1, 2, 3, 4, 5)}, "got 5"),
        ({"areas": (1, -1, 0, 0)}, r"areas\[1\]=-1"),
        ({"areas": (1, 0, 0, 2**53)}, r"areas\[3\]=9007199254740992"),
        ({"areas": (1, 0, 0, 2**80)}, "63 bits"),
        ({"areas": (1, 0, 0, 0), "floor_percent": 101}, "floor_percent=101"),
        ({"areas": (1, 0, 0, 0), "floor_percent": -1}, "floor_percent=-1"),
        ({"areas": (1, 0, 0, 0), "floor_percent": 2**40}, "floor_percent"),
        ({"areas": (1, 0, 0, 0), "patches": (0, 0, 0, -2)}, r"patches\[3\]=-2"),
        ({"areas": (1, 0, 0, 0), "rule_set": "asco"}, 'pham-2022.*got "asco"'),
        ({"areas": (1, 0, 0, 0), "ish": "maybe"}, 'got "maybe"'),
    ],
)
def test_values_are_refused_in_words(kwargs, message):
    with pytest.raises(ValueError, match=message):
        decide(**kwargs)


def test_every_rule_set_names_its_source():
    assert RULE_SETS[0] == "asco-cap-2018"
    assert len(set(RULE_SETS)) == 5
    for rule_set in guidelines.rule_sets():
        assert rule_set.title
        assert "doi:" in rule_set.source


def test_examples():
    assert doctest.testmod(guidelines).failed == 0


def test_measured_membranes_tell_null_from_ultralow():
    assert decide((1000, 0, 0, 0), unusual=0).ihc0_membrane_staining == "null"
    assert decide((991, 9, 0, 0), unusual=0).ihc0_membrane_staining == "null"
    assert decide((990, 10, 0, 0), unusual=0).ihc0_membrane_staining == "ultralow"
    assert decide((900, 100, 0, 0), unusual=0).ihc0_membrane_staining == "ultralow"
    # The question is only asked of score 0.
    for areas in ((899, 101, 0, 0), (0, 0, 0, 100), (0, 0, 0, 0)):
        got = decide(areas, unusual=0)
        assert got.ihc0_membrane_staining == "not_assessable"


@given(four_areas, st.sampled_from(RULE_SETS), st.data())
def test_unusual_pattern_is_more_than_a_tenth(areas, rule_set, data):
    unusual = data.draw(st.integers(0, areas[2]))
    got = decide(areas, rule_set, unusual=unusual)
    plain = decide(areas, rule_set)
    assert got.score == plain.score
    expected = sum(areas) > 0 and 10 * unusual > sum(areas)
    assert got.flags == plain.flags + (("UNUSUAL_PATTERN",) if expected else ())
    assert got.review_required == (plain.review_required or expected)


def test_unusual_cells_are_part_of_class_2():
    assert "UNUSUAL_PATTERN" in decide((89, 0, 11, 0), unusual=11).flags
    assert "UNUSUAL_PATTERN" not in decide((90, 0, 10, 0), unusual=10).flags
    for bad in (-1, 12):
        with pytest.raises(ValueError, match=r"unusual <= areas\[2\]"):
            decide((89, 0, 11, 0), unusual=bad)
