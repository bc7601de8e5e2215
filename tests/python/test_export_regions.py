# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import itertools
import json
import time
import uuid

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from her2fast.export import dissolve as dissolve_module
from her2fast.export import geojson, palettes
from her2fast.export.dissolve import dissolve
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.roi import load_roi

NAMES = ["0", "1+", "2+", "3+"]
GRID = PatchGrid(patch_px=64, spacing_um=1.0, slide_spacing_um=(0.24, 0.25))

masks = hnp.arrays(
    np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
)


def outcomes_of(classes):
    """Outcomes of a table of classes; -1 is tumor that was not kept, -2 nothing."""
    row, column = np.nonzero(classes > -2)
    predicted = classes[row, column]
    logits = np.full((len(row), 4), np.nan)
    logits[predicted >= 0] = 4 * np.eye(4)[predicted[predicted >= 0]]
    return Outcomes.from_dict(
        {
            "column": column,
            "row": row,
            "tumor_px": np.where(predicted >= 0, 4096, 100),
            "kept": predicted >= 0,
            "predicted": predicted,
            "logits": logits,
        }
    )


@given(masks)
@settings(max_examples=500)
def test_dissolve_equals_a_union_of_boxes(mask):
    rows, columns = np.nonzero(mask)
    polygons = dissolve(columns, rows)
    shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    together = shapely.MultiPolygon(shapes)
    assert together.is_valid, shapely.is_valid_reason(together)
    boxes = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
    assert together.area == mask.sum()
    assert together.symmetric_difference(boxes).area == 0
    for rings in polygons:
        for index, ring in enumerate(rings):
            assert shapely.LinearRing(ring).is_simple
            assert shapely.LinearRing(ring).is_ccw == (index == 0)
            # corners only: every vertex turns
            steps = np.diff(np.vstack([ring, ring[1]]), axis=0)
            assert (np.diff(steps[:, 0] != 0) != 0).all()


