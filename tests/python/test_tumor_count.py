# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from her2fast.errors import DeviceError
from her2fast.kernels import tumor_count
from reference.tumor_count import tumor_count as twin

masks = arrays(
    np.uint8,
    st.tuples(st.integers(0, 90), st.integers(0, 90)),
    elements=st.sampled_from([0, 0, 1, 2, 128, 255]),
)


@given(mask=masks, patch_px=st.integers(1, 70), stride_px=st.integers(1, 40))
def test_equals_twin(mask, patch_px, stride_px):
    got = tumor_count(mask, patch_px=patch_px, stride_px=stride_px)
    np.testing.assert_array_equal(got, twin(mask, patch_px, stride_px))


def test_by_hand():
    mask = np.array([[1, 0, 9], [0, 255, 1], [1, 1, 0]], np.uint8)
    assert tumor_count(mask, patch_px=2, stride_px=1).tolist() == [[2, 3], [3, 3]]
    assert tumor_count(mask, patch_px=3, stride_px=7).tolist() == [[6]]
    assert tumor_count(mask, patch_px=4, stride_px=1).shape == (0, 0)


def test_a_full_large_patch_does_not_wrap():
    mask = np.full((4096, 4097), 7, np.uint8)
    assert tumor_count(mask, patch_px=4096, stride_px=1).tolist() == [[2**24, 2**24]]


def test_bad_input():
    mask = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="patch_px=0"):
        tumor_count(mask, patch_px=0, stride_px=1)
    with pytest.raises(ValueError, match="stride_px=0"):
        tumor_count(mask, patch_px=1, stride_px=0)
    with pytest.raises(ValueError, match="channels"):
        tumor_count(np.zeros((8, 8, 3), np.uint8), patch_px=2, stride_px=2)
    with pytest.raises(ValueError, match="dimensions"):
        tumor_count(np.zeros(8, np.uint8), patch_px=2, stride_px=2)
    with pytest.raises(TypeError, match="uint8"):
        tumor_count(mask.astype(np.int8), patch_px=2, stride_px=2)
    with pytest.raises(ValueError, match="device"):
        tumor_count(mask, patch_px=2, stride_px=2, device="gpu")
    with pytest.raises(DeviceError, match="tumor_count"):
        tumor_count(mask, patch_px=2, stride_px=2, device="cuda")


def test_a_strided_mask_is_read_right():
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    got = tumor_count(mask[::2, ::2], patch_px=2, stride_px=2)
    np.testing.assert_array_equal(got, twin(mask[::2, ::2], 2, 2))
