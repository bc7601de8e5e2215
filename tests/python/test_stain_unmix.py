# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from kernel_images import WHITE, images, whites

from her2fast.errors import DeviceError
from her2fast.kernels import H_DAB, stain_unmix
from reference.stain_unmix import stain_unmix as twin

# Three float32 terms of at most about 6 each: 4 units in the last place of 16.
TOLERANCE = 4e-6


@settings(deadline=None)
@given(rgb=images(), white=whites)
def test_is_near_the_twin(rgb, white):
    got = stain_unmix(rgb, white_rgb=white)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, twin(rgb, white, H_DAB), rtol=0, atol=TOLERANCE)


def test_white_is_nothing_and_stains_come_back():
    glass = np.full((1, 1, 3), (230, 225, 240), np.uint8)
    np.testing.assert_array_equal(stain_unmix(glass, white_rgb=(230, 225, 240)), 0)
    for stain in (0, 1):  # the residual alone is no color: its green exceeds white
        density = 0.4 * H_DAB[stain]
        rgb = np.uint8(np.clip(np.round(200 * 10**-density), 0, 255)).reshape(1, 1, 3)
        amount = stain_unmix(rgb, white_rgb=(200, 200, 200))[0, 0]
        np.testing.assert_allclose(amount, 0.4 * np.eye(3)[stain], atol=0.005)


def test_identity_stains_give_density():
    rgb = np.array([[[255, 25, 0]]], np.uint8)
    got = stain_unmix(rgb, stains=np.eye(3))[0, 0]
    np.testing.assert_allclose(got, [0, np.log10(10.2), np.log10(255)], atol=1e-6)


def test_vectors_are_ruifrok_and_johnston():
    np.testing.assert_allclose(np.linalg.norm(H_DAB, axis=1), 1)
    ratio = H_DAB[:2] / H_DAB[:2, :1]
    published = np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776]])
    np.testing.assert_allclose(ratio, published / published[:, :1])
    np.testing.assert_allclose(H_DAB[2] @ H_DAB[:2].T, 0, atol=1e-15)


def test_against_scikit_image():
    # rgb2hed knows hematoxylin, eosin and DAB; takes log(v) / log(1e-6), that is
    # density over 6, cut at 0; and does not make its vectors unit. With its own matrix,
    # made unit, ours is six times its answer wherever that is not cut.
    color = pytest.importorskip("skimage.color")
    rgb = np.array([[[150, 110, 90], [180, 170, 200], [120, 90, 110]]], np.uint8)
    lengths = np.linalg.norm(color.rgb_from_hed, axis=1)
    got = stain_unmix(rgb, stains=color.rgb_from_hed / lengths[:, None])
    theirs = color.rgb2hed(rgb) * 6 * lengths
    kept = theirs > 0
    assert kept.sum() >= 5
    np.testing.assert_allclose(got[kept], theirs[kept], atol=1e-5)
    assert (got[~kept] <= 1e-5).all()


def test_bad_input():
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="singular"):
        stain_unmix(rgb, stains=[[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    with pytest.raises(ValueError, match="singular"):
        stain_unmix(rgb, stains=np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="shape"):
        stain_unmix(rgb, stains=np.eye(2))
    with pytest.raises(ValueError, match="at least 1"):
        stain_unmix(rgb, white_rgb=(255, 0, 255))
    with pytest.raises(ValueError, match="channels"):
        stain_unmix(rgb[..., 0])
    with pytest.raises(TypeError, match="uint8"):
        stain_unmix(rgb.astype(np.uint16))
    with pytest.raises(DeviceError, match="stain_unmix"):
        stain_unmix(rgb, white_rgb=WHITE, device="cuda")
