# SPDX-License-Identifier: Apache-2.0
"""The bench on real cores: its rules, and what it adds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

FOLDER = Path(__file__).resolve().parents[2] / "bench" / "real_cores"


def load(name):
    spec = importlib.util.spec_from_file_location(
        f"real_cores_{name}", FOLDER / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def additions():
    return load("additions")


@pytest.fixture(scope="module")
def bench():
    path = list(sys.path)
    try:
        return load("run")
    finally:
        sys.path[:] = path
        sys.modules.pop("additions", None)


def cores(a, b, positive, half):
    values = (a, b, 0.5, 0.5, positive, half)
    names = ("core_0_a", "core_0_b", "core_1_a", "core_2_ishneg_a")
    names += ("core_2_ishpos_a", "core_3_left_half")
    return {name: {"share_2_3": v} for name, v in zip(names, values, strict=True)}


def test_rises_is_strict_and_needs_a_score(bench):
    assert bench.rises(cores(0.0, 0.1, 0.2, 0.9))
    assert not bench.rises(cores(0.0, 0.2, 0.2, 0.9))
    assert not bench.rises(cores(0.3, 0.0, 0.2, 0.9))
    assert not bench.rises(cores(0.0, 0.1, 0.2, 0.2))
    assert not bench.rises(cores(None, 0.1, 0.2, 0.9))


def test_raised_by_share_or_score(bench):
    plain = {"share_2_3": 0.02, "score": "0"}
    assert bench.raised(plain, {"share_2_3": 0.04, "score": "0"})
    assert bench.raised(plain, {"share_2_3": 0.0, "score": "1+"})
    assert not bench.raised(plain, {"share_2_3": 0.025, "score": "0"})
    assert bench.raised(plain, {"share_2_3": None, "score": None}) is None


def test_light_is_multiplied_and_glass_stays(additions):
    base = np.full((40, 60, 3), 120, np.uint8)
    glass = np.full((20, 20, 3), additions.GLASS, np.uint8)
    assert np.array_equal(additions.over(base, glass), base)
    half = (np.array(additions.GLASS) / 2).astype(np.uint8) + np.zeros_like(glass)
    laid = additions.over(base, half)
    assert np.abs(laid[20, 30].astype(int) - 60).max() <= 1
    assert np.array_equal(laid[:10], base[:10])
    wide = additions.on_glass(base, 200)
    put = additions.beside(wide, half)
    assert np.array_equal(put[:, :60], base)
    assert (put != wide).any()


def test_drawn_things_are_where_they_say(additions, monkeypatch):
    monkeypatch.setattr(additions, "SIDE_PX", 120)
    cells = additions.red_cells(additions.BLOOD, 0.35)
    assert cells.shape == (120, 120, 3)
    light = cells.reshape(-1, 3).mean(0)
    assert light[2] < light[1] < light[0]  # tan: blue is taken most
    tile = np.arange(7 * 7 * 3, dtype=np.uint8).reshape(7, 7, 3)
    assert additions._tiled(tile).shape == (120, 120, 3)
