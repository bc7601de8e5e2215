# SPDX-License-Identifier: Apache-2.0
"""Writes what was trained as packages that `her2fast score` runs."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from her2fast.errors import UsageError
from her2fast.manifest import LABELS
from her2fast.models.package import MODEL_FILE, ModelPackage, load_package
from her2fast.models.trust import trust
from her2fast.training.config_sections import (
    HALO_PX,
    PATCH_PX,
    TILE_PX,
    MembranePackage,
    Package,
)
from her2fast.training.membrane_network import OUTPUTS
from her2fast.training.networks import fold_norms
from her2fast.training.packages import torchscript_bytes, write_json

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def write_segmenter(
    folder: Path,
    network: nn.Module,
    *,
    package: Package,
    backbone: str,
    statistics: Statistics,
    spacing_um: float,
) -> str:
    """A segmenter's package; returns the SHA-256 of its file."""
    return _write_model(
        folder,
        network,
        side_px=TILE_PX + 2 * HALO_PX,
        halo_px=HALO_PX,
        task="segment",
        classes=("tumor",),
        batch_size=package.segment_batch_size,
        package=package,
        backbone=backbone,
        statistics=statistics,
        spacing_um=spacing_um,
    )


def write_method(
    folder: Path,
    classifier: nn.Module,
    *,
    segmenter: ModelPackage | None,
    package: Package,
    backbone: str,
    statistics: Statistics,
    spacing_um: float,
    calibration: Mapping[str, list[float]],
    training: Mapping[str, Any],
) -> str:
    """A method package with its classifier, a copy of its segmenter and the facts.

    Its models are added to the user's trust file. Returns the classifier's SHA-256.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty")
    digest = _write_model(
        folder / "classify",
        classifier,
        side_px=PATCH_PX,
        halo_px=0,
        task="classify",
        classes=LABELS,
        batch_size=package.batch_size,
        package=package,
        backbone=backbone,
        statistics=statistics,
        spacing_um=spacing_um,
    )
    models = {"classify": "classify"}
    synthetic = package.synthetic
    if segmenter is not None:
        (folder / "segment").mkdir()
        for name in ("config.json", segmenter.file.name):
            shutil.copyfile(segmenter.folder / name, folder / "segment" / name)
        models = {"segment": "segment", **models}
        synthetic = synthetic or segmenter.config.her2fast.synthetic
    method = {
        "spec_version": "1.0",
        "name": package.name,
        "method": "patches" if segmenter is None else "constrained",
        "models": models,
        "tile_px": TILE_PX,
        "calibration": dict(calibration),
        "guideline": package.guideline,
        "stain": package.stain,
        "synthetic": synthetic,
        "intended_use": package.intended_use,
        "description": package.training_data,
    }
    write_json(folder / "training.json", training)
    # The method last: a folder without it is no package yet.
    write_json(folder / "method.json", method)
    loaded = load_package(folder)
    trust({model.sha256: f"{package.name}/{model.name}" for model in loaded.models})
    return digest


def write_membrane(
    folder: Path,
    network: nn.Module,
    *,
    package: MembranePackage,
    backbone: str,
    statistics: Statistics,
    spacing_um: float,
    tile_px: int,
    training: Mapping[str, Any],
) -> str:
    """A method package of membranes; returns the SHA-256 of its one model.

    The model is added to the user's trust file.
    """
    digest = _write_model(
        folder / "membrane",
        network,
        side_px=tile_px + 2 * package.halo_px,
        halo_px=package.halo_px,
        task="membrane",
        classes=OUTPUTS,
        batch_size=package.batch_size,
        package=package,
        backbone=backbone,
        statistics=statistics,
        spacing_um=spacing_um,
    )
    method = {
        "spec_version": "1.0",
        "name": package.name,
        "method": "membrane",
        "models": {"membrane": "membrane"},
        "tile_px": tile_px,
        "guideline": package.guideline,
        "stain": package.stain,
        "synthetic": package.synthetic,
        "intended_use": package.intended_use,
        "description": package.training_data,
    }
    write_json(folder / "training.json", training)
    # The method last: a folder without it is no package yet.
    write_json(folder / "method.json", method)
    trust({digest: f"{package.name}/membrane"})
    return digest


def _write_model(
    folder: Path,
    network: nn.Module,
    *,
    side_px: int,
    halo_px: int,
    task: str,
    classes: tuple[str, ...],
    batch_size: int,
    package: Package,
    backbone: str,
    statistics: Statistics,
    spacing_um: float,
) -> str:
    # A copy: folding changes the network, and training may go on with it.
    frozen = fold_norms(copy.deepcopy(network).cpu().float())
    script = torchscript_bytes(frozen, torch.zeros(2, 3, side_px, side_px))
    digest = hashlib.sha256(script).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(script)
    mean, std = statistics
    config = {
        "spec_version": "1.0",
        "architecture": backbone,
        "num_classes": len(classes),
        "class_names": list(classes),
        "patch_size_pixels": side_px,
        "spacing_um_px": spacing_um,
        "transform": [
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(mean), "std": list(std)}},
        ],
        "her2fast": {
            "task": task,
            "activation": "softmax" if task == "classify" else "sigmoid",
            "input_layout": "NCHW",
            "halo_px": halo_px,
            "dtype": "float32",
            "batch_size": batch_size,
            "sha256": digest,
            "licence": package.licence,
            "training_data": package.training_data,
            "intended_use": package.intended_use,
            "synthetic": package.synthetic,
        },
    }
    write_json(folder / "config.json", config)
    return digest
