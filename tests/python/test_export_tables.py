# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import doctest
import errno
import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_example import record, unscored

from her2fast.errors import SlideError
from her2fast.export import atomic, names, results_table
from her2fast.export.atomic import atomic_write
from her2fast.export.patch_csv import patch_table
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.export.results_table import (
    escape_cell,
    results_csv,
    results_parquet,
    worklist_csv,
)

GRID = PatchGrid(patch_px=64, spacing_um=1.0, slide_spacing_um=(0.24, 0.25))


def table(data: bytes) -> list[dict[str, str]]:
    text = data.decode()
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def named(name: str, **changes) -> dict:
    return record(slide={**record()["slide"], "name": name}, **changes)


def outcomes() -> Outcomes:
    return Outcomes.from_dict(
        {
            "column": [0, 1, 2],
            "row": [0, 0, 3],
            "tumor_px": [4096, 2048, 100],
            "kept": [True, True, False],
            "predicted": [3, 0, -1],
            "logits": [[0, 0, 0, np.log(7)], [800, -800, 0, 0], [np.nan] * 4],
        }
    )


def test_patch_table_by_hand():
    data = b"".join(patch_table(outcomes(), GRID, class_names=["0", "1+", 'a"b', "3+"]))
    assert data.decode().splitlines() == [
        'minx,miny,width,height,prob_0,prob_1+,"prob_a""b",prob_3+,'
        "tumor_px,tumor_fraction,kept",
        "0,0,266,256,0.1,0.1,0.1,0.7,4096,1.0,true",
        "266,0,267,256,1.0,0.0,0.0,0.0,2048,0.5,true",
        "533,768,267,256,,,,,100,0.0244140625,false",
    ]


def test_patch_table_streams_and_checks():
    n = 10_000
    many = Outcomes.from_dict(
        {
            "column": np.arange(n),
            "row": np.zeros(n),
            "tumor_px": np.ones(n),
            "kept": np.ones(n),
            "predicted": np.zeros(n),
            "logits": np.zeros((n, 2)),
        }
    )
    chunks = list(patch_table(many, GRID, class_names=["a", "b"]))
    assert len(chunks) == 3
    assert len(table(b"".join(chunks))) == n
    with pytest.raises(ValueError, match="need 3 logits"):
        list(patch_table(many, GRID, class_names=["a", "b", "c"]))


def test_results_by_hand():
    (row,) = table(results_csv([record()]))
    assert row["slide"] == "S24-01234 HER2.svs"
    assert row["score"] == "2+"
    assert row["review_required"] == "true"
    assert row["review_flags"] == "BORDERLINE"
    assert row["px_2+"] == "3267041"
    assert row["mm2_2+"] == "3.267041"
    assert float(row["fraction_0"]) == 20_100_000 / 32_803_541
    # 3+ and 2+ together, ten times, less all of the tumor
    assert row["margin_2+"] == str(10 * (3_267_041 + 236_500) - 32_803_541)
    assert row["margin_2+"] == "2231869"
    assert row["code"] == row["message"] == ""
    assert row["tiles_warned"] == "2"
    assert row["models"].startswith("tumor-tiny@abab")
    assert row["her2fast_version"] == "0.1.0"


def test_missing_is_empty_and_order_does_not_matter():
    records = [
        named("b.svs"),
        {"slide": {"name": "a.svs"}, "status": "failed", "code": "CRASH"},
        {},
        named("c.svs") | {"class_names": ["x", "2+"], "class_px": [1, 2]},
    ]
    data = results_csv(records)
    assert data == results_csv(records[::-1])
    assert b"nan" not in data.lower()
    assert b"None" not in data
    empty, a, b, c = table(data)
    assert set(empty.values()) == {""}
    assert a["code"] == "CRASH"
    assert a["score"] == a["fraction_0"] == a["review_required"] == ""
    assert (c["px_x"], c["px_2+"], c["px_0"]) == ("1", "2", "")
    assert b["px_x"] == ""


def test_parquet_holds_the_same_with_types():
    records = [named("=b.svs"), {"slide": {"name": "a.svs"}, "status": "failed"}]
    read = pyarrow.parquet.read_table(io.BytesIO(results_parquet(records)))
    assert read.column_names == [c.lstrip("'") for c in table(results_csv(records))[0]]
    b, a = read.to_pylist()
    assert b["slide"] == "=b.svs"
    assert b["px_2+"] == 3_267_041
    assert b["review_required"] is True
    assert a["fraction_0"] is None
    assert read.schema.field("fraction_0").type == pyarrow.float64()
    assert pyarrow.parquet.read_table(io.BytesIO(results_parquet([]))).num_rows == 0


NASTY = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-x.svs",
    "@SUM(A1)",
    "\tx",
    "\rx",
    'a"b,c\nd.svs',
    "'=x",
    "x" * 251 + ".svs",
    "é✓.svs",
]


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_survive(name):
    (row,) = table(results_csv([named(name)]))
    cell = row["slide"]
    assert cell[0] not in "=+-@\t\r"
    assert cell in (name, "'" + name)
    (first,) = table(worklist_csv([named(name)]))
    assert first["slide"] == cell


