# SPDX-License-Identifier: Apache-2.0
"""Membrane packages beside those that classify patches: names, lists, checks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from membrane_cases import write_case

from her2fast.cli import run as command
from her2fast.errors import UsageError
from her2fast.membranes import score_membranes
from her2fast.models import trust
from her2fast.models.membrane_package import load_any_package, load_membrane_package
from her2fast.models.names import DEFAULT_MEMBRANE_MODEL, DEFAULT_MODEL
from her2fast.models.package import load_package


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def installation(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped packages: the one of areas, and the case's as the one of membranes."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(trust.SHIPPED_DIR / DEFAULT_MODEL, folder / DEFAULT_MODEL)
    shutil.copytree(case / "brown", folder / DEFAULT_MEMBRANE_MODEL)
    known = trust.read_hashes(trust.KNOWN_FILE)
    sha256 = load_membrane_package(case / "brown").model.sha256
    known[sha256] = f"{DEFAULT_MEMBRANE_MODEL}/membrane"
    (folder / "known.json").write_text(json.dumps(known))
    monkeypatch.setattr(trust, "SHIPPED_DIR", folder)
    monkeypatch.setattr(trust, "KNOWN_FILE", folder / "known.json")
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))
    return folder


def test_packages_of_both_kinds_are_listed_shown_and_checked(
    installation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["models", "ls"]) == 0
    areas, membranes = capsys.readouterr().out.splitlines()
    assert areas.startswith("constrained-tiny: constrained, 1 um/px, 4 classes")
    assert membranes == (
        "membrane-tiny: membrane, 0.25 um/px, tiles of 512 px, guideline asco-cap-2018,"
        " trained on synthetic data"
    )
    assert command(["models", "show", DEFAULT_MEMBRANE_MODEL]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["method"], shown["grid_um"]) == ("membrane", 0.5)
    assert (shown["tile_px"], shown["halo_px"]) == (512, 32)
    assert [model["known"] for model in shown["models"]] == [True]
    assert command(["models", "check", DEFAULT_MEMBRANE_MODEL]) == 0
    assert "(2, 576, 576, 3) -> (2, 663552) on cpu" in capsys.readouterr().out


def test_the_doctor_looks_at_both(
    installation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["doctor"])
    printed = capsys.readouterr().out
    good = "ok   model {}: hashes hold (synthetic training data)"
    for name in (DEFAULT_MODEL, DEFAULT_MEMBRANE_MODEL):
        assert good.format(name) in printed
    file = installation / DEFAULT_MEMBRANE_MODEL / "membrane/torchscript_model.pt"
    file.write_bytes(file.read_bytes() + b"\0")
    assert command(["doctor"]) == 20
    assert "FAIL model membrane-tiny: MODEL_HASH" in capsys.readouterr().out


def test_the_shipped_package_is_the_default(installation: Path, case: Path) -> None:
    assert load_membrane_package().folder == installation / DEFAULT_MEMBRANE_MODEL
    result = score_membranes(case / "lattice.svs", workers=1)
    assert result.record["method"]["name"] == "brown"
    assert [model["known"] for model in result.record["models"]] == [True] * 3
    assert result.record["method"]["tumor"]["method"]["name"] == DEFAULT_MODEL


def test_an_installation_without_one_says_what_to_do(
    installation: Path,
    case: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(installation / DEFAULT_MEMBRANE_MODEL)
    slide = str(case / "lattice.svs")
    assert command(["membranes", slide, "-o", str(tmp_path / "out")]) == 64
    printed = capsys.readouterr().err
    assert "no membrane-tiny ships with this installation" in printed
    assert "train one with `her2fast train membrane`" in printed
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"\(-m DIR, model=DIR\)"):
        score_membranes(slide)
    with pytest.raises(UsageError, match="neither a folder nor one of: constrained"):
        load_membrane_package("membrane-tinny")


def test_each_verb_names_the_other(
    installation: Path,
    case: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(case / "lattice.svs"), "-o", str(tmp_path / "out"), "-m"]
    assert command(["score", *words, DEFAULT_MEMBRANE_MODEL]) == 64
    printed = capsys.readouterr().err
    assert "score with it by `her2fast membranes -m membrane-tiny`" in printed
    assert command(["score", *words, str(case / "brown")]) == 64
    assert f"`her2fast membranes -m {case / 'brown'}`" in capsys.readouterr().err
    for package in (DEFAULT_MODEL, str(case / "tumor/classifier")):
        assert command(["membranes", *words, package]) == 64
        printed = capsys.readouterr().err
        assert f"score with it by `her2fast score -m {package}`" in printed
    assert not (tmp_path / "out").exists()


def test_either_kind_is_loaded_and_trusted(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path))
    for name, method in (("brown", "membrane"), ("tumor", "constrained")):
        assert not any(m.known for m in load_any_package(case / name).models)
        assert command(["models", "trust", str(case / name)]) == 0
        loaded = load_any_package(case / name)
        assert loaded.method == method
        loaded.require_known()
    assert load_package(case / "tumor").method == "constrained"
