# SPDX-License-Identifier: Apache-2.0
"""`her2fast train membrane`: what is cut, learned, resumed, packaged and refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from slides import write_slide
from training_cohort import config_text, write_manifest, write_mask

from her2fast.errors import UsageError
from her2fast.models.config import ModelConfig
from her2fast.models.package import _load_model
from her2fast.models.runner import open_runner
from her2fast.models.trust import known_hashes
from her2fast.phantom import render
from her2fast.training.checkpoint import read_tensors
from her2fast.training.cohort import load_cohort
from her2fast.training.config import MembraneConfig
from her2fast.training.config_file import load_config
from her2fast.training.extract import MEMBRANE_MASK, Cutter, Cutting
from her2fast.training.stages import run_stage

TILE_PX = 128
TINY: dict[str, Any] = {
    "data": {"tile_px": TILE_PX},
    "model": {"backbone": "tiny"},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "train": {"epochs": 2, "batch_size": 4},
    "augment": {"hue": 0.0, "looks": True},
    "compute": {"threads": 1},
    "package": {"name": "membrane-test", "synthetic": True},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small phantoms as `her2fast phantom` lays them out, and their manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "slides").mkdir()
    rows = []
    for number, seed in enumerate((50, 51, 57, 60)):
        picture = render(seed, (256, 256), spacing_um=0.25, mixture=(0, 0, 0.4, 0.6))
        assert picture.membrane_mask.mean() > 0.01
        write_slide(folder / "slides" / f"p{number}.svs", picture.rgb, spacing_um=0.25)
        truth = folder / "truth" / f"p{number}"
        truth.mkdir(parents=True)
        write_mask(truth / MEMBRANE_MASK, picture.membrane_mask)
        write_mask(truth / "tumor_mask.png", picture.tumor_mask)
        part = "val" if number == 3 else "train"
        rows.append(
            {"slide": f"slides/p{number}.svs", "patient": f"p{number}", "split": part}
        )
    return write_manifest(folder, rows)


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A trust file of its own; torch's settings as they were."""
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "trust"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def _config(folder: Path, cohort: Path, **changes: Any) -> Path:
    tables = {**TINY, **changes}
    tables["data"] = {
        "manifest": cohort,
        "cache": cohort.parent / "cache",
        **TINY["data"],
        **changes.get("data", {}),
    }
    path = folder / "membrane.toml"
    path.write_text(config_text(**tables))
    return path


def _train(config: Path, out: Path, *changes: str) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    facts = run_stage("membrane", config, out, changes=changes, say=said.append)
    return facts, said


def _same_weights(a: Path, b: Path) -> None:
    for name in ("last", "best"):
        left = read_tensors(a / "checkpoints" / f"{name}.safetensors")
        right = read_tensors(b / "checkpoints" / f"{name}.safetensors")
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), (name, key)
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


def test_tiles_are_the_slide_and_its_truth(cohort: Path, tmp_path: Path) -> None:
    source = load_cohort(cohort, need_labels=False).slides[0]
    cutting = Cutting(0.25, "exact", 1, tile_px=TILE_PX, mask_name=MEMBRANE_MASK)
    cutter = Cutter(cutting)
    found = cutter.tiles(cutter.open(source), source)
    picture = render(50, (256, 256), spacing_um=0.25, mixture=(0, 0, 0.4, 0.6))
    assert found["rgb"].shape[1:] == (TILE_PX, TILE_PX, 3)
    for rgb, mask in zip(found["rgb"], found["mask"], strict=True):
        places = [
            (y, x)
            for y in (0, TILE_PX)
            for x in (0, TILE_PX)
            if np.array_equal(
                picture.membrane_mask[y : y + TILE_PX, x : x + TILE_PX], mask == 1
            )
        ]
        assert any(
            np.abs(
                picture.rgb[y : y + TILE_PX, x : x + TILE_PX] - rgb.astype(int)
            ).mean()
            < 4
            for y, x in places
        )
    # A folder of PNG masks says the same; at 0.5 um/px a tile is twice as wide.
    masks = tmp_path / "masks"
    masks.mkdir()
    truth = cohort.parent / "truth" / "p0" / MEMBRANE_MASK
    shutil.copyfile(truth, masks / "p0.png")
    named = Cutter(
        Cutting(0.25, "exact", 1, masks, tile_px=TILE_PX, mask_name=MEMBRANE_MASK)
    )
    again = named.tiles(named.open(source), source)
    np.testing.assert_array_equal(again["mask"], found["mask"])
    coarse = Cutter(
        Cutting(0.5, "exact", 1, masks, tile_px=TILE_PX, mask_name=MEMBRANE_MASK)
    )
    whole = coarse.tiles(coarse.open(source), source)
    assert whole["rgb"].shape == (1, TILE_PX, TILE_PX, 3)
    share = float((whole["mask"] == 1).mean())
    assert share == pytest.approx(picture.membrane_mask.mean(), rel=0.05)


