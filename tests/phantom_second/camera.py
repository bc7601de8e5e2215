# SPDX-License-Identifier: Apache-2.0
"""Light through stained tissue, wavelength by wavelength, and a camera's view of it.

Colors are not made from a matrix of stain vectors: absorption curves, a lamp and three
sensor curves give them, so that they bend with the amount of stain, as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]

#: Wavelengths of the integration, nm.
WAVELENGTHS_NM: Curve = np.arange(400.0, 701.0, 10.0)
#: Entries per axis of the color table, and the largest decadic density it holds.
TABLE, DENSEST = 512, 3.2


@dataclass(frozen=True)
class Stains:
    """What lies where; all arrays (H, W), decadic density at each curve's peak."""

    hematoxylin: Floats
    dab: Floats  # spread over the pixel
    membrane_dab: Floats  # in the part of the pixel that a membrane covers
    membrane_share: Floats  # that part, in [0, 1]
    hemoglobin: Floats


@dataclass(frozen=True)
class Look:
    """One slide's stain batch and scanner."""

    hematoxylin_shift_nm: float
    dab_slope: float
    hematoxylin_gain: float
    dab_gain: float
    lamp_blue: float
    white_rgb: tuple[float, float, float]
    contrast: float  # of the tone curve; 1 is straight
    flare: float
    defocus_um: float
    fringe_um: tuple[float, float, float]  # more blur per channel
    electrons: float  # at white; fewer are noisier
    line_noise: float  # gray levels
    jpeg_quality: int
    jpeg_subsampling: int


def draw_look(rng: np.random.Generator) -> Look:
    """A laboratory and a scanner; limits chosen once, from how slides look."""
    white = rng.uniform((228, 228, 228), (250, 250, 250))
    mean = white.mean()
    white = mean + 0.5 * (white - mean)
    return Look(
        hematoxylin_shift_nm=float(rng.uniform(-12, 12)),
        dab_slope=float(rng.uniform(110, 160)),
        hematoxylin_gain=float(rng.uniform(0.5, 1.2)),
        dab_gain=float(rng.uniform(0.85, 1.2)),
        lamp_blue=float(rng.uniform(0.5, 1.1)),
        white_rgb=(float(white[0]), float(white[1]), float(white[2])),
        contrast=float(rng.uniform(0.9, 1.15)),
        flare=float(rng.uniform(0.005, 0.04)),
        defocus_um=float(rng.uniform(0.5, 1.3)),
        fringe_um=(
            float(rng.uniform(0.0, 0.3)),
            0.0,
            float(rng.uniform(0.0, 0.5)),
        ),
        electrons=float(rng.uniform(4000, 16000)),
        line_noise=float(rng.uniform(0.0, 0.5)),
        jpeg_quality=int(rng.integers(68, 93)),
        jpeg_subsampling=int(rng.choice((0, 1, 2))),
    )


def _bell(center_nm: float, width_nm: float) -> Curve:
    return np.asarray(np.exp(-0.5 * ((WAVELENGTHS_NM - center_nm) / width_nm) ** 2))


def hematoxylin_curve(shift_nm: float = 0.0) -> Curve:
    """Aluminum-hematein: a broad double band in yellow-green, little in the blue."""
    curve = _bell(590 + shift_nm, 45) + 0.75 * _bell(545 + shift_nm, 32)
    curve += 0.32 * _bell(430, 28)
    return np.asarray(curve / curve.max())


def dab_curve(slope_nm: float = 135.0) -> Curve:
    """Oxidized DAB: falls all the way from blue to red, like melanin."""
    curve = np.exp(-(WAVELENGTHS_NM - 400.0) / slope_nm) + 0.35 * _bell(500, 48)
    return np.asarray(curve / curve.max())


def hemoglobin_curve() -> Curve:
    """Fixed red cells: a strong band in the blue and two weak ones in the green."""
    curve = _bell(414, 16) + 0.13 * _bell(542, 12) + 0.13 * _bell(577, 9) + 0.03
    return np.asarray(curve / curve.max())


