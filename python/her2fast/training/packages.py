# SPDX-License-Identifier: Apache-2.0
"""Writes model packages: a folder with config.json and torchscript_model.pt."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

#: What every image is normalized with; light tissue lies near zero.
MEAN = (0.85, 0.83, 0.87)
STD = (0.15, 0.17, 0.13)

#: The small classifier.
ARCHITECTURE = "her2fast-tiny-conv"
CLASS_NAMES = ("0", "1+", "2+", "3+")


def torchscript_bytes(network: torch.nn.Module, example: torch.Tensor) -> bytes:
    """Trace, freeze and serialize; the same weights give the same bytes
    in a fresh process (TorchScript numbers what a process made before).

    The archive is written anew without debug records, because these hold the paths of
    the machine that trained, and with a fixed date.
    """
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream; the package format is settled.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network.eval(), example
        )
        frozen = torch.jit.freeze(traced)
        raw = io.BytesIO()
        torch.jit.save(frozen, raw)
    clean = io.BytesIO()
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(clean, "w") as new:
        for name in old.namelist():
            if name.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED
            new.writestr(entry, old.read(name))
    return clean.getvalue()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """UTF-8, two spaces, a line feed at the end."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_model(
    folder: Path,
    network: torch.nn.Module,
    *,
    task: str,
    architecture: str,
    class_names: Sequence[str],
    input_px: int,
    spacing_um: float,
    batch_size: int,
    halo_px: int,
    training_data: str,
    distance_names: Sequence[str] = (),
) -> str:
    """Write one model package; returns the SHA-256 of its TorchScript."""
    example = torch.zeros(2, 3, input_px, input_px)
    script = torchscript_bytes(network, example)
    digest = hashlib.sha256(script).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torchscript_model.pt").write_bytes(script)
    config = {
        "spec_version": "1.0",
        "architecture": architecture,
        "num_classes": len(class_names),
        "class_names": list(class_names),
        "patch_size_pixels": input_px,
        "spacing_um_px": spacing_um,
        "transform": [
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(MEAN), "std": list(STD)}},
        ],
        "her2fast": {
            "task": task,
            "activation": "sigmoid" if task == "segment" else "softmax",
            "input_layout": "NCHW",
            "halo_px": halo_px,
            "dtype": "float32",
            "batch_size": batch_size,
            **({"distance_names": list(distance_names)} if distance_names else {}),
            "sha256": digest,
            "licence": "Apache-2.0",
            "training_data": training_data,
            "intended_use": "research use only; not a medical device",
            "synthetic": True,
        },
    }
    write_json(folder / "config.json", config)
    return digest
