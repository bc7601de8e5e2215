# SPDX-License-Identifier: Apache-2.0
"""Training pictures: many small phantoms, each photographed several times."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from her2fast import phantom
from her2fast.errors import UsageError
from her2fast.phantom import Profile, StromaMix, compose_scene, develop
from her2fast.phantom.fields import generator
from her2fast.training.coding import Coding, code, halved
from her2fast.training.hard_negatives import spoil
from her2fast.training.looks import FOR_CLASSES, FOR_TUMOR, augment, wide_profile

#: Patches with at most this share of tumor are neither trained on nor scored.
MIN_TUMOR = 0.10

#: Logarithm of the largest error of a stated spacing.
SPACING_SPREAD = 0.10

#: Weight of unstained tumor in the segmenter's loss: what is missed most.
UNSTAINED_WEIGHT = 1.25

#: Probabilities of each thing in scenes that are crowded with what is no tumor.
CROWDED = (0.1, 0.7)

#: Seeds of training scenes start here; evaluation and demo use others.
FIRST_SEED = 1_000_000
#: Scenes that set the cuts of the domain.
DOMAIN_SEED = 3_000_000


@dataclass(frozen=True)
class Pictures:
    """Phantoms of one size."""

    rgb: npt.NDArray[np.uint8]  # (scenes, exposures, H, W, 3)
    class_map: npt.NDArray[np.int8]  # (scenes, H, W)
    #: What `rgb` is the means of, at half of its spacing: (scenes, exposures, 2 H, 2 W,
    #: 3); compressing it loses what compressing a finer level of a slide does.
    finer: npt.NDArray[np.uint8] | None = None


def random_mixture(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A slide's class shares: often one class rules, sometimes all four are there.

    A quarter of the slides has no stain at all: the tumor that is missed most.
    """
    if rng.random() < 0.25:
        return 1.0, 0.0, 0.0, 0.0
    shares = rng.dirichlet([0.5, 0.5, 0.5, 0.5])
    shares[shares < 0.03] = 0.0
    shares /= shares.sum()
    return float(shares[0]), float(shares[1]), float(shares[2]), float(shares[3])


def crowded_mix(rng: np.random.Generator) -> StromaMix:
    """Chances of each thing that is no tumor, all drawn alike: most rise by far."""
    chances = {
        one.name: float(rng.uniform(*CROWDED))
        for one in fields(StromaMix)
        if one.name != "tumor_nuclear_dab"  # a look of tumor
    }
    return StromaMix(**chances)


#: Draws the stain and the scanner of an exposure; a function of a module, so that other
#: processes find it.
Laboratory = Callable[[np.random.Generator], Profile]


@dataclass(frozen=True)
class Plan:
    """How one size of scenes is rendered."""

    size_px: int
    exposures: int
    empty_share: float
    laboratory: Laboratory = wide_profile
    raw: bool = False
    #: Pixels to one of 1 um along a side; `size_px` counts the latter.
    scale: int = 1
    #: Share of the scenes that are crowded with what is no tumor.
    crowded: float = 0.0


Exposures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]


def render_scene(plan: Plan, seed: int) -> Exposures:
    """One scene's (E, H, W, 3) pictures and (H, W) classes: a function of the seed.

    H and W are `size_px` times `scale`.
    """
    size = (plan.size_px * plan.scale, plan.size_px * plan.scale)
    rgb = np.empty((plan.exposures, *size, 3), np.uint8)
    rng = generator(seed, 7)
    mixture = random_mixture(rng)
    tumor = bool(rng.random() >= plan.empty_share)
    # A stated spacing is wrong by some percent, and cells differ in size.
    spacing_um = float(np.exp(rng.uniform(-SPACING_SPREAD, SPACING_SPREAD)))
    spacing_um /= plan.scale
    mix = None
    if plan.crowded > 0.0 and rng.random() < plan.crowded:
        mix = crowded_mix(rng)
    scene = compose_scene(
        seed, size, spacing_um=spacing_um, mixture=mixture, tumor=tumor, mix=mix
    )
    for exposure in range(plan.exposures):
        look = plan.laboratory(rng)
        if plan.raw:  # what compressing does is varied while training (coding.py)
            look = replace(look, jpeg_quality=0)
        made = develop(scene, look, seed * 16 + exposure, spacing_um=spacing_um)
        rgb[exposure] = made.rgb
        class_map = np.array(made.class_map)
    spoil(rng, rgb, class_map, plan.scale)
    return rgb, class_map


