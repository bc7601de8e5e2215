# SPDX-License-Identifier: Apache-2.0
"""Runs with `--full-hash`: what was measured from other bytes decides nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import membrane_cases
import numpy as np
import packages
import pytest
import slides
from tiff_files import CLASSIC_LE, LONG, RATIONAL, SHORT, Page, lay_out

from her2fast import _core
from her2fast.full_hash import full_sha256
from her2fast.manifest import Entry
from her2fast.membrane_run import MembraneOptions
from her2fast.rescoring import rescore_folder
from her2fast.run import RunOptions
from her2fast.slide_job import SlideJob, score_slide
from her2fast.store import ResultsFolder

BOW_TIE = [[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]
FAR = [[9000, 0], [9500, 0], [9500, 500], [9000, 500], [9000, 0]]
HALF = [[0, 0], [800, 0], [800, 1600], [0, 1600], [0, 0]]
MIB, BLOCK, TILE_PX = 1 << 20, 64 << 10, 320


def write_bare(path: Path, rgb: Any, spacing_um: float) -> None:
    """A tiled TIFF without compression: nulled bytes are black pixels."""
    height, width = rgb.shape[:2]
    tiles = [
        rgb[y : y + TILE_PX, x : x + TILE_PX].tobytes()
        for y in range(0, height, TILE_PX)
        for x in range(0, width, TILE_PX)
    ]
    tags: dict[int, Any] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [1]),
        262: (SHORT, [2]),
        277: (SHORT, [3]),
        282: (RATIONAL, [10_000_000, int(1000 * spacing_um)]),
        283: (RATIONAL, [10_000_000, int(1000 * spacing_um)]),
        296: (SHORT, [3]),
        322: (LONG, [TILE_PX]),
        323: (LONG, [TILE_PX]),
    }
    lay_out(CLASSIC_LE, [Page(tags, tiles)]).write(path)


def change_between_samples(path: Path) -> None:
    """Nulls whatever the fingerprint of a file above 6 MiB does not look at."""
    data = bytearray(path.read_bytes())
    size, before = len(data), _core.Slide.open(path).fingerprint()
    seen = np.zeros(size, np.bool_)
    seen[:MIB] = seen[-MIB:] = True
    for i in range(64):
        at = i * (size - BLOCK) // 63
        seen[at : at + BLOCK] = True
    pixels = np.frombuffer(data, np.uint8).copy()
    pixels[~seen] = 0
    path.write_bytes(pixels.tobytes())
    assert _core.Slide.open(path).fingerprint() == before


class Case:
    """A slide of two contents that share a fingerprint, and a folder of results."""

    def __init__(
        self, root: Path, rgb: Any, spacing_um: float, options: Callable[..., Any]
    ) -> None:
        self.root, self.options = root, options
        self.slide, self.out = root / "a.tiff", root / "out"
        write_bare(self.slide, rgb, spacing_um)
        shutil.copy(self.slide, root / "first")
        change_between_samples(self.slide)
        shutil.copy(self.slide, root / "second")
        self.put("first")

    def put(self, content: str) -> None:
        """Lets the slide have its first or second content."""
        shutil.copy(self.root / content, self.slide)

    def score(
        self, *, roi: Any = None, full: bool = True, out: Path | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The work and the record of one slide's run."""
        if roi is not None:
            place = self.root / "region.geojson"
            place.write_text(json.dumps({"type": "Polygon", "coordinates": [roi]}))
            roi = str(place)
        folder = out or self.out
        ResultsFolder(folder).create()
        options = self.options(out=str(folder), roi=roi, full_hash=full, workers=1)
        job = SlideJob(options, Entry(str(self.slide)), "a")
        record, work = score_slide(job, lambda value: None)
        assert record == self.record() or out is not None
        return work, record

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "results/a.json").read_bytes()))

    def fresh(self) -> dict[str, bytes]:
        """The files of a run into an empty folder."""
        shutil.rmtree(self.root / "fresh", ignore_errors=True)
        assert self.score(out=self.root / "fresh")[0] == "measured"
        return membrane_cases.files(self.root / "fresh")

    def is_as_fresh(self) -> bool:
        """Whether every file of the slide is that of a run into an empty folder."""
        kinds = ("results/", "measurements/", "reports/", "cells/")
        fresh, own = self.fresh(), membrane_cases.files(self.out)
        names = {name for name in {**fresh, **own} if name.startswith(kinds)}
        return all(own.get(name) == fresh.get(name) for name in names)


@pytest.fixture
def areas(tmp_path: Path) -> Case:
    method = str(packages.write_method(tmp_path / "m"))

    def options(**more: Any) -> RunOptions:
        return RunOptions(model=method, allow_unknown_model=True, **more)

    return Case(tmp_path, slides.paint((1600, 1600), (0, 3, 3, 3)), 1.0, options)


@pytest.fixture
def cells(tmp_path: Path) -> Case:
    membrane_cases.write_case(tmp_path)

    def options(**more: Any) -> MembraneOptions:
        return MembraneOptions(
            model=str(tmp_path / "brown"),
            tumor_model=str(tmp_path / "tumor"),
            allow_unknown_model=True,
            **more,
        )

    return Case(tmp_path, membrane_cases.lattice(), 0.25, options)


