# SPDX-License-Identifier: Apache-2.0
"""How phantoms look: stain hues, noise, blur, and the variety of unstained tumor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from scipy import ndimage

from her2fast import phantom
from her2fast.phantom import fields, layout, optics, tumor

ALL = (*phantom.PROFILES, phantom.UNSEEN)
BARE = replace(
    phantom.PROFILES[0], noise=0.0, blur_um=1e-3, chroma_blur_um=1e-3, jpeg_quality=0
)


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.name)
def test_every_day_of_a_laboratory_is_blue_and_brown(profile):
    for day in range(60):
        look = optics.jittered(profile, fields.generator(day))
        red, green, blue = look.hematoxylin
        assert blue <= 0.721 * min(red, green)
        red, green, blue = look.dab
        assert red >= 0.499 * green
        assert blue >= 1.179 * green
        assert np.linalg.norm(look.hematoxylin) == pytest.approx(1.0)
        assert np.linalg.norm(look.dab) == pytest.approx(1.0)


def test_looks_differ_in_hue_strength_and_glass():
    looks = [
        optics.jittered(profile, fields.generator(day))
        for day in range(20)
        for profile in phantom.PROFILES
    ]
    hue = np.array([look.hematoxylin[0] / look.hematoxylin[1] for look in looks])
    gain = np.array([look.hematoxylin_gain for look in looks])
    glass = np.array([look.white_rgb for look in looks])
    assert hue.max() / hue.min() > 1.5
    assert gain.max() / gain.min() > 3.0
    assert np.ptp(glass[:, 0] - glass[:, 2]) > 10.0


def test_noise_of_color_is_coarse_and_strongest_in_blue():
    look = replace(BARE, noise=1.0, white_rgb=(200.0, 200.0, 200.0))
    amounts = np.zeros((4, 400, 400), np.float32)
    rgb = optics.expose(
        amounts, look, fields.generator(0), spacing_um=1.0, oversampling=1
    ).astype(float)
    spread = rgb.std((0, 1))
    assert spread[2] > 1.7 * spread[0]
    assert spread[2] > 1.7 * spread[1]

    def neighbor(plane):
        plane = plane - plane.mean()
        return float((plane[:, 1:] * plane[:, :-1]).mean() / plane.var())

    bright = rgb @ [0.299, 0.587, 0.114]
    assert neighbor(bright) < 0.15
    assert 0.4 < neighbor(rgb[..., 2] - bright) < 0.8
    assert bright.std() == pytest.approx(1.0, abs=0.15)
    assert (rgb[..., 2] - bright).std() == pytest.approx(
        optics.CHROMA_NOISE[0], rel=0.15
    )


def test_noise_does_not_change_with_bands(monkeypatch):
    """Each band draws its own numbers, and none is louder at its border."""
    look = replace(BARE, noise=2.0)
    amounts = np.full((4, 256, 64), 0.1, np.float32)
    monkeypatch.setattr(optics, "_BAND_PX", 16 * 64)
    rgb = optics.expose(
        amounts, look, fields.generator(1), spacing_um=1.0, oversampling=1
    ).astype(float)
    chroma = rgb[..., 2] - rgb @ [0.299, 0.587, 0.114]
    rows = chroma.std(1)
    border = np.r_[rows[15::16], rows[16::16]]
    assert border.mean() == pytest.approx(rows.mean(), rel=0.12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    sigma_px=st.floats(0.05, 4.0),
)
def test_softening_equals_scipy(seed, height, width, sigma_px):
    plane = np.random.default_rng(seed).random((height, width), np.float32)
    taps = optics._taps(sigma_px)
    assert taps.sum() == pytest.approx(1.0, abs=1e-6)
    wanted = plane
    for axis in (0, 1):
        wanted = ndimage.correlate1d(wanted, taps, axis=axis, mode="nearest")
    np.testing.assert_allclose(optics.soften(plane, taps), wanted, atol=2e-6)


def test_gray_stays_gray_through_the_color_differences():
    planes = np.random.default_rng(0).random((3, 5, 7), np.float32) * 255
    back = optics._joined(*optics._split(planes))
    np.testing.assert_allclose(np.stack(back), planes, atol=1e-3)


def test_unstained_tumor_varies_widely():
    means, darkness, brown = [], [], []
    for seed in range(30):
        drawn = phantom.compose_scene(
            400 + seed, (128, 128), mixture=(1.0, 0.0, 0.0, 0.0)
        )
        at = drawn.class_map == 0
        values = drawn.amounts[0][at]
        means.append(float(np.quantile(values, 0.3)))
        darkness.append(float(np.quantile(values, 0.97)))
        brown.append(float(np.median(drawn.amounts[1][at])))
        assert not drawn.membrane_mask.any() or drawn.membrane_mask.mean() < 1e-3
    # From nearly clear to well stained cytoplasm, from pale to dark nuclei.
    assert np.quantile(means, 0.95) > 4.0 * np.quantile(means, 0.05)
    assert max(darkness) > 2.5 * min(darkness)
    # Some with a brown veil, most without.
    assert 0.02 < max(brown) < 0.15
    assert np.median(brown) < 0.03


def test_all_architectures_are_drawn_and_hold_tumor():
    seen = {}
    for seed in range(60):
        grid = layout.Grid.over((256, 256), 1.0)
        drawn = layout.draw_layout(fields.generator(seed), grid)
        seen.setdefault(drawn.architecture, []).append(drawn.tumor().mean())
    assert set(seen) == set(layout.ARCHITECTURES)
    assert all(np.mean(shares) > 0.05 for shares in seen.values())
    assert sum(layout.ARCHITECTURE_SHARES) == pytest.approx(1.0)


def test_three_plus_can_lie_amid_zero():
    """In part of the scenes classes that touch differ by more than one."""
    inside = np.ones((150, 150), np.bool_)
    coarse = layout.Grid.over(inside.shape, 2.0)
    jumps = []
    for seed in range(40):
        mixture = (0.7, 0.1, 0.1, 0.1)
        region = tumor.draw_regions(fields.generator(seed), coarse, inside, mixture)
        shares = np.bincount(region.ravel(), minlength=4) / region.size
        np.testing.assert_allclose(shares, mixture, atol=0.02)
        step = np.abs(np.diff(region.astype(int), axis=0))
        jumps.append((step > 1).sum() / max((step > 0).sum(), 1))
    far = np.array(jumps) > 0.3
    assert 0.1 < far.mean() < 0.7


def test_depth_of_a_map_is_its_distance_near_its_border():
    side = 60
    y, x = np.mgrid[:side, :side].astype(np.float32) * 2.0
    radius = np.hypot(x - 59.0, y - 59.0)
    drawn = layout.draw_layout(
        fields.generator(0), layout.Grid.over((2 * side, 2 * side), 1.0)
    )
    # A field that rises three times as fast as the distance.
    got = drawn.distance((3.0 * (40.0 - radius)).astype(np.float32))
    near = np.abs(40.0 - radius) < 6.0
    np.testing.assert_allclose(got[near], (40.0 - radius)[near], atol=0.7)
