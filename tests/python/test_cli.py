# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, files, reruns, and what it does without torch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import packages
import pytest
import slides

from her2fast import cli

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def method(tmp_path: Path) -> Path:
    folder = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(folder)]) == 0
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    (tmp_path / "slides").mkdir()
    return slides.write_slide(tmp_path / "slides" / "a.svs")


@pytest.fixture
def score(tmp_path: Path, method: Path) -> Run:
    def run(*arguments: object, out: str = "out") -> int:
        words = ["score", "-o", tmp_path / out, "-m", method, *arguments]
        return cli.run([str(word) for word in words])

    return run


def files(folder: Path, *, without: tuple[str, ...] = ("run_", "events_")) -> dict:
    """What a folder holds, but for times and hosts."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(without)
    }


def schema(name: str) -> Any:
    text = resources.files("her2fast").joinpath(f"data/schemas/{name}.json").read_text()
    return json.loads(text)


# --- without torch, fast, offline -----------------------------------------------------

OFFLINE = """
import socket, sys, time
def refuse(*_, **__):
    raise AssertionError("network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
begin = time.perf_counter()
import her2fast, her2fast.cli
code = her2fast.cli.run(sys.argv[1:]) if sys.argv[1:] else 0
seconds = time.perf_counter() - begin
slow = {"torch", "pyarrow", "matplotlib", "shapely"} & set(sys.modules)
assert not slow, slow
print(f"\\nseconds {seconds}")
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["score", "--help"], ["models", "--help"], ["--version"]],
)
def test_fast_without_torch_and_network(arguments: list[str]) -> None:
    check_fast(arguments)


def test_info_is_fast(slide: Path) -> None:
    check_fast(["info", str(slide)])


def check_fast(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.split()[-1]) < 0.5 * slowness()


