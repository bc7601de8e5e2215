# SPDX-License-Identifier: Apache-2.0
"""Manifests: what is read, and what each error names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2fast.errors import UsageError
from her2fast.manifest import Entry, collect, read_ish, read_manifest, roi_for


def write(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_column(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffslide,mpp,roi,label,patient,case,site,scanner,split,ish,reader_1,reader_2\r\n"
        "a.svs,0.25,r/a.geojson,2+,p1,c1,s,sc,test,positive,2+,1+\r\n"
        "\r\n"
        '"b, c.svs",,,,,,,,,,,\r\n',
    )
    first, second = read_manifest(path)
    assert first == Entry(
        slide=str(tmp_path / "a.svs"),
        mpp=0.25,
        roi=str(tmp_path / "r/a.geojson"),
        label="2+",
        patient="p1",
        case="c1",
        site="s",
        scanner="sc",
        split="test",
        ish="positive",
        readers={"reader_1": "2+", "reader_2": "1+"},
    )
    assert second == Entry(slide=str(tmp_path / "b, c.svs"))


def test_absolute_paths_stay(tmp_path: Path) -> None:
    (entry,) = read_manifest(write(tmp_path, "slide\n/data/a.svs\n"))
    assert entry.slide == "/data/a.svs"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,grade\na.svs,1\n", ["line 1", "unknown column 'grade'"]),
        ("slide,reader_0\na,1+\n", ["unknown column 'reader_0'"]),
        ("slide,slide\na,b\n", ["column 'slide' stands twice"]),
        ("mpp\n0.25\n", ["need a column 'slide'"]),
        ("", ["is empty"]),
        ("slide,mpp\na.svs\n", ["line 2", "need 2 cells, got 1"]),
        ("slide,mpp\na.svs,0.25\n,0.25\n", ["line 3", "'slide' is empty"]),
        ("slide,mpp\na.svs,fine\n", ["line 2", "'mpp'", "fine"]),
        ("slide,mpp\na.svs,nan\n", ["'mpp'"]),
        ("slide,mpp\na.svs,-1\n", ["'mpp'"]),
        ("slide,label\na.svs,4+\n", ["line 2", "'label'", "4+"]),
        ("slide,reader_2\na.svs,x\n", ["'reader_2'"]),
        ("slide,ish\na.svs,maybe\n", ["'ish'", "maybe"]),
        ("slide\na.svs\nb.svs\na.svs\n", ["line 4", "line 2 already"]),
        (b"slide\na.svs\n\xff.svs\n", ["line 3", "not UTF-8"]),
        ('slide\n"a.svs\n', ["line"]),
        ("slide\na\0.svs\n", ["NUL"]),
    ],
)
def test_errors_name_the_place(
    tmp_path: Path, text: str | bytes, words: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_manifest(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_name_over_two_lines_counts_lines(tmp_path: Path) -> None:
    path = write(tmp_path, 'slide,ish\n"a\nb.svs",\nc.svs,maybe\n')
    with pytest.raises(UsageError, match="line 4"):
        read_manifest(path)


names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\ufeff/"),
    min_size=1,
    max_size=20,
).filter(lambda s: s.strip() and s not in (".", ".."))


@given(values=st.lists(names, unique=True, min_size=1, max_size=5))
def test_any_name_comes_back(values: list[str], tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("m")
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([["slide"], *[[value] for value in values]])
    entries = read_manifest(write(folder, out.getvalue()))
    assert [entry.slide for entry in entries] == [str(folder / v) for v in values]


def test_collect_folder_manifest_and_files(tmp_path: Path) -> None:
    for name in ("b.svs", "a.TIFF", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.svs").mkdir()
    manifest = write(tmp_path, "slide,mpp\nb.svs,0.5\n")
    entries = collect([str(tmp_path), str(manifest), str(tmp_path / "gone.svs")])
    assert [Path(e.slide).name for e in entries] == ["a.TIFF", "b.svs", "gone.svs"]


def test_collect_refuses_nothing(tmp_path: Path) -> None:
    for inputs in ([], [str(tmp_path)], [str(write(tmp_path, "slide\n"))]):
        with pytest.raises(UsageError):
            collect(inputs)


def test_ish_and_roi(tmp_path: Path) -> None:
    path = write(tmp_path, "slide,ish\nx/a.svs,positive\nb.svs,\n")
    assert read_ish(path) == {"a.svs": "positive"}
    (tmp_path / "a.geojson").touch()
    assert roi_for("/x/a.svs", str(tmp_path)) == str(tmp_path / "a.geojson")
    assert roi_for("/x/b.svs", str(tmp_path)) is None
    assert roi_for("/x/b.svs", "one.geojson") == "one.geojson"
    assert roi_for("/x/b.svs", None) is None
