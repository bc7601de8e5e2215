# SPDX-License-Identifier: Apache-2.0
"""Stages of training on small slides: what is learned, resumed and packaged."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from training_cohort import (
    config_text,
    painted_cohort,
    phantom_cohort,
)

import her2fast
from her2fast import _core
from her2fast.cli import run as cli_run
from her2fast.errors import DeviceError, UsageError
from her2fast.models.package import load_package
from her2fast.opened_slide import open_input
from her2fast.scoring import Scorer
from her2fast.training.checkpoint import read_tensors
from her2fast.training.cohort import load_cohort
from her2fast.training.extract import Cutter, Cutting
from her2fast.training.stages import run_stage

TINY: dict[str, Any] = {
    "model": {"backbone": "tiny"},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "train": {"epochs": 2, "batch_size": 16},
    "compute": {"threads": 1},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A trust file of its own; torch's settings as they were."""
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "trust"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def _config(folder: Path, cohort: Path, **tables: Any) -> Path:
    data = {
        "manifest": cohort,
        "annotations": cohort.parent / "drawn",
        "cache": cohort.parent / "cache",
        **tables.pop("data", {}),
    }
    path = folder / "config.toml"
    path.write_text(config_text(**{**tables, "data": data}))
    return path


def _pretrained(folder: Path, cohort: Path, epochs: int = 2) -> Path:
    config = _config(folder, cohort, **TINY)
    run_stage(
        "pretrain",
        config,
        folder / "pre",
        changes=[f"train.epochs={epochs}"],
        say=lambda line: None,
    )
    return folder / "pre"


def _say_and_stop(words: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line.startswith(words):
            raise KeyboardInterrupt(line)

    return say


def _same_weights(a: Path, b: Path) -> None:
    for name in ("last", "best"):
        left = read_tensors(a / "checkpoints" / f"{name}.safetensors")
        right = read_tensors(b / "checkpoints" / f"{name}.safetensors")
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), (name, key)
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


