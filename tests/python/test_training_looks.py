# SPDX-License-Identifier: Apache-2.0
"""Looks, hard negatives and domain statistics of the recipe."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from scipy import ndimage

from her2fast.phantom import compose_scene
from her2fast.phantom.fields import generator
from her2fast.phantom.optics import DAB, HEMATOXYLIN
from her2fast.training import (
    coding,
    domain_statistics,
    hard_negatives,
    looks,
    phantom_data,
)
from her2fast.training.networks import TinyClassifier, fold_norms
from her2fast.training.packages import MEAN, STD

STILL = looks.Spread(
    hematoxylin=0.0, dab=0.0, vector=0.0, gamma=0.0, balance=0.0,
    soften=0.0, sharpen=0.0, noise=0.0,
)  # fmt: skip


def stained(hematoxylin: float, dab: float) -> torch.Tensor:
    """(1, 8, 8, 3) pixels of so much of both stains, in natural density."""
    density = hematoxylin * np.array(HEMATOXYLIN) + dab * np.array(DAB)
    pixel = np.rint(255.0 * np.exp(-density)).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(pixel, (1, 8, 8, 3)).copy())


def test_nothing_moved_is_the_same_picture():
    rgb = stained(0.7, 0.5)
    out = looks.augment(rgb, torch.Generator().manual_seed(0), STILL)
    # What neither stain explains is scaled: only rounding is left of it here.
    assert (out.int() - rgb.int()).abs().max() <= 2


def test_dab_is_taken_away_and_hematoxylin_stays():
    spread = looks.Spread(**{**STILL.__dict__, "no_dab": 1.0})
    with_dab = stained(0.5, 1.2)
    without = stained(0.5, 0.0)
    out = looks.augment(with_dab, torch.Generator().manual_seed(1), spread)
    left = -np.log(out.double().numpy() / 255.0) @ np.linalg.pinv(
        np.array([HEMATOXYLIN, DAB])
    )
    assert left[..., 1].max() <= 0.3 * 1.2 + 0.02
    np.testing.assert_allclose(left[..., 0], 0.5, atol=0.05)
    assert out.float().mean() > with_dab.float().mean()
    assert out.float().mean() <= without.float().mean()


def test_out_of_focus_is_a_gaussian_of_each_picture():
    """Each item by its own sigma; SciPy is the oracle."""
    planes = torch.rand(2, 3, 24, 30)
    sigmas = [0.8, 2.0]
    out = looks._gaussian(planes, torch.tensor(sigmas)).numpy()
    reach = int(np.ceil(looks.REACH_SIGMAS * max(sigmas)))
    for item, sigma in enumerate(sigmas):
        for plane, found in zip(planes[item].numpy(), out[item], strict=True):
            wanted = ndimage.gaussian_filter(plane, sigma, mode="nearest", radius=reach)
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_defocus_blurs_its_share_and_draws_nothing_where_there_is_none():
    rgb = torch.randint(60, 250, (6, 32, 32, 3), dtype=torch.uint8)
    plain = looks.augment(rgb, torch.Generator().manual_seed(2), STILL)
    all_of_them = looks.Spread(**{**STILL.__dict__, "defocus": 1.0})
    out = looks.augment(rgb, torch.Generator().manual_seed(2), all_of_them)
    assert (out.float().std((1, 2, 3)) < plain.float().std((1, 2, 3))).all()
    assert looks.FOR_MEMBRANES.defocus > 0.0 == looks.FOR_CLASSES.defocus


def test_augmenting_repeats_and_differs():
    rgb = torch.randint(60, 250, (3, 16, 16, 3), dtype=torch.uint8)
    one = looks.augment(rgb, torch.Generator().manual_seed(5), looks.FOR_TUMOR)
    two = looks.augment(rgb, torch.Generator().manual_seed(5), looks.FOR_TUMOR)
    other = looks.augment(rgb, torch.Generator().manual_seed(6), looks.FOR_TUMOR)
    assert torch.equal(one, two)
    assert one.shape == rgb.shape
    assert one.dtype == torch.uint8
    assert not torch.equal(one, other)


def test_wide_profiles_are_many_and_possible():
    profiles = [looks.wide_profile(generator(seed, 1)) for seed in range(40)]
    assert len({p.hematoxylin for p in profiles}) == 40
    for profile in profiles:
        assert np.linalg.norm(profile.dab) == pytest.approx(1.0)
        assert min(*profile.hematoxylin, *profile.dab) > 0.0
        assert profile.sharpen >= 0.0
        assert 212.0 <= min(profile.white_rgb) <= max(profile.white_rgb) <= 254.0


def test_any_laboratory_is_wider_and_possible():
    """By its ranges, and in every one of them beyond what `wide_profile` draws."""
    profiles = [looks.any_laboratory(generator(seed, 1)) for seed in range(400)]
    usual = [looks.wide_profile(generator(seed, 1)) for seed in range(400)]
    assert len({p.hematoxylin for p in profiles}) == 400
    for profile in profiles:
        for vector in (profile.hematoxylin, profile.dab):
            assert np.linalg.norm(vector) == pytest.approx(1.0)
            assert min(vector) > 0.0
        # blue passes hematoxylin, DAB takes it most
        assert profile.hematoxylin[2] < 0.73 * min(profile.hematoxylin[:2])
        assert profile.dab[2] > 1.17 * profile.dab[1]
        assert 0.5 <= profile.hematoxylin_gain <= 2.2
        assert 0.12 <= profile.blur_um <= 1.0
        assert 0.4 <= profile.noise <= 3.0
        assert 0.0 <= profile.sharpen <= 0.6
        assert 210.0 <= min(profile.white_rgb) <= max(profile.white_rgb) <= 254.0
    for name in ("hematoxylin_gain", "blur_um", "noise"):
        spread, less = (
            np.log([getattr(p, name) for p in drawn]).std()
            for drawn in (profiles, usual)
        )
        assert spread > less


def test_scenes_are_of_the_laboratory_that_is_asked_for():
    made = [
        phantom_data.make_pictures(
            2, 64, 1, first_seed=5, laboratory=one, raw=True, processes=processes
        ).rgb
        for one, processes in (
            (looks.wide_profile, 1),
            (looks.any_laboratory, 1),
            (looks.any_laboratory, 2),
        )
    ]
    assert (made[0] != made[1]).any()
    assert (made[1] == made[2]).all()


def test_pen_and_folds_hide_what_they_cover(monkeypatch):
    def spoiled(pen: float, fold: float):
        monkeypatch.setattr(hard_negatives, "PEN_SHARE", pen)
        monkeypatch.setattr(hard_negatives, "FOLD_SHARE", fold)
        rgb = np.full((2, 400, 400, 3), 200, np.uint8)
        rgb[:, ::5] = 240
        classes = np.full((400, 400), 2, np.int8)
        hard_negatives.spoil(generator(3, 0), rgb, classes)
        return rgb, classes

    plain, classes = spoiled(-1.0, -1.0)
    assert (classes == 2).all()
    assert (plain[:, 1] == 200).all()
    for shares in ((2.0, -1.0), (-1.0, 2.0)):
        rgb, classes = spoiled(*shares)
        hidden = classes == -1
        assert 0.02 < hidden.mean() < 0.98
        assert rgb[0][hidden].mean() < plain[0][hidden].mean() - 5
        away = ~hidden & (np.abs(rgb[0].astype(int) - plain[0]).max(-1) < 2)
        assert away.sum() > 0.8 * (~hidden).sum()


def test_scenes_do_not_depend_on_the_processes():
    one = phantom_data.make_pictures(3, 96, 2, first_seed=77)
    two = phantom_data.make_pictures(3, 96, 2, first_seed=77, processes=2)
    assert one.rgb.tobytes() == two.rgb.tobytes()
    assert one.class_map.tobytes() == two.class_map.tobytes()


def test_finer_scenes_are_means_of_what_is_kept():
    made = phantom_data.make_pictures(
        2, 96, 2, first_seed=78, empty_share=0.0, raw=True, finer=True
    )
    assert made.finer is not None
    assert made.finer.shape == (2, 2, 192, 192, 3)
    assert np.array_equal(made.rgb, coding.halved(made.finer))
    # The truth is that of the finer scenes.
    scenes = [
        phantom_data.render_scene(
            phantom_data.Plan(96, 2, 0.0, looks.wide_profile, True, 2), seed
        )
        for seed in (78, 79)
    ]
    for scene, (_, classes) in enumerate(scenes):
        assert np.array_equal(made.class_map[scene], classes[::2, ::2])
    plain = phantom_data.make_pictures(1, 96, 1, first_seed=78)
    assert plain.finer is None


def test_finer_scenes_have_half_of_the_spacing(monkeypatch):
    spacings = []

    def composed(*arguments, spacing_um, **settings):
        spacings.append(spacing_um)
        return compose_scene(*arguments, spacing_um=spacing_um, **settings)

    monkeypatch.setattr(phantom_data, "compose_scene", composed)
    for scale in (1, 2):
        plan = phantom_data.Plan(64, 1, 0.0, looks.wide_profile, True, scale)
        phantom_data.render_scene(plan, 78)
    assert spacings[0] == pytest.approx(2.0 * spacings[1])
    assert 0.9 < spacings[0] < 1.11


def test_crowded_scenes_hold_more_that_is_no_tumor():
    def others(crowded: float) -> int:
        """Kinds of tissue, by scene, that are neither glass, stroma nor tumor."""
        plan = phantom_data.Plan(192, 1, 0.0, looks.wide_profile, True, 1, crowded)
        drawn = []

        def composed(*arguments, **settings):
            scene = compose_scene(*arguments, **settings)
            drawn.append(scene.tissue)
            return scene

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(phantom_data, "compose_scene", composed)
            for seed in range(300, 310):
                phantom_data.render_scene(plan, seed)
        return sum(len(set(np.unique(one)) - {0, 1, 2}) for one in drawn)

    assert others(1.0) > 1.3 * others(0.0)


def test_chances_of_crowded_scenes():
    chances = phantom_data.crowded_mix(np.random.default_rng(0))
    assert chances.tumor_nuclear_dab == 0.0  # that is a look of tumor
    low, high = phantom_data.CROWDED
    values = [
        getattr(chances, one.name)
        for one in fields(chances)
        if one.name != "tumor_nuclear_dab"
    ]
    assert low <= min(values) < max(values) <= high
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0)], ids=["pen", "fold"])
def test_pen_and_folds_are_as_wide_in_finer_scenes(monkeypatch, shares):
    monkeypatch.setattr(hard_negatives, "PEN_SHARE", shares[0])
    monkeypatch.setattr(hard_negatives, "FOLD_SHARE", shares[1])

    def hidden(scale: int) -> float:
        found = []
        for seed in range(12):
            classes = np.zeros((320 * scale, 320 * scale), np.int8)
            rgb = np.full((1, *classes.shape, 3), 200, np.uint8)
            hard_negatives.spoil(generator(seed, 3), rgb, classes, scale)
            found.append((classes < 0).mean())
        return float(np.mean(found))

    assert hidden(2) == pytest.approx(hidden(1), rel=0.15)


def test_distance_by_hand():
    """Two kinds on a line, unit spread: an unshrunk distance is known."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 20_000)
    values = rng.normal(size=(20_000, 3)) * [1.0, 2.0, 0.5]
    values[:, 0] += 10.0 * kinds
    fitted = domain_statistics.fit_deviation(values, kinds)
    points = torch.tensor([[0.0, 0, 0], [10.0, 0, 0], [0.0, 6, 0], [13.0, 0, 0]])
    far = fitted(points).numpy()
    assert far[:2].max() < 0.05  # both centers
    # three spreads along one of three axes: sqrt(9 / 3)
    np.testing.assert_allclose(far[2:], np.sqrt(3.0), rtol=0.03)
    assert float(fitted(torch.tensor(values[:500], dtype=torch.float32)).mean()) < 1.1


