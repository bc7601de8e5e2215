# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the papers' printed matrices, hand-worked tables, folders, bad input."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages import write_method
from PIL import Image
from slides import paint, write_slide

import her2fast
from her2fast.cli import run as cli_run
from her2fast.errors import UsageError
from her2fast.evaluation import metrics
from her2fast.evaluation.cases import collect_results, read_fractions, read_labels
from her2fast.evaluation.dice import dice_by_label, overlap_px
from her2fast.evaluation.figures import density
from her2fast.evaluation.page import write_evaluation

LABELS = ("0", "1+", "2+", "3+")


def test_khameneh_table_5() -> None:
    """Printed with the prediction in rows; kappa .79, accuracy .865 (45 of 52)."""
    printed = [[23, 3, 0], [0, 10, 3], [0, 1, 12]]
    truth, predicted = metrics.from_matrix(np.transpose(printed).tolist())
    found = metrics.agreement(truth, predicted, ("0/1+", "2+", "3+"))
    assert round(found["kappa"], 2) == 0.79
    assert round(found["accuracy"], 3) == 0.865
    assert found["confusion"] == np.transpose(printed).tolist()
    assert found["per_class"]["2+"]["recall"] == pytest.approx(10 / 14)
    assert found["per_class"]["2+"]["precision"] == pytest.approx(10 / 13)
    assert found["per_class"]["2+"]["specificity"] == pytest.approx(35 / 38)


def test_oliveira_table_2() -> None:
    """All five positives right, one of three negatives called positive (O3)."""
    truth, predicted = metrics.from_matrix([[2, 1], [0, 5]])
    found = metrics.agreement(truth, predicted, ("negative", "positive"))
    assert round(100 * found["balanced_accuracy"], 1) == 83.3  # printed as accuracy
    assert round(100 * found["weighted_precision"], 1) == 89.6
    assert round(100 * found["weighted_recall"], 1) == 87.5
    assert round(100 * found["weighted_f1"], 1) == pytest.approx(86.7, abs=0.11)
    assert found["accuracy"] == 7 / 8
    agreed = metrics.percent_agreement(truth, predicted)
    assert (agreed["ppa"]["hits"], agreed["ppa"]["of"]) == (5, 5)
    assert agreed["npa"]["share"] == pytest.approx(2 / 3)
    low, high = agreed["npa"]["interval"]  # Wilson, 2 of 3
    assert (round(low, 4), round(high, 4)) == (0.2077, 0.9385)


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40
    )
)
@settings(max_examples=12, deadline=None)
def test_views_agree_with_plain_counting(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    for view, (names, kinds) in metrics.VIEWS.items():
        a, b = metrics.seen_as(truth, view), metrics.seen_as(predicted, view)
        found = metrics.agreement(a, b, names)
        seen = [(kinds[t], kinds[p]) for t, p in pairs]
        assert found["accuracy"] == pytest.approx(
            sum(t == p for t, p in seen) / len(seen)
        )
        for kind, name in enumerate(names):
            hits = sum(t == p == kind for t, p in seen)
            true = sum(t == kind for t, _ in seen)
            called = sum(p == kind for _, p in seen)
            rest = sum(t != kind and p != kind for t, p in seen)
            figures = found["per_class"][name]
            for key, top, bottom in (
                ("recall", hits, true),
                ("precision", hits, called),
                ("specificity", rest, len(seen) - true),
                ("f1", 2 * hits, true + called),
            ):
                if bottom:
                    assert figures[key] == pytest.approx(top / bottom), (view, key)
                else:
                    assert math.isnan(figures[key])


def test_kappa_of_one_class_is_not_defined() -> None:
    same = np.zeros(5, np.int64)
    found = metrics.headline(same, same)
    assert math.isnan(found["kappa"])
    assert found["macro_f1"] == 1.0


@given(
    cells=st.lists(st.integers(0, 5), min_size=16, max_size=16).filter(any),
)
@settings(max_examples=25, deadline=None)
def test_figures_of_the_bootstrap_are_scikit_learns(cells: list[int]) -> None:
    table = np.array(cells).reshape(4, 4)
    got = metrics.headline_of_tables(table[None])
    for name, want in metrics.headline(*metrics.from_matrix(table.tolist())).items():
        assert float(got[name][0]) == pytest.approx(want, nan_ok=True), name


def test_bootstrap_draws_patients_whole() -> None:
    patients = ["a"] * 9 + ["b"]
    truth = np.zeros(10, np.int64)
    predicted = np.array([0] * 9 + [1])
    tables = metrics.patient_tables(patients, truth, predicted, 2)
    assert tables.tolist() == [[[9, 0], [0, 0]], [[0, 1], [0, 0]]]
    drawn = metrics.drawn_tables(tables, 200, 1)
    kinds = {tuple(table.ravel().tolist()) for table in drawn}
    assert kinds == {(18, 0, 0, 0), (9, 1, 0, 0), (0, 2, 0, 0)}
    np.testing.assert_array_equal(drawn, metrics.drawn_tables(tables, 200, 1))
    found = metrics.percentiles(metrics.headline_of_tables(drawn))
    assert found["accuracy"] == [0.0, 1.0]
    assert metrics.percentiles({"x": np.array([math.nan])}) == {"x": [None, None]}


def test_bland_altman_and_auc_by_hand() -> None:
    found = metrics.bland_altman(np.array([0.0, 0.2]), np.array([0.1, 0.4]))
    assert found["bias"] == pytest.approx(0.15)
    spread = 1.96 * math.sqrt(0.005)
    assert found["limits"] == pytest.approx([0.15 - spread, 0.15 + spread])
    assert found["mean_absolute_error"] == pytest.approx(0.15)
    shares = np.array([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0], [0.5, 0.5, 0, 0]])
    assert metrics.area_under_curve(np.array([0, 1, 0]), shares, 1) == 1.0
    assert metrics.area_under_curve(np.array([0, 0, 1]), shares, 1) == 0.5
    assert metrics.area_under_curve(np.array([0, 0, 0]), shares, 1) is None


