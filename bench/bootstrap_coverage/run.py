# SPDX-License-Identifier: Apache-2.0
"""How often does the bootstrap's 95 % interval hold the truth? See README.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/python"), str(ROOT / "bench")]
from class_fields import class_field  # noqa: E402

from conditions import tell, versions  # noqa: E402

PATCH_MM = 0.064
SHARES = {
    "mixed": (0.40, 0.30, 0.15, 0.15),
    "mostly 0": (0.85, 0.08, 0.05, 0.02),
    "mostly 3+": (0.05, 0.10, 0.15, 0.70),
}
SIDES_MM = (2.0, 4.0, 8.0, 16.0)
CORRELATIONS_MM = (0.1, 0.2, 0.4, 0.8)
RULE_SET = "asco-cap-2018"


def sample(
    rng: np.random.Generator, shares: tuple[float, ...], side: int, correlation: float
) -> npt.NDArray[np.int64]:
    """(blocks, 8) of a square of tumor that is full in every patch."""
    field = class_field(rng, (side, side), shares, correlation).ravel()
    rows, columns = (i.ravel() for i in np.indices((side, side)))
    block_side = round(_core.LIMITS["bootstrap_block_um"] / (1000 * PATCH_MM))
    while True:
        # As tumor_blocks in the core and blocks_of in tests/reference, but vectorized.
        places, number = np.unique(
            rows // block_side * side + columns // block_side, return_inverse=True
        )
        if len(places) >= _core.LIMITS["bootstrap_min_blocks"] or block_side == 1:
            break
        block_side //= 2
    patches = np.bincount(number * 4 + field, minlength=4 * len(places)).reshape(-1, 4)
    return np.concatenate([4096 * patches, patches], axis=1)


def run_case(
    rng: np.random.Generator,
    name: str,
    side_mm: float,
    correlation_mm: float,
    slides: int,
) -> dict[str, Any]:
    shares = np.array(SHARES[name])
    side = round(side_mm / PATCH_MM)
    covered = np.zeros(4)
    widths, confident, confident_same = [], 0, 0
    scores = [
        _core.decide_guideline((shares * 1000).round().astype(int).tolist(), RULE_SET)
    ]
    true_score = int(scores[0]["score_index"])
    blocks = 0
    for _ in range(slides):
        made = sample(rng, SHARES[name], side, correlation_mm / PATCH_MM)
        blocks += len(made) / slides
        got = _core.bootstrap(made, rule_set=RULE_SET)
        low, high = np.array(got["intervals"]).T
        covered += (low <= shares) & (shares <= high)
        widths.append(high - low)
        counts = got["score_counts"]
        if max(counts) >= 950:
            confident += 1
            confident_same += int(np.argmax(counts)) == true_score
    return {
        "mix": name,
        "tumor_mm2": round((side * PATCH_MM) ** 2, 1),
        "correlation_mm": correlation_mm,
        "blocks": round(blocks, 1),
        "slides": slides,
        "coverage": round(float(covered.mean() / slides), 3),
        "coverage_per_class": (covered / slides).round(3).tolist(),
        "mean_width": np.mean(widths, axis=0).round(4).tolist(),
        "score_probability_at_least_95_percent": confident,
        "of_those_the_true_score": confident_same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cases = [
        run_case(rng, name, side, correlation, options.slides)
        for name in SHARES
        for side in SIDES_MM
        for correlation in CORRELATIONS_MM
    ]
    confident = sum(c["score_probability_at_least_95_percent"] for c in cases)
    same = sum(c["of_those_the_true_score"] for c in cases)
    report = {
        "question": "How often does the bootstrap's 95 % interval hold the truth?",
        "nominal": 0.95,
        "block_um": _core.LIMITS["bootstrap_block_um"],
        "replicates": _core.LIMITS["bootstrap_replicates"],
        "coverage_by_correlation_mm": {
            str(c): round(
                float(
                    np.mean([k["coverage"] for k in cases if k["correlation_mm"] == c])
                ),
                3,
            )
            for c in CORRELATIONS_MM
        },
        "sure_of_the_score": confident,
        "sure_and_right": round(same / confident, 4) if confident else None,
        "cases": cases,
        "versions": versions("numpy"),
    }
    tell(report, options.json)


if __name__ == "__main__":
    main()
