# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_images import CORES, core, masked_images
from PIL import Image

from her2fast.errors import DeviceError
from her2fast.kernels import FOCUS_LIMIT, focus, tissue_mask
from reference.focus import focus as twin


@settings(deadline=None)
@given(both=masked_images(), patch_px=st.integers(1, 40), stride_px=st.integers(1, 40))
def test_equals_twin(both, patch_px, stride_px):
    rgb, mask = both
    got = focus(rgb, mask, patch_px=patch_px, stride_px=stride_px)
    np.testing.assert_array_equal(got, twin(rgb, mask, patch_px, stride_px))


def test_by_hand():
    # A vertical step of 40 gray levels between columns 15 and 16. Smoothed luminance in
    # 1/8 gray level: 1280 | 1360 | 1520 | 1600 around it. In every row:
    # gradients s[x+2] - s[x-2] at 13..18: 80, 240, 320, 320, 240, 80
    # curvatures at 13..18: 80, 240, 160, -160, -240, -80
    rgb = np.full((32, 32, 3), 160, np.uint8)
    rgb[:, 16:] = 200
    got = focus(rgb, np.ones((32, 32), np.uint8), patch_px=32, stride_px=32)
    curve = 2 * (80**2 + 240**2 + 160**2)
    slope = 2 * (80**2 + 240**2 + 320**2)
    assert got.tolist() == [[100 * curve // slope]]


def test_extreme_contrast_does_not_overflow():
    rng = np.random.default_rng(1)
    rgb = np.repeat(rng.integers(0, 2, (256, 256, 1), dtype=np.uint8) * 255, 3, axis=2)
    mask = np.ones((256, 256), np.uint8)
    got = focus(rgb, mask, patch_px=256, stride_px=256)
    np.testing.assert_array_equal(got, twin(rgb, mask, 256, 256))


def test_nothing_to_tell_is_zero():
    flat = np.full((64, 64, 3), 200, np.uint8)
    everywhere = np.ones((64, 64), np.uint8)
    assert focus(flat, everywhere, patch_px=64, stride_px=64).tolist() == [[0]]
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    little = np.zeros((64, 64), np.uint8)
    little[:15, :17] = 1
    assert focus(noise, little, patch_px=64, stride_px=64).tolist() == [[0]]
    assert focus(noise, everywhere, patch_px=64, stride_px=64)[0, 0] > FOCUS_LIMIT


def test_bad_input():
    rgb, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="a mask"):
        focus(rgb, mask[:7], patch_px=2, stride_px=2)
    with pytest.raises(ValueError, match="channels"):
        focus(mask, mask, patch_px=2, stride_px=2)
    with pytest.raises(TypeError, match="uint8"):
        focus(rgb, mask.astype(np.int8), patch_px=2, stride_px=2)
    with pytest.raises(DeviceError, match="focus"):
        focus(rgb, mask, patch_px=2, stride_px=2, device="cuda")


def blurred(rgb, sigma_px):
    taps = np.exp(-0.5 * (np.arange(-12, 13) / sigma_px) ** 2)
    taps /= taps.sum()
    out = np.pad(rgb.astype(float), ((12, 12), (12, 12), (0, 0)), mode="edge")
    for axis in (0, 1):
        out = np.apply_along_axis(np.convolve, axis, out, taps, mode="valid")
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def jpeg(rgb, quality):
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


@pytest.mark.parametrize("name", CORES)
def test_noise_on_blurred_tissue_is_no_detail(shared_data, name):
    """Full size alone took up to all of these patches for sharp."""
    rgb = np.ascontiguousarray(core(shared_data, name)[400:976, 100:676])
    mask = tissue_mask(rgb)
    rng = np.random.default_rng(5)
    noise = rng.normal(0.0, 2.5, rgb.shape)
    soft = np.clip(blurred(rgb, 6.0) + noise + 0.5, 0, 255).astype(np.uint8)
    told = focus(soft, mask, patch_px=64, stride_px=64)
    told = told[told > 0]
    assert told.size > 10
    assert (told < FOCUS_LIMIT).mean() > 0.75


@pytest.mark.parametrize("name", CORES)
def test_sharp_and_blurred_cores_separate(shared_data, name):
    rgb = np.ascontiguousarray(core(shared_data, name)[400:976, 100:676])
    mask = tissue_mask(rgb)
    grid = {"patch_px": 64, "stride_px": 64}
    sharp = focus(rgb, mask, **grid)
    told = sharp[sharp > 0]
    assert told.size > 30
    assert (told >= FOCUS_LIMIT).mean() > 0.99
    for quality in (95, 40):
        blur = focus(jpeg(blurred(rgb, 2.5), quality), mask, **grid)
        blur = blur[blur > 0]
        assert blur.size > 10
        assert (blur < FOCUS_LIMIT).mean() > 0.98
