# SPDX-License-Identifier: Apache-2.0
"""The least area that flips a score, against every way to share the tumor out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2fast import _core
from reference.flip import least_flip

RULE_SETS = [rule_set["name"] for rule_set in _core.rule_sets()]
SCORES = ["0", "1+", "2+", "3+"]


@pytest.mark.parametrize("rule_set", RULE_SETS)
def test_1000_small_slides_equal_brute_force(rule_set):
    rng = np.random.default_rng(RULE_SETS.index(rule_set))
    for _ in range(1000):
        total = int(rng.integers(1, 27))
        mix = rng.dirichlet(rng.choice([0.2, 1, 5], 4))
        areas = rng.multinomial(total, mix).tolist()
        floor = int(rng.choice([0, 1, 5, 10, 20, 40, 100]))
        held = [int(rng.integers(0, a + 1)) for a in areas]
        two_largest = held if rng.random() < 0.5 else None
        flip = _core.flip_certificate(areas, rule_set, floor, two_largest)
        least, reachable = least_flip(areas, rule_set, floor, two_largest)
        case = (areas, floor, two_largest, flip)
        assert flip["least_px"] == least, case
        assert SCORES.index(flip["to_score"]) in reachable, case
        change = flip["change_px"]
        assert sum(change) == 0, case
        assert sum(px for px in change if px > 0) == least, case
        assert all(a + px >= 0 for a, px in zip(areas, change, strict=True)), case


@pytest.mark.parametrize(
    ("areas", "rule_set", "least_px", "to_score", "change"),
    [
        # 3+ is "more than 10 %": 101 of 1000; one pixel less is the 2+ of any 3+
        ((890, 0, 0, 110), "asco-cap-2018", 10, "2+", (0, 0, 10, -10)),
        # 1 % of 3+ makes 2+ sooner than 10.1 % of 2+ does
        ((820, 90, 90, 0), "asco-cap-2018", 10, "2+", (0, 0, -10, 10)),
        # 2+ by a floor of 3+ alone: 11 px, 10 are the floor
        ((989, 0, 0, 11), "asco-cap-2018", 2, "0", (0, 2, 0, -2)),
        # exactly on the cut: one pixel
        ((900, 0, 100, 0), "gastric-2016", 1, "1+", (0, 1, -1, 0)),
        ((900, 0, 100, 0), "pham-2022", 1, "0", (0, 1, -1, 0)),
        # no escalation: from the next class below, 10 px short of the cut
        ((820, 90, 90, 0), "gastric-2016", 10, "2+", (0, -10, 10, 0)),
        # all scores are one pixel away: the nearest
        ((1, 0, 0, 0), "asco-cap-2018", 1, "1+", (-1, 1, 0, 0)),
    ],
)
def test_by_hand(areas, rule_set, least_px, to_score, change):
    flip = _core.flip_certificate(areas, rule_set)
    assert flip == {
        "least_px": least_px,
        "to_score": to_score,
        "change_px": list(change),
    }


def test_patches_by_hand():
    # 5 % of 3+ in three patches of 20, 20 and 10 px: the smallest decides 2+ or 0
    areas, patches = (950, 0, 0, 50), (40, 0, 0, 3)
    score = _core.decide_guideline(areas, "asco-cap-2018", 1, patches)["score"]
    assert score == "2+"
    flip = _core.flip_certificate(areas, "asco-cap-2018", 1, (60, 0, 0, 40))
    assert (flip["least_px"], flip["to_score"]) == (10, "0")
    # in two patches it is not counted, and any third one would make it count
    flip = _core.flip_certificate(areas, "asco-cap-2018", 1, (60, 0, 0, 50))
    assert (flip["least_px"], flip["to_score"]) == (1, "2+")


@given(
    patches=st.lists(
        st.lists(st.integers(1, 4096), max_size=6), min_size=4, max_size=4
    ).filter(lambda p: any(p)),
    rule_set=st.sampled_from(RULE_SETS),
    floor=st.sampled_from([0, 1, 5]),
)
def test_flips_the_score_that_the_guideline_reports(patches, rule_set, floor):
    areas = [sum(p) for p in patches]
    counts = [len(p) for p in patches]
    two_largest = [sum(sorted(p)[-2:]) for p in patches]
    reported = _core.decide_guideline(areas, rule_set, floor, counts)["score"]
    flip = _core.flip_certificate(areas, rule_set, floor, two_largest)
    assert flip["least_px"] > 0
    assert flip["to_score"] != reported


@given(
    areas=st.lists(st.integers(0, 2**53 - 1), min_size=4, max_size=4).filter(any),
    rule_set=st.sampled_from(RULE_SETS),
)
def test_large_areas_flip_too(areas, rule_set):
    flip = _core.flip_certificate(areas, rule_set)
    moved = [a + px for a, px in zip(areas, flip["change_px"], strict=True)]
    assert min(moved) >= 0
    if max(moved) < 2**53:
        given_score = _core.decide_guideline(areas, rule_set)["score"]
        got = _core.decide_guideline(moved, rule_set)["score"]
        assert got == flip["to_score"] != given_score


def test_nothing_to_flip_and_bad_input():
    assert _core.flip_certificate((0, 0, 0, 0)) is None
    for areas, rule_set, floor, held, text in [
        ((1, -1, 0, 0), "pham-2022", 1, None, "need 0 <= areas"),
        ((1, 2**53, 0, 0), "pham-2022", 1, None, "need 0 <= areas"),
        ((1, 0, 0, 0), "pham", 1, None, "need a rule set"),
        ((1, 0, 0, 0), "pham-2022", 101, None, "need 0 <= floor_percent"),
        ((1, 0, 0, 0), "pham-2022", 1, (2, 0, 0, 0), "need 0 <= two_largest_px"),
        ((1, 0, 0, 0), "pham-2022", 1, (0, -1, 0, 0), "need 0 <= two_largest_px"),
    ]:
        with pytest.raises(ValueError, match=text):
            _core.flip_certificate(areas, rule_set, floor, held)


def test_no_change_of_whole_patches_is_cheaper():
    """Every class for every patch: the score stays for less area than certified."""
    rng = np.random.default_rng(4)
    for _ in range(60):
        px = rng.choice([410, 500, 1000, 4096], 6)
        classes = rng.choice(4, 6, p=rng.dirichlet([1] * 4))
        rule_set = str(rng.choice(RULE_SETS))
        floor = int(rng.choice([1, 10, 30]))

        def score(of: np.ndarray, px=px, rule_set=rule_set, floor=floor) -> str:
            areas = [int(px[of == c].sum()) for c in range(4)]
            counts = [int((of == c).sum()) for c in range(4)]
            return _core.decide_guideline(areas, rule_set, floor, counts)["score"]

        areas = [int(px[classes == c].sum()) for c in range(4)]
        two = [int(np.sort(px[classes == c])[-2:].sum()) for c in range(4)]
        least = _core.flip_certificate(areas, rule_set, floor, two)["least_px"]
        reported = score(classes)
        for code in range(4**6):
            changed = code // 4 ** np.arange(6) % 4
            moved = int(px[changed != classes].sum())
            if moved < least:
                assert score(changed) == reported, (px, classes, rule_set, changed)
