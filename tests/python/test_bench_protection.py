# SPDX-License-Identifier: Apache-2.0
"""Figures of bench/protection by hand, and the scorer that makes no mistake."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast import _core, guidelines
from her2fast.phantom import slide as slides
from her2fast.phantom import truth
from her2fast.phantom.spec import check_spec

FOLDER = Path(__file__).resolve().parents[2] / "bench/protection"


def load(name: str) -> Any:
    if not FOLDER.is_dir():
        pytest.skip("the benches are not part of an sdist")
    place = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"protection_{name}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def row(group: str, name: str, score: str | None, *flags: str, **more: Any) -> Any:
    return {
        "group": group,
        "index": 0,
        "name": name,
        "truth": "0",
        "score": score,
        "status": "scored" if score else "indeterminate",
        "code": None if score else "NO_TUMOR",
        "flags": list(flags),
        "fractions": [1.0, 0.0, 0.0, 0.0],
        "out_of_focus_share": 0.0,
        "perfect": {"status": "scored", "score": "3+", "flags": ["CONTROL_SUSPECTED"]},
        **more,
    }


def test_control_figures_by_hand():
    rows = [
        row("control", "3+", "3+", "CONTROL_SUSPECTED"),
        row("control", "3+", "2+", "BORDERLINE"),
        row("control", "3+", "3+", index=7),
        row("control", "3+", "0", index=8),
        row("control", "3+", None),
    ]
    rows[4]["perfect"] = {"status": "scored", "score": "0", "flags": []}
    got = load("figures").summarize(rows)["control"]
    assert got["slides"] == 5
    assert got["scored"] == 4
    assert got["not_scored"] == {"NO_TUMOR": 1}
    assert got["without_any_flag"] == 2
    assert got["without_any_flag_indices"] == [7, 8]
    assert got["wrong_without_any_flag"] == 1
    assert got["control_suspected"] == 1
    assert got["wrong"] == 3
    assert got["wrong_without_control_suspected"] == 2
    assert got["with_a_perfect_scorer"]["without_any_flag"] == 1


def test_blur_and_artifact_figures_by_hand():
    rows = [
        row("blur", "0", "0"),
        row("blur", "3", "1+", "OUT_OF_FOCUS", out_of_focus_share=0.9),
        row("blur", "3", "1+", out_of_focus_share=0.1),
        row("blur", "3", None, out_of_focus_share=None),
        row("artifact", "clean", "0"),
        row("artifact", "pen", "1+", fractions=[0.7, 0.1, 0.1, 0.1]),
        row("artifact", "dust", "1+", "BORDERLINE", fractions=[0.9, 0.1, 0.0, 0.0]),
    ]
    rows += [row("pieces", "cores", "3+", "CONTROL_SUSPECTED"), row("pieces", "x", "0")]
    rows[-1]["perfect"] = {"status": "scored", "score": "0", "flags": []}
    got = load("figures").summarize(rows)
    assert got["pieces_without_control"] == {
        "slides": 2,
        "control_suspected": 1,
        "control_suspected_by_a_perfect_scorer": 1,
    }
    assert got["blur"]["0"]["out_of_focus"] == 0
    three = got["blur"]["3"]
    assert (three["slides"], three["out_of_focus"], three["not_scored"]) == (3, 1, 1)
    assert (three["wrong"], three["wrong_without_any_flag"]) == (2, 1)
    assert three["out_of_focus_share"] == [0.1, 0.9]
    pen, dust = got["artifact"]["pen"], got["artifact"]["dust"]
    assert (pen["score_rises"], pen["score_rises_without_flag"]) == (1, 1)
    assert (dust["score_rises"], dust["score_rises_without_flag"]) == (1, 0)
    assert pen["change_of_2_and_3_share"] == [0.2, 0.2, 0.2]
    assert got["artifact"]["clean"]["score_rises"] == 0


def test_perfect_scorer_is_right_and_suspects_the_control():
    """Through the session: true tumor, true classes; a 3+ core beside a 0 slide."""
    spec = check_spec(
        {
            "slide": {"width_um": 2200, "height_um": 1000},
            "tumor": {"mixture": [1.0, 0.0, 0.0, 0.0], "free_share": 0.0},
            "control": {"classes": ["3+"], "diameter_um": 700, "distance_um": 400},
            "scanner": {"profile": "reference"},
        },
        "test",
    )
    drawn = slides.draw_slide(spec, 3)
    camera = slides.Camera(drawn)
    rgb = np.concatenate(
        [camera.rows(y, min(256, 1000 - y)) for y in range(0, 1000, 256)]
    )
    decision = _core.decide(
        load("perfect").measure(drawn, rgb), rule_set="asco-cap-2018"
    )
    maps = truth.Maps(drawn)
    counts = maps.counts()
    # Tumor where the session's own mask sees no tissue is lost, and under a tenth.
    found = np.array(decision["class_px"])
    wanted = np.array([counts[1] + counts[5], 0, 0, counts[8]])
    assert found[[1, 2]].sum() == 0
    np.testing.assert_allclose(found, wanted, rtol=0.08)
    both = guidelines.decide(wanted.tolist(), "asco-cap-2018").score
    assert decision["guideline"]["score"] == both
    assert "CONTROL_SUSPECTED" in decision["review_flags"]
