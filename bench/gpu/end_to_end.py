# SPDX-License-Identifier: Apache-2.0
"""A whole slide in a warm session: seconds and where they go. See README.md."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench/score_slide"), str(ROOT / "tests/python")]

from resnet import save_package, write_package  # noqa: E402

from her2fast import _core, decide, phantom  # noqa: E402
from her2fast.errors import DeviceError, SlideError, UsageError  # noqa: E402
from her2fast.measure import Models, default_workers, run_session  # noqa: E402
from her2fast.methods.patches import patch_session  # noqa: E402
from her2fast.models.package import MethodPackage, load_package  # noqa: E402
from her2fast.models.runner import Runner  # noqa: E402
from her2fast.opened_slide import OpenedSlide, open_input  # noqa: E402
from her2fast.scoring import Scorer  # noqa: E402
from her2fast.training.vision import submodule  # noqa: E402

GOAL_S = 2.0


@dataclass(frozen=True)
class Sizes:
    """Sides of the slides in px of 1 um, and how often a run is repeated."""

    side_px: int
    cpu_side_px: int
    sample_px: int
    rounds: int


#: 400 mm2; a sixteenth of it for the CPU, whose time is in proportion.
REAL = Sizes(20_000, 5_000, 2_000, 3)
TRIAL = Sizes(600, 400, 400, 1)


def draw(path: Path, side_px: int, sample: npt.NDArray[np.uint8]) -> None:
    """One drawn field over and over; 1 um/px, a level of a quarter."""
    height, width, _ = sample.shape
    columns = np.arange(side_px) % width

    def rows(first: int, count: int) -> npt.NDArray[np.uint8]:
        lines = (first + np.arange(count)) % height
        return np.ascontiguousarray(sample[lines][:, columns])

    _core.write_pyramid_rows(
        str(path),
        side_px,
        side_px,
        rows,
        spacing_um=1.0,
        jpeg_quality=85,
        downsamples=[1, 4],
        aperio=True,
        workers=default_workers(),
    )


def densenet_package(folder: Path, patches: Any) -> Path | None:
    """A full DenseNet-121 with random weights; None without torchvision."""
    try:
        networks = submodule("models")
    except UsageError:
        return None
    import torch

    torch.manual_seed(0)
    model = networks.densenet121(weights=None, num_classes=4).eval()
    return save_package(
        folder, model, model.classifier, patches, "densenet121", batch=128
    )


def packages(work: Path, sample: npt.NDArray[np.uint8]) -> dict[str, MethodPackage]:
    """The shipped method, and classifiers of full size on all tissue."""
    import torch

    side = sample.shape[0] // 64
    patches = sample[: 64 * side, : 64 * side].reshape(side, 64, side, 64, 3)
    flat = np.ascontiguousarray(patches.swapaxes(1, 2)).reshape(-1, 64, 64, 3)
    # A random network is no function of much: its logits are spread on these.
    some = torch.from_numpy(flat[:: max(1, len(flat) // 48)].copy())
    found = {
        "constrained-tiny": load_package(None),
        "resnet18": load_package(write_package(work / "resnet18", some)),
    }
    dense = densenet_package(work / "densenet121", some)
    if dense is not None:
        found["densenet121"] = load_package(dense)
    return found


class _Nothing:
    """A model's place: answers at once, so that only the host's part is left."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def run(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """As if all of it were tumor: no patch is spared."""
        return np.ones((len(rgb), self._outputs), np.float32)


class _HostOnly(Models):
    def __init__(self, session: _core.PatchSession) -> None:
        self.device = "cpu"
        self.runners: list[Runner] = [_Nothing(slot[4]) for slot in session.models]


def _session(
    slide: OpenedSlide, package: MethodPackage, memory: Any = None
) -> _core.PatchSession:
    return patch_session(
        package,
        size_px=slide.size_px,
        slide_spacing_um=slide.spacing_um,
        memory=memory,
    )


def host_part(slide: OpenedSlide, package: MethodPackage, scorer: Scorer) -> float:
    """Seconds of reading, masking and cutting alone."""
    session = _session(slide, package)
    workers = scorer.workers
    core = scorer.decoder.slide(slide.core)
    reader = slide.reader(workers=workers, reading="scaled", core=core)
    start = time.perf_counter()
    run_session(
        session, _HostOnly(session), lambda s: s.read_from(reader), workers=workers
    )
    return time.perf_counter() - start


def network_part(
    models: Models, counts: list[int], wait: Callable[[], None]
) -> float | None:
    """Seconds of the networks alone: as many batches, from memory on the device.

    None on the CPU, where batches run side by side and this is not one of the parts.
    """
    import torch

    if models.on_device is None:
        return None
    total = 0.0
    for runner, count in zip(models.runners, counts, strict=True):
        package: Any = runner
        side, batch = package._side_px, package.package.batch_size
        place = package.device
        pixels = torch.rand(batch, 3, side, side, device=place).contiguous(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            package.logits(pixels)
            wait()
            start = time.perf_counter()
            for _ in range(count):
                package.logits(pixels)
            wait()
        total += time.perf_counter() - start
    return round(total, 4)


class Counting:
    """How many batches each model was given."""

    def __init__(self, models: Models) -> None:
        self.counts = [0] * len(models.runners)
        self._models = models
        for index, runner in enumerate(models.runners):
            self._count(index, runner)

    def _count(self, index: int, runner: Any) -> None:
        logits = runner.logits

        def counting(inputs: Any) -> Any:
            self.counts[index] += 1
            return logits(inputs)

        runner.logits = counting

    def stop(self) -> list[int]:
        for runner in self._models.runners:
            del runner.logits  # type: ignore[attr-defined]
        return self.counts


def measure(
    slide: OpenedSlide,
    package: MethodPackage,
    device: str,
    rounds: int,
    models: Models | None = None,
    decoder: str = "cpu",
) -> dict[str, Any]:
    """A slide scored again and again by one Scorer; the first run is told apart."""
    scorer = Scorer(package, device=device, decoder=decoder)
    if models is not None:
        scorer._models = models
    start = time.perf_counter()
    opened = scorer.models
    opening = time.perf_counter() - start
    counting = Counting(opened)
    start = time.perf_counter()
    first = scorer.measure(slide)
    first_s = time.perf_counter() - start
    counts = counting.stop()
    times, deciding = [], []
    same = True
    for _ in range(rounds):
        start = time.perf_counter()
        measurement = scorer.measure(slide)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        result = decide(measurement)
        deciding.append(time.perf_counter() - start)
        same = same and measurement.core.to_bytes() == first.core.to_bytes()
    if not same and decoder == "cpu":
        sys.exit(f"{package.name} on {device}: another run gave other bytes")
    wait: Callable[[], None] = lambda: None  # noqa: E731
    if device != "cpu":
        import torch

        wait = torch.cuda.synchronize
    return {
        "device": opened.describe() if device != "cpu" else {"name": "cpu"},
        "mm2": slide.size_px[0] * slide.size_px[1] * 1e-6,
        "seconds": round(statistics.median(times) + statistics.median(deciding), 4),
        "first_seconds": round(first_s, 4),
        "split": {
            "opening_models_once": round(opening, 4),
            "measuring": round(statistics.median(times), 4),
            "of_it_host_alone": round(host_part(slide, package, scorer), 4),
            "of_it_networks_alone": network_part(opened, counts, wait),
            "deciding": round(statistics.median(deciding), 4),
        },
        "batches": dict(
            zip(("segment", "classify")[-len(counts) :], counts, strict=True)
        ),
        "class_px": result.record["class_px"],
        "status": result.record["status"],
        "same_bytes_again": same,
    }


def same_areas(name: str, a: dict[str, Any], b: dict[str, Any]) -> float:
    """Largest difference of a class's share in percent; ends above 0.5."""
    first = np.array(a["class_px"], float)
    second = np.array(b["class_px"], float)
    if first.sum() == 0 or second.sum() == 0:
        sys.exit(f"{name}: no tumor was found; there is nothing to compare")
    apart = float(100 * np.abs(first / first.sum() - second / second.sum()).max())
    if apart > 0.5:
        sys.exit(f"{name}: areas of the GPU differ by {apart:.2f} percent of the tumor")
    return apart


