# SPDX-License-Identifier: Apache-2.0
"""Manifests looked at as a whole, and slides hashed to the last byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import packages
import pytest
import slides
import vendor_slides

from her2fast import _core, cli
from her2fast.full_hash import full_sha256
from her2fast.manifest_check import PROBLEMS, check_manifest

HEADER = "slide,patient,split,label,roi\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        rgb = slides.paint((128, 128), seed=seed)
        slides.write_slide(tmp_path / f"{name}.svs", rgb)
    shutil.copy(tmp_path / "a.svs", tmp_path / "copy of a.svs")
    return tmp_path


def problems(path: Path, text: str, **options: Any) -> list[tuple[int | None, str]]:
    path.write_text(text, encoding="utf-8")
    report = check_manifest(path, **options)
    return [(problem.line, problem.code) for problem in report.problems]


CASES = {
    "sound": ("a.svs,p1,train,0,\nb.svs,p2,test,1+,\n", []),
    "missing file": ("a.svs,p1,,0,\nnone.svs,p2,,0,\n", [(3, "NOT_FOUND")]),
    "same path": ("a.svs,p1,,0,\n./a.svs,p1,,0,\n", [(3, "DUPLICATE_ROW")]),
    "same content": (
        "a.svs,p1,,0,\nb.svs,p1,,0,\ncopy of a.svs,p1,,0,\n",
        [(4, "DUPLICATE_SLIDE")],
    ),
    "two patients by path": ("a.svs,p1,,0,\na.svs,p2,,0,\n", [(3, "TWO_PATIENTS")]),
    "two patients by content": (
        "a.svs,p1,,0,\ncopy of a.svs,p2,,0,\n",
        [(3, "TWO_PATIENTS")],
    ),
    "two splits": (
        "a.svs,p1,train,0,\nb.svs,p1,test,0,\nc.svs,p1,train,0,\n",
        [(3, "TWO_SPLITS")],
    ),
    "wrong label": ("a.svs,p1,,4+,\nb.svs,p1,,0,\n", [(2, "BAD_ROW")]),
    "cells": ("a.svs,p1,,0\nb.svs,p1,,0,\n,p,,0,\n", [(2, "BAD_ROW"), (4, "BAD_ROW")]),
    "no region": ("a.svs,p1,,0,none.geojson\n", [(2, "NO_ROI_FILE")]),
    "no slide": ("manifest.csv,p1,,0,\n", [(2, "UNSUPPORTED_FORMAT")]),
    "all at once": (
        "a.svs,p1,train,0,x\nnone.svs,p1,test,9,\ncopy of a.svs,p2,test,,\n",
        [(2, "NO_ROI_FILE"), (3, "BAD_ROW"), (4, "TWO_PATIENTS")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_problems_have_names_and_lines(folder: Path, name: str) -> None:
    text, expected = CASES[name]
    assert problems(folder / "manifest.csv", HEADER + text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "slide,nonsense\na.svs,1\n", "label\n0\n", 'slide\n"a', "slide,slide\n"],
)
def test_a_wrong_header_is_one_problem(folder: Path, text: str) -> None:
    assert problems(folder / "m.csv", text) == [(None, "BAD_HEADER_ROW")]


def test_training_needs_labels(folder: Path) -> None:
    text = "slide,label,reader_1\na.svs,,\nb.svs,1+,\nc.svs,,2+\n"
    assert problems(folder / "m.csv", text) == []
    assert problems(folder / "m.csv", text, training=True) == [(2, "NO_LABEL")]


def test_the_guide_lists_every_problem() -> None:
    guide = Path(__file__).parents[2] / "docs/guide/manifest.md"
    text = guide.read_text("utf-8")
    for code in PROBLEMS:
        assert f"`{code}`" in text


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = folder / "good.csv", folder / "bad.csv"
    good.write_text(HEADER + CASES["sound"][0])
    bad.write_text(HEADER + CASES["all at once"][0])
    assert cli.run(["info", str(good)]) == 0
    assert "2 rows, no problem" in capsys.readouterr().out
    assert cli.run(["info", str(bad)]) == 64
    out = capsys.readouterr().out
    assert (
        "line 4: TWO_PATIENTS: copy of a.svs: patient 'p2' here, 'p1' in line 2" in out
    )
    assert "3 rows, 3 problems" in out
    assert cli.run(["info", str(bad), "--json"]) == 64
    report = json.loads(capsys.readouterr().out)
    assert [p["line"] for p in report["problems"]] == [2, 3, 4]
    other = folder / "list.txt"
    other.write_text(HEADER + CASES["sound"][0])
    assert cli.run(["info", "--manifest", str(other)]) == 0
    assert cli.run(["info", str(good), "--full-hash"]) == 64
    assert cli.run(["info", str(folder / "a.svs"), "--training"]) == 64


# The SHA-256 of every byte.


def test_one_file_is_what_sha256sum_prints(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "a.svs"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert full_sha256(path) == expected
    assert cli.run(["info", str(path)]) == 0
    assert expected not in capsys.readouterr().out
    assert cli.run(["info", str(path), "--full-hash"]) == 0
    assert f"sha256:      {expected}" in capsys.readouterr().out


def test_a_byte_between_the_samples(tmp_path: Path) -> None:
    """The fingerprint is blind to it, as documented; the hash is not."""
    rgb = np.random.default_rng(1).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    path = tmp_path / "a.tiff"
    _core.write_pyramid(path, rgb, spacing_um=0.5, jpeg_quality=0, downsamples=[1])
    before = (_core.Slide.open(path).fingerprint(), full_sha256(path))
    data = bytearray(path.read_bytes())
    # Blocks of 64 KiB begin at i * (size - 64 KiB) / 63: behind one there is a gap.
    gap = 20 * (len(data) - 65536) // 63 + 65536 + 100
    data[gap] ^= 1
    path.write_bytes(data)
    after = (_core.Slide.open(path).fingerprint(), full_sha256(path))
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_mirax_is_hashed_with_its_folder(tmp_path: Path) -> None:
    rgb = np.full((512, 512, 3), 200, np.uint8)
    path = tmp_path / "a.mrxs"
    vendor_slides.write_mirax(path, rgb, [(0, 0, 512, 512)], 0.5, levels=1)
    names = ["a.mrxs", "a/Data0000.dat", "a/Index.dat", "a/Slidedat.ini"]
    listed = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True
    )
    before = full_sha256(path)
    assert before == hashlib.sha256(listed.stdout).hexdigest()
    data = tmp_path / "a" / "Data0000.dat"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert full_sha256(path) != before


def test_a_run_with_full_hash_trusts_no_sample(tmp_path: Path) -> None:
    from her2fast.manifest import Entry
    from her2fast.run import RunOptions, run

    slide = slides.write_slide(tmp_path / "a.svs")
    method = packages.write_method(tmp_path / "m")
    out = tmp_path / "out"

    def score(**options: Any) -> tuple[str, dict[str, Any]]:
        settings = RunOptions(
            out=str(out), model=str(method), allow_unknown_model=True, **options
        )
        summary = run(settings, [Entry(str(slide))])
        record = json.loads((out / "results" / "a.json").read_text("utf-8"))
        return summary.outcomes[0].work, record

    work, record = score()
    assert (work, record["slide"]["sha256"]) == ("measured", None)
    work, record = score(full_hash=True)
    assert work == "measured"  # nobody knows what was measured before
    assert record["slide"]["sha256"] == full_sha256(slide)
    assert score(full_hash=True)[0] == "kept"
    work, record = score()
    assert work == "kept"
    assert record["slide"]["sha256"] == full_sha256(slide)
