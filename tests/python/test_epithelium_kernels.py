# SPDX-License-Identifier: Apache-2.0
"""Superpixels, their features, the decision: equal to slow twins and to libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_images import images
from scipy import ndimage

from her2fast import phantom
from her2fast.errors import DeviceError
from her2fast.kernels.epithelium import (
    COLOR_BINS,
    COLOR_PLANES,
    FEATURE_ONE,
    PATTERN_BINS,
    SUPERPIXEL_FEATURES,
    local_patterns,
    superpixel_features,
    superpixel_roots,
    superpixels,
    svm_decision,
)
from reference import epithelium as twin

Bytes = npt.NDArray[np.uint8]
Seeds = st.integers(0, 2**32 - 1)


def tissue(seed: int, side_px: int = 256) -> Bytes:
    """A synthetic picture of every class, at 1 um/px."""
    mixture = (0.25, 0.25, 0.25, 0.25)
    picture = phantom.render(seed, (side_px, side_px), spacing_um=1.0, mixture=mixture)
    return np.ascontiguousarray(picture.rgb)


def boundaries(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels beside another label."""
    out = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        for side in ((0, 1), (1, 0)):
            out |= np.pad(differ, [side if a == axis else (0, 0) for a in (0, 1)])
    return out


@settings(max_examples=40, deadline=None)
@given(
    rgb=images(most=40),
    size_px=st.integers(2, 12),
    compactness=st.sampled_from([0.5, 10.0, 40.0]),
    iterations=st.integers(1, 4),
)
def test_superpixels_equal_reference(
    rgb: Bytes, size_px: int, compactness: float, iterations: int
) -> None:
    found, count = superpixels(
        rgb, size_px=size_px, compactness=compactness, iterations=iterations
    )
    expected, expected_count = twin.superpixels(rgb, size_px, compactness, iterations)
    assert count == expected_count
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("height", [63, 64, 65, 128, 150])
def test_sums_of_more_rows_than_fit_at_once_equal_reference(height: int) -> None:
    """The kernel empties its small sums into large ones after every 64 rows."""
    rng = np.random.default_rng(height)
    # Faint enough that superpixels keep together: of wild noise all pieces join.
    rgb = rng.integers(90, 130, (height, 40, 3)).astype(np.uint8)
    found, count = superpixels(rgb, size_px=16, compactness=20.0, iterations=3)
    expected, expected_count = twin.superpixels(rgb, 16, 20.0, 3)
    assert count == expected_count >= height * 40 // 16**2 // 2
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None)
@given(rgb=images(), size_px=st.integers(2, 20))
def test_superpixels_are_connected_and_numbered_in_order(
    rgb: Bytes, size_px: int
) -> None:
    labels, count = superpixels(rgb, size_px=size_px)
    values, first = np.unique(labels, return_index=True)
    assert values.tolist() == list(range(count))
    assert (np.diff(first) > 0).all()
    for label in range(count):
        assert ndimage.label(labels == label)[1] == 1


def test_a_sharp_edge_parts_superpixels() -> None:
    rgb = np.full((64, 64, 3), 230, np.uint8)
    rgb[:, 29:] = (120, 70, 40)
    labels, _ = superpixels(rgb, size_px=16)
    left, right = set(labels[:, :29].ravel()), set(labels[:, 29:].ravel())
    assert not left & right


@pytest.mark.parametrize("seed", [41, 42, 43])
def test_superpixels_are_those_of_scikit_image(seed: int) -> None:
    from skimage.segmentation import slic

    rgb = tissue(seed)
    # The library stretches a picture to its darkest and brightest value; this one is
    # given both.
    rgb[0, 0], rgb[0, 1] = 0, 255
    labels, count = superpixels(rgb, size_px=16)
    theirs = slic(rgb, n_segments=256, compactness=10, start_label=0)
    assert abs(count - len(np.unique(theirs))) <= 0.02 * count
    # A boundary is found where one lies within a pixel; usual are two.
    own, other = boundaries(labels), boundaries(theirs)
    for found, wanted in ((own, other), (other, own)):
        near = ndimage.binary_dilation(found, np.ones((3, 3)))
        assert (near & wanted).sum() >= 0.95 * wanted.sum()