def test_density_is_a_density() -> None:
    grid = np.linspace(0, 1, 501)
    for values in ([0.0] * 5, [1.0] * 6, [0.1, 0.5, 0.6, 0.61, 0.9]):
        height = density(np.array(values), grid)
        area = float(((height[1:] + height[:-1]) / 2).sum() * (grid[1] - grid[0]))
        assert area == pytest.approx(1.0, abs=0.02)


def _record(
    folder: Path, name: str, score: int | None, shares: tuple[float, ...], **more: Any
) -> None:
    record = {
        "slide": {"name": name},
        "status": "indeterminate" if score is None else "scored",
        "code": "NO_TUMOR" if score is None else None,
        "score": None if score is None else LABELS[score],
        "guideline": {"rule_set": "pham-2022"},
        "fractions": None if score is None else list(shares),
        "models": [{"sha256": "ab" * 32}],
        "review_flags": [],
        **more,
    }
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "results" / f"{name}.json").write_text(json.dumps(record))


SHARES = ((1.0, 0, 0, 0), (0.6, 0.4, 0, 0), (0.3, 0.3, 0.4, 0), (0, 0, 0.3, 0.7))


def _study(folder: Path) -> tuple[Path, Path, Path]:
    """Eight slides; "second" is right in all, "first" calls 0 a 1+ and misses one."""
    rows = ["slide,label,patient,split,reader_1,reader_2"]
    for number in range(8):
        label = number % 4
        name = f"s{number}.svs" if number else "=s0.svs"
        rows.append(
            f"{name},{LABELS[label]},p{number // 2},test,{LABELS[label]},"
            f"{LABELS[max(0, label - 1)]}"
        )
        called = max(label, 1)
        first = None if number == 7 else called
        _record(folder / "first", name, first, SHARES[called])
        _record(folder / "second", name, label, SHARES[label])
    rows.append("other.svs,0,p9,train,,")
    _record(folder / "first", "stranger.svs", 0, SHARES[0])
    labels = folder / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    return folder / "first", folder / "second", labels


