# SPDX-License-Identifier: Apache-2.0
"""`resample`: the CPU against the definition in plain integers, its twin against it.

The twin runs on the CPU (tests/cuda_on_host) and on a GPU (`needs_cuda`).
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import fake_cuda
import numpy as np
import pytest
from conftest import without
from cuda_memory import Memory
from fake_cuda import Described, FakeCuda, FakeTensor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from her2fast import _core
from her2fast.errors import ArrayError, DeviceError
from her2fast.kernels.resample import resample, source_box
from reference import resample as reference

seeds = st.integers(0, 2**32 - 1)
#: The means that slides ask for most, and any other step.
steps = st.one_of(
    st.sampled_from([Fraction(n) for n in (1, 2, 4, 8, 16)]),
    st.fractions(Fraction(1, 4), 20, max_denominator=60),
)


@pytest.fixture(
    scope="module",
    params=["on_host", pytest.param("gpu", marks=pytest.mark.needs_cuda)],
)
def cuda(request: pytest.FixtureRequest) -> Iterator[str]:
    where = request.param
    library = request.getfixturevalue("library_on_host") if where == "on_host" else ""
    _core.cuda.set_library(library)
    yield where
    _core.cuda.set_library("")


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `resample` but for the images."""
    return {
        "step": (draw(steps), draw(steps)),
        "first_px": (draw(st.integers(0, 30)), draw(st.integers(0, 30))),
        "size_px": (draw(st.integers(1, 12)), draw(st.integers(1, 6))),
    }


def images(rng: np.random.Generator, n: int, grid: dict[str, Any]) -> np.ndarray:
    """What the grid needs, and now and then a few pixels more."""
    _, _, width, height = source_box(**grid)
    more = rng.integers(0, 4, 2)
    return rng.integers(0, 256, (n, height + more[0], width + more[1], 3), np.uint8)


def on_device(rgb: np.ndarray, **grid: Any) -> np.ndarray:
    with Memory() as memory:
        there = fake_cuda.at(memory.put(rgb), rgb.shape, rgb.dtype)
        out = resample(Described(there, 1), **grid)
        return memory.get(out.pointer, out.shape, out.dtype)


@settings(max_examples=60)
@given(seed=seeds, grid=grids())
def test_equals_the_definition(seed: int, grid: dict[str, Any]) -> None:
    rgb = images(np.random.default_rng(seed), 2, grid)
    x, y, _, _ = source_box(**grid)
    out = resample(rgb, **grid)
    assert out.dtype == np.uint8
    for image, got in zip(rgb, out, strict=True):
        slide = np.pad(image, ((y, 0), (x, 0), (0, 0)))
        want = reference.resample(
            slide, *grid["first_px"], *grid["size_px"], *grid["step"]
        )
        np.testing.assert_array_equal(got, want)


@settings(max_examples=40)
@given(step=steps, first=st.integers(-400, 400), size=st.integers(1, 40))
def test_the_box_is_what_the_weights_reach_over(
    step: Fraction, first: int, size: int
) -> None:
    rows = [reference.axis_weights(first + i, step) for i in range(size)]
    x, y, width, height = source_box(
        step=(step, 1), first_px=(first, -7), size_px=(size, 5)
    )
    assert (x, x + width) == (rows[0][0], rows[-1][0] + len(rows[-1][1]))
    assert (y, height) == (-7, 5)


def test_a_grid_begins_anew_every_denominator() -> None:
    rgb = np.random.default_rng(4).integers(0, 256, (1, 9, 40, 3), np.uint8)
    grid: dict[str, Any] = {"step": (Fraction(7, 5), 1), "size_px": (20, 9)}
    here = resample(rgb, first_px=(3, 0), **grid)
    for first in (-2, -47, 100_003, -(2**40) + 4):
        assert (first - 3) % 5 == 0
        there = resample(rgb, first_px=(first, 0), **grid)
        np.testing.assert_array_equal(there, here)
    assert not np.array_equal(resample(rgb, first_px=(4, 0), **grid), here)


@settings(max_examples=40)
@given(seed=seeds, n=st.integers(0, 4), grid=grids())
@example(seed=1, n=3, grid={"step": (2, 2), "size_px": (128, 128)})
@example(seed=2, n=2, grid={"step": (16, 16), "size_px": (33, 20)})
@example(seed=3, n=1, grid={"step": (Fraction(25, 24), 3), "size_px": (400, 3)})
@example(seed=4, n=1, grid={"step": (3000, Fraction(1, 2)), "size_px": (1, 3)})
def test_the_twin_has_the_bits_of_the_cpu(
    cuda: str, seed: int, n: int, grid: dict[str, Any]
) -> None:
    rgb = images(np.random.default_rng(seed), n, grid)
    got = on_device(rgb, **grid)
    assert got.tobytes() == resample(rgb, **grid).tobytes()
    assert got.shape == (n, *grid["size_px"][::-1], 3)


