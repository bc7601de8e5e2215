# SPDX-License-Identifier: Apache-2.0
"""The results folder: names, locks, what counts as finished, what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import record_example
from hypothesis import given
from hypothesis import strategies as st

from her2fast import store
from her2fast.errors import SlideError, UsageError
from her2fast.store import ResultsFolder, file_stem


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    made = ResultsFolder(tmp_path / "out")
    made.create()
    return made


# --- names ---------------------------------------------------------------------------


def test_plain_names_stay() -> None:
    assert file_stem("/a/case 7.svs") == "case 7"
    assert file_stem("/a/case.ome.tiff") == "case.ome"
    assert file_stem("/a/=cmd()") == "=cmd()"
    assert file_stem("/a/Größe.svs") == "Größe"


def test_equal_stems_get_distinct_names_in_any_order(folder: ResultsFolder) -> None:
    slides = ["/a/x.svs", "/b/x.svs", "/a/x.tiff", "/a/X.ndpi", "/a/y.svs"]
    names = folder.assign_names(slides)
    assert len({name.casefold() for name in names}) == 5
    assert names[4] == "y"
    assert all(name.lower().startswith("x-") for name in names[:4])
    backwards = folder.assign_names(slides[::-1])
    assert backwards[::-1] == names


def test_a_later_run_never_takes_a_name(folder: ResultsFolder) -> None:
    with folder.lock("x", "/a/x.svs"):
        pass
    assert folder.assign_names(["/a/x.svs"]) == ["x"]
    (other,) = folder.assign_names(["/b/x.svs"])
    assert other.startswith("x-")
    assert folder.assign_names(["/b/x.svs", "/a/x.svs"]) == [other, "x"]


names = st.text(max_size=100).map(lambda s: s.replace("/", "_").replace("\0", "_"))


@given(parts=st.lists(names, min_size=1, max_size=8, unique=True))
def test_any_name_gives_a_usable_one(parts: list[str], tmp_path_factory) -> None:
    folder = ResultsFolder(tmp_path_factory.getbasetemp() / "never-made")
    assigned = folder.assign_names([f"/slides/{part or 'x'}.svs" for part in parts])
    for name in assigned:
        encoded = f"{name}.state.json".encode()  # UTF-8, or it raises
        assert len(encoded) <= 255
        assert not name.startswith(".")
        assert os.path.basename(name) == name
        assert name.isprintable() or "\n" not in name
    paths = {part or "x" for part in parts}
    assert len({name.casefold() for name in assigned}) == len(paths)


def named(name: str | None, **changes: Any) -> dict[str, Any]:
    return record_example.record(slide={"name": name}, **changes)


def test_hostile_names(folder: ResultsFolder) -> None:
    raw = os.fsdecode(b"/a/\xff\xfe.svs")
    slides = ["/a/" + "ä" * 120 + ".svs", "/a/two\nlines.svs", raw, "/a/..svs", "/a/.x"]
    for name, slide in zip(folder.assign_names(slides), slides, strict=True):
        with folder.lock(name, slide):
            folder.write_record(name, named(name))
        assert folder.read_record(name) == named(name)
    assert len(folder.records()) == len(slides)


# --- locks ---------------------------------------------------------------------------

HOLD = """
import sys, time
from her2fast.store import ResultsFolder
with ResultsFolder(sys.argv[1]).lock("x"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_two_writers(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        busy = pytest.raises(SlideError, match="another process")
        with busy as caught, folder.lock("x"):
            pass
        assert caught.value.code == "OUTPUT_BUSY"
        with folder.lock("y"):
            pass
        other.kill()
        other.wait()
        with folder.lock("x"):  # a killed writer leaves no lock
            pass


# --- finished ------------------------------------------------------------------------

KEYS = {"measurement_key": "m", "decision_key": "d"}
LOOKS = {"geojson": "regions"}


def finish(folder: ResultsFolder) -> Path:
    extra = folder.root / "regions" / "x.geojson"
    extra.parent.mkdir(exist_ok=True)
    extra.write_text("{}")
    folder.measurement_path("x").write_bytes(b"measured")
    folder.write_record("x", named("x", **KEYS), files=[extra], exports=LOOKS)
    return extra


def test_finished_means_all_of_it(folder: ResultsFolder) -> None:
    def finished(m: str | None = "m", d: str | None = "d", **looks: str) -> bool:
        return folder.is_finished("x", m, d, looks or LOOKS)

    assert not finished()
    extra = finish(folder)
    assert finished()
    assert not finished("other")
    assert not finished(d="other")
    assert not finished(None, None)
    assert not finished(geojson="patches")
    for path in (extra, folder.measurement_path("x"), folder.record_path("x")):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert not finished()
        path.unlink()
        assert not finished()
        path.write_bytes(data)
        assert finished()
    folder.state_path("x").write_text("{")
    assert not finished()


def test_what_a_new_record_lacks_is_removed(folder: ResultsFolder) -> None:
    extra = finish(folder)
    failed = named("x", status="failed", code="IO", score=None)
    folder.write_record("x", failed)
    assert not extra.exists()
    assert folder.read_record("x") == failed


def test_a_record_that_cannot_be_written_leaves_the_old_one(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(folder)
    before = {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()}
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(SlideError) as caught:
        folder.write_record("x", {"status": "scored"})
    assert caught.value.code == "DISK_FULL"
    after = {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()}
    assert {p.name for p in before} - {p.name for p in after} <= {"x.geojson"}
    assert after[folder.record_path("x")] == before[folder.record_path("x")]


def test_inputs_come_back(folder: ResultsFolder) -> None:
    ring = np.array([[0.5, 0], [9, 0], [9, 9.25]])
    inputs = {"roi": [(True, [ring])], "guideline": "gastric-2016", "ish": "positive"}
    folder.write_record("x", {}, inputs=inputs)
    got = folder.read_inputs("x")
    assert got["guideline"] == "gastric-2016"
    assert got["ish"] == "positive"
    ((exclude, (back,)),) = got["roi"]
    assert exclude is True
    np.testing.assert_array_equal(back, ring)
    nothing = {"roi": [], "guideline": None, "ish": None, "roi_refused": None}
    assert folder.read_inputs("never") == nothing


def test_a_damaged_measurement_is_measured_again(folder: ResultsFolder) -> None:
    assert folder.read_measurement("x", "k") is None
    folder.measurement_path("x").write_bytes(b"H2M1 and then nothing")
    assert folder.read_measurement("x", "k") is None


def test_records_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results folder"):
        ResultsFolder(tmp_path).records()


# --- what is no record ----------------------------------------------------------------


def test_half_a_record_is_no_record(folder: ResultsFolder) -> None:
    folder.record_path("x").write_text('{"status": "sco')
    (folder.root / "results" / ".her2fast-1.tmp").write_text("{}")
    assert folder.records() == []
    assert json.dumps(folder.read_record("x")) == "null"


WHOLE = named("x.svs")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1, 2]", "need an object, got list"),
        (b'"a note"', "need an object, got str"),
        (b"{}", "need slide.name"),
        ({"slide": "x.svs"}, "need slide.name"),
        ({"slide": {"name": 7}}, "need slide.name"),
        ({"status": "fine"}, "need a status"),
        ({"status": ["scored"]}, "need a status"),
        ({"code": 7}, "need a code"),
        ({"score": "4+"}, "need a score"),
        ({"score": []}, "need a score"),
        ({"models": [{"name": "m"}]}, "need models"),
        ({"models": None}, "need models"),
        ({"fractions": [0.5, "half"]}, "need fractions"),
        ({"review_flags": None}, "need review_flags"),
        *(({key: ...}, "need ") for key in ("slide", "code", "score", "fractions")),
    ],
)
def test_other_files_say_what_they_lack(
    folder: ResultsFolder, data: bytes | dict[str, Any], said: str
) -> None:
    path = folder.record_path("x")
    if isinstance(data, dict):
        changed = {k: v for k, v in (WHOLE | data).items() if v is not ...}
        data = json.dumps(changed).encode()
    path.write_bytes(data)
    folder.write_record("y", WHOLE)
    (name, error), (other, record) = folder.records_and_others()
    assert (name, other, record) == ("x", "y", WHOLE)
    assert isinstance(error, SlideError)
    assert error.code == "HASH_MISMATCH"
    assert str(error).startswith(f"{path}: is no record of a slide: {said}")
    assert folder.records() == [("y", WHOLE)]
    assert folder.read_record("x") is None
    assert path.read_bytes() == data


