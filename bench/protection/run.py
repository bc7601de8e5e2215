# SPDX-License-Identifier: Apache-2.0
"""Does a score that must not be trusted carry a flag? See README.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

import her2fast
from her2fast import _core, guidelines
from her2fast.models.package import load_package
from her2fast.opened_slide import open_input
from her2fast.phantom.cohort import DEFAULT_JPEG_QUALITY
from her2fast.phantom.slide import Camera
from her2fast.scoring import Scorer, decide

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases import GROUPS, Case  # noqa: E402
from figures import Row, summarize  # noqa: E402
from perfect import measure as measure_perfectly  # noqa: E402
from pieces import piece_cases  # noqa: E402

from conditions import machine, store, versions  # noqa: E402

#: What draws the slides of a group, by number.
ALL_GROUPS = {**GROUPS, "pieces": piece_cases}
#: Groups that a scorer without mistakes sees too.
IDEAL = ("control", "pieces")
RULES = "asco-cap-2018"


def prepare(case: Case, path: Path) -> Row:
    """Writes the slide and returns its truth."""
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
        "true_fractions": [round(n / max(sum(own), 1), 4) for n in own],
        "perfect": perfect_row(case, rgb) if case.group in IDEAL else None,
    }


def prepared(group: str, index: int, folder: Path) -> list[tuple[Row, Path]]:
    """Truth and file of every slide of a case; what `folder` holds is used again."""
    stored = folder / f"{group}-{index}.json"
    key = drawn_by()
    if stored.is_file():
        value = json.loads(stored.read_text(encoding="utf-8"))
        if value["key"] == key:
            return [(row, folder / file) for row, file in value["slides"]]
    slides: list[tuple[Row, Path]] = []
    for number, case in enumerate(ALL_GROUPS[group](index)):
        path = folder / f"{group}-{index}-{number}.svs"
        slides.append((prepare(case, path), path))
    value = {"key": key, "slides": [(row, path.name) for row, path in slides]}
    stored.write_text(json.dumps(value), encoding="utf-8")
    return slides


@cache
def drawn_by() -> str:
    """A hash of the code that the slides depend on."""
    digest = hashlib.sha256()
    folder = Path(her2fast.__file__).parent / "phantom"
    for file in [*sorted(folder.glob("*.py")), HERE / "cases.py", HERE / "perfect.py"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def score(scorer: Scorer, truth: Row, path: Path) -> Row:
    """What the scorer says of a file, as a user would ask it, beside the truth."""
    begun = time.process_time()
    result = decide(scorer.measure(open_input(path)), guideline=RULES)
    record = result.record
    return {
        **truth,
        "status": result.status,
        "code": result.code,
        "score": result.score,
        "flags": list(record["review_flags"]),
        "fractions": record["fractions"],
        "out_of_focus_share": record["out_of_focus_share"],
        "islands": record["islands"],
        "domain": record["domain"],
        "score_cpu_s": round(time.process_time() - begun, 2),
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


def line(row: Row) -> str:
    """One slide, for who waits."""
    what = f"{row['truth']} -> {row['score'] or row['code']}"
    flags = " ".join(row["flags"])
    return f"{row['group']} {row['index']} {row['name']}: {what} {flags}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--control", type=int, default=100, help="slides")
    parser.add_argument("--blur", type=int, default=6, help="slides, each often")
    parser.add_argument("--artifact", type=int, default=6, help="slides, as above")
    parser.add_argument("--keep", type=Path, help="keep slides here, to score again")
    parser.add_argument("--draw-only", action="store_true", help="fill --keep")
    parser.add_argument("--pieces", type=int, default=8, help="slides")
    options = parser.parse_args()
    package = load_package(None)
    scorer = Scorer(package, workers=1)
    counts = {name: getattr(options, name) for name in ALL_GROUPS}
    rows: list[Row] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for group, count in counts.items():
            for index in range(count):
                for truth, path in prepared(group, index, folder):
                    if options.draw_only:
                        continue
                    rows.append(score(scorer, truth, path))
                    sys.stderr.write(line(rows[-1]))
                    if options.keep is None:
                        path.unlink()
    if options.draw_only:
        return
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
        "machine": machine(),
        "versions": versions("numpy"),
    }
    store(report, options.json)
    print(json.dumps({k: v for k, v in report.items() if k != "rows"}, indent=1))


if __name__ == "__main__":
    main()
