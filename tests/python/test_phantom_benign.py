# SPDX-License-Identifier: Apache-2.0
"""What is no tumor in a phantom: switched one by one, labeled, never a class."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast.phantom.background import draw_ground, draw_overlay
from her2fast.phantom.fields import generator
from her2fast.phantom.ground import Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.scene import compose
from her2fast.phantom.stroma import StromaMix

SHAPE = (240, 260)
EVEN = (0.25, 0.25, 0.25, 0.25)


def drawn(seed, *names, shape=SHAPE, spacing_um=1.0, clear_um=100.0):
    """Connective tissue and the named things."""
    mix = replace(StromaMix.nothing(), **dict.fromkeys(names, 1.0))
    grid = Grid.over(shape, spacing_um)
    rng = generator(seed)
    clear = np.full(shape, clear_um, np.float32)
    ground = draw_ground(rng, grid, clear, mix)
    draw_overlay(rng, grid, ground, mix)
    return ground


#: These need glass, tumor or a lumen; they have tests of their own.
NEEDS_A_SCENE = ("edge_artifact", "tumor_necrosis", "lumen_debris")
ALL = [one.name for one in fields(StromaMix)]


@pytest.mark.parametrize("name", ALL)
def test_each_thing_is_repeatable_finite_and_changes_the_picture(name):
    """Some of five seeds must show it: `benign_stained` needs ducts to be stained."""
    names = (name, "benign_ducts") if name == "benign_stained" else (name,)
    without = names[1:]
    changed = 0
    for seed in range(5):
        one, two = drawn(seed, *names), drawn(seed, *names)
        np.testing.assert_array_equal(one.amounts, two.amounts)
        np.testing.assert_array_equal(one.tissue, two.tissue)
        assert np.isfinite(one.amounts).all()
        assert one.amounts.min() >= 0.0
        assert one.amounts.max() < 6.0
        changed += bool((one.amounts != drawn(seed, *without).amounts).any())
    assert changed == 0 if name in NEEDS_A_SCENE else changed >= 2


def test_connective_tissue_alone_has_no_brown():
    for seed in range(4):
        ground = drawn(seed)
        assert (ground.tissue == Tissue.STROMA).all()
        assert ground.dab.max() == 0.0
        assert ground.blood.max() == 0.0
        assert 0.004 < ground.hematoxylin.mean() < 0.2


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("fat", Tissue.FAT),
        ("muscle", Tissue.MUSCLE),
        ("lymphocytes", Tissue.LYMPHOID),
        ("follicles", Tissue.LYMPHOID),
        ("histiocytes", Tissue.LYMPHOID),
        ("vessels", Tissue.VESSEL),
        ("benign_ducts", Tissue.BENIGN),
        ("benign_lobules", Tissue.BENIGN),
        ("red_cells", Tissue.BLOOD),
        ("hemosiderin", Tissue.PIGMENT),
        ("anthracosis", Tissue.PIGMENT),
        ("necrosis", Tissue.NECROSIS),
        ("mucin", Tissue.MUCIN),
        ("calcification", Tissue.CALCIFICATION),
    ],
)
def test_labels_say_what_was_drawn(name, label):
    seen = sum(bool((drawn(seed, name).tissue == label).any()) for seed in range(5))
    assert seen >= 3


def test_one_thing_left_out_moves_no_other():
    """Streams of their own: fat stays where it was with and without vessels."""
    for seed in range(3):
        with_more = drawn(seed, "fat", "nuclear_dab", "dab_dots")
        alone = drawn(seed, "fat")
        np.testing.assert_array_equal(with_more.tissue, alone.tissue)


def test_stained_ducts_are_brown_at_their_cells_and_unstained_are_not():
    brown = []
    for seed in range(6):
        plain = drawn(seed, "benign_ducts")
        stained = drawn(seed, "benign_ducts", "benign_stained")
        np.testing.assert_array_equal(plain.tissue, stained.tissue)
        assert plain.dab[plain.tissue == Tissue.STROMA].max() < 0.05
        some = stained.tissue == Tissue.BENIGN
        brown.append(float(stained.dab[some].mean()) if some.any() else 0.0)
    assert np.median(brown) > 0.02


def test_red_cells_bring_no_hematoxylin():
    for seed in range(3):
        with_cells, without = drawn(seed, "red_cells"), drawn(seed)
        assert (with_cells.hematoxylin <= without.hematoxylin + 1e-6).all()
        assert with_cells.blood.sum() > 0.0


def test_edge_artifact_darkens_toward_glass():
    shape = (200, 200)
    grid = Grid.over(shape, 1.0)
    mix = replace(StromaMix.nothing(), edge_artifact=1.0)
    far, near = [], []
    for seed in range(6):
        rng = generator(seed)
        ground = draw_ground(rng, grid, np.full(shape, 100.0, np.float32), mix)
        ground.amounts[:, :, :40] = 0.0
        ground.tissue[:, :40] = Tissue.GLASS
        draw_overlay(rng, grid, ground, mix)
        assert ground.dab[:, :40].max() == 0.0
        near.append(float(ground.dab[:, 42:50].mean()))
        far.append(float(ground.dab[:, 150:].mean()))
    assert min(near) > 0.0
    assert np.mean(near) > 3.0 * np.mean(far)


def test_a_scene_keeps_benign_things_out_of_the_truth():
    everything = StromaMix(**dict.fromkeys(ALL, 1.0))
    benign = 0
    for seed in range(3):
        scene = compose(seed, (256, 256), 1.0, EVEN, mix=everything)
        np.testing.assert_array_equal(
            scene.class_map >= 0, scene.tissue == Tissue.TUMOR
        )
        benign += int((scene.tissue == Tissue.BENIGN).sum())
        assert scene.amounts.shape == (4, 256, 256)
        empty = compose(seed, (256, 256), 1.0, EVEN, tumor=False, mix=everything)
        assert (empty.class_map == -1).all()
    assert benign > 0


def test_widths_are_micrometers_at_any_spacing():
    """The same seed at half the spacing: as much of a vessel, in square um."""
    share = []
    for spacing_um, side in ((1.0, 300), (0.5, 600)):
        area = [
            float(
                (
                    drawn(s, "fat", shape=(side, side), spacing_um=spacing_um).tissue
                    == Tissue.FAT
                ).mean()
            )
            for s in range(4)
        ]
        share.append(np.mean(area))
    assert share[0] == pytest.approx(share[1], abs=0.02)


def test_dead_tumor_is_no_tumor():
    dead = 0
    for seed in range(4):
        alive = compose(seed, (256, 256), 1.0, EVEN, mix=StromaMix.nothing())
        mix = replace(StromaMix.nothing(), tumor_necrosis=1.0)
        scene = compose(seed, (256, 256), 1.0, EVEN, mix=mix)
        here = scene.tissue == Tissue.NECROSIS
        dead += int(here.sum())
        assert (scene.class_map[here] == -1).all()
        assert not scene.membrane_mask[here].any()
        assert (scene.class_map >= 0).sum() < (alive.class_map >= 0).sum()
    assert dead > 500


def test_debris_stays_in_lumens():
    changed = 0
    for seed in range(8):
        empty = compose(seed, (256, 256), 1.0, EVEN, mix=StromaMix.nothing())
        mix = replace(StromaMix.nothing(), lumen_debris=1.0)
        scene = compose(seed, (256, 256), 1.0, EVEN, mix=mix)
        np.testing.assert_array_equal(scene.class_map, empty.class_map)
        there = np.isin(scene.tissue, (Tissue.NECROSIS, Tissue.BLOOD))
        assert (empty.tissue[there] == Tissue.LUMEN).all()
        changed += bool(there.any())
    assert changed >= 2


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_probability_must_be_one(wrong):
    with pytest.raises(ValueError, match="muscle"):
        StromaMix(muscle=wrong)


def test_a_slide_s_specification_names_them_all():
    from her2fast.phantom.spec import Background, check_spec

    assert set(Background.model_fields) == set(ALL)
    assert Background().mix == StromaMix()
    spec = check_spec({"background": {"muscle": 1, "veil": 0.0}}, "some.toml")
    assert spec.background.mix == StromaMix(muscle=1.0, veil=0.0)
