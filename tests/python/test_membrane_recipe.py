# SPDX-License-Identifier: Apache-2.0
"""The recipe of `membrane-tiny`: its division, its configuration, its bench."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast.phantom.optics import PROFILES
from her2fast.training import membrane_recipe
from her2fast.training.config import MembraneConfig
from her2fast.training.config_file import load_config

BENCH = Path(__file__).resolve().parents[2] / "bench" / "membrane_network" / "run.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_membrane_network", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_laboratory_is_validated_on_once() -> None:
    chosen = [
        (score, index)
        for score in range(4)
        for index in range(membrane_recipe.SLIDES)
        if membrane_recipe.is_validation(score, index)
    ]
    assert len(chosen) == len(PROFILES)
    assert sorted(i % len(PROFILES) for _, i in chosen) == list(range(len(PROFILES)))
    assert {score for score, _ in chosen} == {0, 1, 2, 3}


def test_slides_and_configuration(tmp_path: Path) -> None:
    """One slide of each score of the smallest size, cut into tiles of the config."""
    manifest = membrane_recipe.draw_phantoms(tmp_path, slides=1, seed=3, side_um=500)
    lines = manifest.read_text().splitlines()
    assert len(lines) == 5
    for line in lines[1:]:
        slide = tmp_path / line.split(",")[0]
        assert slide.is_file()
        truth = slide.parents[1] / "truth" / slide.stem / "membrane_mask.png"
        assert truth.is_file()
    place = membrane_recipe.write_config(tmp_path, seed=3, epochs=2, samples=4)
    config, _ = load_config(place, MembraneConfig)
    assert config.data.manifest == manifest
    assert (config.data.spacing_um, config.data.tile_px) == (0.25, 512)
    assert config.package.synthetic


def test_bench_counts(bench: ModuleType) -> None:
    found = np.array([[True, True, False, False]])
    truth = np.array([[True, False, True, False]])
    total = bench.counts(found, truth, np.ones_like(truth))
    assert total.tolist() == [1, 1, 1]
    assert bench.figures(total)["dice"] == 0.5
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[:4] = 200
    assert np.array_equal(bench.coarsened(rgb, 1), rgb)
    soft = bench.coarsened(rgb, 4)
    assert soft.shape == rgb.shape
    assert soft[0].max() == 200
    assert 0 < soft[3].max() < 200


def test_bench_puts_tiles_where_they_were(bench: ModuleType) -> None:
    class Echo:
        def run(self, rgb: np.ndarray) -> np.ndarray:
            dark = np.where(rgb[..., 0] < 128, 1.0, -1.0).astype(np.float32)
            return np.stack([dark, -dark], 1).reshape(len(rgb), -1)

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (70, 100, 3), np.uint8)
    np.testing.assert_array_equal(bench.membranes(Echo(), 32, rgb), rgb[..., 0] < 128)