@pytest.fixture(params=["areas", "cells"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


class Killed(BaseException):
    """No error that anything answers: what a kill looks like from inside."""


def killed_in(
    monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[[], Any]
) -> None:
    """The run is killed when it comes to this method of its folder."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ResultsFolder, name, kill)
        with pytest.raises(Killed):
            run()


@pytest.mark.parametrize("ring", [BOW_TIE, FAR], ids=["ROI_INVALID", "ROI_OUTSIDE"])
def test_a_refused_region_lends_no_measurement_new_bytes(
    ring: Any, case: Case, request: pytest.FixtureRequest
) -> None:
    work, first = case.score()
    assert (work, first["status"]) == ("measured", "scored")
    case.put("second")
    work, refused = case.score(roi=ring)
    assert (work, refused["score"]) == ("none", None)
    assert refused["code"] in request.node.name
    assert refused["slide"]["sha256"] == full_sha256(case.slide)
    (left,) = rescore_folder(case.out, roi="none")
    assert (left.skipped, case.record()) == ("no measurement", refused)
    work, second = case.score()
    assert work == "measured"
    assert {**second, "slide": None} != {**first, "slide": None}
    assert case.is_as_fresh()


def test_bytes_known_to_differ_are_measured_by_any_later_run(areas: Case) -> None:
    first = areas.score()[1]
    areas.put("second")
    areas.score(roi=BOW_TIE)
    work, second = areas.score(full=False)
    assert (work, second["slide"]["sha256"]) == ("measured", None)
    assert second["class_px"] != first["class_px"]


def test_also_where_the_slide_itself_is_refused(areas: Case) -> None:
    first = areas.score()[1]
    areas.put("second")
    given = areas.options
    areas.options = lambda **more: given(mpp=9.0, **more)
    work, refused = areas.score()
    assert (work, refused["status"]) != ("decided", "scored")
    assert refused["slide"]["sha256"] == full_sha256(areas.slide)
    areas.options = given
    work, second = areas.score(full=False)
    assert work == "measured"
    assert second["class_px"] != first["class_px"]


def test_what_was_measured_from_these_bytes_is_never_lost(case: Case) -> None:
    case.score()
    whole = membrane_cases.files(case.out)
    for ring in (BOW_TIE, FAR):
        case.score(roi=ring)
        assert case.score()[0] == "decided"
        assert membrane_cases.files(case.out) == whole
    # Nor by a run that hashes nothing, whose record knows no hash.
    work, record = case.score(roi=HALF, full=False)
    assert (work, record["slide"]["sha256"]) == ("decided", None)
    assert case.score()[0] == "decided"
    assert membrane_cases.files(case.out) == whole
    assert case.score()[0] == "kept"


def test_a_measurement_of_unknown_bytes_is_made_again(areas: Case) -> None:
    areas.score(full=False)
    areas.put("second")
    refused = areas.score(roi=BOW_TIE)[1]
    (left,) = rescore_folder(areas.out, roi="none")
    assert (left.skipped, areas.record()) == ("no measurement", refused)
    assert areas.score()[0] == "measured"
    assert areas.is_as_fresh()


def test_a_record_of_before_that_hides_it_is_not_kept(areas: Case) -> None:
    """Folders of before: the record has the hash, the measurement has none."""
    areas.score()
    folder = ResultsFolder(areas.out)
    key = areas.record()["measurement_key"]
    core = folder.read_measurement("a", key)
    assert core is not None
    folder.write_measurement("a", core)
    assert areas.score()[0] == "measured"


@pytest.mark.parametrize("at", ["write_record", "overview_path", "write_measurement"])
def test_killed_over_new_bytes(
    at: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = case.score()[1]
    case.put("second")
    killed_in(monkeypatch, at, case.score)
    # The record is of before, what was measured of now: they are not put together.
    (left,) = rescore_folder(case.out, guideline="pham-2022")
    assert (left.skipped, case.record()) == ("no measurement", first)
    work, _ = case.score()
    assert work == ("decided" if at == "write_record" else "measured")
    assert case.is_as_fresh()


def test_killed_while_old_bytes_are_dropped(
    cells: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells.score()
    cells.put("second")
    killed_in(monkeypatch, "drop_derived", cells.score)
    assert not (cells.out / "measurements/a.h2m").exists()
    assert cells.score()[0] == "measured"
    assert cells.is_as_fresh()


def test_a_killed_run_is_completed_not_begun_anew(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in(monkeypatch, "write_record", case.score)
    assert case.score()[0] == "decided"
    assert case.is_as_fresh()


def test_cells_of_other_bytes_than_their_tumor(cells: Case) -> None:
    corner = [[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]]
    assert cells.score(roi=corner)[1]["code"] == "TOO_LITTLE_TUMOR"
    assert not (cells.out / "measurements/a.h2c").exists()
    cells.put("second")
    assert cells.score(full=False)[0] == "measured"
    cells.put("first")
    # The tumor is of these bytes; of the cells nobody knows.
    tumor = (cells.out / "measurements/a.h2m").read_bytes()
    assert cells.score()[0] == "measured"
    assert (cells.out / "measurements/a.h2m").read_bytes() == tumor
    assert cells.is_as_fresh()


def test_pictures_of_other_bytes_do_not_stay(areas: Case) -> None:
    areas.score(roi=HALF)
    areas.put("second")
    # Its numbers are of before, by the samples; its new pictures are of now.
    assert areas.score(full=False)[0] == "decided"
    areas.put("first")
    assert areas.score()[0] == "decided"
    assert areas.is_as_fresh()


def test_rescore_reads_no_picture_of_other_bytes(areas: Case) -> None:
    areas.score(roi=HALF)
    folder = ResultsFolder(areas.out)
    with folder.lock("a", str(areas.slide)):
        pass
    areas.put("second")
    rescore_folder(areas.out, roi="none")
    page = (areas.out / "reports/a.html").read_text("utf-8")
    assert "pictures are missing: the file where the slide was is another" in page
    areas.put("first")
    assert areas.score()[0] == "decided"
    assert areas.is_as_fresh()
