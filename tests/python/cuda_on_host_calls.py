# SPDX-License-Identifier: Apache-2.0
"""Wrappers on arrays of stand-in libraries, over CUDA kernels built for the CPU.

    python cuda_on_host_calls.py LIBRARY

A process of its own: `_core` opens one CUDA library and keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import fake_cuda
import numpy as np
from fake_cuda import Described, Exported, FakeCupyArray, FakeTensor
from kernel_calls import CALLS, parts

from her2fast import _core
from her2fast.kernels.membrane import membrane_label

STEMS = (
    "tumor_count",
    "tissue_mask",
    "stain_unmix",
    "normalize_batch",
    "resample",
    "constraint_select",
    "membrane_label",
)
KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "torch": FakeTensor,
    "cupy": FakeCupyArray,
    "interface": Described,
    "dlpack": Exported,
}
SEEDS = range(8)


def on_device(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Device memory that looks like the host's, which it is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = _core.cuda.allocate(size) if size else 0
    array = fake_cuda.at(memory, shape, dtype)
    array[...] = 0x5A
    return array


def moved(array: np.ndarray) -> np.ndarray:
    out = on_device(array.shape, array.dtype)
    out[...] = array
    return out


def compare(stem: str, kind: str, seed: int) -> int:
    """How many arrays came out; ends the process where one differs."""
    given = CALLS[stem].make(np.random.default_rng(seed))
    if stem == "membrane_label" and kind not in ("torch", "cupy"):
        given["nuclei"] = None
    held = {
        name: value
        if value is None or name in ("offsets", "labels")
        else KINDS[kind](moved(value))
        for name, value in given.items()
    }
    got, want = CALLS[stem].run(**held), CALLS[stem].run(**given)
    for one, other in zip(parts(got), parts(want), strict=True):
        array = one if isinstance(one, np.ndarray) else fake_cuda.host(one)
        if array.dtype != other.dtype or array.tobytes() != other.tobytes():
            sys.exit(f"{stem} of {kind}, seed {seed}: other bytes than the CPU")
    return len(parts(want))


def main() -> None:
    _core.cuda.set_library(sys.argv[1])
    sys.modules["torch"] = fake_cuda.fake_torch({0: 0}, on_device)
    sys.modules["cupy"] = fake_cuda.fake_cupy({0: 0}, on_device)
    arrays = sum(compare(s, k, i) for s in STEMS for k in KINDS for i in SEEDS)
    try:
        membrane_label(
            FakeTensor(moved(np.zeros((4, 4), np.uint8))),
            nuclei=FakeTensor(moved(np.array([[1, 9]], np.int32))),
        )
    except ValueError as error:
        print(error)
    print(f"{arrays} arrays equal")


if __name__ == "__main__":
    main()
