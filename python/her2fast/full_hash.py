# SPDX-License-Identifier: Apache-2.0
"""The SHA-256 of every byte of a slide; the fingerprint only samples large files.

One file: what `sha256sum` prints. A MIRAX slide is a file and the folder of its name:
the SHA-256 of the lines that `sha256sum` would print for all of them, by name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from her2fast.errors import SlideError

__all__ = ["full_sha256"]


def full_sha256(path: str | os.PathLike[str]) -> str:
    """In hex; raises `SlideError` IO, NOT_FOUND."""
    place = Path(path)
    try:
        own = _of_file(place)
        folder = place.with_suffix("")
        if place.suffix.lower() != ".mrxs" or not folder.is_dir():
            return own
        lines = hashlib.sha256(
            f"{own}  {place.name}\n".encode(errors="surrogateescape")
        )
        for file in sorted(folder.iterdir()):
            if file.is_file():
                name = f"{folder.name}/{file.name}"
                line = f"{_of_file(file)}  {name}\n"
                lines.update(line.encode(errors="surrogateescape"))
        return lines.hexdigest()
    except FileNotFoundError as error:
        raise SlideError(f"{place}: no such file", "NOT_FOUND") from error
    except OSError as error:
        raise SlideError(f"{place}: {error.strerror or error}", "IO") from error


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
