# SPDX-License-Identifier: Apache-2.0
"""Networks of a package made trainable again: their weights, out of TorchScript.

A package holds traced graphs whose weights are constants, batch norms folded. Both
small networks apply their convolutions in one order, so weights are told by their
place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from her2fast.training.networks import TinyClassifier, TinyUNet, fold_norms
from her2fast.training.tiny_evaluation import load_model

#: Largest difference of an output between a package and what was made of it.
TOLERANCE = 1e-4


def segmenter_of(package: Path) -> TinyUNet:
    """The segmenter of a package that the recipe wrote."""
    network = TinyUNet()
    script = load_model(package / "segment")
    _fill(network, script, _example(1), None)
    return network


def classifier_of(package: Path) -> TinyClassifier:
    """The classifier of a package that the recipe wrote, without its distances."""
    script = load_model(package / "classify")
    heads = _constants(script, "aten::linear")
    network = TinyClassifier()
    if len(heads) != 1:
        raise ValueError(f"{package}: need one linear layer, got {len(heads)}")
    _fill(network, script, _example(2), heads[0])
    return network


def _example(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand((count, 3, 64, 64), generator=random)


def _constants(
    script: torch.jit.ScriptModule, kind: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of every node of a kind, in the order of use."""
    graph: Any = script.inlined_graph  # nodes live as long as it does
    found = []
    for node in graph.findAllNodes(kind):
        weight, bias = (value.toIValue() for value in list(node.inputs())[1:3])
        found.append((weight.detach().clone(), bias.detach().clone()))
    return found


@torch.no_grad()
def _fill(
    network: nn.Module,
    script: torch.jit.ScriptModule,
    example: torch.Tensor,
    head: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """Folds `network` and gives it the script's weights; checks its answer."""
    fold_norms(network)
    layers: list[Any] = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    weights = _constants(script, "aten::_convolution")
    if head is not None:
        layers += [m for m in network.modules() if isinstance(m, nn.Linear)]
        weights.append(head)
    shapes = [tuple(weight.shape) for weight, _ in weights]
    if shapes != [tuple(layer.weight.shape) for layer in layers]:
        raise ValueError(f"need the layers of the small networks, got {shapes}")
    for layer, (weight, bias) in zip(layers, weights, strict=True):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    wanted = script(example)
    made = network(example)
    if head is not None:
        wanted = wanted[:, : made.shape[1]]
    if float((made - wanted).abs().max()) > TOLERANCE:
        raise ValueError("the package's network has other steps between its layers")
