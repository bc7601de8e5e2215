# SPDX-License-Identifier: Apache-2.0
"""Networks that find stained membrane: (N, 3, H, W) -> (N, 2, H, W) logits.

Channel 0 is membrane, channel 1 its edge, which only training looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from her2fast.errors import UsageError
from her2fast.training.backbones import CHECK_PX, _check_output, _factory, _load
from her2fast.training.config_sections import Model
from her2fast.training.networks import ConvBlock

#: What the channels are.
OUTPUTS = ("membrane", "edge")
#: Feature maps of each level; the last convolution takes the 64 of the first.
WIDTHS = (64, 128, 256, 512, 1024)
#: How far a ridge is looked for: 0.75 um at 0.25 um/px, a faint membrane's width.
RIDGE_PX = 3
#: Share of values that dropout takes; the paper gives none.
DROPOUT = 0.2


class _Block(nn.Module):
    """5 x 5, then 3 x 3 convolution, ReLU each; batch norm after both.

    The order that Table 2 of the paper found best.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(inputs, outputs, 5, padding=2)
        self.narrow = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        x = functional.relu(self.narrow(functional.relu(self.wide(x))))
        normed: torch.Tensor = self.norm(x)
        return normed


class KhamenehUNet(nn.Module):
    """The modified U-Net of Khameneh et al. (2019), section 2.5.

    Convolutions are padded, so that a tile comes out at its size; the paper's are not
    (it crops), and its tiles are merged without overlap all the same.
    """

    def __init__(
        self, widths: tuple[int, ...] = WIDTHS, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList(
            _Block(a, b) for a, b in zip(inputs, widths, strict=True)
        )
        self.drop = nn.Dropout(dropout)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.raise_ = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.up = nn.ModuleList(_Block(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], len(OUTPUTS), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Membrane and edge logits; H and W multiples of 2 ** (levels - 1)."""
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = self.drop(functional.max_pool2d(x, 2))
            x = block(x)
            skips.append(x)
        for lift, block, skip in zip(
            self.raise_, self.up, reversed(skips[:-1]), strict=True
        ):
            x = block(torch.cat([skip, lift(x)], 1))
        logits: torch.Tensor = self.head(x)
        return logits


class TinyMembraneNet(nn.Module):
    """The same idea for a CPU: 0.3 M parameters, a stem at half size.

    A faint membrane is 2.6 px wide at 0.25 um/px, so half size still sees it; the head
    gives four pixels for each of its own. Skips are added, not joined.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 32, 64, 96)) -> None:
        super().__init__()
        half, quarter, eighth, deepest = widths
        self.level2 = nn.Sequential(
            ConvBlock(3, half, 2, size=5), ConvBlock(half, half)
        )
        self.level4 = nn.Sequential(
            ConvBlock(half, quarter, 2, size=5), ConvBlock(quarter, quarter)
        )
        self.level8 = nn.Sequential(
            ConvBlock(quarter, eighth, 2), ConvBlock(eighth, eighth)
        )
        self.level16 = nn.Sequential(
            ConvBlock(eighth, deepest, 2), ConvBlock(deepest, deepest)
        )
        self.narrow8 = nn.Conv2d(deepest, eighth, 1)
        self.merge8 = ConvBlock(eighth, eighth)
        self.narrow4 = nn.Conv2d(eighth, quarter, 1)
        self.merge4 = ConvBlock(quarter, quarter)
        self.narrow2 = nn.Conv2d(quarter, half, 1)
        self.merge2 = ConvBlock(half, half)
        self.head = nn.Conv2d(half, 4 * len(OUTPUTS), 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Membrane and edge logits; H and W multiples of 16."""
        at2 = self.level2(x)
        at4 = self.level4(at2)
        at8 = self.level8(at4)
        y = self.merge8(at8 + _twice(self.narrow8(self.level16(at8))))
        y = self.merge4(at4 + _twice(self.narrow4(y)))
        y = self.merge2(at2 + _twice(self.narrow2(y)))
        return functional.pixel_shuffle(self.head(y), 2)


@dataclass(frozen=True)
class Cuts:
    """Where membrane begins, in logits of channel 0.

    One cut cannot serve both: where faint membranes are found, strong ones come out too
    wide. So a pixel is membrane at `high`, and at `low` where it lies on a ridge:
    within `slack` of the largest logit within `RIDGE_PX`.
    """

    high: float
    low: float | None = None
    slack: float = 0.0

    def __call__(self, membrane: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) logits -> the same shape, 0 or more on membrane."""
        above = membrane - self.high
        if self.low is None:
            return above
        ridge = _highest_near(membrane) - self.slack
        return torch.maximum(
            above, torch.minimum(membrane - self.low, membrane - ridge)
        )


def _highest_near(plane: torch.Tensor) -> torch.Tensor:
    """The largest value within `RIDGE_PX` (3) rows and columns of each.

    By halves: 6 maxima of shifted planes, 0.4 ms for a tile of 512 px where
    `max_pool2d` takes 23, and in channels-last memory 67.
    """
    out = functional.pad(plane, (RIDGE_PX,) * 4, value=-torch.inf)
    for shift in (1, 2, 3):  # windows of 2, 4 and 7
        out = torch.maximum(out[..., :-shift], out[..., shift:])
    for shift in (1, 2, 3):
        out = torch.maximum(out[..., :-shift, :], out[..., shift:, :])
    return out


class Packaged(nn.Module):
    """A network as it ships: its cuts at 0, and histograms matched where it learned so.

    What a package computes is then all in its file: a scorer compares with 0.
    """

    def __init__(
        self, network: nn.Module, cuts: Cuts, match: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.match = match if match is not None else nn.Identity()
        self.cuts = cuts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2, H, W); membrane where channel 0 is at least 0."""
        logits: torch.Tensor = self.network(self.match(x))
        return torch.cat([self.cuts(logits[:, :1]), logits[:, 1:]], 1)


def make_membrane_network(model: Model, *, weights: bool = True) -> nn.Module:
    """ "khameneh_unet", "tiny" or "package.module:factory", called without arguments.

    Raises `UsageError`: an unknown backbone, weights that do not fit, other outputs.
    """
    name = model.backbone
    network: nn.Module
    if name == "khameneh_unet":
        network = KhamenehUNet()
    elif name == "tiny":
        network = TinyMembraneNet()
    elif ":" in name:
        network = _factory(name)()
    else:
        raise UsageError(
            "[model] backbone: need khameneh_unet, tiny or package.module:factory "
            f"for membranes, got {name!r}"
        )
    _load(network, model.weights if weights else None, hub=None, head=None)
    _check_output(network, name, (2, len(OUTPUTS), CHECK_PX, CHECK_PX))
    return network


def _twice(x: torch.Tensor) -> Any:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