def test_it_learns_and_its_package_says_the_same(cohort: Path, tmp_path: Path) -> None:
    """Dice on an unseen phantom; the package, read back, gives that Dice at 0."""
    config = _config(tmp_path, cohort)
    changes = ["train.epochs=16", "optimizer.schedule=one-cycle"]
    # Validation sees tiles alone.
    facts, said = _train(config, tmp_path / "run", *changes, "package.halo_px=0")
    assert facts["best"] > 0.5, said
    package = tmp_path / "run" / "package"
    method = json.loads((package / "method.json").read_text())
    assert method["method"] == "membrane"
    assert method["models"] == {"membrane": "membrane"}
    content = (package / "membrane" / "config.json").read_text()
    stated = ModelConfig.model_validate_json(content)
    assert stated.her2fast.task == "membrane"
    assert stated.class_names == ["membrane", "edge"]
    assert stated.her2fast.sha256 == facts["sha256"]
    assert (stated.patch_size_pixels, stated.spacing_um_px) == (TILE_PX, 0.25)
    assert stated.her2fast.halo_px == 0
    model = _load_model(package / "membrane", known_hashes())
    assert model.known
    source = load_cohort(cohort, need_labels=False).part("val")[0]
    cutter = Cutter(
        Cutting(0.25, "scaled", 1, tile_px=TILE_PX, mask_name=MEMBRANE_MASK)
    )
    val = cutter.tiles(cutter.open(source), source)
    outputs = open_runner(model).run(val["rgb"])
    called = outputs.reshape(-1, 2, TILE_PX, TILE_PX)[:, 0] >= 0
    truth = val["mask"] == 1
    dice = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    assert dice == pytest.approx(facts["best"], abs=2e-3)


