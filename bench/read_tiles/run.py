# SPDX-License-Identifier: Apache-2.0
"""How many 256 px tiles a second? See README.md beside this file for the rules."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import her2fast
from her2fast import _core

ROOT = Path(__file__).resolve().parents[2]
SPACING_UM = 0.24  # of the shared cores
TILE_PX = 256
BATCH = 32
CROP_PX = 5376  # 21 tiles: what every core has
GRID = 4  # cores a side of the slide
ROUNDS = 5
# Contenders bring their own libjpeg; `scaled` replaces a mean by a smaller DCT.
MAX_MEAN_DIFFERENCE = {"level": 0.5, "half": 2.5}

Rgb = npt.NDArray[np.uint8]
Coords = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One question: which source pixels become a tile."""

    name: str
    level: int  # read by the contenders without a resampler
    source_px: int  # at that level; halved to TILE_PX where it is 512
    spacing_um: float
    corners_px: Coords  # (n, 2), level-0 px


Read = Callable[[Path, Case, int], Iterator[Rgb]]


def her2fast_tiles(
    path: Path, case: Case, workers: int, reading: str = "scaled"
) -> Iterator[Rgb]:
    slide = her2fast.open_slide(path, reading=reading)
    for batch in slide.tiles(
        TILE_PX, case.spacing_um, BATCH, workers, coords_px=case.corners_px
    ):
        assert set(batch.status) == {"ok"}
        yield from batch.rgb


def her2fast_exact(path: Path, case: Case, workers: int) -> Iterator[Rgb]:
    return her2fast_tiles(path, case, workers, "exact")


def pooled(
    read: Callable[[npt.NDArray[np.int64]], Rgb], case: Case, workers: int
) -> Iterator[Rgb]:
    if workers == 1:
        yield from map(read, case.corners_px)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(read, case.corners_px)


def halved(image: Image.Image, case: Case) -> Rgb:
    return np.asarray(image if case.source_px == TILE_PX else image.reduce(2))


def openslide_tiles(path: Path, case: Case, workers: int) -> Iterator[Rgb]:
    import openslide

    with openslide.OpenSlide(path) as slide:

        def read(corner: npt.NDArray[np.int64]) -> Rgb:
            place = (int(corner[0]), int(corner[1]))
            size = (case.source_px, case.source_px)
            return halved(
                slide.read_region(place, case.level, size).convert("RGB"), case
            )

        yield from pooled(read, case, workers)


