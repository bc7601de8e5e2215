# SPDX-License-Identifier: Apache-2.0
"""Whose region, whose ISH result, whose name: nothing of one slide serves another."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packages
import pytest
import slides

import her2fast
from her2fast import cli
from her2fast.errors import UsageError
from her2fast.manifest import check_regions, read_ish, roi_for
from her2fast.rescoring import rescore_folder
from her2fast.store import ResultsFolder

Run = Callable[..., int]
HALF = [[0, 0], [500, 0], [500, 1024], [0, 1024], [0, 0]]
FAR = [[x + 5000, y] for x, y in HALF]
BOW_TIE = [[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]


def write_region(path: Path, ring: list[list[int]] = HALF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def score(tmp_path: Path) -> Run:
    method = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(method)]) == 0

    def run(*arguments: object) -> int:
        words = ["score", "-o", tmp_path / "out", "-m", method, *arguments]
        return cli.run([str(word) for word in words])

    return run


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two slides of one file name."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = slides.write_slide(tmp_path / "one/a.svs")
    return first, slides.write_slide(tmp_path / "two/a.svs")


def record(tmp_path: Path, name: str) -> Any:
    return json.loads((tmp_path / f"out/results/{name}.json").read_bytes())


def test_one_region_never_serves_two_slides(
    score: Run,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    region = write_region(tmp_path / "regions/a.geojson")
    for roi in (region, region.parent):
        for extra in ([], ["--dry-run"]):
            assert score(*pair, "--roi", roi, *extra) == 64
            assert "region of two slides" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # A manifest says which: it wins over --roi.
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"slide,roi\none/a.svs,\ntwo/a.svs,{region}\n")
    assert score(manifest, "--dry-run", "--roi", region) == 0


def test_a_results_name_finds_its_own_region(tmp_path: Path) -> None:
    for stem in ("a", "a-00112233"):
        write_region(tmp_path / f"{stem}.geojson")
    assert roi_for("/x/a.svs", str(tmp_path)) == str(tmp_path / "a.geojson")
    named = str(tmp_path / "a-00112233.geojson")
    assert roi_for("/x/a.svs", str(tmp_path), "a-00112233") == named
    check_regions([("/x/a.svs", "a-00112233"), ("/y/a.svs", "a")], str(tmp_path))
    with pytest.raises(UsageError, match="region of two slides"):
        check_regions([("/x/a.svs", "b"), ("/y/a.svs", "c")], str(tmp_path))


def test_a_slide_without_its_region_is_not_scored_whole(
    score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    write_region(tmp_path / "regions/b.geojson")
    assert score(pair[0], "--roi", tmp_path / "regions", "--dry-run") == 20
    assert score(pair[0], "--roi", tmp_path / "regions") == 20
    found = record(tmp_path, "a")
    assert (found["status"], found["code"]) == ("refused", "ROI_INVALID")
    assert "a.geojson" in found["message"]


def test_rescore_keeps_a_region_that_is_not_given(
    score: Run,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    region = write_region(tmp_path / "regions/a.geojson")
    assert score(pair[0], "--roi", region) == 0
    before = record(tmp_path, "a")
    other = write_region(tmp_path / "others/b.geojson").parent
    out = str(tmp_path / "out")
    assert cli.run(["rescore", out, "--roi", str(other)]) == 0
    assert "kept as it was" in capsys.readouterr().out
    assert record(tmp_path, "a") == before
    assert cli.run(["rescore", out, "--roi", str(tmp_path / "absent")]) == 64


def test_rescore_with_a_bad_region_leaves_no_score(
    score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    assert score(pair[0]) == 0
    out = str(tmp_path / "out")
    bad = write_region(tmp_path / "bad.geojson", BOW_TIE)
    assert cli.run(["rescore", out, "--roi", str(bad)]) == 20
    found = record(tmp_path, "a")
    assert (found["code"], found["score"]) == ("ROI_INVALID", None)
    # The measurement is still there: a good region decides again.
    good = write_region(tmp_path / "good.geojson")
    assert cli.run(["rescore", out, "--roi", str(good)]) == 0
    assert record(tmp_path, "a")["status"] == "scored"
    # One that misses the slide is refused before anything is read: no picture, either.
    far = write_region(tmp_path / "far.geojson", FAR)
    page = tmp_path / "out/reports/a.html"
    pages = []
    for refuse in (
        lambda: cli.run(["rescore", out, "--roi", str(far)]),
        lambda: score(pair[0], "--roi", far),
    ):
        assert refuse() == 20
        assert record(tmp_path, "a")["code"] == "ROI_OUTSIDE"
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]
    assert b"data:image" not in pages[0]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (json.dumps({"type": "Polygon", "coordinates": [BOW_TIE]}), "ROI_INVALID"),
        ('{"type": ', "ROI_INVALID"),
        (json.dumps({"type": "Polygon", "coordinates": [FAR]}), "ROI_OUTSIDE"),
    ],
    ids=["bow_tie", "broken", "outside"],
)
def test_a_refused_region_gives_the_record_of_a_full_run(
    words: str, code: str, score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.geojson"
    bad.write_text(words)
    assert score(pair[0]) == 0
    assert cli.run(["rescore", str(tmp_path / "out"), "--roi", str(bad)]) == 20
    found = record(tmp_path, "a")
    assert (found["code"], found["score"]) == (code, None)
    assert (found["slide"]["size_px"], found["status"]) == ([1024, 1024], "refused")
    names = ("results/a.json", "reports/a.html", "measurements/a.state.json")
    rescored = [(tmp_path / "out" / name).read_bytes() for name in names]
    assert score(pair[0], "--roi", bad) == 20
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == rescored
    # Also where nothing was measured.
    other = tmp_path / "other"
    assert score(pair[0], "--roi", bad, "-o", other) == 20
    assert (other / "results/a.json").read_bytes() == rescored[0]
    # And of one slide from Python.
    method = str(tmp_path / "method")
    result = her2fast.score(pair[0], model=method, roi=bad)
    assert result.to_json().encode() == rescored[0]
    whole = her2fast.score(pair[0], model=method)
    assert whole.measurement is not None
    assert her2fast.rescore(whole.measurement, roi=bad).record == result.record


@pytest.mark.parametrize("by", ["score", "rescore"])
def test_a_refused_region_stays_refused(
    by: str, score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    good = write_region(tmp_path / "good.geojson")
    bad = write_region(tmp_path / "bad.geojson", BOW_TIE)
    out = str(tmp_path / "out")
    assert score(pair[0], "--roi", good) == 0
    if by == "score":
        assert score(pair[0], "--roi", bad) == 20
    else:
        assert cli.run(["rescore", out, "--roi", str(bad)]) == 20
    refused = record(tmp_path, "a")
    others = write_region(tmp_path / "others/b.geojson").parent
    for more in (["--guideline", "pham-2022"], ["--roi", str(others)]):
        assert cli.run(["rescore", out, *more]) == 20
        assert record(tmp_path, "a") == refused
    assert cli.run(["rescore", out, "--roi", "none"]) == 0
    found = record(tmp_path, "a")
    assert (found["status"], found["roi_sha256"]) == ("scored", None)
    assert found["guideline"]["rule_set"] == "pham-2022"
    assert cli.run(["rescore", out, "--guideline", "asco-cap-2018"]) == 0


@pytest.fixture
def two(score: Run, tmp_path: Path) -> Path:
    """Two scored slides, a.svs and b.svs; and bad.geojson."""
    for name, seed in (("a", 0), ("b", 3)):
        slides.write_slide(tmp_path / f"{name}.svs", slides.paint(seed=seed))
    write_region(tmp_path / "bad.geojson", BOW_TIE)
    assert score(tmp_path / "a.svs", tmp_path / "b.svs") == 0
    return tmp_path


def rule_sets(tmp_path: Path) -> list[str | None]:
    records = [record(tmp_path, name) for name in "ab"]
    return [(found["guideline"] or {}).get("rule_set") for found in records]


def test_rescore_after_a_kill_between_state_and_record(score: Run, two: Path) -> None:
    place = two / "out/results/a.json"
    before = place.read_bytes()
    assert score(two / "a.svs", "--roi", two / "bad.geojson") == 20
    place.write_bytes(before)
    words = ["rescore", str(two / "out")]
    assert cli.run([*words, "--guideline", "pham-2022"]) == 10
    found = record(two, "a")
    assert (found["code"], found["score"]) == ("ROI_INVALID", None)
    assert "the region of the last run was refused" in found["message"]
    assert rule_sets(two) == [None, "pham-2022"]
    assert cli.run([*words, "--roi", "none"]) == 0
    assert rule_sets(two) == ["pham-2022"] * 2


def test_rescore_sees_what_another_run_wrote_meanwhile(
    score: Run, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = ResultsFolder.records_and_others

    def then_another_writes(folder: ResultsFolder) -> Any:
        monkeypatch.setattr(ResultsFolder, "records_and_others", records)
        found = records(folder)
        assert score(two / "a.svs", "--roi", two / "bad.geojson") == 20
        (two / "out/results/b.json").unlink()
        return found

    monkeypatch.setattr(ResultsFolder, "records_and_others", then_another_writes)
    done = rescore_folder(two / "out", guideline="pham-2022")
    assert [item.skipped for item in done] == ["", "its record is gone"]
    full = two / "full"
    words = ["--roi", two / "bad.geojson", "-o", full]
    assert score(two / "a.svs", *words) == 20
    assert record(two, "a") == json.loads((full / "results/a.json").read_bytes())


@pytest.mark.parametrize("broken", ["exports", "inputs"])
def test_one_broken_state_ends_no_rescore(broken: str, two: Path) -> None:
    state = two / "out/measurements/a.state.json"
    content = json.loads(state.read_bytes())
    content["exports"]["of tomorrow"] = "x"
    content["inputs"]["roi"] = [[False, [["x"]]]]
    kept = {broken: content[broken]}
    state.write_text(json.dumps({**json.loads(state.read_bytes()), **kept}))
    before = record(two, "a")
    done = rescore_folder(two / "out", guideline="pham-2022")
    assert done[0].skipped.startswith("CRASH: ")
    assert done[1].skipped == ""
    assert record(two, "a") == before
    assert rule_sets(two)[1] == "pham-2022"


@pytest.mark.parametrize(
    ("ring", "code"), [(BOW_TIE, "ROI_INVALID"), (FAR, "ROI_OUTSIDE")]
)
def test_folders_that_do_not_say_what_was_refused(
    ring: list[list[int]], code: str, score: Run, two: Path
) -> None:
    region = write_region(two / "region.geojson", ring)
    assert score(two / "a.svs", "--roi", region) == 20
    refused = record(two, "a")
    assert refused["code"] == code
    state = two / "out/measurements/a.state.json"
    content = json.loads(state.read_bytes())
    del content["inputs"]["roi_refused"]
    content["inputs"]["roi"] = []
    state.write_text(json.dumps(content))
    assert cli.run(["rescore", str(two / "out"), "--ish", str(ish_of(two))]) == 10
    assert record(two, "a") == refused
    assert record(two, "b")["guideline"]["ish"] == "positive"


def ish_of(tmp_path: Path) -> Path:
    table = tmp_path / "ish.csv"
    table.write_text("slide,ish\na.svs,positive\nb.svs,positive\n")
    return table


def test_rescore_gives_no_slide_anothers_region_or_ish(
    score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    assert score(*pair) == 0
    before = sorted(path.read_bytes() for path in (tmp_path / "out/results").iterdir())
    region = write_region(tmp_path / "regions/a.geojson")
    out = str(tmp_path / "out")
    assert cli.run(["rescore", out, "--roi", str(region)]) == 64
    assert cli.run(["rescore", out, "--roi", str(region.parent)]) == 64
    table = tmp_path / "ish.csv"
    for text in (
        "a.svs,positive\n",
        "one/a.svs,positive\ntwo/a.svs,negative\n",
        "misspelt.svs,positive\n",
    ):
        table.write_text("slide,ish\n" + text)
        assert cli.run(["rescore", out, "--ish", str(table)]) == 64
    after = sorted(path.read_bytes() for path in (tmp_path / "out/results").iterdir())
    assert after == before


def test_rescore_that_decides_nothing_is_no_success(
    score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    assert score(pair[0]) == 0
    (tmp_path / "out/measurements/a.h2m").write_bytes(b"damaged")
    out = str(tmp_path / "out")
    assert cli.run(["rescore", out, "--guideline", "pham-2022"]) == 20
    assert record(tmp_path, "a")["guideline"]["rule_set"] == "asco-cap-2018"


def test_rescore_of_a_copy_without_hidden_files(
    score: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    assert score(pair[0]) == 0
    shutil.rmtree(tmp_path / "out/.locks")
    assert cli.run(["rescore", str(tmp_path / "out"), "--guideline", "pham-2022"]) == 0


def test_ish_of_one_name_must_agree(tmp_path: Path) -> None:
    table = tmp_path / "ish.csv"
    table.write_text("slide,ish\nx/a.svs,positive\ny/a.svs,positive\n")
    assert read_ish(table) == {"a.svs": "positive"}
    table.write_text("slide,ish\nx/a.svs,positive\ny/a.svs,negative\n")
    with pytest.raises(UsageError, match="different ISH"):
        read_ish(table)


def claim(root: str, slide: str, barrier: Any, answers: Any) -> None:
    barrier.wait()
    answers.put(ResultsFolder(root).claim_names([slide])[0])


def test_two_runs_that_start_together_claim_two_names(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.create()
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.SimpleQueue()
    runs = [
        context.Process(
            target=claim, args=(str(tmp_path), f"/{i}/x.svs", barrier, answers)
        )
        for i in range(4)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    names = {answers.get() for _ in runs}
    assert len(names) == 4
    # And they keep them.
    again = folder.claim_names([f"/{i}/x.svs" for i in range(4)])
    assert set(again) == names


# --- what no file can hold ------------------------------------------------------------


def test_folders_whose_names_are_not_utf8(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = packages.write_method(tmp_path / "model")  # torch itself wants UTF-8
    method = method.rename(tmp_path / "model\udcff")
    out = str(tmp_path / "out\udcff")
    words = ["score", str(pair[0]), "-o", out, "-m", str(method)]
    assert cli.run(words) == 20
    assert "refused MODEL_HASH" in capsys.readouterr().out
    assert cli.run([*words, "--allow-unknown-model"]) == 0
    (found,) = Path(out).glob("results/*.json")
    assert json.loads(found.read_bytes())["status"] == "scored"
    runs = [json.loads(p.read_bytes()) for p in Path(out).glob("run_*.json")]
    assert len(runs) == 2
    assert all(run["options"]["out"].endswith("out\\xff") for run in runs)


@pytest.mark.parametrize("verb", ["score", "info", "convert"])
def test_a_spacing_that_is_no_number(
    verb: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    more = {"score": ["-o", str(tmp_path / "out")], "info": []}
    words = [verb, str(pair[0]), *more.get(verb, [str(tmp_path / "x.tiff")])]
    assert cli.run([*words, "--mpp", "nan"]) == 64
