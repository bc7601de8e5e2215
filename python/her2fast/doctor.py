# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine and the installation, before a night's run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from her2fast import _core
from her2fast.errors import Her2fastError, SlideError

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
    from her2fast.models.membrane_package import load_any_package
    from her2fast.models.package import shipped_names

    for name in shipped_names():
        try:
            package = load_any_package(name)
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


def verify() -> Check:
    """Scores the shipped slides; SELFTEST where their areas are not the golden ones."""
    from her2fast import golden

    try:
        wrong = golden.compare(golden.measure(), golden.read_golden())
    except (OSError, ValueError, KeyError) as error:
        return Check("self-test", False, f"{golden.DEMO_DIR}: {error}", "SELFTEST")
    if wrong:
        return Check("self-test", False, "; ".join(wrong), "SELFTEST")
    count = len(golden.demo_paths())
    return Check("self-test", True, f"{count} shipped slides give their golden areas")
