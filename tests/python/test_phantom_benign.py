# SPDX-License-Identifier: Apache-2.0
"""What is no tumor in a phantom: switched one by one, labeled, never a class."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import phantom_cells

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast.phantom import rings, textures
from her2fast.phantom.background import draw_ground, draw_overlay
from her2fast.phantom.fields import generator
from her2fast.phantom.ground import Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.scene import compose
from her2fast.phantom.stroma import StromaMix

DESIGN = Path(__file__).parents[2] / "docs" / "design" / "phantom_ground.md"
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
NEEDS_A_SCENE = (
    "edge_artifact",
    "tumor_necrosis",
    "lumen_debris",
    "tumor_nuclear_dab",
)
ALL = [one.name for one in fields(StromaMix)]


@pytest.mark.parametrize("name", ALL)
def test_each_thing_is_repeatable_finite_and_changes_the_picture(name):
    """One of three seeds must show it: `benign_stained` needs ducts to be stained."""
    names = (name, "benign_ducts") if name == "benign_stained" else (name,)
    without = names[1:]
    changed = 0
    for seed in range(3):
        one, two = drawn(seed, *names), drawn(seed, *names)
        np.testing.assert_array_equal(one.amounts, two.amounts)
        np.testing.assert_array_equal(one.tissue, two.tissue)
        assert np.isfinite(one.amounts).all()
        assert one.amounts.min() >= 0.0
        assert one.amounts.max() < 6.0
        changed += bool((one.amounts != drawn(seed, *without).amounts).any())
    assert changed == 0 if name in NEEDS_A_SCENE else changed >= 1


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
    seen = sum(bool((drawn(seed, name).tissue == label).any()) for seed in range(3))
    assert seen >= 2


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


def test_design_page_says_the_defaults():
    said = {}
    for line in DESIGN.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and "StromaMix" not in line:
            names, values = line.split("|")[1:3]
            said |= dict(
                zip(re.findall(r"`(\w+)`", names), values.split(","), strict=True)
            )
    assert {name: float(value) for name, value in said.items()} == {
        one.name: one.default for one in fields(StromaMix)
    }


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(0, 11),
    column=st.integers(0, 8),
    half=st.integers(0, 4),
    add=st.booleans(),
)
def test_paste_equals_the_slow_twin(row, column, half, add):
    side = 2 * half + 1
    picture = np.arange(1, side * side + 1, dtype=np.float32).reshape(1, side, side)
    plane = np.full((12, 9), 2.0, np.float32)
    wanted = plane.copy()
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            y, x = row + dy, column + dx
            if 0 <= y < 12 and 0 <= x < 9:
                value = 0.5 * picture[0, dy + half, dx + half]
                old = wanted[y, x]
                wanted[y, x] = old + value if add else max(old, value)
    point = textures.Points(
        np.zeros(1, np.float32), np.zeros(1, np.float32), *np.array([[row], [column]])
    )
    stamps = textures.Stamps(picture, 1)
    textures.paste(plane, stamps, np.zeros(1, int), point, np.array([0.5]), add=add)
    np.testing.assert_array_equal(plane, wanted)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), x=st.floats(-300, 300), y=st.floats(-300, 300))
def test_packed_cells_repeat_and_have_their_border_between_two(seed, x, y):
    """At 10 um a cell: moved by a whole tile the same; the edge a cell's own width."""
    period = 10.0 * textures.TILE_CELLS
    u = np.array([x, x + period, x - 2 * period], np.float32)
    v = np.array([y, y - period, y + period], np.float32)
    got = textures.packed(generator(seed), u, v, 10.0, 10.0, distance=True)
    # One texel is 1 / 64 of a cell; float32 may fall on either side of its border.
    np.testing.assert_allclose(got.edge, got.edge[0], atol=0.05)
    np.testing.assert_allclose(got.distance, got.distance[0], atol=0.05)
    assert (got.edge >= -1e-6).all()
    assert (got.edge <= 1.0).all()
    assert ((got.cell >= 0) & (got.cell < textures.TILE_CELLS**2)).all()


def test_tile_equals_the_slow_twin():
    """Nearest and second nearest of all centers and their repeats."""
    tile = textures._tile()
    rng = generator(20_250_102)
    count = textures.TILE_CELLS
    at = np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1).reshape(-1, 2)
    base = at + 0.5 + rng.uniform(-0.34, 0.34, at.shape)
    base[:, 0] += 0.5 * (at[:, 1] % 2)
    centers = [
        (x + i * count, y + j * count)
        for x, y in base.tolist()
        for i in (-2, -1, 0, 1)
        for j in (-2, -1, 0, 1)
    ]
    for row, column in ((0, 0), (5, 700), (383, 64), (767, 767), (100, 399)):
        u, v = ((k + 0.5) / textures.TILE_CELL_PX for k in (column, row))
        distance, _, edge = phantom_cells.nearest_two(u, v, centers)
        assert tile[0, row, column] == pytest.approx(edge, abs=1e-5)
        assert tile[1, row, column] == pytest.approx(distance, abs=1e-5)


def test_room_keeps_disks_apart_and_out_of_tumor():
    grid = Grid.over((300, 300), 1.0)
    outside = np.ones((300, 300), np.bool_)
    outside[:, :120] = False
    room = rings.Room.beside(grid, outside)
    rng = generator(1)
    for _ in range(60):
        room.take(rng, 15.0)
    assert len(room.taken) > 10
    for index, (x, y, radius) in enumerate(room.taken):
        assert x > 120.0 + 0.8 * radius - 1.5 * rings.ROOM_UM
        for other_x, other_y, other in room.taken[:index]:
            assert np.hypot(x - other_x, y - other_y) > radius + other
    assert rings.Room.beside(grid, ~np.ones_like(outside)).take(rng, 5.0) is None


def test_a_round_ring_has_its_area_and_its_depth():
    grid = Grid.over((200, 220), 0.5)
    shape = rings.ring(
        generator(2), grid, (55.0, 50.0), 30.0, wobble=0.0, stretch=1.0, margin_um=5.0
    )
    area = float(rings.cover(shape.depth_um, grid).sum()) * 0.25
    assert area == pytest.approx(np.pi * 30.0**2, rel=0.01)
    assert float(shape.depth_um.max()) == pytest.approx(30.0, abs=0.6)
    points = shape.at(np.array([0.0, np.pi / 2]), np.array([10.0, 0.0]), grid)
    np.testing.assert_allclose(points.x_um, [75.0, 55.0], atol=0.3)
    np.testing.assert_allclose(points.y_um, [50.0, 80.0], atol=0.3)
