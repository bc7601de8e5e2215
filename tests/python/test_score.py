# SPDX-License-Identifier: Apache-2.0
"""Scoring in this process: results, records, equal bytes, deciding again."""

from __future__ import annotations

import json
import os
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import packages
import pytest
import slides
import torch

import her2fast
from her2fast import _core, opened_slide
from her2fast.errors import DeviceError, SlideError, UsageError
from her2fast.models.package import MethodPackage, load_package
from her2fast.opened_slide import open_input
from her2fast.record import failed_record, unmeasured
from her2fast.scoring import Result, Scorer


def schema(name: str) -> Any:
    text = resources.files("her2fast").joinpath(f"data/schemas/{name}.json").read_text()
    return json.loads(text)


def check_record(result: Result) -> None:
    """Against the shipped schema, and the one rule above all."""
    record = json.loads(result.to_json())
    jsonschema.validate(record, schema("result"))
    assert record["status"] == "scored" or record["score"] is None


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> MethodPackage:
    return load_package(packages.write_method(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slides.write_slide(tmp_path_factory.mktemp("s") / "bands.svs")


def score(slide: Path, package: MethodPackage, **options: Any) -> Result:
    result = her2fast.score(slide, model=package, allow_unknown_model=True, **options)
    check_record(result)
    return result


@pytest.fixture(scope="module")
def scored(slide: Path, package: MethodPackage) -> Result:
    return score(slide, package)


def test_a_painted_slide(scored: Result) -> None:
    assert (scored.status, scored.code, scored.message) == ("scored", None, "")
    assert scored.score == "3+"
    assert sum(scored.fractions.values()) == pytest.approx(1, abs=1e-8)
    # Four bands of 3.5 patches each: the patch on a border goes to either side.
    for fraction in scored.fractions.values():
        assert fraction == pytest.approx(0.25, abs=0.04)
    class_map = scored.class_map
    assert class_map.shape == (16, 16)
    assert set(np.unique(class_map)) == {0, 1, 2, 3, 255}
    inner = class_map[1:15, 1:15]
    assert (np.diff(inner.astype(int), axis=1) >= 0).all()  # bands from left to right
    record = scored.record
    assert record["tumor_mm2"] == pytest.approx(0.896 * 0.896, abs=0.001)
    assert record["tiles"] == {
        "total": 16,
        "read": 16,
        "missing": 0,
        "corrupt": 0,
        "warned": 0,
    }
    assert record["models"][0]["known"] is False
    assert record["slide"]["name"] == "bands.svs"
    assert record["slide"]["spacing_um"] == [1.0, 1.0]
    assert "synthetic" in record["intended_use"]


def test_areas_by_hand(scored: Result) -> None:
    """class_px adds up the tumor of the kept patches of the map."""
    assert scored.measurement is not None
    core = scored.measurement.core
    mask = core.tumor_mask(0, 0, 1024, 1024)
    per_patch = mask.reshape(16, 64, 16, 64).sum((1, 3))
    kept = per_patch * 10 > 64 * 64
    want = [int(per_patch[kept & (scored.class_map == c)].sum()) for c in range(4)]
    assert scored.record["class_px"] == want
    np.testing.assert_array_equal(kept, scored.class_map != 255)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 1},
        {"workers": 5},
        {"batch_size": 1},
        {"batch_size": 4096},
    ],
)
def test_equal_bytes(
    slide: Path, package: MethodPackage, scored: Result, options: Any
) -> None:
    other = score(slide, package, **options)
    assert other.to_json() == scored.to_json()
    assert scored.measurement is not None
    assert other.measurement is not None
    assert other.measurement.to_bytes() == scored.measurement.to_bytes()


def test_what_changes_a_key(slide: Path, package: MethodPackage) -> None:
    def keys(mpp: float | None = None, reading: str = "scaled", model: Any = package):
        opened = open_input(slide, mpp)
        return Scorer(model, reading=reading).provenance(opened).measurement_key

    assert keys() == keys()
    readings = {keys(reading=mode) for mode in ("exact", "level0")}
    assert len({keys(), keys(0.999)} | readings) == 4


# --- deciding again ------------------------------------------------------------------


def square(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {"type": "Polygon", "coordinates": [ring]}


@pytest.fixture
def roi_file(tmp_path: Path) -> Path:
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps(square(0, 0, 500, 1024)))
    return path


