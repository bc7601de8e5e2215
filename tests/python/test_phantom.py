# SPDX-License-Identifier: Apache-2.0
"""Phantoms: repeatable, true to their truth, true to the optics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import phantom_cells

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast import phantom
from her2fast.phantom import fields, optics
from her2fast.phantom import tumor as drawn_tumor

PLAIN = replace(
    optics.profile_by_name("reference"), noise=0.0, blur_um=1e-3, jpeg_quality=0
)


def test_same_arguments_give_the_same_bytes():
    one = phantom.render(3, (160, 128), profile="violet")
    two = phantom.render(3, (160, 128), profile="violet")
    assert one.rgb.shape == (128, 160, 3)
    assert one.rgb.tobytes() == two.rgb.tobytes()
    assert one.class_map.tobytes() == two.class_map.tobytes()
    other = phantom.render(4, (160, 128), profile="violet")
    assert one.rgb.tobytes() != other.rgb.tobytes()


def test_the_look_does_not_move_the_truth():
    pictures = [phantom.render(5, (128, 128), profile=p) for p in optics.PROFILES]
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture.class_map, pictures[0].class_map)
        assert picture.rgb.tobytes() != pictures[0].rgb.tobytes()


@pytest.mark.parametrize("mixture", [(1, 0, 0, 0), (0, 0.3, 0.7, 0), (0.1, 0, 0, 0.9)])
def test_classes_follow_the_mixture(mixture):
    total = np.zeros(4)
    for seed in range(4):
        picture = phantom.render(seed, (176, 176), mixture=mixture)
        kinds = picture.class_map
        np.testing.assert_array_equal(picture.tumor_mask, kinds >= 0)
        counts = np.bincount(kinds[kinds >= 0], minlength=4)
        np.testing.assert_allclose(picture.fractions, counts / counts.sum())
        assert set(np.unique(kinds[kinds >= 0])) <= {
            kind for kind in range(4) if mixture[kind] > 0
        }
        total += counts
    np.testing.assert_allclose(total / total.sum(), mixture, atol=0.08)


def test_brown_rises_with_the_class():
    """Mean amount of DAB on tumor: the order that a score means."""
    brown = []
    for kind in range(4):
        mixture = tuple(float(k == kind) for k in range(4))
        means = [
            float(drawn.amounts[1][drawn.class_map == kind].mean())
            for drawn in (
                phantom.compose_scene(seed, (96, 96), mixture=mixture)
                for seed in range(20, 23)
            )
        ]
        brown.append(np.mean(means))
    assert brown[0] < 0.06
    assert brown[0] < 0.8 * brown[1]
    assert brown[1] < 0.6 * brown[2]
    assert brown[2] < 0.6 * brown[3]


def test_no_tumor_where_none_is_wanted():
    drawn = phantom.compose_scene(1, (96, 96), tumor=False)
    assert (drawn.class_map == -1).all()


def test_light_follows_beer_lambert():
    """0.3 of hematoxylin and 0.2 of DAB by hand: white * (stray + 10 ** -density)."""
    amounts = np.zeros((3, 32, 32), np.float32)
    amounts[0], amounts[1] = 0.3, 0.2
    rng = fields.generator(0)
    rgb = optics.expose(amounts, PLAIN, rng, spacing_um=1.0, oversampling=2)
    for channel in range(3):
        density = 0.3 * PLAIN.hematoxylin_gain * optics.HEMATOXYLIN[channel]
        density += 0.2 * PLAIN.dab_gain * optics.DAB[channel]
        wanted = PLAIN.white_rgb[channel] * (0.02 + 0.98 * 10.0**-density)
        assert np.abs(rgb[..., channel] - wanted).max() <= 0.51
    glass = optics.expose(amounts * 0, PLAIN, rng, spacing_um=1.0, oversampling=2)
    np.testing.assert_array_equal(np.unique(glass[..., 0]), [240])


def test_light_is_averaged_and_not_density():
    """Half a pixel opaque lets half the light through, however dark that half is."""
    amounts = np.zeros((3, 2, 2), np.float32)
    amounts[2, :, 0] = 100.0
    amounts = np.tile(amounts, (1, 16, 16))
    rgb = optics.expose(
        amounts, PLAIN, fields.generator(0), spacing_um=1.0, oversampling=2
    )
    np.testing.assert_array_equal(np.unique(rgb[..., 0]), [round(240 * 0.51)])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 50),
    u=st.floats(20.0, 22.0, width=32),
    v=st.floats(40.0, 42.0, width=32),
)
def test_cells_equal_the_slow_twin(seed, u, v):
    cells = fields.Cells(fields.generator(seed))
    rng = fields.generator(seed)
    size = fields.TABLE * fields.TABLE
    jitter_u, jitter_v = (
        rng.random(size, np.float32) * np.float32(0.72) - np.float32(0.36)
        for _ in range(2)
    )
    # The twin sees the same 3 x 3 window: a second neighbor outside it is possible
    # but rare, and only moves a border's far end.
    centers = [
        (
            iu + 0.5 + float(jitter_u[iv * fields.TABLE + iu]),
            iv + 0.5 + float(jitter_v[iv * fields.TABLE + iu]),
        )
        for iu in range(int(u) - 1, int(u) + 2)
        for iv in range(int(v) - 1, int(v) + 2)
    ]
    got = cells(np.array([u], np.float32), np.array([v], np.float32))
    distance, offset, edge = phantom_cells.nearest_two(u, v, centers)
    assert got.distance[0] == pytest.approx(distance, abs=2e-5)
    assert got.edge[0] == pytest.approx(edge, abs=1e-4)
    assert (got.du[0], got.dv[0]) == pytest.approx(offset, abs=2e-5)
    assert np.hypot(got.normal_u[0], got.normal_v[0]) == pytest.approx(1.0, abs=1e-4)


def test_membrane_widths_are_the_published_ones():
    assert [mean for mean, _ in drawn_tumor.MEMBRANE_UM[1:]] == [0.64, 1.0, 2.14]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size_px": (8, 64)}, "size_px"),
        ({"spacing_um": 0.0}, "spacing_um"),
        ({"spacing_um": float("nan")}, "spacing_um"),
        ({"mixture": (0.5, 0.5, 0.5, 0.0)}, "mixture"),
        ({"mixture": (1.5, -0.5, 0.0, 0.0)}, "mixture"),
        ({"profile": "sepia"}, "sepia"),
    ],
)
def test_bad_input_says_what_was_wanted(wrong, message):
    arguments = {"size_px": (64, 64), **wrong}
    with pytest.raises(ValueError, match=message):
        phantom.render(0, **arguments)
