# SPDX-License-Identifier: Apache-2.0
"""Truth that a phantom carries: membranes and cells, beside the class map."""

from __future__ import annotations

from dataclasses import fields as dataclass_fields

import numpy as np
import pytest

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from scipy import ndimage

from her2fast import phantom
from her2fast.phantom import cells, fields, scene


def alone(kind):
    return tuple(float(k == kind) for k in range(4))


@pytest.fixture(scope="module")
def pictures():
    """Three scenes of each class alone, 0.25 um/px."""
    return {
        kind: [
            phantom.compose_scene(
                60 + seed, (320, 320), spacing_um=0.25, mixture=alone(kind)
            )
            for seed in range(3)
        ]
        for kind in range(4)
    }


def test_membranes_lie_on_tumor_and_rise_with_the_class(pictures):
    shares = []
    for drawn in pictures.values():
        for one in drawn:
            assert not (one.membrane_mask & (one.class_map < 0)).any()
        inside = sum(int((one.class_map >= 0).sum()) for one in drawn)
        shares.append(sum(int(one.membrane_mask.sum()) for one in drawn) / inside)
    assert shares[0] < 1e-3
    assert 0.0 < shares[1] < 0.6 * shares[2] < 0.6 * shares[3]


def test_membranes_are_brown(pictures):
    for one in pictures[2] + pictures[3]:
        on = one.membrane_mask
        # The cut is on membrane DAB; cytoplasm and veil only add to it.
        assert one.amounts[1][on].min() > phantom.MEMBRANE_CUT
        tumor = (one.class_map >= 0) & ~on
        assert one.amounts[1][on].mean() > 2.0 * one.amounts[1][tumor].mean()


def test_widths_of_drawn_membranes_follow_the_class(pictures):
    """Twice the mean distance from the band's middle line; Scheel: 1.0 and 2.14 um."""
    widths = []
    for kind in (2, 3):
        values = []
        for one in pictures[kind]:
            inside = ndimage.distance_transform_edt(one.membrane_mask)
            ridge = (inside == ndimage.maximum_filter(inside, 3)) & (inside > 0)
            values.append(np.median(inside[ridge]) * 2.0 * 0.25)
        widths.append(float(np.mean(values)))
    assert 0.6 < widths[0] < 1.6
    assert 1.4 < widths[1] < 3.0
    assert widths[1] > 1.4 * widths[0]


def test_cells_agree_with_the_maps():
    for seed in range(4):
        picture = phantom.render(seed, (256, 192), mixture=(0.3, 0.3, 0.2, 0.2))
        table = picture.cells
        assert len(table) > 5
        x, y = table.x_um.astype(int), table.y_um.astype(int)
        np.testing.assert_array_equal(picture.class_map[y, x], table.kind)
        assert ((table.completeness >= 0.0) & (table.completeness <= 1.0)).all()
        assert (table.density >= 0.0).all()
        assert np.unique(table.number).size == len(table)
        apart = np.hypot(
            table.x_um[:, None] - table.x_um, table.y_um[:, None] - table.y_um
        )
        # Cells of one nest keep apart; nests may press two against each other.
        close = apart[np.triu_indices(len(table), 1)] < 2.5
        assert close.sum() <= 0.05 * len(table)


def test_completeness_and_density_rise_with_the_class(pictures):
    tables = {
        kind: cells.gather([one.cells for one in drawn])
        for kind, drawn in pictures.items()
    }
    for low, high in ((0, 1), (1, 2)):
        assert tables[low].completeness.mean() < tables[high].completeness.mean()
    for low, high in ((0, 1), (1, 2), (2, 3)):
        assert tables[low].density.mean() < tables[high].density.mean()
    assert tables[3].completeness.mean() > 0.7


def test_nuclei_are_where_the_table_says(pictures):
    """Hematoxylin at a nucleus against cells that show none."""
    with_nucleus, without = [], []
    for drawn in pictures.values():
        for one in drawn:
            smooth = ndimage.uniform_filter(one.amounts[0], 9)
            row = (one.cells.y_um / 0.25).astype(int)
            column = (one.cells.x_um / 0.25).astype(int)
            here = smooth[row, column] / np.median(smooth[one.class_map >= 0])
            with_nucleus.extend(here[one.cells.has_nucleus])
            without.extend(here[~one.cells.has_nucleus])
    assert np.mean(with_nucleus) > 1.2 * np.mean(without)


@pytest.mark.parametrize("band_px", [500, 5000, 1 << 22])
def test_bands_leave_no_trace(monkeypatch, band_px):
    wanted = phantom.compose_scene(9, (150, 170))
    monkeypatch.setattr(scene, "_BAND_PX", band_px)
    got = phantom.compose_scene(9, (150, 170))
    np.testing.assert_array_equal(got.class_map, wanted.class_map)
    np.testing.assert_array_equal(got.membrane_mask, wanted.membrane_mask)
    np.testing.assert_allclose(got.amounts, wanted.amounts, atol=1e-6)
    for field in dataclass_fields(cells.CellTable):
        np.testing.assert_allclose(
            getattr(got.cells, field.name), getattr(wanted.cells, field.name), atol=1e-5
        )


def test_no_tumor_has_no_cells():
    drawn = phantom.compose_scene(1, (96, 96), tumor=False)
    assert len(drawn.cells) == 0
    assert not drawn.membrane_mask.any()


def test_oversampling_is_the_scenes_own():
    drawn = phantom.compose_scene(2, (64, 48), oversampling=2)
    picture = phantom.develop(drawn, phantom.PROFILES[0], 2, spacing_um=1.0)
    assert picture.rgb.shape == (48, 64, 3)
    assert picture.class_map.shape == picture.membrane_mask.shape == (48, 64)
    assert np.array_equal(picture.tissue, drawn.tissue[::2, ::2])
    with pytest.raises(ValueError, match="oversampling=2"):
        phantom.develop(drawn, phantom.PROFILES[0], 2, spacing_um=1.0, oversampling=1)


def test_noise_by_rows_is_the_noise():
    for scale_px in (1.5, 4.0, 40.0):
        noise = fields.make_noise(fields.generator(1), (600, 530), scale_px)
        whole = noise.full()
        assert whole.shape == (600, 530)
        parts = [noise.rows(k, min(k + 37, 600)) for k in range(0, 600, 37)]
        np.testing.assert_array_equal(np.vstack(parts), whole)


def test_gathering_keeps_the_nearest_pixel_of_each_cell():
    def table(number, off, x):
        size = len(number)
        return cells.CellTable(
            number=np.array(number),
            off_um=np.array(off, np.float32),
            x_um=np.array(x, np.float32),
            y_um=np.zeros(size, np.float32),
            kind=np.zeros(size, np.int8),
            has_nucleus=np.ones(size, np.bool_),
            completeness=np.zeros(size, np.float32),
            density=np.zeros(size, np.float32),
        )

    got = cells.gather([table([7, 4], [0.5, 0.2], [3, 9]), table([7], [0.1], [2])])
    np.testing.assert_array_equal(got.number, [7, 4])
    np.testing.assert_array_equal(got.x_um, [2, 9])
