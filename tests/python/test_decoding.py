# SPDX-License-Identifier: Apache-2.0
"""Slides whose tiles a GPU decodes: measured as by full decoding, named in the record.

The CUDA library and nvJPEG are stand-ins on the CPU (tests/cuda_on_host,
tests/fake_nvjpeg), whose pixels are libjpeg-turbo's; with a GPU the tests marked
`needs_cuda` run by NVIDIA's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jsonschema
import packages
import pytest
import slides
from conftest import missing_cuda, without
from cuda_memory import build_fake_nvjpeg
from jpeg_tiles import FakeNvjpeg

import her2fast
from her2fast import _core, decoding
from her2fast.cli import run
from her2fast.errors import DeviceError, UsageError
from her2fast.kernels.jpeg import JpegDecoder
from her2fast.models.package import MethodPackage, load_package
from her2fast.run import RunOptions


@pytest.fixture(scope="module")
def nvjpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_nvjpeg(tmp_path_factory.mktemp("nvjpeg"))


@pytest.fixture
def fake(
    nvjpeg: Path, library_on_host: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeNvjpeg]:
    """Stand-ins for a GPU and nvJPEG."""
    _core.cuda.set_library(library_on_host)
    monkeypatch.setattr(decoding, "NVJPEG_LIBRARY", str(nvjpeg))
    stand_in = FakeNvjpeg(nvjpeg)
    stand_in.reset()
    yield stand_in
    _core.cuda.set_library("")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> MethodPackage:
    return load_package(packages.write_method(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return slides.write_slide(tmp_path / "bands.svs", slides.paint((1500, 1100)), 0.5)


def scored(slide: Path, package: MethodPackage, **how: object) -> her2fast.Result:
    return her2fast.score(slide, model=package, allow_unknown_model=True, **how)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_score_is_that_of_full_decoding_and_says_who_decoded(
    fake: FakeNvjpeg, slide: Path, package: MethodPackage, workers: int
) -> None:
    want = scored(slide, package, reading="exact")
    got = scored(slide, package, decoder="nvjpeg", workers=workers)
    assert got.record["class_px"] == want.record["class_px"]
    assert got.record["score"] == want.record["score"]
    assert got.record["device"]["decoder"] == "nvjpeg 13.0.1, engine"
    assert "decoder" not in want.record["device"]
    assert got.record["measurement_key"] != want.record["measurement_key"]
    schema = resources.files("her2fast").joinpath("data/schemas/result.json")
    jsonschema.validate(got.record, json.loads(schema.read_text("utf-8")))
    assert fake.seen("nvjpegDecodeBatched") > 0
    assert fake.seen("alive") == 0  # nothing of it is left


def test_other_pixels_give_another_measurement(
    fake: FakeNvjpeg, slide: Path, package: MethodPackage
) -> None:
    """What nvJPEG says is what is measured, not the CPU's pixels."""
    plain = scored(slide, package, decoder="nvjpeg").measurement
    fake.set("shift", 9)
    moved = scored(slide, package, decoder="nvjpeg").measurement
    assert plain is not None
    assert moved is not None
    assert plain.core.to_bytes() != moved.core.to_bytes()


def test_a_damaged_tile_is_what_the_cpu_says(
    fake: FakeNvjpeg, slide: Path, package: MethodPackage
) -> None:
    data = bytearray(slide.read_bytes())
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    data[scans[2] : scans[2] + 4] = b"\x41\x41\x41\x41"
    slide.write_bytes(data)
    want = scored(slide, package, reading="exact").record
    got = scored(slide, package, decoder="nvjpeg").record
    assert want["tiles"]["corrupt"] > 0
    for key in ("tiles", "class_px", "status", "code"):
        assert got[key] == want[key]
    assert got["warnings"] == [
        "nvJPEG does not take all of the tiles; the CPU decoded the others"
    ]


def test_a_slide_that_it_decodes_nothing_of_says_so(
    fake: FakeNvjpeg, slide: Path, package: MethodPackage
) -> None:
    fake.set("refused", 1)
    want = scored(slide, package, reading="exact").record
    got = scored(slide, package, decoder="nvjpeg").record
    assert got["class_px"] == want["class_px"]
    assert got["warnings"] == ["nvJPEG decoded none of the tiles; the CPU did"]


