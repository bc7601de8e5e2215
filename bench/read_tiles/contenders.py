# SPDX-License-Identifier: Apache-2.0
"""Who reads the tiles. Each gives an RGB array per tile, in the order asked."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cases import SOURCE_TILE_PX, Case, Coords, Rgb
from PIL import Image

import her2fast

BATCH = 32

Read = Callable[[Case, int], Iterator[Rgb]]


@dataclass(frozen=True)
class Contender:
    name: str
    read: Read
    module: str | None
    takes: Callable[[Case], bool]
    needs_opencv: bool = False  # for smaller tiles


def is_ndpi(case: Case) -> bool:
    return case.path.suffix == ".ndpi"


def her2fast_tiles(
    case: Case, workers: int, reading: her2fast.slide.Reading = "scaled"
) -> Iterator[Rgb]:
    slide = her2fast.open_slide(case.path, mpp=case.mpp, reading=reading)
    for batch in slide.tiles(
        case.tile_px, case.spacing_um, BATCH, workers, coords_px=case.corners_px
    ):
        assert set(batch.status) == {"ok"}
        yield from batch.rgb


def her2fast_exact(case: Case, workers: int) -> Iterator[Rgb]:
    return her2fast_tiles(case, workers, "exact")


def pooled(
    read: Callable[[npt.NDArray[np.int64]], Rgb], case: Case, workers: int
) -> Iterator[Rgb]:
    if workers == 1:
        yield from map(read, case.corners_px)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(read, case.corners_px)


def shrink(image: Rgb, case: Case) -> Rgb:
    if not case.resized:
        return image
    import cv2

    size = (case.tile_px, case.tile_px)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def openslide_tiles(case: Case, workers: int) -> Iterator[Rgb]:
    """Smaller tiles by PIL: its box filter where it is the mean of whole pixels.

    At 320 to 256 px that filter takes or leaves whole pixels, 2.1 grey levels off; of
    the filters that pass the pixel check, HAMMING (0.8 off) is PIL's fastest.
    """

    def smaller(image: Image.Image) -> Rgb:
        if case.resized:
            whole = case.source_px % case.tile_px == 0
            kernel = Image.Resampling.BOX if whole else Image.Resampling.HAMMING
            image = image.resize((case.tile_px, case.tile_px), kernel)
        return np.asarray(image)

    yield from openslide_read(case, workers, smaller)


def openslide_opencv(case: Case, workers: int) -> Iterator[Rgb]:
    """Smaller tiles by OpenCV's area resize, the same means as her2fast's."""
    yield from openslide_read(
        case, workers, lambda image: shrink(np.asarray(image), case)
    )


def openslide_read(
    case: Case, workers: int, smaller: Callable[[Image.Image], Rgb]
) -> Iterator[Rgb]:
    import openslide

    with openslide.OpenSlide(case.path) as slide:

        def read(corner: npt.NDArray[np.int64]) -> Rgb:
            place = (int(corner[0]), int(corner[1]))
            size = (case.source_px, case.source_px)
            return smaller(slide.read_region(place, case.level, size).convert("RGB"))

        yield from pooled(read, case, workers)


def tifffile_tiles(case: Case, workers: int) -> Iterator[Rgb]:
    """Whole source tiles by imagecodecs, put together; OpenCV makes them smaller."""
    import tifffile

    with tifffile.TiffFile(case.path) as tiff:
        page = tiff.pages[case.level]
        assert isinstance(page, tifffile.TiffPage)
        tables = page.jpegtables
        across = -(-page.imagewidth // SOURCE_TILE_PX)
        file = os.open(case.path, os.O_RDONLY)
        count = case.source_px // SOURCE_TILE_PX

        def tile(column: int, row: int) -> Rgb:
            index = row * across + column
            data = os.pread(file, page.databytecounts[index], page.dataoffsets[index])
            return np.asarray(page.decode(data, index, jpegtables=tables)[0])[0]

        def read(corner: npt.NDArray[np.int64]) -> Rgb:
            column, row = (int(v) // (case.down * SOURCE_TILE_PX) for v in corner)
            if count == 1:
                return tile(column, row)
            image = np.empty((case.source_px, case.source_px, 3), np.uint8)
            t = SOURCE_TILE_PX
            for y in range(count):
                for x in range(count):
                    part = image[y * t : (y + 1) * t, x * t : (x + 1) * t]
                    part[:] = tile(column + x, row + y)
            return shrink(image, case)

        try:
            yield from pooled(read, case, workers)
        finally:
            os.close(file)


def cucim_tiles(case: Case, workers: int) -> Iterator[Rgb]:
    """Its batch reader on the CPU; smaller tiles by OpenCV's area resize."""
    from cucim import CuImage

    image = CuImage(str(case.path))
    places = [(int(x), int(y)) for x, y in case.corners_px]
    size = (case.source_px, case.source_px)
    batches = image.read_region(
        places, size, level=case.level, batch_size=BATCH, num_workers=workers
    )
    left = len(places)
    for batch in batches:
        tiles = np.asarray(batch).reshape(-1, *size, 3)[:left]
        left -= len(tiles)
        yield from (shrink(tile, case) for tile in tiles)


class BareJpeg:
    """libjpeg-turbo from C on tiles in memory; no array per tile, no file, no cache."""

    def __init__(self) -> None:
        source = Path(__file__).with_name("bare_jpeg.c")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "bare_jpeg.so"
            words = [os.environ.get("CC", "cc"), "-O3", "-shared", "-fPIC"]
            words += [str(source), "-ljpeg", "-lpthread", "-o", str(library)]
            subprocess.run(words, check=True, capture_output=True)
            self._decode = ctypes.CDLL(str(library)).bare_decode
        self._decode.restype = ctypes.c_ulonglong
        self._case: tuple[str, Coords] | None = None

    def load(self, case: Case) -> None:
        """Tiles of the case into memory, outside of what is timed."""
        import tifffile

        with tifffile.TiffFile(case.path) as tiff:
            page = tiff.pages[case.level]
            assert isinstance(page, tifffile.TiffPage)
            across = -(-page.imagewidth // SOURCE_TILE_PX)
            columns, rows = (case.corners_px // (case.down * SOURCE_TILE_PX)).T
            index = rows * across + columns
            self._places = np.array(
                [(page.dataoffsets[i], page.databytecounts[i]) for i in index],
                np.uint64,
            )
            self._tables = page.jpegtables or b""
        self._bytes = np.fromfile(case.path, np.uint8)

    def run(self, workers: int) -> int:
        self._decode(
            ctypes.c_void_p(self._bytes.ctypes.data),
            ctypes.c_void_p(self._places.ctypes.data),
            ctypes.c_int64(len(self._places)),
            self._tables,
            ctypes.c_uint64(len(self._tables)),
            SOURCE_TILE_PX,
            1,
            workers,
        )
        return len(self._places)


def whole_tiles(case: Case) -> bool:
    return case.aligned and not is_ndpi(case) and case.source_px % SOURCE_TILE_PX == 0


CONTENDERS = (
    Contender("her2fast", her2fast_tiles, None, lambda case: True),
    Contender("her2fast exact", her2fast_exact, None, lambda case: case.resized),
    Contender("openslide-python", openslide_tiles, "openslide", lambda case: True),
    Contender(
        "openslide-python + OpenCV",
        openslide_opencv,
        "openslide",
        lambda case: case.source_px % case.tile_px != 0,
        True,
    ),
    Contender("tifffile+imagecodecs", tifffile_tiles, "tifffile", whole_tiles, True),
    Contender("cucim", cucim_tiles, "cucim", lambda case: not is_ndpi(case), True),
)
