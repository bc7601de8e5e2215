# SPDX-License-Identifier: Apache-2.0
"""What a membrane network sees beyond its tile: borders, neighbors, lost pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from cell_scenes import scene
from hypothesis import given, settings
from hypothesis import strategies as st
from membrane_cases import UM, measured_array

from her2fast.kernels.cells import CELLS_REACH_PX, Cells, find_cells
from her2fast.kernels.membrane import find_membranes
from her2fast.membranes import NetworkFinder
from her2fast.methods.cell_decision import decide_cells
from her2fast.methods.membrane import Finder
from her2fast.methods.membrane_picture import (
    find_in_picture,
    joined,
    tiles_with_halo,
)
from her2fast.models.membrane_package import load_membrane_package
from her2fast.phantom import render

Bytes = npt.NDArray[np.uint8]
HALO_PX = 6


class Ridges:
    """Membrane where a pixel is the darkest within `reach` rows and columns, nearly."""

    def __init__(self, reach_px: int = HALO_PX, halo_px: int = HALO_PX) -> None:
        self.reach_px, self.halo_px = reach_px, halo_px
        self.corners: set[tuple[int, int]] = set()

    def of(self, rgb: Bytes) -> Bytes:
        """(H, W, 3) -> (H, W) less what lies nearer to a side than the halo."""
        halo, reach = self.halo_px, self.reach_px
        inner = np.s_[halo : len(rgb) - halo, halo : rgb.shape[1] - halo]
        blue = np.pad(rgb[..., 2], reach, mode="edge")
        side = 2 * reach + 1
        rows = np.lib.stride_tricks.sliding_window_view(blue, side, 0).min(-1)
        least = np.lib.stride_tricks.sliding_window_view(rows, side, 1).min(-1)
        dark = (rgb[..., 2] < 120) & (rgb[..., 2] <= least.astype(np.int16) + 30)
        return np.ascontiguousarray(dark[inner]).astype(np.uint8)

    def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        self.corners.update(places_px)
        return np.stack([self.of(tile) for tile in rgb])


def whole_mask(find: Ridges, rgb: Bytes) -> Bytes:
    """Of the slide in one piece, with glass round it."""
    halo = find.halo_px
    return find.of(
        np.pad(rgb, ((halo, halo), (halo, halo), (0, 0)), constant_values=255)
    )


def assert_same(found: Cells, expected: Cells) -> None:
    for f in dataclasses.fields(Cells):
        np.testing.assert_array_equal(
            getattr(found, f.name), getattr(expected, f.name), f.name
        )


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    half=st.tuples(st.integers(130, 320), st.integers(130, 350)),
    tile_px=st.sampled_from([250, 256, 300, 412]),
    workers=st.integers(1, 3),
    batch_size=st.integers(1, 4),
)
def test_tiles_with_halo_give_the_slide_in_one_piece(
    seed: int, half: tuple[int, int], tile_px: int, workers: int, batch_size: int
) -> None:
    """For whatever looks no further than its halo: any grid, batch, thread count."""
    rgb, _ = scene(seed, 2 * half[0], 2 * half[1], 60)
    find = Ridges()
    mask = whole_mask(find, rgb)
    found = measured_array(rgb, find, tile_px, workers=workers, batch_size=batch_size)
    assert_same(found.cells, find_cells(rgb, mask))
    assert found.totals.px == int(mask.sum())
    assert found.totals.membranes == len(find_membranes(mask)[0])


def test_without_its_halo_the_same_finder_loses_membrane() -> None:
    """The test above would notice: edges repeat what is nearest instead."""
    rgb, _ = scene(11, 520, 600, 60)
    mask = whole_mask(Ridges(), rgb)
    found = measured_array(rgb, Ridges(halo_px=0))
    assert found.totals.px != int(mask.sum())


def test_masks_with_their_halo_are_refused() -> None:
    class Keeps(Ridges):
        def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
            return np.zeros(rgb.shape[:3], np.uint8)

    rgb = np.full((256, 256, 3), 240, np.uint8)
    with pytest.raises(ValueError, match=r"\(3, 256, 256\) .* got \(3, 268, 268\)"):
        measured_array(rgb, Keeps())


def test_a_line_across_a_border_by_hand() -> None:
    """A line that only 8 px round it tell from a patch, on the border of two tiles."""
    rgb = np.full((256, 512, 3), 240, np.uint8)
    rgb[100:103, 200:300] = 60  # the line
    rgb[100:103, 256:259] = 20  # darker there: what lies within 8 px is no ridge
    find = Ridges(reach_px=8)
    mask = whole_mask(find, rgb)
    expected = np.zeros((256, 512), np.bool_)
    expected[100:103, 200:248] = expected[100:103, 256:259] = True
    expected[100:103, 267:300] = True
    np.testing.assert_array_equal(mask > 0, expected)
    by_tiles = find_in_picture(find, rgb, tile_px=256, batch_size=1)
    np.testing.assert_array_equal(by_tiles, mask)
    blind = find_in_picture(
        Ridges(reach_px=8, halo_px=0), rgb, tile_px=256, batch_size=1
    )
    assert (blind[100:103, 248:256] == 1).all()


def test_a_tile_does_not_depend_on_which_others_are_read() -> None:
    rgb, _ = scene(21, 1024, 1280, 80)
    everything = measured_array(rgb, Ridges())
    wanted = np.zeros((4, 5), np.bool_)
    wanted[1, 2] = True
    find = Ridges()
    alone = measured_array(rgb, find, wanted=wanted)
    # Those round it, for cells that reach into it, and no others.
    around = {(256 * x, 256 * y) for x in (1, 2, 3) for y in (0, 1, 2)}
    assert find.corners == around
    x, y = everything.cells.x, everything.cells.y
    inside = (x >= 256) & (x < 384) & (y >= 128) & (y < 256)
    assert inside.sum() > 2
    assert_same(alone.cells, everything.cells.take(inside))


def test_a_halo_that_could_not_be_read_makes_the_tile_unreadable() -> None:
    """Or cells that a network drew beside a hole would pass for the slide's."""
    rgb, _ = scene(12, 1280, 1536, 90)
    find = Ridges()
    whole = find_cells(rgb, whole_mask(find, rgb))
    found = measured_array(rgb, find, bad={(0, 512): "missing"})
    # The lost tile and, through their halos, the five round it.
    lost = np.zeros((5, 6), np.bool_)
    lost[1:4, :2] = True
    np.testing.assert_array_equal(found.tiles.unreadable, lost)
    assert found.tiles.counts()["missing"] == 6
    decided = decide_cells(found, slide_spacing_um=UM)
    kept = found.cells.take(decided.chosen)
    reach = 2 * CELLS_REACH_PX
    x, y = 2 * whole.x + 1, 2 * whole.y + 1
    near = (x <= 512 + reach) & (y >= 256 - reach) & (y <= 1024 + reach)
    assert 10 < near.sum() < len(whole) - 10
    assert_same(kept, whole.take(~near))


