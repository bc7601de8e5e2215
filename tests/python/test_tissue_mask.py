# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_images import CORES, WHITE, core, images, load, slide, whites

from her2fast.errors import DeviceError
from her2fast.kernels import TISSUE_REACH_PX, tissue_mask
from reference.tissue_mask import tissue_mask as twin

GLASS = (236, 235, 245)


@settings(deadline=None)
@given(rgb=images(), white=whites)
def test_equals_twin(rgb, white):
    np.testing.assert_array_equal(tissue_mask(rgb, white_rgb=white), twin(rgb, white))


@settings(deadline=None)
@given(rgb=images(least=40, most=120), data=st.data())
def test_a_tile_with_halo_equals_the_whole(rgb, data):
    height, width = rgb.shape[:2]
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    halo = TISSUE_REACH_PX
    top, left = min(y0, halo), min(x0, halo)
    tile = tissue_mask(rgb[y0 - top : y1 + halo, x0 - left : x1 + halo])
    np.testing.assert_array_equal(
        tile[top : top + y1 - y0, left : left + x1 - x0],
        tissue_mask(rgb)[y0:y1, x0:x1],
    )


def test_bands_of_a_wide_image_join():
    rng = np.random.default_rng(3)
    rgb = rng.integers(150, 256, (40, 2300, 3), dtype=np.uint8)
    rgb[:, ::7] = 255
    np.testing.assert_array_equal(tissue_mask(rgb), twin(rgb, WHITE))


def test_white_padding_changes_nothing():
    rgb = np.full((60, 50, 3), 190, np.uint8)
    padded = np.pad(rgb, ((9, 30), (17, 4), (0, 0)), constant_values=255)
    np.testing.assert_array_equal(tissue_mask(padded)[9:69, 17:67], tissue_mask(rgb))


@pytest.mark.parametrize(
    ("color", "tissue"),
    [
        ((255, 255, 255), 0),
        (GLASS, 0),
        ((224, 224, 224), 0),  # density 0.169 in all
        ((218, 218, 218), 1),  # 0.204
        ((205, 205, 222), 1),  # pale 0
        ((150, 110, 90), 1),  # DAB
        ((60, 30, 18), 1),  # the densest DAB
        ((60, 60, 110), 1),  # dense hematoxylin
        ((215, 120, 170), 1),  # eosin
        ((30, 90, 200), 0),  # blue pen
        ((150, 185, 235), 0),  # its pale edge
        ((10, 140, 80), 0),  # green pen
        ((20, 70, 60), 0),  # green pen over tissue
        ((205, 25, 35), 0),  # red pen
        ((12, 12, 14), 0),  # black pen
    ],
)
def test_colors(color, tissue):
    rgb = np.full((80, 80, 3), color, np.uint8)
    assert (tissue_mask(rgb)[20:60, 20:60] == tissue).all()


def test_texture_alone_is_tissue_and_dust_is_not():
    rgb = np.full((120, 120, 3), GLASS, np.uint8)
    rgb[60:67, 60:67] = 40  # a speck
    assert not tissue_mask(rgb).any()
    y, x = np.mgrid[:120, :120]
    rgb[(y // 4 + x // 4) % 2 == 0] = (224, 223, 235)  # four-pixel checks, 5 % apart
    assert tissue_mask(rgb)[20:100, 20:100].mean() > 0.95


def test_jpeg_and_sensor_noise_on_glass_are_not_tissue():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2.5, (200, 200, 3))
    rgb = np.clip(np.array(GLASS) + noise + 0.5, 0, 255).astype(np.uint8)
    assert not tissue_mask(rgb).any()


def test_tissue_beside_ink_stays():
    rgb = np.full((120, 120, 3), (170, 150, 140), np.uint8)
    rgb[:, 60:] = (30, 90, 200)
    mask = tissue_mask(rgb)
    assert mask[20:100, 20:50].all()
    assert not mask[:, 60:].any()


def test_bad_input():
    rgb = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="channels"):
        tissue_mask(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="at least 128"):
        tissue_mask(rgb, white_rgb=(255, 127, 255))
    with pytest.raises(ValueError, match="0 to 255"):
        tissue_mask(rgb, white_rgb=(256, 255, 255))
    with pytest.raises(TypeError, match="uint8"):
        tissue_mask(rgb.astype(np.float32))
    with pytest.raises(DeviceError, match="tissue_mask"):
        tissue_mask(rgb, device="cuda:1")


def test_empty_images():
    for shape in [(0, 0, 3), (0, 5, 3), (5, 0, 3)]:
        assert tissue_mask(np.zeros(shape, np.uint8)).shape == shape[:2]


# Least share of the square, and of the disc of radius 0.4 sides.
@pytest.mark.parametrize(
    ("name", "least", "inside"),
    list(
        zip(
            CORES,
            [0.50, 0.66, 0.64, 0.55, 0.55, 0.50],
            [0.80, 0.99, 0.99, 0.90, 0.99, 0.85],
            strict=True,
        )
    ),
)
@pytest.mark.parametrize("white", [WHITE, GLASS])
def test_cores(shared_data, name, least, inside, white):
    rgb = core(shared_data, name)
    mask = tissue_mask(rgb, white_rgb=white)
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    center = width if name.endswith("left_half") else width / 2
    radius = np.hypot(y - height / 2, x - center)
    assert mask.mean() >= least
    assert mask[radius < 0.4 * height].mean() >= inside
    assert mask[radius > 0.53 * height].mean() < 0.02


def test_pen_of_real_slides(shared_data):
    blue = load(shared_data / "stained/wsi-blue-pen.png")
    mask = tissue_mask(blue)
    ink = blue[..., 0].astype(int) + 60 < blue[..., 2]
    assert ink.sum() > 200
    assert mask[ink].mean() < 0.1
    pink = blue[..., 0].astype(int) > blue[..., 1].astype(int) + 40
    assert mask[pink].mean() > 0.95
    green = load(shared_data / "stained/tcga-green-pen.png")
    mask = tissue_mask(green)
    assert mask[120:260, 300:380].mean() < 0.1
    assert mask[:, 480:].mean() > 0.99


def test_hematoxylin_and_eosin_is_tissue(shared_data):
    mask = tissue_mask(slide(shared_data, "CMU-1-Small-Region.svs"))
    assert 0.35 < mask.mean() < 0.45