@settings(max_examples=60, deadline=None)
@given(rgb=images())
def test_patterns_equal_reference(rgb: Bytes) -> None:
    gray = np.ascontiguousarray(rgb[..., 1])
    np.testing.assert_array_equal(local_patterns(gray), twin.local_patterns(gray))


@pytest.mark.parametrize("levels", [256, 3, 1])
def test_pattern_counts_are_those_of_scikit_image(levels: int) -> None:
    from skimage.feature import local_binary_pattern

    rng = np.random.default_rng(levels)
    gray = rng.integers(100, 100 + levels, (200, 300)).astype(np.uint8)
    if levels == 256:
        gray = twin.gray(tissue(44))
    theirs = local_binary_pattern(gray, 8, 1, method="uniform")
    np.testing.assert_array_equal(local_patterns(gray), theirs)


def test_patterns_worked_by_hand() -> None:
    # Around 5: east 9, south 5, all others 1. South-east is .086 * 5 + .207 * (9 + 5)
    # + .5 * 1 = 3.8, less than 5: two arcs. With 4 in the corner it is 5.3: one of 3.
    gray = np.array([[1, 1, 1], [1, 5, 9], [1, 5, 1]], np.uint8)
    assert local_patterns(gray)[1, 1] == 9
    gray[2, 2] = 4
    assert local_patterns(gray)[1, 1] == 3


@settings(max_examples=30, deadline=None)
@given(
    rgb=images(), seed=Seeds, white=st.sampled_from([(255, 255, 255), (240, 230, 245)])
)
def test_features_equal_reference(
    rgb: Bytes, seed: int, white: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, rgb.shape[:2]).astype(np.int32)
    counts = superpixel_features(rgb, labels, 7, white=white)
    np.testing.assert_array_equal(
        counts, twin.superpixel_features(rgb, labels, 7, white)
    )
    np.testing.assert_array_equal(
        superpixel_roots(counts), twin.superpixel_roots(counts)
    )


def test_every_plane_counts_every_pixel() -> None:
    rgb = tissue(45, 64)
    labels, count = superpixels(rgb)
    counts = superpixel_features(rgb, labels, count)
    sizes = np.bincount(labels.ravel())
    color = counts[:, : COLOR_PLANES * COLOR_BINS]
    planes = color.reshape(count, COLOR_PLANES, COLOR_BINS).sum(2)
    np.testing.assert_array_equal(planes, np.repeat(sizes[:, None], COLOR_PLANES, 1))
    assert counts[:, -PATTERN_BINS:].sum() == 62 * 62
    assert counts.shape[1] == SUPERPIXEL_FEATURES == 224 + 10


def test_roots_worked_by_hand() -> None:
    counts = np.zeros((1, SUPERPIXEL_FEATURES), np.uint32)
    counts[0, [0, 3]] = 1, 3
    counts[0, 224] = 8
    found = superpixel_roots(counts)[0]
    assert (found[0], found[3], found[224]) == (1280, 2217, FEATURE_ONE)
    assert found.sum() == 1280 + 2217 + FEATURE_ONE


def machine(
    seed: int, rows: int, features: int, vectors: int
) -> tuple[npt.NDArray[Any], ...]:
    rng = np.random.default_rng(seed)
    x, v = (
        rng.integers(0, 2561, (n, features)).astype(np.int16) for n in (rows, vectors)
    )
    return x, v, rng.normal(size=vectors) * 10


