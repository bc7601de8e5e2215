# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as safetensors: weights, optimizer and counters, without pickle."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from her2fast.errors import UsageError
from her2fast.export.atomic import atomic_write

NETWORK = "network."
OPTIMIZER = "optimizer."
STATE = "her2fast"
SPEC_VERSION = 1


def save_checkpoint(
    path: Path,
    network: nn.Module,
    state: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write one file, whole or not at all. `state` is JSON."""
    from safetensors.torch import save

    tensors = {
        NETWORK + name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    content: dict[str, Any] = {"spec_version": SPEC_VERSION, "state": dict(state)}
    if optimizer is not None:
        held = optimizer.state_dict()
        numbers: dict[str, Any] = {}
        for index, entries in held["state"].items():
            for key, value in entries.items():
                name = f"{index}.{key}"
                if isinstance(value, torch.Tensor):
                    kept = value.detach().cpu().contiguous().clone()
                    tensors[OPTIMIZER + name] = kept
                else:
                    numbers[name] = value
        content["optimizer"] = {"numbers": numbers, "groups": held["param_groups"]}
    atomic_write(path, save(tensors, {STATE: json.dumps(content)}))


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Fill network and optimizer; returns the `state` that was saved.

    Raises `UsageError` where the file is no checkpoint or of another network.
    """
    tensors, content = _read(path)
    weights = {
        name.removeprefix(NETWORK): value
        for name, value in tensors.items()
        if name.startswith(NETWORK)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"{path}: is of another network: {error}") from error
    if optimizer is not None:
        held = content.get("optimizer")
        if held is None:
            raise UsageError(f"{path}: holds no optimizer")
        entries: dict[int, dict[str, Any]] = {}
        values: dict[str, Any] = {
            name.removeprefix(OPTIMIZER): value
            for name, value in tensors.items()
            if name.startswith(OPTIMIZER)
        }
        for name, value in {**values, **held["numbers"]}.items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        groups = [
            {k: tuple(v) if k == "betas" else v for k, v in group.items()}
            for group in held["groups"]
        ]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    state: dict[str, Any] = content["state"]
    return state


def checkpoint_state(path: Path) -> dict[str, Any]:
    """The `state` of a checkpoint, without its tensors in memory."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(_content(path, file.metadata())["state"])
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: is no checkpoint: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a .safetensors file, or of a .pth or .pt that holds tensors alone."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle that asks for anything but tensors is refused.
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        KeyError,
        EOFError,
    ) as error:
        raise UsageError(f"{path}: holds no weights: {error}") from error
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict) or not all(
        isinstance(value, torch.Tensor) for value in held.values()
    ):
        raise UsageError(f"{path}: need a table of tensors")
    return held


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            content = _content(path, file.metadata())
            return {name: file.get_tensor(name) for name in file.keys()}, content  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: is no checkpoint: {error}") from error


def _content(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        content = json.loads((metadata or {})[STATE])
        known = content["spec_version"] == SPEC_VERSION
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: is no checkpoint of her2fast") from error
    if not known:
        raise UsageError(
            f"{path}: need spec_version {SPEC_VERSION}, got {content['spec_version']}"
        )
    return dict(content)
