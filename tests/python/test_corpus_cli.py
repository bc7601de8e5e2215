# SPDX-License-Identifier: Apache-2.0
"""Twenty files of the corpus through the command line: the code, and never a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import corpus
import pytest

from her2fast import cli
from her2fast.errors import REASON_CODES

# Of each dialect a cut, a broken JPEG, an offset past the end, lost and absurd tags.
PICKS = (
    ("jpeg", "sof-twice", 0),
    ("tag", "offset-past-end", 256),
    ("tag", "value-0", 257),
    ("tag", "retype-unknown", 262),
)
# What a tile's damage ends as; the picture itself is no tissue and no IHC stain.
FLAGGED = {"CORRUPT_TILES", "WRONG_STAIN", "NO_TISSUE"}


def picked() -> list[tuple[corpus.Case, bytes]]:
    out = []
    for dialect in corpus.DIALECTS:
        cuts = 0
        for case, data in corpus.cases(dialect):
            if case.kind == "cut":
                cuts += 1
                wanted = cuts == corpus.TRUNCATIONS // 2
            else:
                wanted = (
                    case.page == 0 and (case.kind, case.operation, case.tag) in PICKS
                )
            if wanted:
                out.append((case, data))
    return out


def test_twenty_files_have_their_code_and_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = picked()
    assert len(cases) == 20
    expected: dict[str, set[str]] = {}
    for number, (case, data) in enumerate(cases):
        name = f"{number:02}-{case.name.replace(' ', '-')}.tiff"
        (tmp_path / name).write_bytes(data)
        expected[name] = set(corpus.expected(case))
        assert not expected[name] & {"opens", "fewer", "INCH"}, case
        if "flagged" in expected[name]:
            expected[name] = expected[name] - {"flagged"} | FLAGGED
    out = tmp_path / "out"
    assert cli.run(["score", str(tmp_path), "-o", str(out)]) in (10, 20)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    for name, codes in expected.items():
        records = [
            record
            for path in (out / "results").glob("*.json")
            if (record := read_record(path))["slide"]["name"] == name
        ]
        assert len(records) == 1, name
        (record,) = records
        assert record["score"] is None
        assert record["status"] == REASON_CODES[record["code"]] != "scored"
        assert record["code"] in codes, (name, record["code"])
    assert len(list((out / "results").glob("*.json"))) == len(expected)


def read_record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record
