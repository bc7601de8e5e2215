# SPDX-License-Identifier: Apache-2.0
"""What was cut from slides, on disk: a slide is decoded once for all epochs and runs.

An entry is a folder named by the hash of the slide's fingerprint and of every setting
that decides its pixels. It is renamed into place when it is whole, so a killed run
leaves nothing that looks finished, and several writers do no harm. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.errors import UsageError
from her2fast.export.atomic import TEMPORARY_PREFIX

Arrays = dict[str, npt.NDArray[Any]]

#: Part of every key; a change of what an entry holds begins anew.
LAYOUT_VERSION = 1
META = "meta.json"


class SlideCache:
    """A folder of entries."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made = 0

    def path(self, settings: Mapping[str, Any]) -> Path:
        """Where the entry of these settings is, or will be."""
        text = json.dumps(
            {"layout": LAYOUT_VERSION, **settings},
            sort_keys=True,
            separators=(",", ":"),
        )
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.root / key[:2] / key[2:34]

    def get(self, settings: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The arrays of an entry, memory-mapped; `make` is called where it is absent.

        Raises `UsageError` where an entry is not what its `meta.json` says.
        """
        path = self.path(settings)
        if not (path / META).is_file():
            self._store(path, settings, make())
            self.made += 1
        return self._load(path)

    def _store(self, path: Path, settings: Mapping[str, Any], arrays: Arrays) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        temporary.mkdir()
        try:
            shapes = {}
            for name, array in arrays.items():
                with (temporary / f"{name}.npy").open("xb") as file:
                    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
                shapes[name] = [list(array.shape), str(array.dtype)]
            meta = {"settings": dict(settings), "arrays": shapes}
            text = json.dumps(meta, indent=1, ensure_ascii=False)
            with (temporary / META).open("x", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            try:
                temporary.rename(path)
            except OSError:
                if not (path / META).is_file():
                    raise
                # Another writer was first; its entry is as good.
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)

    def _load(self, path: Path) -> Arrays:
        try:
            meta = json.loads((path / META).read_text(encoding="utf-8"))
            arrays: Arrays = {}
            for name, (shape, dtype) in meta["arrays"].items():
                file = path / f"{name}.npy"
                # An array without bytes cannot be mapped.
                if int(np.prod(shape)):
                    array = np.load(file, mmap_mode="r", allow_pickle=False)
                else:
                    array = np.load(file, allow_pickle=False)
                if list(array.shape) != shape or str(array.dtype) != dtype:
                    raise ValueError(
                        f"{file.name} holds {array.dtype} {list(array.shape)}"
                    )
                arrays[name] = array
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UsageError(
                f"{path}: the cache entry is damaged ({error}); remove this folder"
            ) from error
        return arrays
