# SPDX-License-Identifier: Apache-2.0
"""torchvision, also where its compiled part does not fit this torch.

A CPU build of torch beside a torchvision built for CUDA (indexes mix them) lacks the
compiled operators, and the import ends with "operator torchvision::nms does not exist".
Nothing here uses those: only networks and v2 transforms, which are Python.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch

from her2fast.errors import UsageError

#: Operators whose declaration torchvision's import takes for granted.
_OPERATORS = ("nms", "qnms")
_keep_alive: list[Any] = []


@functools.cache
def torchvision() -> ModuleType:
    """The package; raises `UsageError` where it is not installed."""
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise UsageError(
            "training needs torchvision: pip install her2fast[train]"
        ) from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    make: Any = torch.library.Library
    library = make("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(
            f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    _keep_alive.append(library)  # a library takes its declarations along
    return importlib.import_module("torchvision")


def submodule(name: str) -> Any:
    """A module of torchvision, such as "models" or "transforms.v2"."""
    torchvision()
    return importlib.import_module(f"torchvision.{name}")
