# SPDX-License-Identifier: Apache-2.0
"""What is taken for tumor, and what raises a score? See README.md."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import her2fast
from her2fast import phantom
from her2fast.models.package import MethodPackage, load_package

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import machine, tell, versions

HERE = Path(__file__).resolve().parent
#: Seeds of no training (1,000,000 on), recipe test (5,000,000 on) or other bench.
FIRST_SEED = 9_500_000
SIDE_PX = 512
PROFILE = "unseen"
#: What is brown or dark and no membrane.
THINGS = (
    "red_cells",
    "hemosiderin",
    "anthracosis",
    "formalin_pigment",
    "brown_macrophages",
    "necrosis",
    "lumen_debris",
    "benign_stained",
    "edge_artifact",
    "nuclear_dab",
    "brown_stroma",
    "dab_dots",
    "veil",
)


def _measure() -> Any:
    """The push loop of the bench next door."""
    path = HERE.parent / "phantom_truth" / "run.py"
    found = importlib.util.spec_from_file_location("phantom_truth_run", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.measure


measure = _measure()


def by_tissue(package: MethodPackage, scenes: int) -> dict[str, Any]:
    """Share of each tissue's pixels that the package calls tumor."""
    # Brown nuclei of tumor are tumor's look, not another tissue.
    mix = replace(
        phantom.StromaMix(**{one.name: 0.5 for one in fields(phantom.StromaMix)}),
        tumor_nuclear_dab=0.0,
    )
    total = np.zeros((2, len(phantom.Tissue)), np.int64)
    for index in range(scenes):
        drawn = phantom.render(
            FIRST_SEED + index, (SIDE_PX, SIDE_PX), profile=PROFILE, mix=mix
        )
        core = measure(package, drawn.rgb).core
        called = core.tumor_mask(0, 0, SIDE_PX, SIDE_PX).astype(bool)
        for row, part in enumerate((drawn.tissue, drawn.tissue[called])):
            total[row] += np.bincount(part.ravel(), minlength=len(phantom.Tissue))
        sys.stderr.write(f"scene {index + 1}/{scenes}\n")
    return {
        tissue.name.lower(): {
            "px": int(total[0, tissue]),
            "called_tumor": round(float(total[1, tissue] / total[0, tissue]), 4),
        }
        for tissue in phantom.Tissue
        if total[0, tissue]
    }


def high_share(package: MethodPackage, seed: int, mix: phantom.StromaMix) -> float:
    """Of the area scored in a scene of class 0 tumor, the share called 2+ or 3+."""
    drawn = phantom.render(
        seed, (SIDE_PX, SIDE_PX), mixture=(1, 0, 0, 0), profile=PROFILE, mix=mix
    )
    result = her2fast.decide(measure(package, drawn.rgb))
    shares = result.record["fractions"]
    if not shares:
        return 0.0
    values = list(shares.values()) if isinstance(shares, dict) else list(shares)
    return float(values[2] + values[3])


def pairs(package: MethodPackage, scenes: int) -> dict[str, Any]:
    """The same scenes with and without each thing."""
    # Ducts and lobules are there in both: what is asked is what their stain does.
    plain = replace(phantom.StromaMix.nothing(), benign_ducts=1.0, benign_lobules=1.0)
    seeds = [FIRST_SEED + 1000 + index for index in range(scenes)]
    without = np.array([high_share(package, seed, plain) for seed in seeds])
    out: dict[str, Any] = {}
    for name in THINGS:
        mix = replace(plain, **{name: 1.0})
        risen = np.array([high_share(package, seed, mix) for seed in seeds])
        out[name] = {
            "share_2_3_without": round(float(without.mean()), 4),
            "share_2_3_with": round(float(risen.mean()), 4),
            "largest_rise": round(float((risen - without).max()), 4),
        }
        sys.stderr.write(f"{name} {out[name]}\n")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    package = load_package(None)
    report = {
        "question": "What is taken for tumor, and what raises a score?",
        "synthetic": True,
        "package": package.name,
        "models_sha256": {
            "segment": package.segment.sha256 if package.segment else None,
            "classify": package.classify.sha256,
        },
        "profile": PROFILE,
        "side_px": SIDE_PX,
        "spacing_um": 1.0,
        "scenes": options.scenes,
        "by_tissue": by_tissue(package, options.scenes),
        "pairs": pairs(package, options.pairs),
        "machine": machine(),
        "versions": versions("numpy"),
    }
    tell(report, options.json)


if __name__ == "__main__":
    main()
