# SPDX-License-Identifier: Apache-2.0
"""Sessions that a host feeds with pixels: the same result, and what goes wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import packages
import pytest
import slides
import torch
from test_score import check_record

import her2fast
from her2fast.errors import ArrayError, SlideError
from her2fast.models.package import MethodPackage, load_package
from her2fast.models.runner import one_intra_op_thread


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> MethodPackage:
    return load_package(packages.write_method(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return slides.write_slide(tmp_path / "bands.svs")


def test_a_session_gives_what_a_slide_gives(
    package: MethodPackage, slide: Path
) -> None:
    scored = her2fast.score(slide, model=package, allow_unknown_model=True)
    rgb = np.asarray(her2fast.open_slide(slide).read(0, 0, (1024, 1024), 1.0))
    session = her2fast.Session(
        model=package,
        extent_px=(1024, 1024),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    padded = np.full((1024 + 512, 1024 + 512, 3), 255, np.uint8)
    padded[256:-256, 256:-256] = rgb
    count = 0
    while requests := session.wanted(5):
        for request in reversed(requests):
            x, y = request.x_px + 256, request.y_px + 256
            tile = padded[y : y + request.height_px, x : x + request.width_px]
            session.push(request.id, np.ascontiguousarray(tile), "ok")
            count += 1
        session.run_models()
    result = her2fast.decide(session.finish())
    check_record(result)
    assert count == 16
    assert result.record["class_px"] == scored.record["class_px"]
    assert result.record["reading_mode"] == "pushed"
    assert result.record["slide"]["name"] is None


def test_a_host_that_runs_the_models_itself_copies_nothing(
    package: MethodPackage, slide: Path
) -> None:
    scored = her2fast.score(slide, model=package, allow_unknown_model=True)
    rgb = np.asarray(her2fast.open_slide(slide).read(0, 0, (1024, 1024), 1.0))
    padded = torch.full((1024 + 512, 1024 + 512, 3), 255, dtype=torch.uint8)
    padded[256:-256, 256:-256] = torch.from_numpy(rgb.copy())
    session = her2fast.Session(
        model=package,
        extent_px=(1024, 1024),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripts = [torch.jit.load(model.file) for model in package.models]
    seen = set()
    with one_intra_op_thread():
        while requests := session.wanted(5):
            for request in requests:
                x, y = request.x_px + 256, request.y_px + 256
                part = padded[y : y + request.height_px, x : x + request.width_px]
                assert not part.is_contiguous()
                session.push(request.id, part)
            while (batch := session.next_batch()) is not None:
                pixels = torch.from_dlpack(batch)
                assert pixels.data_ptr() == batch.rgb.ctypes.data
                assert batch.__dlpack_device__() == (1, 0)
                assert not batch.rgb.flags.writeable
                planes = pixels.permute(0, 3, 1, 2).float() / 255
                with torch.no_grad():
                    logits = scripts[batch.model](planes)
                session.put(batch.id, logits)
                seen.add(batch.model)
    result = her2fast.decide(session.finish())
    assert seen == set(range(len(scripts)))
    assert result.record["class_px"] == scored.record["class_px"]


def test_put_says_what_it_needs(package: MethodPackage, slide: Path) -> None:
    session = her2fast.Session(
        model=package,
        extent_px=(1024, 1024),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    while requests := session.wanted(16):
        for request in requests:
            stained = slides.paint()[: request.height_px, : request.width_px]
            session.push(request.id, stained)
    batch = session.next_batch()
    assert batch is not None
    with pytest.raises(ArrayError, match="need output as an array of float32") as told:
        session.put(batch.id, torch.zeros(3, dtype=torch.float64))
    assert told.value.code == "ARRAY_DTYPE"
    with pytest.raises(ArrayError, match="detach"):
        session.put(batch.id, torch.zeros(3, requires_grad=True))
    with pytest.raises(SlideError, match="outputs, got 3 in all") as caught:
        session.put(batch.id, torch.zeros(3))
    assert caught.value.code == "MODEL_SHAPE"


def test_what_stays_unanswered_is_missing(package: MethodPackage) -> None:
    session = her2fast.Session(
        model=package,
        extent_px=(1024, 1024),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    session.wanted(3)
    result = her2fast.decide(session.finish())
    assert (result.status, result.code) == ("indeterminate", "MISSING_TILES")
    check_record(result)


def test_a_session_that_ends_with_half_filled_batches(
    slide: Path, package: MethodPackage
) -> None:
    session = her2fast.Session(
        model=package,
        extent_px=(1024, 1024),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    stained = slides.paint()[:320, :320]
    for request in session.wanted(3):
        assert stained.shape[:2] == (request.height_px, request.width_px)
        session.push(request.id, stained, "ok")
    result = her2fast.decide(session.finish())
    assert (result.status, result.code) == ("indeterminate", "MISSING_TILES")
    assert result.record["tiles"]["read"] == 3
    assert result.record["tumor_mm2"] > 0


def test_an_extent_beyond_any_slide(package: MethodPackage) -> None:
    with pytest.raises(SlideError, match="need at most 10000000 tiles") as caught:
        her2fast.Session(
            model=package,
            extent_px=(1 << 26, 1 << 26),
            level0_spacing_um=(2.0, 2.0),
            allow_unknown_model=True,
        )
    assert caught.value.code == "LIMIT_EXCEEDED"


def test_push_says_what_it_needs(package: MethodPackage) -> None:
    session = her2fast.Session(
        model=package,
        extent_px=(256, 256),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    (request,) = session.wanted(8)
    with pytest.raises(TypeError, match="need rgb as an array of uint8, got float64"):
        session.push(request.id, np.zeros((320, 320, 3)), "ok")
    with pytest.raises(ValueError, match="need 320 x 320 x 3 pixels"):
        session.push(request.id, np.zeros((64, 64, 3), np.uint8), "ok")


def test_a_cancelled_session(package: MethodPackage) -> None:
    session = her2fast.Session(
        model=package,
        extent_px=(512, 512),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    session.cancel()
    with pytest.raises(SlideError) as caught:
        session.finish()
    assert caught.value.code == "CANCELLED"