def slowness() -> float:
    """A busy machine gets more time; the limit is meant for an idle one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) * 2


# --- score ----------------------------------------------------------------------------


def test_a_slide_and_its_files(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(slide) == 0
    printed = capsys.readouterr().out
    assert "[1/1] a.svs: scored 3+" in printed
    assert printed.rstrip().endswith("1 of 1 slides scored")
    out = tmp_path / "out"
    assert set(files(out)) == {
        ".locks/.names",
        ".locks/a.lock",
        "class-maps/a.png",
        "cohort.html",
        "measurements/a.h2m",
        "measurements/a.jpg",
        "measurements/a.patches.zip",
        "measurements/a.state.json",
        "model-outputs-csv/a.csv",
        "regions/a.geojson",
        "reports/a.html",
        "results.csv",
        "results.parquet",
        "results/a.json",
        "worklist.csv",
    }
    record = json.loads((out / "results/a.json").read_bytes())
    jsonschema.validate(record, schema("result"))
    (run,) = out.glob("run_*.json")
    jsonschema.validate(json.loads(run.read_bytes()), schema("run"))
    (events,) = out.glob("events_*.jsonl")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for line in lines:
        jsonschema.validate(line, schema("event"))
    assert [line["event"] for line in lines] == [
        "run_started",
        "slide_started",
        "slide_ended",
        "run_ended",
    ]
    with (out / "results.csv").open(newline="", encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    assert (row["slide"], row["score"], row["status"]) == ("a.svs", "3+", "scored")
    with (out / "model-outputs-csv/a.csv").open(newline="") as table:
        patches = list(csv.DictReader(table))
    assert sum(patch["kept"] in ("1", "true", "True") for patch in patches) == 196


def test_same_bytes_whatever_the_workers_and_order(
    score: Run, slide: Path, tmp_path: Path
) -> None:
    other = slides.write_slide(slide.parent / "b.svs", slides.paint(seed=3))
    assert score(slide, other, "-n", 1) == 0
    assert score(other, slide, "-n", 2, "-b", 256, out="out2") == 0
    assert files(tmp_path / "out") == files(tmp_path / "out2")


def test_a_rerun_does_what_is_missing(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = slides.write_slide(slide.parent / "b.svs", slides.paint(seed=3))
    assert score(slide) == 0
    full = files(tmp_path / "out")
    assert score(slide, other) == 0
    printed = capsys.readouterr().out
    assert "a.svs: scored 3+ (finished before)" in printed
    assert "b.svs: scored 3+ [" in printed

    (tmp_path / "out/regions/a.geojson").unlink()
    assert score(slide, other) == 0
    assert "a.svs: scored 3+ (measured before)" in capsys.readouterr().out

    assert score(slide, other, "--guideline", "pham-2022") == 0
    printed = capsys.readouterr().out
    assert printed.count("(measured before)") == 2

    assert score(slide, "--overwrite") == 0
    assert "a.svs: scored 3+ [" in capsys.readouterr().out
    now = files(tmp_path / "out")
    assert {k: v for k, v in now.items() if "a." in k} == {
        k: v for k, v in full.items() if "a." in k
    }

    slides.write_slide(slide, slides.paint(stains=(0, 0, 0, 1)))
    assert score(slide) == 0
    printed = capsys.readouterr().out
    assert "a.svs: scored 1+" in printed
    assert "measured before" not in printed


@pytest.mark.slow
def test_killed_at_any_point(
    score: Run, slide: Path, method: Path, tmp_path: Path
) -> None:
    for i in range(3):
        slides.write_slide(slide.parent / f"b{i}.svs", slides.paint(seed=i))
    assert score("-i", slide.parent) == 0
    want = files(tmp_path / "out")
    words = [sys.executable, "-m", "her2fast", "score", "-i", str(slide.parent)]
    words += ["-o", str(tmp_path / "out2"), "-m", str(method)]
    rng = np.random.default_rng(5)
    for seconds in rng.uniform(1.5, 5.0, 6):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as run:
            time.sleep(seconds)
            run.kill()
        for path in (tmp_path / "out2").glob("results/*.json"):
            assert path.read_bytes() == want[f"results/{path.name}"]
    assert score("-i", slide.parent, out="out2") == 0
    left = files(tmp_path / "out2", without=("run_", "events_", ".her2fast-"))
    assert left == want


def test_one_bad_slide_never_stops_a_run(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_text("not a slide")
    assert score(bad, slide, tmp_path / "gone.svs") == 10
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == (
        "1 of 3 slides scored; 2 not scored: 1 NOT_FOUND, 1 UNSUPPORTED_FORMAT"
    )
    assert score(bad, out="all-bad") == 20
    assert (tmp_path / "all-bad/reports/bad.html").is_file()
    assert score(bad, slide, "--fail-fast", out="fast") == 20
    assert "a.json" not in os.listdir(tmp_path / "fast/results")


def test_json_output(
    score: Run, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert score(slide, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["exit_code"] == 0
    assert summary["slides"][0]["score"] == "3+"


def test_unknown_models_are_refused(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = packages.write_method(tmp_path / "unknown")
    words = ["score", str(slide), "-m", str(folder), "-o", str(tmp_path / "out")]
    assert cli.run(words) == 20
    assert "refused MODEL_HASH" in capsys.readouterr().out
    assert cli.run([*words, "--allow-unknown-model"]) == 0
    record = json.loads((tmp_path / "out/results/a.json").read_bytes())
    assert [model["known"] for model in record["models"]] == [False, False]


def test_manifest_with_mpp_roi_and_ish(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = [[0, 0], [500, 0], [500, 1024], [0, 1024], [0, 0]]
    roi = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "slides/roi.geojson").write_text(json.dumps(roi))
    manifest = tmp_path / "slides/list.csv"
    manifest.write_text("slide,mpp,roi,ish\na.svs,1.0,roi.geojson,positive\n")
    assert score(manifest) == 0
    assert "scored 1+" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/results/a.json").read_bytes())
    assert record["slide"]["spacing_source"] == "user"
    assert record["guideline"]["ish"] == "positive"
    manifest.write_text("slide,ish\na.svs,perhaps\n")
    assert score(manifest) == 64
    assert "line 2" in capsys.readouterr().err


def test_dry_run(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_text("not a slide")
    assert score(slide, bad, "--dry-run") == 10
    printed = capsys.readouterr().out
    assert "a.svs: aperio, 1 x 1 um/px (vendor)" in printed
    assert "bad.svs: refused UNSUPPORTED_FORMAT" in printed
    assert "nothing was scored" in printed
    assert not (tmp_path / "out").exists()
    assert score(slide, "--dry-run", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["slides"]
    assert found["tissue_mm2"] == pytest.approx(0.8, abs=0.1)
    assert found["levels"][0]["width_px"] == 1024


@pytest.mark.parametrize(
    "words",
    [
        ["score"],
        ["score", "-o", "out"],
        ["score", "a.svs"],
        ["score", "a.svs", "-o", "out", "--no-such-flag"],
        ["score", "a.svs", "-o", "out", "-m", "no-such-model"],
        ["score", "a.svs", "-o", "out", "-n", "0"],
        ["score", "a.svs", "-o", "out", "--mpp", "-1"],
        ["score", "a.svs", "-o", "out", "--guideline", "none-such"],
        ["score", "a.svs", "-o", "out", "--roi", "no-such.geojson"],
        ["score", "a.svs", "-o", "out", "--reading", "sharp"],
        ["score", "no.csv", "-o", "out"],
        ["rescore", "no-such-folder"],
        ["models", "show", "no-such-model"],
        ["convert", "a.png", "b.png"],
        ["no-such-verb"],
    ],
)
def test_wrong_calls_exit_64(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.svs").touch()
    assert cli.run(words) == 64
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(score: Run, slide: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    assert score(slide) == 74


def test_a_device_is_a_promise(score: Run, slide: Path) -> None:
    assert score(slide, "--device", "gpu") == 64
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        assert score(slide, "--device", "cuda") == 64


def test_hostile_file_names(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = slide.read_bytes()
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    odd = [b"=cmd().svs", b"two\nlines.svs", b"\xff\xfe.svs", b"x" * 251 + b".svs"]
    for name in odd:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    assert score("-i", tmp_path / "odd") == 0
    printed = capsys.readouterr().out
    assert "4 of 4 slides scored" in printed
    assert printed.count("\n") == 7  # one line a slide, whatever its name
    with (tmp_path / "out/results.csv").open(newline="", encoding="utf-8") as table:
        names = {row["slide"] for row in csv.DictReader(table)}
    assert names == {
        "'=cmd().svs",
        "two\nlines.svs",
        "\\xff\\xfe.svs",
        "x" * 251 + ".svs",
    }


# --- rescore --------------------------------------------------------------------------


def test_rescore_gives_the_files_of_a_full_run(
    score: Run, slide: Path, tmp_path: Path
) -> None:
    ring = [[0, 0], [500, 0], [500, 1024], [0, 1024], [0, 0]]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    assert score(slide) == 0
    plain = files(tmp_path / "out")
    out = str(tmp_path / "out")
    assert cli.run(["rescore", out, "--roi", str(roi)]) == 0
    assert score(slide, "--roi", roi, out="full") == 0
    assert files(tmp_path / "out") == files(tmp_path / "full")
    # What is not given stays: the ROI is still there.
    assert cli.run(["rescore", out, "--guideline", "pham-2022"]) == 0
    record = json.loads((tmp_path / "out/results/a.json").read_bytes())
    assert record["roi_sha256"] is not None
    assert record["guideline"]["rule_set"] == "pham-2022"
    words = ["rescore", out, "--roi", "none", "--guideline", "asco-cap-2018"]
    assert cli.run(words) == 0
    now = files(tmp_path / "out")
    changed = {name for name in now if now[name] != plain[name]}
    assert changed == {"measurements/a.state.json"}  # it names the guideline asked for


def test_rescore_with_ish(
    score: Run, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides.write_slide(slide, slides.paint(stains=(1, 2)))
    assert score(slide) == 0
    table = tmp_path / "ish.csv"
    table.write_text("slide,ish\na.svs,positive\n")
    assert cli.run(["rescore", str(tmp_path / "out"), "--ish", str(table)]) == 0
    record = json.loads((tmp_path / "out/results/a.json").read_bytes())
    assert (record["score"], record["guideline"]["binary"]) == ("2+", "positive")


def test_rescore_imports_no_torch(score: Run, slide: Path, tmp_path: Path) -> None:
    assert score(slide) == 0
    code = (
        "import sys; from her2fast import cli;"
        f"code = cli.run(['rescore', {str(tmp_path / 'out')!r}]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- info, models ---------------------------------------------------------------------


def test_info(slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["info", str(slide)]) == 0
    assert "1024 x 1024 px" in capsys.readouterr().out
    assert cli.run(["info", str(slide), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["slide"]["spacing_um"] == [1.0, 1.0]
    assert cli.run(["info", str(tmp_path / "gone.svs"), "--json"]) == 20
    assert json.loads(capsys.readouterr().out)["code"] == "NOT_FOUND"


def test_models(method: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.run(["models", "ls"]) == 0
    printed = capsys.readouterr().out
    assert "constrained-tiny: constrained, 1 um/px, 4 classes" in printed
    assert printed.count("trusted: ") == 2
    assert cli.run(["models", "show", str(method)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "test-method"
    assert cli.run(["models", "check", str(method)]) == 0
    assert "test-method: good" in capsys.readouterr().out
    assert cli.run(["models", "check", "constrained-tiny"]) == 0
