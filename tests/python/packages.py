# SPDX-License-Identifier: Apache-2.0
"""Small packages that tests write: models whose answer is known without training."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Module = torch.nn.Module
TO_TENSOR: list[dict[str, Any]] = [{"name": "ToTensor"}]
NORMALIZE: dict[str, Any] = {
    "name": "Normalize",
    "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3},
}


class BrownClassifier(Module):
    """Logits by how brown a patch is on average: class k is nearest to level k."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.levels: torch.Tensor
        self.register_buffer("levels", torch.linspace(0.0, 0.6, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brown = (x[:, 0] - x[:, 2]).mean((1, 2)).unsqueeze(1)
        return -30.0 * (brown - self.levels.unsqueeze(0)).abs()


class DarkSegmenter(Module):
    """A tumor logit: positive where a pixel is darker than 0.75."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 20.0 * (0.75 - x.mean(1, keepdim=True))


class Returns(Module):
    """A constant of some shape per item."""

    def __init__(self, shape: list[int], value: float = 0.5) -> None:
        super().__init__()
        self.item: torch.Tensor
        self.register_buffer("item", torch.full([1, *shape], value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.item.repeat_interleave(x.shape[0], 0)


class RunsOutOfMemory(Module):
    """A GPU's allocator that gives up within TorchScript for batches above `most`."""

    def __init__(self, inner: Module, most: int) -> None:
        super().__init__()
        self.inner = inner
        self.most = most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        out: torch.Tensor = self.inner(x)
        return out


def save_script(module: Module, path: Path) -> str:
    """Stores TorchScript; returns its SHA-256."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_model(
    folder: Path, module: Module, *, keys: dict[str, Any] | None = None, **config: Any
) -> Path:
    """A model package; `keys` are ours, None makes it a bare WSInfer package."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = config.get("num_classes", 4)
    content: dict[str, Any] = {
        "spec_version": "1.0",
        "architecture": "test",
        "num_classes": classes,
        "class_names": ["0", "1+", "2+", "3+"][:classes],
        "patch_size_pixels": 64,
        "spacing_um_px": 1.0,
        "transform": TO_TENSOR,
        **config,
    }
    sha256 = save_script(module, folder / "torchscript_model.pt")
    if keys is not None:
        content["her2fast"] = {"sha256": sha256, "synthetic": True, **keys}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def write_method(folder: Path, *, segment: bool = True, **method: Any) -> Path:
    """A method package of the four HER2 classes."""
    write_model(folder / "classifier", BrownClassifier(4), keys={"task": "classify"})
    models = {"classify": "classifier"}
    if segment:
        models["segment"] = "segmenter"
        write_model(
            folder / "segmenter",
            DarkSegmenter(),
            keys={"task": "segment", "activation": "sigmoid"},
            num_classes=1,
            class_names=["tumor"],
            patch_size_pixels=320,
        )
    content = {
        "name": "test-method",
        "method": "constrained" if segment else "patches",
        "models": models,
        "guideline": "asco-cap-2018",
        "stain": "h-dab",
        "synthetic": True,
        **method,
    }
    (folder / "method.json").write_text(json.dumps(content))
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
