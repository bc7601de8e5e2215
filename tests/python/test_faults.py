# SPDX-License-Identifier: Apache-2.0
"""Real files that must not be scored: documented status and code, no traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import her2fast
from her2fast import cli
from her2fast.errors import REASON_CODES

OUTCOMES = {
    "slides/CMU-1-Small-Region.svs": "WRONG_STAIN",
    "slides/aperio_no_mpp.svs": "NO_SPACING",
    "slides/hamamatsu_fluorescence.ndpi": "WRONG_STAIN",
    "slides/sm_image.dcm": "NO_TISSUE",
    "slides/absurd_mpp.tiff": "BAD_SPACING",
    "slides/tiny16.svs": "NO_TISSUE",
    "refused/RGB-8bit.czi": "UNSUPPORTED_FORMAT",
    "refused/broken.svs": "UNSUPPORTED_FORMAT",
    "refused/sm_image_grayscale.dcm": "UNSUPPORTED_PIXELS",
    "refused/smalltif.tif": "UNSUPPORTED_PIXELS",
    "refused/unopenable.tiff": "UNSUPPORTED_FORMAT",
}


def test_every_file_has_its_outcome(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {
        f"{folder}/{name}"
        for folder in ("slides", "refused")
        for name in os.listdir(shared_data / folder)
    }
    assert there == set(OUTCOMES)
    words = ["score", *(str(shared_data / file) for file in OUTCOMES)]
    assert cli.run([*words, "-o", str(tmp_path)]) == 10
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    got = {}
    for path in (tmp_path / "results").glob("*.json"):
        record: dict[str, Any] = json.loads(path.read_bytes())
        assert record["score"] is None
        assert record["status"] == REASON_CODES[record["code"]]
        assert str(shared_data) not in path.read_text()
        got[record["slide"]["name"]] = record["code"]
    assert got == {Path(file).name: code for file, code in OUTCOMES.items()}


@pytest.mark.parametrize("file", sorted(OUTCOMES))
def test_info_never_raises(shared_data: Path, file: str) -> None:
    assert cli.run(["info", str(shared_data / file), "--json"]) in (0, 20)


def test_a_spacing_given_by_hand(shared_data: Path) -> None:
    result = her2fast.score(shared_data / "slides/aperio_no_mpp.svs", mpp=0.5)
    assert result.code == "WRONG_STAIN"  # H&E
    assert result.record["slide"]["spacing_source"] == "user"


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def test_a_truncated_slide_is_found_at_open(tmp_path: Path, demo_slide: bytes) -> None:
    path = tmp_path / "cut.svs"
    path.write_bytes(truncated(demo_slide))
    result = her2fast.score(path)
    assert (result.status, result.code) == ("failed", "TRUNCATED")


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_raise(
    tmp_path: Path, demo_slide: bytes, seed: int
) -> None:
    """Whatever a damaged file gives, it is a status; a traceback is not."""
    import random

    rng = random.Random(seed)
    data = bytearray(demo_slide)
    for _ in range(200):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path = tmp_path / "flipped.svs"
    path.write_bytes(data)
    result = her2fast.score(path)
    assert result.status in ("scored", "indeterminate", "failed", "refused")
    assert result.status == "scored" or result.score is None
    if result.record["tiles"] is not None and result.status == "scored":
        bad = result.record["tiles"]["corrupt"] + result.record["tiles"]["warned"]
        assert bad * 100 <= result.record["tiles"]["total"]


@pytest.fixture(scope="module")
def demo_slide() -> bytes:
    from her2fast.golden import DEMO_DIR

    return (DEMO_DIR / "phantom-d.svs").read_bytes()


def test_special_files(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.svs"
    os.mkfifo(fifo)
    assert her2fast.score(fifo).code == "NOT_REGULAR"
    assert her2fast.score(tmp_path).code == "NOT_REGULAR"
    empty = tmp_path / "empty.svs"
    empty.touch()
    assert her2fast.score(empty).status in ("failed", "refused")
    assert her2fast.score("/dev/null").code == "NOT_REGULAR"
    secret = tmp_path / "dangling.svs"
    secret.symlink_to(tmp_path / "nowhere.svs")
    assert her2fast.score(secret).code == "NOT_FOUND"


def test_the_guide_lists_every_code() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs/guide/reason-codes.md"
    table = {}
    for line in guide.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            _, code, status, *_ = (cell.strip(" `") for cell in line.split("|"))
            table[code] = status
    for code, status in REASON_CODES.items():
        assert table[code] == status
