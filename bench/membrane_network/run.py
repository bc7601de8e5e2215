# SPDX-License-Identifier: Apache-2.0
"""What does the membrane network find, and how fast? See README.md."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from her2fast import phantom
from her2fast.kernels.cells import classify_cells, find_cells
from her2fast.membranes import NetworkFinder
from her2fast.methods.glass import glass_of_picture
from her2fast.methods.membrane import Finder, halo_of
from her2fast.methods.membrane_picture import find_in_picture, tiles_with_halo
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.runner import one_intra_op_thread
from her2fast.models.trust import SHIPPED_DIR

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import machine, tell, versions

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CLASSES = ("0", "1+", "2+", "3+")
SPACINGS_UM = (0.25, 0.5, 1.0)
#: Seeds of no training (1,000,000 on; of this network 1,500,000 on).
FIRST_SEED = 9_300_000
NUCLEAR_SEED = 9_350_000
#: Tumor without membrane and with brown nuclei, in all tissue.
NUCLEAR_MIX = phantom.StromaMix(
    nuclear_dab=1.0, tumor_nuclear_dab=1.0, benign_stained=0.0
)
#: Cells are found on a grid of two pixels.
STEP, GRID_UM = 2, 0.5
#: The 2+ crop is about 1,000 px resampled to 323.
CROP_FACTOR = 3


def membranes(runner: Finder, tile_px: int, rgb: Rgb) -> Mask:
    """The network's membrane of a picture at its spacing, tile by tile, white outside.

    Tiles begin at the picture's corner; of each the network sees its halo as well.
    """
    columns = -(-rgb.shape[1] // tile_px)
    return find_in_picture(runner, rgb, tile_px=tile_px, batch_size=columns) > 0


def coarsened(rgb: Rgb, factor: int) -> Rgb:
    """What is left of a picture read `factor` times coarser, at its size again."""
    if factor == 1:
        return rgb
    height, width = rgb.shape[:2]
    blocks = rgb.reshape(height // factor, factor, width // factor, factor, 3)
    small = np.rint(blocks.mean((1, 3))).astype(np.uint8)
    picture = Image.fromarray(small)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def counts(found: Mask, truth: Mask, where: Mask) -> npt.NDArray[np.int64]:
    """Pixels that are right, invented and missed."""
    return np.array(
        [
            (found & truth & where).sum(),
            (found & ~truth & where).sum(),
            (~found & truth & where).sum(),
        ],
        np.int64,
    )


def figures(total: npt.NDArray[np.int64]) -> dict[str, float]:
    """Dice (which is F1 of the pixels), precision and recall."""
    right, invented, missed = (int(v) for v in total)
    return {
        "dice": round(2 * right / max(2 * right + invented + missed, 1), 4),
        "precision": round(right / max(right + invented, 1), 4),
        "recall": round(right / max(right + missed, 1), 4),
        "true_px": right + missed,
    }


def scenes(profile: str, count: int, side_px: int) -> Iterator[tuple[int, Any]]:
    """`count` phantoms of each class, one class a picture; pairs of class, phantom."""
    for kind in range(4):
        mixture = tuple(float(kind == other) for other in range(4))
        for index in range(count):
            seed = FIRST_SEED + 100 * kind + index
            yield (
                kind,
                phantom.render(
                    seed,
                    (side_px, side_px),
                    spacing_um=0.25,
                    mixture=mixture,  # type: ignore[arg-type]
                    profile=profile,
                ),
            )


def on_phantoms(
    runner: Finder, tile_px: int, profile: str, count: int, pictures: Path | None
) -> dict[str, Any]:
    """By class and by the spacing that was left, on the truth at 0.25 um/px."""
    totals = np.zeros((len(SPACINGS_UM), 4, 3), np.int64)
    outside = np.zeros((len(SPACINGS_UM), 2), np.int64)
    for kind, picture in scenes(profile, count, 2 * tile_px):
        tumor = picture.tumor_mask
        for level, spacing in enumerate(SPACINGS_UM):
            rgb = coarsened(picture.rgb, round(spacing / 0.25))
            found = membranes(runner, tile_px, rgb)
            whole = np.ones_like(tumor)
            totals[level, kind] += counts(found, picture.membrane_mask, whole)
            away = ~tumor
            outside[level] += [(found & away).sum(), away.sum()]
            if pictures is not None and spacing == 0.25:
                name = pictures / f"{profile}-{kind}-{picture_name(picture)}.png"
                save_overlay(name, picture.rgb, found, picture.membrane_mask)
    out: dict[str, Any] = {}
    for level, spacing in enumerate(SPACINGS_UM):
        by_class = {
            name: figures(totals[level, kind]) for kind, name in enumerate(CLASSES)
        }
        out[f"{spacing:g}"] = {
            **figures(totals[level].sum(0)),
            "by_class": by_class,
            "called_off_tumor_share": round(
                float(outside[level, 0] / max(outside[level, 1], 1)), 5
            ),
        }
    return out


def picture_name(picture: Any) -> str:
    """A short name that tells pictures apart."""
    return f"{int(picture.rgb.astype(np.int64).sum()) % 100_000:05d}"


def save_overlay(path: Path, rgb: Rgb, found: Mask, truth: Mask) -> None:
    """Picture, then what was found: green right, red invented, blue missed."""
    shown = (rgb // 2 + 110).astype(np.uint8)
    shown[found & truth] = (0, 140, 0)
    shown[found & ~truth] = (220, 0, 0)
    shown[~found & truth] = (0, 0, 230)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([rgb, shown], 1)).save(path)


def on_expert_crop(
    runner: Finder, tile_px: int, data: Path, pictures: Path | None
) -> dict[str, Any]:
    """One breast 2+ crop and an expert's mask; at its own size, 323 px."""
    rgb = np.asarray(Image.open(data / "breast_2plus.png").convert("RGB"))
    expert = np.asarray(
        Image.open(data / "breast_2plus_membrane_mask.png").convert("L")
    )
    truth = expert > 127
    side = tuple(CROP_FACTOR * v for v in rgb.shape[1::-1])
    large = np.asarray(Image.fromarray(rgb).resize(side, Image.Resampling.BICUBIC))
    fine = membranes(runner, tile_px, large)
    blocks = fine.reshape(rgb.shape[0], CROP_FACTOR, rgb.shape[1], CROP_FACTOR).sum(
        (1, 3)
    )
    found = 2 * blocks >= CROP_FACTOR**2
    if pictures is not None:
        save_overlay(pictures / "breast_2plus.png", rgb, found, truth)
    near = grown(truth)
    return {
        "crops": 1,
        **figures(counts(found, truth, np.ones_like(truth))),
        "found_px": int(found.sum()),
        "recall_within_1_px": round(
            float((grown(found) & truth).sum() / truth.sum()), 4
        ),
        "precision_within_1_px": round(
            float((near & found).sum() / max(int(found.sum()), 1)), 4
        ),
    }


