# SPDX-License-Identifier: Apache-2.0
"""Epithelium by superpixels against scikit-image and scikit-learn. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage
import sklearn
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.feature import local_binary_pattern
from skimage.segmentation import slic
from sklearn.svm import SVC

from her2fast import _core, phantom
from her2fast.kernels import H_DAB, tissue_mask
from her2fast.kernels.epithelium import (
    FEATURE_ONE,
    local_patterns,
    superpixel_features,
    superpixel_roots,
    superpixels,
)
from her2fast.models.package import load_package
from her2fast.models.runner import one_intra_op_thread, open_runner
from her2fast.models.superpixel_svm import Machine
from her2fast.phantom.optics import PROFILES
from her2fast.training.config import EpitheliumConfig
from her2fast.training.epithelium import chosen_rows, fit_machine, samples_of
from her2fast.training.patches import Pieces
from her2fast.training.phantom_data import random_mixture

Bytes = npt.NDArray[np.uint8]

FIRST_SEED = 9_620_000
SIDE_PX, BLOCK_PX, HALO_PX = 512, 256, 32
TARGET_MPX_S = 5.0
#: What makes answers the same.
COUNTS_WITHIN, RECALL, BINS_WITHIN, DECISIONS_WITHIN = 0.02, 0.95, 0.01, 1e-4


def picture(index: int, profile: str) -> tuple[Bytes, Bytes]:
    """Pixels, and 1 where the tumor is."""
    seed = FIRST_SEED + index
    mixture = random_mixture(np.random.default_rng(seed))
    drawn = phantom.render(
        seed, (SIDE_PX, SIDE_PX), spacing_um=1.0, mixture=mixture, profile=profile
    )
    return np.ascontiguousarray(drawn.rgb), drawn.tumor_mask.astype(np.uint8)


def blocks(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, 256, 256, ...) blocks of a picture."""
    side = SIDE_PX // BLOCK_PX
    cut = plane.reshape(side, BLOCK_PX, side, BLOCK_PX, *plane.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(side * side, *cut.shape[2:]))


def pieces(first: int, count: int) -> Pieces:
    """Pictures of the known profiles as training takes them."""
    arrays = []
    for index in range(first, first + count):
        rgb, mask = picture(index, PROFILES[index % len(PROFILES)].name)
        arrays.append({"rgb": blocks(rgb), "mask": blocks(mask)})
    sizes = [len(one["rgb"]) for one in arrays]
    return Pieces((), tuple(arrays), np.concatenate([[0], np.cumsum(sizes)]))


