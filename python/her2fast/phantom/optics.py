# SPDX-License-Identifier: Apache-2.0
"""From amounts of stain to a scanned picture: Beer-Lambert, scanner, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from her2fast.phantom.fields import Floats

#: Optical density of R, G, B for one unit of stain (Ruifrok and Johnston 2001, H-DAB).
HEMATOXYLIN = (0.650, 0.704, 0.286)
DAB = (0.268, 0.570, 0.776)
#: Pigment without DAB: a grey-brown that absorbs evenly.
PIGMENT = (0.50, 0.57, 0.65)
#: Red cells: hemoglobin takes blue (Soret band), some green (540, 576 nm), little red.
BLOOD = (0.25, 0.49, 0.835)
#: Share of jittered pictures that are compressed as they are; others were compressed
#: at a finer spacing, where averaging takes most of it away.
JPEG_SHARE = 0.35
#: Noise of color differences (B - Y, R - Y) against that of brightness: cameras
#: interpolate color and files store it at half resolution: coarse, strongest in blue.
CHROMA_NOISE = (2.5, 0.9)
CHROMA_NOISE_PX = 0.8
#: Blur of R, G, B against the profile's: lenses are corrected for green.
BLUR_RGB = (1.1, 1.0, 1.35)
#: Pixels of a band: its planes stay in a core's cache.
_BAND_PX = 1 << 16


@dataclass(frozen=True)
class Profile:
    """One laboratory's stain and one scanner."""

    name: str
    white_rgb: tuple[float, float, float] = (240.0, 240.0, 242.0)
    hematoxylin: tuple[float, float, float] = HEMATOXYLIN
    dab: tuple[float, float, float] = DAB
    hematoxylin_gain: float = 1.0
    dab_gain: float = 1.0
    gamma: float = 1.0  # of the transmitted light
    blur_um: float = 0.25  # sigma
    # Share of an unsharp mask of 1 px that is left at 1 um/px; finer pictures show
    # more of what the scanner did.
    sharpen: float = 0.0
    noise: float = 1.0  # of brightness, sigma, gray levels
    chroma_blur_um: float = 0.4  # sigma; of color differences, as files store them
    jpeg_quality: int = 85


#: Stain and scanner looks used for training. Blur is of the lens alone: what a pixel
#: averages comes on top. "grey-blue" has the mean hue, glass and noise of the real
#: cores that pictures were compared with (docs/guide/phantoms.md).
PROFILES: tuple[Profile, ...] = (
    Profile("reference", hematoxylin_gain=0.9),
    Profile(
        "pale-blue",
        white_rgb=(234.0, 233.0, 241.0),
        hematoxylin=(0.66, 0.635, 0.40),
        hematoxylin_gain=0.7,
        blur_um=0.22,
        sharpen=0.3,
    ),
    Profile(
        "dark-nuclei",
        white_rgb=(244.0, 243.0, 243.0),
        hematoxylin=(0.68, 0.66, 0.32),
        hematoxylin_gain=1.5,
        dab_gain=1.1,
        blur_um=0.32,
        jpeg_quality=75,
    ),
    Profile(
        "violet",
        white_rgb=(238.0, 236.0, 240.0),
        hematoxylin=(0.58, 0.74, 0.34),
        hematoxylin_gain=1.05,
        dab=(0.30, 0.58, 0.757),
        gamma=1.1,
    ),
    Profile(
        "warm-scanner",
        white_rgb=(243.0, 240.0, 233.0),
        hematoxylin=(0.66, 0.67, 0.34),
        dab=(0.24, 0.56, 0.79),
        hematoxylin_gain=0.95,
        dab_gain=0.9,
        blur_um=0.42,
        noise=1.4,
        jpeg_quality=70,
    ),
    Profile(
        "grey-blue",
        white_rgb=(237.0, 236.0, 245.0),
        hematoxylin=(0.69, 0.625, 0.365),
        dab=(0.36, 0.575, 0.735),
        hematoxylin_gain=0.58,
        dab_gain=0.9,
        blur_um=0.22,
        sharpen=0.3,
        noise=0.85,
    ),
    Profile(
        "violet-grey",
        white_rgb=(241.0, 238.0, 244.0),
        hematoxylin=(0.56, 0.66, 0.50),
        dab=(0.33, 0.60, 0.73),
        hematoxylin_gain=0.9,
        noise=0.9,
    ),
    Profile(
        "steel-blue",
        white_rgb=(247.0, 247.0, 247.0),
        hematoxylin=(0.76, 0.58, 0.29),
        hematoxylin_gain=1.05,
        dab=(0.25, 0.55, 0.797),
        gamma=0.9,
        blur_um=0.25,
        noise=0.5,
        sharpen=0.5,
    ),
)