def grown(mask: Mask) -> Mask:
    """A mask and the eight neighbors of its pixels."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.logical_or.reduce(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    )


def stained_share(rgb: Rgb) -> Mask:
    """Pixels clearly brown: blue darker than red by a factor of 1.6."""
    return rgb[..., 2].astype(np.float32) * 1.6 < rgb[..., 0]


def nuclear_figures(pictures: list[tuple[Rgb, Mask, Mask | None]]) -> dict[str, Any]:
    """What is called membrane where none is: pixels, and cells where `where` says."""
    area = called = brown_px = brown_called = 0
    classes = np.zeros(4, np.int64)
    complete = 0
    for rgb, found, where in pictures:
        glass = glass_of_picture(rgb, SPACINGS_UM[0])
        brown = stained_share(rgb)
        area, called = area + found.size, called + int(found.sum())
        brown_px += int(brown.sum())
        brown_called += int((found & brown).sum())
        cells = find_cells(rgb, found.astype(np.uint8), step=STEP, glass=glass)
        if where is not None:
            cells = cells.take(where[cells.y * STEP, cells.x * STEP])
        kinds = classify_cells(cells, grid_um=GRID_UM, step=STEP)
        classes += kinds.counts()
        complete += int(kinds.complete.sum())
    cells_found = int(classes.sum())
    return {
        "called_share": round(called / area, 5),
        "brown_share": round(brown_px / area, 5),
        "brown_called_share": round(brown_called / max(brown_px, 1), 4),
        "cells": cells_found,
        "cells_by_class": classes.tolist(),
        "complete_cells_share": round(complete / max(cells_found, 1), 4),
    }


def on_nuclear_dab(
    runner: Finder, tile_px: int, data: Path, pictures: Path | None
) -> dict[str, Any]:
    """Real DAB in nuclei; beyond the picture is glass."""
    out = {}
    for name in ("nuclear_dab_a", "nuclear_dab_pair"):
        rgb = np.array(Image.open(data / f"{name}.png").convert("RGB"))
        if name.endswith("pair"):
            rgb = np.ascontiguousarray(rgb[:, : rgb.shape[1] // 2])
        found = membranes(runner, tile_px, rgb)
        if pictures is not None:
            save_overlay(pictures / f"{name}.png", rgb, found, np.zeros_like(found))
        out[name] = nuclear_figures([(rgb, found, None)])
    return out


def on_drawn_nuclear_dab(
    runner: Finder, tile_px: int, profile: str, count: int, pictures: Path | None
) -> dict[str, Any]:
    """Drawn DAB in nuclei of tumor without any stained membrane; cells in tumor."""
    side_px = 2 * tile_px
    rows: list[tuple[Rgb, Mask, Mask | None]] = []
    for index in range(count):
        picture = phantom.render(
            NUCLEAR_SEED + index,
            (side_px, side_px),
            spacing_um=0.25,
            mixture=(1.0, 0.0, 0.0, 0.0),
            profile=profile,
            mix=NUCLEAR_MIX,
        )
        found = membranes(runner, tile_px, picture.rgb)
        if pictures is not None:
            save_overlay(
                pictures / f"{profile}-nuclear-{index}.png",
                picture.rgb,
                found,
                picture.membrane_mask,
            )
        rows.append((picture.rgb, found, picture.tumor_mask))
    return {"scenes": count, "scene_px": side_px, **nuclear_figures(rows)}


def on_cores(
    runner: Finder, tile_px: int, data: Path, pictures: Path | None
) -> dict[str, float]:
    """Share of membrane in the middle 2048 px of each real core (0.24 um/px)."""
    out = {}
    Image.MAX_IMAGE_PIXELS = None
    for path in sorted(data.glob("core_*.jpg")):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        y, x = (rgb.shape[0] - 2048) // 2, (rgb.shape[1] - 2048) // 2
        part = np.ascontiguousarray(rgb[y : y + 2048, x : x + 2048])
        found = membranes(runner, tile_px, part)
        out[path.stem] = round(float(found.mean()), 5)
        if pictures is not None:
            save_overlay(
                pictures / f"{path.stem}.png",
                part[512:1536, 512:1536],
                found[512:1536, 512:1536],
                np.zeros((1024, 1024), np.bool_),
            )
    return out


def speed(runner: Finder, tile_px: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of one thread for each tile, of phantoms, in batches of four.

    Tiles are given with their halo, as on a slide.
    """
    picture = phantom.render(
        FIRST_SEED, (2 * tile_px, 2 * tile_px), spacing_um=0.25, profile="unseen"
    )
    tiles = tiles_with_halo(picture.rgb, tile_px, halo_of(runner))
    batch, places = tiles.reshape(4, *tiles.shape[2:]), [(0, 0)] * 4
    before = os.getloadavg()[0]
    runner(batch, places)
    wall, cpu = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        runner(batch, places)
        wall.append((time.perf_counter() - began) / 4 * 1e3)
        cpu.append((time.process_time() - used) / 4 * 1e3)
    return {
        "cpu_ms_per_tile": round(statistics.median(cpu), 1),
        "cpu_ms_per_tile_least": round(min(cpu), 1),
        "wall_ms_per_tile": round(statistics.median(wall), 1),
        "rounds": rounds,
        "load_before": round(before, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--package", type=Path, default=SHIPPED_DIR / "membrane-tiny")
    parser.add_argument("--data", type=Path, help="folder of real pictures")
    parser.add_argument("--pictures", type=Path, help="write what was found here")
    parser.add_argument("--scenes", type=int, default=6, help="of each class")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    package = load_membrane_package(chosen.package)
    model, tile_px = package.model, package.tile_px
    runner = NetworkFinder(package)
    result: dict[str, Any] = {
        "question": "What does the membrane network find, and how fast?",
        "package": chosen.package.name,
        "sha256": model.sha256,
        "file_bytes": model.file.stat().st_size,
        "tile_px": tile_px,
        "halo_px": package.halo_px,
    }
    with one_intra_op_thread():
        result["speed"] = speed(runner, tile_px, chosen.rounds)
        result["phantoms"] = {
            "scenes_per_class": chosen.scenes,
            "scene_px": 2 * tile_px,
            **{
                profile: on_phantoms(
                    runner, tile_px, profile, chosen.scenes, chosen.pictures
                )
                for profile in ("unseen",)
            },
        }
        result["nuclear_dab_phantoms"] = on_drawn_nuclear_dab(
            runner, tile_px, "unseen", 3 * chosen.scenes, chosen.pictures
        )
        if chosen.data is not None:
            stained = chosen.data / "stained"
            result["breast_2plus"] = on_expert_crop(
                runner, tile_px, stained, chosen.pictures
            )
            result["nuclear_dab"] = on_nuclear_dab(
                runner, tile_px, stained, chosen.pictures
            )
            result["cores_membrane_share"] = on_cores(
                runner, tile_px, chosen.data / "her2_cores", chosen.pictures
            )
    result["machine"] = machine()
    result["versions"] = versions("numpy", "torch")
    tell(result, chosen.json, indent=2)


if __name__ == "__main__":
    main()
