# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a slide scored cell by cell, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import packages
import pytest
from membrane_cases import arguments, lattice, region_file, write_case
from slides import write_slide

from her2fast import golden
from her2fast.cli import run as command
from her2fast.errors import SlideError, UsageError
from her2fast.kernels.cells import find_cells
from her2fast.membranes import MembraneResult, MembraneScorer, score_membranes
from her2fast.methods.cell_tiles import CORRUPT, MISSING, READ, CellTiles
from her2fast.methods.tumor_rows import tumor_px_of_tile
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.package import load_package
from her2fast.opened_slide import open_input
from her2fast.scoring import Scorer

Bytes = npt.NDArray[np.uint8]
SCHEMA = Path(__file__).parents[2] / "python/her2fast/data/schemas/result.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("faults"))


def no_membrane(rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
    return np.zeros(rgb.shape[:3], np.uint8)


def score(folder: Path, slide: Path, **options: Any) -> MembraneResult:
    given = {"model": folder / "brown", "tumor_model": folder / "tumor", **options}
    result = score_membranes(slide, allow_unknown_model=True, **given)
    jsonschema.validate(result.record, json.loads(SCHEMA.read_text()))
    return result


def test_an_attempt_without_cells_keeps_those_stored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(roi: tuple[float, float, float, float] | None) -> tuple[str, Any]:
        words = arguments(folder, tmp_path / "out", "-n", 2)
        if roi is not None:
            words += ["--roi", str(region_file(tmp_path / "roi.geojson", *roi))]
        command(words)
        record = json.loads((tmp_path / "out/results/lattice.json").read_text())
        jsonschema.validate(record, json.loads(SCHEMA.read_text()))
        return capsys.readouterr().out, record

    shown, first = run(None)
    assert "before)" not in shown
    cells = tmp_path / "out/measurements/lattice.h2c"
    stored = cells.read_bytes()
    outside, refused = run((90_000, 90_000, 91_000, 91_000))
    assert refused["code"] == "ROI_OUTSIDE"
    assert "before)" not in outside
    assert cells.read_bytes() == stored
    # What lies within the slide and has too little tumor is finished, and kept.
    for work in ("(measured before)", "(finished before)"):
        shown, small = run((0, 0, 1000, 1000))
        assert work in shown
        assert (small["status"], small["code"]) == ("indeterminate", "TOO_LITTLE_TUMOR")
        assert small["measurement_key"] == first["measurement_key"]
        assert small["decision_key"] not in (None, first["decision_key"])
        assert small["roi_sha256"] is not None
        assert small["cells"] is None
        assert small["fractions"] is None
        assert cells.read_bytes() == stored
        assert not (tmp_path / "out/cells/lattice.geojson").exists()
    shown, again = run(None)
    assert "(measured before)" in shown
    assert again == first


def test_a_failure_of_the_membranes_leaves_the_tumor(folder: Path) -> None:
    def fails(rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        raise SlideError("no numbers", "NON_FINITE")

    def crashes(rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        raise ZeroDivisionError("by nothing")

    for finder, code in ((fails, "NON_FINITE"), (crashes, "CRASH")):
        result = score(folder, folder / "lattice.svs", finder=finder, workers=1)
        record = result.record
        assert (record["code"], record["score"]) == (code, None)
        assert result.tumor is not None
        assert record["method"]["name"] == "brown"
        # The package's network sees 32 px more, these finders see the tile alone.
        assert record["method"]["halo_px"] == 0
        assert record["tumor_mm2"] > 0.1
        assert record["area_reading"]["method"] == "test-method"
        assert record["measurement_key"] is not None
        assert record["decision_key"] is None  # never taken for finished


def test_a_slide_that_changes_under_the_membranes_has_no_score(
    folder: Path, tmp_path: Path
) -> None:
    slide = tmp_path / "lattice.svs"
    shutil.copyfile(folder / "lattice.svs", slide)

    def touches(rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        os.utime(slide, ns=(1, 1))
        return no_membrane(rgb, places_px)

    result = score(folder, slide, finder=touches, workers=1)
    assert (result.status, result.record["code"]) == ("failed", "INPUT_CHANGED")
    assert result.tumor is None
    assert str(tmp_path) not in result.record["message"]


def test_either_package_asks_for_the_stain(folder: Path, tmp_path: Path) -> None:
    slide = golden.demo_paths()[-1]  # another stain
    packages.write_method(tmp_path / "tumor", stain=None)
    brown = tmp_path / "brown"
    shutil.copytree(folder / "brown", brown)
    given = {"tumor_model": tmp_path / "tumor", "model": brown}
    with_stain = score(folder, slide, **given)
    assert with_stain.record["code"] == "WRONG_STAIN"
    assert with_stain.record["method"]["stain"] == "h-dab"
    packages.edit_json(brown / "method.json", lambda c: c.pop("stain"))
    without = score(folder, slide, **given)
    assert without.record["code"] != "WRONG_STAIN"
    assert without.record["method"]["stain"] is None


def test_key_and_use_are_of_both_packages(folder: Path) -> None:
    slide = open_input(folder / "lattice.svs")
    brown, tumor = (
        load_membrane_package(folder / "brown"),
        load_package(folder / "tumor"),
    )

    def source(membrane: dict[str, Any], area: dict[str, Any]) -> Any:
        scorer = MembraneScorer(
            dataclasses.replace(brown, **membrane),
            Scorer(dataclasses.replace(tumor, **area)),
        )
        return scorer.provenance(slide)

    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"name": "other"}, {}),
        ({"prune_um": 2.0}, {}),
        ({}, {"name": "other"}),
        ({}, {"guideline": "pham-2022"}),
        ({}, {"floor_percent": 2}),
        ({}, {"bias": (0.5, 0.0, 0.0, 0.0)}),
    ]
    keys = [source(*change).measurement_key for change in changes]
    assert len(set(keys)) == len(keys)
    assert source({}, {}).measurement_key == keys[0]

    def use(membrane: dict[str, Any], area: dict[str, Any]) -> str:
        return str(source(membrane, area).intended_use)

    real: dict[str, Any] = {"synthetic": False}
    mark = "research use only; trained on synthetic data"
    assert use({}, real) == use({}, {}) == use(real, {}) == mark
    assert use(real, real) == "research use only"
    own = {**real, "intended_use": "for phantoms"}
    assert use(own, real) == "research use only; membranes: for phantoms"


def test_a_run_with_another_halo_is_another(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same network and tile, seeing more: stored cells are not taken for its."""
    given = tmp_path / "brown"
    shutil.copytree(folder / "brown", given)
    out = tmp_path / "out"
    words = arguments(folder, out, "-n", 2)
    words[words.index(str(folder / "brown"))] = str(given)
    records = []
    for halo_px, work in ((32, None), (0, None), (0, "(finished before)")):
        packages.edit_json(
            given / "membrane/config.json",
            lambda c, halo=halo_px: (
                c.update(patch_size_pixels=512 + 2 * halo),
                c["her2fast"].update(halo_px=halo),
            ),
        )
        assert command(words) == 0
        shown = capsys.readouterr().out
        assert work in shown if work else "before)" not in shown
        records.append(json.loads((out / "results/lattice.json").read_text()))
        assert records[-1]["method"]["halo_px"] == halo_px
    first, second, third = records
    assert first["measurement_key"] != second["measurement_key"]
    assert second == third
    # A network that judges each pixel alone finds the same, whatever it sees.
    assert first["cells"] == second["cells"]
    stored = (out / "results/lattice.json").read_bytes()
    assert command(["rescore", str(out)]) == 0
    assert (out / "results/lattice.json").read_bytes() == stored


def test_packages_whose_grids_do_not_meet_are_refused_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tile of 510 px is 127.5 px of the tumor's: known before any slide is read."""
    given = tmp_path / "brown"
    shutil.copytree(folder / "brown", given)
    packages.edit_json(given / "method.json", lambda c: c.update(tile_px=510))
    packages.edit_json(
        given / "membrane/config.json", lambda c: c.update(patch_size_pixels=574)
    )
    words = arguments(folder, tmp_path / "out")
    words[words.index(str(folder / "brown"))] = str(given)
    assert command(words) == 64
    assert "got tile_px=510 of 0.25 um: 127.5 of them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="whole number of tumor pixels of 1 um"):
        score(folder, folder / "lattice.svs", model=given)
    assert tumor_px_of_tile(480, 0.23, 0.46) == 240
    with pytest.raises(UsageError, match="do not go together"):
        tumor_px_of_tile(1, 0.25, 1.0)


def test_cells_are_those_whose_nuclei_lie_in_the_tumor(
    folder: Path, tmp_path: Path
) -> None:
    """Wide slide, tumor in its lower right corner, pale cells everywhere else."""
    rgb = np.empty((1800, 2900, 3), np.uint8)
    tissue = np.tile(lattice(), (2, 2, 1))[:1800, :2900]
    # A third of the color: too light for tumor, and nuclei still stand out.
    rgb[:] = 255 - (255 - tissue) // 3
    rgb[411:, 1303:] = tissue[411:, 1303:]
    slide = write_slide(tmp_path / "corner.svs", rgb, 0.25)
    result = score(folder, slide, finder=no_membrane, workers=2)
    assert result.status == "scored"
    assert result.tumor is not None
    assert result.cells is not None
    opened = open_input(slide)
    reader = opened.reader(workers=1, reading="scaled")
    pixels, status = reader.read(0, 0, 2900, 1800, 0.25)
    assert status == "ok"
    whole = find_cells(pixels, np.zeros((1800, 2900), np.uint8))
    core = result.tumor.core
    shape = core.tiles_x * core.tile_px, core.tiles_y * core.tile_px
    tumor = core.tumor_mask(0, 0, *shape) > 0
    at = (whole.y + 0.5) * 0.5, (whole.x + 0.5) * 0.5  # um: px of the tumor
    inside = tumor[at[0].astype(int), at[1].astype(int)]
    assert 300 < inside.sum() < len(whole) - 300
    np.testing.assert_array_equal(result.cells.cells.x, whole.x[inside])
    np.testing.assert_array_equal(result.cells.cells.y, whole.y[inside])
    # Tiles with tumor: as the mask has it, 512 px of the network to 128 of tumor.
    padded = np.zeros((4 * 128, 6 * 128), np.bool_)
    cut = tumor[: padded.shape[0], : padded.shape[1]]
    padded[: cut.shape[0], : cut.shape[1]] = cut
    expected = padded.reshape(4, 128, 6, 128).any((1, 3))
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(result.cells.tiles.tumor(), expected)


@pytest.mark.parametrize("status", [MISSING, CORRUPT])
def test_missing_and_corrupt_tiles_are_unreadable_alike(status: int) -> None:
    tiles = CellTiles.of(np.array([[True, True, False]]), 100.0)
    for column in range(3):
        tiles.set(column, 0, READ)
    tiles.set(1, 0, status)
    assert tiles.unreadable.tolist() == [[False, True, False]]
    assert [tiles.readable(column, 0) for column in range(3)] == [True, False, True]
    x_um, y_um = np.array([50.0, 91.0, 150.0, 209.0, 250.0]), np.full(5, 50.0)
    near = tiles.near_unreadable(x_um, y_um, 10.0)
    assert near.tolist() == [False, True, True, True, False]
    assert tiles.counts(tiles.tumor()) == {
        "wanted": 2,
        "read": 1,
        "missing": int(status == MISSING),
        "corrupt": int(status == CORRUPT),
    }
