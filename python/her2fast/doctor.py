# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine and the installation, before a night's run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2fast import _core
from her2fast.errors import Her2fastError, SlideError
from her2fast.scoring import Result, score

DATA_DIR = Path(__file__).resolve().parent / "data"
DEMO_SLIDE = DATA_DIR / "demo.svs"
DEMO_TRUTH = DATA_DIR / "demo.json"
#: Packages whose versions matter when a result is asked about.
PACKAGES = ("numpy", "torch", "openslide-bin", "pillow", "shapely", "pyarrow")


@dataclass(frozen=True)
class Check:
    """One line of the doctor."""

    name: str
    good: bool
    text: str
    code: str | None = None


def check_machine() -> Iterator[Check]:
    """Versions, cores, memory, OpenSlide, models; imports torch last."""
    yield Check("her2fast", True, _core.__version__)
    yield Check("python", True, f"{platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, False, "is not installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    yield Check("cores", True, str(cores or os.cpu_count()))
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Check("disk", free_gb > 1, f"{free_gb:.1f} GB free here")
    yield from _check_models()
    yield _check_torch()


def _check_models() -> Iterator[Check]:
    from her2fast.models.package import load_package, shipped_names

    for name in shipped_names():
        try:
            package = load_package(name)
            package.require_known()
        except Her2fastError as error:
            code = error.code if isinstance(error, SlideError) else None
            yield Check(f"model {name}", False, str(error), code)
        else:
            note = " (synthetic training data)" if package.synthetic else ""
            yield Check(f"model {name}", True, f"hashes hold{note}")


def _check_torch() -> Check:
    try:
        from her2fast.models.runner import describe_device

        device = describe_device("cpu", {})
    except ImportError as error:
        return Check("device", False, f"torch does not load: {error}")
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Check("device", True, f"cpu ({device['cpu_capability']}), {cuda} CUDA")


def expected_areas() -> dict[str, Any] | None:
    """What `data/demo.json` says scoring the shipped slide must give."""
    try:
        value = json.loads(DEMO_TRUTH.read_bytes())
    except (OSError, ValueError):
        return None
    expected = value.get("expected")
    return expected if isinstance(expected, dict) else None


def measured_areas(result: Result) -> dict[str, Any]:
    """What is compared with `expected_areas`, exactly."""
    keys = ("status", "score", "class_px", "class_patches")
    return {key: result.record[key] for key in keys}


def verify() -> Check:
    """Scores the shipped slide; SELFTEST where the areas are not those expected.

    Areas are equal on one CPU capability and torch version; elsewhere near-ties may
    fall otherwise, so the difference is bounded there by the tolerance in demo.json.
    """
    expected = expected_areas()
    if expected is None or not DEMO_SLIDE.is_file():
        return Check("self-test", False, f"{DATA_DIR} lacks the demo slide", "SELFTEST")
    result = score(DEMO_SLIDE)
    measured = measured_areas(result)
    if all(measured[key] == expected.get(key) for key in measured):
        return Check("self-test", True, "the shipped slide gives its exact areas")
    tolerance_px = int(expected.get("tolerance_px", 0))
    device = expected.get("device")
    same_machine = device == result.record["device"]
    if (
        not same_machine
        and measured["status"] == expected.get("status")
        and measured["score"] == expected.get("score")
        and _apart_px(measured["class_px"], expected["class_px"]) <= tolerance_px
    ):
        return Check(
            "self-test",
            True,
            f"areas within {tolerance_px} px of those of another CPU or torch",
        )
    return Check(
        "self-test", False, f"need {expected}, got {measured} {result.code}", "SELFTEST"
    )


def _apart_px(first: list[int], second: list[int]) -> int:
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def write_expected() -> dict[str, Any]:
    """Stores the areas of the shipped slide in demo.json.

    For developers, after the package or the slide has changed:
    `python -c "from her2fast.doctor import write_expected; write_expected()"`.
    """
    from her2fast.export.atomic import atomic_write

    value = json.loads(DEMO_TRUTH.read_bytes())
    result = score(DEMO_SLIDE)
    value["expected"] = {
        **measured_areas(result),
        "device": result.record["device"],
        "tolerance_px": sum(result.record["class_px"]) // 200,
    }
    atomic_write(DEMO_TRUTH, (json.dumps(value, indent=1) + "\n").encode())
    return dict(value["expected"])
