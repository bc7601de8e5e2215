# SPDX-License-Identifier: Apache-2.0
"""Brown nuclei of tumor: drawn in nuclei alone, and in no truth of membranes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.phantom.fields import TABLE, generator
from her2fast.phantom.ground import Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.marker import DENSEST, NuclearMarker, Nuclei
from her2fast.phantom.scene import Scene, compose
from her2fast.phantom.stroma import StromaMix

SHAPE = (320, 320)
SPACING_UM = 0.25
PLAIN = StromaMix.nothing()
MARKED = replace(PLAIN, tumor_nuclear_dab=1.0)
NONE, THREE = (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)


def scenes(seed: int, mixture: tuple[float, float, float, float]) -> list[Scene]:
    """The same tumor without and with brown nuclei."""
    return [
        compose(seed, SHAPE, SPACING_UM, mixture, mix=mix) for mix in (PLAIN, MARKED)
    ]


@pytest.mark.parametrize("mixture", [NONE, THREE])
def test_nothing_but_stain_in_tumor_changes(
    mixture: tuple[float, float, float, float],
) -> None:
    brown = 0.0
    for seed in range(4):
        without, with_it = scenes(seed, mixture)
        np.testing.assert_array_equal(with_it.class_map, without.class_map)
        np.testing.assert_array_equal(with_it.tissue, without.tissue)
        np.testing.assert_array_equal(with_it.membrane_mask, without.membrane_mask)
        for name, values in vars(without.cells).items():
            np.testing.assert_array_equal(getattr(with_it.cells, name), values)
        more = with_it.amounts - without.amounts
        tumor = without.tissue == Tissue.TUMOR
        assert not more[:, ~tumor].any()
        assert (more[0] <= 0.0).all(), "hematoxylin is hidden, never added"
        assert (more[1] >= 0.0).all()
        # The grey of thin stain follows hematoxylin; blood does not.
        assert np.abs(more[2]).max() < 0.1
        assert not more[3].any()
        brown = max(brown, float(more[1].max()))
    assert brown > 0.3


def test_brown_is_in_the_middle_of_cells_and_not_at_their_borders() -> None:
    """Over seeds: pale centers, areas and smears are some of them."""
    middles, borders = [], []
    for seed in range(12):
        without, with_it = scenes(seed, THREE)
        more = (with_it.amounts - without.amounts)[1]
        cells = without.cells
        seen = cells.has_nucleus
        y = (cells.y_um[seen] / SPACING_UM).astype(int)
        x = (cells.x_um[seen] / SPACING_UM).astype(int)
        # Solid or hollow: the most within 1.5 um of the middle.
        near = [
            more[max(v - 6, 0) : v + 7, max(u - 6, 0) : u + 7].max()
            for v, u in zip(y, x, strict=True)
        ]
        middles.append(float(np.mean(near)))
        borders.append(float(more[without.membrane_mask].mean()))
    assert np.mean(middles) > 3.0 * np.mean(borders)


def test_some_scenes_are_faint_some_dark_some_in_part() -> None:
    most, share = [], []
    for seed in range(24):
        without, with_it = scenes(seed, NONE)
        more = (with_it.amounts - without.amounts)[1]
        tumor = without.tissue == Tissue.TUMOR
        most.append(float(np.quantile(more[tumor], 0.995)))
        share.append(float((more[tumor] > 0.05).mean()))
    assert min(most) < 0.25
    assert max(most) > 1.0
    assert min(share) < 0.05
    assert max(share) > 0.2


def plain_marker(grid: Grid) -> NuclearMarker:
    """Solid nuclei of density 1 with edges of 1 um, nothing run out of them."""
    marker = NuclearMarker(generator(3, 0), grid)
    every = np.ones(TABLE * TABLE, np.float32)
    marker.brown = every > 0.0
    marker.density, marker.edge_um, marker.rim_um = every, every, every
    marker.clear = 0.0 * every
    marker.level = np.float32(9.0)
    for name in ("fine", "clumps", "rim", "ragged_um", "run", "blush"):
        setattr(marker, name, np.float32(0.0))
    marker.hidden = np.float32(0.5)
    return marker


def nuclei_at(depth_um: npt.NDArray[np.float32]) -> Nuclei:
    """Without texture, all of one hematoxylin."""
    one = np.ones_like(depth_um)
    return Nuclei(one, one, np.abs(depth_um), depth_um, one, 0.0 * one, 0.0 * one)


def test_a_solid_nucleus_by_hand() -> None:
    """At depth d um of an edge of 1 um the density is min(d + 0.3, 1), saturated."""
    grid = Grid.over((1, 5), SPACING_UM)
    depth_um = np.array([-1.0, -0.3, 0.0, 0.2, 2.0], np.float32)
    marker, at, cell = plain_marker(grid), np.arange(5), np.arange(5)
    brown, left = marker.paint(0, 1, at, cell, nuclei_at(depth_um))
    raw = np.array([0.0, 0.0, 0.3, 0.5, 1.0])
    wanted = raw / np.sqrt(1.0 + (raw / DENSEST) ** 2)
    np.testing.assert_allclose(brown, wanted, atol=1e-6)
    hidden = 1.0 - 0.5 * np.minimum(3.0 * wanted, 1.0) * raw
    np.testing.assert_allclose(left, hidden, atol=1e-6)


def test_a_pale_center_has_a_dark_rim_by_hand() -> None:
    """Clear to 0.9, a rim 1 um deep: 0.1 inside, 1 at the rim's middle."""
    grid = Grid.over((1, 3), SPACING_UM)
    marker = plain_marker(grid)
    marker.clear = np.full_like(marker.clear, 0.9)
    depth_um = np.array([0.9, 1.0, 4.0], np.float32)
    brown, _ = marker.paint(0, 1, np.arange(3), np.arange(3), nuclei_at(depth_um))
    raw = np.array([0.1 + 0.9 * 0.9, 1.0, 0.1])
    np.testing.assert_allclose(
        brown, raw / np.sqrt(1.0 + (raw / DENSEST) ** 2), atol=1e-6
    )


