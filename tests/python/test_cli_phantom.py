# SPDX-License-Identifier: Apache-2.0
"""`her2fast phantom`: files, reruns, refusals, workers, and a run interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

import her2fast
from her2fast import cli, manifest, roi
from her2fast.phantom import cohort, spec

SPEC = """
[slide]
width_um = 1300
height_um = 600
[tumor]
mixture = [0.0, 1.0, 0.0, 0.0]
free_share = 0.0
[control]
classes = ["3+"]
diameter_um = 300
distance_um = 350
"""
SLIDES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    (root / "a.toml").write_text(SPEC, encoding="utf-8")
    assert run(root, "-o", root / "out") == 0
    return root


def run(root: Path, *words: object, seed: int = 5) -> int:
    arguments = ["--slides", SLIDES, "--seed", seed, "--spec", root / "a.toml"]
    return cli.run([str(word) for word in ("phantom", *arguments, *words)])


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_openslide_opens_what_is_written(folder):
    openslide = pytest.importorskip("openslide")
    path = folder / "out/slides/phantom-00001.svs"
    record = json.loads(
        (folder / "out/truth/phantom-00001/truth.json").read_text(encoding="utf-8")
    )
    with openslide.OpenSlide(path) as opened:
        assert opened.dimensions == tuple(record["size_px"]) == (1300, 600)
        assert float(opened.properties["openslide.mpp-x"]) == 1.0
        assert opened.properties["aperio.Title"] == cohort.TITLE
        assert "ynthetic" in cohort.TITLE
        there = np.asarray(opened.read_region((0, 0), 0, (1300, 600)).convert("RGB"))
    with her2fast.open_slide(str(path)) as slide:
        ours = np.asarray(slide.read(0, 0, 256, spacing_um=1.0))
    np.testing.assert_array_equal(ours, there[:256, :256])


def test_files_are_those_that_the_truth_names(folder):
    from PIL import Image
    from pyarrow import parquet

    place = folder / "out/truth/phantom-00002"
    record = json.loads((place / "truth.json").read_text(encoding="utf-8"))
    assert {path.name for path in place.iterdir()} == {*record["files"], "truth.json"}
    classes = np.asarray(Image.open(place / "class_map.png"))
    tumor = np.asarray(Image.open(place / "tumor_mask.png"))
    assert classes.shape == tumor.shape == (600, 1300)
    np.testing.assert_array_equal(tumor, (classes >= 1) & (classes <= 4))
    counts = np.bincount(classes.ravel(), minlength=9).tolist()
    assert record["tumor_px"] == counts[1:5]
    assert record["control"]["tumor_px"] == counts[5:9]
    assert record["label"] == "1+"
    cells = parquet.read_table(place / "cells.parquet")
    kinds, control = cells["class"].to_numpy(), cells["control"].to_numpy()
    assert record["cells"] == np.bincount(kinds[~control], minlength=4).tolist()
    assert set(kinds[control]) == {3}
    assert record["synthetic"] is True
    assert record["versions"]["her2fast"] == her2fast.__version__


def test_scorer_takes_manifest_and_regions(folder):
    entries = manifest.collect([str(folder / "out/manifest.csv")])
    assert [entry.label for entry in entries] == ["1+", "1+"]
    for entry in entries:
        assert Path(entry.slide).is_file()
        region = manifest.region_of(entry, str(folder / "out/regions"))
        polygons = roi.load_roi(str(region))
        roi.check_inside(polygons, (1300, 600))
        assert sorted(exclude for exclude, _ in polygons) == [False, True]


def test_dry_run_reads_it(folder, tmp_path, capsys):
    words = ["score", folder / "out/manifest.csv", "-o", tmp_path / "r", "--dry-run"]
    code = cli.run([str(word) for word in words])
    assert code == 0, capsys.readouterr()
    assert "aperio" in capsys.readouterr().out


def test_workers_and_order_do_not_change_a_byte(folder, tmp_path):
    assert run(folder, "-o", tmp_path / "out", "-n", 2) == 0
    assert files(tmp_path / "out") == files(folder / "out")


def test_rerun_makes_exactly_what_is_missing(folder, tmp_path, capsys):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    before = files(out)
    (out / "truth/phantom-00001/truth.json").unlink()
    (out / "slides/.her2fast-1-0.tmp").write_bytes(b"half")
    assert run(folder, "-o", out, "-n", 1) == 0
    printed = capsys.readouterr().out
    assert "phantom-00002: 1+ [finished before]" in printed
    assert "phantom-00001: 1+ [finished before]" not in printed
    assert files(out) == before
    # A slide that was cut short by something else is made again, too.
    (out / "slides/phantom-00002.svs").write_bytes(b"short")
    assert run(folder, "-o", out, "-n", 1, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [slide["work"] for slide in report["slides"]] == ["kept", "drawn"]
    assert files(out) == before


def test_nothing_is_overwritten(folder, tmp_path, capsys):
    before = files(folder / "out")
    assert run(folder, "-o", folder / "out", seed=6) == 64
    assert "their seed is 5, wanted is 6" in capsys.readouterr().err
    assert run(folder, "-o", folder / "out", "--spacing", 2.0) == 64
    assert "slide = spacing_um = 1.0, wanted is 2.0" in capsys.readouterr().err
    assert files(folder / "out") == before
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert run(folder, "-o", tmp_path) == 64
    assert "notes.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert run(folder, "-o", tmp_path / "notes.txt") == 64


def test_wrong_calls_are_usage_errors(folder, tmp_path, capsys):
    assert run(folder) == 64
    assert run(folder, "-o", tmp_path / "a", "--slides", 0) == 64
    assert run(folder, "-o", tmp_path / "b", "--score", "4+") == 64
    assert run(folder, "-o", tmp_path / "c", "--spacing", "nan") == 64
    capsys.readouterr()
    (tmp_path / "bad.toml").write_text("[slide]\nwidth_um = 1", encoding="utf-8")
    assert run(folder, "-o", tmp_path / "d", "--spec", tmp_path / "bad.toml") == 64
    error = capsys.readouterr().err
    assert "SPEC_RANGE: bad.toml: slide.width_um: need 500 to 40000" in error
    assert {path.name for path in tmp_path.iterdir()} == {"bad.toml"}


def test_default_spec_is_printed(capsys):
    assert cli.run(["phantom", "--default-spec"]) == 0
    assert capsys.readouterr().out == spec.default_toml()


def test_two_writers_do_not_meet(folder, tmp_path, capsys):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(folder, "-o", tmp_path / "out") == 74
    assert "OUTPUT_BUSY" in capsys.readouterr().err


def test_failed_write_leaves_no_half_file(folder, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort.Camera, "rows", fail)
    assert run(folder, "-o", tmp_path / "out", "-n", 1) == 130
    left = set(files(tmp_path / "out"))
    assert left == {".lock", "cohort.json"}


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupt_leaves_only_finished_slides(folder, tmp_path, workers):
    """A real SIGINT to the process alone, while the second slide is on its way."""
    out = tmp_path / "out"
    words = ["-o", out, "--slides", 60, "--seed", 5, "--spec", folder / "a.toml"]
    command = [sys.executable, "-m", "her2fast", "phantom", "-n", workers, *words]
    path = [str(Path(her2fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[1/60]")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    names = set(files(out))
    assert not [name for name in names if name.endswith(".tmp")]
    done = [name for name in names if name.endswith("truth.json")]
    assert 1 <= len(done) < 60
    # What is there has the bytes of a run that nobody interrupted.
    complete = files(folder / "out")
    for name in done:
        if name in complete:
            assert (out / name).read_bytes() == complete[name]
