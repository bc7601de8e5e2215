# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels on a GPU: same bits as the CPU, and how near its memory's speed?

See README.md for the rules. Without a GPU the result says `ran: false`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))

from cuda_memory import Memory, build_fake_nvjpeg, build_on_host  # noqa: E402
from decode import decode  # noqa: E402
from end_to_end import end_to_end  # noqa: E402

from her2fast import __version__, _core, decoding  # noqa: E402
from her2fast.errors import DeviceError  # noqa: E402
from her2fast.kernels import (  # noqa: E402
    H_DAB,
    stain_unmix,
    tissue_mask,
    tumor_count,
)
from her2fast.kernels.membrane import membrane_label  # noqa: E402

twin = _core.cuda
GOAL = 0.7
WHITE = (255, 255, 255)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Clock:
    """Seconds a call, median of rounds; a round queues calls until it lasts 50 ms."""

    def __init__(self, real: bool) -> None:
        self.real = real

    def measure(self, call: Callable[[], Any]) -> float:
        call()
        twin.synchronize()
        if not self.real:
            return float("nan")
        count, elapsed = 1, self._time(call, 1)
        while elapsed < 0.05 and count < 10_000:
            count = max(2 * count, int(count * 0.06 / max(elapsed, 1e-6)))
            elapsed = self._time(call, count)
        return statistics.median(self._time(call, count) / count for _ in range(5))

    @staticmethod
    def _time(call: Callable[[], Any], count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        twin.synchronize()
        return time.perf_counter() - start


def cpu_seconds(call: Callable[[], Any], real: bool) -> float:
    call()
    if not real:
        return float("nan")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def tissue_like(rng: np.random.Generator, n: int, height: int, width: int) -> Any:
    """Random tissue and glass in squares; random data, for zeros can run faster."""
    colors = np.array([(255, 255, 255), (225, 215, 230), (150, 110, 70), (90, 80, 160)])
    kinds = rng.integers(0, 4, (n, height // 32 + 1, width // 32 + 1))
    flat = colors[np.kron(kinds, np.ones((1, 32, 32), int))[:, :height, :width]]
    return np.clip(flat + rng.integers(-12, 13, flat.shape), 0, 255).astype(np.uint8)


def ring_masks(rng: np.random.Generator, n: int, side: int) -> Any:
    """Membranes of cells: rings of 3 px in a grid, some open."""
    y, x = np.mgrid[:side, :side]
    masks = np.zeros((n, side, side), np.uint8)
    for mask in masks:
        radius = np.hypot((y % 48) - 24, (x % 48) - 24)
        angle = np.arctan2((y % 48) - 24, (x % 48) - 24)
        mask |= (abs(radius - rng.uniform(14, 22)) < 1.5) & (angle < rng.uniform(1, 4))
        mask |= rng.random(mask.shape) < 0.002
    return masks


class Copies:
    """A sample repeated on the device, so that a large input need not cross the bus."""

    def __init__(self, memory: Memory, sample: np.ndarray, times: int) -> None:
        self.address = memory.empty(sample.nbytes * times)
        first = memory.put(sample)
        for i in range(times):
            twin.copy(
                self.address + i * sample.nbytes, first, sample.nbytes, twin.WITHIN
            )
        twin.synchronize()


def same(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    if got.tobytes() != np.ascontiguousarray(expected).tobytes():
        sys.exit(f"{name}: the GPU's result is not the CPU's")


def copy_speed(clock: Clock, small: bool) -> float:
    """Bytes read and written a second by a copy within the device."""
    size = 1 << 16 if small else 1 << 31
    with Memory() as memory:
        a, b = memory.empty(size), memory.empty(size)
        seconds = clock.measure(lambda: twin.copy(b, a, size, twin.WITHIN))
    return 2 * size / seconds


def case(
    moved: int, items: int, seconds: float, speed: float, cpu: float, cpu_items: int
) -> dict[str, Any]:
    """`cpu` seconds for `cpu_items` on one thread."""
    share = moved / seconds / speed
    return {
        "seconds": seconds,
        "bytes_moved": moved,
        "mega_items_per_second": round(items / seconds / 1e6, 1),
        "share_of_copy": round(share, 3),
        "cpu_mega_items_per_second": round(cpu_items / cpu / 1e6, 1),
        "times_cpu_thread": round(items / seconds * cpu / cpu_items, 1),
    }


def images(
    clock: Clock, speed: float, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """The kernels on pixels, each as a function that checks and measures."""
    rng = np.random.default_rng(1)
    n, side, times = (2, 40, 2) if small else (16, 512, 48)
    rgb = tissue_like(rng, n, side, side)
    pixels, all_pixels = n * side * side, n * times * side * side

    def normalize(half: bool) -> dict[str, Any]:
        dtype = np.float16 if half else np.float32
        width = np.dtype(dtype).itemsize
        mean, std = np.float32(MEAN), np.float32(STD)

        def numpy_version() -> Any:
            unit = rgb.astype(np.float32) / np.float32(255)
            return ((unit - mean) / std).transpose(0, 3, 1, 2).astype(dtype)

        with Memory() as memory:
            source = Copies(memory, rgb, times).address
            out = memory.empty(3 * width * all_pixels)

            def call() -> None:
                twin.normalize_batch(
                    source, n * times, side, side, mean, std, half, out, 0
                )

            call()
            expected = np.ascontiguousarray(numpy_version())
            same("normalize_batch", memory.get(out, expected.shape, dtype), expected)
            seconds = clock.measure(call)
        cpu = cpu_seconds(numpy_version, clock.real)
        moved = all_pixels * 3 * (1 + width)
        return case(moved, all_pixels, seconds, speed, cpu, pixels)

    def unmix() -> dict[str, Any]:
        flat = rgb.reshape(1, pixels, 3)
        with Memory() as memory:
            source = Copies(memory, rgb, times).address
            out = memory.empty(12 * all_pixels)

            def call() -> None:
                twin.stain_unmix(source, all_pixels, WHITE, H_DAB.tolist(), out, 0)

            call()
            same(
                "stain_unmix",
                memory.get(out, (1, pixels, 3), np.float32),
                stain_unmix(flat),
            )
            seconds = clock.measure(call)
        cpu = cpu_seconds(lambda: stain_unmix(flat), clock.real)
        return case(15 * all_pixels, all_pixels, seconds, speed, cpu, pixels)

    def tissue() -> dict[str, Any]:
        with Memory() as memory:
            source = Copies(memory, rgb, times).address
            out = memory.empty(all_pixels)

            def call() -> None:
                twin.tissue_mask(source, n * times, side, side, WHITE, out, 0)

            call()
            expected = np.stack([tissue_mask(image) for image in rgb])
            same("tissue_mask", memory.get(out, rgb.shape[:3], np.uint8), expected)
            seconds = clock.measure(call)
        cpu = cpu_seconds(lambda: [tissue_mask(image) for image in rgb], clock.real)
        return case(4 * all_pixels, all_pixels, seconds, speed, cpu, pixels)

    def count(patch_px: int) -> dict[str, Any]:
        mask = (rng.random((n, side, side)) < 0.4).astype(np.uint8)
        more = 4 * times
        along = (side - patch_px) // patch_px + 1
        with Memory() as memory:
            source = Copies(memory, mask, more).address
            out = memory.empty(4 * n * more * along * along)

            def call() -> None:
                twin.tumor_count(
                    source, n * more, side, side, patch_px, patch_px, out, 0
                )

            call()
            expected = np.stack(
                [tumor_count(m, patch_px=patch_px, stride_px=patch_px) for m in mask]
            )
            same("tumor_count", memory.get(out, expected.shape, np.uint32), expected)
            seconds = clock.measure(call)
        cpu = cpu_seconds(
            lambda: [
                tumor_count(m, patch_px=patch_px, stride_px=patch_px) for m in mask
            ],
            clock.real,
        )
        read = n * (along * patch_px) ** 2
        moved = more * (read + 4 * n * along * along)
        return case(moved, more * read, seconds, speed, cpu, read)

    def tumor() -> dict[str, Any]:
        tile, halo, patch = (64, 5, 16) if small else (256, 32, 64)
        side, more = tile + 2 * halo, times // 2
        logits = rng.standard_normal((n, side, side), dtype=np.float32)
        tissue = rng.random((n, tile, tile)) < 0.8
        within = np.packbits(tissue, axis=-1, bitorder="little")

        def numpy_version() -> tuple[Any, Any]:
            inner = logits[:, halo : halo + tile, halo : halo + tile] >= 0
            inner &= tissue
            across = tile // patch
            cut = inner.reshape(n, across, patch, across, patch)
            packed = np.packbits(inner, axis=-1, bitorder="little")
            return packed, cut.sum((2, 4), np.uint32)

        bits, counts = numpy_version()
        with Memory() as memory:
            source = Copies(memory, logits, more).address
            mask = Copies(memory, within, more).address
            out = memory.empty(bits.nbytes * more)
            px, fault = memory.empty(counts.nbytes * more), memory.empty(4)

            def call() -> None:
                twin.tumor_bits(
                    source, mask, n * more, 1, halo, tile, patch, 0.0, out, px, fault, 0
                )

            call()
            same("tumor_bits", memory.get(out, bits.shape, np.uint8), bits)
            same("tumor_bits", memory.get(px, counts.shape, np.uint32), counts)
            seconds = clock.measure(call)
        cpu = cpu_seconds(numpy_version, clock.real)
        moved = more * (logits.nbytes + 2 * bits.nbytes + counts.nbytes)
        return case(moved, more * logits.size, seconds, speed, cpu, logits.size)

    def means(step: Fraction) -> dict[str, Any]:
        size = int(side / step)
        axis = _core.AxisWeights(step.numerator, step.denominator, 0, size)
        with Memory() as memory:
            source = Copies(memory, rgb, times).address
            out = memory.empty(3 * n * times * size * size)
            bytes_ = twin.resample_scratch_bytes(axis, axis)
            work = memory.empty(bytes_)

            def call() -> None:
                twin.resample(
                    source, n * times, side, side, axis, axis, out, work, bytes_, 0
                )

            call()
            expected = _core.resample(rgb, axis, axis)
            same("resample", memory.get(out, expected.shape, np.uint8), expected)
            seconds = clock.measure(call)
        cpu = cpu_seconds(lambda: _core.resample(rgb, axis, axis), clock.real)
        read = n * axis.source_px**2
        moved = 3 * times * (read + n * size * size)
        return case(moved, times * read, seconds, speed, cpu, read)

    sizes = (8, 20) if small else (64, 256)
    return {
        "normalize_batch_float32": lambda: normalize(False),
        "normalize_batch_float16": lambda: normalize(True),
        "resample_2": lambda: means(Fraction(2)),
        "resample_4": lambda: means(Fraction(4)),
        "resample_16": lambda: means(Fraction(16)),
        "resample_25_24": lambda: means(Fraction(25, 24)),
        "stain_unmix": unmix,
        "tissue_mask": tissue,
        "tumor_bits": tumor,
        "tumor_count_small_patches": lambda: count(sizes[0]),
        "tumor_count_large_patches": lambda: count(sizes[1]),
    }


def selection(clock: Clock, small: bool) -> dict[str, Any]:
    """An epoch's patches; sorting decides, so no share of the copy is claimed."""
    rng = np.random.default_rng(2)
    patches, slides = (500, 3) if small else (10_000_000, 2000)
    logits = rng.standard_normal((patches, 4), dtype=np.float32)
    logits += rng.normal(size=4).astype(np.float32)
    px = rng.integers(410, 4097, patches, dtype=np.uint32)
    offsets = np.linspace(0, patches, slides + 1).astype(np.int64)
    labels = rng.integers(0, 4, slides)
    limits = _core.FractionLimits.pham()

    def on_cpu() -> Any:
        return _core.constraint_select(
            logits, px, offsets, labels, limits, "neighbors", 1, "cpu"
        )

    scratch = twin.constraint_select_scratch_bytes(patches, slides)
    with Memory() as memory:
        sizes = [patches, patches, patches, 8 * twin.SLIDE_WORDS * slides, 8]
        places = [memory.empty(size) for size in sizes]
        inputs, work = [memory.put(logits), memory.put(px)], memory.empty(scratch)

        def call() -> None:
            twin.constraint_select(
                *inputs,
                offsets,
                labels,
                limits,
                "neighbors",
                *places,
                work,
                scratch,
                0,
            )

        call()
        expected = on_cpu()
        for place, name in zip(
            places, ("action", "class_id", "admissible"), strict=False
        ):
            wanted = expected[name]
            same(name, memory.get(place, wanted.shape, wanted.dtype), wanted)
        seconds = clock.measure(call)
    cpu = cpu_seconds(on_cpu, clock.real)
    return {
        "patches": patches,
        "slides": slides,
        "scratch_bytes_per_patch": round(scratch / patches, 1),
        "seconds": seconds,
        "times_cpu_thread": round(cpu / seconds, 1),
    }


def membranes(clock: Clock, small: bool) -> dict[str, Any]:
    """Labeling alone, and with copies and the tiles that merging takes."""
    rng = np.random.default_rng(3)
    n, side = (2, 64) if small else (64, 512)
    mask = ring_masks(rng, n, side)
    density = rng.integers(0, 256, mask.shape, dtype=np.uint8)
    scratch = twin.membrane_label_scratch_bytes(n, side, side)

    def table(tiles: list[Any]) -> dict[str, Any]:
        merge = _core.MembraneMerge(n * side, side, side, side)
        for i, tile in enumerate(tiles):
            merge.add(i, 0, tile)
        merge.finish()
        return dict(merge.take()[0])

    with Memory() as memory:
        inputs = [memory.put(mask), memory.put(density)]
        work = memory.empty(scratch)

        def call() -> Any:
            return twin.membrane_label(*inputs, n, side, side, 0, 0, work, scratch, 0)

        def on_cpu() -> list[Any]:
            return [
                membrane_label(m, density=d) for m, d in zip(mask, density, strict=True)
            ]

        got, wanted = table(call().tiles()), table(on_cpu())
        for name, values in wanted.items():
            same(name, got[name], values)
        alone = clock.measure(call)
        whole = clock.measure(lambda: call().tiles())
    cpu = cpu_seconds(on_cpu, clock.real)
    return {
        "tiles": n,
        "side_px": side,
        "membranes": len(wanted["x"]),
        "scratch_bytes_per_px": round(scratch / mask.size, 1),
        "seconds_label": alone,
        "seconds_with_tiles": whole,
        "times_cpu_thread_label": round(cpu / alone, 1),
        "times_cpu_thread_with_tiles": round(cpu / whole, 1),
    }


def run_kernels(real: bool, nvjpeg: str = "") -> dict[str, Any]:
    clock = Clock(real)
    speed = copy_speed(clock, not real)
    out: dict[str, Any] = {"copy_bytes_per_second": speed, "kernels": {}}
    for name, measure in images(clock, speed, not real).items():
        out["kernels"][name] = measure()
        print(name, out["kernels"][name].get("share_of_copy"), flush=True)
    out["constraint_select"] = selection(clock, not real)
    out["membrane_label"] = membranes(clock, not real)
    out["jpeg_decode"] = decode(clock.measure, not real, nvjpeg)
    bound = [name for name in out["kernels"] if name != "tissue_mask"]
    out["goal"] = {
        "share_of_copy": GOAL,
        "met": {n: bool(out["kernels"][n]["share_of_copy"] >= GOAL) for n in bound},
        "not_asked": "tissue_mask: bound by arithmetic (docs/design/cuda.md)",
    }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=Path, help="what run.sh did before, as JSON")
    parser.add_argument(
        "--no-gpu", action="store_true", help="try the script, measure nothing"
    )
    options = parser.parse_args()
    result: dict[str, Any] = {
        "question": "CUDA kernels: the CPU's bits, and how near the memory's speed",
        "ran": False,
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"her2fast": __version__, "numpy": np.__version__},
    }
    if options.steps and options.steps.exists():
        result["steps"] = json.loads(options.steps.read_text())
    if options.no_gpu:
        with tempfile.TemporaryDirectory() as folder:
            twin.set_library(str(build_on_host(Path(folder))))
            decoding.NVJPEG_LIBRARY = str(build_fake_nvjpeg(Path(folder)))
            run_kernels(real=False, nvjpeg=decoding.NVJPEG_LIBRARY)
            result["end_to_end"] = end_to_end(Path(folder), real=False)
        result["reason"] = "--no-gpu: the script was tried on the CPU, nothing measured"
        result["checked_on_host"] = True
    else:
        try:
            devices = twin.devices()
        except DeviceError as error:
            result["reason"] = str(error)
        else:
            result["device"] = devices[0]
            result.update(run_kernels(real=True))
            with tempfile.TemporaryDirectory() as folder:
                result["end_to_end"] = end_to_end(Path(folder), real=True)
            result["ran"] = True
    text = json.dumps(result, indent=2)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
