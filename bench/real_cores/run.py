# SPDX-License-Identifier: Apache-2.0
"""Real cores and things that are not HER2: what is called 2+ or 3+? See README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import her2fast
from her2fast import _core
from her2fast.models.package import MethodPackage, load_package

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from additions import (  # noqa: E402
    ADDITIONS,
    CORE_UM,
    SIDE_PX,
    beside,
    on_glass,
    over,
    read_rgb,
)

from conditions import machine, store, versions  # noqa: E402

CORES = (
    "core_0_a",
    "core_0_b",
    "core_1_a",
    "core_2_ishneg_a",
    "core_2_ishpos_a",
    "core_3_left_half",
)
#: What everything is added to, and what must rise in this order.
BASE = "core_0_a"
RISING = (("core_0_a", "core_0_b"), ("core_2_ishpos_a",), ("core_3_left_half",))
#: A larger growth of the share called 2+ or 3+ is a rise.
MAX_GROWTH = 0.01
SCORES = ("0", "1+", "2+", "3+")
Row = dict[str, Any]


def score_picture(
    package: MethodPackage, rgb: npt.NDArray[np.uint8], folder: Path
) -> Row:
    """Converted and scored as any slide."""
    path = folder / "picture.tif"
    _core.write_pyramid(str(path), rgb, spacing_um=CORE_UM, jpeg_quality=90)
    record = her2fast.score(path, model=package).record
    path.unlink()
    shares = record["fractions"]
    domain = record["domain"]
    return {
        "status": record["status"],
        "code": record["code"],
        "score": record["score"],
        "shares": shares,
        "share_2_3": None if shares is None else round(shares[2] + shares[3], 5),
        "mean_class": (
            None
            if shares is None
            else round(sum(k * share for k, share in enumerate(shares)), 4)
        ),
        "tumor_mm2": record["tumor_mm2"],
        "called_2_3_mm2": (
            None
            if record["class_mm2"] is None
            else round(sum(record["class_mm2"][2:]), 5)
        ),
        "tissue_mm2": record["tissue_mm2"],
        "review_flags": record["review_flags"],
        "out_of_domain_share": None if domain is None else domain["outside_share"],
        "distance_over_cut": (
            None
            if domain is None
            else {
                name: round(v["mean"] / v["cut"], 3)
                for name, v in domain["distances"].items()
            }
        ),
    }


def rises(cores: dict[str, Row]) -> bool:
    """Whether the share called 2+ or 3+ rises over the groups of RISING."""
    groups = [[cores[name]["share_2_3"] for name in group] for group in RISING]
    if any(value is None for group in groups for value in group):
        return False
    return all(max(low) < min(high) for low, high in pairwise(groups))


def raised(plain: Row, changed: Row) -> bool | None:
    """Whether an addition raised what is called 2+ or 3+; None without a score."""
    if plain["share_2_3"] is None or changed["share_2_3"] is None:
        return None
    order = [SCORES.index(row["score"]) for row in (plain, changed)]
    grown: float = changed["share_2_3"] - plain["share_2_3"]
    return bool(grown > MAX_GROWTH or order[1] > order[0])


def find_data() -> Path | None:
    """The folder of real images; never part of the repository."""
    for candidate in (
        os.environ.get("HER2FAST_TEST_DATA"),
        str(HERE.parents[2] / "shared/data"),
    ):
        if candidate and (Path(candidate) / "her2_cores").is_dir():
            return Path(candidate)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = find_data()
    if data is None:  # `make bench` goes on with the others
        print("skipped: the folder of real images is absent (set HER2FAST_TEST_DATA)")
        return
    package = load_package(None)
    cores: dict[str, Row] = {}
    additions: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for core in CORES:
            rgb = read_rgb(data / "her2_cores" / f"{core}.jpg")
            cores[core] = score_picture(package, rgb, folder)
            print(core, json.dumps(cores[core]), flush=True)
        base = on_glass(read_rgb(data / "her2_cores" / f"{BASE}.jpg"), SIDE_PX + 200)
        plain = score_picture(package, base, folder)
        for what, make, lies_over in ADDITIONS:
            picture = make(data / "stained")
            places = {"beside": beside(base, picture)}
            if lies_over:
                places["over"] = over(base, picture)
            for place, canvas in places.items():
                row = score_picture(package, canvas, folder)
                row = {
                    "what": what,
                    "place": place,
                    "raised": raised(plain, row),
                    **row,
                }
                additions.append(row)
                print(json.dumps(row), flush=True)
    report = {
        "question": "Does what is called 2+ or 3+ follow the stain of real tissue?",
        "package": package.name,
        "models_sha256": {
            "segment": package.segment.sha256 if package.segment else None,
            "classify": package.classify.sha256,
        },
        "spacing_um_assumed": CORE_UM,
        "rises": rises(cores),
        "raised_by": [f"{a['what']}, {a['place']}" for a in additions if a["raised"]],
        "cores": cores,
        "base": {"core": BASE, **plain},
        "additions": additions,
        "machine": machine(),
        "versions": versions("numpy"),
    }
    store(report, options.json)
    print("rises:", report["rises"], "raised by:", report["raised_by"])


if __name__ == "__main__":
    main()
