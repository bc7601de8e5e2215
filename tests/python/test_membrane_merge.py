# SPDX-License-Identifier: Apache-2.0
"""Merged tiles are the mask in one piece, for every tiling and every order."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.errors import DeviceError
from her2fast.kernels.membrane import (
    Compartments,
    MembraneMerge,
    Membranes,
    find_membranes,
    membrane_label,
)
from reference import membrane_merge as twin

Bytes = npt.NDArray[np.uint8]


def drawn(text: str) -> Bytes:
    """A mask from a picture: `#` is membrane."""
    rows = [line.strip() for line in text.strip().splitlines()]
    return np.array([[c == "#" for c in row] for row in rows], np.uint8)


def noise(seed: int, height: int, width: int, share: float, grain: int) -> Bytes:
    """Random pixels, or random spots and lines where `grain` is above 1."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // grain), -(-width // grain))) < share
    mask = np.kron(coarse, np.ones((grain, grain), bool))[:height, :width]
    return (mask ^ (rng.random((height, width)) < 0.02)).astype(np.uint8)


def rings(seed: int, height: int, width: int, count: int) -> Bytes:
    """Rings within rings, over many tiles, some of them open."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(count):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        r = np.hypot(y - cy, x - cx)
        size = rng.uniform(2, 3 + 0.6 * max(height, width))
        mask |= (np.abs(r - size) < rng.uniform(0.5, 1.2)) & (rng.random() < 0.9)
        if rng.random() < 0.4:
            mask &= ~((np.abs(y - cy) < 1.5) & (x > cx))
    return mask.astype(np.uint8)


def merged(
    mask: Bytes, density: Bytes | None, tile: tuple[int, int], order_seed: int
) -> tuple[Membranes, Compartments]:
    """Tiles in random order, what is finished taken at random times."""
    height, width = mask.shape
    tile_w, tile_h = tile
    rng = np.random.default_rng(order_seed)
    merge = MembraneMerge(width, height, tile_px=tile)
    places = list(
        itertools.product(range(-(-width // tile_w)), range(-(-height // tile_h)))
    )
    parts = []
    for k in rng.permutation(len(places)):
        column, row = places[k]
        at = np.s_[
            row * tile_h : (row + 1) * tile_h, column * tile_w : (column + 1) * tile_w
        ]
        part = None if density is None else density[at]
        merge.add(column, row, membrane_label(mask[at], part))
        if rng.random() < 0.3:
            parts.append(merge.take())
    assert merge.open_components == 0  # all was emitted as soon as it was finished
    parts.append(merge.finish())
    return tuple(  # type: ignore[return-value]
        joined([part[which] for part in parts]) for which in (0, 1)
    )


def joined(tables: list[Any]) -> Any:
    columns = {
        f.name: np.concatenate([getattr(t, f.name) for t in tables])
        for f in dataclasses.fields(tables[0])
    }
    order = np.lexsort((columns["x"], columns["y"]))
    return type(tables[0])(**{name: c[order] for name, c in columns.items()})


def assert_same(a: Any, b: Any) -> None:
    for f in dataclasses.fields(a):
        left, right = getattr(a, f.name), getattr(b, f.name)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), f.name  # NaN included


def assert_is_twin(mask: Bytes, density: Bytes | None, found: Any) -> None:
    membranes, compartments = found
    expected = twin.membranes(mask, density)
    assert len(membranes) == len(expected)
    holes: dict[tuple[int, int], list[Any]] = {}
    for i in range(len(compartments)):
        owner = (int(compartments.membrane_y[i]), int(compartments.membrane_x[i]))
        first = (int(compartments.y[i]), int(compartments.x[i]))
        box = tuple(compartments.box[i].tolist())
        holes.setdefault(owner, []).append((first, box, int(compartments.px[i])))
    for i, row in enumerate(expected):
        first = (int(membranes.y[i]), int(membranes.x[i]))
        assert first == row["first"]
        assert tuple(membranes.box[i].tolist()) == row["box"]
        assert membranes.px[i] == row["px"]
        assert membranes.cut[i] == row["cut"]
        assert not membranes.incomplete[i]
        inner: Any = row["holes"]
        assert sorted(holes.pop(first, [])) == inner
        assert membranes.compartments[i] == len(inner)
        assert membranes.enclosed_px[i] == sum(hole[2] for hole in inner)
        assert membranes.closed[i] == bool(inner)
        names = ["perimeter_px", "length_px"]
        if density is not None:
            names += ["density_mean", "density_p10", "density_p50", "density_p90"]
        for name in names:
            assert getattr(membranes, name)[i] == pytest.approx(row[name], rel=1e-12)
        assert membranes.width_px[i] * membranes.length_px[i] == pytest.approx(
            row["px"]
        )
    assert not holes


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 34),
    width=st.integers(1, 34),
    share=st.floats(0.02, 0.98),
    grain=st.integers(1, 4),
    tile_w=st.integers(1, 15),
    tile_h=st.integers(1, 15),
    dense=st.booleans(),
    kind=st.sampled_from(["noise", "rings"]),
)
def test_merged_is_untiled(
    seed: int,
    height: int,
    width: int,
    share: float,
    grain: int,
    tile_w: int,
    tile_h: int,
    dense: bool,
    kind: str,
) -> None:
    if kind == "noise":
        mask = noise(seed, height, width, share, grain)
    else:
        mask = rings(seed, height, width, 1 + grain)
    rng = np.random.default_rng(seed)
    density = rng.integers(0, 256, mask.shape).astype(np.uint8) if dense else None
    whole = find_membranes(mask, density, tile_px=64)
    assert_is_twin(mask, density, whole)
    tiled = merged(mask, density, (tile_w, tile_h), seed)
    assert_same(tiled[0], whole[0])
    assert_same(tiled[1], whole[1])


@pytest.mark.parametrize("tile", [(16, 16), (64, 24), (100, 7), (33, 65)])
def test_many_tiles_and_long_rings(tile: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(tile))
    for mask in (rings(5, 300, 400, 12), noise(6, 257, 321, 0.5, 3)):
        density = rng.integers(0, 256, mask.shape).astype(np.uint8)
        whole = find_membranes(mask, density, tile_px=512)
        tiled = merged(mask, density, tile, 1)
        assert_same(tiled[0], whole[0])
        assert_same(tiled[1], whole[1])


@pytest.mark.parametrize("width", [63, 64, 65, 127, 128, 129])
def test_widths_about_a_machine_word(width: int) -> None:
    for share in (0.1, 0.5, 0.9, 1.0):
        mask = noise(width, 9, width, share, 1)
        assert_is_twin(mask, None, find_membranes(mask))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tile=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    kind=st.sampled_from(["noise", "rings"]),
)
def test_nuclei_are_counted_in_their_compartment(
    seed: int, tile: tuple[int, int], kind: str
) -> None:
    """Whatever the tiling: gaps bring their nuclei along, those on membrane go."""
    rng = np.random.default_rng(seed)
    mask = noise(seed, 30, 34, 0.4, 2) if kind == "noise" else rings(seed, 30, 34, 4)
    points = rng.integers(0, (34, 30), (60, 2)).astype(np.int32)
    merge = MembraneMerge(34, 30, tile_px=tile)
    for row in range(-(-30 // tile[1])):
        for column in range(-(-34 // tile[0])):
            corner = np.array([column * tile[0], row * tile[1]])
            part = mask[corner[1] :, corner[0] :][: tile[1], : tile[0]]
            own = points - corner
            own = own[((own >= 0) & (own < part.shape[::-1])).all(1)]
            nuclei = np.ascontiguousarray(own, np.int32)
            merge.add(column, row, membrane_label(part, nuclei=nuclei))
    _, compartments = merge.finish()
    found = {
        (int(y), int(x)): int(count)
        for y, x, count in zip(
            compartments.y, compartments.x, compartments.nuclei, strict=True
        )
    }
    expected = {}
    for gap in twin.components(mask, False, twin.SIDES):
        if not twin.on_edge(gap, mask.shape):
            inside = set(gap.pixels)
            expected[gap.first] = sum((y, x) in inside for x, y in points.tolist())
    assert found == expected


def test_hand_worked_ring() -> None:
    mask = drawn(
        """
        ......
        .####.
        .#..#.
        .####.
        ......
        """
    )
    density = np.where(np.arange(30).reshape(5, 6) < 15, 20, 60).astype(np.uint8)
    membranes, compartments = find_membranes(mask, density, tile_px=3)
    assert len(membranes) == len(compartments) == 1
    assert (membranes.y[0], membranes.x[0]) == (1, 1)
    assert membranes.box[0].tolist() == [1, 1, 5, 4]
    assert membranes.px[0] == 10
    assert membranes.enclosed_px[0] == compartments.px[0] == 2
    # Outside: 4 corners and 2 x 3 + 2 x 2 straight windows. Inside: 4 windows with
    # three pixels, 2 straight ones (above and below the middle of the compartment).
    assert membranes.perimeter_px[0] == pytest.approx(12 + 8 * math.sqrt(0.5))
    # Euler number 0: half the perimeter.
    assert membranes.length_px[0] == pytest.approx(membranes.perimeter_px[0] / 2)
    # Row 1 and (2, 1) are before pixel 15: five times .20; the other five .60.
    assert membranes.density_mean[0] == pytest.approx(0.40)
    assert membranes.density_p50[0] == pytest.approx(0.20)
    assert membranes.density_p90[0] == pytest.approx(0.60)
    assert membranes.closed[0]
    assert not membranes.cut[0]
    assert not membranes.incomplete[0]


def test_corners_join_and_do_not_let_through() -> None:
    # A diamond whose pixels touch at corners alone, one of them where four tiles meet.
    mask = drawn(
        """
        ..#...
        .#.#..
        #...#.
        .#.#..
        ..#...
        ......
        """
    )
    for tile in (1, 2, 3, 6):
        membranes, compartments = find_membranes(mask, tile_px=tile)
        assert membranes.px.tolist() == [8]
        assert compartments.px.tolist() == [5]
    opened = mask.copy()
    opened[0, 2] = 0
    assert len(find_membranes(opened, tile_px=3)[1]) == 0


def test_length_and_width_of_bands() -> None:
    for width in (1, 2, 3, 5):
        mask = np.zeros((40, 140), np.uint8)
        mask[10 : 10 + width, 20:120] = 1
        membranes, _ = find_membranes(mask)
        assert membranes.width_px[0] == pytest.approx(width, rel=0.06)
        assert membranes.length_px[0] == pytest.approx(100, rel=0.06)
    y, x = np.mgrid[:200, :200]
    ring = (np.abs(np.hypot(y - 100, x - 100) - 70) <= 2).astype(np.uint8)
    membranes, _ = find_membranes(ring, tile_px=50)
    assert membranes.length_px[0] == pytest.approx(2 * math.pi * 70, rel=0.06)
    assert membranes.width_px[0] == pytest.approx(4.0, rel=0.06)


def test_missing_tiles_enclose_nothing() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:25] = 1
    mask[7:23, 7:23] = 0  # round the middle tile
    mask[0:4, 0:4] = 1
    mask[1:3, 1:3] = 0  # a ring of its own in the first tile
    merge = MembraneMerge(30, 30, tile_px=10)
    for column, row in itertools.product(range(3), range(3)):
        if (column, row) != (1, 1):
            at = np.s_[10 * row : 10 * row + 10, 10 * column : 10 * column + 10]
            merge.add(column, row, membrane_label(mask[at]))
    membranes, compartments = merge.finish()
    assert membranes.px.tolist() == [12, 400 - 256]
    assert membranes.closed.tolist() == [True, False]
    assert membranes.incomplete.tolist() == [False, True]
    assert compartments.px.tolist() == [4]


def test_membrane_on_a_missing_tile_is_incomplete() -> None:
    for at, incomplete in [((3, 3), True), ((2, 2), False), ((1, 3), True)]:
        mask = np.zeros((4, 4), np.uint8)
        mask[at] = 1
        merge = MembraneMerge(8, 8, tile_px=4)
        merge.add(0, 0, membrane_label(mask))
        membranes, _ = merge.finish()
        assert membranes.incomplete.tolist() == [incomplete]


def test_memory_follows_the_seams() -> None:
    rng = np.random.default_rng(3)
    tile = noise(1, 64, 64, 0.3, 3)
    density = rng.integers(0, 256, tile.shape).astype(np.uint8)
    peaks = []
    for rows in (10, 60):
        merge = MembraneMerge(64 * 10, 64 * rows, tile_px=64)
        peak = 0
        for row, column in itertools.product(range(rows), range(10)):
            merge.add(column, row, membrane_label(tile, density))
            peak = max(peak, merge.memory_bytes)
            merge.take()
        peaks.append(peak)
    assert peaks[1] < 1.5 * peaks[0]


def test_waiting_compartments_cost_little() -> None:
    # One membrane with a hole in every cell of a grid: nothing finishes before the end.
    mask = np.ones((256, 256), np.uint8)
    mask[1::4, 1::4] = 0
    merge = MembraneMerge(256 * 8, 256 * 4, tile_px=256)
    tile = membrane_label(mask)
    for column, row in itertools.product(range(8), range(4)):
        merge.add(column, row, tile)
        if (column, row) == (3, 3):
            assert len(merge.take()[0]) == 0
            cells = 16 * 64 * 64
            assert merge.memory_bytes < 128 * cells + 100_000
    membranes, compartments = merge.finish()
    assert membranes.compartments.tolist() == [32 * 64 * 64]
    assert len(compartments) == 32 * 64 * 64
    assert np.all(compartments.membrane_x == 0)


def test_bad_input() -> None:
    good = np.zeros((4, 4), np.uint8)
    with pytest.raises(TypeError, match="mask as an array of uint8"):
        membrane_label(good.astype(np.int32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 0 x 4"):
        membrane_label(good[:0])
    with pytest.raises(ValueError, match="a density of 4 x 4"):
        membrane_label(good, good[:2])
    with pytest.raises(ValueError, match="density of"):
        find_membranes(good, good[:2])
    with pytest.raises(ValueError, match="2 dimensions, got 3"):
        membrane_label(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"4 x 4 pixels, got one at \(4, 0\)"):
        membrane_label(good, nuclei=np.array([[4, 0]], np.int32))
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        membrane_label(good, nuclei=np.zeros(4, np.int32))
    with pytest.raises(DeviceError):
        membrane_label(good, device="cuda")
    for arguments in [(0, 4, 4), (4, 2**30 + 1, 4), (4, 4, 0), (4, 4, 8193)]:
        with pytest.raises(ValueError, match="need"):
            MembraneMerge(*arguments[:2], tile_px=arguments[2])
    with pytest.raises(ValueError, match="2\\^28"):
        MembraneMerge(2**30, 2**30, tile_px=512)


def test_threads_change_nothing() -> None:
    mask = noise(9, 200, 300, 0.4, 3)
    want = find_membranes(mask, mask, tile_px=32)
    for workers in (2, 5):
        found = find_membranes(mask, mask, tile_px=32, workers=workers)
        assert_same(found[0], want[0])
        assert_same(found[1], want[1])
    with pytest.raises(ValueError, match="workers, got 0"):
        find_membranes(mask, workers=0)


def test_any_layout_in_memory() -> None:
    mask = noise(3, 40, 52, 0.4, 2)
    want = find_membranes(mask)
    for other in (
        np.asfortranarray(mask),
        mask[::-1][::-1],
        np.pad(mask, 3)[3:-3, 3:-3],
        np.repeat(mask, 2, axis=1)[:, ::2],
    ):
        assert_same(find_membranes(other)[0], want[0])
    turned = find_membranes(mask[::-1, ::-1])
    assert np.array_equal(np.sort(turned[0].px), np.sort(want[0].px))


def test_tiles_that_do_not_fit_change_nothing() -> None:
    tile = membrane_label(np.ones((4, 4), np.uint8))
    dense = membrane_label(np.ones((4, 4), np.uint8), np.ones((4, 4), np.uint8))
    merge = MembraneMerge(8, 8, tile_px=4)
    merge.add(0, 0, tile)
    for column, row, part, message in [
        (2, 0, tile, "grid of 2 x 2"),
        (-1, 0, tile, "grid"),
        (0, 0, tile, "there before"),
        (1, 0, membrane_label(np.ones((4, 3), np.uint8)), "need 4 x 4"),
        (1, 0, dense, "densities"),
    ]:
        with pytest.raises(ValueError, match=message):
            merge.add(column, row, part)
    for column, row in [(1, 0), (0, 1), (1, 1)]:
        merge.add(column, row, tile)
    membranes, _ = merge.finish()
    assert membranes.px.tolist() == [64]
    assert len(merge.finish()[0]) == 0
    with pytest.raises(ValueError, match="after finish"):
        merge.add(0, 0, tile)
