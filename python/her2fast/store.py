# SPDX-License-Identifier: Apache-2.0
"""The results folder: names, locks, and what is finished (docs/guide/results.md).

Every file is written to a temporary name and renamed, the record last. A killed run
leaves nothing that looks finished; a rerun completes exactly what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.export.atomic import atomic_write
from her2fast.methods import cell_file
from her2fast.methods.membrane import CellMeasurement
from her2fast.record import Record, Roi, record_bytes
from her2fast.record_file import read_record_file

RESULTS = "results"
MEASUREMENTS = "measurements"
LOCKS = ".locks"
#: A name with a suffix fits in 255 bytes whatever is added to it.
MAX_NAME_BYTES = 180
#: How long another writer may hold a slide: a killed one is gone by then.
LOCK_WAIT_S = 2.0

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def file_stem(slide: str) -> str:
    """A name for a slide's files: its stem, as any file system takes it."""
    base = os.path.basename(slide.rstrip("/"))
    stem = base.rsplit(".", 1)[0] or base
    clean = _UNSAFE.sub("_", stem).strip(" ")
    clean = "_" + clean[1:] if clean.startswith(".") else clean or "_"
    data = clean.encode("utf-8")
    if len(data) > MAX_NAME_BYTES:
        clean = data[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return clean if clean == stem else f"{clean}-{_path_hash(slide)}"


def _path_hash(slide: str) -> str:
    path = os.fsencode(os.path.abspath(slide))
    return hashlib.sha256(path).hexdigest()[:8]


class ResultsFolder:
    """One folder of results; many processes may write different slides of it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Creates nothing yet."""
        self.root = Path(root)

    def create(self) -> None:
        """Makes the folders that every run needs."""
        for name in (RESULTS, MEASUREMENTS, LOCKS):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    # --- names ------------------------------------------------------------------------

    def assign_names(self, slides: Sequence[str]) -> list[str]:
        """A name per slide, distinct whatever the stems and the order.

        A slide keeps the name it has in this folder. Otherwise its stem, and where two
        slides share one (upper and lower case alike), or the name is that of a file
        that is no record and no slide's, the stem and a hash of the path.
        """
        stems = [file_stem(slide) for slide in slides]
        count: dict[str, int] = {}
        for stem in stems:
            count[stem.casefold()] = count.get(stem.casefold(), 0) + 1
        owners = self._owners()
        names = []
        for slide, stem in zip(slides, stems, strict=True):
            source = _source_text(slide)
            owner = owners.get(stem.casefold())
            other = f"{stem}-{_path_hash(slide)}"
            free = (
                owner is None
                and count[stem.casefold()] == 1
                and owners.get(other.casefold()) != source
                and not self._is_foreign(stem)
            )
            names.append(stem if owner == source or free else other)
        return names

    def _is_foreign(self, name: str) -> bool:
        """Whether the place of this record is another file's.

        A damaged record of a slide's own stands beside what was measured of it, also in
        a copy that has no locks.
        """
        path = self.record_path(name)
        own = (self.state_path(name), self.measurement_path(name))
        return (
            os.path.lexists(path)
            and self.read_record(name) is None
            and not any(map(os.path.lexists, own))
        )

    def claim_names(self, slides: Sequence[str]) -> list[str]:
        """`assign_names`, and another run that starts meanwhile gets others."""
        with self.alone():
            names = self.assign_names(slides)
            owners = self._owners()
            for slide, name in zip(slides, names, strict=True):
                if name.casefold() not in owners:
                    path = self.root / LOCKS / f"{name}.lock"
                    path.write_bytes(_source_text(slide).encode("utf-8"))
        return names

    def _owners(self) -> dict[str, str]:
        owners = {}
        with contextlib.suppress(FileNotFoundError):
            for lock in (self.root / LOCKS).glob("*.lock"):
                text = lock.read_text(encoding="utf-8", errors="replace")
                owners[lock.name.removesuffix(".lock").casefold()] = text
        return owners

    def slide_place(self, name: str) -> str | None:
        """Where the slide lay when it was scored last; None in a copy without locks."""
        try:
            text = (self.root / LOCKS / f"{name}.lock").read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        return text or None

    # --- locks ------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The only one who names slides or writes tables; waits, it takes no time."""
        folder = self.root / LOCKS
        folder.mkdir(exist_ok=True)
        with (folder / ".names").open("ab") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def lock(self, name: str, slide: str | None = None) -> Iterator[None]:
        """The only writer of a slide; raises `SlideError` OUTPUT_BUSY.

        The kernel lets go of the lock with the process, so a killed run leaves none.
        """
        path = self.root / LOCKS / f"{name}.lock"
        path.parent.mkdir(exist_ok=True)  # a copied folder may lack what is hidden
        with path.open("a+b") as file:
            deadline = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise SlideError(
                            f"{self.root}: another process writes {name!r}; wait for "
                            "it or choose another folder",
                            "OUTPUT_BUSY",
                        ) from None
                    time.sleep(0.05)
            if slide is not None:
                file.truncate(0)
                file.write(_source_text(slide).encode("utf-8"))
                file.flush()
            yield

    # --- one slide --------------------------------------------------------------------

    def record_path(self, name: str) -> Path:
        """`results/<name>.json`."""
        return self.root / RESULTS / f"{name}.json"

    def measurement_path(self, name: str) -> Path:
        """`measurements/<name>.h2m`."""
        return self.root / MEASUREMENTS / f"{name}.h2m"

    def state_path(self, name: str) -> Path:
        """What a finished slide is made of: hashes of its files, and its inputs."""
        return self.root / MEASUREMENTS / f"{name}.state.json"

    def read_record(self, name: str) -> Record | None:
        """The record of a slide, or None where there is none that can be read."""
        try:
            return read_record_file(self.record_path(name))
        except SlideError:
            return None

    def is_finished(
        self,
        name: str,
        measurement_key: str | None,
        decision_key: str | None,
        exports: Mapping[str, Any],
        sha256: str | None = None,
    ) -> bool:
        """Whether the slide ended with these keys, its files being as written.

        With the slide's `sha256` also whether it was measured from these bytes.
        """
        if measurement_key is None or decision_key is None:
            return False
        record = self.read_record(name)
        state = _read_object(self.state_path(name))
        if (
            record is None
            or state is None
            or record.get("measurement_key") != measurement_key
            or record.get("decision_key") != decision_key
            or state.get("exports") != exports
            or state.get("pictures_missing")
        ):
            return False
        if sha256 is not None:
            core = self._stored_measurement(name)
            measured_from = None if core is None else _parted(core.key)[1]
            if not sha256 == measured_from == record["slide"].get("sha256"):
                return False
        files = state.get("files")
        return isinstance(files, dict) and all(
            sha256_of(self.root / file) == value for file, value in files.items()
        )

    def read_measurement(
        self, name: str, key: str | None, sha256: str | None = None
    ) -> _core.Measurement | None:
        """The stored measurement with this key, or None: then it is measured again.

        With the slide's `sha256` only one that was measured from these bytes. The file
        says so itself: a record may be of a later look at the slide.
        """
        core = self._stored_measurement(name)
        if core is None or key is None:
            return None
        core.key, measured_from = _parted(core.key)
        return core if core.key == key and sha256 in (None, measured_from) else None

    def _stored_measurement(self, name: str) -> _core.Measurement | None:
        try:
            data = self.measurement_path(name).read_bytes()
            return _core.Measurement.from_bytes(data)
        except (OSError, SlideError):
            return None

    def write_measurement(
        self, name: str, core: _core.Measurement, sha256: str | None = None
    ) -> None:
        """Stores a measurement before anything is decided on it.

        With the slide's `sha256`, where it is known what bytes it is of.
        """
        key = core.key
        core.key = _joined(key, sha256)
        try:
            data = core.to_bytes()
        finally:
            core.key = key
        atomic_write(self.measurement_path(name), data)

    def cells_path(self, name: str) -> Path:
        """`measurements/<name>.h2c`: cells, where membranes were measured."""
        return self.root / MEASUREMENTS / f"{name}.h2c"

    def read_cells(
        self, name: str, key: str | None, sha256: str | None = None
    ) -> CellMeasurement | None:
        """The stored cells, as `read_measurement`."""
        stored = self._stored_cells(name)
        if stored is None or key is None:
            return None
        cells, (own, measured_from) = stored[0], _parted(stored[1])
        return cells if own == key and sha256 in (None, measured_from) else None

    def _stored_cells(self, name: str) -> tuple[CellMeasurement, str] | None:
        try:
            return cell_file.from_bytes(self.cells_path(name).read_bytes())
        except (OSError, SlideError):
            return None

    def write_cells(
        self, name: str, cells: CellMeasurement, key: str, sha256: str | None = None
    ) -> None:
        """Stores cells before anything is decided on them; as `write_measurement`."""
        data = cell_file.to_bytes(cells, _joined(key, sha256))
        atomic_write(self.cells_path(name), data)

    def drop_other_bytes(self, name: str, sha256: str) -> None:
        """Takes away what is known to be measured from other bytes than these."""
        own = (None, sha256)
        core, cells = self._stored_measurement(name), self._stored_cells(name)
        if core is not None and _parted(core.key)[1] not in own:
            self.measurement_path(name).unlink(missing_ok=True)
            self.drop_derived(name)
        elif cells is not None and _parted(cells[1])[1] not in own:
            self.drop_derived(name)

    def drop_pictures(self, name: str) -> None:
        """Takes away the pictures of a slide: the next ones are of the bytes of now."""
        for path in (self.overview_path(name), self.patches_path(name)):
            path.unlink(missing_ok=True)

    def drop_derived(self, name: str) -> None:
        """Takes cells and pictures away before a slide is measured anew.

        Their keys are those of the slide's fingerprint, which other bytes may share.
        """
        self.cells_path(name).unlink(missing_ok=True)
        self.drop_pictures(name)

    def read_inputs(self, name: str) -> dict[str, Any]:
        """ROI, guideline and ISH of the last decision, for the next one.

        `roi_refused`: there was none, because its region was refused; None where
        nobody wrote that down.
        """
        state = _read_object(self.state_path(name)) or {}
        inputs = state.get("inputs") or {}
        return {
            "roi": _roi_from_json(inputs.get("roi") or []),
            "guideline": inputs.get("guideline"),
            "ish": inputs.get("ish"),
            "roi_refused": inputs.get("roi_refused"),
        }

    def read_exports(self, name: str) -> dict[str, str]:
        """How the files for people looked, for the next ones."""
        state = _read_object(self.state_path(name)) or {}
        return dict(state.get("exports") or {})

    def overview_path(self, name: str) -> Path:
        """The picture of a slide, kept so that deciding again reads no pixels."""
        return self.root / MEASUREMENTS / f"{name}.jpg"

    def patches_path(self, name: str) -> Path:
        """The pictures of single patches or cells, kept for the same reason."""
        return self.root / MEASUREMENTS / f"{name}.patches.zip"

    def write_record(
        self,
        name: str,
        record: Record,
        *,
        files: Sequence[Path] = (),
        inputs: Mapping[str, Any] | None = None,
        exports: Mapping[str, Any] | None = None,
        pictures_missing: bool = False,
    ) -> None:
        """The record, last of all; `files` are what was written for it before.

        What an earlier record had and this one has not is removed. With
        `pictures_missing` the next run that can read the slide finishes the report.
        """
        data = record_bytes(record)
        listed = [
            self.measurement_path(name),
            self.cells_path(name),
            self.overview_path(name),
            self.patches_path(name),
            *files,
        ]
        hashes = {
            path.relative_to(self.root).as_posix(): sha256_of(path)
            for path in listed
            if path.is_file()
        }
        own = self.record_path(name).relative_to(self.root).as_posix()
        hashes[own] = hashlib.sha256(data).hexdigest()
        inputs = dict(inputs or {})
        inputs["roi"] = _roi_to_json(inputs.get("roi") or ())
        state: dict[str, Any] = {
            "files": dict(sorted(hashes.items())),
            "inputs": inputs,
            "exports": dict(exports or {}),
        }
        if pictures_missing:
            state["pictures_missing"] = True
        before = (_read_object(self.state_path(name)) or {}).get("files") or {}
        for file in sorted(set(before) - set(hashes)):
            (self.root / file).unlink(missing_ok=True)
        atomic_write(self.state_path(name), record_bytes(state))
        atomic_write(self.record_path(name), data)

    def records(self) -> list[tuple[str, Record]]:
        """Every finished slide, by name; what else lies there is passed over."""
        return [
            (name, found)
            for name, found in self.records_and_others()
            if not isinstance(found, SlideError)
        ]

    def records_and_others(self) -> list[tuple[str, Record | SlideError]]:
        """Every JSON file of `results/`, by name: a record, or why it is none."""
        folder = self.root / RESULTS
        if not folder.is_dir():
            raise UsageError(f"{self.root}: is no results folder (no {RESULTS}/ in it)")
        found: list[tuple[str, Record | SlideError]] = []
        for path in sorted(folder.glob("*.json")):
            name = path.name.removesuffix(".json")
            try:
                found.append((name, read_record_file(path)))
            except SlideError as error:
                found.append((name, error))
        return found


def sha256_of(path: Path) -> str | None:
    """SHA-256 of a file, hex; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _joined(key: str, sha256: str | None) -> str:
    """The key in a stored file: that of the measurement, and what bytes it is of.

    In one file, so that no kill parts them; a record is written later, and may be of
    bytes that nobody measured.
    """
    return key if sha256 is None else f"{key} {sha256}"


def _parted(key: str) -> tuple[str, str | None]:
    own, _, sha256 = key.partition(" ")
    return own, sha256 or None


def _source_text(slide: str) -> str:
    return os.path.abspath(slide).encode("utf-8", "backslashreplace").decode("utf-8")


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _roi_to_json(roi: Roi) -> list[Any]:
    return [
        [bool(exclude), [np.asarray(ring).tolist() for ring in rings]]
        for exclude, rings in roi
    ]


def _roi_from_json(value: Sequence[Any]) -> Roi:
    return [
        (bool(exclude), [np.asarray(ring, np.float64) for ring in rings])
        for exclude, rings in value
    ]
