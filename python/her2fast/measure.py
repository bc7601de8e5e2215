# SPDX-License-Identifier: Apache-2.0
"""Drives a native session: pixels in, models side by side, a measurement out."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from her2fast import _core
from her2fast.errors import Her2fastError, SlideError
from her2fast.models.on_device import (
    MOST_THREADS,
    DeviceModels,
    open_on_device,
    pipeline_of,
)
from her2fast.models.package import MethodPackage
from her2fast.models.runner import (
    Runner,
    check_device,
    describe_device,
    one_intra_op_thread,
    open_runner,
    use_one_thread,
)

#: Seconds between two looks at the progress.
PROGRESS_INTERVAL_S = 0.25


@dataclass(frozen=True)
class Progress:
    """Requests answered and model items done, of those planned so far."""

    planned: int
    answered: int
    items_planned: int
    items_done: int


OnProgress = Callable[[Progress], None]
#: Of methods that have stages, with the stage's name: its counts are its own.
OnStage = Callable[[str, Progress], None]


class Reading(Protocol):
    """What feeds a session; returns when it has nothing more to give."""

    def __call__(self, session: _core.PatchSession) -> None:
        """Answers the session's requests."""
        ...


def default_workers() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Models:
    """The opened models of a package on one device."""

    #: On a GPU, where her2fast moves pixels and counts itself.
    on_device: DeviceModels | None = None

    def __init__(self, package: MethodPackage, device: str = "cpu") -> None:
        """Raises `DeviceError`, and `SlideError` MODEL_HASH or MODEL_SHAPE."""
        self.package = package
        self.device = check_device(device)
        self.runners: list[Runner] = [
            open_runner(model, self.device) for model in package.models
        ]
        self.on_device = open_on_device(package.models, self.runners, self.device)

    def describe(self) -> dict[str, Any]:
        """The record's `device`."""
        return describe_package_device(self.package, self.device)

    @property
    def memory(self) -> _core.BatchMemory | None:
        """Where a session's batches should lie."""
        return None if self.on_device is None else self.on_device.memory

    def threads(self, workers: int) -> int:
        """How many threads compute at most."""
        return workers if self.on_device is None else min(workers, MOST_THREADS)

    def compute(self, session: _core.PatchSession, *, wait: bool) -> int:
        """Computes batches until none is ready (none ever will be, with `wait`).

        Returns how many. Raises `SlideError`; the caller ends the session.
        """
        if self.on_device is not None:
            return self.on_device.run(session, wait=wait)
        count = 0
        while (batch := session.next_batch(wait=wait)) is not None:
            session.put(batch.id, self.runners[batch.model].run(batch.rgb))
            count += 1
        return count


def describe_package_device(package: MethodPackage, device: str) -> dict[str, Any]:
    """The record's `device`, without opening a model."""
    names = ("segment", "classify") if package.segment else ("classify",)
    batches = {
        name: model.batch_size
        for name, model in zip(names, package.models, strict=True)
    }
    return describe_device(device, batches, pipeline_of(package.models, device))


def end_session(session: _core.PatchSession, error: BaseException) -> None:
    """The session ends with what its models or its reading raised."""
    code = error.code if isinstance(error, SlideError) else "CRASH"
    session.fail(str(error) or type(error).__name__, code)


class _Threads:
    """Threads whose first error ends the session and is raised by `join`."""

    def __init__(self, session: _core.PatchSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._lock:
                first = self.error is None
                if first:
                    self.error = error
            if first:
                end_session(self._session, error)

    def join(self, on_progress: OnProgress | None) -> None:
        try:
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(PROGRESS_INTERVAL_S)
                    if on_progress is not None:
                        on_progress(Progress(*self._session.progress()))
        except BaseException:
            # Interrupted: no thread may outlive the call.
            self._session.cancel()
            for thread in self._threads:
                thread.join()
            raise
        if self.error is not None:
            raise self.error


def run_session(
    session: _core.PatchSession,
    models: Models,
    reading: Reading,
    *,
    workers: int,
    on_progress: OnProgress | None = None,
) -> _core.Measurement:
    """Reads with one thread, computes with `workers`, and measures.

    Raises what the first failing thread raised; no thread outlives the call.
    """
    threads = _Threads(session)

    def compute() -> None:
        use_one_thread()
        models.compute(session, wait=True)

    with one_intra_op_thread(models.device):
        threads.start(lambda: reading(session))
        for _ in range(models.threads(max(1, workers))):
            threads.start(compute)
        threads.join(on_progress)
    return session.finish()


@contextlib.contextmanager
def crash_as_code() -> Iterator[None]:
    """Turns an unforeseen error into `SlideError` CRASH, with its type in words."""
    try:
        yield
    except Her2fastError:
        raise
    except MemoryError as error:
        raise SlideError("out of memory", "CRASH") from error
    except OSError as error:
        import errno

        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SlideError(str(error), "DISK_FULL" if full else "IO") from error
    except Exception as error:
        raise SlideError(f"{type(error).__name__}: {error}", "CRASH") from error
