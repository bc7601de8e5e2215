# SPDX-License-Identifier: Apache-2.0
"""The worker process: crashes, hangs and errors of one job end that job only."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from her2fast.errors import SlideError, UsageError
from her2fast.supervise import JobFailed, Report, Supervisor

pytestmark = pytest.mark.filterwarnings("error")


def job(argument: Any, report: Report) -> Any:
    """What a native library might do to the process."""
    kind, *rest = argument
    if kind == "say":
        report("one")
        report("two")
        return [os.getpid(), *rest]
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "busy":
        for _ in range(10):
            report("alive")
            time.sleep(0.2)
        return "done"
    if kind == "crash once":
        marker = Path(rest[0])
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return "second time"
    if kind == "slide":
        raise SlideError("bad slide", "TRUNCATED")
    if kind == "usage":
        raise UsageError("wrong call")
    if kind == "bug":
        raise KeyError("x")
    return None


def test_one_process_for_many_jobs() -> None:
    heard: list[str] = []
    with Supervisor(job) as worker:
        first = worker.run(("say", 1), heard.append)
        second = worker.run(("say", 2))
    assert heard == ["one", "two"]
    assert first[1:] == [1]
    assert second == [first[0], 2]
    assert first[0] != os.getpid()


@pytest.mark.parametrize(
    ("kind", "words"), [("segfault", "SIGSEGV"), ("exit", "exited with 3")]
)
def test_a_crash_costs_one_job(kind: str, words: str) -> None:
    with Supervisor(job) as worker:
        before = worker.run(("say",))
        with pytest.raises(SlideError, match=words) as caught:
            worker.run((kind,))
        assert caught.value.code == "CRASH"
        assert "2 times" in str(caught.value)
        after = worker.run(("say",))
    assert before != after


def test_the_first_strike_is_forgiven(tmp_path: Path) -> None:
    with Supervisor(job) as worker:
        assert worker.run(("crash once", str(tmp_path / "x"))) == "second time"


def test_silence_is_a_hang_and_progress_is_not() -> None:
    with Supervisor(job, stall_s=1.0) as worker:
        assert worker.run(("busy",)) == "done"
        with pytest.raises(SlideError, match="no progress for 1 s") as caught:
            worker.run(("hang",))
        assert caught.value.code == "TIMEOUT"
        assert worker.run(("say", 5))[1:] == [5]


def test_errors_come_back_as_they_are() -> None:
    with Supervisor(job) as worker:
        with pytest.raises(SlideError, match="bad slide") as caught:
            worker.run(("slide",))
        assert caught.value.code == "TRUNCATED"
        with pytest.raises(UsageError, match="wrong call"):
            worker.run(("usage",))
        with pytest.raises(JobFailed, match="KeyError: 'x'"):
            worker.run(("bug",))
        assert worker.run(("say", 1))[1:] == [1]


def test_an_interrupted_job_leaves_no_process() -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with Supervisor(job) as worker:
        with pytest.raises(KeyboardInterrupt):
            worker.run(("busy",), stop)
        assert worker.run(("say", 7))[1:] == [7]
