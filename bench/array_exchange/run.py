# SPDX-License-Identifier: Apache-2.0
"""The cost of another library's arrays. See README.md for the rules."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from her2fast import _core
from her2fast.kernels import tumor_count

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import loads, quiet_machine, tell, versions

LARGE_PX = 16384
GRID = {"patch_px": 2, "stride_px": 2}


class Exported:
    """DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda mask: mask,
    "torch": torch.from_numpy,
    "torch bool": lambda mask: torch.from_numpy(mask.view(np.bool_)),
    "dlpack": Exported,
    "buffer": memoryview,
}


def numpy_only(mask: np.ndarray) -> np.ndarray:
    """The wrapper before it took other arrays."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8:
        raise TypeError(f"need mask as an array of uint8, got {type(mask)}")
    return _core.tumor_count(np.ascontiguousarray(mask), 2, 2, "cpu")


def small(rounds: int, calls: int = 200) -> dict[str, Any]:
    mask = np.random.default_rng(1).integers(0, 2, (8, 8)).astype(np.uint8)
    tensor = torch.from_numpy(mask)
    contenders: dict[str, Callable[[], Any]] = {
        "core": lambda: _core.tumor_count(mask, 2, 2, "cpu"),
        "numpy only": lambda: numpy_only(mask),
        "torch by hand": lambda: torch.from_numpy(tumor_count(tensor.numpy(), **GRID)),
    }
    for kind, make in KINDS.items():
        held = make(mask)
        contenders[kind] = lambda held=held: tumor_count(held, **GRID)
    want = contenders["core"]().tolist()
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, call in contenders.items():
            if call().tolist() != want:
                sys.exit(f"{name}: other counts")
            start = time.perf_counter()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / calls)
    return {name: round(1e6 * seconds, 2) for name, seconds in best.items()}


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def large(kind: str, part: bool) -> dict[str, Any]:
    """In a process of its own: how much the peak of memory rises."""
    margin = 64 if part else 0
    whole = np.ones((LARGE_PX, LARGE_PX + margin), np.uint8)
    held = KINDS[kind](whole[:, :LARGE_PX])
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    counts = tumor_count(held, patch_px=64, stride_px=64)
    rise = peak_bytes() - before
    if np.unique(np.asarray(counts)).tolist() != [4096]:
        sys.exit(f"{kind}: other counts")
    return {
        "kind": kind,
        "part_of_larger": part,
        "input_mb": LARGE_PX * LARGE_PX / 1e6,
        "peak_rise_mb": round(rise / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--large", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.large:
        kind, part = arguments.large.split(",")
        print(json.dumps(large(kind, part == "part")))
        return
    load_before = loads()
    us = small(arguments.rounds)
    cases = []
    for kind in KINDS:
        for part in ("whole", "part"):
            command = [sys.executable, __file__, "--large", f"{kind},{part}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cases.append(json.loads(done.stdout))
    result = {
        "question": "what it costs to pass another library's array to a kernel",
        "machine": quiet_machine(load_before),
        "versions": versions("numpy", "torch", "python"),
        "microseconds_a_call": us,
        "over_the_wrapper_for_numpy_only": {
            name: round(value - us["numpy only"], 2) for name, value in us.items()
        },
        "large": cases,
    }
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
