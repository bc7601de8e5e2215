# SPDX-License-Identifier: Apache-2.0
"""The gallery: which patches are chosen, and where their pictures come from."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import packages
import pytest
import slides
from hypothesis import given
from hypothesis import strategies as st
from pages import Page
from PIL import Image
from record_example import record

from her2fast import cli
from her2fast.errors import SlideError
from her2fast.export.patches import Outcomes, PatchGrid
from her2fast.report import report_html
from her2fast.report.gallery import MAX_PICTURES, Gallery, choose_patches
from her2fast.report.html import MAX_REPORT_BYTES
from her2fast.report.pictures import (
    MAX_PICTURE_BYTES,
    View,
    collect,
    pack,
    unpack,
    view_for,
)

GRID = PatchGrid(patch_px=64, spacing_um=1.0, slide_spacing_um=(0.25, 0.25))


def outcomes(logits, predicted, columns=None) -> Outcomes:
    """Patches along a row; -1 is not kept."""
    predicted = np.asarray(predicted, np.int32)
    n = len(predicted)
    return Outcomes.from_dict(
        {
            "column": np.arange(n) % 7 if columns is None else columns,
            "row": np.arange(n) // 7,
            "tumor_px": np.full(n, 4096),
            "kept": predicted >= 0,
            "predicted": predicted,
            "logits": np.asarray(logits, np.float64).reshape(n, -1),
        }
    )


def by_hand(table: Outcomes) -> list[tuple[int, int, int]]:
    """The same choice, the slow way."""
    classes = table.logits.shape[1]
    each = min(6, max(1, MAX_PICTURES // classes))
    chosen = []
    for c in range(classes):
        ranked = []
        for i in range(len(table.column)):
            if table.kept[i] and table.predicted[i] == c:
                others = [x for k, x in enumerate(table.logits[i]) if k != c]
                top = max(others)
                rest = top + math.log(sum(math.exp(x - top) for x in others))
                odds = round(table.logits[i][c] - rest, 6)
                ranked.append((-odds, int(table.row[i]), int(table.column[i])))
        ranked.sort()
        if len(ranked) > each:
            ends = each // 3
            middle = each - 2 * ends
            begin = (len(ranked) - middle) // 2
            tail = ranked[len(ranked) - ends :]
            ranked = ranked[:ends] + ranked[begin : begin + middle] + tail
        chosen += [(c, column, row) for _, row, column in ranked]
    return chosen


@given(
    st.integers(2, 9).flatmap(
        lambda classes: st.lists(
            st.tuples(
                st.integers(-1, classes - 1),
                st.lists(
                    # As the core stores them: fixed point, 16 fraction bits
                    st.integers(-(1 << 21), 1 << 21).map(lambda n: n / 65536),
                    min_size=classes,
                    max_size=classes,
                ),
            ),
            min_size=1,
            max_size=60,
        )
    )
)
def test_choice_equals_the_slow_one(patches):
    table = outcomes([p[1] for p in patches], [p[0] for p in patches])
    got = [(c.class_index, c.column, c.row) for c in choose_patches(table, GRID)]
    assert got == by_hand(table)
    assert len(got) <= MAX_PICTURES


def test_choice_by_hand():
    # Ten patches of class 3 with odds 9 ... 0, one of class 0, one not kept.
    logits = [[0, 0, 0, k] for k in (3, 9, 1, 7, 5, 0, 8, 2, 6, 4)]
    table = outcomes([*logits, [5, 0, 0, 0], [0, 0, 0, 99]], [3] * 10 + [0, -1])
    first, *rest = choose_patches(table, GRID)
    assert (first.class_index, first.column, first.row) == (0, 3, 1)
    assert first.shares[0] == pytest.approx(math.exp(5) / (math.exp(5) + 3), abs=1e-6)
    # Surest 9 and 8, middle 5 and 4, least sure 1 and 0
    assert [(c.column, c.row) for c in rest] == [
        *[(1, 0), (6, 0), (4, 0), (2, 1), (2, 0), (5, 0)]
    ]
    places = ["surest", "surest", "middle", "middle", "least sure", "least sure"]
    assert [c.place for c in rest] == places
    assert (rest[0].x0_px, rest[0].y0_px, rest[0].x1_px, rest[0].y1_px) == (
        *(256, 0, 512, 256),
    )


def test_saturated_patches_are_told_apart():
    # Probabilities of all three are 1.0 in double precision.
    table = outcomes([[800.0, 0], [900.0, 0], [700.0, 0]], [0, 0, 0])
    assert [c.column for c in choose_patches(table, GRID)] == [1, 0, 2]


def test_nothing_kept():
    assert choose_patches(outcomes([[0.0, 1.0]], [-1]), GRID) == []


@pytest.mark.parametrize(
    ("patch_px", "spacing_um", "slide_um", "view"),
    [
        (64, 1.0, 0.25, View(0.5, 128, 64)),
        (64, 1.0, 1.0, View(1.0, 64, 32)),
        (64, 1.0, 0.504, View(0.5, 128, 64)),  # as the reader allows: 1 % finer
        (64, 1.0, 0.506, View(1.0, 64, 32)),
        (350, 0.5, 0.25, View(1.0, 175, 87)),
        (512, 0.25, 0.25, View(1.0, 128, 64)),
    ],
)
def test_view(patch_px, spacing_um, slide_um, view):
    assert view_for(patch_px, spacing_um, (slide_um, slide_um)) == view


class FakeReader:
    def __init__(self, state: str = "ok", error: str | None = None) -> None:
        self.state, self.error, self.asked = state, error, []

    def read(self, x_px, y_px, width_px, height_px, spacing_um):
        self.asked.append((x_px, y_px, width_px, height_px, spacing_um))
        if self.error:
            raise SlideError("gone", self.error)
        rgb = np.random.default_rng(x_px & 255).integers(
            0, 256, (height_px, width_px, 3)
        )
        return rgb.astype(np.uint8), self.state


def test_only_what_is_not_kept_is_read():
    view, reader = View(0.5, 128, 64), FakeReader()
    got = collect([(0, 0), (2, 1)], view, {(2, 1): b"kept"}, lambda: reader)
    assert reader.asked == [(-64, -64, 256, 256, 0.5)]
    assert got.jpegs[2, 1] == b"kept"
    assert len(got.jpegs[0, 0]) <= MAX_PICTURE_BYTES  # noise, too
    assert (got.missing, got.unopened) == ("", False)
    collect([(2, 1)], view, {(2, 1): b"kept"}, pytest.fail)  # asks for nothing


@pytest.mark.parametrize(
    "reader", [FakeReader("corrupt"), FakeReader("missing"), FakeReader(error="IO")]
)
def test_what_cannot_be_read_is_no_picture(reader):
    got = collect([(0, 0)], View(1.0, 64, 32), {}, lambda: reader)
    assert got.jpegs == {}
    assert "in part" in got.missing
    assert not got.unopened


def test_kept_pictures_come_back_and_only_to_their_measurement():
    pictures = {(3, 4): b"abc", (0, 12): b"d"}
    data = pack(pictures, "key")
    assert data == pack(dict(reversed(pictures.items())), "key")
    assert unpack(data, "key") == pictures
    assert unpack(data, "other") == {}
    for damaged in (b"", b"PK", data[:-30], b"x" * 100, data.replace(b"abc", b"abd")):
        assert unpack(damaged, "key") == {}


def gallery(jpeg: bytes | None, missing: str = "") -> Gallery:
    rng = np.random.default_rng(3)
    table = outcomes(rng.normal(0, 3, (400, 4)), rng.integers(0, 4, 400))
    choices = choose_patches(table, GRID)
    view = view_for(64, 1.0, (0.25, 0.25))
    kept = {(c.column, c.row): jpeg for c in choices} if jpeg else {}
    pictures = collect(
        [(c.column, c.row) for c in choices], view, kept, lambda: missing
    )
    return Gallery(choices, pictures, ["0", "1+", "2+", "3+"], [100] * 4)


def test_gallery_in_the_report():
    data = report_html(record(), Image.new("RGB", (90, 80)), gallery=gallery(b"jpeg"))
    page = Page(data)
    assert len(page.all("img")) == MAX_PICTURES
    assert page.text.count("surest:") == 8
    assert "no picture" not in page.text
    numbers = [a["alt"] for a in page.all("img")]
    assert numbers[0] == "patch 1, class 3+"
    assert numbers[-1] == "patch 24, class 0"
    assert data.count(b"<text ") == 24  # each has its number on the map


def test_missing_pictures_are_said_plainly():
    page = Page(report_html(record(), gallery=gallery(None, "the slide is not there")))
    assert page.all("img") == []
    assert "The pictures are missing: the slide is not there." in page.text
    assert page.text.count("no picture") == 24
    assert page.text.count("least sure:") == 8


def test_the_worst_report_stays_small():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1024, 1024, 3), np.uint8)
    worst = rng.bytes(MAX_PICTURE_BYTES)
    data = report_html(record(), Image.fromarray(noise), gallery=gallery(worst))
    assert 2_000_000 < len(data) <= MAX_REPORT_BYTES


# --- through the command line ---------------------------------------------------------


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder; its slide is tmp_path/a.svs."""
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))
    method = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(method)]) == 0
    slide = slides.write_slide(tmp_path / "a.svs")
    words = ["score", str(slide), "-o", str(tmp_path / "out"), "-m", str(method)]
    assert cli.run(words) == 0
    return tmp_path / "out"


