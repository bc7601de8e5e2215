# SPDX-License-Identifier: Apache-2.0
"""How right is the shipped package where the truth is known? See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import her2fast
from her2fast import _core, guidelines
from her2fast.models.package import MethodPackage, load_package
from her2fast.session import Session

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "tests")]

from figures import RULES, SCORES, Row, summarize  # noqa: E402

from conditions import machine, store, versions  # noqa: E402

COHORTS = ("unseen_profile", "second_generator")
SIDE_PX = 1500  # at 1 um/px: 2.25 mm2
PATCH_PX = 64
#: Seeds of no training (1,000,000 on), recipe test (5,000,000 on) or demo slide.
FIRST_SEED = {"unseen_profile": 7_000_000, "second_generator": 8_000_000}
#: Concentrations of the class shares of slides meant as 0, 1+, 2+, 3+: a 2+ slide
#: holds much 0 and 1+, a 3+ slide little.
CONCENTRATION = (
    (8, 0.6, 0.4, 0.3),
    (3, 4, 0.4, 0.3),
    (1.5, 1.5, 3, 0.3),
    (0.4, 0.4, 1, 5),
)


def mixture_of(seed: int, wanted: int) -> tuple[float, float, float, float]:
    """Class shares whose score by pham-2022 is the wanted one; shares under 1 % go."""
    rng = np.random.default_rng([seed, 17])
    while True:
        shares = rng.dirichlet(CONCENTRATION[wanted])
        shares[shares < 0.01] = 0.0
        shares /= shares.sum()
        areas = [int(share * 1e6) for share in shares]
        if guidelines.decide(areas, "pham-2022").score == SCORES[wanted]:
            return (
                float(shares[0]),
                float(shares[1]),
                float(shares[2]),
                float(shares[3]),
            )


def render(
    cohort: str, index: int, side_px: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
    """Picture and class map of one slide of a cohort."""
    seed = FIRST_SEED[cohort] + index
    mixture = mixture_of(seed, index % 4)
    size = (side_px, side_px)
    if cohort == "unseen_profile":
        from her2fast import phantom

        first = phantom.render(seed, size, mixture=mixture, profile="unseen")
        return first.rgb, first.class_map
    import phantom_second

    second = phantom_second.render(seed, size, mixture=mixture)
    return second.rgb, second.class_map


def measure(package: MethodPackage, rgb: npt.NDArray[np.uint8]) -> Any:
    """Push a picture at 1 um/px through her2fast's session."""
    height, width = rgb.shape[:2]
    session = Session(
        package,
        extent_px=(width, height),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,  # who names a folder with --model trusts it
    )
    while requests := session.wanted(32):
        for request in requests:
            crop = np.full((request.height_px, request.width_px, 3), 255, np.uint8)
            x, y = request.x_px, request.y_px
            left, top = max(x, 0), max(y, 0)
            right = min(x + request.width_px, width)
            low = min(y + request.height_px, height)
            if right > left and low > top:
                crop[top - y : low - y, left - x : right - x] = rgb[top:low, left:right]
            session.push(request.id, crop, "ok")
        session.run_models()
    return session.finish()


