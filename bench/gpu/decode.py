# SPDX-License-Identifier: Apache-2.0
"""JPEG tiles decoded by nvJPEG: how far from the CPU reader's pixels, how fast?

See README.md. Pixels that lie too far away end no run: they are the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cuda_memory import Memory
from jpeg_tiles import MEAN_APART, MOST_APART, apart
from tiff_files import encode_jpeg

from her2fast import _core, phantom
from her2fast.errors import DeviceError
from her2fast.kernels.jpeg import jpeg_decode

twin = _core.cuda
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
QUALITIES = (50, 80, 95)
#: Above 50 items nvJPEG's kernels decode Huffman codes, too.
ITEMS = 128

Measure = Callable[[Callable[[], Any]], float]


def tiles(field: np.ndarray, side: int, quality: int, sampling: str) -> list[bytes]:
    """The drawn field cut into tiles, as JPEG."""
    height, width, _ = field.shape
    return [
        encode_jpeg(
            field[y : y + side, x : x + side], quality=quality, subsampling=sampling
        )
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
    ]


def on_gpu(decoder: Any, streams: list[bytes], side: int) -> np.ndarray:
    shape = (len(streams), side, side, 3)
    with Memory() as memory:
        out = memory.empty(len(streams) * side * side * 3)
        twin.jpeg_decode(decoder, streams, b"", side, side, False, out, 0)
        return memory.get(out, shape, np.uint8)


def pixels(decoder: Any, field: np.ndarray, side: int) -> dict[str, Any]:
    """Largest and mean difference of every kind of tile."""
    found = {}
    for sampling in SAMPLINGS:
        for quality in QUALITIES:
            streams = tiles(field, side, quality, sampling)
            wanted = jpeg_decode(streams, height_px=side, width_px=side)
            steps = apart(on_gpu(decoder, streams, side), wanted)
            found[f"{sampling} q{quality}"] = {
                "largest": steps.largest,
                "mean": round(steps.mean, 4),
                "near": steps.near,
            }
    return found


def cpu_speed(streams: list[bytes], side: int, threads: int) -> float:
    """Pixels a second of the CPU's reader; best of three."""
    parts = [streams[i::threads] for i in range(threads)]

    def one(part: list[bytes]) -> None:
        jpeg_decode(part, height_px=side, width_px=side)

    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            start = time.perf_counter()
            list(pool.map(one, parts))
            times.append(time.perf_counter() - start)
    return len(streams) * side * side / min(times)


def speed(
    decoder: Any, streams: list[bytes], side: int, measure: Measure
) -> dict[str, Any]:
    """A batch after another by one decoder: headers, copy up and decoding."""
    with Memory() as memory:
        out = memory.empty(len(streams) * side * side * 3)
        seconds = measure(
            lambda: twin.jpeg_decode(decoder, streams, b"", side, side, False, out, 0)
        )
    return {
        "seconds": seconds,
        "mega_px_per_second": round(len(streams) * side * side / seconds / 1e6, 1),
    }


def decode(measure: Measure, small: bool, library: str = "") -> dict[str, Any]:
    """Pixels first, then speed, by the engine and by kernels."""
    field = phantom.render(
        7, (128, 128) if small else (1024, 1024), mixture=(0.25, 0.25, 0.25, 0.25)
    ).rgb
    sides, items = ((32, 64), 4) if small else ((256, 512), ITEMS)
    out: dict[str, Any] = {
        "goal": {"largest": MOST_APART, "mean_below": MEAN_APART},
        "backends": {},
        "cpu_mega_px_per_second": {},
    }
    batches = {}
    cores = os.cpu_count() or 1
    for side in sides:
        for sampling in ("4:4:4", "4:2:0"):
            some = tiles(field, side, 80, sampling)
            streams = (some * items)[:items]
            name = f"{side} px {sampling} q80"
            batches[name] = (streams, side)
            out["cpu_mega_px_per_second"][name] = {
                "one_thread": round(cpu_speed(streams, side, 1) / 1e6, 1),
                f"{cores}_threads": round(cpu_speed(streams, side, cores) / 1e6, 1),
            }
    for backend in ("engine", "kernels"):
        try:
            decoder = twin.JpegDecoder(library=library, backend=backend)
        except DeviceError as error:
            out["backends"][backend] = {"reason": str(error)}
            continue
        differences = pixels(decoder, field, sides[0])
        row: dict[str, Any] = {
            "nvjpeg": ".".join(map(str, decoder.version)),
            "library": decoder.library,
            "pixels": differences,
            "met": all(found["near"] for found in differences.values()),
            "decode": {},
        }
        for name, (streams, side) in batches.items():
            case = speed(decoder, streams, side, measure)
            cpu = out["cpu_mega_px_per_second"][name]
            for who, rate in cpu.items():
                case[f"times_cpu_{who}"] = round(case["mega_px_per_second"] / rate, 1)
            row["decode"][name] = {"items": len(streams), **case}
        out["backends"][backend] = row
        print("jpeg_decode", backend, "pixels near:", row["met"], flush=True)
    return out
