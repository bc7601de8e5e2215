# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the Python tests."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from cuda_memory import build_on_host
from hypothesis import settings

from her2fast import _core
from her2fast.errors import DeviceError

# A busy machine is no fault of the code. CI draws the same examples each time, so that
# a change is judged by itself; elsewhere every run draws new ones.
settings.register_profile("her2fast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("her2fast")

ROOT = Path(__file__).resolve().parents[2]


def find_shared_data() -> Path | None:
    """The folder of real images and slides, or None; never part of the repository."""
    for candidate in (
        os.environ.get("HER2FAST_TEST_DATA"),
        ROOT.parent / "shared/data",
    ):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@functools.cache
def missing_cuda() -> str | None:
    """Why no kernel can run on a GPU here, or None."""
    _core.cuda.set_library("")
    try:
        _core.cuda.devices()
    except DeviceError as error:
        return str(error)
    return None


def without(reason: str) -> NoReturn:
    """Skips a test that lacks something of a GPU, where one is not said to be here."""
    if os.environ.get("HER2FAST_REQUIRE_CUDA") == "1":
        pytest.fail(f"HER2FAST_REQUIRE_CUDA=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A machine that is said to have a GPU must run these tests."""
    if item.get_closest_marker("needs_cuda") is None:
        return
    reason = missing_cuda()
    if reason is not None:
        without(reason)


@pytest.fixture(scope="session")
def library_on_host(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CUDA library, built for the CPU; once, for it takes a while."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the CPU")
    return str(build_on_host(tmp_path_factory.mktemp("cuda")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = find_shared_data()
    if folder is None:
        pytest.skip("the folder of real slides is absent (set HER2FAST_TEST_DATA)")
    return folder
