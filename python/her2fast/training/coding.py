# SPDX-License-Identifier: Apache-2.0
"""How a scanner's pixels reach a reader: compressed with JPEG, at one level or another.

A slide is read from level 0, whose losses averaging takes away, or from a stored level
of the working spacing, which was compressed at that spacing with halved colors. A
network says more nearly the same of both where it was trained on both
(docs/design/training.md).

What JPEG loses of a finer level hangs on detail that the working spacing does not
show. Pictures that have it, `finer` ones at half of the spacing, are coded as they are;
others are brought to twice their size first, which adds none.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

Rgb = npt.NDArray[np.uint8]

#: PIL's numbers of 4:4:4, 4:2:2 and 4:2:0.
FULL_COLOR, HALF_COLOR, QUARTER_COLOR = 0, 1, 2
#: Pixels of a coded unit's side where colors are halved.
UNIT_PX = 16


@dataclass(frozen=True)
class Coding:
    """What share of the pictures is compressed, and how."""

    #: The rest stays raw.
    share: float = 0.7
    #: Of these, compressed at half of the spacing and averaged, as a finer level is;
    #: the others at the picture's own spacing, as a stored level is.
    finer: float = 0.5
    #: Qualities that scanners write, both ends included.
    quality: tuple[int, int] = (65, 92)
    #: Shares of 4:4:4, 4:2:2 and 4:2:0.
    colors: tuple[float, float, float] = (0.15, 0.25, 0.6)


#: What `tiny_recipe --coded` trains with.
SCANNERS = Coding()


def coded(rgb: Rgb, quality: int, colors: int) -> Rgb:
    """(H, W, 3) uint8 through JPEG and back; `colors` is 0, 1, 2 for 4:4:4 to 4:2:0."""
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "jpeg", quality=quality, subsampling=colors)
    with Image.open(data) as picture:
        return np.asarray(picture.convert("RGB"))


def code(
    rgb: torch.Tensor,
    random: torch.Generator,
    coding: Coding = SCANNERS,
    *,
    finer: bool = False,
) -> torch.Tensor:
    """Every picture as one scanner or another would have stored it.

    (N, H, W, 3) uint8 in, the same out; `finer` pictures are at half of the spacing,
    (N, 2 H, 2 W, 3). The units of JPEG lie anywhere over a picture.
    """
    count = len(rgb)
    way = torch.rand(count, generator=random).tolist()
    shares = torch.tensor(coding.colors)
    colors = torch.multinomial(shares, count, True, generator=random).tolist()
    low, high = coding.quality
    quality = torch.randint(low, high + 1, (count,), generator=random).tolist()
    phase = torch.randint(UNIT_PX, (count, 2), generator=random).tolist()
    given = rgb.cpu().numpy()
    out = halved(given) if finer else given.copy()
    for item in range(count):
        if way[item] >= coding.share:
            continue
        how = (quality[item], colors[item], phase[item])
        if way[item] < coding.share * (1.0 - coding.finer):
            out[item] = _shifted(out[item], *how)
        else:
            large = given[item] if finer else _doubled(given[item])
            out[item] = halved(_shifted(large, *how))
    return torch.from_numpy(out).to(rgb.device)


def code_twice(
    rgb: torch.Tensor,
    random: torch.Generator,
    coding: Coding = SCANNERS,
    *,
    finer: bool = False,
) -> torch.Tensor:
    """(2 N, H, W, 3): every picture in two codings, the first half as of `code`."""
    return torch.cat([code(rgb, random, coding, finer=finer) for _ in range(2)])


def halved(rgb: Rgb) -> Rgb:
    """(..., 2 H, 2 W, 3) -> (..., H, W, 3): the means that a finer level is read as."""
    height, width = rgb.shape[-3] // 2, rgb.shape[-2] // 2
    blocks = rgb.reshape(*rgb.shape[:-3], height, 2, width, 2, 3)
    sums = blocks.sum((-4, -2), dtype=np.uint16)
    out: Rgb = ((sums + 2) // 4).astype(np.uint8)
    return out


def _shifted(rgb: Rgb, quality: int, colors: int, phase: list[int]) -> Rgb:
    """Coded as a part of a larger picture that begins `phase` pixels before it."""
    height, width = rgb.shape[:2]
    down, right = phase
    edges = ((down, UNIT_PX - down), (right, UNIT_PX - right), (0, 0))
    wide = coded(np.pad(rgb, edges, mode="reflect"), quality, colors)
    return wide[down : down + height, right : right + width]


def _doubled(rgb: Rgb) -> Rgb:
    planes = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float()
    large = functional.interpolate(
        planes, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    # Means of 2 x 2 px give the picture again.
    means = functional.avg_pool2d(large, 2)
    large += functional.interpolate(planes - means, scale_factor=2.0, mode="nearest")
    picture = large[0].permute(1, 2, 0).round_().clamp_(0.0, 255.0)
    out: Rgb = picture.to(torch.uint8).numpy()
    return out
