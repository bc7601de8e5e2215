# SPDX-License-Identifier: Apache-2.0
"""The color of empty glass, and what is perceptible above it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from cell_scenes import CYTOPLASM, NUCLEUS, ring_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from membrane_cases import measured_array

from her2fast import phantom
from her2fast.kernels.cells import (
    CELL_CUTS,
    CELLS_REACH_PX,
    cell_stains,
    cells,
    classify_cells,
    find_cells,
    glass_dab,
)
from her2fast.methods.cell_file import from_bytes, to_bytes
from her2fast.methods.glass import glass_color, glass_of_picture

Bytes = npt.NDArray[np.uint8]


def tissue_on(glass: tuple[int, int, int], share: float, seed: int = 3) -> Bytes:
    """Rough tissue over the upper part of 200 x 200 px, glass with noise below."""
    rng = np.random.default_rng(seed)
    rgb = np.empty((200, 200, 3), np.int64)
    rgb[:] = glass
    rgb += rng.integers(-1, 2, (200, 200, 1))
    rows = 200 - round(200 * share)
    rgb[:rows] = rng.integers(90, 220, (rows, 200, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    light=st.integers(190, 246),
    tint=st.tuples(*[st.integers(-7, 7)] * 3),
    share=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
)
def test_glass_is_found_within_a_gray_level(
    light: int, tint: tuple[int, int, int], share: float
) -> None:
    color = light + tint[0], light + tint[1], light + tint[2]
    found = glass_color(tissue_on(color, share))
    assert found is not None
    assert np.abs(np.subtract(found, color)).max() <= 1


def test_where_nothing_was_scanned_is_no_glass() -> None:
    """Exact white beside the scan is more frequent than the glass."""
    rgb = np.full((200, 300, 3), 255, np.uint8)
    rgb[:, :200] = tissue_on((231, 228, 220), 0.05)
    found = glass_color(rgb)
    assert found is not None
    assert np.abs(np.subtract(found, (231, 228, 220))).max() <= 1
    assert glass_color(np.full((64, 64, 3), 255, np.uint8)) is None


def test_specks_brighter_than_glass_are_not_glass() -> None:
    rgb = tissue_on((225, 222, 214), 0.5)
    rgb[190:198, 20:28] = (246, 246, 246)
    found = glass_color(rgb)
    assert found is not None
    assert np.abs(np.subtract(found, (225, 222, 214))).max() <= 1


def test_rough_ground_is_no_glass_however_bright() -> None:
    rgb = np.empty((200, 200, 3), np.uint8)
    y, x = np.mgrid[:140, :200]
    rgb[:140] = np.where((y + x) % 2, 246, 225)[..., None]
    rgb[140:] = (212, 210, 206)
    assert glass_color(rgb) == (212, 210, 206)


@pytest.mark.parametrize(
    "color", [(20, 20, 24), (170, 170, 172), (240, 200, 225)], ids=str
)
def test_dark_or_colored_ground_is_no_glass(color: tuple[int, int, int]) -> None:
    assert glass_color(tissue_on(color, 0.5)) is None


def test_pictures_too_small_or_of_another_type() -> None:
    assert glass_color(np.full((2, 9, 3), 230, np.uint8)) is None
    assert glass_of_picture(np.full((6, 90, 3), 230, np.uint8), 0.25) is None
    with pytest.raises(ValueError, match=r"need \(H, W, 3\) uint8"):
        glass_color(np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match="uint8, got"):
        glass_color(np.zeros((9, 9, 3), np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", ["reference", "warm-scanner", "unseen"])
def test_phantoms_show_the_glass_they_were_drawn_on(profile: str) -> None:
    """Synthetic tissue fills most of the picture; glass lies beside it."""
    picture = phantom.render(
        7_960_020,
        (1024, 1024),
        spacing_um=0.25,
        mixture=(1.0, 0.0, 0.0, 0.0),
        profile=profile,
        mix=phantom.StromaMix.nothing(),
    )
    found = glass_of_picture(picture.rgb, 0.25)
    lightest = np.percentile(picture.rgb.reshape(-1, 3), 90, axis=0)
    assert found is not None
    assert np.abs(np.subtract(found, lightest)).max() <= 8


def ring_picture(
    glass: tuple[int, int, int], ring: tuple[int, int, int]
) -> tuple[Bytes, Bytes]:
    """One cell with a closed ring, all seen through this glass."""
    side = 300
    mask = ring_mask(side, ring=36, gap=0.0)
    rgb = np.full((side, side, 3), CYTOPLASM, np.float64)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    rgb[np.hypot(y, x) < 16] = NUCLEUS
    rgb[mask > 0] = ring
    rgb *= np.array(glass) / 255.0
    return np.rint(rgb).astype(np.uint8), mask


def test_a_line_without_dab_on_cream_glass_is_no_stain() -> None:
    """Bluish gray on cream glass is gray to the eye: counted from 255 it is brown."""
    cream = (226, 221, 209)
    rgb, mask = ring_picture(cream, (219, 223, 233))
    blind = classify_cells(find_cells(rgb, mask), grid_um=0.5)
    seen = classify_cells(find_cells(rgb, mask, glass=cream), grid_um=0.5)
    assert blind.her2.max() == 1
    assert seen.her2.max() == 0


def test_faint_brown_stays_on_any_glass() -> None:
    for glass in [(255, 255, 255), (226, 221, 209), (212, 218, 236)]:
        rgb, mask = ring_picture(glass, (228, 214, 196))
        found = classify_cells(find_cells(rgb, mask, glass=glass), grid_um=0.5)
        assert found.her2.max() == 1, glass


@pytest.mark.parametrize("over", [-1, 0])
def test_the_cut_is_glass_and_what_is_perceptible(over: int) -> None:
    """A ring of one density: at the cut it is stained, a hundredth below it is not."""
    side, glass = 300, 9
    mask = ring_mask(side, ring=36, gap=0.0)
    rgb, _ = ring_picture((255, 255, 255), (200, 180, 160))
    hematoxylin, dab = cell_stains(rgb)
    level = glass + CELL_CUTS["faintest_dab_hundredths"] + over
    dab = np.where(mask > 0, level, 3).astype(np.uint8)
    halo = CELLS_REACH_PX
    found = cells(
        np.pad(hematoxylin, halo),
        np.pad(dab, 2 * halo),
        np.pad(mask, 2 * halo),
        halo_px=halo,
        glass_dab=glass,
    )
    middle = found.take((abs(found.x - 75) < 5) & (abs(found.y - 75) < 5))
    assert len(middle) == 1
    assert (middle.completeness[0] == 1.0) == (over == 0)
    assert (int(middle.dab_px[0]) > 0) == (over == 0)


def test_glass_of_the_white_point_has_no_dab() -> None:
    assert glass_dab((230, 228, 214), white=(230, 228, 214)) == 0
    assert glass_dab(None) == 0
    assert glass_dab((230, 228, 214)) > glass_dab((240, 240, 240))


def test_measured_slides_know_their_glass() -> None:
    """It goes to the cells, to the file and back."""
    cream = (226, 221, 209)
    rgb, mask = ring_picture(cream, (219, 223, 233))
    rgb, mask = (np.tile(a, (2, 2) + (1,) * (a.ndim - 2)) for a in (rgb, mask))

    def find(tiles: Bytes, places_px: object) -> Bytes:
        out = np.zeros(tiles.shape[:3], np.uint8)
        for tile, (x, y) in zip(out, places_px, strict=False):  # type: ignore[call-overload]
            part = mask[y : y + len(tile), x : x + len(tile)]
            tile[: part.shape[0], : part.shape[1]] = part
        return out

    blind = measured_array(rgb, find)
    seen = measured_array(rgb, find, glass_rgb=cream)
    assert blind.glass_rgb is None
    assert np.count_nonzero(blind.cells.stained) > np.count_nonzero(seen.cells.stained)
    again, _ = from_bytes(to_bytes(seen, "key"))
    assert again.glass_rgb == cream
