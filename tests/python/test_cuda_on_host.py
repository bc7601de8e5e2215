# SPDX-License-Identifier: Apache-2.0
"""From wrapper to CUDA kernel and back: the kernels' sources, built for the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cuda_memory import ROOT


def test_the_wrappers_give_the_bytes_of_the_cpu(library_on_host: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("cuda_on_host_calls.py"),
            library_on_host,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == 0, done.stderr
    # 8 seeds of 4 kinds: 1 + 1 + 1 + 1 + 1 + 9 arrays, and the 23 columns of a merge.
    assert "1184 arrays equal" in done.stdout
    assert "need nuclei within" in done.stdout
