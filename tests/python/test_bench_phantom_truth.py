# SPDX-License-Identifier: Apache-2.0
"""Figures of bench/phantom_truth, against hand-worked cases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "bench/phantom_truth"


def load(name):
    spec = importlib.util.spec_from_file_location(
        f"phantom_truth_{name}", FOLDER / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures():
    if not FOLDER.is_dir():
        pytest.skip("the benches are not part of an sdist")
    return load("figures")


def test_macro_f1_by_hand(figures):
    """F1: 0 -> 2/3, 1+ -> 4/5, 2+ -> 0 (no score), 3+ -> absent on both sides."""
    table = figures.confusion(
        ["0", "0", "1+", "1+", "2+"], ["0", "1+", "1+", "1+", None]
    )
    assert table.tolist() == [
        [1, 1, 0, 0, 0],
        [0, 2, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    assert figures.macro_f1(table) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


def row(index, truth, predicted, true_fractions, found_fractions, review=False):
    rules = ("pham-2022", "asco-cap-2018")
    return {
        "index": index,
        "truth": dict.fromkeys(rules, truth),
        "predicted": dict.fromkeys(rules, predicted),
        "review": dict.fromkeys(rules, review),
        "true_fractions": true_fractions,
        "found_fractions": found_fractions,
        "tumor_dice": 0.9,
        "patches": (np.eye(4, dtype=int) * (index + 1)).tolist(),
    }


def test_summary_by_hand(figures):
    rows = [
        row(0, "1+", "3+", [0.9, 0.1, 0.0, 0.0], [0.6, 0.2, 0.0, 0.2]),
        row(1, "0", "0", [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        row(2, "3+", None, [0.0, 0.0, 0.0, 1.0], None, review=True),
    ]
    out = figures.summarize(rows)
    rule = out["rules"]["pham-2022"]
    assert (rule["right"], rule["without_score"]) == (1, 1)
    assert (rule["off_by_two_or_more"], rule["wrong_without_flag"]) == (1, 1)
    assert out["fraction_mae"]["mean"] == pytest.approx(0.6 / 4 / 2)
    near = out["fraction_error_near_cut"]
    assert near["values"] == 1
    assert near["error"]["mean"] == pytest.approx(0.1)
    assert out["patches"]["accuracy_by_class"] == [1.0] * 4
    assert [end["index"] for end in out["worst"]] == [0, 1]
    assert [end["index"] for end in out["best"]] == [1, 0]


def test_cohort_is_balanced_and_fixed(figures):
    from her2fast import guidelines

    run = load("run")
    for index in range(8):
        shares = run.mixture_of(7_000_000 + index, index % 4)
        assert sum(shares) == pytest.approx(1.0)
        areas = [int(share * 1e6) for share in shares]
        wanted = ("0", "1+", "2+", "3+")[index % 4]
        assert guidelines.decide(areas, "pham-2022").score == wanted
        assert shares == run.mixture_of(7_000_000 + index, index % 4)


def test_patch_truth_counts_the_border(figures):
    kinds = np.full((70, 64), -1, np.int8)
    kinds[66:, :10] = 2
    areas = load("run").patch_truth(kinds)
    assert areas.shape == (2, 1, 4)
    assert areas[1, 0].tolist() == [0, 0, 40, 0]
    assert areas[0].sum() == 0
