# SPDX-License-Identifier: Apache-2.0
"""From wrapper to CUDA kernel and back: the kernels' sources, built for the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# `make test-cpp` builds it.
LIBRARIES = sorted(ROOT.glob("build/test/**/libher2fast_cuda_on_host.so"))


@pytest.mark.skipif(not LIBRARIES, reason="make test-cpp builds what this needs")
def test_the_kernels_give_the_bytes_of_the_cpu() -> None:
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("cuda_on_host_calls.py"),
            LIBRARIES[0],
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == 0, done.stderr
    # 8 seeds of 4 kinds: 1 + 1 + 1 + 9 arrays, and the 23 columns of a merge.
    assert "1120 arrays equal" in done.stdout
    assert "need nuclei within" in done.stdout
