# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from her2fast.errors import SlideError

__all__ = ["TEMPORARY_PREFIX", "Together", "atomic_write"]

#: Begins the name of every unfinished file; a killed run may leave some behind. The
#: name is not derived from the target's, which may be as long as the system allows.
TEMPORARY_PREFIX = ".her2fast-"

_FULL = (errno.ENOSPC, errno.EDQUOT)


def atomic_write(path: str | os.PathLike[str], data: bytes | Iterable[bytes]) -> int:
    """Write to a temporary name in the same folder, flush to disk, rename.

    `data` may be an iterator of chunks, so that a large file never stands in memory.
    Whatever goes wrong, also in the iterator, leaves the old file as it was.

    Returns
    -------
    int
        The bytes written.

    Raises
    ------
    SlideError
        DISK_FULL, or IO for whatever else the system says.
    """
    target = Path(path)
    chunks = [data] if isinstance(data, bytes) else data
    temporary = _temporary(target)
    try:
        size = _write(temporary, chunks)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        code = "DISK_FULL" if error.errno in _FULL else "IO"
        message = (
            f"{target.name}: cannot be written to {target.parent}: {error.strerror}"
        )
        raise SlideError(message, code) from error
    return size


class Together:
    """Files that take their names one right after the other, once all are written.

    In a `with`: an error leaves every old file as it was. Only a kill within the
    renames, which take milliseconds, can leave some old and some new.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []

    @property
    def paths(self) -> list[Path]:
        """The files' names, in the order of `add`."""
        return [path for _, path in self._staged]

    def add(self, path: Path, data: bytes | Iterable[bytes]) -> None:
        """Write a file under a temporary name, its folder being made where it lacks."""
        path.parent.mkdir(exist_ok=True)
        staged = _temporary(path)
        atomic_write(staged, data)
        self._staged.append((staged, path))

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for staged, _path in self._staged:
                with contextlib.suppress(OSError):
                    staged.unlink(missing_ok=True)
            return
        for staged, path in self._staged:
            os.replace(staged, path)
        for folder in dict.fromkeys(path.parent for path in self.paths):
            _flush_folder(folder)


def _temporary(target: Path) -> Path:
    return target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"


def _write(path: Path, chunks: Iterable[bytes]) -> int:
    size = 0
    # 0o666 less the umask, as any file of the user; mkstemp's 0o600 hides results
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)
