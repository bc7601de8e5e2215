# SPDX-License-Identifier: Apache-2.0
"""Networks by one line of configuration, with or without ImageNet weights."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from her2fast.errors import UsageError
from her2fast.training.checkpoint import read_tensors
from her2fast.training.config_file import HUB
from her2fast.training.config_sections import Model
from her2fast.training.networks import TinyClassifier, TinyUNet
from her2fast.training.packages import MEAN, STD
from her2fast.training.vision import submodule

Three = tuple[float, float, float]

IMAGENET_MEAN: Three = (0.485, 0.456, 0.406)
IMAGENET_STD: Three = (0.229, 0.224, 0.225)
TIMM = "timm:"
#: Channels of the decoder from the deepest level to full size.
DECODER = (256, 128, 64, 32)
CHECK_PX = 64


def input_statistics(model: Model) -> tuple[Three, Three]:
    """What pictures are normalized with: stated, or what suits the backbone."""
    if model.mean is not None and model.std is not None:
        return model.mean, model.std
    if model.backbone == "tiny":
        return MEAN, STD
    return IMAGENET_MEAN, IMAGENET_STD


def make_classifier(model: Model, classes: int, *, weights: bool = True) -> nn.Module:
    """(N, 3, 64, 64) -> (N, classes) logits.

    Parameters
    ----------
    model : Model
        "tiny", "resnet18", "timm:NAME" or "package.module:factory", which is called
        with the number of classes.
    classes : int
    weights : bool
        Load `model.weights`; a checkpoint that follows makes that needless.

    Raises
    ------
    UsageError
        An unknown backbone, weights that do not fit, or outputs of another shape.
    """
    name, source = model.backbone, model.weights if weights else None
    network: nn.Module
    if name == "tiny":
        network = TinyClassifier(classes)
        _load(network, source, hub=None, head="head.")
    elif name == "resnet18":
        models = submodule("models")
        network = models.resnet18()
        _load(network, source, hub=models.ResNet18_Weights.IMAGENET1K_V1, head="fc.")
        network.fc = nn.Linear(512, classes)
    elif name.startswith(TIMM):
        network = _timm(name, num_classes=classes, pretrained=source == HUB)
        if source != HUB:
            _load(network, source, hub=None, head=_timm_head(network))
    elif ":" in name:
        network = _factory(name)(classes)
        _load(network, source, hub=None, head=None)
    else:
        raise UsageError(
            f"[model] backbone: need tiny, resnet18, timm:NAME or "
            f"package.module:factory for a classifier, got {name!r}"
        )
    _check_output(network, name, (2, classes))
    return network


def make_segmenter(model: Model, *, weights: bool = True) -> nn.Module:
    """(N, 3, H, W) -> (N, 1, H, W) logits of tumor, H and W multiples of 32.

    "tiny", "densenet121" (U-Net of depth 4), "timm:NAME" (the same decoder on that
    encoder) or "package.module:factory", called without arguments.
    """
    name, source = model.backbone, model.weights if weights else None
    network: nn.Module
    if name == "tiny":
        network = TinyUNet()
        _load(network, source, hub=None, head="head.")
    elif name == "densenet121":
        models = submodule("models")
        dense = models.densenet121()
        _load(
            dense,
            source,
            hub=models.DenseNet121_Weights.IMAGENET1K_V1,
            head="classifier.",
        )
        network = UNet(DenseNetEncoder(dense.features), (64, 256, 512, 1024))
    elif name.startswith(TIMM):
        encoder = _timm(
            name,
            features_only=True,
            pretrained=source == HUB,
            out_indices=(0, 1, 2, 3),
        )
        if list(encoder.feature_info.reduction()) != [2, 4, 8, 16]:
            raise UsageError(
                f"[model] backbone: need features at 1/2, 1/4, 1/8 and 1/16, got 1/"
                f"{encoder.feature_info.reduction()} of {name}"
            )
        if source != HUB:
            _load(encoder, source, hub=None, head="", only_missing_ok=False)
        network = UNet(encoder, tuple(encoder.feature_info.channels()))
    elif ":" in name:
        network = _factory(name)()
        _load(network, source, hub=None, head=None)
    else:
        raise UsageError(
            f"[model] backbone: need tiny, densenet121, timm:NAME or "
            f"package.module:factory for a segmenter, got {name!r}"
        )
    _check_output(network, name, (2, 1, CHECK_PX, CHECK_PX))
    return network


class DenseNetEncoder(nn.Module):
    """Features of a DenseNet at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        parts = dict(features.named_children())
        self.level2 = nn.Sequential(parts["conv0"], parts["norm0"], parts["relu0"])
        self.level4 = nn.Sequential(parts["pool0"], parts["denseblock1"])
        self.level8 = nn.Sequential(parts["transition1"], parts["denseblock2"])
        self.level16 = nn.Sequential(parts["transition2"], parts["denseblock3"])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> four levels, finest first."""
        half = self.level2(x)
        quarter = self.level4(half)
        eighth = self.level8(quarter)
        return [half, quarter, eighth, self.level16(eighth)]


class _Merge(nn.Module):
    """Twice the size, the encoder's features beside it, two convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.first = _convolution(inputs + skip, outputs)
        self.second = _convolution(outputs, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], 1)
        merged: torch.Tensor = self.second(self.first(x))
        return merged


