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


def level_read(downsamples: list[int], reading: str, spacing_um: float) -> int:
    """The downsample of the level that is read for 1 um/px."""
    if reading == "level0":
        return 1
    return max(n for n in downsamples if n * spacing_um <= 1.0)


def as_stored(
    raw: Path,
    spacing_um: float,
    quality: int,
    readings: Mapping[str, tuple[list[int], str]],
    results: Mapping[str, her2fast.Result],
) -> Row:
    """Raw pixels pushed with how they are stored, against readings of what is."""
    out: Row = {}
    for name, (downsamples, reading) in readings.items():
        level = level_read(downsamples, reading, spacing_um)
        record = pushed(raw, *told(quality, reading, level))
        expected = results[name].record
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
