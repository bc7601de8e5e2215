# SPDX-License-Identifier: Apache-2.0
"""Device memory for tests by the table itself, of a GPU or of `tests/cuda_on_host`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from her2fast import _core

ROOT = Path(__file__).resolve().parents[2]


def build_on_host(folder: Path) -> Path:
    """Compile the kernels for the CPU; see tests/cuda_on_host/cuda_runtime.h."""
    out = folder / "libher2fast_cuda_on_host.so"
    kernels = [f for f in (ROOT / "csrc/cuda").glob("*.cu") if f.stem != "scan_sort"]
    sources = [
        *kernels,
        *(ROOT / "tests/cuda_on_host").glob("*.cpp"),
        ROOT / "csrc/kernels/slide_table.cpp",
        ROOT / "csrc/io/codec/jpeg_whole.cpp",
        ROOT / "csrc/core/shared_library_posix.cpp",
    ]
    folders = [ROOT / "tests/cuda_on_host", ROOT / "csrc", ROOT / "csrc/include"]
    command = ["g++", "-x", "c++", "-std=c++20", "-O1", "-fPIC", "-shared"]
    command += ["-ffp-contract=off", *(f"-I{f}" for f in folders)]
    command += [*map(str, sorted(sources)), "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def build_fake_nvjpeg(folder: Path) -> Path:
    """nvJPEG by libjpeg-turbo, beside `build_on_host`; see tests/fake_nvjpeg."""
    out = folder / "libfake_nvjpeg.so"
    folders = [ROOT / "tests/fake_nvjpeg", ROOT / "tests/cuda_on_host", ROOT / "csrc"]
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared"]
    command += [f"-I{f}" for f in folders]
    command += [str(ROOT / "tests/fake_nvjpeg/fake_nvjpeg.cpp"), "-o", str(out)]
    subprocess.run([*command, "-ljpeg"], check=True)
    return out


class Memory:
    """Arrays on the device, freed together; as long as asked."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for address in self._held:
            _core.cuda.release(address)

    def empty(self, size: int) -> int:
        self._held.append(_core.cuda.allocate(size))
        return self._held[-1]

    def put(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        address = self.empty(array.nbytes)
        if array.nbytes:
            _core.cuda.copy(
                address, array.ctypes.data, array.nbytes, _core.cuda.TO_DEVICE
            )
        return address

    def get(self, address: int, shape: Any, dtype: Any) -> np.ndarray:
        out = np.empty(shape, dtype)
        if out.nbytes:
            _core.cuda.copy(out.ctypes.data, address, out.nbytes, _core.cuda.TO_HOST)
            _core.cuda.synchronize()
        return out
