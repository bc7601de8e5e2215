# SPDX-License-Identifier: Apache-2.0
"""The study's panel, cohort and measures, by hand; nothing is trained here."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).resolve().parents[2] / "bench/study"
MODULES = (
    "design", "readers", "draw", "cohort", "stages", "measures", "pages", "summary",
)  # fmt: skip


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The study's modules, which import each other by their bare names."""
    if not FOLDER.is_dir():
        pytest.skip("the benches are not part of an sdist")
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, os.fspath(FOLDER))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path.remove(os.fspath(FOLDER))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def drawn(study: Any, name: str, score: str, areas: tuple[int, ...], part: str) -> Any:
    group = study.design.Group(part, score, "pale-blue", 10, 1)
    return study.draw.Drawn(name, group, Path("nowhere"), areas)


def test_the_cohort_has_the_papers_counts(study: Any) -> None:
    groups = study.design.groups()
    by_part: dict[str, int] = {}
    for group in groups:
        by_part[group.part] = by_part.get(group.part, 0) + group.count
    counts = {"train": 49 + 76 + 109 + 36, "known": 104, "test": 50, "test2": 200}
    assert by_part == counts
    assert len({group.seed for group in groups}) == len(groups)
    assert len({group.name for group in groups}) == len(groups)
    trained = {g.profile for g in groups if g.part in ("train", "known")}
    assert {g.profile for g in groups if g.part.startswith("test")} == {"unseen"}
    assert "unseen" not in trained
    ones = [g.count for g in groups if g.part == "train" and g.score == "0"]
    assert ones == [25, 24]


def test_a_reader_who_shifts_a_tenth_reads_the_next_class(study: Any) -> None:
    read = study.readers.read_slide
    none = np.zeros(4)
    assert read((1.0, 0.0, 0.0, 0.0), 0.0, none) == 0
    assert read((1.0, 0.0, 0.0, 0.0), 0.099, none) == 0
    assert read((1.0, 0.0, 0.0, 0.0), 0.10, none) == 1
    assert read((0.0, 0.0, 0.0, 1.0), -0.95, none) == 2
    assert read((0.0, 0.0, 0.0, 1.0), 0.5, none) == 3
    # a share of 12 % that looks half as large is none
    assert read((0.88, 0.12, 0.0, 0.0), 0.0, none) == 1
    assert read((0.88, 0.12, 0.0, 0.0), 0.0, np.array([0, -0.7, 0, 0])) == 0


def test_the_panel_disagrees_as_asked(study: Any) -> None:
    rng = np.random.default_rng(0)
    fractions = [tuple(rng.dirichlet([1.0, 1.0, 0.5, 0.3])) for _ in range(300)]
    for wanted in (0.15, 0.30, 0.45):
        scores, agreed, _ = study.readers.panel(fractions, wanted)
        assert scores.shape == (300, 3)
        assert study.readers.disagreement(scores) == pytest.approx(wanted, abs=0.02)
        assert all(
            min(row) <= one <= max(row) for row, one in zip(scores, agreed, strict=True)
        )
    scores, agreed, spread = study.readers.panel(fractions, 0.0)
    assert spread == 0.0
    assert agreed == [study.readers.read_slide(f, 0.0, np.zeros(4)) for f in fractions]
    assert study.readers.consensus([1, 2, 2]) == 2
    assert study.readers.consensus([3, 0, 1]) == 1


def test_the_manifest_divides_and_halves(study: Any, tmp_path: Path) -> None:
    slides = [
        drawn(study, f"train-{s}-{n}", str(s) + "+" * (s > 0), areas, "train")
        for s, areas in enumerate(
            ((99, 1, 0, 0), (5, 5, 0, 0), (4, 1, 5, 0), (1, 1, 1, 7))
        )
        for n in range(10)
    ]
    slides.append(drawn(study, "test-0", "0", (1, 0, 0, 0), "test"))
    path = tmp_path / "all.csv"
    facts = study.cohort.write_manifest(path, slides, noise=0.0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows].count("val") == 8
    assert facts["train_slides"] == 32
    assert facts["consensus_wrong"] == 0.0
    assert rows[-1]["split"] == "test"
    assert rows[-1]["label"] == "0"
    half = tmp_path / "half.csv"
    study.cohort.write_manifest(half, slides, noise=0.0, size=0.5)
    with half.open(newline="") as file:
        few = {row["slide"] for row in csv.DictReader(file)}
    assert len(few) == 5 * 4 + 1
    assert few < {row["slide"] for row in rows}


def test_patch_truth_is_the_class_map(study: Any, tmp_path: Path) -> None:
    classes = np.zeros((100, 130), np.uint8)
    classes[:64, :64] = 1
    classes[:10, :64] = 4
    classes[70:, 128:] = 3
    classes[0, 64:80] = 7  # control tissue is nobody's tumor
    Image.fromarray(classes).save(tmp_path / "class_map.png")
    one = drawn(study, "x", "0", (1, 0, 0, 0), "test")
    one = type(one)(one.name, one.group, tmp_path, one.areas)
    areas = study.cohort.patch_areas(one)
    assert areas.shape == (2, 3, 4)
    assert areas[0, 0].tolist() == [54 * 64, 0, 0, 10 * 64]
    assert areas[1, 2].tolist() == [0, 0, 30 * 2, 0]
    assert areas.sum() == 64 * 64 + 60