def test_epochs_never_decode_and_settings_do(cohort: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = _config(tmp_path, cohort, **TINY, data={"cache": tmp_path / "cache"})
    run_stage("pretrain", config, tmp_path / "a", say=said.append)
    assert sum(line.startswith("cut ") for line in said) == 8
    said.clear()
    run_stage("pretrain", config, tmp_path / "b", say=said.append)
    assert not any(line.startswith("cut ") for line in said)
    _same_weights(tmp_path / "a", tmp_path / "b")
    changes = ["data.max_patches=4"]
    run_stage("pretrain", config, tmp_path / "c", changes=changes, say=said.append)
    assert sum(line.startswith("cut ") for line in said) == 8


@pytest.mark.slow
def test_killed_run_ends_with_the_same_weights(cohort: Path, tmp_path: Path) -> None:
    """A real SIGKILL in the second epoch, then the same command."""
    tables = {**TINY, "train": {"epochs": 6, "batch_size": 16}}
    config = _config(tmp_path, cohort, **tables)
    command = [sys.executable, "-m", "her2fast", "train", "pretrain", str(config), "-o"]
    with subprocess.Popen(
        [*command, str(tmp_path / "killed")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "run.json").exists()
    said: list[str] = []
    for name in ("killed", "straight"):
        run_stage("pretrain", config, tmp_path / name, say=said.append)
    assert any(line.startswith("resuming after epoch ") for line in said)
    _same_weights(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_run_is_the_straight_run(
    cohort: Path, tmp_path: Path, optimizer: str
) -> None:
    tables = {**TINY, "optimizer": {"name": optimizer, "lr": 3e-3}}
    config = _config(tmp_path, cohort, **tables)
    run_stage("pretrain", config, tmp_path / "straight", say=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        run_stage("pretrain", config, tmp_path / "cut", say=_say_and_stop("epoch 2/"))
    said: list[str] = []
    outcome = run_stage("pretrain", config, tmp_path / "cut", say=said.append)
    assert "resuming after epoch 1" in said
    _same_weights(tmp_path / "straight", tmp_path / "cut")
    again = run_stage("pretrain", config, tmp_path / "cut", say=said.append)
    assert again == outcome
    assert "this run has finished" in said[-1]


def test_run_folder_says_what_was_done(cohort: Path, tmp_path: Path) -> None:
    run = _pretrained(tmp_path, cohort)
    facts = json.loads((run / "environment.json").read_text())
    assert facts["split_sha256"] == load_cohort(cohort).split_sha256
    assert len(facts["fingerprints"]) == 8
    assert facts["torch"]
    assert facts["seed"] == 0
    resolved = json.loads((run / "config.json").read_text())
    assert resolved["optimizer"]["clip_norm"] == 0.0
    assert (run / "config.toml").read_text() == (tmp_path / "config.toml").read_text()
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) >= {"loss", "val_accuracy", "val_loss", "slide_macro_f1"}
    for path in run.rglob("*"):
        assert path.suffix not in (".pt", ".pth", ".pkl")


def test_another_configuration_is_refused(cohort: Path, tmp_path: Path) -> None:
    run = _pretrained(tmp_path, cohort, epochs=1)
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.003 there, 0\.1 here"):
        run_stage(
            "pretrain",
            tmp_path / "config.toml",
            run,
            changes=["train.epochs=1", "optimizer.lr=0.1"],
            say=lambda line: None,
        )
    config = _config(tmp_path, cohort, start=tmp_path / "none")
    with pytest.raises(UsageError, match="need a run folder of pretrain"):
        run_stage("constrained", config, tmp_path / "c", say=lambda line: None)


def test_constrained_stage_follows_the_selection(cohort: Path, tmp_path: Path) -> None:
    start = _pretrained(tmp_path, cohort)
    config = _config(
        tmp_path,
        cohort,
        start=start,
        optimizer={"lr": 1e-3},
        train={"epochs": 3, "batch_size": 8},
        constraints={"average": "slide"},
        compute={"threads": 1},
    )
    run_stage("constrained", config, tmp_path / "con", say=lambda line: None)
    tables = sorted((tmp_path / "con" / "selected").iterdir())
    assert 1 <= len(tables) <= 3
    first = pq.read_table(tables[0]).to_pylist()
    for row in first:
        logits = [row[f"logit_{kind}"] for kind in range(4)]
        called = logits.index(max(logits))
        if row["action"] == 1:  # pushed from a class above the label
            assert called == row["class_id"] > row["label"]
            assert not row["admissible"] >> called & 1
        else:  # pulled to the label
            assert row["class_id"] == row["label"] != called
            assert row["admissible"] == 1 << row["label"]
    # P18: what batch norms learned is kept; the rest moves.
    before = read_tensors(start / "checkpoints" / "best.safetensors")
    after = read_tensors(tmp_path / "con" / "checkpoints" / "last.safetensors")
    norms = [name for name in before if "running_" in name or "tracked" in name]
    assert norms
    for name in norms:
        assert torch.equal(before[name], after[name]), name
    if first:
        assert not torch.equal(
            before["network.head.weight"], after["network.head.weight"]
        )
    with pytest.raises(KeyboardInterrupt):
        run_stage("constrained", config, tmp_path / "cut", say=_say_and_stop("epoch 2"))
    run_stage("constrained", config, tmp_path / "cut", say=lambda line: None)
    _same_weights(tmp_path / "con", tmp_path / "cut")


def test_calibrated_package_scores(cohort: Path, tmp_path: Path) -> None:
    start = _pretrained(tmp_path, cohort)
    config = _config(
        tmp_path,
        cohort,
        start=start,
        package={
            "name": "mine",
            "synthetic": True,
            "guideline": "pham-2022",
            "tissue_is_tumor": True,
        },
        calibration={"on": ["train", "val"]},
    )
    outcome = run_stage("calibrate", config, tmp_path / "cal", say=lambda line: None)
    facts = outcome["calibration"]
    assert facts["loss_after"] <= facts["loss_before"]
    assert facts["slides"] == 8
    package = load_package(tmp_path / "cal" / "package")
    package.require_known()  # `train` adds what it wrote to the trust file
    assert package.method == "patches"
    if facts["identity_because"] is None:
        assert package.bias == tuple(facts["values"])
    # Tissue is tumor for this package, and the drawings hold all tissue: the fractions
    # of a score are those that training saw.
    slide = cohort.parent / "s3.svs"
    result = her2fast.score(slide, model=package)
    assert result.status in ("scored", "indeterminate"), result.message
    measured = Scorer(package).measure(open_input(slide))
    outcomes = _core.patch_outcomes(
        measured.core, rule_set=None, bias_q16=package.bias_q16
    )
    assert len(outcomes["kept"]) >= 16
    other = tmp_path / "other.toml"
    text = (tmp_path / "config.toml").read_text()
    other.write_text(text.replace("cohort.csv", "moved.csv"))
    moved = cohort.parent / "moved.csv"
    moved.write_text(cohort.read_text().replace("p4,A,val", "p4,A,train"))
    with pytest.raises(UsageError, match="another division of slides"):
        run_stage("calibrate", other, tmp_path / "cal2", say=lambda line: None)


def test_segmenter_trains_and_cuts_for_the_next_stage(
    cohort: Path, tmp_path: Path
) -> None:
    tables = {
        **TINY,
        "train": {"epochs": 1, "batch_size": 2, "samples_per_epoch": 4},
        "augment": {"hue": 0.0},
        "package": {"name": "finds-tumor", "synthetic": True},
    }
    config = _config(tmp_path, cohort, **tables)
    facts = run_stage("segment", config, tmp_path / "seg", say=lambda line: None)
    assert 0.05 <= facts["alpha"] <= 0.95
    with (tmp_path / "seg" / "metrics.csv").open() as file:
        row = next(csv.DictReader(file))
    assert set(row) >= {"val_loss", "val_dice", "val_precision", "val_recall"}
    segmenter = tmp_path / "seg" / "package"
    source = load_cohort(cohort).slides[3]
    from her2fast.training.patches import segmenter_of

    cutter = Cutter(Cutting(1.0, "scaled", 2, segmenter=segmenter_of(segmenter)))
    opened = cutter.open(source)
    core = cutter._measure(opened)
    assert core.tumor_mask(0, 0, 384, 384).shape == (384, 384)


def test_bad_slides_are_named_or_left_out(cohort: Path, tmp_path: Path) -> None:
    (cohort.parent / "broken.svs").write_bytes(b"no slide")
    text = cohort.read_text() + "broken.svs,1+,px,A,train\n"
    manifest = cohort.parent / "with_broken.csv"
    manifest.write_text(text)
    config = _config(tmp_path, manifest, **TINY)
    with pytest.raises(UsageError, match=r"broken\.svs: UNSUPPORTED_FORMAT"):
        run_stage("pretrain", config, tmp_path / "a", say=lambda line: None)
    said: list[str] = []
    changes = ["data.bad_slides=skip", "train.epochs=1"]
    run_stage("pretrain", config, tmp_path / "b", changes=changes, say=said.append)
    assert any(line.startswith("left out broken.svs") for line in said)
    facts = json.loads((tmp_path / "b" / "environment.json").read_text())
    assert list(facts["left_out"]) == ["broken.svs"]


def test_the_same_file_twice_is_refused(cohort: Path, tmp_path: Path) -> None:
    (cohort.parent / "twin.svs").write_bytes((cohort.parent / "s0.svs").read_bytes())
    drawn = cohort.parent / "drawn"
    (drawn / "twin.png").write_bytes((drawn / "s0.png").read_bytes())
    manifest = cohort.parent / "with_twin.csv"
    manifest.write_text(cohort.read_text() + "twin.svs,0,py,A,val\n")
    config = _config(tmp_path, manifest, **TINY)
    with pytest.raises(UsageError, match=r"twice in the cohort: s0\.svs = twin\.svs"):
        run_stage("pretrain", config, tmp_path / "a", say=lambda line: None)


def test_a_mask_of_another_size_is_refused(cohort: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    data = (cohort.parent / "drawn" / "s0.png").read_bytes()
    for number in range(8):
        (drawn / f"s{number}.png").write_bytes(data)
    from PIL import Image

    Image.new("L", (383, 384)).save(drawn / "s0.png")
    config = _config(tmp_path, cohort, **TINY, data={"annotations": drawn})
    with pytest.raises(UsageError, match=r"need a mask of 384 x 384 px.* 383 x 384"):
        run_stage("pretrain", config, tmp_path / "a", say=lambda line: None)
    (drawn / "s0.png").unlink()
    with pytest.raises(UsageError, match=r"s0\.svs: no <slide>\.geojson"):
        run_stage("pretrain", config, tmp_path / "b", say=lambda line: None)


def test_a_device_is_a_promise(cohort: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = _config(tmp_path, cohort, **TINY)
    with pytest.raises(DeviceError, match="no CUDA device"):
        run_stage(
            "pretrain",
            config,
            tmp_path / "a",
            changes=["compute.accelerator=cuda"],
            say=lambda line: None,
        )


def test_command_line_exits_and_complains(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path, cohort, **TINY)
    out = str(tmp_path / "run")
    bad = ["train", "pretrain", str(config), "-o", out, "--set", "train.epochs=0"]
    assert cli_run(bad) == 64
    assert "--set train.epochs: [train] epochs" in capsys.readouterr().err
    good = ["train", "pretrain", str(config), "-o", out, "--set", "train.epochs=1"]
    assert cli_run(good) == 0
    assert "epoch 1/1" in capsys.readouterr().err


@pytest.mark.slow
def test_phantoms_from_slides_to_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Segment, pretrain, constrain, calibrate, score: the commands of the guide."""
    cohort = phantom_cohort(tmp_path / "slides")
    fast = {**TINY, "augment": {"hue": 0.0}}
    drawn = {"annotations": cohort.parent / "drawn"}
    # A segmenter of 18 steps may miss a slide.
    masks = {"segmenter": tmp_path / "seg" / "package", "bad_slides": "skip"}
    files = {
        "segment": {
            **fast,
            "train": {"epochs": 3, "batch_size": 2, "samples_per_epoch": 12},
            "package": {"name": "finds-tumor", "synthetic": True},
            "data": drawn,
        },
        "pretrain": {**fast, "train": {"epochs": 3, "batch_size": 16}, "data": masks},
        "constrained": {
            "start": tmp_path / "pre",
            "train": {"epochs": 2, "batch_size": 16},
            "compute": {"threads": 1},
            "data": masks,
        },
        "calibrate": {
            "start": tmp_path / "con",
            "package": {"name": "phantoms", "synthetic": True, "batch_size": 8},
            "data": masks,
        },
    }
    for stage, tables in files.items():
        common = {"manifest": cohort, "cache": tmp_path / "cache"}
        data = {**common, **tables["data"]}
        config = tmp_path / f"{stage}.toml"
        config.write_text(config_text(**{**tables, "data": data}))
        out = tmp_path / stage[:3]
        assert cli_run(["train", stage, str(config), "-o", str(out)]) == 0, (
            capsys.readouterr().err
        )
    package = tmp_path / "cal" / "package"
    assert cli_run(["models", "check", str(package)]) == 0
    results = tmp_path / "results"
    slides = [str(cohort.parent / name) for name in ("p6.svs", "p7.svs")]
    assert cli_run(["score", *slides, "-m", str(package), "-o", str(results)]) == 0
    records = [
        json.loads(path.read_text()) for path in (results / "results").glob("*.json")
    ]
    assert len(records) == len(slides)
    assert any(record["status"] == "scored" for record in records)
    sha256 = json.loads((tmp_path / "seg" / "run.json").read_text())["sha256"]
    for record in records:
        assert record["status"] in ("scored", "indeterminate"), record["message"]
        text = json.dumps(record)
        assert sha256 in text
        assert "research use only" in text
