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
from cell_scenes import scene
from membrane_cases import UM, altered, box, cells_at, measured_array, write_case

from her2fast.errors import SlideError, UsageError
from her2fast.export.cells_geojson import cell_detections, gzipped
from her2fast.kernels.cells import (
    CELLS_REACH_PX,
    Cells,
    classify_cells,
    find_cells,
)
from her2fast.kernels.membrane import (
    find_membranes,
    membrane_prune,
    prune_reach_px,
)
from her2fast.membranes import MembraneResult, score_membranes
from her2fast.methods.cell_decision import decide_cells
from her2fast.methods.cell_file import from_bytes, to_bytes
from her2fast.methods.membrane import (
    CellMeasurement,
    tumor_tiles,
)
from her2fast.models.membrane_package import grid_step, load_membrane_package

Bytes = npt.NDArray[np.uint8]
SCHEMA = Path(__file__).parents[2] / "python/her2fast/data/schemas/result.json"


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
    prune_px: int = 0,
) -> tuple[CellMeasurement, TrueMask]:
    find = TrueMask(mask)
    found = measured_array(
        rgb, find, tile_px, workers=workers, bad=bad, prune_px=prune_px
    )
    return found, find


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
    assert not found.tiles.unreadable.any()


def test_cells_that_an_unreadable_tile_could_change_are_dropped() -> None:
    rgb, mask = scene(12, 1024, 1280, 200)
    whole = find_cells(rgb, mask)
    found, _ = measured(rgb, mask, bad={(256, 0): "missing", (768, 768): "warned"})
    assert list(found.tiles.counts().values()) == [20, 18, 1, 1]
    lost = np.zeros(mask.shape, np.bool_)
    lost[:256, 256:512] = lost[768:, 768:1024] = True
    assert found.totals.px == int((mask[~lost] > 0).sum())
    # Membranes that were cut are no whole ones.
    assert found.totals.incomplete > 0
    decided = decide_cells(found, slide_spacing_um=UM)
    assert decided.record["tiles"]["missing"] == decided.record["tiles"]["corrupt"] == 1
    kept = found.cells.take(decided.chosen)
    assert decided.record["dropped_cells"] == len(found.cells) - len(kept) > 0
    reach = 2 * CELLS_REACH_PX
    x, y = 2 * whole.x + 1, 2 * whole.y + 1
    near = (x >= 256 - reach) & (x <= 512 + reach) & (y <= 256 + reach)
    near |= (x >= 768 - reach) & (x <= 1024 + reach) & (y >= 768 - reach)
    assert 20 < near.sum() < len(whole) - 20
    for f in dataclasses.fields(Cells):
        np.testing.assert_array_equal(
            getattr(kept, f.name), getattr(whole, f.name)[~near], f.name
        )
    # Without the rule, cells beside the tile have other membranes than they have.
    assert len(found.cells) != len(whole)


def test_pruned_rows_of_tiles_give_the_pruned_slide() -> None:
    rgb, mask = scene(11, 620, 700, 160)
    # Short walls that hang on the others.
    rng = np.random.default_rng(5)
    for y, x in zip(*np.nonzero(mask), strict=True):
        if rng.random() < 0.02:
            mask[y : y + 6, x : x + 2] = 1
    pruned = membrane_prune(mask, length_px=8)
    assert (mask > 0).sum() - pruned.sum() > 200
    whole = find_cells(rgb, pruned)
    membranes, _ = find_membranes(pruned)
    for tile_px in (300, 412):
        found, _ = measured(rgb, mask, tile_px, prune_px=8)
        for f in dataclasses.fields(Cells):
            np.testing.assert_array_equal(
                getattr(found.cells, f.name), getattr(whole, f.name), f.name
            )
        assert found.totals.membranes == len(membranes)
        assert found.totals.px == int(pruned.sum())
        again, _ = from_bytes(to_bytes(found, "key"))
        decided = decide_cells(found, slide_spacing_um=UM)
        assert decided.record["membranes"]["pruned_um"] == 2.0
        assert again.reach_um == found.reach_um == 0.25 * (250 + prune_reach_px(8))
    with pytest.raises(UsageError, match="tiles of 299 px or more, got 298"):
        measured(rgb, mask, tile_px=298, prune_px=8)


def test_a_tile_must_hold_what_a_cell_depends_on() -> None:
    rgb, mask = scene(1, 64, 64, 1)
    with pytest.raises(UsageError, match="tiles of 250 px or more, got 248"):
        measured(rgb, mask, tile_px=248)
    assert grid_step(0.3) == 2
    for spacing in (0.1, 0.35, 0.51, 0.58, 0.7):
        with pytest.raises(UsageError, match="where cells can be told"):
            grid_step(spacing)


def test_tumor_tiles() -> None:
    rows = [np.zeros((4, 10), np.bool_), np.zeros((2, 10), np.bool_)]
    rows[0][3, 4] = rows[1][0, 9] = True
    expected = [[False, True, False], [False, False, True]]
    assert tumor_tiles(rows, 4).tolist() == expected


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("membranes"))


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


def test_packages_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need a membrane package"):
        load_membrane_package(tmp_path)
    with pytest.raises(UsageError, match="method"):
        load_membrane_package(folder / "tumor")
    # Probabilities of two channels become logarithms, of which none is membrane.
    with pytest.raises(UsageError, match=r"need activation of sigmoid .* got 'none'"):
        load_membrane_package(altered(folder, tmp_path / "a", activation="none"))
    swapped = altered(folder, tmp_path / "b")
    config = swapped / "membrane/config.json"
    packages.edit_json(config, lambda c: c["class_names"].reverse())
    with pytest.raises(UsageError, match="first class is 'membrane'"):
        load_membrane_package(swapped)
    for halo_px, words in (
        (
            0,
            r"=512 \(tile_px=512 and halo_px=0 on both sides\), got 576",
        ),
        (64, r"patch_size_pixels=640 .* got 576"),
        (288, "patch_size_pixels larger than twice halo_px=288, got 576"),
        (-1, "her2fast.halo_px"),
        (1025, "her2fast.halo_px"),
    ):
        given = altered(folder, tmp_path / f"halo{halo_px}", halo_px=halo_px)
        with pytest.raises(UsageError, match=words):
            load_membrane_package(given)
    method = altered(folder, tmp_path / "c") / "method.json"
    packages.edit_json(method, lambda c: c.update(prune_um=1.3))
    assert load_membrane_package(method.parent).prune_px == 5
    packages.edit_json(method, lambda c: c.update(prune_um=8.1))
    with pytest.raises(UsageError, match="prune_um"):
        load_membrane_package(method.parent)
    refused = score_membranes(
        folder / "lattice.svs", model=folder / "brown", tumor_model=folder / "tumor"
    )
    assert refused.record["code"] == "MODEL_HASH"
    coarse = score(folder, mpp=0.5)
    assert (coarse.status, coarse.record["code"]) == ("refused", "NO_LEVEL")
