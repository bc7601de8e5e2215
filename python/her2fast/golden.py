# SPDX-License-Identifier: Apache-2.0
"""Exact areas of the phantoms that ship: what `make golden` stores and doctor checks.

On one CPU capability and torch version the areas are equal to the pixel; elsewhere
near-ties may fall otherwise, and the difference is bounded by a tolerance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from her2fast.export.atomic import atomic_write
from her2fast.models.package import load_package
from her2fast.scoring import Result, score

if TYPE_CHECKING:
    from her2fast.run import SlideOutcome

__all__ = [
    "DEMO_DIR",
    "GOLDEN",
    "compare",
    "demo_paths",
    "fingerprint",
    "measure",
    "read_golden",
    "read_truth",
    "unexpected",
    "write_golden",
]

DEMO_DIR = Path(__file__).resolve().parent / "data" / "demo"
GOLDEN = DEMO_DIR / "golden.json"
#: Of a slide's tumor, on another CPU or torch: half a percent.
TOLERANCE_DIVISOR = 200


def demo_paths() -> list[Path]:
    """The slides that ship, by name."""
    return sorted(DEMO_DIR.glob("*.svs"))


def read_truth() -> dict[str, Any]:
    """What each shipped slide was drawn as, and how scoring it must end."""
    return _read(DEMO_DIR / "truth.json")


def read_golden() -> dict[str, Any]:
    """The stored areas."""
    return _read(GOLDEN)


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    assert isinstance(value, dict)
    return value


def measure() -> dict[str, Any]:
    """Scores the shipped slides one after the other; what `golden.json` holds."""
    package = load_package(None)
    package.require_known()
    slides: dict[str, Any] = {}
    device = None
    for path in demo_paths():
        result = score(path, model=package)
        slides[path.stem] = areas(result)
        device = result.record["device"] or device
    return {"device": device, "slides": slides}


def areas(result: Result) -> dict[str, Any]:
    """What is compared of one slide."""
    record = result.record
    keys = ("status", "code", "score", "review_flags", "class_px", "class_patches")
    return {key: record[key] for key in keys}


def compare(found: Mapping[str, Any], golden: Mapping[str, Any]) -> list[str]:
    """In words, where two `measure` differ; nothing on another machine if near."""
    same_machine = found["device"] == golden["device"]
    wrong = []
    for name in sorted({*found["slides"], *golden["slides"]}):
        got, want = found["slides"].get(name), golden["slides"].get(name)
        if got == want:
            continue
        if same_machine or not got or not want or not _near(got, want):
            wrong.append(f"{name}: need {want}, got {got}")
    return wrong


def _near(got: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    """Equal but for pixels within the tolerance, and flags set or not with them."""
    if any(got[key] != want[key] for key in ("status", "code", "score")):
        return False
    if not got["class_px"] or not want["class_px"]:
        return bool(got["class_px"] == want["class_px"])
    pairs = zip(got["class_px"], want["class_px"], strict=True)
    apart = [abs(int(a) - int(b)) for a, b in pairs]
    return max(apart) * TOLERANCE_DIVISOR <= int(sum(want["class_px"]))


def unexpected(outcomes: Iterable[SlideOutcome]) -> list[str]:
    """In words, which of the shipped slides did not end as they were drawn to."""
    truth = read_truth()["slides"]
    wrong = []
    for outcome in outcomes:
        slide = truth[Path(outcome.slide).stem]
        got = outcome.score or outcome.code
        if got != slide["outcome"]:
            wrong.append(f"{outcome.slide}: need {slide['outcome']}, got {got}")
    return wrong


def write_golden() -> dict[str, Any]:
    """Stores the areas anew; raises where a slide does not end as it must."""
    value, truth = measure(), read_truth()["slides"]
    for name, slide in value["slides"].items():
        wanted = (truth[name]["status"], truth[name]["outcome"])
        ended = (slide["status"], slide["score"] or slide["code"])
        if ended != wanted:
            raise ValueError(f"{name}: must end as {wanted}, got {ended}")
    atomic_write(GOLDEN, (json.dumps(value, indent=1) + "\n").encode())
    return value


def fingerprint() -> str:
    """What the CHANGELOG names the stored areas by: the first digits of their hash."""
    return hashlib.sha256(GOLDEN.read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    write_golden()
    print(f"Say why in CHANGELOG.md under Scores, and name: golden {fingerprint()}")
