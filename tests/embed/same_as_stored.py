# SPDX-License-Identifier: Apache-2.0
"""Pixels that are pushed with how they will be stored give the stored file's result.

Pixels of a shipped slide are written without loss, which a scanner pushes, and as JPEG,
which `her2fast score` reads. The records must be equal but for what names their source.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
from PIL import Image

import her2fast
from her2fast import _core
from her2fast.models.package import load_package

#: What names where pixels and models came from; all else must be equal.
SOURCE_KEYS = {"slide", "reading_mode", "measurement_key", "decision_key", "device"}
SCHEMA = Path(her2fast.__file__).parent / "data" / "schemas" / "result.json"


@dataclass(frozen=True)
class Stored:
    """A file, how it is read, and how the scanner is told of it."""

    spacing_um: float
    quality: int
    downsamples: tuple[int, ...]
    tile_px: int
    reading: str
    downsample: int
    denominator: int  # what the reader decodes at
    by_tables: bool = False  # the scanner shows a JPEG in place of a quality


CASES = (
    Stored(0.5, 70, (1,), 256, "exact", 1, 1),
    Stored(0.5, 80, (1, 4), 240, "scaled", 1, 2, by_tables=True),
    Stored(0.25, 75, (1, 4), 128, "scaled", 4, 1),
    Stored(0.25, 75, (1, 4), 256, "level0", 1, 4),
)


def write(path: Path, rgb: np.ndarray, case: Stored, quality: int) -> None:
    """Level 0 and the coarser ones; quality 0 is without loss."""
    _core.write_pyramid(
        str(path),
        rgb,
        spacing_um=case.spacing_um,
        jpeg_quality=quality,
        downsamples=list(case.downsamples),
        tile_px=case.tile_px,
        aperio=True,
    )


def contradiction(program: str) -> list[str]:
    """A JPEG with other chroma than is said must be refused."""
    package = str(Path(load_package(None).classify.folder).parent)
    with tempfile.TemporaryDirectory() as folder:
        jpeg = Path(folder, "any.jpg")
        Image.new("RGB", (16, 16)).save(jpeg, "jpeg", subsampling="4:2:2")
        told = ["--stored-tables", str(jpeg), "--stored-chroma"]
        command = [program, package, "--size", "512x512", *told]
        refused = subprocess.run([*command, "444"], capture_output=True, text=True)
        taken = subprocess.run([*command, "422"], capture_output=True, text=True)
    words = "need stored_chroma of 4:2:2, as this JPEG has it, got 4:4:4"
    if refused.returncode == 0 or words not in refused.stderr or taken.returncode != 0:
        return [f"need {words!r}, got {refused.stderr!r}, {taken.stderr!r}"]
    return []


def scanned(program: str, engine: str, raw: Path, *told: str) -> dict[str, object]:
    """The record of the scanner's pixels."""
    folder = Path(load_package(None).classify.folder).parent
    record = raw.with_name("record.json")
    known = str(folder.parent / "known.json")
    command = [program, str(folder), "--known", known, "--engine", engine]
    command += ["--slide", str(raw), "--strip", "333x450", "--order", "random"]
    command += ["--threads", "2", "--json", str(record), *told]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, object] = json.loads(record.read_text("utf-8"))
    return found


def tables_of(path: Path, quality: int) -> str:
    """Writes a small JPEG of a quality; the SHA-256 of its quantization tables."""
    Image.new("RGB", (16, 16), (200, 120, 40)).save(path, "jpeg", quality=quality)
    with Image.open(path) as picture:
        luma, chroma = picture.quantization[0], picture.quantization[1]
    return hashlib.sha256(np.array([luma, chroma], "<u2").tobytes()).hexdigest()


def check(program: str, engine: str, rgb: np.ndarray, case: Stored) -> list[str]:
    """What differs from reading the file."""
    with tempfile.TemporaryDirectory() as folder:
        raw, stored = Path(folder, "raw.svs"), Path(folder, "stored.svs")
        write(raw, rgb, case, 0)
        write(stored, rgb, case, case.quality)
        need = her2fast.score(stored, reading=case.reading, workers=2).record
        jpeg = Path(folder, "any.jpg")
        sha256 = tables_of(jpeg, case.quality)
        told = ["--stored-quality", str(case.quality), "--stored-read", case.reading]
        if case.by_tables:
            told[:2] = ["--stored-tables", str(jpeg)]
        told += ["--stored-tile", str(case.tile_px)]
        told += ["--stored-downsample", str(case.downsample)]
        got = scanned(program, engine, raw, *told)
        plain = scanned(program, engine, raw)
    jsonschema.validate(got, json.loads(SCHEMA.read_text("utf-8")))
    how = {
        "jpeg_quality": None if case.by_tables else case.quality,
        "tables_sha256": sha256 if case.by_tables else None,
        "chroma": "4:2:0",
        "tile_px": case.tile_px,
        "downsample": case.downsample,
        "denominator": case.denominator,
    }
    wrong = [
        f"{case}: {key}: need {need[key]}, got {got[key]}"
        for key in need
        if key not in SOURCE_KEYS and got[key] != need[key]
    ]
    if got["stored_as"] != how or "stored_as" in plain:
        wrong.append(f"{case}: need stored_as {how}, got {got['stored_as']}")
    if plain["class_px"] == got["class_px"]:
        wrong.append(f"{case}: JPEG changes nothing, so nothing is shown")
    return wrong


def main(program: str, engine: str, slide: str) -> int:
    """Returns 1 and says what differs where anything does."""
    with her2fast.open_slide(slide, reading="exact") as opened:
        width, height = opened.dimensions
        rgb = opened.read(0, 0, (width, height), opened.spacing_um[0])
    wrong = contradiction(program)
    wrong += [line for case in CASES for line in check(program, engine, rgb, case)]
    print("\n".join(wrong) or f"{len(CASES)} files, equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
