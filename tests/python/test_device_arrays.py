# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU, by stand-ins: pointers, streams, outputs, lifetimes, refusals."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cuda import Described, Exported, FakeCuda, FakeCupyArray, FakeTensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_calls import CALLS, parts

from her2fast import _core
from her2fast.errors import ArrayError, DeviceError
from her2fast.kernels import (
    constraint_select,
    device_arrays,
    focus,
    normalize_batch,
    stain_unmix,
    tissue_mask,
    tumor_count,
)
from her2fast.kernels.device_array import DeviceArray
from her2fast.kernels.device_arrays import DeviceCall
from her2fast.kernels.membrane import membrane_label
from her2fast.kernels.resample import resample

TWINS: dict[str, tuple[str, Callable[..., Any]]] = {
    "tumor_count": (
        "mask",
        lambda m, **k: tumor_count(m, patch_px=7, stride_px=3, **k),
    ),
    "tissue_mask": (
        "rgb",
        lambda r, **k: tissue_mask(r, white_rgb=(250, 249, 248), **k),
    ),
    "stain_unmix": (
        "rgb",
        lambda r, **k: stain_unmix(r, white_rgb=(250, 249, 248), **k),
    ),
    "normalize_batch": (
        "batch",
        lambda r, **k: normalize_batch(r, mean=(0.1, 0.2, 0.3), std=(1, 2, 0.5), **k),
    ),
    "resample": ("batch", lambda r, **k: resample(r, step=(2, 3), size_px=(9, 8), **k)),
}
#: How each library holds an array, and the class of what comes back.
KINDS: dict[str, tuple[Callable[..., Any], type]] = {
    "torch": (FakeTensor, FakeTensor),
    "cupy": (FakeCupyArray, FakeCupyArray),
    "interface": (Described, DeviceArray),
    "dlpack": (Exported, DeviceArray),
}
MASK = np.random.default_rng(5).integers(0, 3, (40, 50)).astype(np.uint8)
RGB = np.random.default_rng(6).integers(0, 256, (40, 50, 3), np.uint8)
BATCH = np.stack([RGB, RGB[::-1]])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    cuda = FakeCuda(count=2)
    device_arrays._device_count.cache_clear()
    monkeypatch.setattr(_core, "cuda", cuda)
    monkeypatch.setitem(sys.modules, "torch", fake_cuda.fake_torch({0: 0, 1: 7001}))
    monkeypatch.setitem(sys.modules, "cupy", fake_cuda.fake_cupy({0: 0, 1: 7002}))
    yield cuda
    device_arrays._device_count.cache_clear()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("stem", sorted(TWINS))
@pytest.mark.parametrize("device", [0, 1])
def test_the_twin_gets_the_pointers_and_the_stream(
    gpu: FakeCuda, stem: str, kind: str, device: int
) -> None:
    name, run = TWINS[stem]
    array = {"mask": MASK, "rgb": RGB, "batch": BATCH}[name]
    hold, out_type = KINDS[kind]
    held = hold(array, device=device)
    out = run(held)
    assert type(out) is out_type
    ((got, to, stream),) = gpu.named(stem)
    assert got == array.ctypes.data
    assert to == fake_cuda.host(out).ctypes.data
    assert fake_cuda.host(out).flags.c_contiguous
    # The null stream of torch and CuPy is 0; CUDA calls it 1 where it must be clear.
    current = {"torch": (1, 7001), "cupy": (1, 7002)}.get(kind, (1, 1))
    assert stream == current[device]
    want = run(array)
    assert fake_cuda.host(out).dtype == want.dtype
    assert fake_cuda.host(out).tobytes() == want.tobytes()
    assert gpu.named("synchronize") == []
    where = out.device
    assert getattr(where, "index", getattr(where, "id", where)) == device


