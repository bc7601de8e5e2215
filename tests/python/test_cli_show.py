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


def test_json_output_stays_alone(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"slide": "a.svs", "answered": 1, "items_done": 0}
    with show.RunDisplay(1, quiet=True) as display:
        display("slide_started", {"slide": "a.svs"})
        display._shown_s = -1e9
        display("progress", event | {"planned": 2, "items_planned": 0})
    assert capsys.readouterr() == ("", "")
