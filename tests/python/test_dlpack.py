# SPDX-License-Identifier: Apache-2.0
"""Capsules that the core reads and makes, against NumPy's."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from her2fast import _core


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8", "b1"])
@pytest.mark.parametrize("versioned", [False, True])
def test_capsules_of_numpy_are_read_right(dtype: str, versioned: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for part in (array, array[:, 1:, ::2], array[:0]):
        options = {"max_version": (1, 0)} if versioned else {}
        view = _core.read_dlpack(part.__dlpack__(**options))
        assert view.shape == part.shape
        assert np.dtype(view.typestr) == part.dtype
        assert view.device == (1, 0)
        assert not view.read_only
        if part.size:
            assert view.pointer == part.ctypes.data
            assert view.strides in (None, part.strides)
    array.flags.writeable = False
    assert _core.read_dlpack(array.__dlpack__(max_version=(1, 0))).read_only


@pytest.mark.parametrize("versioned", [False, True])
def test_capsules_are_read_right_by_numpy(versioned: bool) -> None:
    array = np.arange(6, dtype=np.uint16).reshape(2, 3)

    class Holder:
        def __dlpack__(self, **_: object) -> Any:
            return _core.make_dlpack(
                array.ctypes.data, [2, 2], [3, 2], "<u2", (1, 0), array, versioned
            )

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    before = sys.getrefcount(array)
    got = np.from_dlpack(Holder())
    assert got.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(got, array[:, ::2])
    during = sys.getrefcount(array)
    del got
    assert (during, sys.getrefcount(array)) == (before + 1, before)


def test_a_capsule_is_used_once() -> None:
    capsule = np.zeros(3).__dlpack__()
    _core.read_dlpack(capsule)
    for bad in (capsule, None, 3):
        with pytest.raises(ValueError, match="nobody has used"):
            _core.read_dlpack(bad)
    with pytest.raises(ValueError, match="128 bits"):
        _core.read_dlpack(np.zeros(3, np.complex128).__dlpack__()).typestr  # noqa: B018
    with pytest.raises(ValueError, match="integers, floats or bool"):
        _core.make_dlpack(0, [0], [1], "S3", (1, 0), None, False)
    with pytest.raises(ValueError, match="a stride for each of 2 dimensions, got 1"):
        _core.make_dlpack(0, [2, 2], [1], "<u2", (1, 0), None, False)
