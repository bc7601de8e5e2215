# SPDX-License-Identifier: Apache-2.0
"""How far a patch lies from what the classifier was trained on (docs/design/domain.md).

Two distances stand beside the classes in the classifier's outputs, so that every host
that runs the model has them: `color`, of optical densities and their direction, and
`feature`, of what the network's layers see. Each is the root mean square of the
whitened deviations from the training patches: about 1 for a usual patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from her2fast.training.networks import TinyClassifier

DISTANCE_NAMES = ("color", "feature")
COLOR_NAMES = (
    "density_red",
    "density_green",
    "density_blue",
    "share_red",
    "share_blue",
    "spread_red",
    "spread_blue",
)
#: Share of the independent part in the correlations: few patches of one look say
#: little of 256 numbers together.
SHRINKAGE = 0.1
#: A patch is outside beyond this quantile of the training patches.
PATCH_QUANTILE = 0.99
#: A slide is outside with more than this quantile of the training scenes' shares
#: outside, and at least LEAST_SHARE.
SLIDE_QUANTILE = 0.98
LEAST_SHARE = 0.10

Values = npt.NDArray[np.float64]


class ColorFeatures(nn.Module):
    """(N, 3, H, W) normalized -> (N, 7): amount, direction, spread of the density."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Square roots of the mean densities, mean and spread of the dense pixels' hue.

        Dense pixels count by the square of their density: pale ones have no hue.
        """
        # Every fourth pixel each way: colors need no more, and logarithms are dear.
        light = (x[:, :, ::4, ::4] * self.std + self.mean).clamp(1.0 / 255.0, 1.0)
        density = -torch.log10(light)
        total = density.sum(1, keepdim=True) + 1e-3
        weight = total * total
        weight = weight / weight.sum((2, 3), keepdim=True)
        share = torch.cat([density[:, :1], density[:, 2:]], 1) / total
        middle = (share * weight).sum((2, 3))
        apart = share - middle[:, :, None, None]
        spread = ((apart * apart * weight).sum((2, 3)) + 1e-6).sqrt()
        amount = (density.mean((2, 3)) + 1e-3).sqrt()
        return torch.cat([amount, middle, spread], 1)


class Deviation(nn.Module):
    """(N, F) -> (N,): whitened distance to the nearest center, root mean square."""

    def __init__(self, centers: Values, whitening: Values) -> None:
        super().__init__()
        self.centers: torch.Tensor
        self.whitening: torch.Tensor
        moved = torch.tensor(centers @ whitening, dtype=torch.float32)
        self.register_buffer("centers", moved)
        self.register_buffer("whitening", torch.tensor(whitening, dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """At least 0; the same features always give the same distance."""
        white = features @ self.whitening
        apart = white[:, None] - self.centers[None]
        return (apart * apart).mean(2).min(1).values.sqrt()


class JudgedClassifier(nn.Module):
    """A classifier whose outputs are its classes, then `color` and `feature`."""

    def __init__(
        self,
        classifier: TinyClassifier,
        colors: ColorFeatures,
        color: Deviation,
        feature: Deviation,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.colors = colors
        self.color = color
        self.feature = feature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 64, 64) normalized -> (N, classes + 2)."""
        logits, pooled = self.classifier.with_features(x)
        return torch.cat(
            [
                logits,
                self.color(self.colors(x))[:, None],
                self.feature(pooled)[:, None],
            ],
            1,
        )


@dataclass(frozen=True)
class Domain:
    """What `method.json` says of the domain."""

    cuts: dict[str, float]
    max_share: float
    statistics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The `domain` block of `method.json`."""
        return {
            "cuts": self.cuts,
            "max_share": self.max_share,
            "statistics": self.statistics,
        }


def fit_deviation(features: Values, kinds: npt.NDArray[np.int64]) -> Deviation:
    """A center per kind and one covariance around them, shrunk."""
    present = np.unique(kinds)
    centers = np.stack([features[kinds == kind].mean(0) for kind in present])
    rest = features - centers[np.searchsorted(present, kinds)]
    # A layer that never answers has no spread; anything it says is then far.
    scale = np.maximum(rest.std(0), 0.05 * float(rest.std(0).mean()) + 1e-9)
    correlation = (rest / scale).T @ (rest / scale) / len(rest)
    shrunk = (1.0 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(len(scale))
    root = np.linalg.cholesky(np.linalg.inv(shrunk))
    return Deviation(centers, root / scale[:, None])


@torch.no_grad()
def fit_domain(
    classifier: TinyClassifier,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    scenes: list[tuple[torch.Tensor, torch.Tensor]],
    *,
    steps: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[JudgedClassifier, Domain]:
    """Statistics of `steps` training batches; cuts by other training `scenes`.

    Parameters
    ----------
    classifier
        Trained and folded.
    batches
        Normalized (N, 3, P, P) patches with their (N, classes) shares.
    scenes
        Per scene normalized (N, 3, P, P) patches and their (N,) tumor pixels; scenes
        that no statistic has seen, or the cuts would be too narrow.
    """
    colors = ColorFeatures(mean, std)
    seen: list[Values] = []
    known: list[Values] = []
    kinds: list[npt.NDArray[np.int64]] = []
    for _ in range(steps):
        patches, shares = next(batches)
        known.append(classifier.with_features(patches)[1].double().numpy())
        seen.append(colors(patches).double().numpy())
        kinds.append(shares.argmax(1).numpy())
    color_values = np.concatenate(seen)
    all_kinds = np.concatenate(kinds)
    judged = JudgedClassifier(
        classifier,
        colors,
        fit_deviation(color_values, all_kinds),
        fit_deviation(np.concatenate(known), all_kinds),
    ).eval()
    found = [judged(patches)[:, -2:].double().numpy() for patches, _ in scenes]
    every = np.concatenate(found)
    cuts = np.quantile(every, PATCH_QUANTILE, axis=0).round(4)
    shares_outside = []
    for distances, (_, tumor) in zip(found, scenes, strict=True):
        area = tumor.double().numpy()
        outside = (distances > cuts).any(1)
        shares_outside.append(float(area[outside].sum() / area.sum()))
    largest = max(LEAST_SHARE, float(np.quantile(shares_outside, SLIDE_QUANTILE)))
    quantiles = (0.01, 0.5, 0.95, 0.99, 1.0)
    statistics: dict[str, Any] = {
        "patches": len(color_values),
        "cut_patches": len(every),
        "cut_scenes": len(scenes),
        "patch_quantile": PATCH_QUANTILE,
        "slide_quantile": SLIDE_QUANTILE,
        "shrinkage": SHRINKAGE,
        "distance_quantiles": {
            name: _quantiles(every[:, k], quantiles)
            for k, name in enumerate(DISTANCE_NAMES)
        },
        "color_quantiles": {
            name: _quantiles(color_values[:, k], quantiles)
            for k, name in enumerate(COLOR_NAMES)
        },
    }
    named = {name: float(cut) for name, cut in zip(DISTANCE_NAMES, cuts, strict=True)}
    return judged, Domain(named, round(largest, 3), statistics)


def _quantiles(values: Values, at: tuple[float, ...]) -> dict[str, float]:
    return {
        f"{q:g}": round(float(v), 5)
        for q, v in zip(at, np.quantile(values, at), strict=True)
    }
