# SPDX-License-Identifier: Apache-2.0
"""The CUDA twins against the CPU's kernels, to the bit.

Each test runs twice: on the CPU (tests/cuda_on_host: arithmetic and indexing, on every
machine) and on a GPU (`needs_cuda`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cuda_memory import Memory
from hypothesis import example, given, settings
from hypothesis import strategies as st

from her2fast import _core
from her2fast.errors import DeviceError
from her2fast.kernels import (
    H_DAB,
    TISSUE_REACH_PX,
    constraint_select,
    normalize_batch,
    stain_unmix,
    tissue_mask,
    tumor_count,
)
from her2fast.kernels.membrane import membrane_label

twin = _core.cuda
seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=12)


@pytest.fixture(
    scope="module",
    params=["on_host", pytest.param("gpu", marks=pytest.mark.needs_cuda)],
)
def cuda(request: pytest.FixtureRequest) -> Iterator[str]:
    where = request.param
    if where == "on_host":
        twin.set_library(request.getfixturevalue("library_on_host"))
    yield where
    twin.set_library("")


def normalized(rgb: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """As torch's ToTensor and Normalize: every step rounded to float32."""
    unit = rgb.astype(np.float32) / np.float32(255)
    return ((unit - mean) / std).transpose(0, 3, 1, 2)


@some
@given(seed=seeds, n=st.integers(0, 4), side=st.integers(1, 20), half=st.booleans())
@example(seed=1, n=3, side=8, half=True)
@example(seed=1, n=2, side=7, half=False)
def test_normalize_batch_equals_numpy(
    cuda: str, seed: int, n: int, side: int, half: bool
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (n, side, side + 1, 3), dtype=np.uint8)
    mean = rng.uniform(0, 1, 3).astype(np.float32)
    std = rng.uniform(0.1, 1, 3).astype(np.float32)
    dtype = np.float16 if half else np.float32
    expected = normalized(rgb, mean, std).astype(dtype)
    on_cpu = normalize_batch(rgb, mean=tuple(mean), std=tuple(std), half=half)
    np.testing.assert_array_equal(on_cpu, expected)
    with Memory() as memory:
        out = memory.empty(expected.nbytes)
        twin.normalize_batch(
            memory.put(rgb), n, side, side + 1, mean, std, half, out, 0
        )
        np.testing.assert_array_equal(memory.get(out, expected.shape, dtype), expected)


@some
@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 120), st.integers(1, 150)),
    patch_px=st.integers(1, 100),
    stride_px=st.integers(1, 50),
)
@example(seed=1, size=(140, 151), patch_px=100, stride_px=7)
@example(seed=1, size=(64, 64), patch_px=64, stride_px=64)
def test_tumor_count_equals_cpu(
    cuda: str, seed: int, size: tuple[int, int], patch_px: int, stride_px: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, (2, *size), dtype=np.uint8) * np.uint8(100)
    expected = np.stack(
        [tumor_count(m, patch_px=patch_px, stride_px=stride_px) for m in mask]
    )
    with Memory() as memory:
        out = memory.empty(expected.nbytes)
        twin.tumor_count(memory.put(mask), 2, *size, patch_px, stride_px, out, 0)
        np.testing.assert_array_equal(
            memory.get(out, expected.shape, np.uint32), expected
        )


@some
@given(seed=seeds, pixels=st.integers(0, 3000), white=st.integers(1, 255))
@example(seed=1, pixels=1024, white=240)
def test_stain_unmix_equals_cpu(cuda: str, seed: int, pixels: int, white: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (1, pixels, 3), dtype=np.uint8)
    expected = stain_unmix(rgb, white_rgb=(white, 255, white))
    with Memory() as memory:
        out = memory.empty(expected.nbytes)
        twin.stain_unmix(
            memory.put(rgb), pixels, (white, 255, white), H_DAB.tolist(), out, 0
        )
        got = memory.get(out, expected.shape, np.float32)
    # The same bits, not near them: the same table, added in the same order.
    assert got.tobytes() == expected.tobytes()