def test_two_folders_are_compared(tmp_path: Path) -> None:
    first, second, labels = _study(tmp_path)
    truth = tmp_path / "truth.csv"
    lines = ["slide,0,1+,2+,3+"]
    lines += [
        f"{'=s0' if not n else f's{n}'}.svs,{','.join(map(str, SHARES[n % 4]))}"
        for n in range(8)
    ]
    truth.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    content = write_evaluation(
        out,
        {"first": first, "second": second},
        labels,
        split="test",
        fractions=truth,
        replicates=20,
    )
    one, two = content["results"]["first"], content["results"]["second"]
    assert one["scored"] == 7
    assert one["not_scored"] == {"NO_TUMOR": 1}
    assert one["unlabelled"] == 1
    assert one["views"]["4-class"]["accuracy"] == pytest.approx(5 / 7)
    assert one["accuracy_all"] == pytest.approx(5 / 8)
    assert one["zero_against_one"]["table"] == [[0, 2], [0, 2]]
    assert [row["slide"] for row in one["discordant"]] == ["=s0.svs", "s4.svs"]
    assert one["views"]["3-class"]["accuracy"] == 1.0
    assert two["views"]["4-class"]["macro_f1"] == 1.0
    assert two["fraction_mae"] == 0.0
    assert one["fractions"]["0"]["bias"] == pytest.approx(-0.8 / 7)
    difference = content["differences"]["second - first"]
    assert difference["slides"] == 7
    assert difference["accuracy"] == pytest.approx(2 / 7)
    readers = {(t["rows"], t["columns"]): t for t in content["readers"]}
    assert readers["reader_1", "label"]["kappa"] == 1.0
    assert readers["reader_1", "reader_2"]["accuracy"] == pytest.approx(2 / 8)
    assert json.loads((out / "evaluation.json").read_text()) == content
    page = (out / "evaluation.html").read_text()
    assert page.count("data:image/png") == 7
    assert "http" not in page.replace("http-equiv", "")
    for path in (out / "figures").iterdir():
        with Image.open(path) as picture:
            assert picture.width > 200
            assert len(set(picture.convert("L").tobytes())) > 10
    rows = list(csv.reader(io.StringIO((out / "discordant.csv").read_text())))
    assert rows[1][:4] == ["first", "'=s0.svs", "0", "1+"]


def test_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, labels = _study(tmp_path)
    common = ["--labels", str(labels), "--replicates", "10", "-o", str(tmp_path / "o")]
    assert cli_run(["validate", str(second), *common]) == 0
    assert "second: 8 of 9 slides scored, accuracy 1.000" in capsys.readouterr().out
    content = json.loads((tmp_path / "o" / "evaluation.json").read_text())
    assert content["results"]["second"]["not_scored"] == {"missing": 1}
    both = [f"a={first}", f"b={second}"]
    assert cli_run(["evaluate", *both, "--split", "test", *common]) == 0
    assert cli_run(["evaluate", str(first), *common]) == 64
    assert cli_run(["evaluate", both[0], both[0], *common]) == 64
    assert cli_run(["validate", str(tmp_path / "no"), *common]) == 64


def test_dice_of_a_measurement(tmp_path: Path) -> None:
    """All tissue is tumor for this package; drawn is half of it and some glass."""
    slide = write_slide(tmp_path / "a.svs", paint((512, 512), (2,)))
    package = write_method(tmp_path / "package", segment=False)
    result = her2fast.score(slide, model=package, allow_unknown_model=True)
    assert result.measurement is not None
    folder = tmp_path / "results"
    _record(folder, "a.svs", 2, SHARES[2])
    (folder / "measurements").mkdir()
    path = folder / "measurements" / "a.svs.h2m"
    path.write_bytes(result.measurement.to_bytes())
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    mask = np.zeros((512, 512), np.uint8)
    mask[:256, 32:] = 255
    Image.fromarray(mask).save(drawn / "a.png")
    tissue = result.measurement.core.tumor_mask(0, 0, 512, 512) > 0
    both = int((tissue & (mask > 0)).sum())
    assert both > 0
    assert overlap_px(path, drawn / "a.png") == (both, tissue.sum(), 256 * 480)
    labels = tmp_path / "l.csv"
    labels.write_text("slide,label\na.svs,2+\n")
    found = collect_results("r", folder, read_labels(labels))
    figures = dice_by_label(found, drawn)
    assert figures["2+"]["dice"] == pytest.approx(2 * both / (tissue.sum() + 256 * 480))
    assert figures["2+"]["recall"] == pytest.approx(both / (256 * 480))
    assert figures["0"] == {
        "slides": 0,
        "dice": None,
        "precision": None,
        "recall": None,
    }
    (drawn / "a.png").rename(drawn / "b.png")
    with pytest.raises(UsageError, match="no slide of r has a measurement"):
        dice_by_label(found, drawn)


