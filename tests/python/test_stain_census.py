# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_images import CORES, core, load, masked_images, slide, whites

from her2fast.errors import DeviceError
from her2fast.kernels import StainCensus, is_wrong_stain, stain_census, tissue_mask
from reference import stain_census as twin

FIELDS = ["pixels", "dark", "tissue", "stained", "eosin", "h_dab"]


def fields(census):
    return {name: getattr(census, name) for name in FIELDS}


def census_of(rgb):
    return stain_census(rgb, tissue_mask(rgb))


@settings(deadline=None)
@given(both=masked_images(), white=whites)
def test_equals_twin(both, white):
    rgb, mask = both
    got = stain_census(rgb, mask, white_rgb=white)
    assert fields(got) == twin.stain_census(rgb, mask, white)


@given(counts=st.lists(st.integers(0, 20_000), min_size=6, max_size=6))
def test_judgement_equals_twin(counts):
    values = dict(zip(FIELDS, counts, strict=True))
    assert is_wrong_stain(StainCensus(**values)) == twin.is_wrong_stain(values)


@given(both=masked_images())
def test_tiles_add(both):
    rgb, mask = both
    half = rgb.shape[0] // 2
    parts = stain_census(rgb[:half], mask[:half]) + stain_census(
        rgb[half:], mask[half:]
    )
    assert parts == stain_census(rgb, mask)


def test_by_hand():
    colors = [
        (255, 255, 255),
        (10, 10, 10),
        (220, 110, 170),
        (150, 110, 90),
        (40, 200, 90),
    ]
    rgb = np.array([colors], np.uint8)
    mask = np.array([[1, 0, 1, 1, 1]], np.uint8)
    assert fields(stain_census(rgb, mask)) == {
        "pixels": 5,
        "dark": 1,
        "tissue": 4,
        "stained": 3,
        "eosin": 1,
        "h_dab": 1,
    }


def test_judgements():
    assert not is_wrong_stain(StainCensus())
    tissue = {"pixels": 10**6, "tissue": 500_000}
    pure = StainCensus(**tissue, stained=9000, h_dab=9000)
    assert not is_wrong_stain(pure)
    red_cells = StainCensus(**tissue, stained=12_000, eosin=6000, h_dab=6000)
    assert not is_wrong_stain(red_cells)
    h_and_e = StainCensus(**tissue, stained=400_000, eosin=200_000, h_dab=200_000)
    assert is_wrong_stain(h_and_e)
    assert is_wrong_stain(StainCensus(pixels=100, dark=51))
    assert not is_wrong_stain(StainCensus(pixels=100, dark=50))


@pytest.mark.parametrize("name", CORES)
def test_cores_are_right(shared_data, name):
    census = census_of(core(shared_data, name))
    assert census.stained >= 1000
    assert census.h_dab > 0.95 * census.stained
    assert census.eosin < 0.01 * census.stained
    assert not is_wrong_stain(census)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("nuclear_dab_a", 4), ("nuclear_dab_pair", 4), ("breast_2plus", 1)],
)
def test_other_h_dab_is_right(shared_data, name, factor):
    census = census_of(load(shared_data / f"stained/{name}.png", factor))
    assert census.stained >= 1000
    assert census.h_dab > 0.9 * census.stained
    assert not is_wrong_stain(census)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "aperio_no_mpp.svs"])
def test_hematoxylin_and_eosin_is_wrong(shared_data, name):
    census = census_of(slide(shared_data, name))
    assert census.eosin > 0.45 * census.stained
    assert is_wrong_stain(census)


def test_fluorescence_is_wrong(shared_data):
    census = census_of(
        slide(shared_data, "hamamatsu_fluorescence.ndpi", level=2, factor=1)
    )
    assert census.dark > 0.7 * census.pixels
    assert is_wrong_stain(census)


def test_pen_does_not_tip_a_core(shared_data):
    rgb = core(shared_data, "core_0_b")
    for color in [(30, 90, 200), (10, 140, 80), (205, 25, 35), (12, 12, 14)]:
        marked = rgb.copy()
        marked[500:800] = color
        assert not is_wrong_stain(census_of(marked))


def test_bad_input():
    rgb, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="a mask"):
        stain_census(rgb, mask[:, :7])
    with pytest.raises(ValueError, match="at least 128"):
        stain_census(rgb, mask, white_rgb=(0, 0, 0))
    with pytest.raises(TypeError, match="uint8"):
        stain_census(rgb.astype(int), mask)
    with pytest.raises(DeviceError, match="stain_census"):
        stain_census(rgb, mask, device="cuda")