def patchwork(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Glass, pale and dense tissue and ink in squares, with noise."""
    colors = np.array(
        [
            (255, 255, 255),
            (225, 215, 230),
            (150, 110, 70),
            (30, 60, 200),
            (20, 20, 20),
            (60, 200, 90),
        ]
    )
    kinds = rng.integers(0, 6, (height // 23 + 1, width // 23 + 1))
    flat = colors[np.kron(kinds, np.ones((23, 23), int))[:height, :width]]
    noisy = flat + rng.integers(-10, 11, flat.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def device_tissue(rgb: np.ndarray, white: tuple[int, int, int]) -> np.ndarray:
    with Memory() as memory:
        out = memory.empty(rgb.size // 3)
        twin.tissue_mask(memory.put(rgb), *rgb.shape[:3], white, out, 0)
        return memory.get(out, rgb.shape[:3], np.uint8)


@some
@given(seed=seeds, height=st.integers(1, 110), width=st.integers(1, 140))
@example(seed=1, height=48, width=64)
@example(seed=2, height=97, width=129)
def test_tissue_mask_equals_cpu(cuda: str, seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = np.stack([patchwork(rng, height, width) for _ in range(2)])
    white = (250, 255, 240)
    expected = np.stack([tissue_mask(image, white_rgb=white) for image in rgb])
    np.testing.assert_array_equal(device_tissue(rgb, white), expected)


def test_a_tile_with_its_halo_has_the_mask_of_the_slide(cuda: str) -> None:
    slide = patchwork(np.random.default_rng(3), 150, 170)
    whole = tissue_mask(slide)
    halo = TISSUE_REACH_PX
    y, x, side = 40, 50, 60
    tile = slide[y - halo : y + side + halo, x - halo : x + side + halo]
    got = device_tissue(tile[None], (255, 255, 255))[0]
    np.testing.assert_array_equal(
        got[halo:-halo, halo:-halo], whole[y : y + side, x : x + side]
    )


def patch_table(
    rng: np.random.Generator, patches: int, slides: int
) -> tuple[np.ndarray, ...]:
    """Logits with ties, patches without tumor, slides without patches."""
    cuts = np.sort(rng.integers(0, patches + 1, slides - 1))
    offsets = np.concatenate([[0], cuts, [patches]]).astype(np.int64)
    labels = rng.integers(0, 4, slides).astype(np.int64)
    # Coarse logits: ties where a set ends.
    logits = rng.normal(0, rng.choice([0.7, 2]), (patches, 4))
    logits = logits.round(rng.integers(0, 3))
    # Small areas often reach exactly what is needed.
    most = rng.choice([3, 60])
    px = rng.integers(0, most, patches) * rng.integers(0, 2, patches)
    return logits.astype(np.float32), px.astype(np.uint32), offsets, labels


def device_select(
    memory: Memory, table: tuple[np.ndarray, ...], neighbors: str
) -> dict[str, np.ndarray]:
    logits, px, offsets, labels = table
    n, slides, words = len(px), len(labels), twin.SLIDE_WORDS
    scratch = twin.constraint_select_scratch_bytes(n, slides)
    places = [memory.empty(size) for size in (n, n, n, 8 * words * slides, 8)]
    twin.constraint_select(
        memory.put(logits),
        memory.put(px),
        offsets,
        labels,
        _core.FractionLimits.pham(),
        neighbors,
        *places,
        memory.empty(scratch),
        scratch,
        0,
    )
    rows = memory.get(places[3], (slides, words), np.int64)
    return {
        "fault": memory.get(places[4], 1, np.int64),
        "action": memory.get(places[0], n, np.uint8),
        "class_id": memory.get(places[1], n, np.int8),
        "admissible": memory.get(places[2], n, np.uint8),
        "class_px": rows[:, :4],
        "excess_px": rows[:, 4:8],
        "pushed_px": rows[:, 8:12],
        "missing_px": rows[:, 12],
        "pulled_px": rows[:, 13],
        "reach": rows[:, 14],
    }


@some
@given(
    seed=seeds,
    patches=st.integers(0, 2000),
    slides=st.integers(1, 9),
    neighbors=st.sampled_from(["neighbors", "complement", "lower"]),
)
@example(seed=1, patches=2000, slides=1, neighbors="neighbors")
@example(seed=1, patches=0, slides=2, neighbors="lower")
def test_constraint_select_equals_cpu(
    cuda: str, seed: int, patches: int, slides: int, neighbors: str
) -> None:
    table = patch_table(np.random.default_rng(seed), patches, slides)
    expected = _core.constraint_select(
        *table, _core.FractionLimits.pham(), neighbors, 1, "cpu"
    )
    with Memory() as memory:
        got = device_select(memory, table, neighbors)
    assert got.pop("fault") == -1
    for name, values in got.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_a_logit_that_is_not_finite_is_named(cuda: str) -> None:
    logits, px, offsets, labels = patch_table(np.random.default_rng(5), 90, 3)
    logits[70, 1] = np.nan
    logits[55, 3] = np.inf
    with Memory() as memory:
        got = device_select(memory, (logits, px, offsets, labels), "lower")
        assert got["fault"] == 55
        with pytest.raises(ValueError, match="labels of 0 to 3"):
            device_select(memory, (logits, px, offsets, labels + 4), "lower")
        with pytest.raises(ValueError, match="one offset more"):
            device_select(memory, (logits, px, offsets[:-1], labels), "lower")


def merged(tiles: list, height: int, width: int) -> tuple[dict, dict]:
    """The whole table of 2 x 2 tiles."""
    merge = _core.MembraneMerge(2 * width, 2 * height, width, height)
    for i, tile in enumerate(tiles):
        merge.add(i % 2, i // 2, tile)
    merge.finish()
    return merge.take()


def device_tiles(
    memory: Memory, mask: np.ndarray, density: np.ndarray | None, nuclei: np.ndarray
) -> list:
    n, height, width = mask.shape
    scratch = twin.membrane_label_scratch_bytes(n, height, width)
    batch = twin.membrane_label(
        memory.put(mask),
        0 if density is None else memory.put(density),
        n,
        height,
        width,
        memory.put(nuclei) if len(nuclei) else 0,
        len(nuclei),
        memory.empty(scratch),
        scratch,
        0,
    )
    return batch.tiles()


@some
@given(
    seed=seeds,
    height=st.integers(1, 80),
    width=st.integers(1, 100),
    share=st.sampled_from([0, 0.1, 0.35, 0.5, 0.6, 0.9, 1]),
    dense=st.booleans(),
)
@example(seed=1, height=64, width=96, share=0.4, dense=True)
@example(seed=1, height=1, width=70, share=0.5, dense=False)
def test_membranes_equal_those_of_the_cpu(
    cuda: str, seed: int, height: int, width: int, share: float, dense: bool
) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((4, height, width)) < share).astype(np.uint8)
    density = rng.integers(0, 256, mask.shape, dtype=np.uint8) if dense else None
    count = int(rng.integers(0, 30))
    nuclei = np.stack(
        [rng.integers(0, most, count) for most in (4, width, height)], axis=1
    ).astype(np.int32)
    expected = [
        membrane_label(
            mask[t],
            density=None if density is None else density[t],
            nuclei=nuclei[nuclei[:, 0] == t][:, 1:],
        )
        for t in range(4)
    ]
    with Memory() as memory:
        tiles = device_tiles(memory, mask, density, nuclei)
        for got, wanted in zip(
            merged(tiles, height, width), merged(expected, height, width), strict=True
        ):
            for name in wanted:
                np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)


def test_a_nucleus_outside_its_tile_is_refused(cuda: str) -> None:
    mask = np.zeros((1, 8, 8), np.uint8)
    with Memory() as memory, pytest.raises(ValueError, match="nuclei within"):
        device_tiles(memory, mask, None, np.array([[0, 8, 0]], np.int32))


def test_bad_input_is_refused(cuda: str) -> None:
    host = np.zeros(12, np.uint8)
    with Memory() as memory:
        there = memory.put(host)
        out = memory.empty(64)
        with pytest.raises(ValueError, match="host memory"):
            twin.tumor_count(host.ctypes.data, 1, 2, 2, 1, 1, out, 0)
        with pytest.raises(ValueError, match="patch_px"):
            twin.tumor_count(there, 1, 2, 2, 0, 1, out, 0)
        with pytest.raises(ValueError, match="white point"):
            twin.tissue_mask(there, 1, 2, 2, (127, 255, 255), out, 0)
        with pytest.raises(ValueError, match="singular"):
            twin.stain_unmix(there, 4, (255, 255, 255), [[1, 0, 0]] * 3, out, 0)
        with pytest.raises(ValueError, match="deviations above 0"):
            twin.normalize_batch(there, 1, 2, 2, (0, 0, 0), (1, 0, 1), False, out, 0)
        with pytest.raises(ValueError, match="8192"):
            twin.membrane_label_scratch_bytes(1, 9000, 2)


@pytest.mark.needs_cuda
def test_large_batches_give_the_same_bits_again_and_again() -> None:
    """What runs in earnest side by side: races would change a bit now and then."""
    twin.set_library("")
    rng = np.random.default_rng(11)
    mask = (rng.random((4, 512, 512)) < 0.45).astype(np.uint8)
    density = rng.integers(0, 256, mask.shape, dtype=np.uint8)
    expected = [
        membrane_label(m, density=d) for m, d in zip(mask, density, strict=True)
    ]
    wanted = merged(expected, 512, 512)
    rgb = np.stack([patchwork(rng, 700, 900) for _ in range(3)])
    tissue = np.stack([tissue_mask(image) for image in rgb])
    table = patch_table(rng, 300_000, 7)
    chosen = constraint_select(
        table[0], table[1], table[2], table[3], neighbors="neighbors"
    )
    for _ in range(10):
        with Memory() as memory:
            tiles = device_tiles(memory, mask, density, np.empty((0, 3), np.int32))
            for got, part in zip(merged(tiles, 512, 512), wanted, strict=True):
                for name in part:
                    np.testing.assert_array_equal(got[name], part[name], err_msg=name)
            got = device_select(memory, table, "neighbors")
            np.testing.assert_array_equal(got["action"], chosen.action)
            np.testing.assert_array_equal(got["class_id"], chosen.class_id)
        np.testing.assert_array_equal(device_tissue(rgb, (255, 255, 255)), tissue)


def test_the_library_that_was_built_opens_with_or_without_a_gpu() -> None:
    library = Path(_core.__file__).with_name("libher2fast_cuda.so")
    if not library.exists():
        pytest.skip("built without nvcc")
    twin.set_library(str(library))
    try:
        memory = [device["memory_bytes"] for device in twin.devices()]
    except DeviceError as error:
        message = str(error)
    else:
        message = "CUDA:" if min(memory) > 0 else "no memory"
    assert "CUDA:" in message  # the driver's word, not the loader's
    twin.set_library("")


def test_a_missing_library_is_a_device_error() -> None:
    twin.set_library("/nowhere/libher2fast_cuda.so")
    with pytest.raises(DeviceError, match=r"/nowhere/.*HER2FAST_CUDA=ON"):
        twin.devices()
    twin.set_library("")


@settings(max_examples=8)
@given(
    seed=seeds,
    channels=st.integers(1, 2),
    halo=st.integers(0, 35),
    patch=st.integers(8, 20),
    across=st.integers(1, 4),
)
@example(seed=1, channels=1, halo=32, patch=16, across=4)
def test_tumor_bits_equal_numpy(
    cuda: str, seed: int, channels: int, halo: int, patch: int, across: int
) -> None:
    rng = np.random.default_rng(seed)
    tile, n, threshold = patch * across, 2, 0.25
    side, words = tile + 2 * halo, (tile + 63) // 64
    # Eighths, so that some lie on the threshold.
    logits = rng.integers(-8, 9, (n, channels, side, side)).astype(np.float32) / 8
    tissue = rng.random((n, tile, 64 * words)) < 0.8  # beyond the tile, too
    value = logits[:, 0] if channels == 1 else logits[:, 1] - logits[:, 0]
    tumor = value[:, halo : halo + tile, halo : halo + tile] >= threshold
    tumor &= tissue[:, :, :tile]
    counts = tumor.reshape(n, across, patch, across, patch).sum((2, 4), np.uint32)
    padded = np.zeros(tissue.shape, bool)
    padded[:, :, :tile] = tumor

    def packed(bits: np.ndarray) -> np.ndarray:
        return np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)

    with Memory() as memory:
        within = packed(tissue)
        bits, px, fault = (memory.empty(s) for s in (within.nbytes, counts.nbytes, 4))

        def run(values: np.ndarray) -> int:
            twin.tumor_bits(
                memory.put(values),
                memory.put(within),
                n,
                channels,
                halo,
                tile,
                patch,
                threshold,
                bits,
                px,
                fault,
                0,
            )
            return int(memory.get(fault, (1,), np.int32)[0])

        assert run(logits) == 0
        found = memory.get(bits, within.shape, np.uint64)
        np.testing.assert_array_equal(found, packed(padded))
        np.testing.assert_array_equal(memory.get(px, counts.shape, np.uint32), counts)
        logits.flat[rng.integers(logits.size)] = rng.choice([np.nan, -np.inf])
        assert run(logits) == 1


def test_normalize_batch_refuses_what_it_cannot_do() -> None:
    rgb = np.zeros((1, 2, 2, 3), np.uint8)
    ones = (1.0, 1.0, 1.0)
    for mean, std in (
        ((0, np.nan, 0), ones),
        (ones, (1, 0, 1)),
        (ones, (1, np.inf, 1)),
    ):
        with pytest.raises(ValueError, match="deviations above 0"):
            normalize_batch(rgb, mean=mean, std=std)
    with pytest.raises(ValueError, match="shape"):
        normalize_batch(rgb[0], mean=ones, std=ones)
    with pytest.raises(DeviceError):
        normalize_batch(rgb, mean=ones, std=ones, device="cuda")
