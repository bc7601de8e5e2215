# SPDX-License-Identifier: Apache-2.0
"""Arrays of any library in and out of kernels: one rule, in one place.

In: NumPy arrays, torch tensors, and what offers the buffer protocol,
``__array_interface__`` or DLPack (CPU). They are read where they lie. What would need
another type is refused; what has gaps within its rows is copied first, as documented.
Out: the kind of the first array that came in, in the memory that the kernel wrote.
Neither torch nor CuPy is imported here: who passes their arrays has imported them.
Arrays on a GPU: `her2fast.kernels.device_arrays`. The guide is docs/guide/arrays.md.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from her2fast.errors import ArrayError, DeviceError

__all__ = [
    "DLPACK_CUDA",
    "DLPACK_HOST",
    "AnyArray",
    "as_bytes",
    "as_numpy",
    "host",
    "host_device",
    "integers",
    "is_cuda",
    "is_cupy",
    "is_torch",
    "library_class",
    "like",
    "like_all",
    "mask",
    "no_twin",
    "on_cuda",
    "refuse_cuda",
]

#: What a wrapper takes: an array of any library.
AnyArray: TypeAlias = Any

#: Device types of DLPack: memory a CPU reads (plain, pinned by CUDA), and a GPU's (its
#: own, and managed: which side works on it is known to its library alone).
DLPACK_HOST = frozenset({1, 3})
DLPACK_CUDA = frozenset({2, 13})


def library_class(library: str, name: str) -> Any:
    """A class of a library that somebody has imported; an empty tuple where none."""
    module = sys.modules.get(library)
    return () if module is None else getattr(module, name, ())


def is_torch(array: AnyArray) -> bool:
    """Whether it is a torch tensor."""
    tensor = library_class("torch", "Tensor")
    # torch looks into instances where isinstance asks, which takes longer.
    return type(array) is tensor or isinstance(array, tensor)


def is_cupy(array: AnyArray) -> bool:
    """Whether it is a CuPy array."""
    return isinstance(array, library_class("cupy", "ndarray"))


def is_cuda(array: AnyArray) -> bool:
    """Whether it lies on an NVIDIA GPU."""
    if is_torch(array):
        return bool(array.is_cuda)
    if is_cupy(array) or hasattr(array, "__cuda_array_interface__"):
        return True
    return _dlpack_type(array) in DLPACK_CUDA


def on_cuda(*arrays: AnyArray) -> bool:
    """Whether a call belongs on the GPU; None stands for an array left out.

    Raises `ArrayError` ARRAY_DEVICE where some lie there and some on the host.
    """
    # The common case costs one comparison an array.
    for array in arrays:
        if array is not None and type(array) is not np.ndarray:
            break
    else:
        return False
    places = {is_cuda(array) for array in arrays if array is not None}
    if len(places) > 1:
        raise ArrayError(
            "need all arrays on one device, got some on the host and some on a GPU; "
            "move them first",
            "ARRAY_DEVICE",
        )
    return True in places


def no_twin(stem: str) -> DeviceError:
    """The error NO_TWIN: nothing is copied to the host unasked."""
    return DeviceError(
        f"{stem}: has no CUDA kernel; copy its arrays to the host first", "NO_TWIN"
    )


def refuse_cuda(stem: str, *arrays: AnyArray) -> None:
    """For a kernel without a CUDA twin.

    Raises `DeviceError` NO_TWIN where its arrays lie on a GPU, `ArrayError`
    ARRAY_DEVICE where some do.
    """
    if on_cuda(*arrays):
        raise no_twin(stem)


def host_device(device: str | None) -> str:
    """Where a kernel runs whose arrays lie on the host: the CPU if not said."""
    return "cpu" if device is None else device


def host(
    array: AnyArray, dtype: type[np.generic], name: str, *, rows: bool = False
) -> npt.NDArray[Any]:
    """An array on the host as NumPy, in the memory that it has.

    A copy is made of what is not C-contiguous; with `rows` only where pixels of a row
    lie apart or rows overlap, so that part of a larger image is read where it lies.

    Raises `ArrayError`: no array, another type, another device, part of a graph.
    """
    seen: npt.NDArray[Any] = array
    if type(array) is not np.ndarray:
        seen = as_numpy(array, name)
    if seen.dtype != dtype:
        raise ArrayError(
            f"need {name} as an array of {dtype.__name__}, got {seen.dtype}",
            "ARRAY_DTYPE",
        )
    flags = seen.flags
    if flags.c_contiguous and flags.aligned:
        return seen
    if rows and flags.aligned and _has_whole_rows(seen):
        return seen
    return np.require(seen, requirements=["C", "A"])


def as_bytes(array: AnyArray, name: str) -> npt.NDArray[np.uint8]:
    """A picture or plane of uint8 on the host; part of a larger one where it lies."""
    return host(array, np.uint8, name, rows=True)


def mask(array: AnyArray, name: str) -> npt.NDArray[np.uint8]:
    """A mask as bytes, where it lies: bool is uint8 whose values are 0 and 1."""
    if type(array) is not np.ndarray:
        array = as_numpy(array, name)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    return as_bytes(array, name)


def integers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """Whole numbers of any width, also a list; a copy where they are not int64.

    Raises `ArrayError` ARRAY_DTYPE for numbers of another type.
    """
    array = np.asarray(as_numpy(values, name) if _is_array(values) else values)
    if array.dtype.kind not in "iu" and array.size:
        raise ArrayError(f"need {name} as integers, got {array.dtype}", "ARRAY_DTYPE")
    return np.ascontiguousarray(array, np.int64)


def as_numpy(array: AnyArray, name: str = "array") -> npt.NDArray[Any]:
    """A NumPy array over the memory of an array of another library.

    Raises `ArrayError`: ARRAY_KIND, ARRAY_DEVICE, ARRAY_GRAD.
    """
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise ArrayError(
                f"need {name} without masked elements; fill or compress it first",
                "ARRAY_KIND",
            )
        return array
    if is_torch(array):
        return _torch_as_numpy(array, name)
    device = _dlpack_type(array)
    if hasattr(array, "__cuda_array_interface__") or not (
        device is None or device in DLPACK_HOST
    ):
        raise ArrayError(
            f"need {name} on the host, got one on another device", "ARRAY_DEVICE"
        )
    try:
        if device is not None:
            return np.from_dlpack(array)
        if hasattr(array, "__array_interface__"):
            return np.asarray(array)
        return np.asarray(memoryview(array))
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        # An object with `__array__` alone may compute, read a file, or copy.
        raise ArrayError(
            f"need {name} as a NumPy array, a torch tensor, or an object with DLPack, "
            f"__array_interface__ or a buffer, got {type(array).__name__} ({error})",
            "ARRAY_KIND",
        ) from error


def like(first: AnyArray, out: npt.NDArray[Any]) -> Any:
    """A kernel's output in the kind of its first array, in the same memory.

    A torch tensor for a torch tensor; a NumPy array for anything else.
    """
    if type(first) is np.ndarray or not is_torch(first):
        return out
    return sys.modules["torch"].from_numpy(out)


def like_all(first: AnyArray, outputs: dict[str, Any]) -> dict[str, Any]:
    """`like` for every output of a kernel that has several."""
    if type(first) is np.ndarray or not is_torch(first):
        return outputs
    return {name: like(first, out) for name, out in outputs.items()}


def _torch_as_numpy(tensor: Any, name: str) -> npt.NDArray[Any]:
    if tensor.requires_grad:
        # As torch itself has it: a silent detach would cut the graph.
        raise ArrayError(
            f"need {name} without gradient, got a tensor that requires grad; kernels "
            "have no derivatives: pass tensor.detach()",
            "ARRAY_GRAD",
        )
    if not tensor.is_cpu:
        raise ArrayError(
            f"need {name} on the host, got a tensor on {tensor.device}", "ARRAY_DEVICE"
        )
    try:
        array: npt.NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise ArrayError(
            f"need {name} as a dense tensor of a type that NumPy has, got "
            f"{tensor.layout} of {tensor.dtype} ({error})",
            "ARRAY_KIND",
        ) from error
    return array


def _dlpack_type(array: AnyArray) -> int | None:
    """The device type that DLPack gives it; None where it has no DLPack."""
    ask = getattr(array, "__dlpack_device__", None)
    return None if ask is None else int(ask()[0])


def _is_array(values: Any) -> bool:
    return is_torch(values) or any(
        hasattr(values, name)
        for name in (
            "__dlpack_device__",
            "__cuda_array_interface__",
            "__array_interface__",
        )
    )


def _has_whole_rows(array: npt.NDArray[Any]) -> bool:
    if array.ndim not in (2, 3) or array.size == 0:
        return False
    row = array[0]
    step = array.strides[0]
    return row.flags.c_contiguous and step >= row.nbytes and step % array.itemsize == 0
