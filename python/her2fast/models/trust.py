# SPDX-License-Identifier: Apache-2.0
"""Which model files are known: the wheel's list and the user's trust file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from her2fast.errors import UsageError

#: Packages that ship inside the wheel, and the list of their model files.
SHIPPED_DIR = Path(__file__).resolve().parents[1] / "data" / "models"
KNOWN_FILE = SHIPPED_DIR / "known.json"
#: A trust file is a few lines; more is a mistake.
MAX_TRUST_BYTES = 1 << 20


def trust_file() -> Path:
    """The user's trust file; `HER2FAST_CONFIG_DIR` and `XDG_CONFIG_HOME` move it."""
    folder = os.environ.get("HER2FAST_CONFIG_DIR")
    if folder:
        return Path(folder) / "trust.json"
    base = os.environ.get("XDG_CONFIG_HOME")
    root = Path(base) if base else Path.home() / ".config"
    return root / "her2fast" / "trust.json"


def read_hashes(path: Path) -> dict[str, str]:
    """SHA-256 -> name of one list; an absent list is empty."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_TRUST_BYTES:
        raise UsageError(f"{path}: need at most {MAX_TRUST_BYTES} bytes")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    if not isinstance(table, dict) or not all(
        isinstance(value, str) and len(key) == 64 for key, value in table.items()
    ):
        raise UsageError(f'{path}: need an object of {{"<sha256>": "<name>"}}')
    return {str(key): str(value) for key, value in table.items()}


def known_hashes() -> dict[str, str]:
    """Every known model file: what the user trusts, then what ships."""
    return {**read_hashes(trust_file()), **read_hashes(KNOWN_FILE)}


def trust(hashes: dict[str, str]) -> Path:
    """Adds hashes to the user's trust file; returns its path."""
    path = trust_file()
    table = {**read_hashes(path), **hashes}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".trust-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(dict(sorted(table.items())), out, indent=1)
            out.write("\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
