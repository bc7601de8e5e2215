# SPDX-License-Identifier: Apache-2.0
"""Figures of the small package: fresh phantoms, an unseen stain, real cores.

    python -m her2fast.training.tiny_evaluation --package DIR [--cores DIR]

This is the method in plain NumPy and torch, without the tissue rule; the scorer proper
is the core's session.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from her2fast.phantom import PROFILES, UNSEEN, Phantom, compose_scene, develop
from her2fast.phantom.fields import generator
from her2fast.training.coding import FULL_COLOR, QUARTER_COLOR, coded
from her2fast.training.packages import MEAN, STD
from her2fast.training.phantom_data import (
    MIN_TUMOR,
    normalize,
    patch_areas,
    random_mixture,
)

#: Far from the seeds of training (1,000,000 on) and of the demo slide.
TEST_SEED = 5_000_000
TILE_PX, HALO_PX, PATCH_PX = 256, 32, 64
#: Stored levels of the working spacing: name, quality, colors.
CODINGS = (
    ("444_q70", 70, FULL_COLOR),
    ("420_q70", 70, QUARTER_COLOR),
    ("420_q80", 80, QUARTER_COLOR),
    ("420_q90", 90, QUARTER_COLOR),
)


@torch.inference_mode()
def tumor_mask(
    segmenter: torch.nn.Module, rgb: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """(H, W, 3) uint8 -> (H, W) tumor at p >= 0.5, tile by tile with a white halo."""
    height, width = rgb.shape[:2]
    down, across = -(-height // TILE_PX), -(-width // TILE_PX)
    white = np.full(
        (down * TILE_PX + 2 * HALO_PX, across * TILE_PX + 2 * HALO_PX, 3), 255, np.uint8
    )
    white[HALO_PX : HALO_PX + height, HALO_PX : HALO_PX + width] = rgb
    mask = np.zeros((down * TILE_PX, across * TILE_PX), np.bool_)
    side = TILE_PX + 2 * HALO_PX
    for y in range(0, down * TILE_PX, TILE_PX):
        for x in range(0, across * TILE_PX, TILE_PX):
            tile = torch.from_numpy(white[y : y + side, x : x + side][None].copy())
            logits = segmenter(normalize(tile, MEAN, STD))[0, 0].numpy()
            mask[y : y + TILE_PX, x : x + TILE_PX] = (
                logits[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX] >= 0.0
            )
    return mask[:height, :width]


@torch.inference_mode()
def patch_logits(
    classifier: torch.nn.Module, rgb: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """(H, W, 3) uint8 -> (rows, columns, 4) logits of the whole 64 px patches."""
    rows, columns = rgb.shape[0] // PATCH_PX, rgb.shape[1] // PATCH_PX
    cut = rgb[: rows * PATCH_PX, : columns * PATCH_PX]
    blocks = cut.reshape(rows, PATCH_PX, columns, PATCH_PX, 3).swapaxes(1, 2)
    flat = torch.from_numpy(blocks.reshape(-1, PATCH_PX, PATCH_PX, 3).copy())
    parts = [classifier(normalize(part, MEAN, STD)) for part in torch.split(flat, 32)]
    # What follows the classes are distances, not logits.
    logits: npt.NDArray[np.float32] = torch.cat(parts)[:, :4].numpy()
    return logits.reshape(rows, columns, -1)


def class_areas(
    mask: npt.NDArray[np.bool_], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Tumor pixels of each predicted class, over patches with more than 10 % tumor."""
    tumor = patch_areas(np.where(mask, 0, -1).astype(np.int8), PATCH_PX, PATCH_PX)[
        ..., 0
    ]
    kept = tumor > MIN_TUMOR * PATCH_PX * PATCH_PX
    predicted = logits.argmax(-1)[kept]
    return np.bincount(predicted, weights=tumor[kept], minlength=4).astype(np.int64)


def _macro_f1(confusion: npt.NDArray[np.int64]) -> float:
    hits = np.diag(confusion)
    both = confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2.0 * hits[both > 0] / both[both > 0]))


def _test_phantoms(
    count: int, size_px: int, unseen: bool, *, raw: bool = False
) -> list[Phantom]:
    phantoms = []
    for index in range(count):
        seed = TEST_SEED + index
        rng = generator(seed, 7)
        scene = compose_scene(seed, (size_px, size_px), mixture=random_mixture(rng))
        look = UNSEEN if unseen else PROFILES[index % len(PROFILES)]
        if raw:
            look = replace(look, jpeg_quality=0)
        phantoms.append(develop(scene, look, seed, spacing_um=1.0))
    return phantoms