@given(st.text())
def test_escaping_can_be_undone(text):
    cell = escape_cell(text)
    bare = cell.lstrip("'")
    undone = cell[1:] if cell[:1] == "'" and bare[:1] in tuple("=+-@\t\r") else cell
    assert undone == text
    assert cell[:1] not in tuple("=+-@\t\r")


def test_names_that_are_not_utf_8_survive():
    name = os.fsdecode(b"case\xff\xc3.svs")
    (row,) = table(results_csv([named(name)]))
    assert row["slide"] == r"case\xff\xc3.svs"
    pyarrow.parquet.read_table(io.BytesIO(results_parquet([named(name)])))
    assert names.printable("\ud800") == r"\ud800"


def test_worklist_puts_the_needy_first():
    unknown = {"score_probability": None}
    rows = table(
        worklist_csv(
            [
                record((50, 50, 0, 0), slide={"name": "plain.svs"}, **unknown),
                record((820, 90, 90, 0), slide={"name": "gap.svs"}, **unknown),
                record((40, 30, 30, 0), slide={"name": "far.svs"}, **unknown),
                record((889, 0, 0, 111), slide={"name": "near.svs"}, **unknown),
                record((890, 0, 0, 110), slide={"name": "borderline.svs"}, **unknown),
                unscored("refused", "NO_SPACING", "give --mpp", "refused.svs"),
                unscored("indeterminate", "NO_TUMOR", "no tumor", "empty.svs"),
                unscored("failed", "TRUNCATED", "cut off", "broken.svs"),
            ]
        )
    )
    assert [row["slide"] for row in rows] == [
        "empty.svs",
        "broken.svs",
        "refused.svs",
        "gap.svs",
        "borderline.svs",
        "near.svs",
        "far.svs",
        "plain.svs",
    ]
    assert [row["need"] for row in rows][2:6] == ["no score", "review", "review", ""]
    assert rows[2]["message"] == "give --mpp"
    near = rows[5]
    assert (near["nearest_cut"], near["nearest_cut_points"]) == ("1+", "1.1")


def test_worklist_puts_the_least_sure_first():
    def sure(name: str, probability: float | None, **changes):
        shares = None if probability is None else [0, 1 - probability, probability, 0]
        return named(name, score_probability=shares, **changes)

    flagged = {"review_flags": ["BORDERLINE"], "review_required": True}
    two = {"review_flags": ["BORDERLINE", "HETEROGENEOUS"], "review_required": True}
    calm = {"review_flags": [], "review_required": False}
    rows = table(
        worklist_csv(
            [
                sure("calm.svs", 0.2, **calm),
                sure("unknown.svs", None, **flagged),
                sure("unknown two.svs", None, **two),
                sure("fair.svs", 0.8, **two),
                sure("unsure.svs", 0.51, **flagged),
                unscored("failed", "CRASH", "", "broken.svs"),
            ]
        )
    )
    assert [row["slide"] for row in rows] == [
        "broken.svs",
        "unsure.svs",
        "fair.svs",
        "unknown two.svs",
        "unknown.svs",
        "calm.svs",
    ]
    unsure = rows[1]
    assert (unsure["score_probability"], unsure["flip_to_score"]) == ("0.51", "1+")
    assert unsure["flip_mm2"] == "0.223188"
    (row,) = table(results_csv([sure("a.svs", 0.75)]))
    assert (row["score_probability"], row["flip_px"]) == ("0.75", "223188")
    assert (row["interval_low_2+"], row["interval_high_2+"]) == ("0.0791", "0.125")


def test_write_is_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "results.csv"
    assert atomic_write(target, b"old") == 3
    assert target.stat().st_mode & 0o777 == 0o666 & ~current_umask()

    def chunks():
        yield b"new"
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        atomic_write(target, chunks())
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["results.csv"]
    assert atomic_write(target, iter([b"ne", b"w"])) == 3
    assert target.read_bytes() == b"new"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "DISK_FULL"), (errno.EDQUOT, "DISK_FULL"), (errno.EACCES, "IO")],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_errors_of_the_disk(tmp_path, monkeypatch, number, code, call):
    target = tmp_path / "a.json"
    target.write_bytes(b"old")

    def broken(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, call, broken)
    with pytest.raises(SlideError, match=r"a\.json: cannot be written") as caught:
        atomic_write(target, b"new")
    assert caught.value.code == code
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="the system has no /dev/full"
)
def test_a_truly_full_disk(tmp_path, monkeypatch):
    real = os.open

    def full(path, flags, *mode):
        return real("/dev/full" if flags & os.O_CREAT else path, flags & ~os.O_EXCL)

    monkeypatch.setattr(atomic.os, "open", full)
    with pytest.raises(SlideError) as caught:
        atomic_write(tmp_path / "a.json", b"x" * 100)
    assert caught.value.code == "DISK_FULL"


def test_longest_name_and_missing_folder(tmp_path: Path):
    longest = tmp_path / ("x" * 251 + ".csv")
    atomic_write(longest, b"1")
    assert longest.read_bytes() == b"1"
    atomic_write(tmp_path / os.fsdecode(b"\xff.csv"), b"1")
    with pytest.raises(SlideError) as caught:
        atomic_write(tmp_path / "none" / "a.csv", b"1")
    assert caught.value.code == "IO"


@pytest.mark.parametrize("module", [results_table, names])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