def _sensor(lamp_blue: float) -> npt.NDArray[np.float64]:
    """(3, wavelengths): lamp times filter of R, G, B, each with sum 1."""
    lamp = lamp_blue * _bell(452, 11) + _bell(560, 55) + 0.35 * _bell(620, 50)
    filters = np.stack([_bell(608, 32), _bell(538, 36), _bell(462, 26)])
    filters += 0.06 * filters[[1, 2, 1]]
    seen = filters * lamp
    return np.asarray(seen / seen.sum(1, keepdims=True))


def color_table(look: Look) -> Floats:
    """(TABLE * TABLE, 3): linear light for every pair of hematoxylin and DAB."""
    amounts = np.linspace(0.0, DENSEST, TABLE)[:, None]
    through_h = 10.0 ** (-amounts * hematoxylin_curve(look.hematoxylin_shift_nm))
    through_d = 10.0 ** (-amounts * dab_curve(look.dab_slope))
    sensor = _sensor(look.lamp_blue)
    planes = [(through_h * sensor[c]) @ through_d.T for c in range(3)]
    return np.stack(planes, -1).reshape(-1, 3).astype(np.float32)


def _index(amount: Floats) -> npt.NDArray[np.int32]:
    scale = np.float32((TABLE - 1) / DENSEST)
    rounded = np.clip(amount * scale + np.float32(0.5), 0, TABLE - 1)
    return np.asarray(rounded, np.int32)


def _disk_row(radius_px: float) -> Floats:
    """A short kernel across a defocused disk: flatter than a bell."""
    reach = max(1, int(np.ceil(radius_px)) + 1)
    at = np.arange(-reach, reach + 1)
    fine = np.linspace(-0.5, 0.5, 21)
    inside = 1.0 - ((at[:, None] + fine) / max(radius_px, 0.1)) ** 2
    row = np.sqrt(np.clip(inside, 0.0, None)).mean(1)
    return np.asarray(row / row.sum(), np.float32)


def photograph(
    rng: np.random.Generator, look: Look, stains: Stains, spacing_um: float
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8, before JPEG."""
    table = color_table(look)
    h = _index(stains.hematoxylin * np.float32(look.hematoxylin_gain)) * TABLE
    dab = stains.dab * np.float32(look.dab_gain)
    light = table[h + _index(dab)]
    covered = np.flatnonzero(stains.membrane_share.ravel() > 0.0)
    # Light adds where a membrane covers part of a pixel; densities do not.
    lines = stains.membrane_dab.ravel()[covered] * np.float32(look.dab_gain)
    through = table[h.ravel()[covered] + _index(dab.ravel()[covered] + lines)]
    share = stains.membrane_share.ravel()[covered, None]
    flat = light.reshape(-1, 3)
    flat[covered] += share * (through - flat[covered])
    bloody = np.flatnonzero(stains.hemoglobin.ravel() > 0.0)
    if bloody.size:
        amount = stains.hemoglobin.ravel()[bloody, None]
        steps = np.linspace(0.0, 2.0, 65)
        seen = (
            10.0 ** (-steps[:, None] * hemoglobin_curve()) @ _sensor(look.lamp_blue).T
        )
        at = np.clip(np.rint(amount[:, 0] * 32), 0, 64).astype(np.int32)
        flat[bloody] *= seen[at].astype(np.float32)

    out = np.empty(light.shape, np.uint8)
    lines_of = rng.standard_normal(light.shape[0], np.float32) * look.line_noise
    for channel in range(3):
        radius_px = (look.defocus_um + look.fringe_um[channel]) / spacing_um
        row = _disk_row(radius_px)
        plane = ndimage.convolve1d(light[..., channel], row, 0, mode="nearest")
        plane = ndimage.convolve1d(plane, row, 1, mode="nearest")
        plane = look.flare + (1.0 - look.flare) * plane
        # A tone curve that leaves white at white: steeper or flatter in the middle.
        toned = plane**look.contrast
        toned = toned + np.float32(0.08) * toned * (1.0 - toned)
        gray = toned * np.float32(look.white_rgb[channel])
        spread = np.sqrt(np.maximum(toned, 0.02) / np.float32(look.electrons)) * 240
        grain = rng.standard_normal(gray.shape, np.float32)
        gray = gray + spread * grain + lines_of[:, None]
        out[..., channel] = np.clip(np.rint(gray), 0, 255).astype(np.uint8)
    return out
