# SPDX-License-Identifier: Apache-2.0
"""Does a score that must not be trusted carry a flag? See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import her2fast
from her2fast import _core, guidelines
from her2fast.models.package import load_package
from her2fast.phantom.cohort import DEFAULT_JPEG_QUALITY
from her2fast.phantom.slide import Camera
from her2fast.scoring import Scorer, decide, open_input

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from cases import Case, artifact_cases, blur_cases, control_cases  # noqa: E402
from figures import Row, summarize  # noqa: E402
from perfect import measure as measure_perfectly  # noqa: E402

RULES = "asco-cap-2018"


def score_case(scorer: Scorer, case: Case, folder: Path) -> Row:
    """One slide through a file, as a user would: truth beside what the scorer says."""
    path = folder / f"{case.group}-{case.index}.svs"
    height = case.slide.spec.size_px[1]
    camera = Camera(case.slide)
    bands = [camera.rows(y, min(256, height - y)) for y in range(0, height, 256)]
    rgb = np.concatenate(bands)
    _core.write_pyramid(
        path,
        rgb,
        spacing_um=case.slide.spec.slide.spacing_um,
        jpeg_quality=case.slide.look.jpeg_quality or DEFAULT_JPEG_QUALITY,
        aperio=True,
    )
    try:
        begun = time.process_time()
        measurement = scorer.measure(open_input(path))
        result = decide(measurement, guideline=RULES)
        seconds = time.process_time() - begun
    finally:
        path.unlink()
    record = result.record
    perfect = None
    if case.group == "control":
        perfect = perfect_row(case, rgb)
    own = case.slide.class_px()
    control = case.slide.class_px(control=True)
    both = [a + b for a, b in zip(own, control, strict=True)]
    return {
        "group": case.group,
        "index": case.index,
        "name": case.name,
        "profile": case.slide.look.name,
        "truth": guidelines.decide(own, RULES).score,
        "truth_with_control": guidelines.decide(both, RULES).score,
        "tumor_mm2": round(sum(own) / 1e6, 4),
        "control_mm2": round(sum(control) / 1e6, 4),
        "status": result.status,
        "code": result.code,
        "score": result.score,
        "flags": list(record["review_flags"]),
        "true_fractions": [round(n / max(sum(own), 1), 4) for n in own],
        "fractions": record["fractions"],
        "out_of_focus_share": out_of_focus(record),
        "islands": record.get("islands"),
        "perfect": perfect,
        "score_cpu_s": round(seconds, 2),
    }


def perfect_row(case: Case, rgb: npt.NDArray[np.uint8]) -> Row:
    """What a scorer says of the slide that is right in every patch."""
    decision = _core.decide(measure_perfectly(case.slide, rgb), rule_set=RULES)
    return {
        "status": decision["status"],
        "code": decision["code"],
        "score": (decision["guideline"] or {}).get("score"),
        "flags": list(decision["review_flags"]),
    }


def out_of_focus(record: dict[str, Any]) -> float | None:
    """The record's share of tissue out of focus."""
    value = record.get("out_of_focus_share")
    return None if value is None else round(float(value), 4)


def all_cases(counts: dict[str, int]) -> Iterator[Case]:
    """Every case of the bench."""
    yield from control_cases(counts["control"])
    yield from blur_cases(counts["blur"])
    yield from artifact_cases(counts["artifact"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--control", type=int, default=100, help="slides")
    parser.add_argument("--blur", type=int, default=6, help="slides, each often")
    parser.add_argument("--artifact", type=int, default=6, help="slides, as above")
    options = parser.parse_args()
    package = load_package(None)
    scorer = Scorer(package, workers=1)
    counts = {name: getattr(options, name) for name in ("control", "blur", "artifact")}
    rows: list[Row] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for case in all_cases(counts):
            rows.append(score_case(scorer, case, Path(folder)))
            row = rows[-1]
            sys.stderr.write(
                f"{row['group']} {row['index']} {row['name']}: {row['truth']} -> "
                f"{row['score'] or row['code']} {' '.join(row['flags'])}\n"
            )
    report = {
        "question": "Does a score that must not be trusted carry a flag?",
        "synthetic": True,
        "package": package.name,
        "models_sha256": {
            "segment": package.segment.sha256 if package.segment else None,
            "classify": package.classify.sha256,
        },
        "rule_set": RULES,
        "elapsed_s": round(time.monotonic() - begun),
        **summarize(rows),
        "rows": rows,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count()},
        "versions": {"her2fast": her2fast.__version__, "numpy": np.__version__},
    }
    if options.json:
        text = json.dumps(report, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    print(json.dumps({k: v for k, v in report.items() if k != "rows"}, indent=1))


if __name__ == "__main__":
    main()
