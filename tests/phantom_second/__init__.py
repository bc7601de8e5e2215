# SPDX-License-Identifier: Apache-2.0
"""A second generator of H-DAB pictures, for tests only and never for training.

It shares no code and no model with `her2fast.phantom`: cells are ellipses packed by
random sequential addition, with gaps, cut by those that came first; light is integrated
over wavelengths; the camera has a tone curve, shot noise and line noise. A scorer that
only learned the first generator's habits shows it here. Synthetic.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from phantom_second import camera, tissue

__all__ = ["SecondPhantom", "render"]


@dataclass(frozen=True)
class SecondPhantom:
    """A picture and its truth, named as in `her2fast.phantom.Phantom`."""

    rgb: npt.NDArray[np.uint8]  # (H, W, 3)
    tumor_mask: npt.NDArray[np.bool_]  # (H, W)
    class_map: npt.NDArray[np.int8]  # (H, W): 0 to 3 on tumor, -1 elsewhere
    fractions: tuple[float, float, float, float]  # of the tumor's pixels, in [0, 1]
    spacing_um: float
    look: camera.Look


def render(
    seed: int,
    size_px: tuple[int, int],
    *,
    spacing_um: float = 1.0,
    mixture: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
) -> SecondPhantom:
    """One phantom: a pure function of its arguments.

    Parameters
    ----------
    seed
        Any non-negative integer; it also draws stain and scanner.
    size_px
        Width and height of the picture, 32 to 8192.
    spacing_um
        0.4 to 2.0; membranes keep their width in micrometers.
    mixture
        Wanted shares of 0, 1+, 2+ and 3+ tumor.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    width, height = size_px
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise ValueError(f"need 32 <= width, height <= 8192, got size_px={size_px}")
    if not 0.4 <= spacing_um <= 2.0:
        raise ValueError(f"need 0.4 <= spacing_um <= 2.0, got {spacing_um}")
    if len(mixture) != 4 or min(mixture) < 0.0 or abs(sum(mixture) - 1.0) > 1e-6:
        raise ValueError(f"need four shares that add to 1, got mixture={mixture}")
    rng = np.random.Generator(np.random.PCG64([seed, 20_260]))
    drawn = tissue.draw(rng, (height, width), spacing_um, mixture)
    look = camera.draw_look(rng)
    rgb = camera.photograph(rng, look, drawn.stains, spacing_um)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer, "JPEG", quality=look.jpeg_quality, subsampling=look.jpeg_subsampling
    )
    rgb = np.asarray(Image.open(buffer).convert("RGB"))
    counts = np.bincount(drawn.class_map[drawn.class_map >= 0], minlength=4)
    shares = [int(n) / max(int(counts.sum()), 1) for n in counts]
    return SecondPhantom(
        rgb,
        drawn.class_map >= 0,
        drawn.class_map,
        (shares[0], shares[1], shares[2], shares[3]),
        spacing_um,
        look,
    )
