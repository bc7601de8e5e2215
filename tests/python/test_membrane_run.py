# SPDX-License-Identifier: Apache-2.0
"""`her2fast membranes` as a run: files, reruns, crashes, and deciding again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from membrane_cases import arguments, box, files, region_file, write_case

import her2fast
from her2fast.cli import run as command
from her2fast.errors import SlideError, UsageError
from her2fast.manifest import Entry
from her2fast.membrane_run import MembraneOptions, _score, stored_membranes
from her2fast.membranes import MembraneResult, score_membranes
from her2fast.record import Provenance
from her2fast.run import run
from her2fast.scoring import as_roi
from her2fast.slide_job import Task
from her2fast.store import ResultsFolder

SCHEMAS = Path(__file__).parents[2] / "python/her2fast/data/schemas"
#: Without the column of cells that stands beside the rings; and too small for a score.
PART, CORNER = (482, 0, 1600, 1600), (0, 0, 1000, 1000)


def check(name: str, data: bytes) -> Any:
    """A file's content, which has the schema of this name."""
    value = json.loads(data)
    jsonschema.validate(value, json.loads((SCHEMAS / f"{name}.json").read_text()))
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("membranes"))


@pytest.fixture(scope="module")
def scored(folder: Path) -> Path:
    """A results folder of the slide, whole."""
    out = folder / "scored"
    assert command(arguments(folder, out, "-n", 2)) == 0
    return out