def test_what_is_no_file_is_no_record(folder: ResultsFolder) -> None:
    os.mkfifo(folder.record_path("pipe"))  # waiting for it would be for ever
    folder.record_path("folder").mkdir()
    folder.record_path("nowhere").symlink_to("absent")
    folder.record_path("loop").symlink_to("loop.json")
    found = folder.records_and_others()
    assert {name: e.code for name, e in found if isinstance(e, SlideError)} == {
        "folder": "NOT_REGULAR",
        "loop": "IO",
        "nowhere": "NOT_FOUND",
        "pipe": "NOT_REGULAR",
    }


def test_a_file_of_somebody_else_gives_no_slide_its_name(folder: ResultsFolder) -> None:
    notes = folder.record_path("notes")
    notes.write_text('{"by": "me"}')
    (name,) = folder.claim_names(["/a/notes.svs"])
    assert name.startswith("notes-")
    folder.write_record(name, WHOLE)
    assert notes.read_text() == '{"by": "me"}'
    notes.unlink()  # and it keeps what it has
    assert folder.claim_names(["/a/notes.svs"]) == [name]
    # Its own damaged record is written again.
    folder.claim_names(["/a/x.svs"])
    folder.record_path("x").write_text("{")
    assert folder.assign_names(["/a/x.svs"]) == ["x"]


def test_a_slide_keeps_its_name_when_the_other_is_not_given(
    folder: ResultsFolder,
) -> None:
    first, second = folder.claim_names(["/a/x.svs", "/b/x.svs"])
    assert folder.claim_names(["/b/x.svs"]) == [second]
    assert folder.claim_names(["/a/x.svs"]) == [first]
