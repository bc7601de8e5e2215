# SPDX-License-Identifier: Apache-2.0
"""Pixels of a lossless file through the C interface."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moved import Row, points

import her2fast
from her2fast.models.package import load_package
from her2fast.opened_slide import open_input

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embed_scan.run import ENGINE, scan


def pushed(raw: Path, *options: str) -> dict[str, Any]:
    """The record of what a scanner pushes in strips, with more options of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pushed.json")
        how = ["--slide", str(raw), "--engine", str(ENGINE), "--strip", "4096x512"]
        scan(*how, "--json", str(path), *options)
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


def told(quality: int, reading: str, level: int) -> list[str]:
    """How the scanner says what it will store and how that will be read."""
    return [
        *("--stored-quality", str(quality)),
        *("--stored-read", reading),
        *("--stored-downsample", str(level)),
    ]


def level_read(path: Path, reading: str) -> int:
    """The downsample of the level that is read of a file."""
    slide = open_input(path)
    reader = slide.reader(workers=1, reading=reading)
    level, _ = reader.plan(load_package(None).spacing_um)
    return round(slide.core.levels[0][0] / slide.core.levels[level][0])


def as_stored(
    raw: Path,
    quality: int,
    files: Mapping[str, tuple[Path, str, her2fast.Result]],
) -> Row:
    """Raw pixels pushed with how they are stored, against readings of what is."""
    out: Row = {}
    for name, (path, reading, result) in files.items():
        level = level_read(path, reading)
        record = pushed(raw, *told(quality, reading, level))
        expected = result.record
        out[name] = {
            "points": points(record["class_px"], expected["class_px"]),
            "class_px": record["class_px"],
            "same_areas": record["class_px"] == expected["class_px"],
            "score": record["score"],
        }
    return out


def told_wrong(raw: Path, results: Mapping[int, her2fast.Result]) -> dict[str, float]:
    """Points between files of these qualities and a scanner that says 80."""
    record = pushed(raw, *told(80, "exact", 1))
    return {
        str(quality): points(record["class_px"], result.record["class_px"])
        for quality, result in results.items()
    }
