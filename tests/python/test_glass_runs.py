# SPDX-License-Identifier: Apache-2.0
"""The slide's own glass on its way to a score, and where it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from membrane_cases import lattice, write_case

from her2fast import _core, membranes
from her2fast.membranes import MembraneResult, glass_of_slide, score_membranes
from her2fast.opened_slide import open_input
from her2fast.record import empty_slide

Bytes = npt.NDArray[np.uint8]
SCHEMA = Path(__file__).parents[2] / "python/her2fast/data/schemas/result.json"
CREAM = (225, 221, 209)
#: As much DAB as the cream glass, to a hundredth.
GRAY = (150, 160, 174)
SIDE, PITCH = 1600, 60


def rings() -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:SIDE, :SIDE]
    away = np.hypot(y % PITCH - PITCH / 2, x % PITCH - PITCH / 2)
    return np.abs(away - 24) < 4


def gray_rings_on_cream() -> Bytes:
    """Every cell has a gray ring; glass lies on the right and below.

    So large that the overview has a level of its own.
    """
    rgb = np.empty((SIDE + 800, SIDE + 2600, 3), np.uint8)
    rgb[:] = CREAM
    tissue = lattice()
    tissue[rings()] = GRAY
    rgb[:SIDE, :SIDE] = tissue
    return rgb


class Rings:
    """Calls every ring membrane, whatever its color."""

    def __init__(self) -> None:
        self.mask = np.zeros((4 * SIDE, 4 * SIDE), np.uint8)
        self.mask[:SIDE, :SIDE] = rings()

    def __call__(self, rgb: Bytes, places_px: Sequence[tuple[int, int]]) -> Bytes:
        out = np.zeros(rgb.shape[:3], np.uint8)
        for tile, (x, y) in zip(out, places_px, strict=False):
            tile[:] = self.mask[y : y + len(tile), x : x + len(tile)]
        return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_case(tmp_path_factory.mktemp("glass"))
    _core.write_pyramid(
        str(root / "cream.svs"),
        gray_rings_on_cream(),
        spacing_um=0.25,
        aperio=True,
        downsamples=[1, 4, 8],
    )
    return root


def scored(root: Path, slide: Path, **more: Any) -> tuple[MembraneResult, Any]:
    result = score_membranes(
        slide,
        model=root / "brown",
        tumor_model=root / "tumor",
        allow_unknown_model=True,
        finder=Rings(),
        **more,
    )
    record = json.loads(json.dumps(result.record))
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    return result, record


def spoilt(slide: Path, out: Path, tiles: slice) -> Path:
    """A copy whose coarsest level, which only the overview reads, has lost tiles."""
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tiff:
        page = min(
            (p for p in tiff.pages if p.is_tiled),
            key=lambda p: p.imagewidth,  # type: ignore[union-attr]
        )
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    for offset, size in places[tiles]:
        data[offset : offset + size] = bytes(size)
    out.write_bytes(data)
    return out


def test_gray_lines_on_cream_glass_are_no_stain(folder: Path) -> None:
    _, record = scored(folder, folder / "cream.svs", workers=1)
    found = record["cells"]["glass_rgb"]
    assert np.abs(np.subtract(found, CREAM)).max() <= 1
    assert record["cells"]["class_cells"][1:] == [0, 0, 0]
    assert record["score"] == "0"
    assert "NO_GLASS" not in record["review_flags"]
    again, _ = scored(folder, folder / "cream.svs", workers=2)
    assert again.record == record


def test_glass_that_cannot_be_read_is_told_of(folder: Path, tmp_path: Path) -> None:
    """The same cells are 1+ where no glass is known; a score that must be looked at."""
    slide = spoilt(folder / "cream.svs", tmp_path / "spoilt.svs", slice(None))
    _, record = scored(folder, slide)
    assert record["cells"] is not None, record["message"]
    assert record["cells"]["glass_rgb"] is None
    assert record["cells"]["class_cells"][1] > 100
    assert record["review_flags"].count("NO_GLASS") == 1
    assert record["review_required"]


class HalfReadable:
    """A slide whose left half decodes with warnings: bright pixels of no glass."""

    size_px, spacing_um = (4000, 2000), (0.25, 0.25)

    def reader(self, **_: object) -> HalfReadable:
        return self

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        assert spacing_um == 2.0
        sound = x_px >= 256
        color = CREAM if sound else (248, 246, 240)
        pixels = np.full((height_px, width_px, 3), color, np.uint8)
        return pixels, "ok" if sound else "warned"


def test_what_is_not_wholly_readable_is_left_out() -> None:
    assert glass_of_slide(HalfReadable()) == CREAM  # type: ignore[arg-type]


def test_a_slide_that_lost_a_part_keeps_its_glass(folder: Path, tmp_path: Path) -> None:
    slide = spoilt(folder / "cream.svs", tmp_path / "part.svs", slice(0, 1))
    found = glass_of_slide(open_input(slide, None, empty_slide("part")))
    assert found is not None
    assert np.abs(np.subtract(found, CREAM)).max() <= 1


def test_the_key_of_a_measurement_knows_the_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = scored(folder, folder / "cream.svs")
    cuts = {**membranes.CELL_CUTS, "faintest_dab_hundredths": 4}
    monkeypatch.setattr(membranes, "CELL_CUTS", cuts)
    _, after = scored(folder, folder / "cream.svs")
    assert before["measurement_key"] != after["measurement_key"]
