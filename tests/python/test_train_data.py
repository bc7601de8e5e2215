# SPDX-License-Identifier: Apache-2.0
"""Cohorts and splits: labels of readers, leakage, duplicates, folds, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2fast.cli import run as cli_run
from her2fast.errors import UsageError
from her2fast.training.cache import SlideCache
from her2fast.training.cohort import (
    check_duplicates,
    load_cohort,
    majority,
)
from her2fast.training.splits import Member, k_folds, read_splits, site_folds

HEADER = "slide,label,patient,site,split,reader_1,reader_2,reader_3"


def _manifest(folder: Path, *rows: str) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_cohort_by_column_and_its_hash(tmp_path: Path) -> None:
    rows = ["a.svs,0,p,A,train,,,", "b.svs,2+,q,A,val,,,", "x/c.svs,,r,B,test,,,"]
    cohort = load_cohort(_manifest(tmp_path, *rows))
    assert [slide.id for slide in cohort.slides] == ["a.svs", "b.svs", "x/c.svs"]
    assert [slide.label for slide in cohort.slides] == [0, 2, None]
    assert cohort.part("val")[0].shares == (0, 0, 1, 0)
    assert cohort.notes == ()
    again = load_cohort(_manifest(tmp_path, rows[1], rows[2], rows[0]))
    assert again.split_sha256 == cohort.split_sha256
    assert again.manifest_sha256 != cohort.manifest_sha256


def test_labels_of_several_readers(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "a.svs,0,p,A,train,1+,1+,2+",
        "b.svs,2+,q,A,val,1+,2+,",
        "c.svs,3+,r,A,train,,,",
    )
    stated = load_cohort(path).slides
    assert [slide.label for slide in stated] == [0, 2, 3]
    voted = load_cohort(path, labels="majority").slides
    assert [slide.label for slide in voted] == [1, 2, 3]  # divided: the column decides
    soft = load_cohort(path, labels="soft").slides
    assert soft[0].shares == pytest.approx((0, 2 / 3, 1 / 3, 0))
    assert soft[1].shares == (0, 0.5, 0.5, 0)
    assert soft[2].shares == (0, 0, 0, 1)
    assert majority((0.5, 0.5, 0, 0)) is None


@pytest.mark.parametrize(
    ("rows", "labels", "complaint"),
    [
        (["a.svs,0,p,A,train,,,", "b.svs,0,p,A,val,,,"], "label", "1 patients .*'p'"),
        (["a.svs,,p,A,train,,,", "b.svs,0,q,A,val,,,"], "label", "no label .*: a.svs"),
        (
            ["a.svs,,p,A,train,0,1+,", "b.svs,0,q,A,val,,,"],
            "majority",
            "readers with a majority.*: a.svs",
        ),
        (["a.svs,0,p,A,train,,,"], "label", "no slide is in part 'val'"),
        (["a.svs,0,p,A,trian,,,"], "label", "train | val | test, got 'trian'"),
        (["a.svs,0,p,A,,,,"], "label", "her2fast train splits"),
    ],
)
def test_bad_cohorts_are_named(
    tmp_path: Path, rows: list[str], labels: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_cohort(_manifest(tmp_path, *rows), labels=labels)


def test_slides_without_patient_are_noted(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "a.svs,0,,A,train,,,", "b.svs,0,q,A,val,,,")
    assert "1 of 2 slides state no patient" in load_cohort(path).notes[0]


def test_duplicates_are_named() -> None:
    check_duplicates({"a": "1", "b": "2"})
    with pytest.raises(UsageError, match="twice in the cohort: a = c"):
        check_duplicates({"a": "1", "b": "2", "c": "1"})


@given(
    patients=st.lists(st.integers(0, 14), min_size=30, max_size=60),
    seed=st.integers(0, 5),
    test=st.booleans(),
)
@settings(max_examples=20)
def test_folds_keep_patients_whole_and_cover_all(
    patients: list[int], seed: int, test: bool
) -> None:
    members = [
        Member(f"s{i}", f"p{patient}", "0123"[patient % 4], "A")
        for i, patient in enumerate(patients)
    ]
    if len(set(patients)) < 3:
        return
    folds = k_folds(members, 3, seed=seed, test=test)
    assert k_folds(members, 3, seed=seed, test=test) == folds
    for fold in folds:
        everyone = [name for part in fold.values() for name in part]
        assert sorted(everyone) == sorted(member.id for member in members)
        home: dict[str, set[str]] = {}
        for part, names in fold.items():
            for name in names:
                home.setdefault(members[int(name[1:])].group, set()).add(part)
        assert all(len(parts) == 1 for parts in home.values())
    held = [name for fold in folds for name in fold["test" if test else "val"]]
    assert sorted(held) == sorted(member.id for member in members)


def test_folds_are_stratified() -> None:
    members = [Member(f"s{i}", f"p{i}", "0123"[i % 4], "A") for i in range(80)]
    for fold in k_folds(members, 4, seed=3):
        labels = [members[int(name[1:])].label for name in fold["val"]]
        assert [labels.count(kind) for kind in "0123"] == [5, 5, 5, 5]


def test_a_site_is_left_out_whole() -> None:
    members = [Member(f"s{i}", f"p{i}", "01"[i % 2], "ABC"[i % 3]) for i in range(30)]
    folds = site_folds(members, seed=0)
    assert [fold["site"] for fold in folds] == ["A", "B", "C"]
    for fold in folds:
        home = {members[int(name[1:])].site for name in fold["test"]}
        assert home == {fold["site"]}
        assert len(fold["test"]) == 10
        assert len(fold["val"]) == 4
    wanderer = [*members, Member("x", "p0", "0", "B")]
    with pytest.raises(UsageError, match="patient 'p0' has slides of the sites"):
        site_folds(wanderer, seed=0)
    with pytest.raises(UsageError, match="at least two sites"):
        site_folds(members[:1], seed=0)
    with pytest.raises(UsageError, match="at least 3 patients, got 2"):
        k_folds(members[:2], 3, seed=0)


def test_splits_command_file_and_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"s{i}.svs,{['0', '2+'][i % 2]},p{i // 2},A,,,," for i in range(12)]
    path = _manifest(tmp_path, *rows)
    out = tmp_path / "splits.json"
    assert cli_run(["train", "splits", str(path), "-o", str(out), "-k", "3"]) == 0
    said = capsys.readouterr().out
    assert "3 folds, sha256" in said
    assert "fold 2: train 4 (0:2 2+:2)" in said
    cohorts = [load_cohort(path, splits=out, fold=fold) for fold in range(3)]
    assert len({cohort.split_sha256 for cohort in cohorts}) == 3
    with pytest.raises(UsageError, match="folds 0 to 2, got fold=3"):
        load_cohort(path, splits=out, fold=3)
    more = _manifest(tmp_path, *rows, "new.svs,0,z,A,,,,")
    with pytest.raises(UsageError, match=r"in no part: new\.svs"):
        load_cohort(more, splits=out)
    fewer = _manifest(tmp_path, *rows[1:])
    with pytest.raises(UsageError, match=r"slides not in .*: s0\.svs"):
        load_cohort(fewer, splits=out)
    assert cli_run(["train", "splits", str(path), "-o", str(out), "--by-site"]) == 64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "need an object with a list of folds"),
        ('{"folds": []}', "need spec_version"),
        ('{"spec_version": "1.0", "folds": [{"train": [1]}]}', "fold 0: need 'train'"),
    ],
)
def test_bad_split_files(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read_splits(path)


def test_cache_makes_once_and_notices_damage(tmp_path: Path) -> None:
    cache = SlideCache(tmp_path)
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        made.append(1)
        return {"rgb": np.arange(12, dtype=np.uint8).reshape(3, 4), "none": np.empty(0)}

    for _ in range(2):
        found = cache.get({"fingerprint": "f", "spacing_um": 1.0}, make)
    assert len(made) == 1
    assert found["rgb"].tolist() == np.arange(12).reshape(3, 4).tolist()
    assert isinstance(found["rgb"], np.memmap)
    cache.get({"fingerprint": "f", "spacing_um": 0.5}, make)
    assert len(made) == 2
    path = cache.path({"fingerprint": "f", "spacing_um": 1.0})
    np.save(path / "rgb.npy", np.zeros((2, 4), np.uint8))
    with pytest.raises(UsageError, match="cache entry is damaged"):
        cache.get({"fingerprint": "f", "spacing_um": 1.0}, make)


def test_a_failed_making_leaves_no_entry(tmp_path: Path) -> None:
    cache = SlideCache(tmp_path)

    def fail() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        cache.get({"a": 1}, fail)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    path = cache.path({"a": 1})
    path.mkdir(parents=True)  # a folder without meta.json is no entry
    (path / "rgb.npy").write_bytes(b"half")
    with pytest.raises(OSError, match="not empty"):
        cache.get({"a": 1}, lambda: {"rgb": np.zeros(1)})
    assert cache.made == 0
