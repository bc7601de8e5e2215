# SPDX-License-Identifier: Apache-2.0
"""The runner: what a model gives, and what it says where it cannot."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import packages
import pytest
import torch

from her2fast.errors import DeviceError, SlideError
from her2fast.models import runner as runner_module
from her2fast.models.describe import check_lines
from her2fast.models.package import load_package
from her2fast.models.runner import (
    TorchScriptRunner,
    check_device,
    one_intra_op_thread,
    use_one_thread,
)


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))


def random_batch(batch: int = 32, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (batch, side, side, 3), np.uint8)


def test_outputs_equal_the_plain_loop(tmp_path: Path) -> None:
    transform = [{"name": "ToTensor"}, packages.NORMALIZE]
    model = packages.BrownClassifier(4)
    folder = packages.write_model(tmp_path / "m", model, transform=transform)
    rgb = random_batch()
    got = TorchScriptRunner(load_package(folder).classify).run(rgb)
    x = torch.from_numpy(rgb.copy()).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        want = model((x - 0.5) / 0.5).numpy()
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)  # other memory layout


def test_read_only_pixels_and_threads_give_equal_bits(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    runner = TorchScriptRunner(load_package(folder).classify)
    rgb = random_batch()
    rgb.setflags(write=False)
    results: list[np.ndarray] = []

    def work() -> None:
        use_one_thread()
        results.extend(runner.run(rgb) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with one_intra_op_thread():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 20
    assert len({result.tobytes() for result in results}) == 1


def test_host_threads_come_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_intra_op_thread():
        with one_intra_op_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def on_fake_gpu(runner: TorchScriptRunner) -> TorchScriptRunner:
    """Named a GPU, whose inputs stay where they are."""
    runner._device = "cuda:0"
    stage = runner._stage

    def on_host(rgb: np.ndarray) -> torch.Tensor:
        runner._device = "cpu"
        try:
            return stage(rgb)
        finally:
            runner._device = "cuda:0"

    runner._stage = on_host  # type: ignore[method-assign]
    return runner


def test_memory_that_ends_within_torchscript_is_halved(tmp_path: Path) -> None:
    model = packages.BrownClassifier(4)
    rgb = random_batch()
    plain = packages.write_model(tmp_path / "plain", model)
    want = TorchScriptRunner(load_package(plain).classify).run(rgb)
    for most in (len(rgb) // 2, 1):
        limited = packages.RunsOutOfMemory(model, most)
        folder = packages.write_model(tmp_path / str(most), limited)
        package = load_package(folder).classify
        runner = on_fake_gpu(TorchScriptRunner(package))
        if most > 1:
            np.testing.assert_array_equal(runner.run(rgb), want)
            continue
        with pytest.raises(SlideError, match="half a batch") as caught:
            runner.run(rgb)
        assert caught.value.code == "GPU_OOM"
        # Those words from the CPU are the model's own.
        with pytest.raises(SlideError, match="does not take") as caught:
            TorchScriptRunner(package).run(rgb)
        assert caught.value.code == "MODEL_SHAPE"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CUDA error: out of memory", "GPU_OOM"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "GPU_OOM"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "GPU_OOM"),
        ("CUDA error: an illegal memory access was encountered", "GPU_LOST"),
        ("PytorchStreamReader failed reading zip archive", "MODEL_SHAPE"),
    ],
)
def test_what_a_gpu_says_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(f"first line\n{text}")

    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    package = load_package(folder).classify
    runner = on_fake_gpu(TorchScriptRunner(package))
    runner._module = fails
    with pytest.raises(SlideError) as caught:
        runner.run(random_batch())
    assert caught.value.code == code
    monkeypatch.setattr(torch.jit, "load", fails)
    with pytest.raises(SlideError, match=r"cuda:0|not a TorchScript file") as caught:
        TorchScriptRunner(package, "cuda:0")
    assert caught.value.code == code


def test_torchscript_fuses_nothing_on_a_gpu(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    runner = TorchScriptRunner(load_package(folder).classify)
    module, seen = runner._module, []

    def watched(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(torch._C._get_graph_executor_optimize())
        out: torch.Tensor = module(inputs)
        return out

    runner._module = watched
    want = runner.run(random_batch())
    assert seen == [True]
    on_fake_gpu(runner)
    for _ in range(3):
        np.testing.assert_array_equal(runner.run(random_batch()), want)
    assert seen == [True, False, False, False]
    assert torch._C._get_graph_executor_optimize()


def test_probabilities_become_logits(tmp_path: Path) -> None:
    model = packages.Returns([4], 0.25)
    keys = {"activation": "none"}
    folder = packages.write_model(tmp_path / "m", model, keys=keys)
    got = TorchScriptRunner(load_package(folder).classify).run(random_batch())
    np.testing.assert_allclose(got, np.log(0.25), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "code"),
    [([3], "MODEL_CLASSES"), ([4, 1], "MODEL_SHAPE"), ([], "MODEL_SHAPE")],
)
def test_classifier_of_another_shape(
    tmp_path: Path, shape: list[int], code: str
) -> None:
    folder = packages.write_model(tmp_path / "m", packages.Returns(shape))
    runner = TorchScriptRunner(load_package(folder).classify)
    with pytest.raises(SlideError, match="need outputs of shape") as caught:
        runner.run(random_batch())
    assert caught.value.code == code


def test_segmenter_of_another_shape(tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m")
    package = load_package(folder)
    assert package.segment is not None
    rgb = random_batch(8, 320)
    assert TorchScriptRunner(package.segment).run(rgb).shape == (8, 320 * 320)
    packages.write_model(
        folder / "segmenter",
        packages.Returns([1, 160, 160]),
        keys={"task": "segment"},
        num_classes=1,
        class_names=["tumor"],
        patch_size_pixels=320,
    )
    package = load_package(folder)
    assert package.segment is not None
    with pytest.raises(SlideError) as caught:
        TorchScriptRunner(package.segment).run(rgb)
    assert caught.value.code == "MODEL_SHAPE"


def test_a_model_that_takes_another_input(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", torch.nn.Linear(5, 4))
    runner = TorchScriptRunner(load_package(folder).classify)
    with pytest.raises(SlideError, match="does not take float32") as caught:
        runner.run(random_batch())
    assert caught.value.code == "MODEL_SHAPE"


def test_a_file_that_is_no_torchscript(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    (folder / "torchscript_model.pt").write_bytes(b"not a model")
    with pytest.raises(SlideError, match="is not a TorchScript file") as caught:
        TorchScriptRunner(load_package(folder).classify)
    assert caught.value.code == "MODEL_SHAPE"


def test_check_finds_a_model_with_random_parts(tmp_path: Path) -> None:
    class Random(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rand([x.shape[0], 4])

    folder = packages.write_model(tmp_path / "m", Random())
    with pytest.raises(SlideError, match="without random parts"):
        list(check_lines(load_package(folder), "cpu"))
    good = packages.write_method(tmp_path / "good")
    assert list(check_lines(load_package(good), "cpu"))[-1] == "test-method: good"


def test_a_device_is_a_promise() -> None:
    assert check_device("cpu") == "cpu"
    for name in ("gpu", "cuda:x", "cpu:0", ""):
        with pytest.raises(DeviceError):
            check_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="use --device cpu"):
            check_device("cuda")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), "GPU_LOST"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "GPU_OOM"),
    ],
)
def test_a_gpu_that_fails_outside_the_model(
    tmp_path: Path, error: Exception, code: str
) -> None:
    """CUDA tells of a fault at a later call, and pixels need memory, too."""
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    runner = TorchScriptRunner(load_package(folder).classify)

    def fail(*_: object) -> None:
        raise error

    runner._device = "cuda:0"
    runner._stage = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(SlideError) as caught:
        runner.run(random_batch())
    assert caught.value.code == code


def test_a_gpu_without_memory_says_the_same_in_both_languages() -> None:
    """libher2fast_torch knows it by the words that the Python runner knows it by."""
    header = Path(__file__).parents[2] / "csrc/models/torch/gpu_memory.h"
    text = header.read_text()
    table = text[text.index("kOutOfMemory[] = {") : text.index("};")]
    assert tuple(re.findall(r'"([^"]+)"', table)) == runner_module._OUT_OF_MEMORY