def make_pictures(
    count: int,
    size_px: int,
    exposures: int,
    *,
    first_seed: int = FIRST_SEED,
    laboratory: Laboratory = wide_profile,
    empty_share: float = 0.08,
    processes: int = 1,
    raw: bool = False,
    finer: bool = False,
    crowded: float = 0.0,
) -> Pictures:
    """Render `count` scenes of size_px x size_px, at 1 um/px within SPACING_SPREAD.

    Every exposure has a stain and a scanner of its own; each is compressed by JPEG as
    its `laboratory` says, or none where `raw`. `finer` draws and keeps them at half of
    the spacing, too. Of the scenes `crowded` is the share with much that is no tumor.
    The bytes do not depend on `processes`.
    """
    rgb = np.empty((count, exposures, size_px, size_px, 3), np.uint8)
    class_map = np.empty((count, size_px, size_px), np.int8)
    fine, scale = None, 1
    if finer:
        scale = 2
        fine = np.empty((count, exposures, 2 * size_px, 2 * size_px, 3), np.uint8)
    plan = Plan(size_px, exposures, empty_share, laboratory, raw, scale, crowded)
    seeds = range(first_seed, first_seed + count)
    done: Iterable[Exposures]
    with contextlib.ExitStack() as stack:
        if processes > 1:
            # Not forked: torch has threads already.
            pool = get_context("spawn").Pool(processes)
            stack.enter_context(pool)
            done = pool.imap(partial(render_scene, plan), seeds, chunksize=4)
        else:
            done = map(partial(render_scene, plan), seeds)
        for index, (pictures, classes) in enumerate(done):
            class_map[index] = classes[::scale, ::scale]
            if fine is None:
                rgb[index] = pictures
            else:
                rgb[index], fine[index] = halved(pictures), pictures
    return Pictures(rgb, class_map, fine)


def cached_pictures(
    path: Path | None,
    count: int,
    size: int,
    exposures: int,
    processes: int,
    *,
    first_seed: int = FIRST_SEED,
    laboratory: Laboratory = wide_profile,
    raw: bool = False,
    finer: bool = False,
    crowded: float = 0.0,
) -> Pictures:
    """`make_pictures`, kept in a file between runs of an experiment.

    Raises `UsageError` where the file holds pictures of other arguments, or of another
    generator.
    """
    key = {
        "count": count,
        "size_px": size,
        "exposures": exposures,
        "raw": raw,
        "finer": finer,
        "crowded": crowded,
        "laboratory": laboratory.__name__,
        "first_seed": first_seed,
        "phantom_sources_sha256": phantom_sources_sha256(),
    }
    if path is not None and path.is_file():
        with np.load(path) as stored:
            held = json.loads(str(stored["key"])) if "key" in stored else {}
            check_same(path, held, key, "--cache")
            fine = stored["finer"] if finer else None
            return Pictures(stored["rgb"], stored["class_map"], fine)
    pictures = make_pictures(
        count,
        size,
        exposures,
        first_seed=first_seed,
        laboratory=laboratory,
        processes=processes,
        raw=raw,
        finer=finer,
        crowded=crowded,
    )
    if path is not None:
        arrays: dict[str, Any] = {"rgb": pictures.rgb, "class_map": pictures.class_map}
        if pictures.finer is not None:
            arrays["finer"] = pictures.finer
        with path.open("wb") as file:  # of a bare path NumPy changes the name
            np.savez(file, key=json.dumps(key), **arrays)
    return pictures