class UNet(nn.Module):
    """Ronneberger et al. (2015), depth 4: encoder features to 1/16 and back."""

    def __init__(self, encoder: nn.Module, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        half, quarter, eighth, deepest = channels
        ins = (deepest, *DECODER[:3])
        self.merges = nn.ModuleList(
            _Merge(inputs, skip, outputs)
            for inputs, skip, outputs in zip(
                ins, (eighth, quarter, half, 0), DECODER, strict=True
            )
        )
        self.head = nn.Conv2d(DECODER[3], 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tumor logits at the input's size."""
        half, quarter, eighth, x = self.encoder(x)
        for merge, skip in zip(self.merges, (eighth, quarter, half, None), strict=True):
            x = merge(x, skip)
        logits: torch.Tensor = self.head(x)
        return logits


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _timm(name: str, **options: Any) -> Any:
    submodule("models")  # timm imports torchvision
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: needs timm: pip install her2fast[train]") from error
    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        close = ", ".join(difflib.get_close_matches(bare, timm.list_models(), 5, 0.5))
        raise UsageError(
            f"[model] backbone: timm has no {bare!r}; it has: {close or 'none like it'}"
        )
    try:
        return timm.create_model(bare, in_chans=3, **options)
    except (RuntimeError, OSError, TypeError, AttributeError) as error:
        raise UsageError(f"[model] backbone: {name}: {error}") from error


def _timm_head(network: Any) -> str:
    head = network.pretrained_cfg.get("classifier", "fc")
    return f"{head}." if isinstance(head, str) else "fc."


def _factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"[model] backbone: {name}: {error}") from error
    if not callable(found):
        raise UsageError(f"[model] backbone: {name} cannot be called")
    made: Callable[..., nn.Module] = found
    return made


def _load(
    network: nn.Module,
    source: str | None,
    *,
    hub: Any,
    head: str | None,
    only_missing_ok: bool = True,
) -> None:
    """Weights from a file or the hub; all must fit but those of the `head`."""
    if source is None:
        return
    if source == HUB:
        if hub is None:
            raise UsageError('[model] weights: this backbone has none on the "hub"')
        try:
            tensors = hub.get_state_dict(progress=False, check_hash=True)
        except OSError as error:  # no network here
            raise UsageError(
                f'[model] weights: "hub" cannot be reached ({error}); give a file, or '
                "leave weights out to begin at random"
            ) from error
    else:
        tensors = read_tensors(Path(source))
    tensors = {_modern(name): value for name, value in tensors.items()}
    own = network.state_dict()
    skipped = {
        name
        for name in {*own, *tensors}
        if head and name.startswith(head) and only_missing_ok
    }
    wrong = [
        name
        for name in own
        if name not in skipped
        and (name not in tensors or tensors[name].shape != own[name].shape)
        and not name.endswith("num_batches_tracked")
    ]
    if wrong:
        raise UsageError(
            f"[model] weights: {source}: {len(wrong)} of {len(own)} tensors "
            f"are missing or have another shape, such as {wrong[0]!r}; are these of "
            "another network?"
        )
    fitting = {k: v for k, v in tensors.items() if k in own and k not in skipped}
    network.load_state_dict(fitting, strict=False)


def _modern(name: str) -> str:
    """DenseNet files of torchvision still say norm.1 where the network says norm1."""
    return re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", name)


def _check_output(network: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"[model] backbone: {name}: need a torch.nn.Module, got "
            f"{type(network).__name__}"
        )
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        try:
            got = network(torch.zeros(2, 3, CHECK_PX, CHECK_PX))
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"[model] backbone: {name} does not take (2, 3, {CHECK_PX}, "
                f"{CHECK_PX}): {error}"
            ) from error
    network.train(was_training)
    found = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
    if found != shape:
        raise UsageError(
            f"[model] backbone: {name}: need outputs of shape {shape}, got {found}"
        )


def parameter_groups(network: nn.Module) -> list[nn.Parameter]:
    """Trained parameters in the order of their names, the same in every process."""
    named: Mapping[str, nn.Parameter] = dict(network.named_parameters())
    return [named[name] for name in sorted(named) if named[name].requires_grad]
