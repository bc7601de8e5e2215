# SPDX-License-Identifier: Apache-2.0
"""Training pictures: many small phantoms, each photographed several times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from her2fast.phantom import PROFILES, Profile, compose_scene, develop
from her2fast.phantom.fields import generator

#: Patches with at most this share of tumor are neither trained on nor scored.
MIN_TUMOR = 0.10

#: Seeds of training scenes start here; evaluation and demo use others.
FIRST_SEED = 1_000_000


@dataclass(frozen=True)
class Pictures:
    """Phantoms of one size."""

    rgb: npt.NDArray[np.uint8]  # (scenes, exposures, H, W, 3)
    class_map: npt.NDArray[np.int8]  # (scenes, H, W)


def random_mixture(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A slide's class shares: often one class rules, sometimes all four are there."""
    shares = rng.dirichlet([0.5, 0.5, 0.5, 0.5])
    shares[shares < 0.03] = 0.0
    shares /= shares.sum()
    return float(shares[0]), float(shares[1]), float(shares[2]), float(shares[3])


def make_pictures(
    count: int,
    size_px: int,
    exposures: int,
    *,
    first_seed: int = FIRST_SEED,
    profiles: tuple[Profile, ...] = PROFILES,
    empty_share: float = 0.08,
) -> Pictures:
    """Render `count` scenes of size_px x size_px at 1 um/px."""
    rgb = np.empty((count, exposures, size_px, size_px, 3), np.uint8)
    class_map = np.empty((count, size_px, size_px), np.int8)
    for index in range(count):
        seed = first_seed + index
        rng = generator(seed, 7)
        mixture = random_mixture(rng)
        tumor = bool(rng.random() >= empty_share)
        scene = compose_scene(seed, (size_px, size_px), mixture=mixture, tumor=tumor)
        looks = rng.permutation(len(profiles))
        for exposure in range(exposures):
            look = profiles[int(looks[exposure % len(profiles)])]
            phantom = develop(scene, look, seed * 16 + exposure, spacing_um=1.0)
            rgb[index, exposure] = phantom.rgb
            class_map[index] = phantom.class_map
    return Pictures(rgb, class_map)


def cached_pictures(
    path: Path | None, count: int, size: int, exposures: int
) -> Pictures:
    """`make_pictures`, kept in a file between runs of an experiment."""
    if path is not None and path.is_file():
        with np.load(path) as stored:
            return Pictures(stored["rgb"], stored["class_map"])
    pictures = make_pictures(count, size, exposures)
    if path is not None:
        np.savez(path, rgb=pictures.rgb, class_map=pictures.class_map)
    return pictures


def patch_areas(
    class_map: npt.NDArray[np.int8], patch_px: int, stride_px: int
) -> npt.NDArray[np.int64]:
    """Tumor pixels of each class in each patch, (rows, columns, 4)."""
    planes = []
    for kind in range(4):
        total = np.zeros((class_map.shape[0] + 1, class_map.shape[1] + 1), np.int64)
        total[1:, 1:] = (class_map == kind).cumsum(0).cumsum(1)
        low = slice(0, -patch_px, stride_px)
        high = slice(patch_px, None, stride_px)
        planes.append(
            total[high, high] - total[low, high] - total[high, low] + total[low, low]
        )
    return np.stack(planes, axis=-1)


def normalize(
    rgb: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, as `config.json` states."""
    scaled = rgb.permute(0, 3, 1, 2).float() / 255.0
    offset = torch.tensor(mean).view(1, 3, 1, 1)
    return (scaled - offset) / torch.tensor(std).view(1, 3, 1, 1)


def augment(rgb: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Small changes of scanner and stain: (N, H, W, 3) uint8 in, the same out."""
    count = rgb.shape[0]

    def near_one(spread: float, channels: int) -> torch.Tensor:
        drawn = torch.randn(count, 1, 1, channels, generator=random) * spread
        return drawn.clamp(-2.0 * spread, 2.0 * spread).exp()

    values = rgb.float() / 255.0
    values = values.clamp(min=1e-3) ** near_one(0.06, 1) * near_one(0.02, 3)
    gray = values.mean(-1, keepdim=True)
    values = gray + (values - gray) * near_one(0.12, 1)
    planes = values.permute(0, 3, 1, 2)
    if torch.rand(1, generator=random).item() < 0.3:
        soft = functional.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
        share = torch.rand(count, 1, 1, 1, generator=random)
        planes = planes + (soft - planes) * share
    elif torch.rand(1, generator=random).item() < 0.3:
        soft = functional.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
        planes = planes + (planes - soft) * torch.rand(count, 1, 1, 1, generator=random)
    noise = torch.randn(planes.shape, generator=random) * 0.006
    mixed = ((planes + noise) * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
    return mixed.permute(0, 2, 3, 1)


def _turned(picture: npt.NDArray[np.uint8], turn: int) -> npt.NDArray[np.uint8]:
    turned = np.rot90(picture, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def patch_batches(
    pictures: Pictures, batch: int, patch_px: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (N, P, P, 3) uint8 patches, class-balanced, with (N, 4) class shares."""
    rng = generator(seed, 11)
    random = torch.Generator().manual_seed(seed)
    stride = 16
    places: list[list[tuple[int, int, int]]] = [[], [], [], []]
    areas = [patch_areas(one, patch_px, stride) for one in pictures.class_map]
    for scene, area in enumerate(areas):
        kept = area.sum(-1) > MIN_TUMOR * patch_px * patch_px
        for row, column in np.argwhere(kept).tolist():
            places[int(area[row, column].argmax())].append((scene, row, column))
    kinds = [kind for kind in range(4) if places[kind]]
    if not kinds:
        raise ValueError("need at least one patch with tumor in the pictures")
    exposures = pictures.rgb.shape[1]
    for step in itertools.count():
        rgb = np.empty((batch, patch_px, patch_px, 3), np.uint8)
        shares = np.empty((batch, 4), np.float32)
        for item in range(batch):
            kind = kinds[(item + step) % len(kinds)]
            scene, row, column = places[kind][rng.integers(len(places[kind]))]
            area = areas[scene][row, column]
            shares[item] = area / area.sum()
            y, x = row * stride, column * stride
            source = pictures.rgb[scene, rng.integers(exposures)]
            crop = source[y : y + patch_px, x : x + patch_px]
            rgb[item] = _turned(crop, int(rng.integers(8)))
        yield augment(torch.from_numpy(rgb), random), torch.from_numpy(shares)


def crop_batches(
    pictures: Pictures, batch: int, crop_px: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (N, C, C, 3) uint8 crops with their (N, 1, C, C) float tumor mask."""
    rng = generator(seed, 13)
    random = torch.Generator().manual_seed(seed + 1)
    scenes, exposures, height, width, _ = pictures.rgb.shape
    while True:
        rgb = np.empty((batch, crop_px, crop_px, 3), np.uint8)
        mask = np.empty((batch, 1, crop_px, crop_px), np.float32)
        for item in range(batch):
            scene = int(rng.integers(scenes))
            y = int(rng.integers(height - crop_px + 1))
            x = int(rng.integers(width - crop_px + 1))
            turn = int(rng.integers(8))
            source = pictures.rgb[scene, rng.integers(exposures)]
            rgb[item] = _turned(source[y : y + crop_px, x : x + crop_px], turn)
            truth = pictures.class_map[scene, y : y + crop_px, x : x + crop_px] >= 0
            mask[item, 0] = _turned(truth.astype(np.uint8), turn)
        yield augment(torch.from_numpy(rgb), random), torch.from_numpy(mask)
