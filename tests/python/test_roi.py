# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2fast import roi as roi_module
from her2fast.errors import SlideError
from her2fast.roi import MAX_DEPTH, check_inside, load_roi


def square(x=0.0, y=0.0, side=10.0):
    x1, y1 = x + side, y + side
    return [[x, y], [x1, y], [x1, y1], [x, y1], [x, y]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def code_of(document_or_path):
    with pytest.raises(SlideError) as caught:
        load_roi(document_or_path)
    return caught.value.code, str(caught.value)


def test_hand_worked_collection(tmp_path: Path):
    path = tmp_path / "case.geojson"
    path.write_text(
        json.dumps(
            collection(
                feature(polygon(square(side=100), square(20, 20))),
                feature(
                    {
                        "type": "MultiPolygon",
                        "coordinates": [[square(200)], [square(300)]],
                    },
                    objectType="annotation",
                    classification={"name": "Tumor", "color": [200, 0, 0]},
                ),
                feature(polygon(square(50, 50)), classification={"name": "Ignore*"}),
            )
        )
    )
    roi = load_roi(path)
    assert [exclude for exclude, _ in roi] == [False, False, False, True]
    assert [len(rings) for _, rings in roi] == [2, 1, 1, 1]
    np.testing.assert_array_equal(
        roi[0][1][1], [[20, 20], [30, 20], [30, 30], [20, 30]]
    )
    assert roi[0][1][0].dtype == np.float64
    assert roi[0][1][0].flags.c_contiguous


@pytest.mark.parametrize(
    "document",
    [
        polygon(square()),
        feature(polygon(square())),
        [feature(polygon(square()))],
        collection(feature(polygon(square()))),
        feature(polygon([[*xy, 0.0] for xy in square()])),
        {"type": "Feature", "geometry": polygon(square()), "properties": None},
    ],
)
def test_every_wrapping_is_read(document):
    ((exclude, rings),) = load_roi(document)
    assert not exclude
    np.testing.assert_array_equal(rings[0], [[0, 0], [10, 0], [10, 10], [0, 10]])


@pytest.mark.parametrize(
    ("properties", "exclude"),
    [
        ({}, False),
        ({"classification": {"name": "Tumor"}}, False),
        ({"classification": {"name": "Ignore*"}}, True),
        ({"classification": {"name": "ignored fold"}}, True),
        ({"classification": {"name": "Exclude"}}, True),
        ({"classification": {"name": "Control"}}, True),
        ({"classification": {"name": "Control: Tumor"}}, True),
        ({"classification": {"names": ["Tumor", "Control"]}}, True),
        ({"classification": {"name": "Controlled"}}, False),
        ({"classification": "Control"}, True),
        ({"name": "control"}, True),
        ({"name": "Exclude ", "classification": {"name": "Tumor"}}, True),
        ({"name": 7, "classification": [1]}, False),
    ],
)
def test_names_that_exclude(properties, exclude):
    assert load_roi(feature(polygon(square()), **properties))[0][0] is exclude


def test_frame_of_a_cropped_view():
    ((_, (ring,)),) = load_roi(polygon(square()), origin_px=(1000, 50))
    np.testing.assert_array_equal(ring[0], [1000, 50])


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]
BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "feature 0: need a Polygon"),
        ([], "no polygon"),
        (collection(), "no polygon"),
        ({"type": "FeatureCollection"}, "list of features, got null"),
        ({"type": "FeatureCollection", "features": {}}, "list of features"),
        (collection(7), "feature 0: need an object, got int"),
        (collection(feature(None)), "feature 0: need a geometry, got null"),
        (
            collection(
                feature(polygon(square())),
                feature({"type": "Point", "coordinates": [1, 2]}),
            ),
            "feature 1: need a Polygon or MultiPolygon, got 'Point'",
        ),
        ({"type": ["Polygon"], "coordinates": []}, "need a Polygon"),
        (polygon(), "feature 0: need at least one ring, got an empty list"),
        ({"type": "MultiPolygon", "coordinates": []}, "at least one polygon"),
        (polygon([]), "ring 0: need at least one vertex"),
        (polygon(7), "ring 0: need at least one vertex, got int"),
        (polygon(square()[:-1]), "ring 0: the ring is not closed"),
        (polygon([[0, 0], [1, 1], [0, 0]]), "at least 4 vertices"),
        (polygon([[0, 0], [5, 5], [9, 9], [0, 0]]), "feature 0"),
        (polygon([[1, 1]] * 5), "feature 0"),
        (polygon(BOW_TIE), "not simple: Self-intersection[5 5]"),
        (polygon(square(), square(50, 50)), "Hole lies outside shell"),
        (polygon([[0], *square()]), "vertex 0: need [x, y]"),
        (polygon([7, *square()]), "vertex 0: need [x, y]"),
        (polygon([["0", "0"], *square()]), "need numbers"),
        (polygon([[True, False], *square()]), "need numbers"),
        (polygon([[None, 0], *square()]), "need numbers"),
        (polygon([[float("nan"), 0], *square()]), "vertex 0: need finite"),
        (polygon([[float("inf"), 0], *square()]), "vertex 0: need finite"),
        (polygon([*square()[:2], [10**400, 0], *square()]), "vertex 2: need finite"),
        (polygon([[2e9, 0], *square()]), "vertex 0: need finite"),
        (polygon([[10**5000, 0], *square()]), "got an integer of 16610 bits"),
        (polygon([DEEP, *square()]), "vertex 0: need [x, y], got a list of 1"),
        ({"type": DEEP}, "need a Polygon or MultiPolygon, got a list of 1"),
    ],
)
def test_bad_documents_name_the_place(document, words):
    code, message = code_of(document)
    assert code == "ROI_INVALID"
    assert words in message