def test_resumed_run_is_the_straight_run(cohort: Path, tmp_path: Path) -> None:
    config = _config(tmp_path, cohort)
    _train(config, tmp_path / "straight")

    def stop(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt):
        run_stage("membrane", config, tmp_path / "cut", say=stop)
    _, said = _train(config, tmp_path / "cut")
    assert "resuming after epoch 1" in said
    _same_weights(tmp_path / "straight", tmp_path / "cut")
    with (tmp_path / "cut" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= {"loss", "val_loss", "val_dice", "val_cut", "val_dice_half"}


@pytest.mark.slow
def test_killed_run_ends_with_the_same_weights(cohort: Path, tmp_path: Path) -> None:
    """A real SIGKILL in the second epoch, then the same command."""
    config = _config(tmp_path, cohort, train={"epochs": 6, "batch_size": 4})
    command = [sys.executable, "-m", "her2fast", "train", "membrane", str(config), "-o"]
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
    _, said = _train(config, tmp_path / "killed")
    assert any(line.startswith("resuming after epoch ") for line in said)
    _train(config, tmp_path / "straight")
    _same_weights(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_two_steps_of_the_papers_recipe(cohort: Path, tmp_path: Path) -> None:
    """Its network, loss, optimizer and batch, matched histograms; smaller tiles."""
    picture = render(70, (128, 128), spacing_um=0.25, mixture=(0, 0, 1, 0))
    Image.fromarray(picture.rgb).save(tmp_path / "reference.png")
    path = tmp_path / "paper.toml"
    path.write_text(
        config_text(
            data={"manifest": cohort, "cache": tmp_path / "cache", "tile_px": 64},
            train={"epochs": 1, "samples_per_epoch": 4},
            histogram={"reference": "reference.png"},
            compute={"threads": 1},
            package=TINY["package"],
        )
    )
    facts, said = _train(path, tmp_path / "run")
    assert facts["parameters"] > 40_000_000
    assert 0.5 < facts["beta"] < 0.99  # K1: the share of background
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["backbone"] == "khameneh_unet"
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"]) == (0.01, 0.9)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        row = next(csv.DictReader(file))
    assert 0.0 < float(row["loss"]) < 3.0, said


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[data]\nmanifest = "m.csv"\ncache = "cache"\n'
        '[package]\nname = "mine"\nsynthetic = true\n'
        '[histogram]\nreference = "tile.png"\n'
    )
    config, _ = load_config(path, MembraneConfig)
    assert (config.data.spacing_um, config.data.tile_px) == (0.25, 512)
    assert config.model.backbone == "khameneh_unet"
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.01)
    assert (config.optimizer.momentum, config.optimizer.nesterov) == (0.9, False)
    assert (config.train.batch_size, config.train.epochs) == (2, 50)
    assert (config.loss.edge_weight, config.loss.edge_px) == (1.1, 3)
    assert config.loss.beta == "balanced"
    assert config.histogram.reference == tmp_path / "tile.png"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("data.spacing_um=1.0", r"\[data\] spacing_um: need .* 0\.5, got 1\.0"),
        ("data.tile_px=500", r"\[data\] tile_px: need .*multiple of 16"),
        ("data.labels=soft", r"data: need no labels: membranes are trained on masks"),
        ("loss.edge_px=2", r"loss: need an odd edge_px, got 2"),
        ("loss.beta=1.5", r"\[loss\] beta: need .*less than 1"),
        ("loss.lambda=1.1", r"unknown key \[loss\] lambda; need .*edge_weight"),
        ("package.cut=some", r"\[package\] cut: need 'best' or 'half'"),
        ("histogram.tile=a", r"unknown key \[histogram\] tile; need .*reference"),
        ("data.tile_px=4096", r"of at most 4096, .* 4096 \+ 2 \* 32 = 4160"),
    ],
)
def test_complaints_name_the_key(
    cohort: Path, tmp_path: Path, change: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        _train(_config(tmp_path, cohort), tmp_path / "run", change)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tile_px", "halo_px", "fits"),
    [(4032, 32, True), (4048, 32, False), (4096, 0, True), (3088, 512, False)],
)
def test_a_tile_with_its_halo_fits_a_package(
    tile_px: int, halo_px: int, fits: bool
) -> None:
    """Refused before training what no package could be loaded with."""
    given = {
        "data": {"manifest": "m.csv", "cache": "cache", "tile_px": tile_px},
        "package": {**TINY["package"], "halo_px": halo_px},
    }
    model = {
        "num_classes": 2,
        "class_names": ["membrane", "edge"],
        "patch_size_pixels": tile_px + 2 * halo_px,
        "spacing_um_px": 0.25,
        "her2fast": {"task": "membrane", "halo_px": halo_px},
    }
    if fits:
        MembraneConfig.model_validate(given)
        ModelConfig.model_validate(model)
    else:
        with pytest.raises(ValueError, match="halo_px of at most 4096"):
            MembraneConfig.model_validate(given)
        with pytest.raises(ValueError, match="less than or equal to 4096"):
            ModelConfig.model_validate(model)


def test_slides_without_truth_are_refused(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort.parent / "slides", tmp_path / "slides")
    manifest = tmp_path / "cohort.csv"
    shutil.copyfile(cohort, manifest)
    with pytest.raises(UsageError, match=r"p0\.svs: .*<slide>/membrane_mask\.png in"):
        _train(_config(tmp_path, manifest), tmp_path / "run")


def test_a_membrane_network_has_two_outputs_at_most() -> None:
    with pytest.raises(ValueError, match="1 or 2 output channels of membranes"):
        ModelConfig.model_validate(
            {
                "num_classes": 3,
                "class_names": ["membrane", "edge", "tumor"],
                "patch_size_pixels": 512,
                "spacing_um_px": 0.25,
                "her2fast": {"task": "membrane"},
            }
        )
