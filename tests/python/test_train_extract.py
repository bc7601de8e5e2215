# SPDX-License-Identifier: Apache-2.0
"""What training cuts from slides: patches that scoring keeps, drawn tumor, masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from packages import write_method
from slides import paint, write_slide
from training_cohort import painted_cohort, write_manifest, write_mask

import her2fast
from her2fast import _core
from her2fast.errors import SlideError
from her2fast.models.package import load_package
from her2fast.scoring import Scorer
from her2fast.training.cohort import load_cohort
from her2fast.training.extract import Cutter, Cutting


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(autouse=True)
def _trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "trust"))


def test_patches_are_those_that_scoring_keeps(cohort: Path, tmp_path: Path) -> None:
    """Grid, tissue, segmenter, region and the 10 % rule, against the scorer itself."""
    package = load_package(write_method(tmp_path / "package"))
    roi = tmp_path / "roi.geojson"
    ring = [[33.3, 20.1], [371.9, 51.7], [260.4, 377.2], [33.3, 20.1]]
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    manifest = write_manifest(
        cohort.parent,
        [
            {"slide": "s3.svs", "label": "3+", "roi": str(roi), "split": "train"},
            {"slide": "s2.svs", "label": "2+", "roi": "", "split": "val"},
        ],
        "two.csv",
    )
    cutter = Cutter(
        Cutting(spacing_um=1.0, reading="scaled", workers=2, segmenter=package.segment)
    )
    for source in load_cohort(manifest).slides:
        opened = cutter.open(source)
        found = cutter.patches(opened, source)
        measured = Scorer(package).measure(opened)
        polygons = her2fast.scoring.as_roi(source.entry.roi)
        want = _core.patch_outcomes(measured.core, rule_set=None, roi=polygons)
        kept = np.flatnonzero(want["kept"])
        assert len(kept)
        kept = kept[np.lexsort((want["column"][kept], want["row"][kept]))]
        for name in ("row", "column", "tumor_px"):
            np.testing.assert_array_equal(found[name], want[name][kept])
        with her2fast.open_slide(source.entry.slide) as slide:
            for i in range(0, len(found["row"]), 5):
                x_px, y_px = 64 * int(found["column"][i]), 64 * int(found["row"][i])
                np.testing.assert_array_equal(
                    found["rgb"][i], slide.read(x_px, y_px, 64)
                )


def test_drawn_tumor_decides_what_is_kept(cohort: Path) -> None:
    source = load_cohort(cohort).slides[3]
    cutting = Cutting(1.0, "scaled", 2, annotations=cohort.parent / "drawn")
    cutter = Cutter(cutting)
    found = cutter.patches(cutter.open(source), source)
    assert found["rgb"].shape == (16, 64, 64, 3)  # 256 px of drawn tissue: 4 x 4
    assert found["row"].min() == found["column"].min() == 1
    assert (found["tumor_px"] == 64 * 64).all()
    few = Cutter(Cutting(1.0, "scaled", 2, cohort.parent / "drawn", max_patches=5))
    drawn = few.patches(few.open(source), source)
    assert len(drawn["rgb"]) == 5
    assert (
        few.patches(few.open(source), source)["row"].tolist() == drawn["row"].tolist()
    )


def test_masks_of_phantoms_and_of_level_0(tmp_path: Path) -> None:
    """What `her2fast phantom` writes is found; at 0.5 um/px the mask is of level 0."""
    rgb = paint((768, 768), (3,))
    write_slide(tmp_path / "a.svs", rgb, spacing_um=0.5)
    (tmp_path / "truth" / "a").mkdir(parents=True)
    mask = np.zeros((768, 768), np.bool_)
    mask[128:384, 128:640] = True
    write_mask(tmp_path / "truth" / "a" / "tumor_mask.png", mask)
    rows = [
        {"slide": "a.svs", "label": "3+", "split": part} for part in ("train", "val")
    ]
    rows[1]["slide"] = "b.svs"
    slides = load_cohort(write_manifest(tmp_path, rows)).slides
    cutter = Cutter(Cutting(1.0, "scaled", 2, annotations=tmp_path / "truth"))
    found = cutter.patches(cutter.open(slides[0]), slides[0])
    assert sorted(set(found["row"].tolist())) == [1, 2]  # 64 to 192 px at 1 um/px
    assert sorted(set(found["column"].tolist())) == [1, 2, 3, 4]
    assert (found["tumor_px"] == 64 * 64).all()
    with pytest.raises(SlideError, match="No such file"):
        cutter.open(slides[1])
