# SPDX-License-Identifier: Apache-2.0
"""Tissue microarrays into cores: found, named, cut, listed, resumed after a kill."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import slides
from hypothesis import given
from hypothesis import strategies as st

import her2fast
from her2fast import _core, cli
from her2fast.errors import UsageError
from her2fast.manifest import read_manifest
from her2fast.slide import open_slide
from her2fast.tma import split_cores
from her2fast.tma_grid import Core, Island, find_islands, lay_grid, place_name
from her2fast.tma_list import read_cores

Rgb = npt.NDArray[np.uint8]

SPACING_UM = 2.0
PITCH_UM, DIAMETER_UM = 1000.0, 600.0


def disc(rgb: Rgb, x_um: float, y_um: float, diameter_um: float, stain: int) -> None:
    """Paints a core of one stain."""
    height, width = rgb.shape[:2]
    y, x = np.ogrid[0:height, 0:width]
    inside = np.hypot(x - x_um / SPACING_UM, y - y_um / SPACING_UM)
    rgb[inside < diameter_um / 2 / SPACING_UM] = slides.STAINS[stain]


def paint_array(
    rows: int = 3,
    columns: int = 4,
    *,
    missing: tuple[tuple[int, int], ...] = ((1, 2),),
    turn_degrees: float = 0.0,
) -> Rgb:
    """An array whose core (row, column) has stain (row + column) % 4."""
    width, height = ((n + 1) * PITCH_UM / SPACING_UM for n in (columns, rows))
    rgb = np.full((int(height), int(width), 3), slides.WHITE, np.uint8)
    for row in range(rows):
        for column in range(columns):
            if (row, column) not in missing:
                x_um, y_um = expected_center(row, column, turn_degrees, rgb)
                disc(rgb, x_um, y_um, DIAMETER_UM, (row + column) % 4)
    return rgb


def expected_center(
    row: int, column: int, turn_degrees: float, rgb: Rgb
) -> tuple[float, float]:
    middle = np.array([rgb.shape[1], rgb.shape[0]]) * SPACING_UM / 2
    at = np.array([(column + 1) * PITCH_UM, (row + 1) * PITCH_UM]) - middle
    turn = math.radians(turn_degrees)
    x = at[0] * math.cos(turn) - at[1] * math.sin(turn)
    y = at[0] * math.sin(turn) + at[1] * math.cos(turn)
    return float(x + middle[0]), float(y + middle[1])


def write_array(path: Path, rgb: Rgb) -> Path:
    _core.write_pyramid(
        path, rgb, spacing_um=SPACING_UM, tile_px=64, aperio=True, downsamples=[1, 4]
    )
    return path


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cores.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("turn_degrees", [0.0, 4.0, -6.0])
def test_an_array_is_found_and_named(tmp_path: Path, turn_degrees: float) -> None:
    rgb = paint_array(missing=((1, 2), (0, 3)), turn_degrees=turn_degrees)
    source = write_array(tmp_path / "tma.svs", rgb)
    done = split_cores(source, tmp_path / "cores")
    names = [f"{'ABC'[row]}-{column + 1}" for row in range(3) for column in range(4)]
    assert [item.core.name for item in done] == names
    assert {i.core.name for i in done if i.core.status == "missing"} == {"B-3", "A-4"}
    for item in done:
        if item.file is None:
            continue
        row, column = "ABC".index(item.core.name[0]), int(item.core.name[2:]) - 1
        x_um, y_um = expected_center(row, column, turn_degrees, rgb)
        x0, y0, width, height = item.box_px
        half = DIAMETER_UM / 2 / SPACING_UM
        x, y = x_um / SPACING_UM, y_um / SPACING_UM
        assert x0 <= x - half + 1
        assert x + half - 1 <= x0 + width
        assert y0 <= y - half + 1
        assert y + half - 1 <= y0 + height
        slide = open_slide(tmp_path / "cores" / item.file)
        assert slide.spacing_um == (SPACING_UM, SPACING_UM)
        pixels = slide.read(0, 0, slide.dimensions, spacing_um=SPACING_UM)
        middle = pixels[int(y) - y0, int(x) - x0].astype(int)
        stain = slides.STAINS[(row + column) % 4]
        assert np.abs(middle - stain).max() < 12
    rows = table(tmp_path / "cores")
    assert float(rows["A-1"]["tissue_mm2"]) == pytest.approx(0.283, abs=0.07)
    assert rows["B-3"]["slide"] == ""
    entries = read_manifest(tmp_path / "cores" / "manifest.csv")
    assert [entry.case for entry in entries] == [
        n for n in names if n not in ("B-3", "A-4")
    ]
    assert all(Path(entry.slide).is_file() for entry in entries)


def test_tiles_of_cores_are_copied_where_no_other_core_is_near(tmp_path: Path) -> None:
    source = write_array(tmp_path / "tma.svs", paint_array())
    done = split_cores(source, tmp_path / "cores")
    assert all(i.converted and i.converted.copied for i in done if i.file)
    whole = open_slide(source)
    for item in done:
        if item.file is None:
            continue
        x0, y0, width, height = item.box_px
        assert (x0 % 64, y0 % 64) == (0, 0)
        slide = open_slide(tmp_path / "cores" / item.file)
        got = slide.read(0, 0, slide.dimensions, spacing_um=SPACING_UM)
        expected = whole.read(x0, y0, (width, height), spacing_um=SPACING_UM)
        np.testing.assert_array_equal(got, expected)


def test_cores_score_as_they_were_painted(tmp_path: Path) -> None:
    """Through the command line, from the array to a score per core."""
    import packages

    rgb = np.full((1000, 1500, 3), slides.WHITE, np.uint8)
    for i, stain in enumerate((3, 0)):
        y, x = np.ogrid[0:1000, 0:1500]
        inside = np.hypot(x - 350 - 800 * i, y - 500) < 300
        rgb[inside] = slides.STAINS[stain]
    source = tmp_path / "tma.svs"
    _core.write_pyramid(source, rgb, spacing_um=1.0, aperio=True, downsamples=[1])
    out = tmp_path / "cores"
    assert cli.run(["convert", str(source), str(out), "--cores", "detect"]) == 0
    method = packages.write_method(tmp_path / "m")
    scores = {
        entry.case: her2fast.score(
            entry.slide, model=method, allow_unknown_model=True
        ).score
        for entry in read_manifest(out / "manifest.csv")
    }
    assert scores == {"A-1": "3+", "A-2": "0"}


def test_touching_and_broken_cores(tmp_path: Path) -> None:
    """Two that touch become two; fragments stay one core; dust is none."""
    rgb = paint_array(missing=((1, 1), (1, 2)))
    at = [expected_center(1, column, 0, rgb) for column in (1, 2)]
    for x_um, y_um in at:
        disc(rgb, x_um, y_um, DIAMETER_UM, 1)
    middle = ((at[0][0] + at[1][0]) / 2, at[0][1])
    disc(rgb, *middle, 450.0, 1)  # a fold from one to the other
    x_um, y_um = expected_center(0, 0, 0, rgb)
    left = int((x_um - 60) / SPACING_UM)
    rgb[:, left : left + 60][rgb[:, left : left + 60].sum(axis=2) > 0] = slides.WHITE
    x_um, y_um = expected_center(2, 3, 0, rgb)
    disc(rgb, x_um, y_um, DIAMETER_UM + 10, 0)
    rgb[int(y_um / SPACING_UM) - 300 :, int((x_um - 100) / SPACING_UM) :] = slides.WHITE
    disc(rgb, 150, 150, 60, 2)  # dust
    source = write_array(tmp_path / "tma.svs", rgb)
    done = {i.core.name: i for i in split_cores(source, tmp_path / "cores")}
    assert len(done) == 12
    assert done["B-2"].core.status == done["B-3"].core.status == "touching"
    assert done["A-1"].core.status == "found"
    assert done["C-4"].core.status in ("partial", "found")
    for name, (x_um, y_um) in zip(("B-2", "B-3"), at, strict=True):
        x0, y0, width, height = done[name].box_px
        assert abs(x0 + width / 2 - x_um / SPACING_UM) < 40
        assert abs(y0 + height / 2 - y_um / SPACING_UM) < 40


def test_a_section_is_no_array(tmp_path: Path) -> None:
    rgb = np.full((2500, 3000, 3), slides.WHITE, np.uint8)
    rgb[200:2300, 300:2700] = slides.STAINS[1]
    source = write_array(tmp_path / "a.svs", rgb)
    with pytest.raises(UsageError, match="no array of cores"):
        split_cores(source, tmp_path / "cores")
    assert not (tmp_path / "cores").exists()
    empty = write_array(tmp_path / "b.svs", np.full_like(rgb, 243))
    with pytest.raises(UsageError, match="no tissue"):
        split_cores(empty, tmp_path / "cores")


@given(
    rows=st.integers(2, 6),
    columns=st.integers(2, 8),
    pitch_um=st.sampled_from([900.0, 1300.0, 2000.0]),
    turn_degrees=st.floats(-7, 7),
    seed=st.integers(0, 1000),
)
def test_every_island_gets_its_place(
    rows: int, columns: int, pitch_um: float, turn_degrees: float, seed: int
) -> None:
    """Grids with up to a fifth lost, each row and column still held by some core."""
    rng = np.random.default_rng(seed)
    turn = math.radians(turn_degrees)
    places = [(r, c) for r in range(rows) for c in range(columns)]
    lost = {places[i] for i in rng.permutation(len(places))[: len(places) // 5]}
    kept = [place for place in places if place not in lost]
    if len({r for r, _ in kept}) < rows or len({c for _, c in kept}) < columns:
        return
    islands = {}
    for r, c in kept:
        x, y = (c + 1) * pitch_um, (r + 1) * pitch_um
        x, y = (
            x * math.cos(turn) - y * math.sin(turn) + rng.uniform(-60, 60) + 3000,
            x * math.sin(turn) + y * math.cos(turn) + rng.uniform(-60, 60) + 3000,
        )
        islands[r, c] = Island(x - 300, y - 300, x + 300, y + 300, 0.28)
    cores = lay_grid(list(islands.values()), (0.5, 0.5))
    by_name = {core.name: core for core in cores}
    assert len(by_name) == rows * columns
    for (r, c), island in islands.items():
        core = by_name[place_name(r, c)]
        x0, y0, width, height = core.box_px
        assert core.status == "found"
        assert abs((x0 + width / 2) * 0.5 - island.center_um[0]) <= 1
        assert abs((y0 + height / 2) * 0.5 - island.center_um[1]) <= 1
    for place in lost:
        assert by_name[place_name(*place)].status == "missing"


def test_names_and_islands_by_hand() -> None:
    assert [place_name(*p) for p in ((0, 0), (2, 9), (25, 0), (26, 1))] == [
        "A-1",
        "C-10",
        "Z-1",
        "AA-2",
    ]
    cells = np.zeros((20, 30), np.float32)
    cells[2:6, 3:8] = 1
    cells[2:6, 9:12] = 0.5  # a cell of glass between: one island
    cells[12:17, 20:26] = 1
    cells[0, 29] = 1  # dust
    found = find_islands(cells)
    assert [island[:4] for island in found] == [
        (120.0, 80.0, 480.0, 240.0),
        (800.0, 480.0, 1040.0, 680.0),
    ]
    areas = [island.mm2 for island in found]
    assert areas == pytest.approx([26 * 0.0016, 30 * 0.0016])


# Lists.


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_of_every_kind(tmp_path: Path) -> None:
    box = [Core("a", (10, 20, 300, 400), "given"), Core("b", (5, 6, 7, 8), "missing")]
    text = (
        "name,x0_px,y0_px,width_px,height_px,missing\na,10,20,300,400,\nb,5,6,7,8,TRUE"
    )
    assert read_cores(write(tmp_path / "a.csv", text), (0.5, 0.5)) == box
    text = "name,x_px,y_px,diameter_px\na,100,200,50\n"
    expected = [Core("a", (75, 175, 50, 50), "given")]
    assert read_cores(write(tmp_path / "b.csv", text), (0.5, 0.5)) == expected
    # QuPath's measurement table: tabs, micrometers, a diameter from the user.
    text = (
        "Image\tName\tMissing\tCentroid X µm\tCentroid Y µm\n"
        "x.svs\tA-1\tfalse\t100\t200\nx.svs\tA-2\ttrue\t300\t200\n"
    )
    assert read_cores(write(tmp_path / "c.tsv", text), (0.5, 0.25), 60.0) == [
        Core("A-1", (140, 680, 120, 240), "given"),
        Core("A-2", (540, 680, 120, 240), "missing"),
    ]
    ring = [[10, 20], [110.5, 20], [110.5, 90], [10, 90], [10, 20]]
    features: list[dict[str, Any]] = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": kind, "name": name, "isMissing": missing},
        }
        for kind, name, missing in (
            ("tma_core", "A-1", False),
            ("tmaCore", "A-2", True),
            ("annotation", "x", False),
        )
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    assert read_cores(write(tmp_path / "d.geojson", text), (0.5, 0.5)) == [
        Core("A-1", (10, 20, 101, 70), "given"),
        Core("A-2", (10, 20, 101, 70), "missing"),
    ]


BOX_HEADER = "name,x0_px,y0_px,width_px,height_px\n"
BAD_LISTS = {
    "empty": ("", "lists no core"),
    "columns": ("name,x,y\na,1,2\n", "need the columns"),
    "size": ("name,x_px,y_px\na,1,2\n", "diameter"),
    "cells": (BOX_HEADER + "a,1,2,3\n", "line 2: need 5 cells, got 4"),
    "number": (BOX_HEADER + "a,1,2,3,x\n", "line 2: column 'height_px'"),
    "nan": (BOX_HEADER + "a,1,2,3,nan\n", "line 2: column 'height_px'"),
    "huge": (BOX_HEADER + "a,1,2,3,1e300\n", "line 2: column 'height_px'"),
    "flat": (BOX_HEADER + "a,1,2,3,0\n", "line 2: need a core"),
    "nameless": (BOX_HEADER + ",1,2,3,4\n", "line 2: column 'name' is empty"),
    "twice": (BOX_HEADER + "a,1,2,3,4\na,5,6,7,8\n", "'a' stands twice"),
    "missing": (
        "name,x0_px,y0_px,width_px,height_px,missing\na,1,2,3,4,maybe\n",
        "line 2: column 'missing'",
    ),
    "json": ("{", "is no JSON"),
    "features": ('{"features": 1}', "FeatureCollection"),
    "no cores": ('{"features": []}', "no feature"),
    "geometry": (
        '[{"properties": {"objectType": "tma_core", "name": "a"}, "geometry": null}]',
        "feature 1: need the polygon",
    ),
    "deep": ("[" * 100_000, "is no JSON"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_name_the_place(tmp_path: Path, name: str) -> None:
    text, message = BAD_LISTS[name]
    with pytest.raises(UsageError, match=message):
        read_cores(write(tmp_path / "a.csv", text), (0.5, 0.5))


def test_a_list_with_overlaps_strange_names_and_places(tmp_path: Path) -> None:
    source = write_array(tmp_path / "tma.svs", paint_array())
    text = (
        BOX_HEADER + "a/1,300,300,400,400\nb 2,600,300,400,400\n../c,-50,-60,200,200\n"
    )
    cores = write(tmp_path / "a.csv", text)
    done = split_cores(source, tmp_path / "out", cores=cores)
    assert [item.file for item in done] == ["a_1.svs", "b_2.svs", ".._c.svs"]
    assert done[0].overlaps == ("b 2",)
    assert done[0].box_px == (300, 300, 400, 400)  # exact, and encoded anew
    assert done[2].box_px[:2] == (0, 0)  # clipped to the slide
    assert table(tmp_path / "out")["a/1"]["overlaps"] == "b 2"
    for text, message in (
        (BOX_HEADER + "a,99999,1,5,5\n", "lies beyond the slide"),
        (BOX_HEADER + "a/1,1,1,5,5\na_1,1,1,5,5\n", "share the file"),
    ):
        with pytest.raises(UsageError, match=message):
            split_cores(source, tmp_path / "no", cores=write(tmp_path / "b.csv", text))
    assert not (tmp_path / "no").exists()


# Restarts.


def test_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    source = write_array(tmp_path / "tma.svs", paint_array())
    out = tmp_path / "cores"
    script = """
