# SPDX-License-Identifier: Apache-2.0
"""The small networks of the shipped package; no batch statistics at run time."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvBlock(nn.Module):
    """Convolution, batch norm (folded away before export), ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        dilation: int = 1,
        size: int = 3,
    ) -> None:
        super().__init__()
        padding = size // 2 * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, size, stride, padding, dilation, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return functional.relu(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Put the batch norm's running statistics into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold every batch norm of an evaluated network, in place."""
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvBlock):
            module.fold()
    return network


class TinyClassifier(nn.Module):
    """(N, 3, 64, 64) normalized -> (N, classes) logits; about 0.2 M parameters."""

    #: Blocks whose means are features; the last one feeds the classes.
    POOLED = (1, 3, 5)

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvBlock(3, 16),
            ConvBlock(16, 32, 2),
            ConvBlock(32, 48, 2),
            ConvBlock(48, 64),
            ConvBlock(64, 96, 2),
            ConvBlock(96, 96, 2),
        )
        self.head = nn.Linear(96, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits: 0, 1+, 2+, 3+."""
        features = self.features(x)
        logits: torch.Tensor = self.head(features.mean((2, 3)))
        return logits

    def with_features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and (N, 256) means of three layers and the middle one's maxima."""
        pooled = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.POOLED:
                pooled.append(x.mean((2, 3)))
            if index == self.POOLED[1]:  # few odd cells hardly move a mean
                pooled.append(x.amax((2, 3)))
        logits: torch.Tensor = self.head(pooled[-1])
        return logits, torch.cat(pooled, 1)


class TinyUNet(nn.Module):
    """(N, 3, H, W) normalized -> (N, 1, H, W) tumor logits; H and W multiples of 16.

    It works at a quarter of the size (4 um at 1 um/px), because tumor borders are
    smooth at that scale and a CPU must keep up with the reader.
    """

    def __init__(self) -> None:
        super().__init__()
        # Unstained tumor differs from stroma by its nuclei: look at half size first.
        self.stem = nn.Sequential(
            ConvBlock(3, 16, 2), ConvBlock(16, 16), ConvBlock(16, 32, 2)
        )
        self.level4 = ConvBlock(32, 32)
        self.level8 = nn.Sequential(ConvBlock(32, 64, 2), ConvBlock(64, 64))
        self.level16 = nn.Sequential(
            ConvBlock(64, 96, 2),
            # Wide: whether cells lie in a nest shows only around them.
            ConvBlock(96, 96, dilation=2),
            ConvBlock(96, 96, dilation=3),
        )
        self.narrow16 = nn.Conv2d(96, 64, 1)
        self.merge8 = ConvBlock(64, 64)
        self.narrow8 = nn.Conv2d(64, 32, 1)
        self.merge4 = ConvBlock(32, 32)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tumor logits at the input's size."""
        at4 = self.level4(self.stem(x))
        at8 = self.level8(at4)
        at16 = self.level16(at8)
        up8 = _twice(self.narrow16(at16))
        up4 = _twice(self.narrow8(self.merge8(at8 + up8)))
        logits = self.head(self.merge4(at4 + up4))
        return functional.interpolate(
            logits, scale_factor=4.0, mode="bilinear", align_corners=False
        )


def _twice(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(
        x, scale_factor=2.0, mode="bilinear", align_corners=False
    )


def parameter_count(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