def test_bad_input_is_named(tmp_path: Path) -> None:
    first, _, labels = _study(tmp_path)
    with pytest.raises(UsageError, match="no slide with a label in split 'val'"):
        read_labels(labels, "val")
    known = read_labels(labels, "test")
    _record(first, "x.svs", 1, SHARES[1], guideline={"rule_set": "asco-cap-2018"})
    with pytest.raises(UsageError, match="several rule sets"):
        collect_results("a", first, known)
    _record(first, "x.svs", 1, SHARES[1], models=[{"sha256": "cd" * 32}])
    with pytest.raises(UsageError, match="2 different models"):
        collect_results("a", first, known)
    (tmp_path / "empty/results").mkdir(parents=True)
    with pytest.raises(UsageError, match="need a results folder"):
        collect_results("a", tmp_path / "empty", known)
    path = tmp_path / "f.csv"
    path.write_text("slide,0,1+,2+,3+\na.svs,0.5,0.6,0,0\n")
    with pytest.raises(UsageError, match=r"line 2: need shares .* add to 1"):
        read_fractions(path)
    path.write_text("slide,0,1+\n")
    with pytest.raises(UsageError, match=r"need the columns slide,0,1\+,2\+,3\+"):
        read_fractions(path)
    path.write_text("slide,label\na/x.svs,0\nb/x.svs,0\n")
    with pytest.raises(UsageError, match=r"two slides are named 'x\.svs'"):
        read_labels(path)
    path.write_text("slide,label\na.svs,\n")
    with pytest.raises(UsageError, match=r"without label: a\.svs"):
        read_labels(path)


def _cells(count: int, complete: int, h_score: float) -> dict[str, Any]:
    return {
        "count": count,
        "complete_cells": complete,
        "unusual_cells": count // 10,
        "dropped_cells": 3,
        "h_score": h_score,
    }


def test_results_by_cells_beside_results_by_areas(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = ["slide,label"]
    use = "research use only; trained on synthetic data"
    for number, (label, called) in enumerate([(0, 0), (1, 0), (1, 1), (3, 3)]):
        name = f"s{number}.svs"
        rows.append(f"{name},{LABELS[label]}")
        counted = _cells(200 + number, 20, 10.0 * number)
        more = {"cells": counted, "intended_use": use}
        _record(tmp_path / "cells", name, called, SHARES[called], **more)
        _record(tmp_path / "areas", name, label, SHARES[label])
    rows.append("few.svs,2+")
    few = {"code": "TOO_LITTLE_TUMOR", "cells": _cells(7, 0, 0.0)}
    _record(tmp_path / "cells", "few.svs", None, SHARES[2], **few)
    labels.write_text("\n".join(rows) + "\n")
    content = write_evaluation(
        tmp_path / "out",
        {"areas": tmp_path / "areas", "cells": tmp_path / "cells"},
        labels,
        replicates=10,
    )
    areas, cells = content["results"]["areas"], content["results"]["cells"]
    assert (areas["counted"], cells["counted"]) == ("tumor", "cells")
    assert "cells" not in areas
    assert (areas["intended_use"], cells["intended_use"]) == ([], [use])
    assert cells["not_scored"] == {"TOO_LITTLE_TUMOR": 1}
    assert cells["cells"]["1+"] == {
        "slides": 2,
        "cells": 403,
        "fewest": 201,
        "dropped": 6,
        "complete_share": pytest.approx(40 / 403),
        "unusual_share": pytest.approx(40 / 403),
        "h_score": {"least": 10.0, "median": 15.0, "most": 20.0},
    }
    # What has no score is in no figure of cells.
    assert cells["cells"]["2+"]["slides"] == 0
    assert cells["cells"]["2+"]["complete_share"] is None
    page = (tmp_path / "out/evaluation.html").read_text()
    assert page.count("Cells by label") == 1
    assert "Shares of cells by label" in page
    assert "Shares of tumor by label" in page
    assert page.count(use) == 1
    text = (tmp_path / "out/discordant.csv").read_text()
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["results"], row["slide"], row["cells"]) == ("cells", "s1.svs", "201")
