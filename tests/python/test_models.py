# SPDX-License-Identifier: Apache-2.0
"""Packages: what loads, what is refused, and what a model gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import packages
import pytest
import torch

from her2fast.errors import DeviceError, SlideError, UsageError
from her2fast.models import runner as runner_module
from her2fast.models import trust
from her2fast.models.describe import check_lines, describe, trust_package
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


def test_method_package(tmp_path: Path) -> None:
    package = load_package(packages.write_method(tmp_path / "m"))
    assert package.name == "test-method"
    assert package.class_names == ["0", "1+", "2+", "3+"]
    assert (package.tile_px, package.patch_px, package.halo_px) == (256, 64, 32)
    assert package.spacing_um == 1.0
    assert package.guideline == "asco-cap-2018"
    assert [m.name for m in package.models] == ["segmenter", "classifier"]
    assert [m.batch_size for m in package.models] == [8, 32]
    assert package.scale_q16 == []
    assert package.synthetic
    assert json.dumps(describe(package))


@pytest.mark.parametrize(
    ("patch_px", "tile_px"), [(64, 256), (100, 200), (256, 256), (350, 350)]
)
def test_bare_wsinfer_package(tmp_path: Path, patch_px: int, tile_px: int) -> None:
    folder = packages.write_model(
        tmp_path / "bare",
        packages.BrownClassifier(7),
        num_classes=7,
        class_names=list("abcdefg"),
        patch_size_pixels=patch_px,
        spacing_um_px=0.5,
        description="keys that we do not know stay",
    )
    package = load_package(folder)
    assert package.segment is None
    assert package.guideline is None
    assert package.method == "patches"
    assert package.tile_px == tile_px
    assert len(package.class_names) == 7


def test_calibration_in_fixed_point(tmp_path: Path) -> None:
    calibration = {"scale": [1.0, 0.5, 2, 1], "bias": [0, -0.25, 0, 0]}
    folder = packages.write_method(tmp_path / "m", calibration=calibration)
    package = load_package(folder)
    assert package.scale_q16 == [65536, 32768, 131072, 65536]
    assert package.bias_q16 == [0, -16384, 0, 0]


# --- trust ---------------------------------------------------------------------------


def test_unknown_is_refused_until_trusted(tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m")
    with pytest.raises(SlideError, match="models trust") as caught:
        load_package(folder).require_known()
    assert caught.value.code == "MODEL_HASH"
    assert "trusts" in trust_package(folder)
    package = load_package(folder)
    package.require_known()
    assert [m.to_record()["known"] for m in package.models] == [True, True]


def test_another_byte_is_refused_whatever_is_trusted(tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m")
    trust_package(folder)
    file = folder / "classifier/torchscript_model.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(SlideError, match="changed or is damaged") as caught:
        load_package(folder)
    assert caught.value.code == "MODEL_HASH"


def test_a_file_that_changes_before_it_is_opened(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    package = load_package(folder)
    packages.save_script(packages.BrownClassifier(3), folder / "torchscript_model.pt")
    with pytest.raises(SlideError, match="changed since") as caught:
        TorchScriptRunner(package.classify)
    assert caught.value.code == "MODEL_HASH"


def test_loading_and_hashing_import_no_torch(tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m")
    code = (
        "import sys; from her2fast.models.package import load_package;"
        f"load_package({str(folder)!r});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_trust_file_that_is_no_list(tmp_path: Path) -> None:
    folder = packages.write_model(tmp_path / "m", packages.BrownClassifier(4))
    trust.trust_file().parent.mkdir(parents=True)
    for text in ("[]", "{", '{"short": "x"}'):
        trust.trust_file().write_text(text)
        with pytest.raises(UsageError, match="trust"):
            load_package(folder)


# --- configurations that are refused ------------------------------------------------


def change_config(**values: Any) -> Any:
    return lambda config: config.update(values)


def change_keys(**values: Any) -> Any:
    return lambda config: config["her2fast"].update(values)


NORMALIZE = {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_config(num_classes=3), "class_names"),
        (change_config(class_names=["a", "a", "b", "c"]), "distinct"),
        (change_config(num_classes=0, class_names=[]), "num_classes"),
        (change_config(patch_size_pixels=0), "patch_size_pixels"),
        (change_config(spacing_um_px=0.0), "spacing_um_px"),
        (change_config(spacing_um_px="fine"), "spacing_um_px"),
        (
            change_config(transform=[{"name": "Resize", "arguments": {"size": 224}}]),
            "not resized",
        ),
        (change_config(transform=[{"name": "CenterCrop"}]), "CenterCrop"),
        (change_config(transform=[NORMALIZE]), "after ToTensor"),
        (
            change_config(transform=[{"name": "ToTensor"}, NORMALIZE, NORMALIZE]),
            "one Normalize",
        ),
        (
            change_config(
                transform=[
                    {"name": "ToTensor"},
                    {
                        "name": "Normalize",
                        "arguments": {"mean": [0] * 3, "std": [0] * 3},
                    },
                ]
            ),
            "std > 0",
        ),
        (change_keys(task="detect"), "task"),
        (change_keys(sha256="abc"), "sha256"),
        (change_keys(batch_size=0), "batch_size"),
        (change_keys(unheard_of=1), "unheard_of"),
        (change_keys(task="segment"), "segmenter"),
    ],
)
def test_bad_config(tmp_path: Path, change: Any, words: str) -> None:
    folder = packages.write_method(tmp_path / "m")
    path = folder / "classifier/config.json"
    packages.edit_json(path, change)
    with pytest.raises(UsageError) as caught:
        load_package(folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


def test_resize_that_changes_nothing(tmp_path: Path) -> None:
    resize = {"name": "Resize", "arguments": {"size": 64}}
    transform = [resize, {"name": "ToTensor"}, NORMALIZE]
    model = packages.BrownClassifier(4)
    folder = packages.write_model(tmp_path / "m", model, transform=transform)
    config = load_package(folder).classify.config
    assert config.normalization() == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "Upper"}, "name"),
        ({"models": {"classify": "../x"}}, "beside"),
        ({"models": {"classify": "gone"}, "method": "patches"}, "gone"),
        ({"models": {"classify": "classifier"}}, "needs a segmenter"),
        ({"method": "patches"}, "needs no segmenter"),
        ({"tile_px": 100}, "multiple"),
        ({"tile_px": 512}, "patch_size_pixels=576"),
        ({"calibration": {"scale": [1, 1]}}, "4 values"),
        ({"calibration": {"scale": [1, 1, 1, 1e9]}}, "finite"),
        ({"floor_percent": 101}, "floor_percent"),
        ({"grade": 1}, "grade"),
    ],
)
def test_bad_method(tmp_path: Path, method: dict[str, Any], words: str) -> None:
    folder = packages.write_method(tmp_path / "m", **method)
    with pytest.raises(UsageError) as caught:
        load_package(folder)
    assert words in str(caught.value)


def test_a_guideline_needs_four_classes(tmp_path: Path) -> None:
    folder = packages.write_method(tmp_path / "m", segment=False)
    packages.write_model(
        folder / "classifier", packages.BrownClassifier(3), keys={}, num_classes=3
    )
    with pytest.raises(SlideError) as caught:
        load_package(folder)
    assert caught.value.code == "MODEL_CLASSES"


def test_not_a_package(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder nor one of"):
        load_package("no-such-package")
    with pytest.raises(UsageError, match="neither method"):
        load_package(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        load_package(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UsageError):
        load_package(tmp_path)


# --- the runner ---------------------------------------------------------------------


def test_outputs_equal_the_plain_loop(tmp_path: Path) -> None:
    transform = [{"name": "ToTensor"}, NORMALIZE]
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