def train(count: int) -> tuple[Machine, dict[str, Any], Any]:
    """The machine, its figures, and scikit-learn's with the same training."""
    config = EpitheliumConfig.model_validate(
        {
            "data": {"manifest": "none", "cache": "none", "annotations": "none"},
            "package": {"name": "bench", "synthetic": True},
        }
    )
    fitted_on = samples_of(pieces(0, count), config)
    validated_on = samples_of(pieces(1000, max(count // 3, 8)), config)
    machine, facts = fit_machine(fitted_on, validated_on, config, _note)
    rows, labels = chosen_rows(fitted_on, config.svm, config.run.seed)
    unit = config.svm.scale / FEATURE_ONE
    svc = SVC(C=facts["cost"], gamma=1 / (2 * config.svm.sigma**2), cache_size=500)
    svc.fit(fitted_on.features[rows] * unit, labels)
    facts |= {"pictures": count, "superpixels": len(rows), "unit": unit}
    return machine, facts, svc


# --- the library --------------------------------------------------------------------


def library_superpixels(rgb: Bytes) -> npt.NDArray[np.int64]:
    return slic(rgb, n_segments=256, compactness=10, start_label=0)


def gray_of(rgb: Bytes) -> Bytes:
    r, g, b = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return ((77 * r + 150 * g + 29 * b + 128) >> 8).astype(np.uint8)


def library_features(rgb: Bytes, labels: npt.NDArray[Any], count: int) -> Any:
    """The counts of `superpixel_features`, and the patterns."""
    lab = rgb2lab(rgb)
    density = -np.log10(np.maximum(rgb, 1) / 255.0)
    amounts = density @ np.linalg.inv(H_DAB)
    hematoxylin = amounts[..., 0] - 0.3 * np.maximum(amounts[..., 1], 0)
    planes = [
        *(rgb[..., channel] // 8 for channel in range(3)),
        (lab[..., 1] + 24) / 2,
        (lab[..., 2] + 32) / 2,
        hematoxylin * 40,
        amounts[..., 1] * 12.5,
    ]
    patterns = local_binary_pattern(gray_of(rgb), 8, 1, method="uniform").astype(int)
    inner = np.zeros(labels.shape, bool)
    inner[1:-1, 1:-1] = True
    out = np.zeros((count, 234), np.int64)
    for index, values in enumerate(planes):
        bins = np.clip(np.floor(values), 0, 31).astype(np.int64)
        joint = np.bincount((labels * 32 + bins).ravel(), minlength=count * 32)
        out[:, 32 * index : 32 * index + 32] = joint.reshape(count, 32)
    joint = np.bincount((labels * 10 + patterns)[inner], minlength=count * 10)
    out[:, 224:] = joint.reshape(count, 10)
    return out, patterns


# --- speed, with the same answers ---------------------------------------------------


def fastest(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    times, answer = [], None
    for _ in range(repeats):
        began = time.thread_time()
        answer = work()
        times.append(time.thread_time() - began)
    return min(times), answer


def boundaries(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    out = np.zeros(labels.shape, bool)
    down, along = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    out[1:] |= down
    out[:-1] |= down
    out[:, 1:] |= along
    out[:, :-1] |= along
    return out


def speed(
    tiles: Bytes, machine: Machine, svc: Any, unit: float
) -> tuple[dict[str, Any], list[str]]:
    """Seconds by part for both, and what was not the same."""
    seconds = {
        name: dict.fromkeys(("superpixels", "features", "decision", "tissue"), 0.0)
        for name in ("ours", "library")
    }
    counts = np.zeros(2, np.int64)
    near, total = np.zeros(2, np.int64), np.zeros(2, np.int64)
    other_bin = entries = 0
    patterns_differ, decision_error = 0, 0.0
    for plain in tiles:
        rgb = plain.copy()
        rgb[0, 0], rgb[0, 1] = 0, 255
        ours, theirs = seconds["ours"], seconds["library"]
        spent, (labels, count) = fastest(lambda p=rgb: superpixels(p))
        ours["superpixels"] += spent
        spent, other = fastest(lambda p=rgb: library_superpixels(p))
        theirs["superpixels"] += spent
        own_edges, other_edges = boundaries(labels), boundaries(other)
        for k, (found, wanted) in enumerate(
            ((own_edges, other_edges), (other_edges, own_edges))
        ):
            wide = ndimage.binary_dilation(found, np.ones((3, 3)))
            near[k] += (wide & wanted).sum()
            total[k] += wanted.sum()
        counts += count, len(np.unique(other))

        spent, counted = fastest(
            lambda p=rgb, at=labels, n=count: superpixel_features(p, at, n)
        )
        ours["features"] += spent
        spent, (expected, patterns) = fastest(
            lambda p=rgb, at=labels, n=count: library_features(p, at, n)
        )
        theirs["features"] += spent
        other_bin += int(np.abs(counted.astype(np.int64) - expected).sum()) // 2
        entries += int(expected.sum())
        patterns_differ += int((local_patterns(gray_of(rgb)) != patterns).sum())

        spent, decided = fastest(
            lambda c=counted: machine.decisions(superpixel_roots(c))
        )
        ours["decision"] += spent
        features = superpixel_roots(counted) * unit
        spent, answer = fastest(lambda f=features: svc.decision_function(f))
        theirs["decision"] += spent
        decision_error = max(decision_error, float(np.abs(decided - answer).max()))

        spent, _ = fastest(lambda p=rgb: tissue_mask(p))
        ours["tissue"] += spent
        theirs["tissue"] += spent  # the same on both sides
    wrong = []
    if abs(int(counts[0]) - int(counts[1])) > COUNTS_WITHIN * counts[1]:
        wrong.append(f"superpixels: {counts.tolist()}")
    recall = (near / total).tolist()
    if min(recall) < RECALL:
        wrong.append(f"boundaries within a pixel: {recall}")
    if patterns_differ:
        wrong.append(f"{patterns_differ} patterns differ")
    if other_bin > BINS_WITHIN * entries:
        wrong.append(f"{other_bin} of {entries} entries in another bin")
    if decision_error > DECISIONS_WITHIN:
        wrong.append(f"decisions differ by {decision_error}")
    mpx = len(tiles) * BLOCK_PX**2 / 1e6
    sums = {name: sum(parts.values()) for name, parts in seconds.items()}
    return {
        "blocks": len(tiles),
        "mpx_per_s": {
            name: {
                **{part: mpx / spent for part, spent in parts.items()},
                "stage": mpx / sums[name],
            }
            for name, parts in seconds.items()
        },
        "ratio": sums["library"] / sums["ours"],
        "meets_target": bool(mpx / sums["ours"] >= TARGET_MPX_S),
        "support_vectors": len(machine.vectors),
        "superpixels": {"ours": int(counts[0]), "library": int(counts[1])},
        "boundary_recall_1px": {"of_library": recall[0], "of_ours": recall[1]},
        "entries_in_another_bin": other_bin / entries,
        "patterns_that_differ": patterns_differ,
        "decision_error": decision_error,
    }, wrong


# --- quality ------------------------------------------------------------------------


def halo_tiles(rgb: Bytes) -> Bytes:
    wide = np.pad(rgb, [(HALO_PX, HALO_PX)] * 2 + [(0, 0)], constant_values=255)
    side = BLOCK_PX + 2 * HALO_PX
    return np.stack(
        [
            wide[y : y + side, x : x + side]
            for y in range(0, SIDE_PX, BLOCK_PX)
            for x in range(0, SIDE_PX, BLOCK_PX)
        ]
    )


def network_calls(runner: Any, batch: int, tiles: Bytes) -> npt.NDArray[np.bool_]:
    full = np.full((batch, *tiles.shape[1:]), 255, np.uint8)
    full[: len(tiles)] = tiles
    side = tiles.shape[1]
    logits = runner.run(full).reshape(batch, -1, side, side)[: len(tiles), -1]
    inner = np.s_[:, HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
    return logits[inner] >= 0


def best_calls(block: Bytes, truth: Bytes, machine: Machine) -> npt.NDArray[np.bool_]:
    labels, count = superpixels(block, size_px=machine.rule.size_px)
    inside = np.bincount(labels.ravel(), truth.ravel(), minlength=count)
    sizes = np.bincount(labels.ravel(), minlength=count)
    return (2 * inside >= sizes)[labels]


def quality(
    pictures: Iterator[tuple[Bytes, Bytes]], machine: Machine
) -> dict[str, dict[str, float]]:
    segment = load_package().segment
    assert segment is not None
    runner = open_runner(segment)
    sums = {
        name: np.zeros(4, np.int64)
        for name in ("machine", "network", "best_per_superpixel", "all_tissue")
    }
    pixels = 0
    for rgb, mask in pictures:
        tissue = blocks(tissue_mask(rgb)) > 0
        truth, cut = blocks(mask), blocks(rgb)
        with one_intra_op_thread():
            calls = {
                "network": network_calls(runner, segment.batch_size, halo_tiles(rgb))
            }
        calls["machine"] = np.stack([machine.logits(one) >= 0 for one in cut])
        calls["best_per_superpixel"] = np.stack(
            [best_calls(*pair, machine) for pair in zip(cut, truth, strict=True)]
        )
        calls["all_tissue"] = tissue
        for name, call in calls.items():
            said, true = call[tissue], truth[tissue] > 0
            sums[name] += [
                (said & true).sum(),
                said.sum(),
                true.sum(),
                (said == true).sum(),
            ]
        pixels += int(tissue.sum())
    return {
        name: {
            "dice": float(2 * both / (said + true)),
            "precision": float(both / max(said, 1)),
            "recall": float(both / true),
            "accuracy": float(right / pixels),
        }
        for name, (both, said, true, right) in sums.items()
    }


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", type=int, default=32)
    parser.add_argument("--test", type=int, default=16)
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    machine, facts, svc = train(chosen.train)
    tested = [picture(5000 + index, "unseen") for index in range(chosen.test)]
    tiles = np.concatenate([blocks(rgb) for rgb, _ in tested])
    shares = [(tissue_mask(tile) > 0).mean() for tile in tiles]
    tissue = tiles[np.argsort(shares, kind="stable")[::-1]][: max(len(tiles) // 2, 1)]
    measured, wrong = speed(tissue, machine, svc, facts.pop("unit"))
    result = {
        "question": "epithelium by superpixels: how fast, how right",
        "synthetic": True,
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": load,
        "versions": {
            "her2fast": _core.__version__,
            "scikit-image": skimage.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "training": facts,
        "speed": measured,
        "not_the_same": wrong,
        "quality_unseen": quality(iter(tested), machine),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if wrong:
        sys.exit("not the same answers: " + "; ".join(wrong))
    if chosen.json is not None:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