import sys, time
from her2fast.tma import split_cores
def slow(item, number, total):
    print(item.core.name, flush=True)
    time.sleep(0.2)
split_cores(sys.argv[1], sys.argv[2], on_core=slow)
"""
    words = [sys.executable, "-c", script, str(source), str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    assert not (out / "cores.csv").exists()
    assert not (out / "manifest.csv").exists()
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("*.svs")}
    assert 3 <= len(first) < 11
    for name in first:
        open_slide(out / name).close()
    done = split_cores(source, out)
    assert len(list(out.glob("*.svs"))) == 11
    kept = {i.file for i in done if i.file and i.converted is None}
    assert kept <= set(first)
    assert len(kept) >= 3
    for name in kept:
        assert (out / str(name)).stat().st_mtime_ns == first[str(name)]
    assert len(read_manifest(out / "manifest.csv")) == 11
    again = split_cores(source, out)
    assert all(item.converted is None for item in again)
    assert [item.file for item in again] == [item.file for item in done]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    source = write_array(tmp_path / "tma.svs", paint_array())
    out = tmp_path / "cores"
    split_cores(source, out)
    with pytest.raises(UsageError, match="another slide, list or setting"):
        split_cores(source, out, quality=50)
    other = write_array(tmp_path / "other.svs", paint_array(missing=()))
    with pytest.raises(UsageError, match="another slide"):
        split_cores(other, out)
    done = split_cores(other, out, overwrite=True)
    assert sum(item.file is not None for item in done) == 12
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        split_cores(source, full)
    assert os.listdir(full) == ["mine.txt"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_array(tmp_path / "tma.svs", paint_array()))
    out = str(tmp_path / "cores")
    assert cli.run(["convert", source, out, "--cores", "detect", "--region", "0,0,9,9"])
    words = ["convert", source, out, "--cores", "detect", "--core-diameter-um", "600"]
    assert cli.run(words) == 0
    text = capsys.readouterr().out
    assert "[1/12] A-1: found" in text
    assert "[7/12] B-3: missing" in text
    assert "11 cores, 1 missing" in text
    assert cli.run(words) == 0
    assert "(finished before)" in capsys.readouterr().out
    assert cli.run([*words, "--quality", "70"]) == 64
    assert cli.run(["convert", source, out, "--cores", str(tmp_path / "no.csv")]) == 64
    assert cli.run(["convert", source, str(tmp_path / "x.svs"), *words[5:]]) == 64
