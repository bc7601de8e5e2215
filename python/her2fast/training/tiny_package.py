# SPDX-License-Identifier: Apache-2.0
"""The method package of `tiny_recipe`: what it says, what it keeps of its start."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from her2fast.errors import UsageError
from her2fast.training.domain_statistics import (
    DISTANCE_NAMES,
    Domain,
    JudgedClassifier,
)
from her2fast.training.networks import TinyUNet
from her2fast.training.packages import (
    ARCHITECTURE,
    CLASS_NAMES,
    write_json,
    write_model,
)
from her2fast.training.tiny_evaluation import HALO_PX, PATCH_PX, TILE_PX

NOTICE = "synthetic training data, research use only"
TRAINING_DATA = "generated H-DAB phantoms (her2fast.phantom); no patient data"


def write_package(
    out: Path,
    segmenter: TinyUNet | None,
    judged: tuple[JudgedClassifier, Domain] | None,
    training: dict[str, Any],
    *,
    start: Path | None = None,
) -> dict[str, str]:
    """Write the method package; returns the SHA-256 of each model.

    A network that is None is that of `start`, the classifier with its domain, to the
    byte: the same weights written again would be another file, and another key of
    every result.
    """
    shared: dict[str, Any] = {"spacing_um": 1.0, "training_data": TRAINING_DATA}
    if segmenter is None:
        _copy_model("segment", start, out)
    else:
        write_model(
            out / "segment",
            segmenter,
            task="segment",
            architecture="her2fast-tiny-unet",
            class_names=("tumor",),
            input_px=TILE_PX + 2 * HALO_PX,
            halo_px=HALO_PX,
            batch_size=8,
            **shared,
        )
    if judged is None:
        limits = _copy_model("classify", start, out)
    else:
        classifier, domain = judged
        limits = domain.to_json()
        write_model(
            out / "classify",
            classifier,
            task="classify",
            architecture=ARCHITECTURE,
            class_names=CLASS_NAMES,
            input_px=PATCH_PX,
            halo_px=0,
            batch_size=32,
            distance_names=DISTANCE_NAMES,
            **shared,
        )
    method = {
        "spec_version": "1.0",
        "name": "constrained-tiny",
        "method": "constrained",
        "models": {"segment": "segment", "classify": "classify"},
        "tile_px": TILE_PX,
        "calibration": {"scale": [1, 1, 1, 1]},
        "guideline": "asco-cap-2018",
        "stain": "h-dab",
        "domain": limits,
        "synthetic": True,
        "intended_use": NOTICE,
        "description": "tiny networks trained on generated H-DAB phantoms with true "
        "patch labels; shows the path, claims no accuracy on tissue",
    }
    write_json(out / "method.json", method)
    # Beside the method, because figures are no setting: they must not move its key.
    write_json(out / "training.json", training)
    return model_hashes(out)


def _copy_model(name: str, start: Path | None, out: Path) -> Any:
    """A model's files as they are; returns what the package says of its domain."""
    if start is None:
        raise UsageError(f"{name}: need steps or epochs to train it, or --start")
    shutil.copytree(start / name, out / name, dirs_exist_ok=True)
    return json.loads((start / "method.json").read_text(encoding="utf-8"))["domain"]


def origin(package: Path) -> dict[str, Any]:
    """What a package that is trained further was: its hashes and its own training."""
    training = json.loads((package / "training.json").read_text(encoding="utf-8"))
    return {"sha256": model_hashes(package), "training": training}


def model_hashes(package: Path) -> dict[str, str]:
    """SHA-256 of both models of a package."""
    return {
        name: hashlib.sha256(
            (package / name / "torchscript_model.pt").read_bytes()
        ).hexdigest()
        for name in ("segment", "classify")
    }
