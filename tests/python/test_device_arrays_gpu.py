# SPDX-License-Identifier: Apache-2.0
"""Arrays of torch and CuPy on a real GPU: the CPU's bytes, on the caller's stream."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import numpy as np
import pytest
from conftest import without
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import CALLS, parts

from her2fast.errors import ArrayError, DeviceError
from her2fast.kernels import focus, tumor_count

pytestmark = pytest.mark.needs_cuda

TWINS = (
    "constraint_select",
    "membrane_label",
    "normalize_batch",
    "resample",
    "stain_unmix",
    "tissue_mask",
    "tumor_count",
)


class Torch:
    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            without("torch has no CUDA device")
        self.lib: Any = torch

    def put(self, array: np.ndarray) -> Any:
        return self.lib.from_numpy(np.ascontiguousarray(array)).cuda()

    def get(self, out: Any) -> np.ndarray:
        assert isinstance(out, self.lib.Tensor)
        assert out.is_cuda
        return out.cpu().numpy()

    @contextlib.contextmanager
    def side_stream(self) -> Any:
        stream = self.lib.cuda.Stream()
        with self.lib.cuda.stream(stream):
            yield

    def pointer(self, array: Any) -> int:
        return array.data_ptr()


class Cupy:
    def __init__(self) -> None:
        try:
            self.lib: Any = importlib.import_module("cupy")
            self.lib.zeros(1)
        except Exception as error:  # its own errors, of import or of the driver
            without(f"CuPy does not run: {error}")

    def put(self, array: np.ndarray) -> Any:
        return self.lib.asarray(np.ascontiguousarray(array))

    def get(self, out: Any) -> np.ndarray:
        assert isinstance(out, self.lib.ndarray)
        return out.get()

    @contextlib.contextmanager
    def side_stream(self) -> Any:
        with self.lib.cuda.Stream(non_blocking=True):
            yield

    def pointer(self, array: Any) -> int:
        return array.data.ptr


@pytest.fixture(scope="module", params=[Torch, Cupy], ids=["torch", "cupy"])
def gpu(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.mark.parametrize("stem", TWINS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_bytes_of_the_cpu(gpu: Any, stem: str, seed: int) -> None:
    call = CALLS[stem]
    given_ = call.make(np.random.default_rng(seed))
    small = ("offsets", "labels")
    held = {k: v if k in small else gpu.put(v) for k, v in given_.items()}
    got, want = call.run(**held), call.run(**given_)
    for one, other in zip(parts(got), parts(want), strict=True):
        one = one if isinstance(one, np.ndarray) else gpu.get(one)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


def test_the_callers_stream_orders_all(gpu: Any) -> None:
    """What is queued before and after on a stream that waits for no other."""
    mask = np.random.default_rng(4).integers(0, 2, (4096, 4096)).astype(np.uint8)
    want = tumor_count(mask, patch_px=8, stride_px=8)
    for _ in range(20):
        with gpu.side_stream():
            ones = gpu.put(np.zeros_like(mask))
            source = gpu.put(mask)
            ones += source  # still under way when the kernel is queued
            out = tumor_count(ones, patch_px=8, stride_px=8)
            del ones, source
            other = gpu.put(np.full_like(mask, 7))  # may take their memory
            got = gpu.get(out)
        np.testing.assert_array_equal(got, want)
        del other


def test_torch_allocates_the_output_and_nothing_else() -> None:
    torch = Torch().lib
    mask = torch.ones((8192, 8192), dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = tumor_count(mask, patch_px=64, stride_px=64)
    assert torch.cuda.max_memory_allocated() - before <= max(512, 4 * out.numel())
    free = torch.cuda.mem_get_info()[0]
    tumor_count(mask, patch_px=64, stride_px=64)
    assert torch.cuda.mem_get_info()[0] == free


class Described:
    """An array of a library of its own: the interface and nothing else."""

    def __init__(self, array: Any, stream: int | None) -> None:
        self._array = array
        told = dict(array.__cuda_array_interface__)
        self.__cuda_array_interface__ = {**told, "version": 3, "stream": stream}


def test_arrays_of_an_unknown_library(gpu: Any) -> None:
    mask = np.random.default_rng(5).integers(0, 2, (512, 512)).astype(np.uint8)
    held = gpu.put(mask)
    out = tumor_count(Described(held, 1), patch_px=4, stride_px=4)
    want = tumor_count(mask, patch_px=4, stride_px=4)
    back = gpu.lib.from_dlpack(out)
    assert gpu.pointer(back) == out.__cuda_array_interface__["data"][0]
    del out
    np.testing.assert_array_equal(gpu.get(back), want)


def test_what_cannot_run_there_is_refused(gpu: Any) -> None:
    mask = np.ones((64, 64), np.uint8)
    rgb = gpu.put(np.ones((64, 64, 3), np.uint8))
    with pytest.raises(DeviceError, match="focus") as caught:
        focus(rgb, gpu.put(mask), patch_px=8, stride_px=8)
    assert caught.value.code == "NO_TWIN"
    with pytest.raises(ArrayError, match="some on the host"):
        focus(rgb, mask, patch_px=8, stride_px=8)
    with pytest.raises(ArrayError, match="C-contiguous"):
        tumor_count(gpu.put(mask)[:, ::2], patch_px=8, stride_px=8)
    with pytest.raises(ArrayError, match='device="cpu"'):
        tumor_count(gpu.put(mask), patch_px=8, stride_px=8, device="cpu")