def test_what_has_run_out_fades_by_hand() -> None:
    """A tenth of the nucleus's density at its edge, by 1/e in a micrometer."""
    grid = Grid.over((1, 2), SPACING_UM)
    marker = plain_marker(grid)
    marker.run, marker.run_um = np.float32(0.1), np.float32(1.0)
    depth_um = np.array([-1.0, -2.0], np.float32)
    brown, left = marker.paint(0, 1, np.arange(2), np.arange(2), nuclei_at(depth_um))
    np.testing.assert_allclose(brown, 0.1 * np.exp([-1.0, -2.0]), atol=1e-6)
    np.testing.assert_array_equal(left, 1.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 23))
def test_any_marker_is_bounded_and_a_function_of_place(seed: int, cut: int) -> None:
    grid = Grid.over((24, 32), SPACING_UM)
    marker = NuclearMarker(generator(seed, 0), grid)
    rng = np.random.default_rng(seed)
    count = 24 * 32
    depth_um = rng.uniform(-8.0, 8.0, count).astype(np.float32)
    cell = rng.integers(TABLE * TABLE, size=count)
    noise = rng.standard_normal((2, count)).astype(np.float32)
    visible = (rng.random(count) < 0.8).astype(np.float32)
    one = np.ones(count, np.float32)

    def painted(begin: int, end: int) -> tuple[npt.NDArray[np.float32], ...]:
        part = slice(32 * begin, 32 * end)
        nuclei = Nuclei(
            one[part],
            one[part],
            one[part],
            depth_um[part],
            visible[part],
            noise[0, part],
            noise[1, part],
        )
        at = np.arange(32 * (end - begin))
        return marker.paint(begin, end, at, cell[part], nuclei)

    brown, left = painted(0, 24)
    assert np.isfinite(brown).all()
    assert brown.min() >= 0.0
    # Nucleus, what ran out of it at most, and cytoplasm.
    assert brown.max() <= DENSEST + 0.2 * marker.density.max() + 0.12 * 1.5
    assert left.min() >= 0.0
    assert left.max() <= 1.0
    assert not brown[visible == 0.0].any()
    assert (left[visible == 0.0] == 1.0).all()
    halves = [painted(0, cut), painted(cut, 24)]
    for whole, parts in zip((brown, left), zip(*halves, strict=True), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts))
