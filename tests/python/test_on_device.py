# SPDX-License-Identifier: Apache-2.0
"""Sessions whose batches go through a ring: the bytes of the CPU, and what fails.

The CUDA library is built for the CPU (tests/cuda_on_host), and torch runs there on the
ring's memory; the same on a GPU is marked `needs_cuda`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import packages
import pytest
import slides
import torch
from conftest import without
from host_place import HostPlace, ringed

import her2fast
from her2fast import _core, measure
from her2fast.cli import run
from her2fast.errors import DeviceError, SlideError
from her2fast.measure import Models, run_session
from her2fast.methods.patches import patch_session
from her2fast.models.on_device import MOST_THREADS, DeviceModels, pipeline_of
from her2fast.models.package import MethodPackage, load_package
from her2fast.models.runner import one_intra_op_thread
from her2fast.opened_slide import open_input


@pytest.fixture
def on_host(library_on_host: str) -> Iterator[None]:
    _core.cuda.set_library(library_on_host)
    yield
    _core.cuda.set_library("")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> MethodPackage:
    return load_package(packages.write_method(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return slides.write_slide(tmp_path / "bands.svs", slides.paint((500, 460)))


def measured(
    package: MethodPackage, models: Models, slide: Path, workers: int = 2
) -> bytes:
    opened = open_input(slide)
    session = patch_session(
        package,
        size_px=opened.size_px,
        slide_spacing_um=opened.spacing_um,
        memory=models.memory,
    )
    reader = opened.reader(workers=1, reading="scaled")
    return run_session(
        session, models, lambda s: s.read_from(reader), workers=workers
    ).to_bytes()


@pytest.mark.parametrize("segment", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_ring_gives_the_bytes_of_the_cpu(
    on_host: None, tmp_path: Path, slide: Path, segment: bool, workers: int
) -> None:
    package = load_package(packages.write_method(tmp_path / "m", segment=segment))
    want = measured(package, Models(package), slide)
    models = ringed(package)
    # The second time from the same rings and memory.
    assert measured(package, models, slide, workers) == want
    assert measured(package, models, slide, workers) == want


def test_the_shipped_networks_give_the_bytes_of_the_cpu(
    on_host: None, slide: Path
) -> None:
    package = load_package(None)
    assert package.segment is not None
    want = measured(package, Models(package), slide)
    assert measured(package, ringed(package), slide) == want


def test_scores_and_pushed_sessions_use_the_ring(
    on_host: None,
    package: MethodPackage,
    slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want = her2fast.score(slide, model=package, allow_unknown_model=True).record
    runs: list[bool] = []

    class Counting(DeviceModels):
        def run(self, session: _core.PatchSession, *, wait: bool) -> int:
            runs.append(wait)
            return super().run(session, wait=wait)

    monkeypatch.setattr(
        measure,
        "open_on_device",
        lambda models, runners, device: Counting(runners, 0, HostPlace()),
    )
    got = her2fast.score(
        slide, model=package, allow_unknown_model=True, workers=20
    ).record
    assert runs == [True] * MOST_THREADS
    assert got["class_px"] == want["class_px"]
    rgb = np.asarray(her2fast.open_slide(slide).read(0, 0, (500, 460), 1.0))
    padded = np.pad(rgb, ((256, 512), (256, 512), (0, 0)), constant_values=255)
    session = her2fast.Session(
        package,
        extent_px=(500, 460),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    while requests := session.wanted(5):
        for r in requests:
            x, y = r.x_px + 256, r.y_px + 256
            session.push(r.id, padded[y : y + r.height_px, x : x + r.width_px], "ok")
        session.run_models()
    record = her2fast.decide(session.finish()).record
    assert runs[MOST_THREADS:] == [False] * len(runs[MOST_THREADS:])
    assert len(runs) > MOST_THREADS
    assert record["class_px"] == want["class_px"]


def fail_at(models: Models, number: int, error: Exception, times: int = 1) -> None:
    """The classifier raises at its calls `number` and after, `times` in all."""
    runner: Any = models.runners[-1]
    logits, calls = runner.logits, []

    def failing(inputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(inputs))
        if number <= len(calls) < number + times:
            raise error
        out: torch.Tensor = logits(inputs)
        return out

    runner.logits = failing


OOM = torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_half_a_batch_where_memory_does_not_suffice(
    on_host: None, package: MethodPackage, slide: Path
) -> None:
    want = measured(package, Models(package), slide)
    place = HostPlace()
    models = ringed(package, place)
    fail_at(models, 2, OOM)
    assert measured(package, models, slide, 1) == want
    assert place.freed == 1
    models = ringed(package, place)
    fail_at(models, 2, OOM, times=2)
    with pytest.raises(SlideError, match="half a batch") as caught:
        measured(package, models, slide, 1)
    assert caught.value.code == "GPU_OOM"
    # The models serve the next slide.
    assert measured(package, models, slide, 1) == want


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA error: an illegal memory access"), "GPU_LOST"),
        (SlideError("another shape", "MODEL_SHAPE"), "MODEL_SHAPE"),
    ],
)
def test_what_a_model_raises_passes_through_the_ring(
    on_host: None, package: MethodPackage, slide: Path, error: Exception, code: str
) -> None:
    models = ringed(package)
    runner: Any = models.runners[-1]
    runner._device = "cuda:0"  # where CUDA's errors are its own
    fail_at(models, 2, error)
    with pytest.raises(SlideError) as caught:
        measured(package, models, slide)
    assert caught.value.code == code


def test_a_program_error_is_no_slide_error(
    on_host: None, package: MethodPackage, slide: Path
) -> None:
    models = ringed(package)
    fail_at(models, 1, ZeroDivisionError("by zero"))
    with pytest.raises(ZeroDivisionError):
        measured(package, models, slide)


def test_values_that_are_no_numbers(on_host: None, tmp_path: Path, slide: Path) -> None:
    for part, shape in (("classifier", [4]), ("segmenter", [1, 320, 320])):
        folder = packages.write_method(tmp_path / part)
        keys = {"task": "segment"} if part == "segmenter" else {}
        fields: dict[str, Any] = {"num_classes": 1, "class_names": ["tumor"]}
        packages.write_model(
            folder / part,
            packages.Returns(shape, float("nan")),
            keys=keys,
            **({**fields, "patch_size_pixels": 320} if keys else {}),
        )
        package = load_package(folder)
        with pytest.raises(SlideError, match="not finite") as caught:
            measured(package, ringed(package), slide)
        assert caught.value.code == "NON_FINITE"


def test_a_host_that_cancels(
    on_host: None, package: MethodPackage, slide: Path
) -> None:
    models = ringed(package)
    opened = open_input(slide)
    session = patch_session(
        package, size_px=opened.size_px, slide_spacing_um=opened.spacing_um
    )
    runner: Any = models.runners[-1]
    logits = runner.logits

    def cancelling(inputs: torch.Tensor) -> torch.Tensor:
        session.cancel()
        out: torch.Tensor = logits(inputs)
        return out

    runner.logits = cancelling
    reader = opened.reader(workers=1, reading="scaled")
    with pytest.raises(SlideError) as caught:
        run_session(session, models, lambda s: s.read_from(reader), workers=2)
    assert caught.value.code == "CANCELLED"


def test_what_moves_pixels_is_named(
    library_on_host: str, package: MethodPackage, tmp_path: Path
) -> None:
    models = package.models
    assert pipeline_of(models, "cpu") is None
    try:
        _core.cuda.set_library(library_on_host)
        assert pipeline_of(models, "cuda:0") == "her2fast_cuda"
        # Named, so it has to be there; and of this version.
        _core.cuda.set_library(str(tmp_path / "nothing.so"))
        with pytest.raises(DeviceError, match=r"nothing\.so"):
            pipeline_of(models, "cuda:0")
        _core.cuda.set_library(other_version(tmp_path))
        with pytest.raises(DeviceError, match="another version"):
            pipeline_of(models, "cuda:0")
        assert pipeline_of(models, "cpu") is None
    finally:
        _core.cuda.set_library("")
    if not Path(_core.__file__).with_name("libher2fast_cuda.so").exists():
        assert pipeline_of(models, "cuda:0") == "torch"


def other_version(folder: Path) -> str:
    """A library whose table is of version 0."""
    source, library = folder / "old.cpp", folder / "old.so"
    source.write_text(
        'extern "C" const void* her2_cuda_table() { static int t[64]; return t; }\n'
    )
    command = ["g++", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return str(library)


def test_without_a_gpu_a_run_ends_before_it_begins(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError) as caught:
        her2fast.score(slide, device="cuda")
    assert caught.value.code == "NO_DEVICE"
    out = tmp_path / "out"
    arguments = ["score", str(slide), "--device", "cuda:1", "-o", str(out)]
    assert run(arguments) == 64
    assert "use --device cpu" in capsys.readouterr().err
    assert not list(out.glob("**/result.json"))


def precisions() -> list[Any]:
    """What a host reads of cuDNN: the older setting, and from 2.9 on the newer ones."""
    cudnn: Any = torch.backends.cudnn
    parts = [getattr(cudnn, name, None) for name in ("conv", "rnn")]
    newer = [p.fp32_precision for p in parts if hasattr(p, "fp32_precision")]
    return [cudnn.allow_tf32, *newer]


@pytest.mark.parametrize("allowed", [True, False])
def test_convolutions_are_of_float32_within(allowed: bool) -> None:
    cudnn: Any = torch.backends.cudnn
    start = cudnn.allow_tf32
    cudnn.allow_tf32 = allowed
    try:
        before = precisions()
        with one_intra_op_thread():  # on the CPU nothing is touched
            assert precisions() == before
            with one_intra_op_thread("cuda:0"):
                assert precisions()[0] is False
                assert set(precisions()[1:]) <= {"ieee"}
                with one_intra_op_thread("cuda:1"):
                    pass
                assert precisions()[0] is False
            assert precisions() == before
        assert precisions() == before
    finally:
        cudnn.allow_tf32 = start


def test_a_host_that_mixes_precisions_has_them_back() -> None:
    cudnn: Any = torch.backends.cudnn
    if not hasattr(getattr(cudnn, "rnn", None), "fp32_precision"):
        pytest.skip("torch before 2.9 has one setting")
    start = cudnn.allow_tf32
    try:
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = "ieee", "tf32"
        with one_intra_op_thread("cuda:0"):
            assert cudnn.conv.fp32_precision == cudnn.rnn.fp32_precision == "ieee"
        assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.rnn.fp32_precision == "tf32"
    finally:
        cudnn.allow_tf32 = start


def test_a_run_on_a_gpu_asks_for_float32(
    on_host: None,
    package: MethodPackage,
    slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def asking(device: str = "cpu") -> Any:
        asked.append(device)
        return one_intra_op_thread(device)

    monkeypatch.setattr(measure, "one_intra_op_thread", asking)
    models = ringed(package)
    models.device = "cuda:0"
    measured(package, models, slide)
    assert asked == ["cuda:0"]


def test_memory_that_ends_within_torchscript_is_halved_by_the_ring(
    on_host: None, tmp_path: Path, slide: Path
) -> None:
    folder = packages.write_method(tmp_path / "m")
    want = measured(load_package(folder), Models(load_package(folder)), slide)
    inner = packages.BrownClassifier(4)
    batch = load_package(folder).classify.batch_size
    for most, code in ((batch // 2, None), (1, "GPU_OOM")):
        limited = packages.RunsOutOfMemory(inner, most)
        packages.write_model(folder / "classifier", limited)
        package = load_package(folder)
        place = HostPlace()
        models = ringed(package, place)
        runner: Any = models.runners[-1]
        runner._device = "cuda:0"
        if code is None:
            got = _core.Measurement.from_bytes(measured(package, models, slide, 1))
            a = _core.patch_outcomes(_core.Measurement.from_bytes(want))
            b = _core.patch_outcomes(got)
            np.testing.assert_array_equal(b["logits"], a["logits"])
        else:
            with pytest.raises(SlideError, match="half a batch") as caught:
                measured(package, models, slide, 1)
            assert caught.value.code == code
        assert place.freed == 1


def test_a_device_error_ends_a_pushed_session(
    on_host: None, package: MethodPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ringed(package)
    fail_at(models, 1, DeviceError("cuda:0: went away"))
    monkeypatch.setattr("her2fast.session.Models", lambda package, device: models)
    session = her2fast.Session(
        package,
        extent_px=(500, 460),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    stained = slides.paint()

    def feed() -> None:
        while requests := session.wanted(5):
            for r in requests:
                session.push(r.id, stained[: r.height_px, : r.width_px], "ok")
            session.run_models()
        session.finish()

    with pytest.raises(DeviceError, match="went away"):
        feed()
    with pytest.raises(SlideError, match="went away") as caught:
        session.finish()
    assert caught.value.code == "CRASH"


@pytest.mark.needs_cuda
def test_a_gpu_differs_by_roundings_and_repeats_itself(slide: Path) -> None:
    if not torch.cuda.is_available():
        without("torch has no CUDA")
    package = load_package(None)
    want = _core.Measurement.from_bytes(measured(package, Models(package), slide))
    models = Models(package, "cuda")
    assert models.on_device is not None, "the library was built, and torch sees a GPU"
    one = measured(package, models, slide, 1)
    # Same device, same shapes: same bytes, for any number of threads.
    assert measured(package, models, slide, 4) == one
    assert measured(package, Models(package, "cuda"), slide, 2) == one
    got = _core.Measurement.from_bytes(one)
    a, b = _core.patch_outcomes(want), _core.patch_outcomes(got)
    px = int(a["tumor_px"].sum())
    assert abs(px - int(b["tumor_px"].sum())) <= px * 1e-4
    both = a["kept"] & b["kept"]
    assert both.sum() >= 0.99 * max(a["kept"].sum(), b["kept"].sum())
    # Sums of some thousand products in another order: 1e-3 is far above, and far below
    # what separates two classes.
    np.testing.assert_allclose(
        b["logits"][both], a["logits"][both], rtol=1e-3, atol=1e-3
    )
