# SPDX-License-Identifier: Apache-2.0
"""Every wrapper of `her2fast.kernels` that takes arrays, called in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cell_scenes
import numpy as np
import slide_tables

from her2fast import kernels
from her2fast.kernels import cells, epithelium, membrane
from her2fast.kernels.resample import resample

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """`make` draws the arrays, `run` calls the wrapper and returns what came out.

    `images` names those that may lie in a larger image.
    """

    make: Callable[[np.random.Generator], Arrays]
    run: Callable[..., Any]
    images: tuple[str, ...] = ()


def parts(out: Any) -> list[Any]:
    """The arrays of an output, whatever holds them; other values as they are."""
    if isinstance(out, tuple):
        return [part for item in out for part in parts(item)]
    fields = getattr(out, "__dataclass_fields__", None)
    return [out] if fields is None else [getattr(out, name) for name in fields]


def _masked(rng: np.random.Generator) -> Arrays:
    height, width = rng.integers(1, 70, 2)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    return {"rgb": rgb, "mask": rng.integers(0, 3, (height, width)).astype(np.uint8)}


def _picture(rng: np.random.Generator) -> Arrays:
    height, width = 2 * rng.integers(20, 50, 2)
    rgb, mask = cell_scenes.scene(int(rng.integers(2**31)), height, width, 6)
    return {"rgb": rgb, "mask": mask}


def _planes(rng: np.random.Generator) -> Arrays:
    picture = _picture(rng)
    halo = cells.CELLS_REACH_PX
    hematoxylin, dab = cells.cell_stains(picture["rgb"])
    return {
        "hematoxylin": np.pad(hematoxylin, halo),
        "dab": np.pad(dab, 2 * halo),
        "mask": np.pad(picture["mask"], 2 * halo),
    }


def _found(rng: np.random.Generator) -> Arrays:
    count = rng.integers(0, 9)
    words = rng.integers(0, 2**32, (2, count), np.uint32)
    return {"stained": words[0], "dab_sum": words[1] >> 20}


def _table(rng: np.random.Generator) -> Arrays:
    names = ("logits", "tumor_px", "offsets", "labels")
    seed, slides, patches = (int(rng.integers(1, most)) for most in (99, 4, 40))
    drawn = slide_tables.synthetic(seed, slides, patches)
    return dict(zip(names, drawn, strict=True))


def _tile(rng: np.random.Generator) -> Arrays:
    height, width = rng.integers(1, 60, 2)
    return {
        "mask": (rng.random((height, width)) < 0.4).astype(np.uint8),
        "density": rng.integers(0, 256, (height, width), np.uint8),
        "nuclei": np.stack(
            [rng.integers(0, width, 3), rng.integers(0, height, 3)], 1
        ).astype(np.int32),
    }


def _labeled(rng: np.random.Generator) -> Arrays:
    rgb = _masked(rng)["rgb"]
    return {"rgb": rgb, "of": epithelium.superpixels(rgb, size_px=8)[0]}


def _machine(rng: np.random.Generator) -> Arrays:
    count, vectors = rng.integers(1, 9, 2)
    return {
        "features": rng.integers(0, 2561, (count, 5)).astype(np.int16),
        "vectors": rng.integers(0, 2561, (vectors, 5)).astype(np.int16),
        "coefficients": rng.normal(size=vectors),
    }


def _two_thirds_by_half(rgb: Any) -> Any:
    height, width = rgb.shape[1:3]
    size = (max(1, 2 * width // 3), max(1, height // 2))
    step = (Fraction(width, size[0]), Fraction(height, size[1]))
    return resample(rgb, step=step, size_px=size)


def _merged(mask: Any, density: Any, nuclei: Any) -> Any:
    merge = membrane.MembraneMerge(
        mask.shape[1], mask.shape[0], tile_px=(mask.shape[1], mask.shape[0])
    )
    merge.add(0, 0, membrane.membrane_label(mask, density, nuclei=nuclei))
    return merge.finish()


def _classes(stained: Any, dab_sum: Any) -> Any:
    table = dict(vars(cells.no_cells()), stained=stained, dab_sum=dab_sum)
    return cells.classify_cells(cells.Cells(**table), grid_um=0.5)


#: `membrane_label` gives a tile and takes no array out: its table comes from the merge.
CALLS = {
    "tumor_count": Call(
        lambda rng: {"mask": _masked(rng)["mask"]},
        lambda mask: kernels.tumor_count(mask, patch_px=7, stride_px=3),
        ("mask",),
    ),
    "tissue_mask": Call(
        lambda rng: {"rgb": _masked(rng)["rgb"]}, kernels.tissue_mask, ("rgb",)
    ),
    "normalize_batch": Call(
        lambda rng: {"rgb": np.stack([_masked(rng)["rgb"]] * 2)},
        lambda rgb: kernels.normalize_batch(
            rgb, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), half=rgb.shape[1] % 2 == 0
        ),
    ),
    "resample": Call(
        lambda rng: {"rgb": np.stack([_masked(rng)["rgb"]] * 2)}, _two_thirds_by_half
    ),
    "focus": Call(
        _masked,
        lambda rgb, mask: kernels.focus(rgb, mask, patch_px=9, stride_px=5),
        ("rgb", "mask"),
    ),
    "stain_unmix": Call(
        lambda rng: {"rgb": _masked(rng)["rgb"]}, kernels.stain_unmix, ("rgb",)
    ),
    "stain_census": Call(_masked, kernels.stain_census, ("rgb", "mask")),
    "cell_stains": Call(
        lambda rng: {"rgb": _picture(rng)["rgb"]}, cells.cell_stains, ("rgb",)
    ),
    "nuclei": Call(
        lambda rng: {k: v for k, v in _planes(rng).items() if k != "dab"},
        lambda hematoxylin, mask: cells.nuclei(
            hematoxylin, mask, halo_px=cells.CELLS_REACH_PX
        ),
        ("hematoxylin", "mask"),
    ),
    "cells": Call(
        _planes,
        lambda hematoxylin, dab, mask: cells.cells(
            hematoxylin, dab, mask, halo_px=cells.CELLS_REACH_PX
        ),
        ("hematoxylin", "dab", "mask"),
    ),
    "classify_cells": Call(_found, _classes),
    "find_cells": Call(_picture, cells.find_cells, ("rgb", "mask")),
    "membrane_label": Call(_tile, _merged, ("mask", "density")),
    "membrane_prune": Call(
        lambda rng: {"mask": _tile(rng)["mask"]},
        lambda mask: membrane.membrane_prune(mask, length_px=5),
        ("mask",),
    ),
    "find_membranes": Call(
        lambda rng: {k: v for k, v in _tile(rng).items() if k != "nuclei"},
        lambda mask, density: membrane.find_membranes(mask, density, tile_px=16),
        ("mask", "density"),
    ),
    "superpixels": Call(
        lambda rng: {"rgb": _masked(rng)["rgb"]},
        lambda rgb: epithelium.superpixels(rgb, size_px=8),
        ("rgb",),
    ),
    "local_patterns": Call(
        lambda rng: {"gray": _masked(rng)["mask"]},
        epithelium.local_patterns,
        ("gray",),
    ),
    "superpixel_features": Call(
        _labeled,
        lambda rgb, of: epithelium.superpixel_features(rgb, of, 5000),
        ("rgb", "of"),
    ),
    "superpixel_roots": Call(
        lambda rng: {
            "counts": rng.integers(
                0, 99, (4, epithelium.SUPERPIXEL_FEATURES), dtype=np.uint32
            )
        },
        epithelium.superpixel_roots,
    ),
    "svm_decision": Call(
        _machine,
        lambda features, vectors, coefficients: epithelium.svm_decision(
            features, vectors, coefficients, intercept=0.1, gamma=1e-7
        ),
    ),
    "constraint_select": Call(_table, kernels.constraint_select),
    "calibration_loss": Call(
        _table,
        lambda logits, tumor_px, offsets, labels: kernels.calibration_loss(
            logits, tumor_px, offsets, labels, (1, 1.5, 1, 1)
        ),
    ),
    "logit_calibrate": Call(
        _table,
        lambda logits, tumor_px, offsets, labels: kernels.logit_calibrate(
            logits, tumor_px, offsets, labels, starts=2
        ),
    ),
}
