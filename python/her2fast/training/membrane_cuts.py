# SPDX-License-Identifier: Apache-2.0
"""Cuts of a membrane network by what they are for: the class that each cell gets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import nn

from her2fast.kernels.cells import Cells, classify_cells, find_cells
from her2fast.methods.glass import glass_of_picture
from her2fast.methods.membrane_picture import joined, tiles_with_halo
from her2fast.phantom import Phantom
from her2fast.phantom.cells import CellTable
from her2fast.training.augment import normalized
from her2fast.training.membrane_network import Cuts

Longs = npt.NDArray[np.int64]

#: Steps from the network's one best cut, in logits: tried for `high` and for `low`.
HIGHER, LOWER = (1.0, 0.0, 2.0), (-1.0, -2.0, -3.0)
SLACKS = (0.5, 1.0, 2.0)
#: A found and a true cell are one where nothing is nearer and they are so near.
TRUTH_UM = 3.0
#: Pixels of the picture along one of the cells' grid.
STEP = 2


def pairs(found: Cells, truth: CellTable, grid_um: float) -> tuple[Longs, Longs]:
    """Indices of true and found cells that are each other's nearest, within 3 um."""
    visible = np.flatnonzero(truth.has_nucleus)
    at = np.stack([truth.y_um, truth.x_um], 1)[visible]
    seeds = (np.stack([found.y, found.x], 1) + 0.5) * grid_um
    if len(at) == 0 or len(seeds) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    away, to = cKDTree(seeds).query(at)
    _, back = cKDTree(at).query(seeds)
    good = (away <= TRUTH_UM) & (back[to] == np.arange(len(at)))
    return visible[good], to[good].astype(np.int64)


def confusion_of(picture: Phantom, mask: npt.NDArray[np.bool_]) -> Longs:
    """(4, 4) cells of tumor by true class and by the class that they are called."""
    grid_um = STEP * picture.spacing_um
    glass = glass_of_picture(picture.rgb, picture.spacing_um)
    found = find_cells(picture.rgb, mask.astype(np.uint8), step=STEP, glass=glass)
    found = found.take(picture.tumor_mask[found.y * STEP, found.x * STEP])
    real, own = pairs(found, picture.cells, grid_um)
    called = classify_cells(found, grid_um=grid_um, step=STEP).her2
    counts = np.zeros((4, 4), np.int64)
    np.add.at(counts, (picture.cells.kind[real], called[own]), 1)
    return counts


def macro_f1(confusion: Longs) -> float:
    """Mean over the classes of 2 right / (true + called)."""
    both = confusion.sum(0) + confusion.sum(1)
    return float((2 * np.diag(confusion) / np.maximum(both, 1)).mean())


def membrane_logits(
    network: nn.Module,
    rgb: npt.NDArray[np.uint8],
    statistics: Any,
    *,
    tile_px: int,
    halo_px: int,
) -> torch.Tensor:
    """(1, 1, H, W) of a picture, tile by tile as a scorer reads it."""
    tiles = tiles_with_halo(rgb, tile_px, halo_px)
    rows, columns = tiles.shape[:2]
    inner = slice(halo_px, halo_px + tile_px)
    out = np.empty((rows, columns, tile_px, tile_px), np.float32)
    with torch.inference_mode():
        for row, column in itertools.product(range(rows), range(columns)):
            tile = torch.from_numpy(tiles[row, column][None])
            logits = network(normalized(tile, *statistics))[0, 0]
            out[row, column] = logits[inner, inner].numpy()
    whole = joined(out)[: rgb.shape[0], : rgb.shape[1]]
    return torch.from_numpy(np.ascontiguousarray(whole))[None, None]


def choose_cuts(
    network: nn.Module,
    cut: float,
    pictures: Sequence[Phantom],
    *,
    statistics: Any,
    tile_px: int,
    halo_px: int,
) -> tuple[Cuts, dict[str, Any]]:
    """Cuts by macro-F1 of cells.

    `low` and `slack` are tried together at the first of `HIGHER`; of equals the highest
    `low` is taken, then the least `slack`. `high` is tried last, the best of three.
    What is to be left alone, brown nuclei for one, has to be in the pictures.

    Parameters
    ----------
    network : Module
        (N, 3, H, W) normalized -> (N, 2, H, W); evaluated.
    cut : float
        Its one best cut.
    pictures : sequence of Phantom
    statistics : (mean, std)
    tile_px, halo_px : int
        Of a scorer's tile without its halo, and the halo on each side.
    """
    logits = [
        membrane_logits(network, one.rgb, statistics, tile_px=tile_px, halo_px=halo_px)
        for one in pictures
    ]

    def judged(cuts: Cuts) -> tuple[float, Longs]:
        total = np.zeros((4, 4), np.int64)
        for picture, values in zip(pictures, logits, strict=True):
            mask = (cuts(values) >= 0).numpy()[0, 0]
            total += confusion_of(picture, mask)
        return macro_f1(total), total

    alone, _ = judged(Cuts(cut))
    tried = [
        Cuts(cut + HIGHER[0], cut + low, slack)
        for low, slack in itertools.product(LOWER, SLACKS)
    ]
    found = [judged(cuts) for cuts in tried]
    # They stand from the most cautious on; the first of equals.
    best = max(range(len(found)), key=lambda i: found[i][0])
    cuts, (value, total) = tried[best], found[best]
    for high in HIGHER[1:]:
        other = Cuts(cut + high, cuts.low, cuts.slack)
        score, counts = judged(other)
        if score > value:
            cuts, value, total = other, score, counts
    return cuts, {
        "tried": [
            {**asdict(one), "cells_macro_f1": round(score, 4)}
            for one, (score, _) in zip(tried, found, strict=True)
        ],
        "cells_macro_f1": round(value, 4),
        "one_cut_macro_f1": round(alone, 4),
        "confusion_true_by_called": total.tolist(),
    }