def test_pictures_as_tiles() -> None:
    rgb = np.random.default_rng(3).integers(0, 255, (70, 90, 3), np.uint8)
    tiles = tiles_with_halo(rgb, 32, 5)
    assert tiles.shape == (3, 3, 42, 42, 3)
    np.testing.assert_array_equal(tiles[1, 1], rgb[27:69, 27:69])
    assert (tiles[0, 0, :5] == 255).all()  # beyond the picture
    assert (tiles[2, 2, 5 + 6 :] == 255).all()
    np.testing.assert_array_equal(tiles[2, 2, :11, :31], rgb[59:70, 59:90])
    whole = joined(tiles[:, :, 5:-5, 5:-5, 0])
    np.testing.assert_array_equal(whole[:70, :90], rgb[..., 0])
    assert (whole[70:] == 255).all()


@pytest.fixture(scope="module")
def tiny() -> NetworkFinder:
    return NetworkFinder(load_membrane_package())


class Blind:
    """The network where nothing is known beyond a tile: white there."""

    def __init__(self, find: NetworkFinder) -> None:
        self.find = find

    def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        halo = self.find.halo_px
        around = ((0, 0), (halo, halo), (halo, halo), (0, 0))
        return self.find(np.pad(rgb, around, constant_values=255), places_px)


def on_grid(find: Finder, rgb: Bytes, begin_px: int) -> Bytes:
    """The picture's mask by tiles of which the first begins so far before it."""
    around = ((begin_px, 0), (begin_px, 0), (0, 0))
    moved = np.pad(rgb, around, constant_values=255)
    mask = find_in_picture(find, moved, tile_px=512, batch_size=3)
    return mask[begin_px:, begin_px:]


def test_the_shipped_network_sees_the_same_membrane_on_any_grid(
    tiny: NetworkFinder,
) -> None:
    """Synthetic 1+ and 3+ on grids half a tile apart: no border is in both.

    Two of a hundred membrane pixels may differ, since the network looks 64 px far,
    twice its halo; without the halo it is many more.
    """
    assert (tiny.package.tile_px, tiny.package.halo_px) == (512, 32)
    for seed, mixture in ((9_700_001, (0, 1, 0, 0)), (9_700_003, (0, 0, 0, 1))):
        picture = render(seed, (768, 768), spacing_um=0.25, mixture=mixture)
        mask = on_grid(tiny, picture.rgb, 0)
        total = int(mask.sum())
        assert total > 3000
        changed = int((mask != on_grid(tiny, picture.rgb, 256)).sum())
        blind = [on_grid(Blind(tiny), picture.rgb, begin) for begin in (0, 256)]
        lost = int((blind[0] != blind[1]).sum())
        assert changed < 0.02 * total
        assert lost > 3 * changed


def test_the_shipped_network_gives_a_tile_one_mask(tiny: NetworkFinder) -> None:
    """Whatever else is in its batch, and wherever it stands there."""
    picture = render(9_700_005, (576, 576), spacing_um=0.25, mixture=(0, 0, 1, 0))
    other = np.random.default_rng(0).integers(0, 256, (576, 576, 3), np.uint8)
    batches = [
        [picture.rgb, other, other, other],
        [other, np.full_like(other, 255), picture.rgb, picture.rgb],
    ]
    first = tiny(np.stack(batches[0]), [(0, 0)] * 4)[0]
    assert first.sum() > 1000
    for mask in tiny(np.stack(batches[1]), [(0, 0)] * 4)[2:]:
        np.testing.assert_array_equal(mask, first)