def table(study: Any, classes: list[list[int]], true: list[list[int]]) -> Any:
    """Logits that call the given classes; patches of 4096 true pixels of a class."""
    called = np.concatenate([np.array(c, np.int64) for c in classes])
    kinds = np.concatenate([np.array(t, np.int64) for t in true])
    areas = np.zeros((len(kinds), 4), np.int64)
    areas[np.arange(len(kinds)), kinds] = 4096
    return study.measures.Table(
        {
            "test_logits": np.eye(4, dtype=np.float32)[called],
            "test_offsets": np.cumsum([0, *[len(c) for c in classes]]),
            "test_names": np.array([f"test-{i}" for i in range(len(classes))]),
            "test_found_px": np.full(len(called), 1000),
            "test_true_mask_px": np.full(len(called), 2000),
            "test_true_areas": areas,
        }
    )


def test_figures_by_hand(study: Any) -> None:
    truth = {
        "test-0": drawn(study, "test-0", "0", (4 * 4096, 0, 0, 0), "test"),
        "test-1": drawn(study, "test-1", "1+", (2 * 4096, 2 * 4096, 0, 0), "test"),
        "test-2": drawn(study, "test-2", "3+", (0, 0, 0, 10), "test"),
    }
    called = table(study, [[0, 0, 0, 0], [2, 1, 0, 0]], [[0, 0, 0, 0], [1, 1, 0, 0]])
    found = study.measures.figures_on_test(called, truth, fitted=None)
    assert found["slides"] == 3
    assert found["without_score"] == 1  # no patch of test-2 was kept
    assert found["confusion"] == [
        [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0],
    ]  # fmt: skip
    # F1: class 0 2/3, classes 1, 2 and 3 none
    assert found["macro_f1"] == pytest.approx((2 / 3) / 4)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["patch_accuracy"] == pytest.approx(7 / 8)
    assert found["patch_accuracy_by_class"] == [1.0, 0.5, 0.0, 0.0]
    # shares: right; (.5, .25, .25, 0) for (.5, .5, 0, 0); nothing for (0, 0, 0, 1)
    assert found["fraction_mae"] == pytest.approx((0.25 + 0.25 + 1.0) / 12)


def test_slides_of_one_test_set_can_calibrate(study: Any) -> None:
    called = table(study, [[1, 1, 0, 0], [2, 1, 0, 0]], [[0, 0, 0, 0], [1, 1, 0, 0]])
    called.columns["test_names"] = np.array(["test-0", "test2-0"])
    called.columns["test_found_px"][1] = 0  # only the true mask has this patch
    truth = {
        "test-0": drawn(study, "test-0", "0", (99, 1, 0, 0), "test"),
        "test2-0": drawn(study, "test2-0", "1+", (1, 9, 0, 0), "test2"),
    }
    own = study.measures.of_test_set(called, truth, "test")
    assert own["adapt_labels"].tolist() == [0]
    assert own["adapt_offsets"].tolist() == [0, 3]
    assert own["adapt_logits"].argmax(1).tolist() == [1, 0, 0]
    fitted = own.calibration("adapt", study.summary.Calibration(), 0)
    # a third is called 1+ where a tenth may be: 0 has to win
    assert fitted.values[0] - fitted.values[1] > 1.0
    assert fitted.facts["loss_after"] == 0.0
    moved = study.measures.figures_on_test(called, truth, fitted=fitted)
    assert moved["confusion"][0] == [1, 0, 0, 0]


def test_differences_are_paired(study: Any) -> None:
    truth = np.arange(40) % 4
    right = {"_truth": truth, "_called": truth, "macro_f1": 1.0}
    called = np.where(np.arange(40) < 8, (truth + 1) % 4, truth)
    worse = {"_truth": truth, "_called": called, "macro_f1": 0.8}
    found = study.measures.differences(
        {"a": [worse], "b": [right]}, [("b", "a")], replicates=200
    )["b - a"]
    assert found["macro_f1"] == pytest.approx(0.2)
    assert 0.05 < found["interval"][0] < 0.2 < found["interval"][1] < 0.45
    assert found["share_above_0"] == 1.0
    same = study.measures.differences({"a": [worse]}, [("a", "a")], replicates=50)
    assert same["a - a"]["interval"] == [0.0, 0.0]


def test_tables_replace_their_place_and_nothing_else(
    study: Any, tmp_path: Path
) -> None:
    page = tmp_path / study.pages.PAGE
    page.write_text("before\n<!-- curves -->\nold\n<!-- end curves -->\nafter\n")
    point = {
        "noise": 0.3, "size": 1.0, "train_slides": 16, "val_slides": 4,
        "consensus_wrong": 0.1,
        **{
            stage: {
                "known": {"macro_f1": 0.5, "patch_accuracy": 0.25},
                "both": {"macro_f1": 0.4, "patch_accuracy": 0.2},
            }
            for stage in study.design.STAGES
        },
    }  # fmt: skip
    study.pages.write_tables(tmp_path, None, {"points": [point]})
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("0.500 / 0.250") == text.count("0.400 / 0.200") == 4


def test_stored_results_hold_what_the_page_says() -> None:
    stored = FOLDER.parents[1] / "docs/study/results.json"
    if not stored.is_file():
        pytest.skip("the study's results are not part of an sdist")
    results = json.loads(stored.read_text())
    page = (stored.parent / "weak_supervision.md").read_text()
    assert results["synthetic"] is True
    for stage in ("baseline", "baseline_calibrated", "constrained", "calibrated"):
        for key in ("macro_f1", "macro_f1_3class", "patch_accuracy", "fraction_mae"):
            values = results[stage][key]
            assert len(values) >= 3
            assert all(0.0 <= value <= 1.0 for value in values)
            assert f"{np.mean(values):.3f}" in page
