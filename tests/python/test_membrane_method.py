# SPDX-License-Identifier: Apache-2.0
"""Membranes over a slide: rows of tiles, decisions on cells, the results folder."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import packages
import pytest
import torch
from cell_scenes import scene
from slides import write_slide

from her2fast.cli import run as command
from her2fast.errors import SlideError, UsageError
from her2fast.export.cells_geojson import cell_detections, gzipped
from her2fast.kernels.cells import Cells, classify_cells, find_cells
from her2fast.kernels.membrane import find_membranes
from her2fast.membranes import MembraneResult, score_membranes
from her2fast.methods.cell_decision import decide_cells
from her2fast.methods.cell_file import from_bytes, to_bytes
from her2fast.methods.membrane import (
    CellMeasurement,
    MembraneMeasure,
    MembraneTotals,
    check_tiles,
    tumor_tiles,
)
from her2fast.models.membrane_package import grid_step, load_membrane_package

Bytes = npt.NDArray[np.uint8]
SCHEMA = Path(__file__).parents[2] / "python/her2fast/data/schemas/result.json"
UM = (0.25, 0.25)


class ArrayReader:
    """A slide in memory, at its spacing; white beyond."""

    def __init__(self, rgb: Bytes, bad: dict[tuple[int, int], str] | None = None):
        self.rgb, self.bad = rgb, bad or {}

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        out = np.full((height_px, width_px, 3), 255, np.uint8)
        part = self.rgb[y_px : y_px + height_px, x_px : x_px + width_px]
        out[: part.shape[0], : part.shape[1]] = part
        return out, self.bad.get((x_px, y_px), "ok")


class TrueMask:
    """Gives the mask it was given, and remembers the shapes of the batches."""

    def __init__(self, mask: Bytes) -> None:
        self.mask, self.shapes = mask, set[tuple[int, ...]]()

    def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        self.shapes.add(rgb.shape)
        out = np.ones(rgb.shape[:3], np.uint8)  # beyond the slide: to be cut
        for tile, (x, y) in zip(out, places_px, strict=False):
            part = self.mask[y : y + len(tile), x : x + len(tile)]
            tile[: part.shape[0], : part.shape[1]] = part
        return out


def measured(
    rgb: Bytes,
    mask: Bytes,
    tile_px: int = 256,
    workers: int = 2,
    bad: dict[tuple[int, int], str] | None = None,
) -> tuple[CellMeasurement, TrueMask]:
    height, width = mask.shape
    find = TrueMask(mask)
    measure = MembraneMeasure(
        ArrayReader(rgb, bad),
        find,
        size_px=(width, height),
        spacing_um=0.25,
        step=2,
        tile_px=tile_px,
        batch_size=3,
        wanted=np.ones((-(-height // tile_px), -(-width // tile_px)), np.bool_),
        is_tumor=lambda x, y: np.ones(len(x), np.bool_),
    )
    return measure.run(workers=workers), find


@pytest.mark.parametrize(("tile_px", "workers"), [(256, 1), (256, 3), (360, 2)])
def test_rows_of_tiles_give_the_slide_in_one_piece(tile_px: int, workers: int) -> None:
    rgb, mask = scene(11, 620, 700, 160)
    found, find = measured(rgb, mask, tile_px, workers)
    whole = find_cells(rgb, mask)
    assert len(whole) > 50
    for f in dataclasses.fields(Cells):
        np.testing.assert_array_equal(
            getattr(found.cells, f.name), getattr(whole, f.name), f.name
        )
    assert find.shapes == {(3, tile_px, tile_px, 3)}  # one shape, also of the last
    membranes, gaps = find_membranes(mask)
    totals = found.totals
    assert totals.membranes == len(membranes)
    assert totals.px == int((mask > 0).sum())
    assert totals.closed == int(membranes.closed.sum())
    assert totals.incomplete == 0
    area = gaps.px * 0.0625
    assert totals.large == int((area > 600).sum())
    sized = totals.one_nucleus + totals.no_nucleus + totals.several_nuclei
    assert sized == int(((area >= 20) & (area <= 600)).sum())
    assert found.tiles["missing"] == found.tiles["corrupt"] == 0


def test_tiles_that_cannot_be_read_hold_nothing_and_are_counted() -> None:
    rgb, mask = scene(12, 512, 512, 60)
    bad = {(0, 0): "missing", (256, 256): "corrupt"}
    found, _ = measured(rgb, mask, bad=bad)
    assert (found.tiles["missing"], found.tiles["corrupt"]) == (1, 1)
    in_bad = (found.cells.x < 128) & (found.cells.y < 128)
    assert found.totals.px == int((mask[:256, 256:] > 0).sum()) + int(
        (mask[256:, :256] > 0).sum()
    )
    assert not in_bad.any()
    with pytest.raises(SlideError) as caught:
        check_tiles(found.tiles, 1)
    assert caught.value.code == "MISSING_TILES"
    with pytest.raises(SlideError) as caught:
        check_tiles({"read": 100, "missing": 1, "corrupt": 2}, 1)
    assert caught.value.code == "CORRUPT_TILES"
    check_tiles({"read": 100, "missing": 1, "corrupt": 1}, 1)


def test_a_tile_must_hold_what_a_cell_depends_on() -> None:
    rgb, mask = scene(1, 64, 64, 1)
    with pytest.raises(UsageError, match="tiles of 250 px or more, got 248"):
        measured(rgb, mask, tile_px=248)
    assert grid_step(0.3) == 2
    for spacing in (0.1, 0.35, 0.7):
        with pytest.raises(UsageError, match="where cells can be told"):
            grid_step(spacing)


def test_tumor_tiles() -> None:
    rows = [np.zeros((4, 10), np.bool_), np.zeros((2, 10), np.bool_)]
    rows[0][3, 4] = rows[1][0, 9] = True
    expected = [[False, True, False], [False, False, True]]
    assert tumor_tiles(rows, 4).tolist() == expected


def cells_at(points: Sequence[tuple[int, int]], rays: Sequence[int]) -> CellMeasurement:
    """Cells with so many stained directions, all of 0.6 OD x um."""
    count = len(points)
    at = np.array(points, np.int32).reshape(count, 2)
    stained = np.array([(1 << n) - 1 for n in rays], np.uint32)
    cells = Cells(
        x=at[:, 0].copy(),
        y=at[:, 1].copy(),
        px=np.full(count, 400, np.int32),
        nucleus_px=np.full(count, 100, np.int32),
        ray_px=np.full((count, 32), 10, np.uint8),
        stained=stained,
        dab_sum=np.array([480 * n for n in rays], np.uint32),
        dab_px=np.array([12 * n for n in rays], np.uint32),
    )
    return CellMeasurement(cells, MembraneTotals(), 0.25, 2, {"wanted": 1, "read": 1})


def test_decision_counts_cells_in_regions() -> None:
    """60 of 200 cells are 3+, 30 incomplete and intense; a region holds the others."""
    points = [(x, y) for y in range(10) for x in range(20)]
    rays = [32] * 60 + [16] * 30 + [0] * 110
    found = cells_at(points, rays)
    all_of = decide_cells(found, slide_spacing_um=UM)
    assert all_of.record["class_cells"] == [110, 0, 30, 60]
    assert all_of.record["h_score"] == pytest.approx(100 * (30 * 2 + 60 * 3) / 200)
    assert all_of.record["unusual_cells"] == 30
    assert all_of.guideline is not None
    assert all_of.guideline["score"] == "3+"
    assert "UNUSUAL_PATTERN" in all_of.guideline["flags"]
    assert all_of.guideline["ihc0_membrane_staining"] == "not_assessable"
    # Level-0 px are twice the grid's; a seed counts where its middle lies.
    ring = np.array([(0, 9), (40, 9), (40, 20), (0, 20), (0, 9)], np.float64)
    lower = decide_cells(found, slide_spacing_um=UM, roi=[(False, [ring])])
    assert lower.record["class_cells"] == [100, 0, 0, 0]
    assert lower.guideline is not None
    assert lower.guideline["score"] == "0"
    assert lower.guideline["ihc0_membrane_staining"] == "null"
    upper = decide_cells(found, slide_spacing_um=UM, roi=[(True, [ring])])
    assert upper.record["count"] == 100
    assert upper.chosen.sum() + lower.chosen.sum() == 200
    hole = np.array([(0, 9), (2, 9), (2, 11), (0, 11), (0, 9)], np.float64)
    few = decide_cells(found, slide_spacing_um=UM, roi=[(False, [ring, hole])])
    assert few.record["count"] == 99
    assert few.too_few
    assert few.guideline is None


def test_no_cells_are_no_score() -> None:
    got = decide_cells(cells_at([], []), slide_spacing_um=UM)
    assert got.too_few
    assert got.guideline is None
    assert got.record["fractions"] is None
    assert got.record["h_score"] is None
    assert got.record["membranes"]["closed_ratio"] is None


def test_stored_cells_come_back_and_damage_is_seen() -> None:
    rgb, mask = scene(3, 300, 300, 40)
    found, _ = measured(rgb, mask)
    data = to_bytes(found, "key")
    again, key = from_bytes(data)
    assert key == "key"
    assert to_bytes(again, key) == data
    assert again.totals == found.totals
    for place in (0, 6, len(data) // 2, len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 64
        with pytest.raises(SlideError):
            from_bytes(bytes(broken))
    for size in (0, 11, len(data) - 1):
        with pytest.raises(SlideError):
            from_bytes(data[:size])


def test_detections_are_what_qupath_reads() -> None:
    found = cells_at([(10, 20), (30, 40)], [32, 0])
    classes = classify_cells(found.cells, grid_um=0.5)
    pieces = list(
        cell_detections(
            found.cells,
            classes,
            grid_um=0.5,
            slide_spacing_um=UM,
            class_names=("0", "1+", "2+", "3+"),
            decision_key="key",
        )
    )
    document = json.loads(b"".join(pieces))
    first, second = document["features"]
    assert document["type"] == "FeatureCollection"
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"] == {
        "name": "3+",
        "color": [200, 50, 50],
    }
    assert second["properties"]["classification"]["name"] == "0"
    assert "membrane_density" not in second["properties"]["measurements"]
    assert first["properties"]["measurements"]["area_um2"] == 100.0
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    # Right of the seed: (10.5 + 9.5) px of the grid are 40 of level 0.
    assert ring[0] == [40.0, 41.0]
    assert first["id"] != second["id"]
    packed = b"".join(gzipped(iter(pieces)))
    assert gzip.decompress(packed) == b"".join(pieces)
    assert packed == b"".join(gzipped(iter(pieces)))


class BrownMembrane(torch.nn.Module):
    """Membrane where red is clearly lighter than blue; an edge that nobody reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brown = 40.0 * (x[:, 0:1] - x[:, 2:3] - 0.12)
        return torch.cat((brown, brown), 1)