def region(folder: Path) -> Path:
    ring = [[0, 0], [400, 0], [400, 1024], [0, 1024], [0, 0]]
    path = folder / "roi.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def report(out: Path) -> Page:
    return Page((out / "reports/a.html").read_bytes())


def test_a_picture_shows_its_patch(scored: Path) -> None:
    # The painted slide's four bands: pictures of 3+ are the darkest brown.
    key = json.loads((scored / "results/a.json").read_bytes())["measurement_key"]
    kept = unpack((scored / "measurements/a.patches.zip").read_bytes(), key)
    means = {}
    for (column, _), jpeg in kept.items():
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.size == (128, 128)
            inner = np.asarray(image)[32:96, 32:96].astype(float)
        means[column] = float((inner[..., 0] - inner[..., 2]).mean())
    ordered = [means[column] for column in sorted(means)]
    assert max(ordered[-2:]) > 120 > 60 > min(ordered[:2])
    assert len(report(scored).all("img")) == len(kept) == 24


def test_rescore_without_the_slide(scored: Path, tmp_path: Path, capsys) -> None:
    before = (scored / "reports/a.html").read_bytes()
    slide = tmp_path / "a.svs"
    slide.rename(tmp_path / "elsewhere.svs")
    # The same choice needs no slide.
    assert cli.run(["rescore", str(scored), "--guideline", "pham-2022"]) == 0
    assert "no picture" not in report(scored).text
    words = ["rescore", str(scored), "--guideline", "asco-cap-2018"]
    assert cli.run(words) == 0
    assert (scored / "reports/a.html").read_bytes() == before

    # Another region chooses others; what lacks is said, and the score stands.
    assert cli.run(["rescore", str(scored), "--roi", str(region(tmp_path))]) == 0
    text = report(scored).text
    assert "pictures are missing: the slide is not where it was when" in text
    record_now = json.loads((scored / "results/a.json").read_bytes())
    assert record_now["status"] == "scored"

    # Nothing kept was lost, and another slide in its place is not shown.
    slides.write_slide(slide, slides.paint(seed=9))
    assert cli.run(["rescore", str(scored), "--roi", str(region(tmp_path))]) == 0
    assert "the file where the slide was is another one" in report(scored).text
    words = ["rescore", str(scored), "--roi", "none"]
    assert cli.run(words) == 0
    assert (scored / "reports/a.html").read_bytes() == before