def test_strange_colors_are_far():
    torch.manual_seed(0)
    pictures = phantom_data.make_pictures(3, 160, 1, first_seed=88, empty_share=0.0)
    classifier = TinyClassifier()
    fold_norms(classifier)
    batches = (
        (phantom_data.normalize(rgb, MEAN, STD), shares)
        for rgb, shares in phantom_data.patch_batches(pictures, 24, 64, 1)
    )
    scenes = [
        (phantom_data.normalize(rgb, MEAN, STD), tumor)
        for rgb, tumor in phantom_data.scene_patches(pictures, 64, 2)
    ]
    judged, domain = domain_statistics.fit_domain(
        classifier, batches, scenes, steps=8, mean=MEAN, std=STD
    )
    assert domain.statistics["patches"] == 8 * 24
    assert domain.max_share >= domain_statistics.LEAST_SHARE
    usual = scenes[0][0]
    with torch.inference_mode():
        near = judged(usual)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        light = usual * std + mean
        far = judged((1.0 - light - mean) / std)  # turned upside down
    torch.testing.assert_close(near[:, :4], classifier(usual))
    assert near.shape[1] == 6
    assert (far[:, 4] > domain.cuts["color"]).all()
    assert (far[:, 4] > near[:, 4]).all()


def test_the_box_is_the_mean_of_those_that_are_there():
    planes = torch.rand(2, 3, 5, 7)
    wanted = torch.nn.functional.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(looks._box3(planes), wanted, atol=1e-6, rtol=1e-6)


def test_strength_and_light_are_what_is_drawn(monkeypatch):
    """Twice the stain, half the light, to the power of a gamma: by hand."""
    drawn = iter([2.0, 1.0, 0.5, 1.5])  # hematoxylin, DAB, balance, gamma
    monkeypatch.setattr(
        looks, "_near_one", lambda shape, *_: torch.full(shape, next(drawn))
    )
    spread = looks.Spread(**STILL.__dict__)
    out = looks.augment(stained(0.4, 0.0), torch.Generator().manual_seed(0), spread)
    light = 0.5 * np.exp(-2.0 * 0.4 * np.array(HEMATOXYLIN))
    np.testing.assert_allclose(out[0, 0, 0].numpy(), 255.0 * light**1.5, atol=2.0)