def test_rescore_gives_the_bytes_of_a_full_run(
    slide: Path, package: MethodPackage, scored: Result, roi_file: Path
) -> None:
    full = score(slide, package, roi=roi_file, guideline="gastric-2016")
    again = her2fast.rescore(scored.measurement, roi=roi_file, guideline="gastric-2016")
    assert isinstance(again, Result)
    assert again.to_json() == full.to_json()
    assert again.score == "1+"  # only the two pale bands are inside
    assert again.record["decision_key"] != scored.record["decision_key"]
    assert again.record["measurement_key"] == scored.record["measurement_key"]
    assert (again.class_map[:, 8:] == 255).all()


def test_settings_of_a_decision(scored: Result, roi_file: Path) -> None:
    measurement = scored.measurement
    assert measurement is not None
    keys = {
        her2fast.decide(measurement, **options).record["decision_key"]
        for options in (
            {},
            {"ish": "positive"},
            {"guideline": "pham-2022"},
            {"guideline": "none"},
            {"roi": roi_file},
        )
    }
    assert len(keys) == 5
    areas = her2fast.decide(measurement, guideline="none")
    check_record(areas)
    assert (areas.status, areas.score) == ("scored", None)
    with pytest.raises(UsageError, match="need a guideline of asco-cap-2018"):
        her2fast.decide(measurement, guideline="asco-cap-1999")
    with pytest.raises(UsageError, match="ish"):
        her2fast.decide(measurement, ish="maybe")


def test_roi_outside_and_missing(
    slide: Path, package: MethodPackage, scored: Result, tmp_path: Path
) -> None:
    far = tmp_path / "far.geojson"
    far.write_text(json.dumps(square(5000, 5000, 6000, 6000)))
    for result in (
        score(slide, package, roi=far),
        her2fast.decide(scored.measurement, roi=far),
    ):
        assert (result.status, result.code) == ("refused", "ROI_OUTSIDE")
        assert result.score is None
    gone = score(slide, package, roi=tmp_path / "gone.geojson")
    assert (gone.status, gone.code) == ("failed", "NOT_FOUND")


def test_an_empty_roi_is_never_zero(scored: Result, tmp_path: Path) -> None:
    corner = tmp_path / "corner.geojson"
    corner.write_text(json.dumps(square(0, 0, 40, 40)))
    result = her2fast.decide(scored.measurement, roi=corner)
    check_record(result)
    assert result.status == "indeterminate"
    assert result.score is None


# --- packages of other kinds ---------------------------------------------------------


def test_a_bare_wsinfer_package(slide: Path, tmp_path: Path) -> None:
    model = packages.BrownClassifier(3)
    folder = packages.write_model(
        tmp_path / "wsinfer", model, num_classes=3, class_names=["Other", "A b", "C"]
    )
    result = her2fast.score(slide, model=folder, allow_unknown_model=True)
    check_record(result)
    assert (result.status, result.score) == ("scored", None)
    assert list(result.fractions) == ["Other", "A b", "C"]
    assert result.record["guideline"] is None
    refused = her2fast.score(slide, model=folder)
    assert (refused.status, refused.code) == ("refused", "MODEL_HASH")
    override = her2fast.score(
        slide, model=folder, allow_unknown_model=True, guideline="asco-cap-2018"
    )
    assert (override.status, override.code) == ("refused", "MODEL_CLASSES")
    assert override.score is None


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (packages.Returns([5]), "MODEL_CLASSES"),
        (packages.Returns([4, 2]), "MODEL_SHAPE"),
        (packages.Returns([4], float("nan")), "NON_FINITE"),
        (packages.Returns([4], float("inf")), "NON_FINITE"),
    ],
)
def test_a_model_that_misbehaves(
    slide: Path, tmp_path: Path, model: torch.nn.Module, code: str
) -> None:
    folder = packages.write_method(tmp_path / "m")
    packages.write_model(folder / "classifier", model, keys={})
    threads = threading.active_count()
    result = score(slide, load_package(folder))
    assert result.code == code
    assert result.score is None
    assert threading.active_count() == threads


