# SPDX-License-Identifier: Apache-2.0
"""The shipped phantoms: what they are, how they end, and the areas they must give."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from pages import Page

from her2fast import _core, cli, doctor, golden
from her2fast.guidelines import decide

ROOT = Path(__file__).resolve().parents[2]


def test_six_slides_that_are_what_their_truth_says() -> None:
    truth = golden.read_truth()
    assert truth["synthetic"] is True
    paths = golden.demo_paths()
    assert [path.stem for path in paths] == list(truth["slides"])
    outcomes = [slide["outcome"] for slide in truth["slides"].values()]
    assert outcomes == ["0", "1+", "2+", "3+", "TOO_LITTLE_TUMOR", "WRONG_STAIN"]
    for path in paths:
        slide = truth["slides"][path.stem]
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == slide["sha256"]
        assert len(data) <= 350_000
        opened = _core.Slide.open(str(path))
        assert opened.format == "aperio"
        assert [*opened.levels[0][:2]] == slide["size_px"]
        assert opened.spacing_um == pytest.approx((0.5, 0.5))
        pixels = slide["tumor_px"]
        assert slide["score_of_truth"] == decide(pixels).score
        if slide["status"] == "scored":
            assert slide["outcome"] == slide["score_of_truth"]
            # Well inside: no cut within four percentage points of the truth.
            assert all(
                abs(m.margin) > 0.4 * sum(pixels) for m in decide(pixels).margins
            )


def test_the_changelog_names_the_golden_areas() -> None:
    """A change of an area is told to those who rely on it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (scores,) = re.findall(r"^### Scores\n(.*?)^### ", text, re.DOTALL | re.MULTILINE)[
        :1
    ]
    assert f"golden {golden.fingerprint()}" in scores, (
        "golden.json changed: say why under Scores in CHANGELOG.md, with its new name, "
        f"golden {golden.fingerprint()}"
    )


def test_golden_areas_are_of_slides_that_ended_well() -> None:
    truth, stored = golden.read_truth()["slides"], golden.read_golden()["slides"]
    assert list(stored) == list(truth)
    for name, slide in stored.items():
        ended = slide["score"] or slide["code"]
        assert (slide["status"], ended) == (
            truth[name]["status"],
            truth[name]["outcome"],
        )


def test_comparison() -> None:
    want = golden.read_golden()
    assert golden.compare(want, want) == []
    near, far, other = (copy.deepcopy(want) for _ in range(3))
    near["slides"]["phantom-d"]["class_px"][0] += 1
    far["slides"]["phantom-d"]["class_px"][0] += 10_000
    other["slides"]["phantom-d"]["score"] = "2+"
    missing = {**want, "slides": {}}
    for changed in (near, far, other, missing):
        assert golden.compare(changed, want)[0].startswith("phantom-")
        changed["device"] = {"name": "cpu", "torch": "0.0"}
    # Another machine may differ by a near-tie, not by more and not in a score.
    assert golden.compare(near, want) == []
    for changed in (far, other, missing):
        assert golden.compare(changed, want)


@pytest.mark.slow
def test_demo_shows_six_slides(tmp_path: Path, capsys) -> None:
    out = tmp_path / "demo"
    assert cli.run(["demo", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"open:    {out / 'cohort.html'}" in printed
    for words in ("synthetic", "research use only", "[6/6] phantom-f.svs: refused"):
        assert words in printed
    page = Page((out / "cohort.html").read_bytes())
    assert "4 of 6 slides scored" in page.text
    assert len(page.all("a")) == 6
    refused = Page((out / "reports/phantom-f.html").read_bytes())
    assert len(refused.all("image")) == 1  # the slide as it looks
    assert not (out / "class-maps/phantom-f.png").exists()
    schema = json.loads(
        resources.files("her2fast").joinpath("data/schemas/result.json").read_text()
    )
    found = {}
    for path in (out / "results").iterdir():
        record = json.loads(path.read_bytes())
        jsonschema.validate(record, schema)
        found[path.stem] = record["score"] or record["code"]
    truth = golden.read_truth()["slides"]
    assert found == {name: slide["outcome"] for name, slide in truth.items()}
    # The run and the self-test measure the same.
    for name, slide in golden.read_golden()["slides"].items():
        record = json.loads((out / f"results/{name}.json").read_bytes())
        if record["device"] == golden.read_golden()["device"]:
            assert {key: record[key] for key in slide} == slide


def test_demo_that_ends_otherwise_fails(tmp_path: Path, capsys, monkeypatch) -> None:
    truth = golden.read_truth()
    truth["slides"]["phantom-e"]["outcome"] = "0"
    monkeypatch.setattr(golden, "read_truth", lambda: truth)
    only = [path for path in golden.demo_paths() if path.stem == "phantom-e"]
    monkeypatch.setattr(golden, "demo_paths", lambda: only)
    assert cli.run(["demo", "-o", str(tmp_path / "demo")]) == 20
    assert "WRONG:   phantom-e.svs: need 0, got TOO_LITTLE" in capsys.readouterr().out


@pytest.mark.slow
def test_verify_finds_other_areas(capsys, monkeypatch) -> None:
    found = golden.measure()
    monkeypatch.setattr(golden, "measure", lambda: found)
    assert doctor.verify().good, doctor.verify().text
    other = copy.deepcopy(found)
    other["slides"]["phantom-a"]["class_px"][0] += 1
    monkeypatch.setattr(golden, "read_golden", lambda: other)
    check = doctor.verify()
    assert not check.good
    assert check.code == "SELFTEST"
    assert cli.run(["doctor", "--verify"]) == 20
    assert "FAIL self-test: SELFTEST" in capsys.readouterr().out
    monkeypatch.setattr(golden, "read_golden", lambda: json.loads("{"))
    assert doctor.verify().code == "SELFTEST"


def test_doctor_finds_this_machine_fit(capsys) -> None:
    assert cli.run(["doctor"]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_no_golden_of_slides_that_end_otherwise(tmp_path: Path, monkeypatch) -> None:
    wrong = golden.read_golden()
    wrong["slides"]["phantom-a"]["score"] = "1+"
    monkeypatch.setattr(golden, "measure", lambda: wrong)
    monkeypatch.setattr(golden, "GOLDEN", tmp_path / "golden.json")
    with pytest.raises(ValueError, match="phantom-a: must end as"):
        golden.write_golden()
    assert not (tmp_path / "golden.json").exists()
