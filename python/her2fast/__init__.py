# SPDX-License-Identifier: Apache-2.0
"""HER2 scoring of immunohistochemistry slides: fast, exact, explainable, embeddable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from her2fast._core import __version__

if TYPE_CHECKING:
    from her2fast.slide import Slide, TileBatch, open_slide

# Where each public name lives. Imported on first use, so that `import her2fast`,
# `--help` and `info` never wait for torch, pyarrow or shapely.
_LAZY = {
    "Slide": "her2fast.slide",
    "TileBatch": "her2fast.slide",
    "open_slide": "her2fast.slide",
}
_LAZY_MODULES = ("errors", "guidelines", "kernels", "roi", "slide")

__all__ = ["Slide", "TileBatch", "__version__", "open_slide"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        value: object = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _LAZY_MODULES:
        value = importlib.import_module(f"her2fast.{name}")
    else:
        raise AttributeError(f"module 'her2fast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_LAZY_MODULES})
