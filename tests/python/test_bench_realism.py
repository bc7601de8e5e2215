# SPDX-License-Identifier: Apache-2.0
"""Statistics of bench/realism, on pictures whose answer is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "bench/realism"


@pytest.fixture(scope="module")
def features():
    pytest.importorskip("scipy", reason="needs SciPy: pip install her2fast[train]")
    if not FOLDER.is_dir():
        pytest.skip("the benches are not part of an sdist")
    spec = importlib.util.spec_from_file_location(
        "realism_features", FOLDER / "features.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flat_patch_has_finite_statistics(features):
    values = features.describe(np.full((64, 64, 3), 200, np.uint8))
    assert all(np.isfinite(v) for v in values.values())
    assert values["color.R.mean"] == 200.0
    assert values["texture.slope_0"] == 0.0
    assert values["texture.flat_share"] == 1.0


def test_dab_is_read_as_dab(features):
    """0.4 of DAB alone, by Beer and Lambert."""
    light = 245.0 * 10.0 ** (-0.4 * features.STAINS[1])
    patch = np.broadcast_to(np.rint(light), (64, 64, 3)).astype(np.uint8)
    values = features.describe(patch)
    assert values["color.dab.mean"] == pytest.approx(0.4, abs=0.02)
    assert values["color.hematoxylin.mean"] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("period_px", [3, 8, 20])
def test_a_grating_falls_into_its_ring(features, period_px):
    wave = 128 + 60 * np.sin(2 * np.pi * np.arange(64) / period_px)
    patch = np.broadcast_to(wave[None, :, None], (64, 64, 3)).astype(np.uint8)
    values = features.spectrum(patch)
    rings = {k: v for k, v in values.items() if k != "spectrum.direction"}
    low, high = (
        float(x) for x in max(rings, key=rings.get).split(".", 1)[1].split("-")
    )
    assert low <= 1 / period_px <= high
    assert values["spectrum.direction"] > 0.9


def test_jpeg_blocks_show(features):
    rng = np.random.default_rng(0)
    smooth = rng.normal(150, 1, (64, 64, 3))
    blocky = smooth + 6.0 * (np.arange(64) // 8 % 2)[None, :, None]
    plain = features.texture(smooth.astype(np.uint8))["texture.blocks"]
    steps = features.texture(blocky.astype(np.uint8))["texture.blocks"]
    assert plain < 1.3
    assert steps > 2.0
