# SPDX-License-Identifier: Apache-2.0
"""Spurs go, membranes stay, and a part with enough round it gives the whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.errors import DeviceError
from her2fast.kernels.membrane import (
    PRUNE_HALF_WIDTH_PX,
    PRUNE_MAX_LENGTH_PX,
    find_membranes,
    membrane_prune,
    prune_reach_px,
)
from reference import membrane_prune as twin

Bytes = npt.NDArray[np.uint8]


def drawn(text: str) -> Bytes:
    rows = [line.strip() for line in text.strip().splitlines()]
    return np.array([[c == "#" for c in row] for row in rows], np.uint8)


def network(seed: int, height: int, width: int, half_px: int) -> Bytes:
    """Random strokes of a width, as membranes are, with specks and holes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(1, 9))):
        (ay, ax), (by, bx) = rng.uniform(0, (height, width), (2, 2))
        length = max(np.hypot(by - ay, bx - ax), 1.0)
        along = ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / length
        across = ((y - ay) * (bx - ax) - (x - ax) * (by - ay)) / length
        mask |= (np.abs(across) <= half_px) & (along >= 0) & (along <= length)
    flipped: Bytes = (mask ^ (rng.random(mask.shape) < 0.02)).astype(np.uint8)
    return flipped


def ring(side: int, radius: float, half_px: float) -> Bytes:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    round_: Bytes = (np.abs(np.hypot(y, x) - radius) <= half_px).astype(np.uint8)
    return round_


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 70),
    half_px=st.integers(0, 8),
    length_px=st.integers(0, 12),
)
def test_is_the_twin(
    seed: int, height: int, width: int, half_px: int, length_px: int
) -> None:
    mask = network(seed, height, width, half_px)
    found = membrane_prune(mask * np.uint8(seed % 255 + 1), length_px=length_px)
    assert found.dtype == np.uint8
    assert not (found & ~mask).any()
    np.testing.assert_array_equal(found, twin.prune(mask, length_px))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.05, 0.95),
    width=st.integers(60, 70),
    length_px=st.integers(1, 8),
)
def test_is_the_twin_on_noise(
    seed: int, share: float, width: int, length_px: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((20, width)) < share).astype(np.uint8)
    found = membrane_prune(mask, length_px=length_px)
    np.testing.assert_array_equal(found, twin.prune(mask, length_px))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    half_px=st.integers(0, 6),
    length_px=st.integers(1, 10),
    tile=st.tuples(st.integers(10, 90), st.integers(10, 90)),
)
def test_tiles_with_enough_round_them_are_the_whole(
    seed: int, half_px: int, length_px: int, tile: tuple[int, int]
) -> None:
    mask = network(seed, 150, 170, half_px)
    halo = prune_reach_px(length_px)
    padded = np.pad(mask, halo)
    tiled = np.zeros_like(mask)
    height, width = tile
    for y in range(0, 150, height):
        for x in range(0, 170, width):
            part = padded[y : y + height + 2 * halo, x : x + width + 2 * halo]
            pruned = membrane_prune(part, length_px=length_px)
            inner = pruned[halo:-halo, halo:-halo]
            tiled[y : y + height, x : x + width] = inner
    np.testing.assert_array_equal(tiled, membrane_prune(mask, length_px=length_px))


def test_hand_worked_spurs() -> None:
    # Three branches off a line: one pixel, two and four long. The pixel of a branch
    # that touches the line has three neighbors there and is no free end: it stays.
    mask = drawn(
        """
        ........................
        ..............#.........
        ..............#.........
        .........#....#.........
        .....#...#....#.........
        .######################.
        ........................
        """
    )
    want = mask.copy()
    want[3, 9] = 0
    np.testing.assert_array_equal(membrane_prune(mask, length_px=2), want)
    want[1:4, 14] = 0
    np.testing.assert_array_equal(membrane_prune(mask, length_px=3), want)


def test_a_spur_near_a_free_end_goes_and_the_end_stays() -> None:
    mask = drawn(
        """
        ....#.......
        ....#.......
        ....#.......
        ############
        ............
        """
    )
    want = mask.copy()
    want[:2, 4] = 0
    np.testing.assert_array_equal(membrane_prune(mask, length_px=3), want)
    # A fork at the end, both prongs short: the stem grows back into both.
    fork = mask[:, 1:].copy()
    np.testing.assert_array_equal(membrane_prune(fork, length_px=3), fork)


def test_spur_of_a_thick_membrane_goes_and_leaves_no_notch() -> None:
    mask = np.zeros((60, 120), np.uint8)
    mask[30:37, 10:110] = 1
    spurred = mask.copy()
    spurred[20:30, 50:53] = 1
    pruned = membrane_prune(spurred, length_px=14)
    assert not pruned[:29].any()
    assert np.array_equal(pruned[30:37], mask[30:37])
    long = membrane_prune(spurred, length_px=7)
    assert np.array_equal(long, spurred)


def test_what_is_closed_and_what_stands_alone_stays() -> None:
    for half_px in (0.5, 1.5, 3.0, 5.5):
        closed = ring(90, 30.0, half_px)
        np.testing.assert_array_equal(membrane_prune(closed, length_px=12), closed)
        arc = closed.copy()
        arc[:, 45:] = 0  # an incomplete membrane
        np.testing.assert_array_equal(membrane_prune(arc, length_px=12), arc)
    speck = np.zeros((20, 20), np.uint8)
    speck[8:11, 6:13] = 1
    np.testing.assert_array_equal(membrane_prune(speck, length_px=12), speck)
    blob = (ring(90, 0.0, 25.0)).astype(np.uint8)  # wider than any membrane
    np.testing.assert_array_equal(membrane_prune(blob, length_px=12), blob)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    half_px=st.integers(0, 5),
    length_px=st.integers(1, 12),
)
def test_closed_membranes_stay_closed(seed: int, half_px: int, length_px: int) -> None:
    """Every compartment is there afterwards, as large or larger."""
    rng = np.random.default_rng(seed)
    mask = network(seed, 80, 90, half_px) | np.roll(ring(90, 25.0, 1.5)[:80], 3, 1)
    if rng.random() < 0.5:
        mask = mask[:, ::-1].copy()
    _, before = find_membranes(mask)
    _, after = find_membranes(membrane_prune(mask, length_px=length_px))
    assert len(after) >= len(before)
    assert after.px.sum() >= before.px.sum()


def test_bad_input() -> None:
    mask = np.zeros((4, 4), np.uint8)
    for length_px in (-1, PRUNE_MAX_LENGTH_PX + 1):
        with pytest.raises(ValueError, match="length_px"):
            membrane_prune(mask, length_px=length_px)
    with pytest.raises(ValueError, match="need a mask of 1 to"):
        membrane_prune(np.zeros((0, 4), np.uint8), length_px=1)
    with pytest.raises(TypeError):
        membrane_prune(np.zeros((4, 4)), length_px=1)  # type: ignore[arg-type]
    with pytest.raises(DeviceError):
        membrane_prune(mask, length_px=1, device="cuda")
    assert prune_reach_px(8) == 4 * PRUNE_HALF_WIDTH_PX + 25
    assert PRUNE_HALF_WIDTH_PX == twin.HALF_WIDTH_PX