def evaluate_phantoms(
    segmenter: torch.nn.Module,
    classifier: torch.nn.Module,
    *,
    count: int,
    size_px: int = 512,
) -> dict[str, dict[str, Any]]:
    """Macro-F1 of patches, Dice of tumor, error of class shares."""
    figures: dict[str, dict[str, Any]] = {}
    for name, unseen in (("known_profiles", False), ("unseen_profile", True)):
        confusion = np.zeros((4, 4), np.int64)
        overlap = found = there = 0
        errors = []
        for phantom in _test_phantoms(count, size_px, unseen):
            areas = patch_areas(phantom.class_map, PATCH_PX, PATCH_PX)
            kept = areas.sum(-1) > MIN_TUMOR * PATCH_PX * PATCH_PX
            logits = patch_logits(classifier, phantom.rgb)
            np.add.at(confusion, (areas.argmax(-1)[kept], logits.argmax(-1)[kept]), 1)
            mask = tumor_mask(segmenter, phantom.rgb)
            overlap += int((mask & phantom.tumor_mask).sum())
            found += int(mask.sum())
            there += int(phantom.tumor_mask.sum())
            scored = class_areas(mask, logits)
            if scored.sum() and phantom.tumor_mask.any():
                shares = scored / scored.sum()
                errors.append(np.abs(shares - np.array(phantom.fractions)).mean())
        figures[name] = {
            "phantoms": count,
            "patches": int(confusion.sum()),
            "macro_f1": round(_macro_f1(confusion), 4),
            "tumor_dice": round(2.0 * overlap / max(found + there, 1), 4),
            "fraction_mae": round(float(np.mean(errors)), 4) if errors else None,
            "confusion": confusion.tolist(),
        }
    return figures


def evaluate_coding(
    segmenter: torch.nn.Module,
    classifier: torch.nn.Module,
    *,
    count: int,
    size_px: int = 512,
) -> dict[str, dict[str, Any]]:
    """What compressing raw phantoms changes: points of class shares, flips, tumor.

    `points` is the largest difference of a class's share of one phantom's tumor, in
    percent points; `pooled_points` that of all phantoms' tumor together.
    """
    phantoms = [
        phantom
        for unseen in (False, True)
        for phantom in _test_phantoms(count, size_px, unseen, raw=True)
    ]
    before = [_measured(segmenter, classifier, phantom.rgb) for phantom in phantoms]
    figures: dict[str, dict[str, Any]] = {}
    for name, quality, colors in CODINGS:
        points, flips = [], []
        total = np.zeros((2, 4), np.int64)
        for phantom, (areas, kinds) in zip(phantoms, before, strict=True):
            rgb = coded(phantom.rgb, quality, colors)
            found, others = _measured(segmenter, classifier, rgb)
            total += np.stack([areas, found])
            tumor = patch_areas(phantom.class_map, PATCH_PX, PATCH_PX).sum(-1)
            kept = tumor > MIN_TUMOR * PATCH_PX * PATCH_PX
            flips.append((kinds != others)[kept])
            if areas.sum() and found.sum():
                points.append(_points(areas, found))
        figures[name] = {
            "phantoms": len(phantoms),
            "mean_points": round(float(np.mean(points)), 2),
            "worst_points": round(float(np.max(points)), 2),
            "pooled_points": round(_points(*total), 2),
            "patches_changed": round(float(np.concatenate(flips).mean()), 4),
            "tumor_change": round(float(total[1].sum() / total[0].sum() - 1.0), 4),
        }
    return figures


def _measured(
    segmenter: torch.nn.Module,
    classifier: torch.nn.Module,
    rgb: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    logits = patch_logits(classifier, rgb)
    return class_areas(tumor_mask(segmenter, rgb), logits), logits.argmax(-1)


def _points(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    return float(100.0 * np.abs(one / one.sum() - other / other.sum()).max())


def evaluate_picture(
    segmenter: torch.nn.Module,
    classifier: torch.nn.Module,
    rgb: npt.NDArray[np.uint8],
) -> dict[str, Any]:
    """Class shares of a picture at 1 um/px."""
    mask = tumor_mask(segmenter, rgb)
    areas = class_areas(mask, patch_logits(classifier, rgb))
    total = max(int(areas.sum()), 1)
    shares = areas / total
    return {
        "tumor_mm2": round(float(areas.sum()) * 1e-6, 4),
        "shares": [round(float(share), 4) for share in shares],
        "share_2_3": round(float(shares[2] + shares[3]), 4),
        "mean_class": round(float((shares * np.arange(4)).sum()), 3),
    }


def load_model(folder: Path) -> torch.jit.ScriptModule:
    """The TorchScript of a package this module's author wrote (no hash is checked)."""
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream; the package format is settled.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            str(folder / "torchscript_model.pt"), map_location="cpu"
        )
    return model


def read_core(path: Path, spacing_um: float) -> npt.NDArray[np.uint8]:
    """A picture brought to 1 um/px by area averaging."""
    with Image.open(path) as image:
        size = (round(image.width * spacing_um), round(image.height * spacing_um))
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--cores", type=Path, help="folder of core_*.jpg at 0.24 um/px")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    segmenter = load_model(chosen.package / "segment")
    classifier = load_model(chosen.package / "classify")
    if chosen.phantoms:
        figures = evaluate_phantoms(segmenter, classifier, count=chosen.phantoms)
        figures |= evaluate_coding(segmenter, classifier, count=chosen.phantoms)
        for name, values in figures.items():
            sys.stdout.write(f"{name}: {values}\n")
    if chosen.cores:
        for path in sorted(chosen.cores.glob("core_*.jpg")):
            values = evaluate_picture(segmenter, classifier, read_core(path, 0.24))
            sys.stdout.write(f"{path.stem}: {values}\n")


if __name__ == "__main__":
    main()
