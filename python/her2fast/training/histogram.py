# SPDX-License-Identifier: Apache-2.0
"""Histogram matching to a reference picture, as a part of the network.

Khameneh et al. match every tile to a reference tile. Done in front of the network and
packed with it, a package cannot be run without what it was trained with. It equals
`skimage.exposure.match_histograms` up to the rounding of gray levels.

A blank tile is given the colors of tissue too: use it where empty tiles are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from her2fast.errors import UsageError

LEVELS = 256


class HistogramMatch(nn.Module):
    """(N, 3, H, W) normalized pictures -> the same with the reference's histograms."""

    def __init__(
        self,
        reference: npt.NDArray[np.uint8],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """`reference` is (h, w, 3); `mean` and `std` are what pictures come with."""
        super().__init__()
        if reference.ndim != 3 or reference.shape[2] != 3 or not reference.size:
            raise ValueError(f"need a picture (h, w, 3), got {reference.shape}")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        quantiles = torch.zeros(3, LEVELS, dtype=torch.float64)
        values = torch.zeros(3, LEVELS, dtype=torch.float64)
        for channel in range(3):
            counts = np.bincount(reference[..., channel].ravel(), minlength=LEVELS)
            there = np.flatnonzero(counts)
            cumulated = np.cumsum(counts[there]) / counts.sum()
            # One length for all channels: the last level repeated changes nothing.
            fill = LEVELS - len(there)
            quantiles[channel] = torch.from_numpy(
                np.pad(cumulated, (0, fill), constant_values=1.0)
            )
            values[channel] = torch.from_numpy(np.pad(there, (0, fill), mode="edge"))
        self.register_buffer("quantiles", quantiles)
        self.register_buffer("values", values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each picture and channel on its own."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        gray = ((x.float() * std + mean) * 255.0).round().clamp(0.0, 255.0).long()
        flat = gray.flatten(2)  # (N, 3, pixels)
        counts = torch.zeros(
            flat.shape[0], 3, LEVELS, dtype=torch.float64, device=x.device
        )
        ones = torch.ones(1, dtype=torch.float64, device=x.device).expand_as(flat)
        counts = counts.scatter_add(2, flat, ones)
        share = counts.cumsum(2) / flat.shape[2]
        table = self._interpolated(share)
        matched = table.gather(2, flat).view_as(gray).float()
        return (matched / 255.0 - mean) / std

    def _interpolated(self, share: torch.Tensor) -> torch.Tensor:
        """Gray level of the reference at each share of its pixels, as np.interp."""
        quantiles, values = self.get_buffer("quantiles"), self.get_buffer("values")
        known = quantiles.unsqueeze(0).expand(share.shape[0], -1, -1).contiguous()
        levels = values.unsqueeze(0).expand(share.shape[0], -1, -1)
        after = torch.searchsorted(known, share.contiguous(), right=True)
        high = after.clamp(1, LEVELS - 1)
        low = high - 1
        q0, q1 = known.gather(2, low), known.gather(2, high)
        v0, v1 = levels.gather(2, low), levels.gather(2, high)
        part = ((share - q0) / (q1 - q0).clamp(min=1e-12)).clamp(0.0, 1.0)
        return torch.where(q1 > q0, v0 + part * (v1 - v0), v1)


def read_reference(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels of a reference picture; raises `UsageError`."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.size[0] * picture.size[1] > 1 << 26:
                raise UsageError(f"{path}: need at most {1 << 26} px")
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise UsageError(
            f"[histogram] reference: {path}: is no picture: {error}"
        ) from error
