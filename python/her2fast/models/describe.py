# SPDX-License-Identifier: Apache-2.0
"""What `her2fast models` says of packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from her2fast.errors import SlideError
from her2fast.models import trust
from her2fast.models.membrane_package import MembranePackage, load_any_package
from her2fast.models.package import MethodPackage, shipped_names

Package = MethodPackage | MembranePackage


def list_lines() -> Iterator[str]:
    """A line per package that ships and per model file the user trusts."""
    for name in shipped_names():
        package = load_any_package(name)
        note = ", trained on synthetic data" if package.synthetic else ""
        yield (
            f"{name}: {package.method}, {package.spacing_um:g} um/px, "
            f"{_outputs(package)}, guideline {package.guideline or 'none'}{note}"
        )
    for sha256, name in sorted(trust.read_hashes(trust.trust_file()).items()):
        yield f"trusted: {name} {sha256}"


def _outputs(package: Package) -> str:
    if isinstance(package, MembranePackage):
        return f"tiles of {package.tile_px} px"
    return f"{len(package.class_names)} classes"


def describe(package: Package) -> dict[str, Any]:
    """Everything a package states, and the hashes of its files."""
    return {
        "name": package.name,
        "method": package.method,
        "folder": str(package.folder),
        "spacing_um": package.spacing_um,
        "tile_px": package.tile_px,
        "guideline": package.guideline,
        "floor_percent": package.floor_percent,
        "stain": package.stain,
        **_of_its_kind(package),
        "synthetic": package.synthetic,
        "intended_use": package.intended_use,
        "models": [
            {**model.to_record(), "config": model.config.model_dump()}
            for model in package.models
        ],
    }


def _of_its_kind(package: Package) -> dict[str, Any]:
    if isinstance(package, MembranePackage):
        return {
            "halo_px": package.halo_px,
            "grid_um": package.spacing_um * package.step,
            "prune_um": package.prune_um,
            "prune_px": package.prune_px,
        }
    return {
        "patch_px": package.patch_px,
        "halo_px": package.halo_px,
        "domain": package.domain_record,
        "calibration": {"scale": list(package.scale), "bias": list(package.bias)},
    }


def check_lines(package: Package, device: str) -> Iterator[str]:
    """Opens every model and computes a batch; raises `SlideError` at a flaw."""
    from her2fast.models.runner import check_device, one_intra_op_thread, open_runner

    name = check_device(device)
    with one_intra_op_thread(name):
        for model in package.models:
            yield f"{model.name}: sha256 {model.sha256} ({_known(model.known)})"
            runner = open_runner(model, name)
            side = model.config.patch_size_pixels
            shape = (model.batch_size, side, side, 3)
            white = np.full(shape, 255, np.uint8)
            first, second = runner.run(white), runner.run(white)
            if not np.isfinite(first).all():
                raise SlideError(
                    f"{model.file}: gives values that are not finite", "NON_FINITE"
                )
            if not np.array_equal(first, second):
                raise SlideError(
                    f"{model.file}: gives other values for the same input; a scorer "
                    "needs a model without random parts",
                    "MODEL_SHAPE",
                )
            yield f"{model.name}: {shape} -> {first.shape} on {name}, the same twice"
    yield f"{package.name}: good"


def trust_package(package: str | Path) -> str:
    """Adds a package's model files to the user's trust file; says so in a line."""
    loaded = load_any_package(package)
    hashes = {model.sha256: f"{loaded.name}/{model.name}" for model in loaded.models}
    path = trust.trust(hashes)
    return f"{path}: trusts {', '.join(sorted(hashes.values()))}"


def _known(known: bool) -> str:
    return "known" if known else "in no list"
