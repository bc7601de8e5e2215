# SPDX-License-Identifier: Apache-2.0
"""Arrays on an NVIDIA GPU: where they lie, on which stream, who makes the outputs.

A kernel runs on the caller's current stream of the library whose arrays came in, and
its outputs are made by that library: nothing is copied and nothing waits. Arrays of
unknown libraries are read by ``__cuda_array_interface__`` or DLPack; outputs are then
`DeviceArray`.

Neither torch nor CuPy is imported: who passes their arrays has imported them. Rules of
streams: https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html (version 3),
https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import ArrayError
from her2fast.kernels.arrays import (
    DLPACK_CUDA,
    AnyArray,
    is_cupy,
    is_torch,
    no_twin,
)
from her2fast.kernels.device_array import LEGACY_STREAM, DeviceArray, DeviceMemory

__all__ = [
    "DeviceCall",
    "DeviceView",
]


@dataclass(frozen=True)
class DeviceView:
    """What a kernel needs of an array on a GPU; holds on to its memory."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object


class Library(Protocol):
    """A library whose arrays came in: it makes the outputs and knows the stream."""

    device: int

    def stream(self) -> int:
        """The caller's current stream on the device."""
        ...

    def view(self, array: AnyArray, name: str) -> DeviceView:
        """The array where it lies, ordered before the stream's work; C-contiguous."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """A new array of this library, which the stream may write to."""
        ...

    def address(self, out: Any) -> int:
        """Of an array that `empty` made."""
        ...

    def hold(self, scratch: Any) -> None:
        """Keeps what `empty` made until the stream has passed."""
        ...

    def reinterpret(self, out: Any, dtype: npt.DTypeLike) -> Any:
        """The same memory as another type, along the last axis."""
        ...

    def columns(self, out: Any, first: int, count: int | None = None) -> Any:
        """Columns of a table in its memory; one as an array of one axis."""
        ...

    def fill(self, out: Any, columns: int | slice, values: Any) -> None:
        """Writes columns of a table on the stream."""
        ...


class DeviceCall:
    """One call of a kernel's CUDA twin on the arrays that came in.

    Parameters
    ----------
    stem : str
        Of the kernel.
    device : str, optional
        As given by the caller: "cuda", "cuda:N", or where the arrays lie.
    *arrays
        Arrays on one GPU, of one library; None stands for one left out.

    Raises
    ------
    her2fast.errors.DeviceError
        NO_TWIN.
    her2fast.errors.ArrayError
        ARRAY_DEVICE: another device, or several libraries.
    """

    def __init__(self, stem: str, device: str | None, *arrays: AnyArray) -> None:
        self.twin: Any = getattr(_core.cuda, stem, None)
        if self.twin is None:
            raise no_twin(stem)
        given = [array for array in arrays if array is not None]
        libraries = [_library(array) for array in given]
        self.library = libraries[0]
        for other in libraries[1:]:
            if (type(other), other.device) != (type(self.library), self.library.device):
                raise ArrayError(
                    f"{stem}: need all arrays on one GPU and of one library, got "
                    f"{_said(self.library)} and {_said(other)}",
                    "ARRAY_DEVICE",
                )
        if device not in (None, "cuda", f"cuda:{self.library.device}"):
            raise ArrayError(
                f"{stem}: the arrays lie on cuda:{self.library.device}, got "
                f'device="{device}"; move them first',
                "ARRAY_DEVICE",
            )
        self.stream = self.library.stream()
        self._scratch: list[Any] = []

    def take(
        self, array: AnyArray, dtype: npt.DTypeLike, name: str, *, mask: bool = False
    ) -> DeviceView:
        """An array of this call; with `mask`, bool passes for uint8."""
        view = self.library.view(array, name)
        wanted = np.dtype(dtype)
        if view.dtype != wanted and not (mask and view.dtype == np.bool_):
            raise ArrayError(
                f"need {name} as an array of {wanted}, got {view.dtype}", "ARRAY_DTYPE"
            )
        return view

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[Any, int]:
        """An output in the kind of what came in, and its address."""
        out = self.library.empty(shape, dtype)
        return out, self.library.address(out)

    def scratch(self, size: int) -> int:
        """Address of memory for a kernel that is not waited for; before its outputs.

        It is this call's until the kernel is queued, and from then on the stream's.
        """
        memory, address = self.empty((size,), np.uint8)
        self._scratch.append(memory)
        self.library.hold(memory)
        return address


def _said(library: Library) -> str:
    return f"{type(library).__name__.strip('_')} on cuda:{library.device}"


def _library(array: AnyArray) -> Library:
    if is_torch(array):
        return _Torch(array.device.index)
    if is_cupy(array):
        return _Cupy(array.device.id)
    return _Foreign(array)


def _check_layout(contiguous: bool, name: str) -> None:
    if not contiguous:
        raise ArrayError(
            f"need {name} C-contiguous on the GPU, got one with gaps or another order; "
            "make it contiguous first",
            "ARRAY_LAYOUT",
        )


def _explicit(stream: int) -> int:
    return stream or LEGACY_STREAM


class _Torch:
    def __init__(self, device: int) -> None:
        self.device = device
        self._torch: Any = sys.modules["torch"]

    def stream(self) -> int:
        return _explicit(self._torch.cuda.current_stream(self.device).cuda_stream)

    def view(self, array: AnyArray, name: str) -> DeviceView:
        if array.requires_grad:
            raise ArrayError(
                f"need {name} without gradient, got a tensor that requires grad; "
                "kernels have no derivatives: pass tensor.detach()",
                "ARRAY_GRAD",
            )
        if array.layout != self._torch.strided:
            raise ArrayError(
                f"need {name} as a dense tensor, got {array.layout}", "ARRAY_KIND"
            )
        _check_layout(array.is_contiguous(), name)
        kind = str(array.dtype).removeprefix("torch.")
        try:
            dtype = np.dtype(kind)
        except TypeError as error:
            raise ArrayError(
                f"need {name} of a type that NumPy has, got {array.dtype}", "ARRAY_KIND"
            ) from error
        return DeviceView(array.data_ptr(), tuple(array.shape), dtype, array)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        kind = getattr(self._torch, np.dtype(dtype).name)
        return self._torch.empty(shape, dtype=kind, device=f"cuda:{self.device}")

    def address(self, out: Any) -> int:
        return int(out.data_ptr())

    def hold(self, scratch: Any) -> None:
        """Its allocator gives memory of a stream to later work of that stream alone."""

    def reinterpret(self, out: Any, dtype: npt.DTypeLike) -> Any:
        return out.view(getattr(self._torch, np.dtype(dtype).name))

    def columns(self, out: Any, first: int, count: int | None = None) -> Any:
        return _sliced(out, first, count)

    def fill(self, out: Any, columns: int | slice, values: Any) -> None:
        out[:, columns] = values


class _Cupy:
    def __init__(self, device: int) -> None:
        self.device = device
        self._cupy: Any = sys.modules["cupy"]

    def stream(self) -> int:
        with self._cupy.cuda.Device(self.device):
            return _explicit(self._cupy.cuda.get_current_stream().ptr)

    def view(self, array: AnyArray, name: str) -> DeviceView:
        _check_layout(array.flags.c_contiguous, name)
        return DeviceView(array.data.ptr, tuple(array.shape), array.dtype, array)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        with self._cupy.cuda.Device(self.device):
            return self._cupy.empty(shape, dtype)

    def address(self, out: Any) -> int:
        return int(out.data.ptr)

    def hold(self, scratch: Any) -> None:
        """As torch: its pool has an arena a stream."""

    def reinterpret(self, out: Any, dtype: npt.DTypeLike) -> Any:
        return out.view(dtype)

    def columns(self, out: Any, first: int, count: int | None = None) -> Any:
        return _sliced(out, first, count)

    def fill(self, out: Any, columns: int | slice, values: Any) -> None:
        with self._cupy.cuda.Device(self.device):
            out[:, columns] = values


def _sliced(table: Any, first: int, count: int | None) -> Any:
    return table[:, first if count is None else slice(first, first + count)]


class _Foreign:
    """Any library: the stream is the one its array names, or the legacy default."""

    def __init__(self, array: AnyArray) -> None:
        self.device = _device_of(array)
        self._stream = _explicit(_interface(array).get("stream") or 0)
        self._held: list[object] = []

    def stream(self) -> int:
        return self._stream

    def view(self, array: AnyArray, name: str) -> DeviceView:
        if not hasattr(array, "__cuda_array_interface__"):
            return self._from_dlpack(array, name)
        told = _interface(array)
        if told.get("mask") is not None:
            raise ArrayError(f"need {name} without masked elements", "ARRAY_KIND")
        # None asks for nothing; another stream than ours has to be waited for.
        other = told.get("stream")
        if other is not None and other != self._stream:
            _core.cuda.synchronize(other, self.device)
        dtype = np.dtype(told["typestr"])
        shape = tuple(told["shape"])
        _check_layout(_is_contiguous(shape, told.get("strides"), dtype), name)
        self._held.append(array)
        return DeviceView(told["data"][0], shape, dtype, array)

    def _from_dlpack(self, array: AnyArray, name: str) -> DeviceView:
        try:
            got = _core.read_dlpack(array.__dlpack__(stream=self._stream))
            dtype = np.dtype(got.typestr)
        except (BufferError, ValueError) as error:
            raise ArrayError(f"{name}: {error}", "ARRAY_KIND") from error
        _check_layout(_is_contiguous(got.shape, got.strides, dtype), name)
        self._held.append(got)
        return DeviceView(got.pointer, got.shape, dtype, got)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        # What came in must outlive the kernel, which may still wait in the stream.
        memory = DeviceMemory(
            math.prod(shape) * np.dtype(dtype).itemsize, self.device, tuple(self._held)
        )
        return DeviceArray(
            memory, memory.pointer, shape, dtype, self.device, self._stream
        )

    def address(self, out: DeviceArray) -> int:
        return out.pointer

    def hold(self, scratch: DeviceArray) -> None:
        self._held.append(scratch)  # goes with the output, as what came in

    def reinterpret(self, out: DeviceArray, dtype: npt.DTypeLike) -> DeviceArray:
        return out.view(dtype)

    def columns(
        self, out: DeviceArray, first: int, count: int | None = None
    ) -> DeviceArray:
        return out.columns(first, count)

    def fill(self, out: DeviceArray, columns: int | slice, values: Any) -> None:
        raise ArrayError(
            "need nuclei on a GPU as an array of torch or CuPy, which write columns",
            "ARRAY_KIND",
        )


def _interface(array: AnyArray) -> dict[str, Any]:
    told: dict[str, Any] = getattr(array, "__cuda_array_interface__", {})
    if told.get("stream") == 0:
        # Forbidden, since it may mean either default stream.
        raise ArrayError(
            "need a __cuda_array_interface__ whose stream is not 0", "ARRAY_KIND"
        )
    return told


def _device_of(array: AnyArray) -> int:
    ask = getattr(array, "__dlpack_device__", None)
    if ask is not None:
        kind, index = ask()
        if int(kind) in DLPACK_CUDA:
            return int(index)
    if _device_count() == 1:
        return 0
    raise ArrayError(
        f"need to know which GPU holds it, got {type(array).__name__} without "
        "__dlpack_device__ on a machine with several",
        "ARRAY_DEVICE",
    )


@functools.cache
def _device_count() -> int:
    """GPUs do not come and go, and describing them asks each for its memory."""
    return len(_core.cuda.devices())


def _is_contiguous(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, dtype: np.dtype[Any]
) -> bool:
    if strides is None or 0 in shape:
        return True
    step = dtype.itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True
