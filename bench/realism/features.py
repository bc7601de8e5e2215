# SPDX-License-Identifier: Apache-2.0
"""Color and texture statistics of one patch: what tells pictures apart, with names."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

#: Optical density per unit of stain: Ruifrok and Johnston (2001), H-DAB.
STAINS = np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776], [0.711, 0.424, 0.562]])
#: Edges of the rings of the power spectrum, cycles per px.
RINGS = (0.015, 0.04, 0.07, 0.11, 0.16, 0.22, 0.3, 0.4, 0.5)


def _moments(prefix: str, values: npt.NDArray[np.floating]) -> dict[str, float]:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    spread = float(values.std())
    lean = float(((values - values.mean()) ** 3).mean()) / max(spread, 1e-6) ** 3
    return {
        f"{prefix}.mean": float(values.mean()),
        f"{prefix}.spread": spread,
        f"{prefix}.q05": float(low),
        f"{prefix}.q50": float(middle),
        f"{prefix}.q95": float(high),
        f"{prefix}.skew": lean,
    }


def color(rgb: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Channels, stains, saturation and how the channels move together."""
    values = rgb.astype(np.float64)
    density = -np.log10(np.maximum(values, 1.0) / 245.0)
    amounts = density.reshape(-1, 3) @ np.linalg.inv(STAINS)
    out: dict[str, float] = {}
    for k, name in enumerate("RGB"):
        out |= _moments(f"color.{name}", values[..., k])
    for k, name in enumerate(("hematoxylin", "dab", "residual")):
        out |= _moments(f"color.{name}", amounts[:, k])
    out |= _moments("color.saturation", values.max(-1) - values.min(-1))
    centered = density.reshape(-1, 3) - density.reshape(-1, 3).mean(0)
    norm = np.sqrt((centered**2).sum(0)) + 1e-6
    for a, b in ((0, 1), (0, 2), (1, 2)):
        together = float((centered[:, a] * centered[:, b]).sum() / (norm[a] * norm[b]))
        out[f"color.corr_{'RGB'[a]}{'RGB'[b]}"] = together
    return out


def texture(rgb: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Edges, local spread, block borders; of brightness, and fine chroma."""
    values = rgb.astype(np.float64)
    gray = values.mean(-1)
    out: dict[str, float] = {}
    for scale in (0.0, 1.0, 2.0, 4.0):
        soft = ndimage.gaussian_filter(gray, scale) if scale else gray
        slope = np.hypot(*np.gradient(soft))
        out[f"texture.slope_{scale:.0f}"] = float(slope.mean())
        out[f"texture.slope_{scale:.0f}_peak"] = float(
            np.quantile(slope, 0.98) / max(slope.mean(), 1e-6)
        )
    out["texture.laplace"] = float(np.log1p(ndimage.laplace(gray).var()))
    spread = ndimage.generic_gradient_magnitude(gray, ndimage.sobel)
    out["texture.flat_share"] = float((spread < 12.0).mean())
    for name, plane in (("RG", 0), ("BG", 2)):
        chroma = values[..., plane] - values[..., 1]
        fine = chroma - ndimage.uniform_filter(chroma, 3)
        out[f"texture.fine_chroma_{name}"] = float(fine.std())
    # JPEG shows as steps at every eighth pixel, if blocks lie on the patch's grid.
    steps = np.abs(np.diff(gray, axis=1)).mean(0)
    out["texture.blocks"] = float(steps[7::8].mean() / max(steps.mean(), 1e-6))
    return out


def spectrum(rgb: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Share of brightness variance per ring of spatial frequency, and direction."""
    gray = rgb.mean(-1)
    window = np.outer(np.hanning(gray.shape[0]), np.hanning(gray.shape[1]))
    power = np.abs(fft.fft2((gray - gray.mean()) * window)) ** 2
    fy, fx = fft.fftfreq(gray.shape[0])[:, None], fft.fftfreq(gray.shape[1])[None, :]
    radius = np.hypot(fy, fx)
    total = max(float(power[radius < 0.5].sum()), 1e-9)
    out = {}
    for low, high in itertools.pairwise(RINGS):
        ring = float(power[(radius >= low) & (radius < high)].sum()) / total
        out[f"spectrum.{low:.3f}-{high:.2f}"] = float(np.log10(ring + 1e-6))
    angle = 2.0 * np.arctan2(fy, fx)
    band = (radius > 0.02) & (radius < 0.3)
    turn = np.hypot(
        (power * np.cos(angle))[band].sum(), (power * np.sin(angle))[band].sum()
    )
    out["spectrum.direction"] = float(turn / max(power[band].sum(), 1e-9))
    return out


def describe(rgb: npt.NDArray[np.uint8]) -> dict[str, float]:
    """(64, 64, 3) uint8 -> all statistics by name, always in the same order."""
    return {**color(rgb), **texture(rgb), **spectrum(rgb)}
