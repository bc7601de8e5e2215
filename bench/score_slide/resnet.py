# SPDX-License-Identifier: Apache-2.0
"""A full-size ResNet-18 with random weights (He et al., 2016), as a WSInfer package.

Speed does not depend on the weights, and a package made here needs no download.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet18(classes: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, width, stride), Block(width, width, 1)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    return nn.Sequential(*layers)


MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalized(rgb: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, channels last in memory."""
    x = rgb.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    return x.sub_(mean).div_(torch.tensor(STD).view(1, 3, 1, 1))


def write_package(folder: Path, patches: torch.Tensor, seed: int = 0) -> Path:
    """Writes config.json and torchscript_model.pt as WSInfer's zoo does.

    `patches` (N, 64, 64, 3) uint8 center and scale the logits of the random network, so
    that all classes occur and a wrong pixel can change one.
    """
    torch.manual_seed(seed)
    model = resnet18(4).eval()
    return save_package(folder, model, model[-1], patches, "resnet18")


def save_package(
    folder: Path,
    model: nn.Module,
    head: nn.Module,
    patches: torch.Tensor,
    architecture: str,
    batch: int | None = None,
) -> Path:
    """A model whose last layer is `head`, with spread logits, as a package."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        logits = model(normalized(patches))
        head.bias.sub_(logits.mean(0))
        spread = logits.std(0).clamp_min(1e-6)
        head.weight.div_(spread[:, None])
        head.bias.div_(spread)
    example = torch.zeros(32, 3, 64, 64)
    traced = torch.jit.freeze(torch.jit.trace(model, example))
    traced.save(str(folder / "torchscript_model.pt"))
    config = {
        "spec_version": "1.0",
        "architecture": architecture,
        "num_classes": 4,
        "class_names": ["a", "b", "c", "d"],
        "patch_size_pixels": 64,
        "spacing_um_px": 1.0,
        "transform": [
            {"name": "ToTensor"},
            {
                "name": "Normalize",
                "arguments": {"mean": MEAN, "std": STD},
            },
        ],
    }
    if batch is not None:
        config["her2fast"] = {"batch_size": batch}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder
