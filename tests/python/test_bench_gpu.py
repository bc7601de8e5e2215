# SPDX-License-Identifier: Apache-2.0
"""Every line of bench/gpu that measures, on the CPU: no GPU tells when one breaks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the whole-slide part needs torch")
pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from cuda_memory import build_fake_nvjpeg
from jpeg_tiles import FakeNvjpeg

from her2fast import _core, decoding
from her2fast.models.package import load_package

FOLDER = Path(__file__).resolve().parents[2] / "bench/gpu"


@pytest.fixture
def bench(library_on_host: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/gpu/run.py, with the CUDA library built for the CPU."""
    if not FOLDER.is_dir():
        pytest.skip("the benches are not part of an sdist")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("bench_gpu_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _core.cuda.set_library(library_on_host)
    yield module
    _core.cuda.set_library("")


def test_kernels_and_decoding_are_compared_with_the_cpu(
    bench: Any, tmp_path: Path
) -> None:
    nvjpeg = str(build_fake_nvjpeg(tmp_path))
    found = bench.run_kernels(real=False, nvjpeg=nvjpeg)
    assert set(found["goal"]["met"]) < set(found["kernels"])
    backends = found["jpeg_decode"]["backends"]
    # The stand-in is the reader's own libjpeg-turbo.
    assert {name: row["met"] for name, row in backends.items()} == {
        "engine": True,
        "kernels": True,
    }
    assert all(
        kind["largest"] == 0
        for row in backends.values()
        for kind in row["pixels"].values()
    )


def test_a_slide_through_the_rings_has_the_cpus_areas(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sys.modules[bench.end_to_end.__module__]
    # Networks of full size take most of a minute and the same way.
    shipped = {"constrained-tiny": load_package(None)}
    monkeypatch.setattr(whole, "packages", lambda work, sample: shipped)
    fake = FakeNvjpeg(build_fake_nvjpeg(tmp_path))
    fake.reset()
    monkeypatch.setattr(decoding, "NVJPEG_LIBRARY", fake.path)
    found = bench.end_to_end(tmp_path, real=False)
    assert found == {
        "areas_apart_percent": {"constrained-tiny": 0.0},
        "by_nvjpeg": 0.0,
    }
    assert fake.seen("nvjpegDecodeBatched") > 0
