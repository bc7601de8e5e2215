# SPDX-License-Identifier: Apache-2.0
"""A folder of phantom slides with their truth and a manifest.

A slide is finished when its `truth.json` is there, which is written last; a rerun makes
what is missing. Every slide is a pure function of seed, index and specification, so the
bytes do not depend on workers, order or restarts.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.export.atomic import TEMPORARY_PREFIX, atomic_write
from her2fast.phantom import truth
from her2fast.phantom.slide import Camera, Slide, draw_slide
from her2fast.phantom.spec import SlideSpec

COHORT = "cohort.json"
MANIFEST = "manifest.csv"
TITLE = "Synthetic phantom, research use only"
MAX_SLIDES = 100_000
MAX_SEED = 2**63 - 1
TILE_PX = 256
DEFAULT_JPEG_QUALITY = 90

OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Made:
    """How one slide of a cohort ended."""

    name: str
    label: str | None
    work: str  # "drawn" or "kept" (finished before)
    elapsed_s: float


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    out: str
    slides: int
    seed: int
    spec: SlideSpec
    workers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.slides <= MAX_SLIDES:
            raise UsageError(f"need 1 <= slides <= {MAX_SLIDES}, got {self.slides}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"need 0 <= seed <= {MAX_SEED}, got {self.seed}")
        if self.workers < 1:
            raise UsageError(f"need workers >= 1, got {self.workers}")

    def record(self) -> dict[str, Any]:
        """What every slide of the folder is a function of."""
        return {
            "synthetic": True,
            "notice": truth.NOTICE,
            "seed": self.seed,
            "spec": self.spec.to_json(),
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """What the bytes depend on beside seed and specification."""
    return {
        "her2fast": _core.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
    }


def slide_name(index: int) -> str:
    """Name of slide `index`, counted from 1."""
    return f"phantom-{index + 1:05d}"


def make_cohort(request: Request, on_event: OnEvent | None = None) -> list[Made]:
    """Makes what is missing in `request.out`; returns every slide in order.

    Raises `UsageError` where the folder holds anything else, and `SlideError`
    OUTPUT_BUSY, DISK_FULL, IO or CRASH.
    """
    tell = on_event or (lambda *_: None)
    root = Path(request.out)
    _check_folder(root, request)
    for name in ("slides", "truth", "regions"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with _alone(root):
        _check_folder(root, request)
        _sweep(root)
        text = json.dumps(request.record(), indent=1) + "\n"
        atomic_write(root / COHORT, text.encode("utf-8"))
        made: dict[int, Made] = {}
        missing = []
        for index in range(request.slides):
            stored = finished(root, index)
            if stored is None:
                missing.append(index)
                continue
            made[index] = Made(slide_name(index), stored["label"], "kept", 0.0)
            tell("slide_ended", _fields(made[index]))
        for index, one in _make(request, missing, tell):
            made[index] = one
            tell("slide_ended", _fields(one))
        atomic_write(root / MANIFEST, _manifest(root))
    return [made[index] for index in range(request.slides)]


def _fields(made: Made) -> dict[str, Any]:
    return {
        "slide": made.name,
        "label": made.label,
        "work": made.work,
        "elapsed_s": made.elapsed_s,
    }


def _check_folder(root: Path, request: Request) -> None:
    """Only an empty folder, or one of this very cohort, is written to."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: exists and is no folder")
    stored = _read_json(root / COHORT)
    if stored is None:
        strangers = [p.name for p in root.iterdir()] if root.is_dir() else []
        ours = {"slides", "truth", "regions", ".lock"}
        others = [
            name
            for name in strangers
            if name not in ours and not name.startswith(TEMPORARY_PREFIX)
        ]
        if others:
            raise UsageError(
                f"{root}: is not empty and holds no phantoms ({sorted(others)[0]}); "
                "choose another folder"
            )
        return
    wanted = request.record()
    for key in ("seed", "spec", "versions"):
        if stored.get(key) != wanted[key]:
            raise UsageError(
                f"{root}: holds other phantoms: their {key} is "
                f"{_difference(stored.get(key), wanted[key])}; nothing is overwritten, "
                "choose another folder"
            )


