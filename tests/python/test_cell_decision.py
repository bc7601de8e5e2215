# SPDX-License-Identifier: Apache-2.0
"""From cells to a score: regions, tiles that could not be read, few wrong cells."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from membrane_cases import UM, all_read, box, cells_at

from her2fast.export.results_table import worklist
from her2fast.methods.cell_decision import CellDecision, cell_flags, decide_cells
from her2fast.methods.cell_tiles import CORRUPT, MISSING, READ
from her2fast.report.cohort import cohort_html


def test_decision_counts_cells_in_regions() -> None:
    """60 of 200 cells are 3+, 30 incomplete and intense; a region holds the others."""
    points = [(x, y) for y in range(10) for x in range(20)]
    rays = [32] * 60 + [16] * 30 + [0] * 110
    found = cells_at(points, rays)
    all_of = decide_cells(found, slide_spacing_um=UM)
    assert all_of.record["class_cells"] == [110, 0, 30, 60]
    assert all_of.record["h_score"] == pytest.approx(100 * (30 * 2 + 60 * 3) / 200)
    assert all_of.record["unusual_cells"] == 30
    assert all_of.guideline is not None
    assert all_of.guideline["score"] == "3+"
    assert "UNUSUAL_PATTERN" in all_of.guideline["flags"]
    assert all_of.guideline["ihc0_membrane_staining"] == "not_assessable"
    # Level-0 px are twice the grid's; a seed counts where its middle lies.
    ring = np.array([(0, 9), (40, 9), (40, 20), (0, 20), (0, 9)], np.float64)
    lower = decide_cells(found, slide_spacing_um=UM, roi=[(False, [ring])])
    assert lower.record["class_cells"] == [100, 0, 0, 0]
    assert lower.guideline is not None
    assert lower.guideline["score"] == "0"
    assert lower.guideline["ihc0_membrane_staining"] == "null"
    upper = decide_cells(found, slide_spacing_um=UM, roi=[(True, [ring])])
    assert upper.record["count"] == 100
    assert upper.chosen.sum() + lower.chosen.sum() == 200
    hole = np.array([(0, 9), (2, 9), (2, 11), (0, 11), (0, 9)], np.float64)
    few = decide_cells(found, slide_spacing_um=UM, roi=[(False, [ring, hole])])
    assert few.record["count"] == 99
    assert few.error is not None
    assert few.error.code == "TOO_LITTLE_TUMOR"
    assert few.guideline is None


@pytest.mark.parametrize(
    ("counts", "score", "staining"),
    [
        ((99, 0, 0, 1), "0", "null"),
        ((100, 0, 0, 1), "0", "null"),
        ((98, 0, 0, 2), "0", "null"),
        ((97, 0, 0, 3), "2+", "not_assessable"),
        ((98, 2, 0, 0), "0", "null"),
        ((97, 3, 0, 0), "0", "ultralow"),
    ],
)
def test_one_or_two_wrong_cells_move_no_slide(
    counts: tuple[int, int, int, int], score: str, staining: str
) -> None:
    rays = [0] * counts[0] + [12] * counts[1] + [32] * counts[3]
    found = cells_at([(x, 0) for x in range(len(rays))], rays)
    cells = found.cells
    faint = np.array(rays) == 12  # of 1+: a sixth of the intensity
    weak = np.where(faint, cells.dab_sum // 6, cells.dab_sum).astype(np.uint32)
    found = dataclasses.replace(found, cells=dataclasses.replace(cells, dab_sum=weak))
    got = decide_cells(found, slide_spacing_um=UM)
    assert tuple(got.record["class_cells"]) == counts
    assert got.guideline is not None
    assert got.guideline["score"] == score
    assert got.guideline["ihc0_membrane_staining"] == staining


def test_flags_that_only_pixels_can_set_are_kept() -> None:
    area = {
        "review_flags": [
            "BORDERLINE",
            "GUIDELINE_GAP",
            "CONTROL_SUSPECTED",
            "OUT_OF_FOCUS",
            "OUT_OF_DOMAIN",
            "HETEROGENEOUS",
        ]
    }
    seen = ["CONTROL_SUSPECTED", "OUT_OF_FOCUS", "OUT_OF_DOMAIN"]
    assert cell_flags(area, None, glass_seen=True) == seen
    own = {"flags": ["ULTRALOW", "UNUSUAL_PATTERN"]}
    assert cell_flags(area, own, glass_seen=True) == ["UNUSUAL_PATTERN", *seen]
    assert cell_flags(area, None, glass_seen=False) == [*seen, "NO_GLASS"]


def test_no_cells_are_no_score() -> None:
    got = decide_cells(cells_at([], []), slide_spacing_um=UM)
    assert got.error is not None
    assert got.guideline is None
    assert got.record["fractions"] is None
    assert got.record["h_score"] is None
    assert got.record["membranes"]["closed_ratio"] is None


def test_unreadable_tiles_count_in_the_regions_that_need_them() -> None:
    """One of 200 tiles with tumor, or one of the two that a region meets."""
    points = [(x, y) for y in range(20, 40) for x in range(20, 40)]
    found = cells_at(points, [0] * 400)

    def decide(
        column: int, row: int, status: int, roi: list[Any] | None = None
    ) -> CellDecision:
        tiles = all_read(10, 20)
        tiles.state[9, :] = READ  # round the tumor, of none
        tiles.set(column, row, status)
        replaced = dataclasses.replace(found, tiles=tiles)
        return decide_cells(replaced, slide_spacing_um=UM, roi=roi or ())

    def tile(column: int, row: int) -> tuple[float, float, float, float]:
        return 512 * column, 512 * row, 512 * (column + 1), 512 * (row + 1)

    assert decide(15, 5, MISSING).error is None
    two = box(0, 0, 1024, 512)
    for status, code in ((MISSING, "MISSING_TILES"), (CORRUPT, "CORRUPT_TILES")):
        got = decide(1, 0, status, two)
        assert got.error is not None
        assert (got.error.code, got.guideline) == (code, None)
        assert got.record["tiles"]["wanted"] == 2
    away = decide(15, 5, MISSING, two)
    assert away.error is None
    assert away.record["tiles"] == {
        "wanted": 2,
        "read": 2,
        "missing": 0,
        "corrupt": 0,
        "others_unreadable": 1,
    }
    # Nor is a tile needed that lies in an excluded region, or has no tumor.
    hole = [(True, box(*tile(15, 5))[0][1])]
    assert decide(15, 5, MISSING, hole).record["tiles"]["missing"] == 0
    partly = [(True, box(*tile(15, 5)[:3], 512 * 6 - 1)[0][1])]
    assert decide(15, 5, MISSING, partly).record["tiles"]["missing"] == 1
    assert decide(15, 9, MISSING).record["tiles"]["missing"] == 0
    assert decide(15, 9, MISSING).record["tiles"]["wanted"] == 180


def test_tables_and_cohort_of_cells_know_their_shares() -> None:
    """150 and 300 of 1000 cells: the nearest cut is 5 points away."""
    margins = [
        {"cut": "3+", "area": 150, "margin": 500, "passed": True},
        {"cut": "2+", "area": 450, "margin": 3500, "passed": True},
    ]
    record = {
        "slide": {"name": "a.svs"},
        "status": "scored",
        "score": "3+",
        "class_names": ["0", "1+", "2+", "3+"],
        "class_px": None,
        "cells": {"class_cells": [550, 0, 300, 150]},
        "guideline": {"margins": margins, "flags": []},
        "review_flags": [],
    }
    (need,) = worklist([record])
    assert need.nearest == ("3+", pytest.approx(5.0))
    page = cohort_html([record]).decode()
    assert all(f"{share} %" in page for share in ("55.0", "30.0", "15.0"))
    without = cohort_html([{**record, "cells": None}]).decode()
    assert "55.0 %" not in without