class Breaks(torch.nn.Module):
    """Raises from inside the model."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 0:
            raise RuntimeError("the model broke")
        return x


def test_a_model_that_raises(slide: Path, tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m")
    packages.write_model(folder / "classifier", Breaks(), keys={})
    result = score(slide, load_package(folder))
    assert result.code == "MODEL_SHAPE"
    assert "the model broke" in result.message


def test_an_error_in_a_thread_ends_the_call(
    slide: Path, package: MethodPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from her2fast.models import runner

    def broken(*_: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr(runner.TorchScriptRunner, "run", broken)
    result = score(slide, package)
    assert (result.status, result.code) == ("failed", "CRASH")
    assert "ValueError: a bug" in result.message


def test_an_interrupt_leaves_no_thread(slide: Path, package: MethodPackage) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        score(slide, package, on_progress=stop)
    assert threading.active_count() == threads


def test_input_that_changes(
    slide: Path,
    package: MethodPackage,
    tmp_path: Path,
) -> None:
    path = slides.write_slide(tmp_path / "a.svs")
    scorer = Scorer(package)
    opened = open_input(path)
    slides.write_slide(path, slides.paint(seed=1))
    with pytest.raises(SlideError) as caught:
        scorer.measure(opened)
    assert caught.value.code == "INPUT_CHANGED"


def test_input_that_changes_where_the_fingerprint_does_not_look(
    package: MethodPackage, tmp_path: Path
) -> None:
    path = slides.write_slide(tmp_path / "a.svs")
    opened = open_input(path)
    later_ns = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later_ns, later_ns))  # a large file's blocks between the samples
    with pytest.raises(SlideError) as caught:
        Scorer(package).measure(opened)
    assert caught.value.code == "INPUT_CHANGED"


def test_a_slide_with_bounds_warns_of_its_two_frames(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_input(slide).warnings == ()

    class Bounded:
        """The core's slide, with what OpenSlide says of a MIRAX file."""

        def __init__(self, path: Path) -> None:
            self._core = _core.Slide.open(path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._core, name)

        @property
        def properties(self) -> dict[str, str]:
            return {"openslide.bounds-x": "20480", "openslide.bounds-y": "512"}

    monkeypatch.setattr(opened_slide, "open_core", Bounded)
    monkeypatch.setattr(
        opened_slide._core,
        "resolve_frame",
        lambda core, mpp: ((1.0, 1.0), "vendor", None),
    )
    (warning,) = open_input(slide).warnings
    assert "(20480, 512)" in warning
    assert "QuPath" in warning


# --- slides that cannot be scored -----------------------------------------------------


def test_missing_slide_and_no_path_in_the_record(
    package: MethodPackage, tmp_path: Path
) -> None:
    result = score(tmp_path / "gone.svs", package)
    assert (result.status, result.code) == ("failed", "NOT_FOUND")
    assert str(tmp_path) not in result.to_json()
    assert "gone.svs" in result.message
    odd = score(Path(os.fsdecode(bytes(tmp_path) + b"/\xff.svs")), package)
    assert odd.code == "NOT_FOUND"
    assert str(tmp_path) not in odd.to_json()
    assert "\\xff.svs" in odd.message
    folder = score(tmp_path, package)
    assert folder.status in ("failed", "refused")


def test_mpp_wins_and_warns(slide: Path, package: MethodPackage) -> None:
    result = score(slide, package, mpp=0.5)
    assert result.record["slide"]["spacing_source"] == "user"
    assert result.record["slide"]["spacing_um"] == [0.5, 0.5]
    assert len(result.record["warnings"]) == 1
    coarse = score(slide, package, mpp=1.9)
    assert (coarse.status, coarse.code) == ("refused", "NO_LEVEL")


def test_wrong_calls(slide: Path, package: MethodPackage) -> None:
    with pytest.raises(UsageError):
        her2fast.score(slide, model="no-such-package")
    with pytest.raises(UsageError):
        her2fast.score(slide, model=package, reading="sharp", allow_unknown_model=True)
    with pytest.raises(UsageError):
        her2fast.score(slide, model=package, workers=0, allow_unknown_model=True)
    with pytest.raises(DeviceError):
        her2fast.score(slide, model=package, device="gpu")


@pytest.mark.parametrize("code", sorted(_core.REASON_CODES))
def test_every_code_has_its_status(code: tuple[str, str]) -> None:
    name, status = code
    source = unmeasured({**open_fields(), "name": "a.svs"})
    result = Result(failed_record(source, SlideError("why", name)))
    check_record(result)
    assert (result.status, result.code, result.score) == (status, name, None)


def open_fields() -> dict[str, Any]:
    from her2fast.record import empty_slide

    return empty_slide()


def test_the_schema_refuses_a_score_without_scored(scored: Result) -> None:
    record = json.loads(scored.to_json())
    for change in (
        {"status": "indeterminate", "code": "NO_TUMOR"},
        {"code": "NO_TUMOR"},
        {"status": "failed", "code": "WRONG_STAIN", "score": None, "guideline": None},
        {"score": "4+"},
        {"unheard": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**record, **change}, schema("result"))