#: Never trained on: for measuring how a model meets a new laboratory.
UNSEEN = Profile(
    "unseen",
    white_rgb=(229.0, 234.0, 236.0),
    hematoxylin=(0.70, 0.64, 0.31),
    dab=(0.32, 0.555, 0.768),
    hematoxylin_gain=1.6,
    dab_gain=0.95,
    gamma=0.93,
    blur_um=0.65,
    noise=1.3,
    jpeg_quality=80,
)


def profile_by_name(name: str) -> Profile:
    """The named profile; `unseen` is the held-out one."""
    for profile in (*PROFILES, UNSEEN):
        if profile.name == name:
            return profile
    known = [profile.name for profile in (*PROFILES, UNSEEN)]
    raise ValueError(f"need a profile of {known}, got {name!r}")


def turned(
    rng: np.random.Generator, vector: tuple[float, float, float], spread: float
) -> tuple[float, float, float]:
    """A unit vector near another: `spread` is the sigma of each part."""
    moved = np.maximum(np.array(vector) + rng.normal(0.0, spread, 3), 0.05)
    moved /= np.linalg.norm(moved)
    return float(moved[0]), float(moved[1]), float(moved[2])


def bluish(vector: tuple[float, float, float]) -> tuple[float, float, float]:
    """Hematoxylin passes blue: a vector whose blue is kept under that of the others."""
    red, green, blue = vector
    blue = min(blue, 0.72 * min(red, green))
    norm = float(np.sqrt(red * red + green * green + blue * blue))
    return red / norm, green / norm, blue / norm


def brownish(vector: tuple[float, float, float]) -> tuple[float, float, float]:
    """DAB takes blue most and some red: kept between orange and grey-brown."""
    red, green, blue = vector
    red, blue = max(red, 0.50 * green), max(blue, 1.18 * green)
    norm = float(np.sqrt(red * red + green * green + blue * blue))
    return red / norm, green / norm, blue / norm


def jittered(profile: Profile, rng: np.random.Generator) -> Profile:
    """The same laboratory on another day."""
    white = np.array(profile.white_rgb) + rng.normal(0.0, 3.0) + rng.normal(0.0, 2.5, 3)
    white = np.clip(white, 210.0, 254.0)
    # Most pictures at this spacing are averaged down from a finer, compressed scan.
    compressed = profile.jpeg_quality > 0 and rng.random() < JPEG_SHARE
    quality = int(np.clip(profile.jpeg_quality + rng.integers(-8, 13), 55, 95))
    return replace(
        profile,
        white_rgb=(float(white[0]), float(white[1]), float(white[2])),
        hematoxylin=bluish(turned(rng, profile.hematoxylin, 0.03)),
        dab=brownish(turned(rng, profile.dab, 0.03)),
        hematoxylin_gain=profile.hematoxylin_gain * float(np.exp(rng.normal(0.0, 0.3))),
        dab_gain=profile.dab_gain * float(np.exp(rng.normal(0.0, 0.2))),
        gamma=profile.gamma * float(np.exp(rng.normal(0.0, 0.05))),
        blur_um=profile.blur_um * float(rng.uniform(0.5, 1.5)),
        sharpen=max(0.0, profile.sharpen + float(rng.uniform(-0.3, 0.4))),
        noise=profile.noise * float(rng.uniform(0.5, 1.6)),
        chroma_blur_um=profile.chroma_blur_um * float(rng.uniform(0.2, 2.0)),
        jpeg_quality=quality if compressed else 0,
    )


