# SPDX-License-Identifier: Apache-2.0
"""What a record says of levels that were compressed at about the working spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import packages
import pytest

import her2fast
from her2fast import _core
from her2fast.models.package import load_package


def write(
    folder: Path, spacing_um: float, downsamples: list[int], quality: int
) -> _core.Slide:
    path = folder / "s.svs"
    _core.write_pyramid(
        str(path),
        np.full((1024, 1024, 3), 200, np.uint8),
        spacing_um=spacing_um,
        jpeg_quality=quality,
        downsamples=downsamples,
        aperio=True,
    )
    return _core.Slide.open(str(path))


@pytest.mark.parametrize(
    ("spacing_um", "downsamples", "quality", "reading", "said"),
    [
        (0.25, [1, 4], 80, "scaled", "1 um/px"),
        (0.25, [1, 4], 80, "exact", "1 um/px"),
        (0.2, [1, 4], 80, "scaled", "0.8 um/px"),  # is averaged, by little
        (0.5, [1, 2], 95, "scaled", "1 um/px"),
        (0.25, [1, 4], 80, "level0", None),
        (0.25, [1, 4], 0, "scaled", None),  # Deflate loses nothing
        (0.25, [1, 16], 80, "scaled", None),  # 4 um/px is not read
        (0.25, [1, 2], 80, "scaled", None),  # 0.5 um/px is averaged
        (1.0, [1, 4], 80, "scaled", None),  # there is nothing finer
        (1.9, [1, 4], 80, "scaled", None),  # is refused, with a code
    ],
)
def test_when_it_is_said(
    tmp_path: Path,
    spacing_um: float,
    downsamples: list[int],
    quality: int,
    reading: str,
    said: str | None,
) -> None:
    slide = write(tmp_path, spacing_um, downsamples, quality)
    got = _core.stored_level_warning(slide, (spacing_um, spacing_um), 1.0, reading)
    if said is None:
        assert got is None
    else:
        assert got is not None
        assert f"stored at {said}, compressed by JPEG" in got


def test_it_stands_in_the_record_and_flags_nothing(tmp_path: Path) -> None:
    package = load_package(packages.write_method(tmp_path / "m"))
    write(tmp_path, 0.25, [1, 4], 80)
    found = {}
    for reading in ("scaled", "level0"):
        result = her2fast.score(
            tmp_path / "s.svs", model=package, allow_unknown_model=True, reading=reading
        )
        found[reading] = result.record["warnings"]
        assert not result.record["review_required"]
        decided = her2fast.decide(result.measurement).record["warnings"]
        assert decided == found[reading]
    assert len(found["scaled"]) == 1
    assert "level0" in found["scaled"][0]
    assert found["level0"] == []
