# SPDX-License-Identifier: Apache-2.0
"""Packages: what loads and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import packages
import pytest

from her2fast.errors import SlideError, UsageError
from her2fast.models import trust
from her2fast.models.describe import describe, trust_package
from her2fast.models.package import load_package
from her2fast.models.runner import (
    TorchScriptRunner,
)


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))


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
        (change_config(transform=[packages.NORMALIZE]), "after ToTensor"),
        (
            change_config(
                transform=[{"name": "ToTensor"}, packages.NORMALIZE, packages.NORMALIZE]
            ),
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
    transform = [resize, {"name": "ToTensor"}, packages.NORMALIZE]
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