def test_a_run_that_reads_the_slide_again_completes_the_report(
    scored: Path, tmp_path: Path, capsys
) -> None:
    slide, away = tmp_path / "a.svs", tmp_path / "away.svs"
    slide.rename(away)
    roi = str(region(tmp_path))
    assert cli.run(["rescore", str(scored), "--roi", roi]) == 0
    assert "no picture" in report(scored).text
    away.rename(slide)
    words = ["score", str(slide), "-o", str(scored), "-m", str(tmp_path / "method")]
    assert cli.run([*words, "--roi", roi]) == 0
    assert "(measured before)" in capsys.readouterr().out
    assert "no picture" not in report(scored).text
    assert cli.run([*words, "--roi", roi]) == 0
    assert "(finished before)" in capsys.readouterr().out


def test_a_copied_folder_does_not_know_its_slides(scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "copy", ignore=shutil.ignore_patterns(".locks"))
    roi = str(region(tmp_path))
    assert cli.run(["rescore", str(tmp_path / "copy"), "--roi", roi]) == 0
    assert "does not say where the slide lies" in report(tmp_path / "copy").text


def test_a_place_of_odd_bytes_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))
    method = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(method)]) == 0
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xff"))
    odd.mkdir()
    slide = slides.write_slide(odd / "a.svs")
    out = tmp_path / "out"
    assert cli.run(["score", str(slide), "-o", str(out), "-m", str(method)]) == 0
    assert cli.run(["rescore", str(out), "--roi", str(region(tmp_path))]) == 0
    assert "no picture" not in report(out).text


def test_an_error_while_writing_leaves_the_old_files_whole(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from her2fast import exports

    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in sorted(scored.rglob("*")) if p.is_file()}

    def full(*_: object, **__: object) -> bytes:
        raise SlideError("no room", "DISK_FULL")

    before = files()
    monkeypatch.setattr(exports, "report_html", full)  # comes after maps and tables
    cli.run(["rescore", str(scored), "--roi", str(region(tmp_path))])
    assert files() == before
    monkeypatch.undo()
    assert cli.run(["rescore", str(scored), "--roi", str(region(tmp_path))]) == 0
    changed = {p.name for p, data in files().items() if before[p] != data}
    assert changed >= {"a.html", "a.png", "a.csv", "a.geojson", "a.patches.zip"}