def lattice() -> Bytes:
    """Cells every 15 um on 0.4 x 0.4 mm; those on the left have brown rings."""
    side, pitch = 1600, 60
    y, x = np.mgrid[:side, :side]
    rgb = np.empty((side, side, 3), np.int16)
    rgb[:] = (176, 162, 190)
    away = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    rgb[away < 13] = (112, 98, 160)
    rgb[(np.abs(away - 24) < 4) & (x < 420)] = (150, 96, 52)
    rgb += np.random.default_rng(0).integers(-5, 6, rgb.shape, np.int16)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide, a tumor package and a membrane package."""
    root = tmp_path_factory.mktemp("membranes")
    write_slide(root / "lattice.svs", lattice(), 0.25)
    packages.write_method(root / "tumor")
    package = root / "brown"
    packages.write_model(
        package / "membrane",
        BrownMembrane(),
        keys={"task": "membrane", "activation": "sigmoid", "batch_size": 2},
        num_classes=2,
        class_names=["membrane", "edge"],
        patch_size_pixels=512,
        spacing_um_px=0.25,
    )
    method = {
        "name": "brown",
        "method": "membrane",
        "models": {"membrane": "membrane"},
        "tile_px": 512,
        "guideline": "asco-cap-2018",
        "stain": "h-dab",
        "synthetic": True,
    }
    (package / "method.json").write_text(json.dumps(method))
    return root


def box(x0: float, y0: float, x1: float, y1: float) -> list[Any]:
    """A region as `load_roi` gives it."""
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return [(False, [np.array(corners, np.float64)])]


def score(folder: Path, **options: Any) -> MembraneResult:
    return score_membranes(
        folder / "lattice.svs",
        model=folder / "brown",
        tumor_model=folder / "tumor",
        allow_unknown_model=True,
        **options,
    )


def test_a_slide_is_scored_cell_by_cell(folder: Path) -> None:
    # Without the rim: beside glass pale cytoplasm passes for nuclei (design/cells.md).
    result = score(folder, roi=box(60, 60, 1560, 1560), workers=2)
    record = result.record
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    assert (record["status"], record["message"]) == ("scored", "")
    assert result.score == "3+"
    cells = record["cells"]
    # 25 x 25 cells, six columns of them ringed.
    assert cells["count"] == pytest.approx(25 * 25, rel=0.03)
    assert cells["class_cells"][3] == pytest.approx(6 * 25, rel=0.05)
    # The column beside the rings has their membrane on one side, and none of its own.
    assert cells["class_cells"][0] == pytest.approx(19 * 25, rel=0.05)
    assert cells["unusual_cells"] == 0
    assert cells["mean_completeness"] > 0.97
    membranes = cells["membranes"]
    assert membranes["compartments"]["one_nucleus"] == pytest.approx(7 * 26, rel=0.08)
    assert membranes["compartments"]["artifact_share"] < 0.05
    # Every ring stands alone, 2 pi 6 um long: nothing reaches beyond one cell.
    assert membranes["connectivity"] == 0.0
    length_mm = membranes["count"] * 2 * np.pi * 0.006
    assert membranes["length_mm"] == pytest.approx(length_mm, rel=0.05)
    assert record["guideline"]["unit"] == "tumor cells with a nucleus"
    assert record["fractions"] == cells["fractions"]
    assert record["area_reading"]["method"] == "test-method"
    assert record["class_px"] is None

    part = score(folder, roi=box(482, 0, 1600, 1600), workers=1)
    assert part.score == "0"
    assert part.record["guideline"]["ihc0_membrane_staining"] == "null"
    assert part.record["measurement_key"] == record["measurement_key"]
    assert part.record["decision_key"] != record["decision_key"]
    assert part.record["cells"]["membranes"] == membranes


def test_the_command_writes_a_folder_and_keeps_what_is_finished(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: str, *more: str) -> str:
        arguments = ["membranes", str(folder / "lattice.svs"), str(folder / "gone.svs")]
        arguments += ["-o", str(tmp_path / out), "-m", str(folder / "brown")]
        arguments += ["--tumor-model", str(folder / "tumor"), "--allow-unknown-model"]
        assert command([*arguments, *more]) == 10
        return capsys.readouterr().out

    shown = run("a", "-n", "2")
    assert "scored  3+" in shown
    assert "(measured" in shown
    assert "NOT_FOUND" in shown
    assert "research use only" in shown
    assert "(kept" in run("a", "-n", "1")
    run("b", "-n", "1")
    files = {}
    for out in ("a", "b"):
        root = tmp_path / out
        files[out] = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".locks" not in path.parts
        }
    assert files["a"] == files["b"]
    names = set(files["a"])
    assert {
        "results/lattice.json",
        "results/gone.json",
        "measurements/lattice.h2m",
        "measurements/lattice.h2c",
        "cells/lattice.geojson",
        "class-maps/lattice.png",
        "reports/lattice.html",
        "reports/gone.html",
        "results.csv",
    } <= names
    record = json.loads(files["a"]["results/lattice.json"])
    features = json.loads(files["a"]["cells/lattice.geojson"])["features"]
    assert len(features) == record["cells"]["count"]
    schema = json.loads(SCHEMA.read_text())
    for name in ("lattice", "gone"):
        jsonschema.validate(json.loads(files["a"][f"results/{name}.json"]), schema)
    page = files["a"]["reports/lattice.html"].decode()
    assert page.count("data:image/jpeg") == 1 + 3 * 6  # the map; class 1+ has no cell
    assert "tumor cells with a nucleus" in page
    assert "research use only" in page.casefold()
    assert "NOT_FOUND" in files["a"]["reports/gone.html"].decode()
    # One finished file gone: the slide is done again, to the same bytes.
    (tmp_path / "a/cells/lattice.geojson").unlink()
    assert "(decided" in run("a")
    # A region asks no model either, and gives what a whole run with it gives.
    region = tmp_path / "region.geojson"
    ring = box(482, 0, 1600, 1600)[0][1][0].tolist()
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    again = (tmp_path / "a/cells/lattice.geojson").read_bytes()
    assert again == files["b"]["cells/lattice.geojson"]
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"slide,roi\n{folder / 'lattice.svs'},{region}\n")
    for out, work in (("a", "(decided"), ("c", "(measured")):
        arguments = ["membranes", str(manifest), "-o", str(tmp_path / out)]
        arguments += ["-m", str(folder / "brown"), "--allow-unknown-model"]
        assert command([*arguments, "--tumor-model", str(folder / "tumor")]) == 0
        assert work in capsys.readouterr().out
    decided, whole = (
        (tmp_path / out / "results/lattice.json").read_bytes() for out in ("a", "c")
    )
    assert decided == whole
    assert json.loads(whole)["score"] == "0"


def test_packages_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need a membrane package"):
        load_membrane_package(tmp_path)
    with pytest.raises(UsageError, match="method"):
        load_membrane_package(folder / "tumor")
    refused = score_membranes(
        folder / "lattice.svs", model=folder / "brown", tumor_model=folder / "tumor"
    )
    assert refused.record["code"] == "MODEL_HASH"
    coarse = score(folder, mpp=0.5)
    assert (coarse.status, coarse.record["code"]) == ("refused", "NO_LEVEL")