def test_by_hand(cuda: str) -> None:
    # 2.5 is rounded up, 0.25 down, 0.5 up.
    square = np.uint8([[[[1, 0, 0], [2, 0, 0]], [[3, 0, 1], [4, 1, 1]]]])
    # 43691, 21845 and 21845, 43691: 30 is 29.9995, 200 is 200.0008.
    row = np.repeat(np.uint8([0, 90, 255]), 3).reshape(1, 1, 3, 3)
    for call in (resample, on_device):
        assert call(square, step=(2, 2), size_px=(1, 1)).tolist() == [[[[3, 0, 1]]]]
        out = call(row, step=(Fraction(3, 2), 1), size_px=(2, 1))
        assert out.tolist() == [[[[30] * 3, [200] * 3]]]


def test_bad_input_is_refused(cuda: str) -> None:
    rgb = np.zeros((1, 8, 8, 3), np.uint8)
    good: dict[str, Any] = {"step": (2, 2), "size_px": (4, 4)}
    for call in (resample, on_device):
        for bad, words in (
            ({"step": (0, 2)}, "need a step above 0"),
            ({"step": (2, Fraction(-1, 3))}, "need a step above 0"),
            ({"step": (Fraction(1, 2**62), 2)}, r"terms below 2\^62"),
            ({"size_px": (0, 4)}, r"need 1 to 2\^20 grid px"),
            ({"size_px": (2**19 + 1, 4)}, r"over at most 2\^20 source px"),
            ({"size_px": (2**20 + 1, 4), "step": (Fraction(1, 9), 2)}, "1 to 2"),
            ({"first_px": (2**40 + 1, 0)}, r"first grid px within 2\^40"),
            ({"step": (2, 2, 2)}, r"of two each, got \(3, 2, 2\)"),
            ({"size_px": (2,)}, r"of two each, got \(2, 2, 1\)"),
        ):
            with pytest.raises(ValueError, match=words):
                call(rgb, **{**good, **bad})
        with pytest.raises(TypeError, match="need step as int or Fraction"):
            call(rgb, **{**good, "step": (2.0, 2)})
        with pytest.raises(ValueError, match=r"shape \(n, H, W, 3\)"):
            call(rgb[0], **good)
        with pytest.raises(ArrayError, match="need rgb as an array of uint8"):
            call(rgb.astype(np.int8), **good)
    for shape in ((1, 7, 8, 3), (1, 8, 7, 3), (0, 8, 7, 3)):
        small = np.zeros(shape, np.uint8)
        for call in (resample, on_device):
            with pytest.raises(ValueError, match="need images of at least 8 x 8 px"):
                call(small, **good)
    with pytest.raises(DeviceError):
        resample(rgb, **good, device="cuda")


def test_scratch_lives_as_long_as_what_came_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Freed sooner it would be a wait for the GPU, or memory of somebody else."""
    gpu = FakeCuda()
    monkeypatch.setattr(_core, "cuda", gpu)
    out = resample(
        Described(np.zeros((1, 8, 8, 3), np.uint8), 0x51), step=(2, 2), size_px=(4, 4)
    )
    gc.collect()
    assert len(gpu.memory) == 2
    assert gpu.named("release") == gpu.named("synchronize") == []
    del out
    gc.collect()
    assert gpu.memory == {}


def test_scratch_is_there_until_the_kernel_is_queued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch gives memory that was let go to whoever asks next: to the output."""
    made: list[weakref.ref[np.ndarray]] = []

    def make(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = fake_cuda.dirty(shape, dtype)
        made.append(weakref.ref(array))
        return array

    gpu, alive = FakeCuda(), []
    twin = gpu.resample

    def spy(*given: Any) -> None:
        alive.extend(ref() is not None for ref in made)
        twin(*given)

    monkeypatch.setattr(gpu, "resample", spy, raising=False)
    monkeypatch.setattr(_core, "cuda", gpu)
    monkeypatch.setitem(sys.modules, "torch", fake_cuda.fake_torch({0: 0}, make))
    rgb = FakeTensor(np.zeros((1, 8, 8, 3), np.uint8))
    out = resample(rgb, step=(2, 2), size_px=(4, 4))
    gc.collect()
    assert alive == [True, True]
    assert [ref() is not None for ref in made] == [False, True]
    assert out.shape == (1, 4, 4, 3)


@pytest.mark.needs_cuda
def test_a_callers_stream_orders_what_is_resampled() -> None:
    """Weights of one call must not be those of the next while the stream is busy."""
    import torch

    if not torch.cuda.is_available():
        without("torch has no CUDA device")
    rgb = np.random.default_rng(7).integers(0, 256, (16, 512, 512, 3), np.uint8)
    ways: list[dict[str, Any]] = [
        {"step": (2, 2), "size_px": (256, 256)},
        {"step": (Fraction(25, 24), Fraction(25, 24)), "size_px": (491, 491)},
        {"step": (Fraction(7, 3), 16), "size_px": (219, 32), "first_px": (2, 0)},
    ]
    wanted = [resample(rgb, **way) for way in ways]
    given_ = torch.from_numpy(rgb).cuda()
    heavy = torch.randn((4096, 4096), device="cuda")
    torch.cuda.synchronize()
    for _ in range(20):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(4):
                heavy @ heavy
            tiles = given_ ^ 255
            tiles ^= 255  # still under way when the kernels are queued
            outs = [resample(tiles, **way) for way in ways]
            del tiles
            got = [out.cpu().numpy() for out in outs]
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
