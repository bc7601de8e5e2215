# SPDX-License-Identifier: Apache-2.0
"""What a run prints where there is no terminal."""

from __future__ import annotations

import time

import pytest

from her2fast.cli import show


def test_plain_progress_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    event = {"slide": "a.svs", "answered": 0, "items_done": 0}
    event |= {"planned": 100, "items_planned": 100}
    with show.RunDisplay(2) as display:
        display("slide_started", {"slide": "a.svs"})
        now_s[0] += show.PLAIN_INTERVAL_S / 2
        display("progress", event)
        assert capsys.readouterr().err == ""  # not every look
        now_s[0] += show.PLAIN_INTERVAL_S / 2
        display("progress", event | {"answered": 40, "items_done": 20})
        display("progress", {"slide": "a.svs", "writing": True})
    assert capsys.readouterr().err == "[1/2] a.svs: 30 %, 2/s, 70 s left\n"


def test_stages_have_rates_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    tumor = {"slide": "a.svs", "stage": "tumor", "answered": 8, "items_done": 8}
    tumor |= {"planned": 8, "items_planned": 8}
    membranes = {**tumor, "stage": "membranes", "planned": 100, "items_planned": 50}
    with show.RunDisplay(1) as display:
        display("slide_started", {"slide": "a.svs"})
        display("progress", tumor)
        now_s[0] += 2 * show.PLAIN_INTERVAL_S
        display("progress", membranes | {"answered": 0, "items_done": 0})
        assert capsys.readouterr().err == ""  # its first look says nothing of a rate
        now_s[0] += show.PLAIN_INTERVAL_S
        display("progress", membranes | {"answered": 40, "items_done": 20})
    assert capsys.readouterr().err == "[1/1] a.svs: membranes 40 %, 2/s, 45 s left\n"


@pytest.mark.parametrize(
    ("score", "cells", "words"),
    [
        ("2+", None, "scored 2+ [1.0 s]"),
        (None, None, "scored (areas only) [1.0 s]"),
        ("2+", [5, 0, 6, 0], "scored 2+, cells 0/1+/2+/3+ 5/0/6/0 [1.0 s]"),
        (None, [5, 0, 6, 0], "scored (counts only), cells 0/1+/2+/3+ 5/0/6/0 [1.0 s]"),
    ],
)
def test_the_line_of_a_slide(
    score: str | None, cells: list[int] | None, words: str
) -> None:
    fields = {"slide": "a.svs", "status": "scored", "score": score, "elapsed_s": 1.0}
    fields |= {"class_cells": cells, "review_required": False, "work": "measured"}
    assert show.slide_line(1, 2, fields) == f"[1/2] a.svs: {words}"


def test_json_output_stays_alone(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"slide": "a.svs", "answered": 1, "items_done": 0}
    with show.RunDisplay(1, quiet=True) as display:
        display("slide_started", {"slide": "a.svs"})
        display._shown_s = -1e9
        display("progress", event | {"planned": 2, "items_planned": 0})
    assert capsys.readouterr() == ("", "")