@pytest.fixture
def out(scored: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(scored, tmp_path / "out")


def test_a_folder_and_what_is_finished(
    folder: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(to: Path, *more: object) -> str:
        assert command(arguments(folder, to, *more)) == 10
        return capsys.readouterr().out

    gone = folder / "gone.svs"
    printed = shown(out, gone, "-n", 1)
    line, bad, where, use, last = printed.splitlines()
    assert line.startswith("[1/2] lattice.svs: scored 3+, cells 0/1+/2+/3+ ")
    assert "(finished before)" in line
    assert bad.startswith("[2/2] gone.svs: failed NOT_FOUND")
    assert where.startswith("results: ")
    assert use == "use:     research use only; trained on synthetic data"
    assert last == "1 of 2 slides scored; 1 not scored: 1 NOT_FOUND"
    # Another count of workers and another order: the same bytes.
    other = tmp_path / "other"
    words = arguments(folder, other, "-n", 1)
    words[1:2] = [str(gone), words[1]]
    assert command(words) == 10
    found = files(other)
    assert files(out) == found
    assert {
        "results/lattice.json",
        "results/gone.json",
        "measurements/lattice.h2m",
        "measurements/lattice.h2c",
        "measurements/lattice.jpg",
        "measurements/lattice.patches.zip",
        "cells/lattice.geojson",
        "class-maps/lattice.png",
        "reports/lattice.html",
        "reports/gone.html",
        "results.csv",
    } <= set(found)
    for name in ("lattice", "gone"):
        record = check("result", found[f"results/{name}.json"])
        assert record["method"]["name"] == "brown"
        assert record["method"]["tumor"]["method"]["name"] == "test-method"
    record = json.loads(found["results/lattice.json"])
    features = json.loads(found["cells/lattice.geojson"])["features"]
    assert len(features) == record["cells"]["count"]
    page = found["reports/lattice.html"].decode()
    assert page.count("data:image/jpeg") == 1 + 3 * 6  # the map; class 1+ has no cell
    assert "tumor cells with a nucleus" in page
    assert "Dropped beside unreadable tiles" in page
    assert "research use only" in page.casefold()
    assert "pictures are missing" not in page
    assert "NOT_FOUND" in found["reports/gone.html"].decode()
    # One finished file gone: the slide is done again, to the same bytes.
    (out / "cells/lattice.geojson").unlink()
    assert "(measured before)" in shown(out, gone)
    assert files(out) == found


def test_what_a_run_tells(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_text("not a slide")
    out = tmp_path / "out"
    words = arguments(folder, out, "--json", "--fail-fast")
    words[1:2] = [str(bad), words[1]]
    assert command(words) == 20
    summary = json.loads(capsys.readouterr().out)
    assert [slide["code"] for slide in summary["slides"]] == ["UNSUPPORTED_FORMAT"]
    assert summary["slides"][0]["class_cells"] is None
    assert os.listdir(out / "results") == ["bad.json"]
    (place,) = out.glob("run_*.json")
    assert check("run", place.read_bytes())["options"]["tumor_model"] is not None
    (events,) = out.glob("events_*.jsonl")
    lines = [check("event", line) for line in events.read_bytes().splitlines()]
    assert [line["event"] for line in lines] == [
        "run_started",
        "slide_started",
        "slide_ended",
        "stopped",
        "run_ended",
    ]


def test_a_dry_run_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.svs"
    bad.write_text("not a slide")
    assert command(arguments(folder, out, bad, "--dry-run")) == 10
    printed = capsys.readouterr().out
    assert "lattice.svs: aperio, 0.25 x 0.25 um/px (vendor)" in printed
    assert "bad.svs: refused UNSUPPORTED_FORMAT" in printed
    # Coarser than the network's pictures, though fine enough for the tumor's.
    assert command(arguments(folder, out, "--dry-run", "--mpp", 0.5, "--json")) == 20
    (slide,) = json.loads(capsys.readouterr().out)["slides"]
    assert slide["code"] == "NO_LEVEL"
    assert not out.exists()


@pytest.mark.parametrize(
    "more", [["--guideline", "none-such"], ["--roi", "none-such"], ["-m", "none-such"]]
)
def test_wrong_calls(folder: Path, tmp_path: Path, more: list[str]) -> None:
    assert command(arguments(folder, tmp_path / "out", *more)) == 64
    assert not (tmp_path / "out").exists()


def test_packages_in_no_list_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(folder, tmp_path / "out")
    words.remove("--allow-unknown-model")
    assert command(words) == 20
    assert "refused MODEL_HASH" in capsys.readouterr().out


class Killer:
    """Ends the worker where it looks at a slide's membranes; remembers the stages."""

    def __init__(self, slide: str) -> None:
        self.slide = slide
        self.stages: list[tuple[str, str]] = []

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        if event == "progress" and "stage" in fields:
            self.stages.append((fields["slide"], fields["stage"]))
            if self.stages[-1] == (self.slide, "membranes"):
                for worker in multiprocessing.active_children():
                    assert worker.pid is not None
                    os.kill(worker.pid, signal.SIGSEGV)


def test_a_crash_in_the_membranes_costs_one_slide(
    folder: Path, scored: Path, tmp_path: Path
) -> None:
    other = shutil.copyfile(folder / "lattice.svs", tmp_path / "other.svs")
    options = MembraneOptions(
        out=str(tmp_path / "out"),
        model=str(folder / "brown"),
        tumor_model=str(folder / "tumor"),
        workers=1,
        allow_unknown_model=True,
    )
    entries = [Entry(str(other)), Entry(str(folder / "lattice.svs"))]
    killer = Killer("other.svs")
    summary = run(options, entries, on_event=killer)
    assert summary.exit_code == 10
    crashed, whole = summary.outcomes
    assert (crashed.status, crashed.code) == ("failed", "CRASH")
    assert "SIGSEGV (2 times)" in crashed.message
    assert (whole.score, whole.work) == ("3+", "measured")
    # The second attempt found the tumor that the first one had stored.
    of_it = [stage for slide, stage in killer.stages if slide == "other.svs"]
    assert of_it.index("membranes") == len(of_it) - of_it.count("membranes")
    assert (tmp_path / "out/measurements/other.h2m").is_file()
    record = check("result", (tmp_path / "out/results/other.json").read_bytes())
    assert (record["score"], record["cells"]) == (None, None)
    name = "results/lattice.json"
    assert (tmp_path / "out" / name).read_bytes() == (scored / name).read_bytes()

    killer = Killer("nothing")
    summary = run(options, entries, on_event=killer)
    assert [o.work for o in summary.outcomes] == ["measured", "kept"]
    assert {stage for _, stage in killer.stages} == {"membranes"}


class Failing:
    """A scorer whose tumor is the stored one and whose membranes end badly."""

    def __init__(self, scored: Path, with_cells: bool) -> None:
        record = json.loads((scored / "results/lattice.json").read_bytes())
        self.source = Provenance.from_record(record)
        stored = stored_membranes(ResultsFolder(scored), "lattice", self.source)
        assert stored is not None
        assert stored.cells is not None
        self.stored, self.with_cells = stored, with_cells

    def provenance(self, slide: Any) -> Provenance:
        return self.source

    def measure_tumor(self, slide: Any, on_stage: Any) -> Any:
        return self.stored.tumor

    def finish(
        self, slide: Any, measurement: Any, settings: Any, on_stage: Any, keep: Any
    ) -> Any:
        assert measurement.cells is None
        if self.with_cells:
            keep(self.stored.cells)
        raise SlideError("the end", "GPU_OOM")


@pytest.mark.parametrize("with_cells", [True, False])
def test_measured_anew_nothing_old_is_left_and_nothing_measured_lost(
    scored: Path, out: Path, with_cells: bool
) -> None:
    scorer: Any = Failing(scored, with_cells)
    whole = files(out)
    (out / "measurements/lattice.h2c").write_bytes(b"of other bytes")
    nothing: Any = None
    task = Task(ResultsFolder(out), "lattice", nothing, nothing, True, lambda now: None)
    with pytest.raises(SlideError, match="the end"):
        _score(scorer, task)
    left = files(out)
    name = "measurements/lattice.h2c"
    assert left.get(name) == (whole[name] if with_cells else None)
    assert left["measurements/lattice.h2m"] == whole["measurements/lattice.h2m"]
    assert "measurements/lattice.patches.zip" not in left


# --- deciding again ------------------------------------------------------------------


def test_rescore_gives_the_files_of_a_full_run(
    folder: Path,
    scored: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    region = region_file(tmp_path / "region.geojson", *PART)
    more = ["--roi", region, "--guideline", "gastric-2016"]
    assert command(["rescore", str(out), *map(str, more)]) == 0
    assert "lattice: scored 0" in capsys.readouterr().out
    full = tmp_path / "full"
    assert command(arguments(folder, full, *more)) == 0
    assert files(out) == files(full)
    record = check("result", (out / "results/lattice.json").read_bytes())
    assert record["score"] == "0"
    assert record["roi_sha256"] is not None
    # A run with these settings finds it finished, and so does one after the next.
    capsys.readouterr()
    assert command(arguments(folder, out, *more)) == 0
    assert "(finished before)" in capsys.readouterr().out
    assert command(arguments(folder, out)) == 0
    assert "(measured before)" in capsys.readouterr().out
    assert files(out) == files(scored)


def test_rescore_with_ish_without_the_slide(
    folder: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = shutil.copyfile(folder / "lattice.svs", tmp_path / "lattice.svs")
    out = tmp_path / "out"
    words = arguments(folder, out)
    words[1] = str(slide)
    assert command(words) == 0
    assert files(out) == files(scored)
    slide.unlink()
    ish = tmp_path / "ish.csv"
    ish.write_text("slide,ish\nlattice.svs,negative\n")
    assert command(["rescore", str(out), "--ish", str(ish)]) == 0
    record = json.loads((out / "results/lattice.json").read_bytes())
    assert (record["score"], record["guideline"]["ish"]) == ("3+", "negative")
    # The same cells are shown; their pictures were kept.
    assert "pictures are missing" not in (out / "reports/lattice.html").read_text()
    region = region_file(tmp_path / "region.geojson", *PART)
    assert command(["rescore", str(out), "--roi", str(region)]) == 0
    page = (out / "reports/lattice.html").read_text()
    assert "pictures are missing: the slide is not where it was" in page
    # Where the slide can be read again, a run completes the page.
    shutil.copyfile(folder / "lattice.svs", slide)
    capsys.readouterr()
    assert command([*words, "--roi", str(region)]) == 0
    assert "(measured before)" in capsys.readouterr().out
    assert "pictures are missing" not in (out / "reports/lattice.html").read_text()


def test_a_region_that_does_not_fit_leaves_no_old_score(
    folder: Path,
    scored: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    far = region_file(tmp_path / "far.geojson", 90_000, 90_000, 91_000, 91_000)
    assert command(["rescore", str(out), "--roi", str(far)]) == 20
    record = check("result", (out / "results/lattice.json").read_bytes())
    assert (record["code"], record["score"]) == ("ROI_OUTSIDE", None)
    assert not (out / "cells/lattice.geojson").exists()
    page = (out / "reports/lattice.html").read_bytes()
    full = tmp_path / "full"
    assert command(arguments(folder, full, "--roi", far)) == 20
    assert page == (full / "reports/lattice.html").read_bytes()
    broken = tmp_path / "broken.geojson"
    broken.write_text("{")
    assert command(["rescore", str(out), "--roi", str(broken)]) == 20
    record = check("result", (out / "results/lattice.json").read_bytes())
    assert (record["code"], record["cells"]) == ("ROI_INVALID", None)
    refused = (out / "results/lattice.json").read_bytes()
    assert command(arguments(folder, full, "--roi", broken)) == 20
    assert (full / "results/lattice.json").read_bytes() == refused
    # What was measured is still there.
    assert command(["rescore", str(out), "--roi", "none"]) == 0
    assert files(out) == files(scored)
    small = region_file(tmp_path / "small.geojson", *CORNER)
    capsys.readouterr()
    assert command(["rescore", str(out), "--roi", str(small)]) == 0
    assert "indeterminate TOO_LITTLE_TUMOR" in capsys.readouterr().out


def test_rescore_without_cells_leaves_the_slide(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    small = region_file(tmp_path / "small.geojson", *CORNER)
    assert command(arguments(folder, out, "--roi", small)) == 0
    before = files(out)
    assert "measurements/lattice.h2c" not in before
    capsys.readouterr()
    assert command(["rescore", str(out), "--roi", "none"]) == 20
    printed = capsys.readouterr().out
    assert "lattice: left as it was" in printed
    assert "run `her2fast membranes`" in printed
    assert files(out) == before
    # The page shows the slide as it looks, without a class.
    page = before["reports/lattice.html"].decode()
    assert page.count("data:image/jpeg") == 1
    assert "The slide as it looks" in page
    # The tumor alone says that it is too little still.
    corner = region_file(tmp_path / "corner.geojson", 0, 0, 900, 900)
    assert command(["rescore", str(out), "--roi", str(corner)]) == 0
    assert "TOO_LITTLE_TUMOR" in capsys.readouterr().out


def test_a_folder_of_an_older_release_is_left(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = out / "results/lattice.json"
    record = json.loads(place.read_bytes())
    del record["method"]["tumor"]
    place.write_text(json.dumps(record))
    assert command(["rescore", str(out), "--guideline", "pham-2022"]) == 20
    assert "left as it was (no measurement)" in capsys.readouterr().out
    assert json.loads(place.read_bytes()) == record


def test_rescore_imports_no_torch(out: Path) -> None:
    code = (
        "import sys; from her2fast import cli;"
        f"code = cli.run(['rescore', {str(out)!r}, '--guideline', 'pham-2022']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rescore_in_python(folder: Path, tmp_path: Path) -> None:
    def score(**options: Any) -> MembraneResult:
        return score_membranes(
            folder / "lattice.svs",
            model=folder / "brown",
            tumor_model=folder / "tumor",
            allow_unknown_model=True,
            **options,
        )

    region = region_file(tmp_path / "region.geojson", *PART)
    heard: list[str] = []
    listen: Callable[..., None] = lambda stage, _: heard.append(stage)  # noqa: E731
    whole = score(on_stage=listen)
    assert heard == sorted(heard, reverse=True)  # the tumor, then the membranes
    assert set(heard) == {"tumor", "membranes"}
    assert whole.measurement is not None
    options = {"roi": region, "guideline": "gastric-2016", "ish": "positive"}
    again = her2fast.rescore(whole.measurement, **options)
    assert isinstance(again, MembraneResult)
    full = score(**options)
    assert again.record == full.record
    assert again.score == "0"
    assert again.record["measurement_key"] == whole.record["measurement_key"]
    outside = her2fast.rescore(whole.measurement, roi=box(9e4, 9e4, 9.1e4, 9.1e4))
    assert isinstance(outside, MembraneResult)
    assert outside.record["code"] == "ROI_OUTSIDE"
    small = score(roi=as_roi(region_file(tmp_path / "small.geojson", *CORNER)))
    assert small.record["code"] == "TOO_LITTLE_TUMOR"
    assert small.measurement is not None
    assert small.cells is None
    with pytest.raises(UsageError, match="never measured"):
        her2fast.rescore(small.measurement)
    with pytest.raises(UsageError, match="need a guideline of"):
        her2fast.rescore(whole.measurement, guideline="none-such")