@settings(max_examples=40, deadline=None)
@given(
    seed=Seeds,
    rows=st.integers(0, 5),
    features=st.integers(1, 320),
    vectors=st.sampled_from([0, 1, 3, 255, 256, 600]),
    scale=st.floats(0.01, 200.0),
)
def test_decision_equals_reference(
    seed: int, rows: int, features: int, vectors: int, scale: float
) -> None:
    x, v, coefficients = machine(seed, rows, features, vectors)
    gamma = scale / (features * 2560.0**2)
    found = svm_decision(x, v, coefficients, intercept=0.25, gamma=gamma)
    expected = twin.svm_decision(x, v, coefficients, 0.25, gamma)
    slack = 1e-10 * np.abs(coefficients).sum() + 1e-12
    np.testing.assert_allclose(found, expected, rtol=0, atol=slack)


def test_decision_is_that_of_scikit_learn() -> None:
    from sklearn.svm import SVC

    rgb = tissue(46)
    labels, count = superpixels(rgb)
    features = superpixel_roots(superpixel_features(rgb, labels, count))
    # Brown or not: whatever two classes there are.
    brown = features[:, 6 * COLOR_BINS] < np.median(features[:, 6 * COLOR_BINS])
    gamma = 1 / (2 * 6.0**2)
    fitted = SVC(C=10.0, kernel="rbf", gamma=gamma).fit(features / 512.0, brown)
    found = svm_decision(
        features,
        features[fitted.support_],
        np.ascontiguousarray(fitted.dual_coef_[0]),
        intercept=float(fitted.intercept_[0]),
        gamma=gamma / 512.0**2,
    )
    theirs = fitted.decision_function(features / 512.0)
    assert np.abs(found - theirs).max() < 1e-8
    assert 0.2 < (found > 0).mean() < 0.8


def test_no_entry_of_a_table_is_near_a_half() -> None:
    """So that no math library rounds one differently."""
    for values in (twin.light_values(), twin.root_values()):
        assert np.abs(values - np.floor(values) - 0.5).min() > 1e-6


def test_colors_are_those_of_scikit_image() -> None:
    from skimage.color import rgb2lab

    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    away = np.abs(twin.lab(rgb) / 64.0 - rgb2lab(rgb))
    assert away.max() < 0.5
    light = rgb.min(-1) > 60  # tissue
    assert away[light].max() < 0.15


def test_bad_input_is_refused() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    labels = np.zeros((8, 8), np.int32)
    for wrong in ({"size_px": 1}, {"size_px": 65}, {"compactness": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
            superpixels(rgb, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iterations"):
        superpixels(rgb, iterations=0)
    with pytest.raises(ValueError, match="compactness"):
        superpixels(rgb, compactness=float("nan"))
    with pytest.raises(ValueError, match="sides of 1 to 4096"):
        superpixels(np.zeros((0, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="3 channels"):
        superpixels(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="labels of 0 to 0, got 1"):
        superpixel_features(rgb, labels + np.int32(1), 1)
    with pytest.raises(ValueError, match="need labels of 8 x 8"):
        superpixel_features(rgb, labels[:4], 1)
    with pytest.raises(TypeError, match="int32"):
        superpixel_features(rgb, labels.astype(np.int64), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="234 columns"):
        superpixel_roots(np.zeros((1, 233), np.uint32))
    with pytest.raises(DeviceError):
        superpixels(rgb, device="cuda")


def test_a_wrong_machine_is_refused() -> None:
    x, v, coefficients = machine(1, 2, 4, 3)
    good = {"intercept": 0.0, "gamma": 1e-6}
    with pytest.raises(ValueError, match="0 to 2560, got -1"):
        svm_decision(x - x - np.int16(1), v, coefficients, **good)
    with pytest.raises(ValueError, match="0 to 2560, got 2561"):
        svm_decision(x, v - v + np.int16(2561), coefficients, **good)
    with pytest.raises(ValueError, match="a coefficient for each of 3"):
        svm_decision(x, v, coefficients[:2], **good)
    with pytest.raises(ValueError, match="alike, got 4 and 3"):
        svm_decision(x, np.ascontiguousarray(v[:, :3]), coefficients, **good)
    for gamma in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="gamma > 0"):
            svm_decision(x, v, coefficients, intercept=0.0, gamma=gamma)
