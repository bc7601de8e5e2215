# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for a GPU, its kernels, and the libraries whose arrays lie on it.

The memory is the host's, so the stand-in twins compute what the CPU's kernels do, from
the pointers they were given: a wrong pointer, shape or order gives other bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.kernels.device_array import DeviceArray


def at(pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array that lies at an address."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if count == 0:
        return np.zeros(shape, dtype)
    memory = (ctypes.c_char * count).from_address(pointer)
    return np.frombuffer(memory, dtype).reshape(shape)


Make = Callable[[tuple[int, ...], Any], np.ndarray]


def dirty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """New memory with something in it."""
    return np.full(shape, 0x5A, dtype)


class FakeCuda(types.SimpleNamespace):
    """`_core.cuda` with its twins; `calls` is everything that was asked of it."""

    TO_HOST = 2
    SLIDE_WORDS = 15

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.memory: dict[int, np.ndarray] = {}
        self.count = count

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def devices(self) -> list[dict[str, Any]]:
        self.calls.append(("devices",))
        return [{"name": "a stand-in"}] * self.count

    def allocate(self, size: int, device: int) -> int:
        block = np.full(size, 0x5A, np.uint8)
        self.memory[block.ctypes.data] = block
        self.calls.append(("allocate", size, device))
        return block.ctypes.data

    def release(self, pointer: int) -> None:
        del self.memory[pointer]
        self.calls.append(("release", pointer))

    def synchronize(self, stream: int, device: int) -> None:
        self.calls.append(("synchronize", stream, device))

    def tumor_count(self, mask, n, height, width, patch, stride, out, stream) -> None:
        self.calls.append(("tumor_count", mask, out, stream))
        pixels = at(mask, (n, height, width), np.uint8)
        counts = np.stack([_core.tumor_count(p, patch, stride) for p in pixels])
        at(out, counts.shape, np.uint32)[:] = counts

    def tissue_mask(self, rgb, n, height, width, white, out, stream) -> None:
        self.calls.append(("tissue_mask", rgb, out, stream))
        pictures = at(rgb, (n, height, width, 3), np.uint8)
        masks = np.stack([_core.tissue_mask(p, white) for p in pictures])
        at(out, masks.shape, np.uint8)[:] = masks

    def stain_unmix(self, rgb, pixels, white, stains, out, stream) -> None:
        self.calls.append(("stain_unmix", rgb, out, stream))
        picture = at(rgb, (1, pixels, 3), np.uint8)
        at(out, (pixels, 3), np.float32)[:] = _core.stain_unmix(picture, white, stains)[
            0
        ]

    def normalize_batch(
        self, rgb, n, height, width, mean, std, half, out, stream
    ) -> None:
        self.calls.append(("normalize_batch", rgb, out, stream))
        pictures = at(rgb, (n, height, width, 3), np.uint8)
        planes = _core.normalize_batch(pictures.copy(), mean, std, half)
        at(out, planes.shape, planes.dtype)[:] = planes

    def resample_scratch_bytes(self, x, y) -> int:
        return 4 * (x.count + y.count)

    def resample(self, rgb, n, height, width, x, y, out, scratch, size, stream) -> None:
        self.calls.append(("resample", rgb, out, stream))
        pictures = at(rgb, (n, height, width, 3), np.uint8)
        means = _core.resample(pictures.copy(), x, y)
        at(out, means.shape, np.uint8)[:] = means
        at(scratch, (size,), np.uint8)[:] = 0x77  # nobody else's

    def copy(self, to: int, from_: int, size: int, kind: int, stream: int = 0) -> None:
        assert kind == self.TO_HOST
        self.calls.append(("copy", from_, stream))
        ctypes.memmove(to, from_, size)

    def constraint_select_scratch_bytes(
        self, patches: int, slides: int, device: int
    ) -> int:
        self.calls.append(("scratch_bytes", device))
        return 1000 + patches

    def constraint_select(
        self,
        logits,
        tumor_px,
        offsets,
        labels,
        limits,
        neighbors,
        action,
        class_id,
        admissible,
        slides,
        fault,
        scratch,
        scratch_bytes,
        stream,
    ) -> None:
        self.calls.append(("constraint_select", logits, action, stream))
        n = int(offsets[-1])
        at(scratch, (scratch_bytes,), np.uint8)[:] = 0x3C
        scores, px = at(logits, (n, 4), np.float32), at(tumor_px, (n,), np.uint32)
        bad = np.flatnonzero(~np.isfinite(scores).all(1))
        at(fault, (1,), np.int64)[:] = bad[0] if bad.size else -1
        if bad.size:
            return
        found = _core.constraint_select(
            scores.copy(), px.copy(), offsets, labels, limits, neighbors, 1
        )
        at(action, (n,), np.uint8)[:] = found["action"]
        at(class_id, (n,), np.int8)[:] = found["class_id"]
        at(admissible, (n,), np.uint8)[:] = found["admissible"]
        rows = at(slides, (len(labels), self.SLIDE_WORDS), np.int64)
        rows[:] = np.column_stack(
            [
                found[name]
                for name in (
                    "class_px",
                    "excess_px",
                    "pushed_px",
                    "missing_px",
                    "pulled_px",
                    "reach",
                )
            ]
        )

    def membrane_label_scratch_bytes(
        self, n: int, height: int, width: int, device: int
    ) -> int:
        self.calls.append(("scratch_bytes", device))
        return 64 + n * height * width

    def membrane_label(
        self,
        mask,
        density,
        n,
        height,
        width,
        nuclei,
        nuclei_count,
        scratch,
        scratch_bytes,
        stream,
    ) -> Any:
        self.calls.append(("membrane_label", mask, scratch, stream))
        at(scratch, (scratch_bytes,), np.uint8)[:] = 0x3C
        points = at(nuclei, (nuclei_count, 3), np.int32) if nuclei else None
        assert points is None or not points[:, 0].any()
        tile = _core.membrane_label(
            at(mask, (height, width), np.uint8),
            at(density, (height, width), np.uint8) if density else None,
            None if points is None else points[:, 1:].copy(),
        )

        def tiles(device: int) -> list[Any]:
            self.calls.append(("tiles", device))
            return [tile]

        return types.SimpleNamespace(tiles=tiles)


class FakeTensor:
    """A torch tensor on a GPU; `dtype` and `layout` print as torch's do."""

    is_cuda = True
    layout = "strided"

    def __init__(self, array: np.ndarray, device: int = 0, grad: bool = False) -> None:
        self.array = array
        self.device = types.SimpleNamespace(type="cuda", index=device)
        self.dtype = f"torch.{array.dtype}"
        self.shape = array.shape
        self.requires_grad = grad

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AssertionError("torch does not say its stream there")

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def view(self, dtype: str) -> FakeTensor:
        return FakeTensor(self.array.view(dtype), self.device.index)

    def __getitem__(self, key: Any) -> FakeTensor:
        return FakeTensor(self.array[key], self.device.index)

    def __setitem__(self, key: Any, values: Any) -> None:
        self.array[key] = getattr(values, "array", values)


def fake_torch(streams: dict[int, int], make: Make = dirty) -> types.ModuleType:
    """A module with what her2fast asks of torch; `streams` by device."""
    torch: Any = types.ModuleType("torch")
    torch.Tensor = FakeTensor
    torch.strided = "strided"
    for name in ("uint8", "uint32", "float16", "float32", "int8", "int32", "int64"):
        setattr(torch, name, name)
    torch.cuda = types.SimpleNamespace(
        current_stream=lambda device: types.SimpleNamespace(cuda_stream=streams[device])
    )
    torch.empty = lambda shape, *, dtype, device: FakeTensor(
        make(shape, dtype), int(device.removeprefix("cuda:"))
    )
    return torch


class FakeCupyArray:
    """A CuPy array; `current` is the device that `fake_cupy` has set."""

    current: Sequence[int] = (0,)

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        self.array = array
        self.device = types.SimpleNamespace(id=device)
        self.data = types.SimpleNamespace(ptr=array.ctypes.data)
        self.shape, self.dtype, self.flags = array.shape, array.dtype, array.flags

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"version": 3}

    def view(self, dtype: Any) -> FakeCupyArray:
        return FakeCupyArray(self.array.view(dtype), self.device.id)

    def __getitem__(self, key: Any) -> FakeCupyArray:
        return FakeCupyArray(self.array[key], self.device.id)

    def __setitem__(self, key: Any, values: Any) -> None:
        assert self.current[0] == self.device.id
        self.array[key] = getattr(values, "array", values)