def box_mean(values: Floats, factor: int) -> Floats:
    """Mean over factor x factor blocks; (H, W) or (H, W, C)."""
    height, width = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(height, factor, width, factor, *values.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def expose(
    amounts: Floats,
    profile: Profile,
    rng: np.random.Generator,
    *,
    spacing_um: float,
    oversampling: int,
) -> npt.NDArray[np.uint8]:
    """Photograph a scene.

    Parameters
    ----------
    amounts
        (3 or 4, h, w), hematoxylin, DAB, pigment and blood at the fine grid; optical
        density.
    profile
        Stain and scanner.
    rng
        Source of the sensor noise.
    spacing_um
        Spacing of the picture.
    oversampling
        Fine pixels per pixel of the picture, per axis. Light is averaged, not density.

    Returns
    -------
        (H, W, 3) uint8.
    """
    vectors = np.array(
        [
            np.array(profile.hematoxylin) * profile.hematoxylin_gain,
            np.array(profile.dab) * profile.dab_gain,
            np.array(PIGMENT),
            np.array(BLOOD),
        ],
        np.float32,
    )
    vectors *= np.float32(-np.log(10.0))
    height, width = (side // oversampling for side in amounts.shape[1:])
    blur = [_taps(profile.blur_um * factor / spacing_um) for factor in BLUR_RGB]
    sharpen = profile.sharpen * float(np.clip(1.0 / spacing_um, 1.0, 3.0))
    mix = _taps(profile.chroma_blur_um / spacing_um)
    halo = max(taps.size for taps in blur) + mix.size + _taps(1.0).size
    step = max(16, _BAND_PX // width)
    rgb = np.empty((height, width, 3), np.uint8)
    white = np.array(profile.white_rgb, np.float32)
    for begin in range(0, height, step):
        end = min(begin + step, height)
        top, bottom = max(0, begin - halo), min(height, end + halo)
        part = amounts[:, top * oversampling : bottom * oversampling]
        light = _light(part, vectors, profile, blur, sharpen, oversampling)
        light *= white[:, None, None]
        bright, *chroma = _split(light)
        inner = slice(begin - top, end - top)
        noise = _noise(rng, (end - begin, width), profile.noise)
        planes = [bright[inner] + noise[0]]
        for plane, extra in zip(chroma, noise[1:], strict=True):
            planes.append(soften(plane, mix)[inner] + extra)
        for channel, plane in enumerate(_joined(*planes)):
            np.rint(plane, out=plane)
            rgb[begin:end, :, channel] = np.clip(plane, 0.0, 255.0)
    if profile.jpeg_quality:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=profile.jpeg_quality)
        rgb = np.asarray(Image.open(buffer).convert("RGB"))
    return rgb


def _light(
    amounts: Floats,
    vectors: Floats,
    profile: Profile,
    blur: list[Floats],
    sharpen: float,
    oversampling: int,
) -> Floats:
    """What passes the slide and the lens, (3, h, w); white is 1."""
    planes = []
    for channel in range(3):
        density = amounts[0] * vectors[0, channel]
        for k in range(1, len(amounts)):
            density += amounts[k] * vectors[k, channel]
        np.exp(density, out=density)
        light = box_mean(density, oversampling) if oversampling > 1 else density
        # Stray light: no scanner sees full black.
        light *= np.float32(0.98)
        light += np.float32(0.02)
        light = soften(light, blur[channel])
        if sharpen:
            soft = soften(light, _taps(1.0))
            soft -= light
            soft *= np.float32(-sharpen)
            light += soft
            np.clip(light, 0.02, 1.1, out=light)
        if profile.gamma != 1.0:
            np.log(light, out=light)
            light *= np.float32(profile.gamma)
            np.exp(light, out=light)
        planes.append(light)
    return np.stack(planes)


def _split(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """Brightness and the differences of blue and red from it (ITU-R BT.601)."""
    bright = rgb[0] * np.float32(0.299)
    bright += rgb[1] * np.float32(0.587)
    bright += rgb[2] * np.float32(0.114)
    return bright, rgb[2] - bright, rgb[0] - bright


def _joined(bright: Floats, blue: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
    """Red, green and blue again."""
    green = bright - blue * np.float32(0.114 / 0.587)
    green -= red * np.float32(0.299 / 0.587)
    return bright + red, green, bright + blue


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float
) -> list[Floats]:
    """Noise of brightness and of both color differences, gray levels."""
    height, width = shape
    taps = _taps(CHROMA_NOISE_PX)
    reach = taps.size // 2
    planes: list[Floats] = [rng.standard_normal(shape, np.float32) * np.float32(sigma)]
    for share in CHROMA_NOISE:
        wide = rng.standard_normal((height + 2 * reach, width), np.float32)
        # Filtering takes variance away: it is given back.
        scale = np.float32(share * sigma / float((taps**2).sum()))
        planes.append(soften(wide, taps)[reach : reach + height] * scale)
    return planes


def _taps(sigma_px: float) -> Floats:
    """Weights of a Gaussian, odd in number; they add to 1."""
    reach = max(1, int(3.0 * sigma_px + 0.5))
    away = np.arange(-reach, reach + 1) / max(sigma_px, 1e-3)
    weights = np.exp(-0.5 * away**2)
    taps: Floats = (weights / weights.sum()).astype(np.float32)
    return taps


def soften(plane: Floats, taps: Floats) -> Floats:
    """Filter rows and columns with the same odd taps; the border is repeated."""
    reach = taps.size // 2
    if reach > 6:
        for axis in (0, 1):
            plane = ndimage.correlate1d(plane, taps, axis=axis, mode="nearest")
        return plane
    padded = np.pad(plane, reach, mode="edge")
    height, width = plane.shape
    rows = padded[reach : reach + height] * taps[reach]
    for k in range(1, reach + 1):
        pair = (
            padded[reach - k : reach - k + height]
            + padded[reach + k : reach + k + height]
        )
        pair *= taps[reach + k]
        rows += pair
    out: Floats = rows[:, reach : reach + width] * taps[reach]
    for k in range(1, reach + 1):
        pair = (
            rows[:, reach - k : reach - k + width]
            + rows[:, reach + k : reach + k + width]
        )
        pair *= taps[reach + k]
        out += pair
    return out
