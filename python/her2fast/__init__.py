# SPDX-License-Identifier: Apache-2.0
"""HER2 scoring of immunohistochemistry slides: fast, exact, explainable, embeddable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from her2fast._core import __version__

if TYPE_CHECKING:
    from her2fast import guidelines
    from her2fast.errors import (
        ArrayError,
        DeviceError,
        Her2fastError,
        SlideError,
        UsageError,
    )
    from her2fast.rescoring import rescore
    from her2fast.scoring import Measurement, Result, decide, score
    from her2fast.session import Session
    from her2fast.slide import Slide, TileBatch, open_slide

# Where each public name lives. Imported on first use, so that `import her2fast`,
# `--help` and `info` never wait for torch, pyarrow or shapely.
_LAZY = {
    "ArrayError": "her2fast.errors",
    "DeviceError": "her2fast.errors",
    "Her2fastError": "her2fast.errors",
    "Measurement": "her2fast.scoring",
    "Result": "her2fast.scoring",
    "Session": "her2fast.session",
    "Slide": "her2fast.slide",
    "SlideError": "her2fast.errors",
    "TileBatch": "her2fast.slide",
    "UsageError": "her2fast.errors",
    "decide": "her2fast.scoring",
    "open_slide": "her2fast.slide",
    "rescore": "her2fast.rescoring",
    "score": "her2fast.scoring",
}
_LAZY_MODULES = ("errors", "guidelines", "kernels", "roi", "slide")

__all__ = [
    "ArrayError",
    "DeviceError",
    "Her2fastError",
    "Measurement",
    "Result",
    "Session",
    "Slide",
    "SlideError",
    "TileBatch",
    "UsageError",
    "__version__",
    "decide",
    "guidelines",
    "open_slide",
    "rescore",
    "score",
]


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