def patch_truth(class_map: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """(rows, columns, 4) tumor px per class of the 64 px patches, border included."""
    rows, columns = (-(-side // PATCH_PX) for side in class_map.shape)
    full = np.full((rows * PATCH_PX, columns * PATCH_PX), -1, np.int8)
    full[: class_map.shape[0], : class_map.shape[1]] = class_map
    blocks = full.reshape(rows, PATCH_PX, columns, PATCH_PX)
    return np.stack([(blocks == kind).sum((1, 3)) for kind in range(4)], -1)


def score_slide(package: MethodPackage, cohort: str, index: int, side_px: int) -> Row:
    """One slide: truth beside what the scorer says."""
    begin = time.process_time()
    rgb, class_map = render(cohort, index, side_px)
    rendered = time.process_time()
    measurement = measure(package, rgb)
    measured = time.process_time()
    counts = np.bincount(class_map[class_map >= 0], minlength=4)
    results = {rule: her2fast.decide(measurement, guideline=rule) for rule in RULES}
    core = measurement.core
    mask = core.tumor_mask(0, 0, side_px, side_px).astype(bool)
    truth = class_map >= 0
    both = int(mask.sum()) + int(truth.sum())

    areas = patch_truth(class_map)
    outcome = _core.patch_outcomes(core)
    kept = outcome["kept"].astype(bool)
    row, column = outcome["row"][kept], outcome["column"][kept]
    inside = (row < areas.shape[0]) & (column < areas.shape[1])
    there = areas[row[inside], column[inside]]
    # The scorer's own rule: a patch counts with more than a tenth of tumor.
    enough = 10 * there.sum(-1) > PATCH_PX * PATCH_PX
    patches = np.zeros((4, 4), np.int64)
    found = outcome["predicted"][kept][inside]
    np.add.at(patches, (there.argmax(-1)[enough], found[enough]), 1)
    record = results[RULES[0]].record
    return {
        "index": index,
        "seed": FIRST_SEED[cohort] + index,
        "truth": {r: guidelines.decide(counts.tolist(), r).score for r in RULES},
        "predicted": {r: results[r].score for r in RULES},
        "status": results[RULES[0]].status,
        "code": results[RULES[0]].code,
        "review": {r: results[r].review_required for r in RULES},
        "flags": record["review_flags"],
        "out_of_domain_share": (record["domain"] or {}).get("outside_share"),
        "true_fractions": [round(float(n / counts.sum()), 5) for n in counts],
        "found_fractions": record["fractions"],
        "tumor_dice": 2.0 * int((mask & truth).sum()) / max(both, 1),
        "patches": patches.tolist(),
        "render_cpu_s": round(rendered - begin, 2),
        "measure_cpu_s": round(measured - rendered, 2),
    }


def cohort_rows(
    package: MethodPackage, cohort: str, count: int, side_px: int, kept: Path | None
) -> list[Row]:
    """Rows of a cohort; those in `kept` (JSON lines) are not computed again."""
    # What a row depends on, apart from code: a kept row of another package is ignored.
    models = [model.sha256[:16] for model in package.models]
    key = [cohort, side_px, *models]
    rows: dict[int, Row] = {}
    if kept is not None and kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            stored = json.loads(line)
            if stored["key"] == key:
                rows[stored["row"]["index"]] = stored["row"]
    for index in range(count):
        if index in rows:
            continue
        rows[index] = score_slide(package, cohort, index, side_px)
        if kept is not None:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "row": rows[index]}) + "\n")
        sys.stderr.write(f"{cohort} {index + 1}/{count}\n")
    return [rows[index] for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--count", type=int, default=40, help="slides per cohort")
    parser.add_argument("--side-px", type=int, default=SIDE_PX)
    parser.add_argument("--cohort", choices=COHORTS, action="append")
    parser.add_argument("--model", help="a package's folder, not the shipped one")
    parser.add_argument("--rows", type=Path, help="keep rows here, to go on later")
    options = parser.parse_args()
    package = load_package(options.model)
    cohorts: dict[str, Any] = {}
    for cohort in options.cohort or COHORTS:
        rows = cohort_rows(
            package, cohort, options.count, options.side_px, options.rows
        )
        cohorts[cohort] = {**summarize(rows), "rows": rows}
    report = {
        "question": "How right is the shipped package on phantoms it never saw?",
        "synthetic": True,
        "package": package.name,
        "models_sha256": {
            "segment": package.segment.sha256 if package.segment else None,
            "classify": package.classify.sha256,
        },
        "side_px": options.side_px,
        "spacing_um": 1.0,
        "cohorts": cohorts,
        "machine": machine(),
        "versions": versions("numpy"),
    }
    store(report, options.json)
    for cohort, values in cohorts.items():
        brief = {k: v for k, v in values.items() if k not in ("rows", "worst", "best")}
        print(cohort, json.dumps(brief, indent=1))


if __name__ == "__main__":
    main()