RING = "[[0,0],[9,0],[9,9],[0,9],[0,0]]"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b'{"type": "Polygon",', "not JSON"),
        (b'{"type":"Polygon","coordinates":[[[NaN,0],[1,0],[1,1]]]}', "got NaN"),
        (b'{"type":"Polygon","coordinates":[[[-Infinity,0]]]}', "got -Infinity"),
        (b'{"type":"Polygon","coordinates":[[[1e999,0]]]}', "need finite"),
        (b"[" * 1_000_000, "deep, got 1000000"),
        (b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000, "deep, got 1000000"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"deep, got {MAX_DEPTH + 1}"),
        (b'["\\"[[' + b"]" * 500 + b'",' + b"[" * 500, "deep, got 501"),
        (b"9" * 5000, "not JSON"),
        (b"\x1f\x8b broken", "broken gzip"),
        (gzip.compress(b"[" * 100)[:-12], "broken gzip"),
    ],
)
def test_bad_bytes(tmp_path: Path, data, words):
    path = tmp_path / "bad.geojson"
    path.write_bytes(data)
    code, message = code_of(path)
    assert code == "ROI_INVALID"
    assert words in message
    assert message.startswith("bad.geojson: ")


def test_brackets_in_names_are_not_depth(tmp_path: Path):
    path = tmp_path / "case.geojson"
    document = feature(polygon(square()), name='"[[[[\\' + "{" * 500)
    path.write_text(json.dumps(document))
    assert len(load_roi(path)) == 1


def test_byte_order_mark_and_gzip_are_read(tmp_path: Path):
    path = tmp_path / "case.geojson.gz"
    text = json.dumps(polygon(square()))
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    assert len(load_roi(path)) == 1


def test_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "case.geojson"
    path.write_text(json.dumps(polygon(square())))
    packed = tmp_path / "case.geojson.gz"
    packed.write_bytes(gzip.compress(path.read_bytes() + b" " * 1000))
    monkeypatch.setattr(roi_module, "MAX_VERTICES", 4)
    assert "need at most 4 vertices" in code_of(path)[1]
    monkeypatch.setattr(roi_module, "MAX_BYTES", 90)
    assert "need at most 90 bytes" in code_of(packed)[1]
    monkeypatch.setattr(roi_module, "MAX_BYTES", 9)
    assert "need at most 9 bytes" in code_of(path)[1]


def test_files_that_cannot_be_read(tmp_path: Path):
    assert code_of(tmp_path / "none.geojson")[0] == "NOT_FOUND"
    assert code_of(tmp_path)[0] == "IO"
    assert code_of("a\0b")[0] == "IO"


def test_outside_the_slide():
    check_inside(load_roi(polygon(square())), (100, 50))
    check_inside(load_roi(polygon(square(-9, -9))), (100, 50))
    around = polygon(square(-100, -100, 1000))
    check_inside(load_roi(around), (100, 50))
    for outside in (square(100, 0), square(-10, 0), square(0, 50), square(0, 1e6)):
        with pytest.raises(SlideError, match="polygon 1 of the region") as caught:
            check_inside(
                load_roi(
                    collection(feature(polygon(square())), feature(polygon(outside)))
                ),
                (100, 50),
            )
        assert caught.value.code == "ROI_OUTSIDE"
    # its bounding box meets the slide, its area does not
    frame = polygon(square(-100, -100, 1000), square(-50, -50, 500))
    with pytest.raises(SlideError, match="outside"):
        check_inside(load_roi(frame), (100, 50))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "features", "geometry", "coordinates", "properties"]
            ),
            inner | st.sampled_from(["Feature", "Polygon", "MultiPolygon"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(values)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value):
    path = tmp_path_factory.mktemp("roi") / "any.geojson"
    path.write_text(json.dumps(value))
    outcomes = []
    # a bare string would be taken for a path
    for source in (path, [value] if isinstance(value, str) else value):
        try:
            load_roi(source)
            outcomes.append("read")
        except SlideError as error:
            outcomes.append(error.code)
    assert set(outcomes) in ({"read"}, {"ROI_INVALID"})


def test_many_vertices_are_quick(tmp_path: Path):
    angle = np.linspace(0, 2 * np.pi, 200_000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * 1e4
    ring[-1] = ring[0]
    path = tmp_path / "circle.geojson"
    path.write_text(json.dumps(polygon(ring.tolist())))
    begin = time.perf_counter()
    assert len(load_roi(path)[0][1][0]) == 199_999
    assert time.perf_counter() - begin < 20


def test_import_leaves_shapely_alone():
    code = "import sys, her2fast.roi; sys.exit('shapely' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_examples():
    assert doctest.testmod(roi_module).failed == 0
