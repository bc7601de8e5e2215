# SPDX-License-Identifier: Apache-2.0
"""The second generator: repeatable, true to its truth, and out of training's reach."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.sequential_addition import sequential_addition as slow_addition

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

import her2fast
import phantom_second
from phantom_second import camera, packing

SOURCE = Path(her2fast.__file__).parent
SECOND = Path(phantom_second.__file__).parent


def imported(path):
    """Every module a file imports by name, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_training_cannot_see_it():
    files = list(SOURCE.rglob("*.py"))
    assert SOURCE / "training/phantom_data.py" in files
    for file in files:
        assert "phantom_second" not in file.read_text(encoding="utf-8"), file
    # It lies outside the package, so that an installed her2fast does not hold it.
    assert SOURCE not in SECOND.parents


def test_nothing_of_it_is_loaded_by_training():
    pytest.importorskip("torch")
    code = (
        "import pkgutil, importlib, sys, her2fast.training as t\n"
        "for m in pkgutil.iter_modules(t.__path__):\n"
        "    importlib.import_module('her2fast.training.' + m.name)\n"
        "assert 'her2fast.training.phantom_data' in sys.modules\n"
        "print([m for m in sys.modules if m.startswith('phantom_second')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_shares_no_code_with_the_first():
    for file in SECOND.glob("*.py"):
        assert not any(name.startswith("her2fast") for name in imported(file)), file


def test_same_arguments_give_the_same_bytes():
    one = phantom_second.render(3, (160, 128))
    two = phantom_second.render(3, (160, 128))
    assert one.rgb.shape == (128, 160, 3)
    assert one.rgb.tobytes() == two.rgb.tobytes()
    assert one.class_map.tobytes() == two.class_map.tobytes()
    assert one.rgb.tobytes() != phantom_second.render(4, (160, 128)).rgb.tobytes()


@pytest.mark.parametrize("mixture", [(1, 0, 0, 0), (0, 0.3, 0.7, 0), (0.1, 0, 0, 0.9)])
def test_classes_follow_the_mixture(mixture):
    total = np.zeros(4)
    for seed in range(4):
        picture = phantom_second.render(seed, (256, 256), mixture=mixture)
        kinds = picture.class_map
        np.testing.assert_array_equal(picture.tumor_mask, kinds >= 0)
        counts = np.bincount(kinds[kinds >= 0], minlength=4)
        np.testing.assert_allclose(picture.fractions, counts / counts.sum())
        assert set(np.unique(kinds[kinds >= 0])) <= {
            kind for kind in range(4) if mixture[kind] > 0
        }
        total += counts
    np.testing.assert_allclose(total / total.sum(), mixture, atol=0.1)


def test_brown_rises_with_the_class():
    """Red less blue on tumor, less the same of class 0 under the same look."""
    brown = np.zeros(4)
    for seed in range(30, 34):
        for kind in range(4):
            mixture = tuple(float(k == kind) for k in range(4))
            picture = phantom_second.render(seed, (256, 256), mixture=mixture)
            tumor = picture.rgb[picture.tumor_mask].astype(float)
            brown[kind] += (tumor[:, 0] - tumor[:, 2]).mean() / 4
    assert brown[0] + 2 < brown[1]
    assert brown[1] + 5 < brown[2]
    assert brown[2] + 10 < brown[3]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000), count=st.integers(0, 60), closeness=st.floats(0.3, 1.5)
)
def test_rounds_equal_the_one_by_one_loop(seed, count, closeness):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 20, (count, 2))
    radii = rng.uniform(0.5, 3.0, count)
    got = packing.sequential_addition(points, radii, closeness)
    assert got.tolist() == slow_addition(points.tolist(), radii.tolist(), closeness)


def one_cell(**changes):
    def row(value):
        return np.array([value], np.float32)

    values = {
        "x_um": row(20.3),
        "y_um": row(19.8),
        "radius_um": row(9.0),
        "aspect": row(1.0),
        "angle": row(0.0),
        "wobble": row([0.0, 0.0]),
        "phase": row([0.0] * 4),
        "band_um": row(0.64),
        "complete": row(2.0),
        "nucleus_um": row(4.0),
        "nucleus_off": row([0.0, 0.0]),
    }
    return packing.Cells(**{**values, **changes})


@pytest.mark.parametrize("spacing_um", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("band_um", [0.64, 2.14])
def test_a_membrane_keeps_its_area_at_any_spacing(spacing_um, band_um):
    """A full ring by hand: pi * (r^2 - (r - w)^2), also where w is below a pixel."""
    cells = one_cell(band_um=np.array([band_um], np.float32))
    spot = packing.paint(cells, np.array([0]), (120, 120), spacing_um)
    area = float(spot.share.sum()) * spacing_um**2
    wanted = np.pi * (9.0**2 - (9.0 - band_um) ** 2)
    assert area == pytest.approx(wanted, rel=0.06)
    bare = packing.paint(
        one_cell(complete=np.array([-1.0], "f4")), np.array([0]), (120, 120), spacing_um
    )
    assert bare.share.max() == 0.0


def test_sensor_integrates_by_hand():
    """One pair of amounts, summed over wavelengths without the table's products."""
    look = camera.draw_look(np.random.default_rng(1))
    table = camera.color_table(look).reshape(camera.TABLE, camera.TABLE, 3)
    h = 100 / (camera.TABLE - 1) * camera.DENSEST
    d = 60 / (camera.TABLE - 1) * camera.DENSEST
    through = 10.0 ** (
        -h * camera.hematoxylin_curve(look.hematoxylin_shift_nm)
        - d * camera.dab_curve(look.dab_slope)
    )
    seen = camera._sensor(look.lamp_blue)
    for channel in range(3):
        wanted = sum(s * t for s, t in zip(seen[channel], through, strict=True))
        assert table[100, 60, channel] == pytest.approx(wanted, rel=1e-4)
    assert table[0, 0] == pytest.approx([1, 1, 1], abs=1e-5)
    # DAB takes blue first and red last; hematoxylin takes the blue last.
    brown, blue = table[0, 100], table[100, 0]
    assert brown[0] > brown[1] > brown[2]
    assert blue[2] > blue[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size_px": (8, 64)}, "size_px"),
        ({"spacing_um": 0.1}, "spacing_um"),
        ({"spacing_um": float("nan")}, "spacing_um"),
        ({"mixture": (0.5, 0.5, 0.5, 0.0)}, "mixture"),
        ({"mixture": (1.5, -0.5, 0.0, 0.0)}, "mixture"),
    ],
)
def test_bad_input_says_what_was_wanted(wrong, message):
    with pytest.raises(ValueError, match=message):
        phantom_second.render(0, **{"size_px": (64, 64), **wrong})
