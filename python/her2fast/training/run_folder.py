# SPDX-License-Identifier: Apache-2.0
"""A run's folder: configuration, environment, metrics, checkpoints, selected patches.

config.toml config.json      as given, and resolved
environment.json             versions, seed, hashes of cohort and splits
metrics.csv                  a row per epoch
selected/epoch_0001.parquet  patches an epoch was trained on (stage constrained)
checkpoints/last.safetensors checkpoints/best.safetensors
run.json                     written last: how the run ended
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from her2fast._core import __version__
from her2fast.errors import UsageError
from her2fast.export.atomic import atomic_write

#: Settings that a resumed run may change, because no result depends on them.
FREE = ("compute.workers", "data.cache")
PACKAGES = ("torch", "torchvision", "lightning-fabric", "safetensors", "numpy", "timm")

Row = dict[str, float | int | str]


class RunFolder:
    """One run; made anew or continued."""

    def __init__(self, root: Path, stage: str) -> None:
        self.root = root
        self.stage = stage
        self._lock: IO[str] | None = None

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.root / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.root / "checkpoints" / "best.safetensors"

    def open(self, config: Mapping[str, Any], text: str) -> bool:
        """Claim the folder; True where a run of the same configuration goes on.

        Raises `UsageError` where the folder holds another run, or one is at work.
        """
        for folder in (self.root / "checkpoints", self.root / "selected"):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.root / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UsageError(f"{self.root}: another process trains here") from error
        try:
            return self._claimed({"stage": self.stage, **config}, text)
        except BaseException:
            self.close()
            raise

    def _claimed(self, content: Mapping[str, Any], text: str) -> bool:
        stored = self.root / "config.json"
        if stored.is_file():
            self._check_same(json.loads(stored.read_text(encoding="utf-8")), content)
            return self.last.is_file()
        atomic_write(self.root / "config.toml", text.encode())
        atomic_write(stored, _json(content))
        return False

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """Versions, seed, hashes; no name of the machine or its user."""
        content = {
            "her2fast": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "machine": platform.machine(),
            **facts,
        }
        atomic_write(self.root / "environment.json", _json(content))

    def environment(self) -> dict[str, Any]:
        """What `write_environment` wrote."""
        return read_json(self.root / "environment.json")

    def read_metrics(self, before_epoch: int) -> list[Row]:
        """Rows of finished epochs; later ones belong to a run that was killed."""
        path = self.root / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[Row] = [dict(row) for row in csv.DictReader(file)]
        return [row for row in rows if int(row["epoch"]) < before_epoch]

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """The whole table, anew."""
        names: dict[str, None] = {}
        for row in rows:
            names.update(dict.fromkeys(row))
        out = io.StringIO(newline="")
        table = csv.DictWriter(out, list(names), lineterminator="\r\n")
        table.writeheader()
        table.writerows(rows)
        atomic_write(self.root / "metrics.csv", out.getvalue().encode())

    def write_selected(self, epoch: int, columns: Mapping[str, Any]) -> None:
        """Patches of one epoch as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        out = io.BytesIO()
        pq.write_table(pa.table(dict(columns)), out, compression="zstd")
        path = self.root / "selected" / f"epoch_{epoch:04d}.parquet"
        atomic_write(path, out.getvalue())

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Says that the run ended, and how; after everything else."""
        content = {"stage": self.stage, "status": "finished", **facts}
        atomic_write(self.root / "run.json", _json(content))

    def outcome(self) -> dict[str, Any] | None:
        """How the run ended; None where it did not."""
        path = self.root / "run.json"
        return read_json(path) if path.is_file() else None

    def _check_same(self, there: Any, here: Mapping[str, Any]) -> None:
        differing = [
            f"{key}: {_short(old)} there, {_short(new)} here"
            for key, old, new in _differences(there, json.loads(json.dumps(here)))
            if key not in FREE
        ]
        if differing:
            raise UsageError(
                f"{self.root}: holds a run of another configuration "
                f"({'; '.join(differing[:5])}); name another folder, or remove this one"
            )


def finished_run(root: Path, stages: Sequence[str]) -> RunFolder:
    """A finished run of one of `stages`; raises `UsageError` where it is none."""
    if not (root / "config.json").is_file():
        raise UsageError(f"{root}: need a run folder of {' or '.join(stages)}")
    stage = str(read_json(root / "config.json").get("stage"))
    if stage not in stages:
        raise UsageError(
            f"{root}: need a run of {' or '.join(stages)}, got one of {stage}"
        )
    run = RunFolder(root, stage)
    if run.outcome() is None:
        raise UsageError(f"{root}: this run has not finished; start it again first")
    return run


def read_json(path: Path) -> dict[str, Any]:
    """An object; raises `UsageError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: need an object")
    return content


def is_main_process() -> bool:
    """Whether this is the process that writes; `torchrun` starts several."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _short(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)[:80]


def _differences(a: Any, b: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for name in sorted({*a, *b}):
            place = f"{key}.{name}" if key else name
            found += _differences(a.get(name), b.get(name), place)
        return found
    return [] if a == b else [(key, a, b)]
