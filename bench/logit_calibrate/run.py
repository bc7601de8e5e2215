# SPDX-License-Identifier: Apache-2.0
"""Four values for the logits: is the search the best? See README.md for the rules."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/python"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration_rivals import bfgs, nelder_mead
from slide_tables import synthetic

from conditions import loads, quiet_machine, tell, versions
from her2fast.kernels import calibration_loss, logit_calibrate

RIVALS = {"bfgs": bfgs, "nelder_mead": nelder_mead}
MODES = ("scale", "bias")


def compare(problems: int, mode: str) -> dict[str, Any]:
    losses: dict[str, list[float]] = {n: [] for n in ("identity", "her2fast", *RIVALS)}
    above = dict.fromkeys([*RIVALS, "either"], 0)
    above_when_given = 0
    for seed in range(problems):
        rng = np.random.default_rng(10_000 + seed)
        table = synthetic(seed, int(rng.integers(8, 31)), int(rng.integers(40, 121)))
        found = logit_calibrate(*table, mode=mode)
        losses["identity"].append(found.identity_loss)
        losses["her2fast"].append(found.loss)
        answers = {name: rival(table, mode) for name, rival in RIVALS.items()}
        either = False
        for name, answer in answers.items():
            loss = calibration_loss(*table, answer, mode=mode)[0]
            losses[name].append(loss)
            above[name] += found.loss > loss
            either |= found.loss > loss
            given = logit_calibrate(*table, mode=mode, initial=[answer], starts=2)
            above_when_given += given.loss > loss
        above["either"] += either
    return {
        "problems": problems,
        "mean_loss": {n: round(float(np.mean(v)), 4) for n, v in losses.items()},
        "above": above,
        "above_when_given": above_when_given,
    }


def full_size(mode: str) -> dict[str, Any]:
    table = synthetic(0, 370, 5000)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        found = logit_calibrate(*table, mode=mode, workers=2)
        seconds.append(round(time.perf_counter() - start, 2))
    return {
        "slides": 370,
        "patches_per_slide": 5000,
        "seconds": seconds,
        "identity_loss": round(found.identity_loss, 4),
        "loss": round(found.loss, 4),
        "sweeps": found.sweeps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--problems", type=int, default=200)
    arguments = parser.parse_args()
    load_before = loads()
    result = {
        "question": "four values for the logits: is the search the best",
        "full_size": {mode: full_size(mode) for mode in MODES},
        "rivals": {mode: compare(arguments.problems, mode) for mode in MODES},
        "machine": quiet_machine(load_before),
        "versions": versions("numpy", "scipy", "python"),
    }
    tell(result, arguments.json, indent=2)


if __name__ == "__main__":
    main()
