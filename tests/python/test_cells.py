# SPDX-License-Identifier: Apache-2.0
"""Nuclei and cells: equal to the slow twin, and the same whatever the tiling."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
from cell_scenes import CYTOPLASM, NUCLEUS, ring_mask, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.errors import DeviceError
from her2fast.kernels import H_DAB
from her2fast.kernels.cells import (
    CELL_CUTS,
    CELL_RAYS,
    CELLS_REACH_PX,
    NUCLEI_REACH_PX,
    Cells,
    cell_stains,
    cells,
    classify_cells,
    find_cells,
    nuclei,
)
from reference import cells as twin

Bytes = npt.NDArray[np.uint8]
Seeds = st.integers(0, 2**32 - 1)


def assert_same(a: Cells, b: Cells) -> None:
    for f in dataclasses.fields(Cells):
        left, right = getattr(a, f.name), getattr(b, f.name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, f.name)


def amid_tissue(rgb: Bytes, mask: Bytes) -> Cells:
    """Cells of a picture that goes on beyond its border as it ends there."""
    halo = CELLS_REACH_PX
    wide = np.pad(rgb, ((2 * halo,) * 2, (2 * halo,) * 2, (0, 0)), mode="edge")
    hematoxylin, dab = cell_stains(wide)
    return cells(hematoxylin, dab, np.pad(mask, 2 * halo), halo_px=halo)


def only(rays: int, dab_sum: int) -> Cells:
    """One cell with so many stained directions."""
    return Cells(
        x=np.zeros(1, np.int32),
        y=np.zeros(1, np.int32),
        px=np.ones(1, np.int32),
        nucleus_px=np.ones(1, np.int32),
        ray_px=np.full((1, CELL_RAYS), 9, np.uint8),
        stained=np.array([(1 << rays) - 1], np.uint32),
        dab_sum=np.array([dab_sum], np.uint32),
        dab_px=np.array([max(rays, 1)], np.uint32),
    )


@pytest.mark.parametrize("step", [1, 2])
@settings(max_examples=20, deadline=None)
@given(seed=Seeds, white=st.sampled_from([(255, 255, 255), (240, 236, 244)]))
def test_stains_equal_reference(
    step: int, seed: int, white: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (2 * rng.integers(1, 20), 16, 3), dtype=np.uint8)
    hematoxylin, dab = cell_stains(rgb, step=step, white=white)
    expected = twin.stains(rgb, step, white)
    assert hematoxylin.dtype == np.uint16
    np.testing.assert_array_equal(hematoxylin, expected[0])
    np.testing.assert_array_equal(dab, expected[1])


def test_stains_follow_the_h_dab_matrix() -> None:
    """Pure hematoxylin of 0.4 reads 0.4 and no DAB; pure DAB of 1.2 the other way."""
    for row, amount in ((0, 0.4), (1, 1.2)):
        color = 255 * 10 ** (-amount * H_DAB[row])
        rgb = np.rint(np.broadcast_to(color, (4, 4, 3))).astype(np.uint8)
        hematoxylin, dab = cell_stains(rgb)
        h, d = hematoxylin[0, 0] / 4096, dab[0, 0] / 100
        assert (h, d) == pytest.approx((0.4, 0) if row == 0 else (0, 1.2), abs=0.02)


@pytest.mark.parametrize("step", [1, 2])
@settings(max_examples=5, deadline=None)
@given(seed=Seeds)
def test_nuclei_equal_reference(step: int, seed: int) -> None:
    halo, side = NUCLEI_REACH_PX, 2 * NUCLEI_REACH_PX + 44
    rgb, mask = scene(seed, side * step, (side + 6) * step, 60)
    hematoxylin, _ = cell_stains(rgb, step=step)
    x, y, dark = nuclei(hematoxylin, mask, halo_px=halo, step=step)
    expected, expected_dark = twin.nuclei(
        hematoxylin.astype(np.int64), mask, step, halo
    )
    assert list(zip(y.tolist(), x.tolist(), strict=True)) == expected
    inner = np.s_[halo:-halo, halo:-halo]
    np.testing.assert_array_equal(dark[inner], expected_dark[inner])


@pytest.mark.parametrize("step", [1, 2])
@settings(max_examples=2, deadline=None)
@given(seed=Seeds)
def test_cells_equal_reference(step: int, seed: int) -> None:
    halo, side = CELLS_REACH_PX, 2 * CELLS_REACH_PX + 30
    rgb, mask = scene(seed, side * step, (side + 8) * step, 260)
    hematoxylin, dab = cell_stains(rgb, step=step)
    glass = int(np.random.default_rng(seed).choice([0, 8, 30]))
    found = cells(hematoxylin, dab, mask, halo_px=halo, step=step, glass_dab=glass)
    expected = twin.cells(hematoxylin.astype(np.int64), dab, mask, step, halo, glass)
    assert len(found) == len(expected)
    for i, row in enumerate(expected):
        for name, value in row.items():
            assert getattr(found, name)[i].tolist() == value, name


@settings(max_examples=4, deadline=None)
@given(seed=Seeds, tile=st.sampled_from([64, 96, 150]))
def test_tiles_with_halo_give_the_cells_of_the_whole(seed: int, tile: int) -> None:
    """A cell on a border belongs to one tile, with all of its figures."""
    rgb, mask = scene(seed, 400, 520, 180)
    whole = find_cells(rgb, mask)
    halo = CELLS_REACH_PX
    hematoxylin, dab = cell_stains(rgb)
    planes = np.pad(hematoxylin, halo + tile)
    fine = [np.pad(plane, 2 * (halo + tile)) for plane in (dab, mask)]
    parts = []
    for row in range(0, 200, tile):
        for column in range(0, 260, tile):
            # Pads are `tile` wider than the halo, so that the last tiles are whole.
            y, x, side = row + tile, column + tile, tile + 2 * halo
            part = cells(
                planes[y : y + side, x : x + side],
                *(p[2 * y : 2 * (y + side), 2 * x : 2 * (x + side)] for p in fine),
                halo_px=halo,
            )
            parts.append(part.moved(column, row))
    assert len(whole) > 0
    assert_same(Cells.joined(parts), whole)


@pytest.mark.parametrize("gap", [0.0, 0.25, 0.5, 1.0])
def test_completeness_is_the_share_of_the_ring(gap: float) -> None:
    """A nucleus of 4 um in a ring of 9 um; the gap is the share that is open."""
    side = 160
    mask = ring_mask(side, ring=36, gap=gap)
    rgb = np.full((side, side, 3), CYTOPLASM, np.uint8)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    rgb[np.hypot(y, x) < 16] = NUCLEUS
    rgb[mask > 0] = (150, 110, 80)
    found = amid_tissue(rgb, mask)
    assert len(found) == 1
    assert found.completeness[0] == pytest.approx(1 - gap, abs=1.5 / CELL_RAYS)
    closed = found.ray_px[0, (found.stained[0] >> np.arange(32)) & 1 == 1]
    assert np.all(np.abs(closed.astype(int) - 17) <= 1)  # 34.5 px of the picture
    if gap == 0.0:
        assert found.px[0] == pytest.approx(math.pi * 17**2, rel=0.06)
    if gap < 1.0:
        _, dab = cell_stains(rgb)
        assert found.dab_mean[0] == pytest.approx(dab[mask > 0].mean() / 100, abs=0.01)


def test_two_nuclei_share_the_space_between_them() -> None:
    rgb = np.full((100, 200, 3), CYTOPLASM, np.uint8)
    y, x = np.mgrid[:100, :200]
    for center in (60, 139):
        rgb[np.hypot(y - 49.5, x - center) < 15] = NUCLEUS
    found = amid_tissue(rgb, np.zeros((100, 200), np.uint8))
    assert found.x.tolist() == pytest.approx([30, 69], abs=1)
    reaches = found.ray_px[0, 0], found.ray_px[1, 16]  # toward each other
    assert sum(int(px) for px in reaches) == pytest.approx(40, abs=2)
    assert found.completeness.tolist() == [0.0, 0.0]
    assert np.isnan(found.dab_mean).all()


def test_class_follows_intensity_and_completeness() -> None:
    """Hand-worked at 0.25 um/px: sum * 0.5 um / (100 * 4 * rays) is OD x um."""

    def class_of(rays: int, od_um: float) -> tuple[int, bool, bool]:
        found = only(rays, math.ceil(od_um * 100 * 4 * rays / 0.5))
        one = classify_cells(found, grid_um=0.5)
        return int(one.her2[0]), bool(one.complete[0]), bool(one.unusual[0])

    assert class_of(7, 2.0) == (0, False, False)  # too little to speak of
    assert class_of(8, 0.17) == (1, False, False)
    assert class_of(32, 0.17) == (1, True, False)  # faint is never more than 1+
    assert class_of(23, 0.18) == (2, False, True)
    assert class_of(23, 2.0) == (2, False, True)
    assert class_of(24, 0.18) == (2, True, False)
    assert class_of(24, 0.51) == (2, True, False)
    assert class_of(24, 0.52) == (3, True, False)
    assert CELL_CUTS["complete_rays"] == 24
    # At 0.5 um/px the same membrane has a quarter of the pixels.
    coarse = classify_cells(only(24, 24 * 105), grid_um=0.5, step=1)
    assert coarse.counts() == (0, 0, 0, 1)


def test_bad_input() -> None:
    planes, fine = np.zeros((300, 300), np.uint16), np.zeros((600, 600), np.uint8)
    with pytest.raises(ValueError, match="halo_px >= 125"):
        cells(planes, fine, fine, halo_px=124)
    with pytest.raises(ValueError, match="need 0 <= glass_dab <= 255, got 256"):
        cells(planes, fine, fine, halo_px=125, glass_dab=256)
    with pytest.raises(ValueError, match="planes larger than twice"):
        cells(planes[:250], fine[:500], fine[:500], halo_px=125)
    with pytest.raises(ValueError, match="need a mask of 600 x 600, got 300 x 300"):
        nuclei(planes, fine[:300, :300], halo_px=53)
    with pytest.raises(ValueError, match="need a DAB plane of 600 x 600"):
        cells(planes, fine[:300], fine, halo_px=125)
    with pytest.raises(ValueError, match="need 1 <= step <= 2, got step=3"):
        nuclei(planes, fine, halo_px=53, step=3)
    with pytest.raises(ValueError, match="need an RGB image of 4 x 4, got 5 x 4"):
        cell_stains(np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="white point"):
        cell_stains(np.zeros((4, 4, 3), np.uint8), white=(255, 20, 255))
    with pytest.raises(TypeError, match="uint16, got uint8"):
        nuclei(fine, fine, halo_px=53)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need a mask of"):
        find_cells(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6), np.uint8))
    with pytest.raises(DeviceError):
        nuclei(planes, fine, halo_px=53, device="cuda")
