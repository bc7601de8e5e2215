# SPDX-License-Identifier: Apache-2.0
"""Outputs of kernels on a GPU for arrays of unknown libraries."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core

__all__ = ["LEGACY_STREAM", "DeviceArray", "DeviceMemory"]

#: CUDA's legacy default stream by its unambiguous number; 0 may mean either default.
LEGACY_STREAM = 1
#: A consumer that says so orders the work itself (DLPack).
NO_SYNC = -1
#: DLPack's device type.
_CUDA = 2


class DeviceMemory:
    """Memory of a GPU; freed with this object."""

    def __init__(self, size: int, device: int, held: tuple[object, ...]) -> None:
        self.held = held
        # A GPU gives no memory of no bytes, and the interface wants 0 for its address.
        self.pointer = 0
        if size:
            self.pointer = _core.cuda.allocate(size, device)
            freed = weakref.finalize(self, _core.cuda.release, self.pointer)
            freed.atexit = False  # the process ends, and with it its memory


class DeviceArray:
    """An output on a GPU for whoever passed arrays of a library of their own.

    It owns its memory, or shares that of the array it is part of. Read it by
    ``cupy.asarray(out)``, ``torch.as_tensor(out)``, ``from_dlpack`` or anything else
    that knows ``__cuda_array_interface__``.

    Attributes
    ----------
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    device : int
        Number of the GPU.
    pointer : int
        Address on the GPU; 0 of an array without elements.
    stream : int
        Where the kernel that writes it was queued.
    """

    def __init__(
        self,
        memory: object,
        pointer: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        device: int,
        stream: int,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.strides = strides or _packed(shape, self.dtype.itemsize)
        self.device = device
        self.stream = stream
        self._memory = memory
        self.pointer = pointer

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": self.strides,
            "version": 3,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule over the same memory, ordered before the work of `stream`."""
        if copy or (dl_device is not None and tuple(dl_device) != (_CUDA, self.device)):
            raise BufferError("need an export without a copy, to the GPU it lies on")
        if stream == 0:
            raise BufferError("need a stream other than 0, which may mean two of them")
        consumer = LEGACY_STREAM if stream is None else stream
        if consumer not in (NO_SYNC, self.stream):
            _core.cuda.synchronize(self.stream, self.device)
        return _core.make_dlpack(
            self.pointer,
            self.shape,
            [step // self.dtype.itemsize for step in self.strides],
            self.dtype.str,
            (_CUDA, self.device),
            self._memory,
            max_version is not None and max_version[0] >= 1,
        )

    def view(self, dtype: npt.DTypeLike) -> DeviceArray:
        """The same memory as a narrower or wider type; C-contiguous."""
        kind = np.dtype(dtype)
        last = self.shape[-1] * self.dtype.itemsize // kind.itemsize
        return DeviceArray(
            self._memory,
            self.pointer,
            (*self.shape[:-1], last),
            kind,
            self.device,
            self.stream,
        )

    def columns(self, first: int, count: int | None = None) -> DeviceArray:
        """Columns of a table: `count` of them, or one as an array of one axis."""
        axes = 1 if count is None else 2
        shape = (self.shape[0], count or 0)[:axes]
        return DeviceArray(
            self._memory,
            self.pointer + first * self.strides[1] if self.pointer else 0,
            shape,
            self.dtype,
            self.device,
            self.stream,
            self.strides[:axes],
        )

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape}, {self.dtype}, cuda:{self.device})"


def _packed(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    steps = [itemsize]
    for length in reversed(shape[1:]):
        steps.append(steps[-1] * length)
    return tuple(reversed(steps)) if shape else ()
