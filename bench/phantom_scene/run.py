# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of drawing one phantom. See README.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import machine, tell, versions

SEED = 9_100_000
#: Width, height in px and spacing in um/px.
CASES = ((1024, 1024, 1.0), (3000, 2000, 1.0), (2048, 2048, 0.5), (4096, 4096, 0.25))


def child(width: int, height: int, spacing_um: float, repeats: int) -> dict[str, Any]:
    """Draws one case; prints nothing, returns what was measured."""
    from her2fast import phantom

    phantom.render(0, (64, 64))
    seconds, digests = [], set()
    for _ in range(repeats):
        start = time.process_time()
        picture = phantom.render(SEED, (width, height), spacing_um=spacing_um)
        seconds.append(time.process_time() - start)
        digests.add(hashlib.sha256(picture.rgb.tobytes()).hexdigest())
    if picture.rgb.shape != (height, width, 3) or len(digests) != 1:
        raise SystemExit("not the picture asked for, or not the same twice")
    if not (
        picture.tumor_mask.any() and picture.membrane_mask.any() and len(picture.cells)
    ):
        raise SystemExit("no tumor, membranes or cells in the truth")
    rates = sorted(width * height / 1e6 / value for value in seconds)
    return {
        "size_px": [width, height],
        "spacing_um": spacing_um,
        "megapixels_per_second": {
            "median": round(float(np.median(rates)), 2),
            "lowest": round(rates[0], 2),
            "highest": round(rates[-1], 2),
        },
        # Kilobytes on Linux.
        "peak_memory_gb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2
        ),
        "cells": len(picture.cells),
        "sha256": digests.pop(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(child(*CASES[options.case], options.repeats)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    results = []
    for number in range(len(CASES)):
        command = [sys.executable, __file__, "--case", str(number)]
        command += ["--repeats", str(options.repeats)]
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        )
        results.append(json.loads(done.stdout))
        sys.stderr.write(f"{results[-1]}\n")
    report = {
        "question": "How fast is one phantom drawn on one core, in how much memory?",
        "results": results,
        "repeats": options.repeats,
        "machine": machine(),
        "versions": versions("numpy"),
    }
    tell(report, options.json)


if __name__ == "__main__":
    main()
