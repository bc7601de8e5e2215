# SPDX-License-Identifier: Apache-2.0
"""Training configurations: defaults, paths, and complaints that name the place."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from her2fast.errors import UsageError
from her2fast.training.config import (
    CONFIGS,
    CalibrateConfig,
    ConstrainedConfig,
    PretrainConfig,
    SegmentConfig,
)
from her2fast.training.config_file import config_text, load_config

DATA = '[data]\nmanifest = "m.csv"\ncache = "cache"\n'
PACKAGE = '[package]\nname = "mine"\nsynthetic = true\n'


def _write(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    config, _ = load_config(_write(tmp_path, DATA), PretrainConfig)
    assert (config.model.backbone, config.train.batch_size) == ("resnet18", 512)
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 1e-3)
    assert config.optimizer.nesterov
    assert config.optimizer.momentum == 0.9
    assert (config.train.epochs, config.train.patience) == (100, 20)
    text = DATA.replace("cache =", 'annotations = "a"\ncache =') + PACKAGE
    segment, _ = load_config(_write(tmp_path, text), SegmentConfig)
    assert (segment.model.backbone, segment.optimizer.lr) == ("densenet121", 1e-4)
    assert segment.train.balance == ["site", "label"]
    assert segment.train.epochs == 100


def test_a_table_that_states_one_key_keeps_the_stages_others(tmp_path: Path) -> None:
    text = DATA + "[train]\nepochs = 3\n[optimizer]\nmomentum = 0.8\n"
    config, _ = load_config(
        _write(tmp_path, 'start = "run"\n' + text), ConstrainedConfig
    )
    assert (config.train.epochs, config.train.batch_size) == (3, 512)
    assert config.train.patience == 0  # P16
    assert (config.optimizer.lr, config.optimizer.momentum) == (3e-4, 0.8)  # P18


def test_paths_begin_at_the_files_folder(tmp_path: Path) -> None:
    text = DATA + '[model]\nweights = "w.safetensors"\n'
    config, _ = load_config(_write(tmp_path, text), PretrainConfig)
    assert config.data.manifest == tmp_path / "m.csv"
    assert config.model.weights == str(tmp_path / "w.safetensors")
    hub, _ = load_config(
        _write(tmp_path, DATA + '[model]\nweights = "hub"\n'), PretrainConfig
    )
    assert hub.model.weights == "hub"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[train]\nepochs = 0\n",
            r"c\.toml, line 5: \[train\] epochs: .* 1, got 0",
        ),
        ("[train]\nepoch = 3\n", r"line 5: unknown key \[train\] epoch; .*epochs"),
        ("[trane]\n", r"line 4: unknown key trane; need one of: run, data"),
        ('[optimizer]\nname = "adam"\n', r"line 5: .*'sgd' or 'adamw', got 'adam'"),
        (
            '[train]\nbalance = ["labels"]\n',
            r"line 5: \[train\] balance\.0: .*'site'",
        ),
        ("[train]\nbalance = 3\n", r"line 5: \[train\] balance: need .*list"),
        ("[augment]\nhue = 0.9\n", r"line 5: \[augment\] hue: need less than .* 0\.5"),
        ("[model]\nbackbone = 3\n", r"line 5: \[model\] backbone: need .*string"),
        (
            "[model]\nmean = [1, 1, 1]\n",
            r"line 4: model: need both mean and std, or neither",
        ),
        ("[optimizer]\nmomentum = 0\n", r"line 4: optimizer: need momentum > 0"),
        ("[train\n", r"c\.toml: is not TOML: .*line 4"),
    ],
)
def test_complaints_name_file_line_key_and_values(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_config(_write(tmp_path, DATA + text), PretrainConfig)


def test_all_complaints_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = DATA + "[train]\nepochs = 0\nbatch_size = -1\n"
    with pytest.raises(UsageError) as caught:
        load_config(_write(tmp_path, text), CalibrateConfig)
    lines = str(caught.value).splitlines()
    assert [("line" in line) for line in lines] == [False, False, True]
    assert "key package is missing" in str(caught.value)
    assert "key start is missing" in str(caught.value)
    assert "unknown key train" in lines[-1]


@pytest.mark.parametrize(
    ("stage", "text", "complaint"),
    [
        ("segment", PACKAGE, "data: need annotations"),
        ("constrained", "[train]\nsamples_per_epoch = 4\n", "constraints choose"),
        ("constrained", "", "needs one label a slide"),
        ("calibrate", "[calibration]\non = []\n" + PACKAGE, "train, val or both"),
        ("calibrate", PACKAGE, "takes all tissue of a slide for tumor"),
        (
            "calibrate",
            PACKAGE + 'segmenter = "s"\ntissue_is_tumor = true\n',
            "need segmenter or tissue_is_tumor, got both",
        ),
    ],
)
def test_what_cannot_be_together(
    tmp_path: Path, stage: str, text: str, complaint: str
) -> None:
    data = DATA
    if "one label" in complaint:
        data += 'labels = "soft"\n'
    head = "" if stage == "segment" else 'start = "run"\n'
    with pytest.raises(UsageError, match=complaint):
        load_config(_write(tmp_path, head + data + text), CONFIGS[stage])


@pytest.mark.parametrize("stage", ["segment", "constrained", "membrane"])
def test_agreement_is_of_pretraining_alone(tmp_path: Path, stage: str) -> None:
    """A stage whose loss does not count it refuses it."""
    augment = "[augment]\njpeg_share = 0.5\n"
    head = 'start = "run"\n' if stage == "constrained" else ""
    data = DATA + ('annotations = "a"\n' if stage == "segment" else "") + augment
    package = "" if stage == "constrained" else PACKAGE
    load_config(_write(tmp_path, head + data + package), CONFIGS[stage])
    text = head + data + "jpeg_agreement = 2.0\n" + package
    with pytest.raises(
        UsageError, match="need no jpeg_agreement, which pretrain alone"
    ):
        load_config(_write(tmp_path, text), CONFIGS[stage])
    config, _ = load_config(
        _write(tmp_path, DATA + augment + "jpeg_agreement = 2.0\n"), PretrainConfig
    )
    assert config.augment.jpeg_agreement == 2.0


def test_two_sources_of_tumor_are_refused(tmp_path: Path) -> None:
    text = DATA + 'annotations = "a"\nsegmenter = "s"\n'
    with pytest.raises(UsageError, match="annotations or segmenter, got both"):
        load_config(_write(tmp_path, text), PretrainConfig)


def test_changes_win_and_their_complaints_name_them(tmp_path: Path) -> None:
    path = _write(tmp_path, DATA + "[train]\nepochs = 9\n")
    config, _ = load_config(
        path, PretrainConfig, ["train.epochs=2", "model.backbone=tiny"]
    )
    assert (config.train.epochs, config.model.backbone) == (2, "tiny")
    with pytest.raises(UsageError, match=r"--set train\.epochs: .*got 0"):
        load_config(path, PretrainConfig, ["train.epochs=0"])
    with pytest.raises(UsageError, match=r"need table\.key=value"):
        load_config(path, PretrainConfig, ["train.epochs"])
    with pytest.raises(UsageError, match="is a value, not a table"):
        load_config(path, PretrainConfig, ["train.epochs.x=1"])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_config(tmp_path / "none.toml", PretrainConfig)
    path = tmp_path / "c.toml"
    path.write_bytes(b"[data]\nx = '\xff'\n")
    with pytest.raises(UsageError, match="line 2: is not UTF-8"):
        load_config(path, PretrainConfig)


def test_import_and_configuration_load_no_torch() -> None:
    code = (
        "import sys, her2fast, her2fast.cli.train, her2fast.training.config_file, "
        "her2fast.training.config; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_written_text_reads_back() -> None:
    tables = {
        "start": Path('runs/a "b"'),
        "run": {"seed": 3},
        "train": {"balance": ["site", "label"], "clip": 0.5, "on": True},
    }
    found = tomllib.loads(config_text(tables))
    assert found == {**tables, "start": 'runs/a "b"'}
