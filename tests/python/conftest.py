# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the Python tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def find_shared_data() -> Path | None:
    """The folder of real images and slides, or None; it is never part of the repository."""
    for candidate in (os.environ.get("HER2FAST_TEST_DATA"), ROOT.parent / "shared/data"):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = find_shared_data()
    if folder is None:
        pytest.skip("the folder of real slides is absent (set HER2FAST_TEST_DATA)")
    return folder