@pytest.mark.parametrize(
    ("function", "at", "status", "code"),
    [
        ("nvjpegDecodeBatched", 1, 5, "GPU_OOM"),
        ("nvjpegDecodeBatched", 1, 6, "GPU_LOST"),
        ("nvjpegDecodeBatched", 1, 7, "GPU_LOST"),
        # The first was made to see whether there is one, with no slide yet.
        ("nvjpegCreateEx", 2, 6, "GPU_LOST"),
        ("nvjpegJpegStateCreate", 3, 5, "GPU_OOM"),
    ],
)
def test_a_fault_ends_the_slide_with_its_code(
    fake: FakeNvjpeg,
    slide: Path,
    package: MethodPackage,
    function: str,
    at: int,
    status: int,
    code: str,
) -> None:
    fake.fail(function, status, at)
    record = scored(slide, package, decoder="nvjpeg").record
    assert (record["status"], record["code"]) == ("failed", code)
    assert scored(slide, package, decoder="nvjpeg").status != "failed"


def test_a_run_is_told_who_decodes(
    fake: FakeNvjpeg,
    slide: Path,
    tmp_path: Path,
    package: MethodPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slides of a run are scored by another process, which opens what it is told."""
    told: list[RunOptions] = []

    def take(options: RunOptions, *_: object, **__: object) -> None:
        told.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("her2fast.run.run", take)
    call = ["score", str(slide), "-o", str(tmp_path / "out"), "--allow-unknown-model"]
    call += ["--model", str(package.folder)]
    assert [run(call), run([*call, "--decoder", "nvjpeg"])] == [130, 130]
    devices = [o.open_scorer(package, known=False).decoder.to_record({}) for o in told]
    assert devices == [{}, {"decoder": "nvjpeg 13.0.1, engine"}]


def test_without_one_nothing_begins(
    slide: Path, tmp_path: Path, package: MethodPackage
) -> None:
    if not missing_cuda():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="the decoder cpu needs none"):
        scored(slide, package, decoder="nvjpeg")
    out = tmp_path / "out"
    call = ["score", str(slide), "-o", str(out), "--decoder", "nvjpeg"]
    assert run(call) == 64
    assert not (out / "results").exists()
    with pytest.raises(UsageError, match="need a decoder of"):
        scored(slide, package, decoder="abacus")


def test_a_missing_library_is_named(
    library_on_host: str, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "NVJPEG_LIBRARY", str(tmp_path / "libnone.so"))
    _core.cuda.set_library(library_on_host)
    try:
        with pytest.raises(DeviceError, match=r"libnone\.so"):
            decoding.open_decoder("nvjpeg", "cpu")
        with pytest.raises(ValueError, match="need backend"):
            _core.cuda.NvjpegDecoders(0, "", "abacus")
    finally:
        _core.cuda.set_library("")


@pytest.mark.needs_cuda
def test_a_gpu_gives_the_score_of_the_cpu(
    tmp_path: Path, package: MethodPackage
) -> None:
    """The near pixels of NVIDIA's decoder: the same score, areas within a point.

    Batches depend on how threads meet; what is measured must not.
    """
    try:
        JpegDecoder()
    except DeviceError as error:
        without(str(error))
    slide = slides.write_slide(tmp_path / "l.svs", slides.paint((4000, 4000)), 0.5)
    want = scored(slide, package, reading="exact").record
    results = [scored(slide, package, decoder="nvjpeg", workers=n) for n in (1, 4, 16)]
    got = results[0].record
    assert got["device"]["decoder"].startswith("nvjpeg ")
    assert got["warnings"] == []
    assert got["score"] == want["score"]
    measured = [r.measurement.core.to_bytes() for r in results if r.measurement]
    assert len(measured) == 3
    assert measured[1:] == measured[:2]
    total = sum(want["class_px"])
    moved = [abs(a - b) for a, b in zip(got["class_px"], want["class_px"], strict=True)]
    assert max(moved) <= 0.01 * total