def test_the_stand_in_of_cupy_is_like_cupy(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy itself, its array over memory of the host, but for streams and outputs."""
    monkeypatch.delitem(sys.modules, "cupy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a machine without a driver
        cupy = pytest.importorskip("cupy")
    memory = cupy.cuda.UnownedMemory(MASK.ctypes.data, MASK.nbytes, MASK, 0)
    array = cupy.ndarray(
        MASK.shape, np.uint8, memptr=cupy.cuda.MemoryPointer(memory, 0)
    )
    fake = fake_cuda.fake_cupy({0: 0})
    monkeypatch.setattr(cupy.cuda, "Device", fake.cuda.Device)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: cupy.cuda.Stream.ptds)
    monkeypatch.setattr(cupy, "empty", fake.empty)
    monkeypatch.setattr(cupy, "ndarray", (cupy.ndarray, FakeCupyArray))
    out = count(array)
    ((got, _, stream),) = gpu.named("tumor_count")
    assert (got, stream) == (MASK.ctypes.data, 2)
    assert fake_cuda.host(out).tobytes() == count(MASK).tobytes()
    with pytest.raises(ArrayError, match="contiguous"):
        count(array[:, ::2])


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_selections_come_back_in_kind(gpu: FakeCuda, kind: str, seed: int) -> None:
    hold, out_type = KINDS[kind]
    table = CALLS["constraint_select"].make(np.random.default_rng(seed))
    big = {name: hold(table[name], device=1) for name in ("logits", "tumor_px")}
    gpu.calls.clear()
    got = constraint_select(**{**table, **big})
    ((logits, _, stream),) = gpu.named("constraint_select")
    assert logits == table["logits"].ctypes.data
    assert gpu.named("synchronize") == [(stream, 1)]
    assert gpu.named("scratch_bytes") == [(1,)]
    assert {device for _, device in gpu.named("allocate")} <= {1}
    want = constraint_select(**table)
    for name, array in vars(want).items():
        out = getattr(got, name)
        assert type(out) is out_type
        assert fake_cuda.host(out).dtype == array.dtype
        assert fake_cuda.host(out).tobytes() == array.tobytes()


def test_selections_have_the_errors_of_the_cpu(gpu: FakeCuda) -> None:
    logits, px = np.zeros((3, 4), np.float32), np.ones(3, np.uint32)
    logits[1, 2] = np.nan
    cases = [
        (logits, px, [0, 3], [0], "need finite logits, got another at patch 1"),
        (logits, px[:2], [0, 3], [0], r"need logits of shape \(patches, 4\)"),
        (logits[:, :3].copy(), px, [0, 3], [0], r"need logits of shape \(patches, 4\)"),
        (logits, px, [0, 2], [0], "need 2 offsets from 0 to 3"),
        (logits, px, [3], [0], "need 2 offsets from 0 to 3"),
    ]
    for scores, weights, offsets, labels, words in cases:
        with pytest.raises(ValueError, match=words):
            constraint_select(FakeTensor(scores), FakeTensor(weights), offsets, labels)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tiles_of_masks_on_a_gpu(gpu: FakeCuda, kind: str, seed: int) -> None:
    hold, _ = KINDS[kind]
    call = CALLS["membrane_label"]
    given_ = call.make(np.random.default_rng(seed))
    if kind not in ("torch", "cupy"):
        with pytest.raises(ArrayError, match="array of torch or CuPy"):
            call.run(**{name: hold(array) for name, array in given_.items()})
        given_["nuclei"] = None
    held = {k: None if v is None else hold(v, device=1) for k, v in given_.items()}
    gpu.calls.clear()
    got = call.run(**held)
    assert gpu.named("membrane_label")[0][0] == given_["mask"].ctypes.data
    assert gpu.named("scratch_bytes") == gpu.named("tiles") == [(1,)]
    for one, other in zip(parts(got), parts(call.run(**given_)), strict=True):
        assert one.tobytes() == other.tobytes()
    bare = membrane_label(held["mask"])
    assert (bare.height, bare.width) == given_["mask"].shape
    assert not bare.has_density


def test_tiles_have_the_errors_of_the_cpu(gpu: FakeCuda) -> None:
    mask = FakeTensor(MASK)
    for bad, run in (
        ("need mask of 2 dimensions", lambda: membrane_label(FakeTensor(RGB))),
        ("need a density of", lambda: membrane_label(mask, FakeTensor(MASK[:4]))),
        (
            r"need nuclei of shape \(n, 2\)",
            lambda: membrane_label(mask, nuclei=FakeTensor(np.zeros(4, np.int32))),
        ),
    ):
        with pytest.raises(ValueError, match=bad):
            run()
    assert gpu.named("membrane_label") == []


def test_a_white_point_out_of_range(gpu: FakeCuda) -> None:
    for run in (tissue_mask, stain_unmix):
        with pytest.raises(ValueError, match="0 to 255 in every channel, got 256"):
            run(FakeTensor(RGB), white_rgb=(255, 256, 255))


@pytest.mark.parametrize("device", [0, 1])
def test_a_default_stream_is_that_of_the_arrays_gpu(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch, device: int
) -> None:
    """Each GPU's default stream has the number 1: the device tells them apart."""
    monkeypatch.setitem(sys.modules, "torch", fake_cuda.fake_torch({0: 0, 1: 0}))
    table = CALLS["constraint_select"].make(np.random.default_rng(3))
    for hold in (FakeTensor, Described):
        gpu.calls.clear()
        big = {
            name: hold(table[name], device=device) for name in ("logits", "tumor_px")
        }
        constraint_select(**{**table, **big})
        assert gpu.named("constraint_select")[0][2] == 1
        assert gpu.named("synchronize") == [(1, device)]
        assert gpu.named("scratch_bytes") == [(device,)]
    assert {place for _, place in gpu.named("allocate")} == {device}
    gpu.calls.clear()
    membrane_label(FakeTensor(MASK, device))
    assert gpu.named("scratch_bytes") == gpu.named("tiles") == [(device,)]
    out = count(Described(MASK, device=device))
    out.__dlpack__(stream=9)
    first = Described(MASK, 11, device)
    other = Described(MASK, 1, device)
    call = DeviceCall("tumor_count", None, first, other)
    call.take(other, np.uint8, "mask")
    assert gpu.named("synchronize") == [(1, device)] * 2


@pytest.mark.parametrize("stream", [1, 2, 4711])
def test_an_array_that_names_its_stream_is_worked_on_there(
    gpu: FakeCuda, stream: int
) -> None:
    out = tumor_count(Described(MASK, stream), patch_px=4, stride_px=4)
    assert gpu.named("tumor_count")[0][2] == stream
    assert out.__cuda_array_interface__["stream"] == out.stream == stream
    assert gpu.named("synchronize") == []


def test_an_array_on_another_stream_is_waited_for(gpu: FakeCuda) -> None:
    first, second, third = Described(RGB, 11), Described(MASK, 12), Described(MASK)
    call = DeviceCall("tumor_count", None, first, second, None, third)
    for array in (first, second, third):
        call.take(array, np.uint8, "array")
    assert call.stream == 11
    assert gpu.named("synchronize") == [(12, 0)]
    exported = Exported(MASK)
    DeviceCall("tumor_count", None, first, exported).take(exported, np.uint8, "mask")
    assert exported.asked == [11]


def test_stream_0_is_refused(gpu: FakeCuda) -> None:
    with pytest.raises(ArrayError, match="stream is not 0") as caught:
        tumor_count(Described(MASK, 0), patch_px=4, stride_px=4)
    assert caught.value.code == "ARRAY_KIND"


@pytest.mark.parametrize(
    "stem", sorted(set(CALLS) - set(TWINS) - {"constraint_select", "membrane_label"})
)
def test_a_kernel_without_a_twin_says_so_and_copies_nothing(
    gpu: FakeCuda, stem: str
) -> None:
    call = CALLS[stem]
    given = call.make(np.random.default_rng(1))
    small = {"offsets", "labels"}
    held = {k: v if k in small else FakeTensor(v) for k, v in given.items()}
    with pytest.raises(DeviceError, match=f"{stem}: has no CUDA kernel") as caught:
        call.run(**held)
    assert caught.value.code == "NO_TWIN"
    assert gpu.calls == []


def test_a_library_without_the_twin_says_so(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "cuda", object())
    with pytest.raises(DeviceError, match="tumor_count: has no CUDA kernel"):
        tumor_count(FakeTensor(MASK), patch_px=4, stride_px=4)


def count(array: Any, **more: Any) -> Any:
    return tumor_count(array, patch_px=4, stride_px=4, **more)


class NoDevice:
    __cuda_array_interface__ = Described(MASK).__cuda_array_interface__


class Masked(Described):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**super().__cuda_array_interface__, "mask": self}


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "cpu": (
        lambda: count(FakeTensor(MASK), device="cpu"),
        "ARRAY_DEVICE",
        'device="cpu"',
    ),
    "other": (
        lambda: count(FakeTensor(MASK), device="cuda:1"),
        "ARRAY_DEVICE",
        "cuda:0",
    ),
    "mixed": (
        lambda: focus(FakeTensor(RGB), MASK, patch_px=4, stride_px=4),
        "ARRAY_DEVICE",
        "some on the host",
    ),
    "two libraries": (
        lambda: DeviceCall("tumor_count", None, FakeTensor(RGB), FakeCupyArray(MASK)),
        "ARRAY_DEVICE",
        "Torch on cuda:0 and Cupy on cuda:0",
    ),
    "two devices": (
        lambda: DeviceCall("tumor_count", None, FakeTensor(RGB), FakeTensor(MASK, 1)),
        "ARRAY_DEVICE",
        "Torch on cuda:0 and Torch on cuda:1",
    ),
    "no device": (lambda: count(NoDevice()), "ARRAY_DEVICE", "which GPU"),
    "torch gaps": (
        lambda: count(FakeTensor(MASK[:, ::2])),
        "ARRAY_LAYOUT",
        "contiguous",
    ),
    "cupy gaps": (lambda: count(FakeCupyArray(MASK.T)), "ARRAY_LAYOUT", "contiguous"),
    "other gaps": (
        lambda: count(Described(MASK[2:, 2:])),
        "ARRAY_LAYOUT",
        "contiguous",
    ),
    "grad": (lambda: count(FakeTensor(MASK, grad=True)), "ARRAY_GRAD", "detach"),
    "dtype": (
        lambda: count(FakeTensor(MASK.view("i1"))),
        "ARRAY_DTYPE",
        "uint8, got int8",
    ),
    "bool rgb": (
        lambda: tissue_mask(Described(RGB.view(bool))),
        "ARRAY_DTYPE",
        "rgb.*got bool",
    ),
    "masked": (lambda: count(Masked(MASK)), "ARRAY_KIND", "masked"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_would_need_a_copy_is_refused(gpu: FakeCuda, case: str) -> None:
    run, code, words = REFUSED[case]
    with pytest.raises(ArrayError, match=words) as caught:
        run()
    assert caught.value.code == code
    assert gpu.named("tumor_count") == gpu.named("synchronize") == []


def test_a_bfloat16_or_sparse_tensor_is_refused(gpu: FakeCuda) -> None:
    tensor = FakeTensor(MASK)
    tensor.dtype = "torch.bfloat16"
    with pytest.raises(ArrayError, match="a type that NumPy has") as caught:
        count(tensor)
    assert caught.value.code == "ARRAY_KIND"
    tensor.layout = "sparse_coo"
    with pytest.raises(ArrayError, match="dense"):
        count(tensor)


def test_device_may_be_said_where_it_is_true(gpu: FakeCuda) -> None:
    for device in (None, "cuda", "cuda:1"):
        assert count(FakeTensor(MASK, 1), device=device).device.index == 1


def test_shapes_and_grids_are_checked_first(gpu: FakeCuda) -> None:
    for bad, run in (
        ("need mask of 2 dimensions", lambda: count(FakeTensor(RGB))),
        (r"need rgb of shape \(H, W, 3\)", lambda: tissue_mask(FakeTensor(MASK))),
        (r"need rgb of shape \(H, W, 3\)", lambda: stain_unmix(FakeTensor(MASK))),
        (
            r"need rgb of shape \(n, H, W, 3\)",
            lambda: normalize_batch(FakeTensor(RGB), mean=(0, 0, 0), std=(1, 1, 1)),
        ),
        (
            "patch_px=0",
            lambda: tumor_count(FakeTensor(MASK), patch_px=0, stride_px=1),
        ),
    ):
        with pytest.raises(ValueError, match=bad):
            run()
    assert gpu.calls == []


def test_bool_masks_are_bytes(gpu: FakeCuda) -> None:
    out = count(FakeTensor(MASK > 0))
    assert fake_cuda.host(out).tobytes() == count(MASK).tobytes()


def test_nothing_is_queued_for_an_empty_output(gpu: FakeCuda) -> None:
    out = count(Described(MASK[:2]))
    assert out.shape == (0, 12)
    assert out.__cuda_array_interface__["data"][0] == 0
    assert gpu.named("allocate") == gpu.named("tumor_count") == []
    assert tissue_mask(FakeTensor(RGB[:0])).shape == (0, 50)
    assert gpu.named("tissue_mask") == []


def test_a_device_array_frees_its_memory_once_and_keeps_what_it_reads(
    gpu: FakeCuda,
) -> None:
    mask = Exported(MASK.copy())
    before = owners(mask)
    out = count(mask)
    pointer = out.__cuda_array_interface__["data"][0]
    during = owners(mask)
    del out
    after = owners(mask)
    # The capsule that came in is held until the output dies.
    assert (during, after) == (before + 1, before)
    assert gpu.named("release") == [(pointer,)]


def test_outputs_of_one_call_do_not_hold_each_other(gpu: FakeCuda) -> None:
    call = DeviceCall("tumor_count", None, Described(MASK))
    first, pointer = call.empty((4,), np.uint8)
    second, _ = call.empty((4,), np.uint8)
    assert first.__cuda_array_interface__["data"][0] == pointer
    del first
    gc.collect()
    assert gpu.named("release") == [(pointer,)]
    del second


def owners(mask: Exported) -> int:
    gc.collect()  # `ndarray.ctypes` leaves a cycle
    return sys.getrefcount(mask.array)


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0)])
def test_dlpack_of_a_device_array_keeps_it_alive(
    gpu: FakeCuda, version: tuple[int, int] | None
) -> None:
    out = count(Described(MASK, 5))
    told = out.__cuda_array_interface__
    view = _core.read_dlpack(out.__dlpack__(stream=5, max_version=version))
    assert (view.pointer, view.shape) == (told["data"][0], out.shape)
    assert (view.typestr, view.device) == ("<u4", (2, 0))
    assert view.device == out.__dlpack_device__()
    unused = out.__dlpack__(stream=-1)
    del out
    gc.collect()
    assert gpu.named("release") == []
    del view
    gc.collect()
    assert gpu.named("release") == []
    del unused
    gc.collect()
    assert gpu.named("release") == [(told["data"][0],)]


def test_dlpack_of_a_device_array_orders_the_streams(gpu: FakeCuda) -> None:
    out = count(Described(MASK, 5))
    for stream, waits in ((5, 0), (-1, 0), (None, 1), (1, 1), (9, 1)):
        gpu.calls.clear()
        out.__dlpack__(stream=stream)
        assert gpu.named("synchronize") == [(5, 0)] * waits
    with pytest.raises(BufferError, match="0"):
        out.__dlpack__(stream=0)
    with pytest.raises(BufferError, match="copy"):
        out.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="copy"):
        out.__dlpack__(dl_device=(1, 0))


def test_outputs_go_into_the_next_kernel(gpu: FakeCuda) -> None:
    tissue = tissue_mask(Described(RGB, 6))
    counts = count(tissue)
    assert counts.stream == 6
    assert fake_cuda.host(counts).tobytes() == count(tissue_mask(RGB)).tobytes()
    assert repr(counts) == "DeviceArray((10, 12), uint32, cuda:0)"


def test_one_gpu_needs_no_name(gpu: FakeCuda) -> None:
    gpu.count = 1
    for _ in range(3):
        assert fake_cuda.host(count(NoDevice())).tobytes() == count(MASK).tobytes()
    assert len(gpu.named("devices")) == 1