def _difference(stored: Any, wanted: Any) -> str:
    """The first place where two records differ."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in [*stored, *wanted]:
            if stored.get(key) != wanted.get(key):
                return f"{key} = {_difference(stored.get(key), wanted.get(key))}"
    return f"{stored!r}, wanted is {wanted!r}"


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """The only writer of a folder; the kernel lets go with the process."""
    with (root / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SlideError(
                f"{root}: another process makes phantoms here; wait for it or choose "
                "another folder",
                "OUTPUT_BUSY",
            ) from None
        yield


def _sweep(root: Path) -> None:
    """Removes what a killed run left half written."""
    for folder in (
        root,
        root / "slides",
        root / "regions",
        *(root / "truth").iterdir(),
    ):
        if folder.is_dir():
            for path in folder.glob(f"{TEMPORARY_PREFIX}*.tmp"):
                path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: need an object")
    return value


def finished(root: Path, index: int) -> dict[str, Any] | None:
    """The truth of a finished slide whose file still has its size; else None."""
    name = slide_name(index)
    stored = _read_json(root / "truth" / name / "truth.json")
    if stored is None:
        return None
    try:
        size = (root / "slides" / f"{name}.svs").stat().st_size
    except OSError:
        return None
    return stored if stored["file"]["bytes"] == size else None


# --- one slide ------------------------------------------------------------------------


def make_slide(request: Request, index: int, on_event: OnEvent) -> Made:
    """Draws a slide and writes its files, `truth.json` last."""
    begun = time.monotonic()
    name = slide_name(index)
    root = Path(request.out)

    def drawn(done: int, of: int) -> None:
        on_event("progress", {"slide": name, "done": done, "planned": of + 1})

    slide = draw_slide(request.spec, request.seed, index, drawn)
    path = root / "slides" / f"{name}.svs"
    write_svs(slide, path)
    folder = root / "truth" / name
    folder.mkdir(exist_ok=True)
    maps = truth.Maps(slide)
    table = truth.patch_table(maps, slide.spec.slide.spacing_um)
    files = {
        "class_map.png": truth.classes_png(maps),
        "tumor_mask.png": truth.mask_png(maps.tumor),
        "membrane_mask.png": truth.mask_png(maps.membrane),
        "tissue.png": truth.tissue_png(maps),
        "cells.parquet": truth.cells_parquet(slide),
        "patches.csv": truth.patch_csv(table, slide.spec.slide.spacing_um),
        "tumor.geojson": truth.tumor_geojson(slide, maps),
    }
    for file, data in files.items():
        atomic_write(folder / file, data)
    atomic_write(root / "regions" / f"{name}.geojson", truth.regions_geojson(slide))
    record = {
        "name": name,
        "file": _file_record(path),
        "cohort_seed": request.seed,
        "index": index,
        "versions": versions(),
        **truth.truth_of(slide, maps, table),
    }
    text = json.dumps(record, indent=1) + "\n"
    atomic_write(folder / "truth.json", text.encode("utf-8"))
    return Made(name, record["label"], "drawn", time.monotonic() - begun)


def write_svs(slide: Slide, path: Path) -> None:
    """The slide as an Aperio pyramid; it appears under its name when it is whole."""
    width, height = slide.spec.size_px
    quality = slide.spec.slide.jpeg_quality
    if quality is None:
        # Some looks are of scans compressed at a finer spacing; a slide always is.
        quality = slide.look.jpeg_quality or DEFAULT_JPEG_QUALITY
    _core.write_pyramid_rows(
        str(path),
        width,
        height,
        Camera(slide).rows,
        spacing_um=slide.spec.slide.spacing_um,
        tile_px=TILE_PX,
        jpeg_quality=quality,
        downsamples=[1, 4, 16],
        aperio=True,
        workers=1,
        title=TITLE,
    )


def _file_record(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": digest.hexdigest(),
    }


def _manifest(root: Path) -> bytes:
    """Every finished slide of the folder, as `her2fast score` and training take it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["slide", "label", "patient", "case", "site", "scanner"])
    for file in sorted((root / "truth").glob("phantom-*/truth.json")):
        stored = _read_json(file) or {}
        name = stored["name"]
        look = stored["scanner"]["name"]
        place = f"slides/{stored['file']['name']}"
        writer.writerow([place, stored["label"], name, name, "phantom", look])
    return text.getvalue().encode("utf-8")


# --- many slides ----------------------------------------------------------------------


def _make(
    request: Request, indices: list[int], tell: OnEvent
) -> Iterator[tuple[int, Made]]:
    """Makes slides, in this process or in several; yields them as they end."""
    workers = min(request.workers, len(indices))
    if workers <= 1:
        for index in indices:
            tell("slide_started", {"slide": slide_name(index)})
            yield index, make_slide(request, index, tell)
        return
    context = multiprocessing.get_context("spawn")
    pool: dict[Connection, Any] = {}
    waiting = list(reversed(indices))
    left = len(indices)
    try:
        for _ in range(workers):
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, request), daemon=True)
            process.start()
            theirs.close()
            pool[mine] = process
            _next(mine, waiting, tell)
        while left:
            for connection in wait(list(pool)):
                assert isinstance(connection, Connection)
                kind, value = _heard(connection)
                if kind == "error":
                    raise value
                if kind == "done":
                    left -= 1
                    yield value
                    _next(connection, waiting, tell)
                else:
                    tell(kind, value)
    finally:
        _end(pool, busy=left > 0)


def _next(connection: Connection, waiting: list[int], tell: OnEvent) -> None:
    if waiting:
        index = waiting.pop()
        tell("slide_started", {"slide": slide_name(index)})
        connection.send(index)


def _heard(connection: Connection) -> tuple[str, Any]:
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionError):
        raise SlideError(
            "a worker process ended, perhaps for lack of memory; run again with fewer "
            "--workers, it completes what is missing",
            "CRASH",
        ) from None
    return kind, value


def _end(pool: dict[Connection, Any], *, busy: bool) -> None:
    """Idle workers leave when their pipe closes; busy ones are interrupted.

    An idle one must not be: the signal would meet it on its way out.
    """
    for connection in pool:
        connection.close()
    for process in pool.values():
        if busy and process.is_alive() and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
    for process in pool.values():
        process.join(10.0)
        if process.is_alive():
            process.terminate()
            process.join()


def _work(connection: Connection, request: Request) -> None:
    """A worker process: slides by index until the pipe closes."""

    def tell(event: str, fields: dict[str, Any]) -> None:
        connection.send((event, fields))

    try:
        while True:
            index = connection.recv()
            try:
                connection.send(("done", (index, make_slide(request, index, tell))))
            except Exception as error:
                connection.send(("error", error))
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the run is over; what was under way leaves nothing half written