def tifffile_tiles(path: Path, case: Case, workers: int) -> Iterator[Rgb]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[case.level]
        tables = page.jpegtables
        across = -(-page.imagewidth // TILE_PX)
        down = round(tiff.pages[0].imagewidth / page.imagewidth)
        file = os.open(path, os.O_RDONLY)

        def tile(column: int, row: int) -> Rgb:
            index = row * across + column
            data = os.pread(file, page.databytecounts[index], page.dataoffsets[index])
            return page.decode(data, index, jpegtables=tables)[0][0]

        def read(corner: npt.NDArray[np.int64]) -> Rgb:
            column, row = (int(v) // (down * TILE_PX) for v in corner)
            if case.source_px == TILE_PX:
                return tile(column, row)
            image = np.empty((case.source_px, case.source_px, 3), np.uint8)
            for y in (0, 1):
                for x in (0, 1):
                    image[
                        y * TILE_PX : (y + 1) * TILE_PX, x * TILE_PX : (x + 1) * TILE_PX
                    ] = tile(column + x, row + y)
            return halved(Image.fromarray(image), case)

        try:
            yield from pooled(read, case, workers)
        finally:
            os.close(file)


def cucim_tiles(path: Path, case: Case, workers: int) -> Iterator[Rgb]:
    from cucim import CuImage

    image = CuImage(str(path))
    places = [(int(x), int(y)) for x, y in case.corners_px]
    size = (case.source_px, case.source_px)
    batches = image.read_region(
        places, size, level=case.level, batch_size=BATCH, num_workers=workers
    )
    left = len(places)
    for batch in batches:
        tiles = np.asarray(batch).reshape(-1, *size, 3)[:left]
        left -= len(tiles)
        if case.source_px == TILE_PX:
            yield from tiles
        else:
            yield from (halved(Image.fromarray(tile), case) for tile in tiles)


CONTENDERS: dict[str, tuple[Read, str | None]] = {
    "her2fast": (her2fast_tiles, None),
    "her2fast exact": (her2fast_exact, None),
    "openslide-python": (openslide_tiles, "openslide"),
    "tifffile+imagecodecs": (tifffile_tiles, "tifffile"),
    "cucim": (cucim_tiles, "cucim"),
}


def shared_data() -> Path:
    for candidate in (
        os.environ.get("HER2FAST_TEST_DATA"),
        ROOT.parent / "shared/data",
    ):
        if candidate and (Path(candidate) / "her2_cores").is_dir():
            return Path(candidate)
    sys.exit("need the folder of real cores: set HER2FAST_TEST_DATA")


def write_slide(path: Path) -> None:
    """GRID x GRID real cores in one SVS: JPEG 256 px tiles, levels 1, 1/4, 1/16."""
    files = sorted((shared_data() / "her2_cores").glob("*_a.jpg"))
    cores = [
        np.asarray(Image.open(file).convert("RGB"))[:CROP_PX, :CROP_PX]
        for file in files
    ]

    def rows(y_px: int, count: int) -> Rgb:
        parts = []
        for y in range(y_px, y_px + count):
            row, inner = divmod(y, CROP_PX)
            line = [cores[(row * GRID + k) % len(cores)][inner] for k in range(GRID)]
            parts.append(np.concatenate(line))
        return np.stack(parts)

    side = GRID * CROP_PX
    _core.write_pyramid_rows(
        str(path), side, side, rows, spacing_um=SPACING_UM, jpeg_quality=85, aperio=True
    )


def bits_per_px(path: Path, level: int) -> float:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        return 8 * sum(page.databytecounts) / (page.imagewidth * page.imagelength)


def grid(step_px: int, side_px: int, stride: int = 1) -> Coords:
    steps = np.arange(0, side_px - step_px + 1, step_px * stride, dtype=np.int64)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def check(path: Path, case: Case, names: list[str]) -> dict[str, float]:
    """Mean absolute difference of every contender's pixels from the first one's."""
    few = Case(
        case.name, case.level, case.source_px, case.spacing_um, case.corners_px[::7]
    )
    want = np.stack(list(CONTENDERS[names[0]][0](path, few, 1))).astype(np.int16)
    differences = {}
    for name in names[1:]:
        got = np.stack([tile.copy() for tile in CONTENDERS[name][0](path, few, 2)])
        difference = float(np.abs(got.astype(np.int16) - want).mean())
        if got.shape != want.shape or difference > MAX_MEAN_DIFFERENCE[case.name]:
            sys.exit(
                f"{name} gives other pixels in case {case.name}: {difference:.2f} off"
            )
        differences[name] = round(difference, 4)
    return differences


def measure(
    path: Path, case: Case, names: list[str], workers: int
) -> dict[str, dict[str, float]]:
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu_ms: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(ROUNDS + 1):
        for name in names:
            start, cpu_start = time.perf_counter(), time.process_time()
            count = sum(1 for _ in CONTENDERS[name][0](path, case, workers))
            elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            assert count == len(case.corners_px), name
            if round_ > 0:  # the first warms file cache and libraries
                rates[name].append(count / elapsed)
                cpu_ms[name].append(1000 * cpu / count)
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        name: {
            "tiles_per_s": round(median[name], 1),
            "lowest": round(min(rates[name]), 1),
            "highest": round(max(rates[name]), 1),
            "relative_to_her2fast": round(median[name] / median["her2fast"], 3),
            "cpu_ms_per_tile": round(statistics.median(cpu_ms[name]), 3),
        }
        for name in names
    }


def version(name: str) -> str:
    for package in (name, f"{name}-cu12", f"{name}-python"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--slide", type=Path, help="keep the slide here, or reuse it")
    arguments = parser.parse_args()
    names, skipped = [], {}
    for name, (_, module) in CONTENDERS.items():
        try:
            if module:
                __import__(module)
            names.append(name)
        except Exception as error:
            skipped[name] = f"cannot be imported: {error}"
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or Path(folder) / "cores.svs"
        if not path.exists():
            write_slide(path)
        side = GRID * CROP_PX
        cases = [
            Case("level", 1, 256, 4 * SPACING_UM, grid(4 * TILE_PX, side)),
            Case("half", 0, 512, 2 * SPACING_UM, grid(2 * TILE_PX, side, stride=2)),
        ]
        result: dict[str, object] = {
            "question": "how many 256 px tiles a second",
            "machine": {
                "cpu": cpu_name(),
                "cores": os.cpu_count(),
                "load_before": [round(v, 2) for v in os.getloadavg()],
                "system": platform.platform(),
            },
            "versions": {
                "python": platform.python_version(),
                "her2fast": her2fast.__version__,
                **{n: version(n) for n in ("openslide", "openslide-bin", "tifffile")},
                **{n: version(n) for n in ("imagecodecs", "cucim", "pillow")},
            },
            "rounds": ROUNDS,
            "skipped": skipped,
        }
        for case in cases:
            result[case.name] = {
                "tiles": len(case.corners_px),
                "bits_per_px": round(bits_per_px(path, case.level), 3),
                "mean_difference": check(path, case, names),
                "workers": {str(n): measure(path, case, names, n) for n in (1, 2)},
            }
        result["machine"]["load_after"] = [  # type: ignore[index]
            round(v, 2) for v in os.getloadavg()
        ]
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
