# SPDX-License-Identifier: Apache-2.0
"""Nuclei against scikit-image and SciPy. See README.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.measure import block_reduce

from her2fast import phantom
from her2fast.kernels import H_DAB
from her2fast.kernels.cells import NUCLEI_REACH_PX, cell_stains, nuclei
from her2fast.phantom.optics import PROFILES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import load, machine, tell, versions

Points = npt.NDArray[np.float64]  # (n, 2): y, x on the grid of 0.5 um/px

FIRST_SEED = 9_410_000
SIDE_PX = 1024
STEP = 2
COUNTS_WITHIN, SEEDS_WITHIN, NEAR_PX = 0.02, 0.95, 2.0
TRUTH_UM = 3.0


def ours(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> Points:
    halo = NUCLEI_REACH_PX
    hematoxylin, _ = cell_stains(rgb, step=STEP)
    x, y, _ = nuclei(np.pad(hematoxylin, halo), np.pad(mask, STEP * halo), halo_px=halo)
    return np.stack([y, x], 1).astype(np.float64)


def library(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> Points:
    """The rule of csrc/kernels/nuclei.cpp in floats."""
    density = -np.log10(np.maximum(rgb, 1) / 255.0)
    blocks = block_reduce(density, (STEP, STEP, 1), np.mean)
    amounts = blocks @ np.linalg.inv(H_DAB)
    h = np.clip(amounts[..., 0] - 0.3 * np.maximum(amounts[..., 1], 0), 0, 0.8)
    wall = block_reduce(mask, (STEP, STEP), np.max) > 0

    def box(plane: npt.NDArray[Any], radius: int) -> Any:
        return ndimage.uniform_filter(plane, 2 * radius + 1, mode="constant")

    soft = box(box(h, 1), 1)
    outside = np.pad((~wall).astype(float), 24, constant_values=1.0)
    share = box(outside, 24)[24:-24, 24:-24]
    mean = box(np.where(wall, 0, h), 24) / np.maximum(share, 1e-6)
    dark = (soft > mean + 0.005) & (soft > 0.02)
    dark = ndimage.binary_closing(np.pad(dark, 2), np.ones((3, 3)))[2:-2, 2:-2] & ~wall
    depth = np.minimum(ndimage.distance_transform_edt(np.pad(dark, 1)), 16)[1:-1, 1:-1]
    smooth = box(box(depth, 2), 2)
    peaks = peak_local_max(
        np.where(depth >= np.sqrt(8.0), smooth, 0),
        min_distance=6,
        threshold_abs=1e-9,
        exclude_border=False,
    )
    highest = ndimage.maximum_filter(smooth, 13, mode="constant")
    kept = smooth[peaks[:, 0], peaks[:, 1]] >= highest[peaks[:, 0], peaks[:, 1]] - 1e-9
    return np.asarray(peaks[kept], np.float64)


def near_share(a: Points, b: Points) -> int:
    """How many of `a` lie near one of `b`."""
    if len(a) == 0 or len(b) == 0:
        return 0
    return int((cKDTree(b).query(a)[0] <= NEAR_PX).sum())


def against_truth(found: Points, picture: Any) -> npt.NDArray[np.int64]:
    """Pairs, seeds in tumor, tumor cells that show a nucleus."""
    inner = np.minimum(found.astype(np.int64) * STEP, SIDE_PX - 1)
    in_tumor = found[picture.tumor_mask[inner[:, 0], inner[:, 1]]]
    cells = picture.cells.take(np.flatnonzero(picture.cells.has_nucleus))
    truth = np.stack([cells.y_um, cells.x_um], 1) / (0.25 * STEP)
    if len(in_tumor) == 0 or len(truth) == 0:
        return np.array([0, len(in_tumor), len(truth)])
    away, to = cKDTree(in_tumor).query(truth)
    _, back = cKDTree(truth).query(in_tumor)
    near = away <= TRUTH_UM / (0.25 * STEP)
    pairs = near & (back[to] == np.arange(len(truth)))
    return np.array([pairs.sum(), len(in_tumor), len(truth)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=int, default=16)
    chosen = parser.parse_args()
    load_before = load()
    counts = {"ours": 0, "library": 0}
    seconds: dict[str, list[float]] = {"ours": [], "library": []}
    near = np.zeros(2, np.int64)
    truth = {name: np.zeros(3, np.int64) for name in counts}
    for index in range(chosen.pictures):
        kind, profile = index % 4, PROFILES[(index // 4 + index) % len(PROFILES)]
        mixture = tuple(float(kind == other) for other in range(4))
        picture = phantom.render(
            FIRST_SEED + index,
            (SIDE_PX, SIDE_PX),
            spacing_um=0.25,
            mixture=mixture,  # type: ignore[arg-type]
            profile=profile.name,
        )
        mask = picture.membrane_mask.astype(np.uint8)
        found = {}
        for name, work in (("ours", ours), ("library", library)):
            began = time.process_time()
            found[name] = work(picture.rgb, mask)
            seconds[name].append(time.process_time() - began)
            counts[name] += len(found[name])
            truth[name] += against_truth(found[name], picture)
        near += [
            near_share(found["ours"], found["library"]),
            near_share(found["library"], found["ours"]),
        ]
    apart = abs(counts["ours"] - counts["library"]) / counts["library"]
    shares = [near[0] / counts["ours"], near[1] / counts["library"]]
    result: dict[str, Any] = {
        "question": "Are these the nuclei that scikit-image and SciPy find?",
        "pictures": chosen.pictures,
        "nuclei": counts,
        "counts_apart": round(apart, 5),
        "seeds_near": [round(float(share), 5) for share in shares],
        "equal": bool(apart <= COUNTS_WITHIN and min(shares) >= SEEDS_WITHIN),
        "cpu_ms_per_picture": {
            name: round(1e3 * statistics.median(times), 2)
            for name, times in seconds.items()
        },
        "times_library": round(
            statistics.median(seconds["library"]) / statistics.median(seconds["ours"]),
            2,
        ),
        "against_truth": {
            name: {
                "precision": round(float(pairs / max(seeds, 1)), 4),
                "recall": round(float(pairs / max(cells, 1)), 4),
            }
            for name, (pairs, seeds, cells) in truth.items()
        },
        "machine": machine(load_before=load_before),
        "versions": versions("numpy", "scipy", "scikit-image"),
    }
    tell(result, chosen.json, indent=2)
    if not result["equal"]:
        sys.exit("the nuclei differ: no speed is claimed")


if __name__ == "__main__":
    main()