def phantom_sources_sha256() -> str:
    """SHA-256 over the generator's source files, which the pictures depend on."""
    digest = hashlib.sha256()
    for path in sorted(Path(phantom.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def pictures_sha256(pictures: Pictures) -> str:
    """SHA-256 over shapes and pixels, and over the classes."""
    digest = hashlib.sha256()
    arrays = [pictures.rgb, pictures.class_map]
    if pictures.finer is not None:
        arrays.append(pictures.finer)
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_same(
    path: Path, held: Mapping[str, Any], wanted: Mapping[str, Any], option: str
) -> None:
    """Raises `UsageError` where what `path` holds was made otherwise than wanted."""
    other = [name for name in wanted if held.get(name, ...) != wanted[name]]
    if other:
        said = ", ".join(
            f"{name}={held.get(name, 'unknown')} for {wanted[name]}" for name in other
        )
        raise UsageError(
            f"{path}: was made with {said}; name another {option}, or remove it"
        )


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


Picture = TypeVar("Picture", npt.NDArray[np.uint8], npt.NDArray[np.int8])


def _turned(picture: Picture, turn: int) -> Picture:
    turned = np.rot90(picture, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _zoomed(
    rgb: torch.Tensor, truth: torch.Tensor, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the batches with larger cells: the middle, brought to full size."""
    if torch.rand(1, generator=random).item() < 0.5:
        return rgb, truth
    side = rgb.shape[1]
    kept = int(side * (0.75 + 0.25 * torch.rand(1, generator=random).item()))
    first = (side - kept) // 2
    inner = slice(first, first + kept)
    planes = rgb[:, inner, inner].permute(0, 3, 1, 2).float()
    large = functional.interpolate(
        planes, size=(side, side), mode="bilinear", align_corners=False
    )
    pixels = large.round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)
    return pixels, functional.interpolate(truth[:, :, inner, inner], size=(side, side))


def patch_batches(
    pictures: Pictures,
    batch: int,
    patch_px: int,
    seed: int,
    coding: Coding | None = None,
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
        looks = augment(torch.from_numpy(rgb), random, FOR_CLASSES)
        yield _coded(looks, random, coding), torch.from_numpy(shares)


def scene_patches(
    pictures: Pictures, patch_px: int, seed: int, coding: Coding | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Per scene with tumor (N, P, P, 3) uint8 patches and their (N,) tumor pixels."""
    random = torch.Generator().manual_seed(seed)
    for scene, class_map in enumerate(pictures.class_map):
        tumor = patch_areas(class_map, patch_px, patch_px).sum(-1)
        places = np.argwhere(tumor > MIN_TUMOR * patch_px * patch_px)
        if not len(places):
            continue
        source = pictures.rgb[scene, scene % pictures.rgb.shape[1]]
        crops = [
            source[y : y + patch_px, x : x + patch_px]
            for y, x in (places * patch_px).tolist()
        ]
        # One laboratory and scanner a scene: the same numbers for all its patches.
        rows = torch.from_numpy(np.concatenate(crops)[None])
        whole = _coded(augment(rows, random, FOR_CLASSES), random, coding)[0]
        area = torch.from_numpy(tumor[places[:, 0], places[:, 1]])
        yield whole.reshape(len(crops), patch_px, patch_px, 3), area


def crop_batches(
    pictures: Pictures,
    batch: int,
    crop_px: int,
    seed: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (N, C, C, 3) uint8 crops with (N, 2, C, C) float: tumor, and weight."""
    rng = generator(seed, 13)
    random = torch.Generator().manual_seed(seed + 1)
    scenes, exposures, height, width, _ = pictures.rgb.shape
    while True:
        rgb = np.empty((batch, crop_px, crop_px, 3), np.uint8)
        mask = np.empty((batch, 2, crop_px, crop_px), np.float32)
        for item in range(batch):
            scene = int(rng.integers(scenes))
            y = int(rng.integers(height - crop_px + 1))
            x = int(rng.integers(width - crop_px + 1))
            turn = int(rng.integers(8))
            source = pictures.rgb[scene, rng.integers(exposures)]
            rgb[item] = _turned(source[y : y + crop_px, x : x + crop_px], turn)
            truth = pictures.class_map[scene, y : y + crop_px, x : x + crop_px]
            kinds = _turned(truth, turn)
            mask[item, 0] = kinds >= 0
            mask[item, 1] = np.where(kinds == 0, UNSTAINED_WEIGHT, 1.0)
        looks, truth_of = _zoomed(torch.from_numpy(rgb), torch.from_numpy(mask), random)
        yield augment(looks, random, FOR_TUMOR), truth_of


def _coded(
    rgb: torch.Tensor, random: torch.Generator, coding: Coding | None
) -> torch.Tensor:
    return rgb if coding is None else code(rgb, random, coding)