def fake_cupy(streams: dict[int, int], make: Make = dirty) -> types.ModuleType:
    """A module with what her2fast asks of CuPy; streams and memory of the device."""
    cupy: Any = types.ModuleType("cupy")
    current = [0]
    FakeCupyArray.current = current

    @contextlib.contextmanager
    def device(index: int) -> Iterator[None]:
        before, current[0] = current[0], index
        yield
        current[0] = before

    cupy.ndarray = FakeCupyArray
    cupy.cuda = types.SimpleNamespace(
        Device=device,
        get_current_stream=lambda: types.SimpleNamespace(ptr=streams[current[0]]),
    )
    cupy.empty = lambda shape, dtype: FakeCupyArray(make(shape, dtype), current[0])
    return cupy


@dataclass
class Described:
    """Numba's kind: the interface with a stream, the device by DLPack."""

    array: np.ndarray
    stream: int | None = None
    device: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        contiguous = self.array.flags.c_contiguous
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "strides": None if contiguous else self.array.strides,
            "version": 3,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device


@dataclass
class Exported:
    """DLPack alone; `asked` is the streams it was asked to be ready on."""

    array: np.ndarray
    device: int = 0
    asked: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.asked.append(stream)
        array = np.ascontiguousarray(self.array)
        return _core.make_dlpack(
            array.ctypes.data,
            array.shape,
            [step // array.itemsize for step in array.strides],
            array.dtype.str,
            (2, self.device),
            array,
            False,
        )


def host(out: Any) -> np.ndarray:
    """What a stand-in or a `DeviceArray` holds."""
    if isinstance(out, DeviceArray):
        told = out.__cuda_array_interface__
        if 0 in told["shape"]:
            return np.zeros(told["shape"], told["typestr"])
        span = sum((n - 1) * s for n, s in zip(out.shape, out.strides, strict=True))
        memory = at(told["data"][0], (span + out.dtype.itemsize,), np.uint8)
        return np.ndarray(out.shape, out.dtype, memory, 0, out.strides)
    return np.asarray(out.array)
