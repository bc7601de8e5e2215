# SPDX-License-Identifier: Apache-2.0
"""Torch on the memory of a ring whose GPU is the host (tests/cuda_on_host)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from her2fast.measure import Models
from her2fast.models.on_device import DeviceModels, tensor_at
from her2fast.models.package import MethodPackage

#: DLPack's number of the host.
HOST = (1, 0)


class HostPlace:
    """The ring's memory is the host's, and its stream does at once what is queued."""

    def __init__(self) -> None:
        self.freed = 0

    def tensor(self, pointer: int, shape: Sequence[int]) -> torch.Tensor:
        view: torch.Tensor = tensor_at(HOST, pointer, shape)
        assert view.data_ptr() == pointer
        return view

    def stream(self, pointer: int) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def free_memory(self) -> None:
        self.freed += 1


def ringed(package: MethodPackage, place: HostPlace | None = None) -> Models:
    """Models of the CPU behind a ring."""
    models = Models(package)
    runners: Any = models.runners
    models.on_device = DeviceModels(runners, 0, place or HostPlace())
    return models
