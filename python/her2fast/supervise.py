# SPDX-License-Identifier: Apache-2.0
"""One worker process that a crash or a hang may end, without ending the run.

Jobs run one after the other in a spawned process, which is kept. A job that takes the
process down, or says nothing for too long, gets a fresh process once more; the second
strike is its end.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from her2fast.errors import Her2fastError, SlideError

#: Without a word from the worker for this long, a job hangs.
STALL_S = 600.0
STRIKES = 2
#: Between two looks at a silent worker.
POLL_S = 1.0

Report = Callable[[Any], None]
Job = Callable[[Any, Report], Any]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class JobFailed(Her2fastError):
    """An error of a job that is no error of this package; holds its words."""


class Supervisor:
    """Runs `job(argument, report)`, a module's function, in a worker process."""

    def __init__(
        self, job: Job, *, stall_s: float = STALL_S, strikes: int = STRIKES
    ) -> None:
        """Starts no process yet."""
        self._job = job
        self._stall_s = stall_s
        self._strikes = strikes
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def run(self, argument: Any, on_report: Report | None = None) -> Any:
        """What the job returns; raises its error, or `SlideError` CRASH or TIMEOUT."""
        for strike in range(1, self._strikes + 1):
            try:
                return self._attempt(argument, on_report or (lambda _: None))
            except _WorkerLost as lost:
                self._kill()
                if strike == self._strikes:
                    raise SlideError(f"{lost} ({strike} times)", lost.code) from None
            except BaseException:
                if self._connection is not None and not self._idle:
                    self._kill()
                raise
        raise AssertionError("need strikes >= 1")

    _idle = True

    def _attempt(self, argument: Any, on_report: Report) -> Any:
        connection, process = self._worker()
        self._idle = False
        try:
            connection.send(argument)
            heard = time.monotonic()
            while True:
                ready = wait([connection, process.sentinel], timeout=POLL_S)
                if connection in ready:
                    kind, value = connection.recv()
                    heard = time.monotonic()
                    if kind == "report":
                        on_report(value)
                        continue
                    self._idle = True
                    if kind == "error":
                        raise value
                    return value
                if process.sentinel in ready:
                    raise _WorkerLost.ended(process)
                if time.monotonic() - heard > self._stall_s:
                    raise _WorkerLost(f"no progress for {self._stall_s:g} s", "TIMEOUT")
        except (EOFError, ConnectionError):
            raise _WorkerLost.ended(process) from None

    def _worker(self) -> tuple[Connection, SpawnProcess]:
        if (
            self._connection is None
            or self._process is None
            or not self._process.is_alive()
        ):
            self._kill()
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(theirs, self._job), daemon=True
            )
            process.start()
            theirs.close()
            self._connection, self._process = ours, process
        return self._connection, self._process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self._idle = True

    def close(self) -> None:
        """Ends the worker process."""
        self._kill()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _WorkerLost(Exception):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def ended(cls, process: SpawnProcess) -> _WorkerLost:
        process.join(POLL_S)
        code = process.exitcode
        how = "ended"
        if code is not None and code < 0:
            try:
                how = f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was ended by signal {-code}"
        elif code is not None:
            how = f"exited with {code}"
        return cls(f"the worker process {how}", "CRASH")


def _serve(connection: Connection, job: Job) -> None:
    """The worker: jobs from the pipe until it closes."""
    _end_with_parent()
    parent = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides

    def report(value: Any) -> None:
        connection.send(("report", value))

    while True:
        try:
            argument = connection.recv()
        except (EOFError, OSError):
            return
        if parent is None or not parent.is_alive():
            return  # killed with a job in the pipe, before this process watched it
        try:
            answer = ("done", job(argument, report))
        except Her2fastError as error:
            answer = ("error", error)
        except Exception as error:
            answer = ("error", JobFailed(f"{type(error).__name__}: {error}"))
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionError):
            return


def _end_with_parent() -> None:
    """Where the system can: a killed run leaves no worker that holds locks."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