def by_nvjpeg(
    slide: OpenedSlide, package: MethodPackage, device: str, by_cpu: dict[str, Any]
) -> dict[str, Any]:
    """The same slide, its tiles decoded by nvJPEG; whatever its areas are is told."""
    try:
        row = measure(slide, package, device, 1, decoder="nvjpeg")
    except (DeviceError, SlideError) as error:
        return {"reason": str(error)}
    first = np.array(by_cpu["class_px"], float)
    second = np.array(row["class_px"], float)
    shares = first / max(first.sum(), 1) - second / max(second.sum(), 1)
    return row | {"areas_apart_percent": round(float(100 * np.abs(shares).max()), 4)}


def end_to_end(work: Path, real: bool) -> dict[str, Any]:
    """Every method on the large slide on the GPU, and on a smaller one on both.

    The shipped package once more with tiles decoded by nvJPEG, where there is one.
    """
    sizes = REAL if real else TRIAL
    sample = phantom.render(
        5, (sizes.sample_px, sizes.sample_px), mixture=(0.25, 0.25, 0.25, 0.25)
    ).rgb
    start = time.perf_counter()
    for name, side in (("large", sizes.side_px), ("small", sizes.cpu_side_px)):
        draw(work / f"{name}.svs", side, sample)
    out: dict[str, Any] = {
        "synthetic": "one drawn field repeated",
        "drawing_seconds": round(time.perf_counter() - start, 1),
        "workers": default_workers(),
        "methods": {},
    }
    large, small = (open_input(str(work / f"{n}.svs")) for n in ("large", "small"))
    for name, package in packages(work, sample).items():
        cpu = measure(small, package, "cpu", 1)
        rows: dict[str, Any] = {"cpu_small": cpu}
        if real:
            rows["cuda_small"] = measure(small, package, "cuda", 1)
            rows["cuda"] = measure(large, package, "cuda", sizes.rounds)
            rows["times_cpu"] = round(cpu["seconds"] / rows["cuda_small"]["seconds"], 1)
        else:
            from host_place import ringed

            rows["ring_on_host"] = measure(small, package, "cpu", 1, ringed(package))
        if name == "constrained-tiny":
            decoded = (large, "cuda", rows["cuda"]) if real else (small, "cpu", cpu)
            place, device, beside = decoded
            out["decoded_by_nvjpeg"] = by_nvjpeg(place, package, device, beside)
        other = rows["cuda_small" if real else "ring_on_host"]
        rows["areas_apart_percent"] = round(same_areas(name, cpu, other), 4)
        out["methods"][name] = rows
        print(name, {k: v["seconds"] for k, v in rows.items() if isinstance(v, dict)})
    if "densenet121" not in out["methods"]:
        out["not_measured"] = "densenet121: torchvision is not installed"
    if not real:  # seconds of an emulation say nothing
        nvjpeg = out["decoded_by_nvjpeg"]
        return {
            "areas_apart_percent": {
                name: rows["areas_apart_percent"]
                for name, rows in out["methods"].items()
            },
            "by_nvjpeg": nvjpeg.get("areas_apart_percent", nvjpeg.get("reason")),
        }
    tiny = out["methods"]["constrained-tiny"]["cuda"]["seconds"]
    out["goal"] = {"seconds": GOAL_S, "met": tiny < GOAL_S}
    return out
