# SPDX-License-Identifier: Apache-2.0
"""How much over its model does scoring a slide cost? See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
CONTENDERS = ("her2fast", "forward", "plain_loop")
BATCH = 32


def peak_mb() -> float:
    """Largest resident size of this process, plus that of its largest child.

    VmHWM starts anew at exec; ru_maxrss of this process would count the parent's slide.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    own = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (int(own.split()[1]) + children) / 1024


def load(package: Path) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(package / "torchscript_model.pt")).eval()


def patch_table(out: Path) -> list[dict[str, str]]:
    import csv

    (table,) = (out / "model-outputs-csv").glob("*.csv")
    with table.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kept"] == "true"]


def bench_her2fast(work: Path, workers: int) -> dict[str, Any]:
    """From open to the last file written, in one process, model loading included."""
    import torch  # noqa: F401  (imports are not what is measured)

    from her2fast.exports import write_tables
    from her2fast.manifest import Entry
    from her2fast.run import RunOptions
    from her2fast.slide_job import SlideJob, score_slide
    from her2fast.store import ResultsFolder

    out = work / f"results-{os.getpid()}"
    options = RunOptions(
        out=str(out),
        model=str(work / "resnet18"),
        workers=workers,
        allow_unknown_model=True,
    )
    begin = time.perf_counter()
    folder = ResultsFolder(str(out))
    folder.create()
    entry = Entry(slide=str(work / "tissue.svs"))
    (name,) = folder.assign_names([entry.slide])
    record, _ = score_slide(SlideJob(options, entry, name), lambda _: None)
    write_tables(folder)
    seconds = time.perf_counter() - begin
    if record["status"] != "scored":
        raise SystemExit(f"her2fast ended {record['status']}: {record['message']}")
    return {"seconds": seconds, "out": str(out), "class_px": record["class_px"]}


def bench_forward(work: Path, workers: int, out: Path) -> dict[str, Any]:
    """TorchScript forward of the same batches, side by side, on pixels in memory."""
    import numpy as np
    import torch
    from resnet import normalized

    import her2fast

    rows = patch_table(out)
    corners = np.array([[int(r["minx"]), int(r["miny"])] for r in rows])
    with her2fast.open_slide(str(work / "tissue.svs")) as slide:
        batches = [
            batch.rgb
            for batch in slide.tiles(
                tile_px=64, spacing_um=1.0, batch_size=BATCH, coords_px=corners
            )
        ]
    torch.set_num_threads(1)
    model = load(work / "resnet18")
    queue = list(enumerate(batches))
    predicted: list[Any] = [None] * len(batches)

    def compute() -> None:
        torch.set_num_threads(1)
        while queue:
            try:
                index, rgb = queue.pop()
            except IndexError:
                return
            valid = len(rgb)
            if valid < BATCH:
                rgb = np.concatenate(
                    [rgb, np.zeros((BATCH - valid, *rgb.shape[1:]), np.uint8)]
                )
            with torch.inference_mode():
                logits = model(normalized(torch.from_numpy(rgb)))
            predicted[index] = logits.argmax(1).numpy()[:valid]

    begin = time.perf_counter()
    threads = [threading.Thread(target=compute) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "batches": len(batches),
        "agreement": agreement(rows, np.concatenate(predicted)),
    }


def bench_plain_loop(work: Path, workers: int, out: Path) -> dict[str, Any]:
    """The loop people write: openslide-python, PIL, DataLoader workers, argmax."""
    import numpy as np
    import openslide
    import torch
    from resnet import normalized
    from torch.utils.data import DataLoader, Dataset

    rows = patch_table(out)

    class Patches(Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.slide: Any = None

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> Any:
            if self.slide is None:
                self.slide = openslide.OpenSlide(str(work / "tissue.svs"))
            corner = (int(rows[index]["minx"]), int(rows[index]["miny"]))
            level = self.slide.get_best_level_for_downsample(4.0)
            image = self.slide.read_region(corner, level, (64, 64)).convert("RGB")
            return torch.from_numpy(np.array(image))

    begin = time.perf_counter()
    model = load(work / "resnet18")
    loader = DataLoader(Patches(), batch_size=BATCH, num_workers=workers)
    with torch.inference_mode():
        predicted = [model(normalized(rgb)).argmax(1).numpy() for rgb in loader]
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "agreement": agreement(rows, np.concatenate(predicted)),
    }


def agreement(rows: list[dict[str, str]], predicted: Any) -> float:
    """Share of patches whose class is the one in her2fast's table."""
    names = [key for key in rows[0] if key.startswith("prob_")]
    same = sum(
        max(range(len(names)), key=lambda c: float(row[names[c]])) == int(p)
        for row, p in zip(rows, predicted, strict=True)
    )
    return same / len(rows)


def call(name: str, work: Path, workers: int, out: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--contender", name, "--work", str(work)]
    command += ["--workers", str(workers), "--out", out]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def prepare(work: Path, cores: Path, side_px: int) -> float:
    import torch
    from resnet import write_package
    from slide import make_slide, sample_patches

    slide = work / "tissue.svs"
    bits = make_slide(slide, sorted(cores.glob("core_*.jpg")), side_px)
    write_package(work / "resnet18", torch.from_numpy(sample_patches(slide, 16)))
    return bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--cores", type=Path, default=HERE.parents[2] / "shared/data/her2_cores"
    )
    parser.add_argument("--side-px", type=int, default=24576)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--contender", choices=CONTENDERS)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    if options.contender:
        run = {
            "her2fast": lambda: bench_her2fast(options.work, options.workers),
            "forward": lambda: bench_forward(
                options.work, options.workers, Path(options.out)
            ),
            "plain_loop": lambda: bench_plain_loop(
                options.work, options.workers, Path(options.out)
            ),
        }[options.contender]
        print(json.dumps({**run(), "peak_mb": peak_mb()}))
        return
    if not options.cores.is_dir():
        raise SystemExit(f"no folder of tissue cores at {options.cores}; give --cores")

    import torch

    import her2fast

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        bits = prepare(work, options.cores, options.side_px)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        out = ""
        for _ in range(options.repeats):
            for name in CONTENDERS:
                result = call(name, work, options.workers, out)
                out = result.pop("out", out)
                runs[name].append(result)
                print(name, {k: v for k, v in result.items() if k != "class_px"})
        patches = len(patch_table(Path(out)))
        areas = {tuple(run["class_px"]) for run in runs["her2fast"]}
        if len(areas) != 1:
            raise SystemExit(f"her2fast gave different areas in one setting: {areas}")
        for name, least in (("forward", 0.999), ("plain_loop", 0.95)):
            worst = min(run["agreement"] for run in runs[name])
            if worst < least:
                raise SystemExit(
                    f"{name} agrees in {worst:.3f} of patches, need {least}"
                )
    middle = {
        name: statistics.median(run["seconds"] for run in runs[name])
        for name in CONTENDERS
    }
    report = {
        "question": "How much over its model's forward does scoring a slide cost?",
        "side_px": options.side_px,
        "bits_per_pixel": bits,
        "patches": patches,
        "workers": options.workers,
        "runs": runs,
        "median_seconds": middle,
        "her2fast_over_forward": middle["her2fast"] / middle["forward"],
        "plain_loop_over_forward": middle["plain_loop"] / middle["forward"],
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "her2fast": her2fast.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
