# SPDX-License-Identifier: Apache-2.0
"""Files in `results/` that are no records: told of, left alone, in nobody's way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import packages
import pytest
import slides

import her2fast
from her2fast import cli

SCHEMA = Path(her2fast.__file__).parent / "data/schemas/event.json"
#: By name, in the order that a folder is read: before, between and after the slides.
FOREIGN = {"Notes": b'{"by": "me"}', "b-notes": b"no JSON", "list": b"[]\n"}


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the slides a and c."""
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))
    method = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(method)]) == 0
    first = slides.write_slide(tmp_path / "a.svs")
    shutil.copy(first, tmp_path / "c.svs")
    assert score(tmp_path) == 0
    return tmp_path / "out"


def score(folder: Path) -> int:
    words = ["score", folder / "a.svs", folder / "c.svs", "-o", folder / "out"]
    return cli.run([*map(str, words), "-m", str(folder / "method")])


def drop(out: Path) -> None:
    for name, data in FOREIGN.items():
        (out / f"results/{name}.json").write_bytes(data)


def untouched(out: Path) -> bool:
    """Whether the foreign files are as they were, and nothing was made for them."""
    return all(
        [path.read_bytes() for path in out.rglob(f"{name}.*")] == [data]
        for name, data in FOREIGN.items()
    )


def test_rescore_goes_on(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop(scored)
    words = ["rescore", str(scored), "--guideline", "pham-2022"]
    assert cli.run(words) == 10
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "Notes",
        "a",
        "b-notes",
        "c",
        "list",
    ]
    for line in lines[::2]:
        assert "left as it was (HASH_MISMATCH: " in line
        assert f"{scored}/results/" in line
    assert untouched(scored)
    for name in ("a", "c"):
        record = json.loads((scored / f"results/{name}.json").read_bytes())
        assert record["guideline"]["rule_set"] == "pham-2022"
    table = (scored / "results.csv").read_text()
    assert len(table.splitlines()) == 3
    for name in ("a", "c"):
        (scored / f"results/{name}.json").unlink()
    assert cli.run(words) == 20


def test_a_damaged_record_is_told_of_until_it_is_scored_again(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scored / "results/a.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert cli.run(["rescore", str(scored)]) == 10
    assert "a: left as it was (HASH_MISMATCH" in capsys.readouterr().out
    assert score(tmp_path) == 0
    assert path.read_bytes() == whole
    assert cli.run(["rescore", str(scored)]) == 0


def test_a_run_tells_of_them_and_keeps_what_is_finished(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ("results.csv", "worklist.csv", "cohort.html")
    before = [(scored / name).read_bytes() for name in tables]
    drop(scored)
    capsys.readouterr()
    assert score(tmp_path) == 0
    said = capsys.readouterr()
    assert said.out.count("(finished before)") == 2
    assert said.err.count("left out (HASH_MISMATCH): ") == len(FOREIGN)
    assert untouched(scored)
    assert [(scored / name).read_bytes() for name in tables] == before
    log = max(scored.glob("events_*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        jsonschema.validate(event, json.loads(SCHEMA.read_text()))
    left = [event for event in events if event["event"] == "left_out"]
    assert [event["file"] for event in left] == [f"{name}.json" for name in FOREIGN]
    assert {event["code"] for event in left} == {"HASH_MISMATCH"}


def test_validate_goes_on(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(scored)
    (scored / "results/c.json").write_text("{")
    labels = tmp_path / "labels.csv"
    labels.write_text("slide,label\na.svs,2+\nc.svs,2+\n")
    check = tmp_path / "check"
    words = ["validate", str(scored), "--labels", str(labels), "-o", str(check)]
    assert cli.run([*words, "--replicates", "10"]) == 0
    said = capsys.readouterr().out
    assert "out: results/Notes.json left out (HASH_MISMATCH)" in said
    assert "1 of 2 slides scored" in said
    found = json.loads((check / "evaluation.json").read_bytes())["results"]["out"]
    assert found["not_scored"] == {"missing": 1}
    left = dict.fromkeys(["Notes", "b-notes", "c", "list"], "HASH_MISMATCH")
    assert found["left_out"] == {f"{name}.json": code for name, code in left.items()}
    page = (check / "evaluation.html").read_text()
    assert "left out as no record of a slide: Notes.json (HASH_MISMATCH), b-" in page
    assert untouched(scored)
