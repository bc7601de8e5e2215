# SPDX-License-Identifier: Apache-2.0
"""What a benchmark ran on, and where its figures go: the end of every `run.py`."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from her2fast import __version__


def load() -> float:
    """The load of the last minute, to be asked for before anything is timed."""
    return round(os.getloadavg()[0], 2)


def loads() -> list[float]:
    """The load of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def machine(**more: Any) -> dict[str, Any]:
    """Where figures come from that depend little on what else ran there."""
    return {"cpu": platform.machine(), "cores": os.cpu_count(), **more}


def quiet_machine(load_before: list[float]) -> dict[str, Any]:
    """Where times of single calls come from; `load_before` is `loads()` of then."""
    return {
        "cores": os.cpu_count(),
        "load_before": load_before,
        "load_after": loads(),
        "system": platform.platform(),
    }


def versions(*packages: str) -> dict[str, str]:
    """her2fast's and those of packages, by the names that pip knows, or "python"."""
    return {
        "her2fast": __version__,
        **{
            name: platform.python_version()
            if name == "python"
            else metadata.version(name)
            for name in packages
        },
    }


def store(result: dict[str, Any], path: Path | None, *, indent: int = 1) -> None:
    """Writes the figures, where a file was named."""
    if path is not None:
        path.write_text(json.dumps(result, indent=indent) + "\n", encoding="utf-8")


def tell(result: dict[str, Any], path: Path | None, *, indent: int = 1) -> None:
    """Prints the figures, and writes them where a file was named."""
    sys.stdout.write(json.dumps(result, indent=indent) + "\n")
    store(result, path, indent=indent)
