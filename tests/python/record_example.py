# SPDX-License-Identifier: Apache-2.0
"""A record written by hand, in the shape of results/<slide>.json."""

from __future__ import annotations

import copy
from typing import Any

from her2fast.guidelines import decide

CLASS_PX = (20_100_000, 9_200_000, 3_267_041, 236_500)


def record(class_px=CLASS_PX, **changes: Any) -> dict[str, Any]:
    total = sum(class_px)
    decision = decide(class_px)
    guideline = {
        "rule_set": decision.rule_set,
        "floor_percent": 1,
        "ish": None,
        "score": decision.score,
        "flags": list(decision.flags),
        "review_required": decision.review_required,
        "alternative": decision.alternative,
        "binary": decision.binary,
        "three_way": decision.three_way,
        "her2_view": decision.her2_view,
        "ihc0_membrane_staining": decision.ihc0_membrane_staining,
        "margins": [
            {"cut": m.cut, "area": m.area, "margin": m.margin, "passed": m.passed}
            for m in decision.margins
        ],
    }
    made = {
        "slide": {
            "name": "S24-01234 HER2.svs",
            "size_px": [98304, 73728],
            "fingerprint": "9f2c" * 16,
            "spacing_um": [0.2528, 0.2528],
            "spacing_source": "vendor",
        },
        "working_spacing_um": 1.0,
        "reading_mode": "scaled",
        "method": {
            "name": "constrained-tiny",
            "kind": "constrained",
            "stain": "h-dab",
            "patch_px": 64,
            "calibration": {"scale_q16": [65536, 98304], "bias_q16": []},
        },
        "device": {"name": "cpu", "batch": {"classify": 32}},
        "roi_sha256": None,
        "roi_mm2": 400.5,
        "measurement_key": "1b7d" * 16,
        "decision_key": "77aa" * 16,
        "status": "scored",
        "code": None,
        "message": "",
        "score": decision.score,
        "guideline": guideline,
        "class_names": ["0", "1+", "2+", "3+"],
        "class_px": list(class_px),
        "class_mm2": [px * 1e-6 for px in class_px],
        "fractions": [px / total if total else None for px in class_px],
        "tissue_mm2": 187.25,
        "tumor_mm2": total * 1e-6,
        "dropped_tumor_mm2": 0.9,
        "dropped_tumor_share": 0.0267,
        "tiles": {
            "total": 6912,
            "read": 2944,
            "missing": 0,
            "corrupt": 0,
            "warned": 2,
        },
        "out_of_focus_share": 0.034,
        "intervals": [[0.55, 0.6731], [0.2311, 0.33], [0.0791, 0.125], [0.0, 0.02]],
        "score_probability": [0.0, 0.174, 0.826, 0.0],
        "bootstrap": {"replicates": 1000, "blocks": 31, "block_px": 960},
        "flip": {"least_px": 223_188, "least_mm2": 0.223188, "to_score": "1+"},
        "islands": {"count": 2, "score_mm2": [20.1, 0.0, 12.7, 0.0]},
        "review_required": decision.review_required,
        "review_flags": [f for f in decision.flags if f != "ULTRALOW"],
        "warnings": [],
        "models": [
            {"name": "tumor-tiny", "sha256": "ab" * 32, "synthetic": True},
            {"name": "her2-tiny", "sha256": "cd" * 32, "synthetic": True},
        ],
        "versions": {"her2fast": "0.1.0", "torch": "2.13.0"},
        "intended_use": "Research use only; trained on synthetic data. "
        "Not a medical device.",
    }
    return copy.deepcopy(made | changes)


def unscored(status: str, code: str, message: str, name: str) -> dict[str, Any]:
    return record(
        status=status,
        code=code,
        message=message,
        score=None,
        guideline=None,
        review_required=False,
        review_flags=[],
        slide={**record()["slide"], "name": name},
    )
