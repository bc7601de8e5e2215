# SPDX-License-Identifier: Apache-2.0
"""The native reader against the definition in plain integers, over lossless slides."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from her2fast import _core
from reference import resample as reference

UM = 1_000_000  # picometers
LEVEL0 = (203, 171)  # odd, so that every level loses a remainder
DOWNS = (1, 4)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> _core.Slide:
    return _core.Slide.open(str(write_slide(tmp_path_factory.mktemp("resample"))))


def write_slide(folder: Path) -> Path:
    """Noise, lossless, in levels 1 and 1/4 whose pixels are unrelated."""
    import tifffile

    path = folder / "noise.tiff"
    resolution = (25400 / 0.25, 25400 / 0.25)
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels()):
            tiff.write(
                level,
                tile=(32, 48),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(number > 0),
                resolution=(
                    resolution[0] / DOWNS[number],
                    resolution[1] / DOWNS[number],
                ),
                resolutionunit="INCH",
            )
    return path


def levels() -> list[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(3)
    width, height = LEVEL0
    return [
        random.integers(0, 256, (height // down, width // down, 3), dtype=np.uint8)
        for down in DOWNS
    ]


def expected(
    spacing_pm: tuple[int, int], target_pm: int, box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    downs = [(Fraction(d), Fraction(d)) for d in DOWNS]
    found = reference.plan(target_pm, spacing_pm, downs, [[1]] * len(DOWNS))
    assert found is not None
    level, denominator = found
    steps = [
        reference.source_step(target_pm, pm, Fraction(DOWNS[level]), denominator)
        for pm in spacing_pm
    ]
    return reference.resample(levels()[level], *box, *steps)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    spacing_pm=st.tuples(st.integers(90_000, 900_000), st.integers(-30, 30)),
    ratio=st.one_of(
        st.sampled_from([0.995, 1.0, 1.005, 2.0, 4.0, 3.98, 4.02, 8.0, 16.0]),
        st.floats(0.992, 9.0),
    ),
    x=st.integers(-40, 250),
    y=st.integers(-40, 200),
    width=st.integers(1, 24),
    height=st.integers(1, 16),
)
def test_reader_equals_the_definition(
    slide: _core.Slide,
    spacing_pm: tuple[int, int],
    ratio: float,
    x: int,
    y: int,
    width: int,
    height: int,
) -> None:
    sx = spacing_pm[0]
    sy = sx + sx * spacing_pm[1] // 20_000  # y within 0.15 % of x
    target_pm = round(sx * ratio)
    reader = _core.TileReader(slide, (sx / UM, sy / UM), mode="exact")
    rgb, status = reader.read(x, y, width, height, target_pm / UM)
    assert status == "ok"
    want = expected((sx, sy), target_pm, (x, y, width, height))
    np.testing.assert_array_equal(rgb, want)


@given(
    step=st.fractions(Fraction(99, 100), 40, max_denominator=1000),
    index=st.integers(-1000, 1000),
)
def test_weights_of_the_twin_sum_to_one(step: Fraction, index: int) -> None:
    _, weights = reference.axis_weights(index, step)
    assert sum(weights) == reference.ONE
    assert min(weights) >= 0


def test_twin_by_hand() -> None:
    source = np.array([[[0, 1, 0], [90, 2, 0], [255, 3, 255]]], np.uint8)
    out = reference.resample(source, 0, 0, 2, 1, Fraction(3, 2), Fraction(1))
    # (21845 * 90) / 65536 = 29.9995; (43691 * 1 + 21845 * 2) / 65536 = 1.33
    assert out.tolist() == [[[30, 1, 0], [200, 3, 170]]]
    source = np.array([[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]], np.uint8)
    out = reference.resample(source, 0, 0, 2, 1, Fraction(2), Fraction(2))
    assert out.tolist() == [[[3] * 3, [255] * 3]]  # 2.5 is rounded up; beyond is white