def test_dissolve_by_hand():
    # a frame that meets itself at a corner only: the pocket is a hole, not a notch
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    rows, columns = np.nonzero(mask)
    ((outline, hole),) = dissolve(columns, rows)
    assert len(outline) == 7
    assert sorted(map(tuple, hole[:-1].tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    # cells that meet at a corner are two polygons
    assert len(dissolve([0, 1], [0, 1])) == 2
    assert dissolve([], []) == []
    assert len(dissolve([3, 3, 3], [7, 7, 7])) == 1


@pytest.mark.parametrize(
    "arguments", [([0], [0, 1]), ([-1], [0]), ([[0]], [[0]]), ([0], [-4])]
)
def test_dissolve_refuses(arguments):
    with pytest.raises(ValueError, match="need"):
        dissolve(*arguments)


def test_dissolve_is_quick_on_salt_and_pepper():
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((350, 350)) < 0.5)
    begin = time.perf_counter()
    polygons = dissolve(columns, rows)
    assert time.perf_counter() - begin < 5  # 0.3 s where it was written
    assert len(polygons) > 1000


CLASSES = np.array(
    [
        [0, 0, 0, -2, 3],
        [0, 2, 0, -1, -2],
        [0, 0, 0, -2, 3],
    ]
)


def read(chunks):
    return json.loads(b"".join(chunks))


def test_regions_by_hand():
    document = read(
        geojson.regions(
            outcomes_of(CLASSES),
            GRID,
            class_names=NAMES,
            class_mm2=[0.03, 0, 0.004, 0.0081],
            decision_key="key",
        )
    )
    assert document["type"] == "FeatureCollection"
    none, two, three = document["features"]
    assert [
        f["properties"]["classification"]["name"] for f in document["features"]
    ] == [
        "0",
        "2+",
        "3+",
    ]
    assert two["properties"]["classification"]["color"] == [225, 150, 50]
    assert two["properties"]["objectType"] == "annotation"
    assert two["properties"]["measurements"] == {"area_mm2": 0.004, "patches": 1}
    assert three["geometry"]["type"] == "MultiPolygon"
    assert none["geometry"]["type"] == "Polygon"
    outline, hole = none["geometry"]["coordinates"]
    # 64 px at 1 um/px over 0.24 and 0.25 um/px: floors of 266.67 and 256 a patch
    assert outline[0] == outline[-1] == [0, 0]
    assert [800, 768] in outline
    assert sorted(hole[:-1]) == [[266, 256], [266, 512], [533, 256], [533, 512]]
    assert {uuid.UUID(f["id"]).version for f in document["features"]} == {5}
    assert len({f["id"] for f in document["features"]}) == 3


def test_regions_are_a_function_of_the_decision():
    def made(key):
        return b"".join(
            geojson.regions(
                outcomes_of(CLASSES),
                GRID,
                class_names=NAMES,
                class_mm2=[0] * 4,
                decision_key=key,
            )
        )

    assert made("a") == made("a")
    ids = [{f["id"] for f in json.loads(made(key))["features"]} for key in "ab"]
    assert not ids[0] & ids[1]


def test_regions_of_nothing():
    nothing = outcomes_of(np.full((2, 2), -1))
    assert read(
        geojson.regions(
            nothing, GRID, class_names=NAMES, class_mm2=[0] * 4, decision_key=""
        )
    ) == {"type": "FeatureCollection", "features": []}
    assert (
        read(geojson.patch_tiles(nothing, GRID, class_names=NAMES, decision_key=""))[
            "features"
        ]
        == []
    )


@given(hnp.arrays(np.int64, (6, 7), elements=st.integers(-2, 3)))
def test_regions_are_read_back_as_what_was_drawn(classes):
    document = read(
        geojson.regions(
            outcomes_of(classes),
            GRID,
            class_names=NAMES,
            class_mm2=[0] * 4,
            decision_key="k",
            origin_px=(5, 7),
        )
    )
    present = [name for c, name in enumerate(NAMES) if (classes == c).any()]
    features = document["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == present
    if not features:
        return
    load_roi(document)  # valid, closed and simple
    for feature in features:
        c = NAMES.index(feature["properties"]["classification"]["name"])
        drawn = load_roi(feature, origin_px=(5, 7))
        area = sum(shapely.Polygon(r[0], r[1:]).area for _, r in drawn)
        row, column = np.nonzero(classes == c)
        x, y = GRID.x0_px, GRID.y0_px
        boxes = (x(column + 1) - x(column)) * (y(row + 1) - y(row))
        assert area == boxes.sum()


def test_tiles_by_hand():
    chunks = list(
        geojson.patch_tiles(
            outcomes_of(CLASSES), GRID, class_names=NAMES, decision_key="k"
        )
    )
    assert len(chunks) == 11 + 2  # one patch at a time
    features = json.loads(b"".join(chunks))["features"]
    assert len(features) == 11
    tile = features[3]
    assert tile["properties"]["objectType"] == "tile"
    assert tile["properties"]["classification"]["name"] == "3+"
    assert tile["properties"]["measurements"] == {"tumor_px": 4096}
    ring = tile["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] == [1066, 0]
    assert ring[2] == [1333, 256]
    assert len({f["id"] for f in features}) == 11


@given(st.integers(1, 300), st.floats(0.1, 2), st.floats(0.08, 2), st.integers(0, 9999))
def test_edges_are_exact_floors(patch_px, spacing_um, slide_um, column):
    grid = PatchGrid(patch_px, spacing_um, (slide_um, slide_um))
    working_pm, slide_pm = round(spacing_um * 1e6), round(slide_um * 1e6)
    assert grid.x0_px(column) == column * patch_px * working_pm // slide_pm


def test_bad_grids_and_outcomes():
    with pytest.raises(ValueError, match="need a patch size"):
        PatchGrid(0, 1.0, (1.0, 1.0))
    with pytest.raises(ValueError, match="need a patch size"):
        PatchGrid(64, float("nan"), (1.0, 1.0))
    good = {
        "column": [0],
        "row": [0],
        "tumor_px": [1],
        "kept": [True],
        "predicted": [0],
        "logits": [[0.0]],
    }
    Outcomes.from_dict(good)
    for key, bad in itertools.product(good, ([], [1, 2])):
        with pytest.raises(ValueError, match="need"):
            Outcomes.from_dict({**good, key: bad})


def test_palettes():
    assert palettes.class_colors(NAMES)[3] == (200, 50, 50)
    assert palettes.class_colors(NAMES, "pham") != palettes.class_colors(NAMES)
    assert len(set(palettes.class_colors(["a", "b", "c", "d"]))) == 4
    with pytest.raises(ValueError, match="qupath, pham"):
        palettes.class_colors(NAMES, "rainbow")


@pytest.mark.parametrize("module", [dissolve_module, palettes])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
