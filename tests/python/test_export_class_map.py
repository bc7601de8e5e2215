# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from her2fast.export import class_map, numbers
from her2fast.export.class_map import class_map_png
from her2fast.export.numbers import percent
from her2fast.export.patches import Outcomes, PatchGrid

NAMES = ["0", "1+", "2+", "3+"]
# 64 px at 1 um/px over 0.25 um/px: a patch is 256 px of level 0
GRID = PatchGrid(patch_px=64, spacing_um=1.0, slide_spacing_um=(0.25, 0.25))
WHITE = np.full((300, 400, 3), 255, np.uint8)


def outcomes(places) -> Outcomes:
    table = np.array(places, np.int64).reshape(-1, 3)
    return Outcomes.from_dict(
        {
            "column": table[:, 0],
            "row": table[:, 1],
            "tumor_px": np.full(len(table), 4096),
            "kept": table[:, 2] >= 0,
            "predicted": table[:, 2],
            "logits": np.zeros((len(table), 4)),
        }
    )


def drawn(made: Outcomes, **changes) -> np.ndarray:
    arguments = {
        "size_px": (256 * 40, 256 * 30),  # ten thumbnail pixels a patch
        "class_names": NAMES,
        "class_px": [1, 1, 1, 1],
        "class_mm2": [0.1] * 4,
    }
    png = class_map_png(WHITE, made, GRID, **(arguments | changes))
    assert png == class_map_png(WHITE, made, GRID, **(arguments | changes))
    return np.asarray(Image.open(io.BytesIO(png)))


def test_patches_stand_where_they_lie():
    image = drawn(outcomes([(3, 2, 3), (4, 2, 0), (20, 20, -1)]))
    assert image.shape == (420, 700, 3)
    slide = image[:300, :400]
    tinted = (slide != 255).any(axis=2)
    rows, columns = np.nonzero(tinted)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 29, 30, 49)
    red, blue = slide[25, 35].astype(int), slide[25, 45].astype(int)
    # 0.45 of the color, the rest of the slide below
    np.testing.assert_allclose(
        red, 255 + 0.45 * (np.array([200, 50, 50]) - 255), atol=1
    )
    np.testing.assert_allclose(
        blue, 255 + 0.45 * (np.array([90, 90, 180]) - 255), atol=1
    )


def test_palette_and_legend_change_the_panel():
    made = outcomes([(3, 2, 3)])
    plain = drawn(made)
    panel = plain[:, 400:]
    for color in ((90, 90, 180), (255, 215, 0), (225, 150, 50), (200, 50, 50)):
        assert (panel == color).all(axis=2).sum() > 500
    assert not np.array_equal(plain, drawn(made, palette="pham"))
    noted = drawn(made, title=b"\xff".decode(errors="surrogateescape"), notes=["Not."])
    assert not np.array_equal(plain, noted)


def test_large_regions_carry_their_name():
    block = [(c, r, 2) for c in range(5, 15) for r in range(5, 15)]
    slide = drawn(outcomes(block))[:300, :400]
    middle = slide[80:120, 80:120]
    assert (middle == 255).all(axis=2).sum() > 20  # the label's halo
    assert (middle.max(axis=2) < 60).sum() > 10  # its ink


def test_no_patch_and_other_classes():
    assert (drawn(outcomes([]))[:300, :400] == 255).all()
    image = drawn(
        outcomes([(0, 0, 1)]),
        class_names=["benign", "malignant"],
        class_px=[0, 0],
        class_mm2=[0, 0],
    )
    assert (image[5, 5] != 255).any()


@pytest.mark.parametrize(
    "thumbnail", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), WHITE[:0]]
)
def test_bad_thumbnails(thumbnail):
    with pytest.raises(ValueError, match="need"):
        class_map_png(
            thumbnail,
            outcomes([]),
            GRID,
            size_px=(10, 10),
            class_names=NAMES,
            class_px=[0] * 4,
            class_mm2=[0] * 4,
        )


@given(st.integers(1, 2**53), st.data())
def test_percent_never_rounds_onto_a_cut(whole, data):
    near = st.sampled_from([0, whole // 10, whole // 10 + 1, whole - 1, whole])
    part = data.draw(near | st.integers(0, whole))
    shown = Fraction(percent(part, whole).removesuffix(" %"))
    exact = Fraction(100 * part, whole)
    assert abs(shown - exact) <= Fraction(1, 200)
    for cut in (0, 10, 100):
        assert (shown == cut) == (exact == cut)
        assert (shown < cut) == (exact < cut)


@pytest.mark.parametrize("module", [class_map, numbers])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
