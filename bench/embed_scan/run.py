# SPDX-License-Identifier: Apache-2.0
"""What does a scanner feel that scores while it scans? See README.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import her2fast
from her2fast.models.package import load_package

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import tell

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "test"
PROGRAM = BUILD / "tests" / "embed" / "scan_and_score"
ENGINE = BUILD / "csrc" / "models" / "torch" / "libher2fast_torch.so"
FIELD = "4096x512"
#: Of `models`: smaller, so that 1 % of the pushes is more than one.
MODELS_FIELD = "1024x512"
HEIGHTS = (20_000, 60_000)
#: So little memory that the scanner soon waits for the models: its rate is then theirs.
BEHIND = ("--memory", "32")
#: What the scanner says of its file: the level that is read, of 256 px tiles.
STORED = {
    "level_0": ("--stored-quality", "80"),
    "level_of_a_quarter": ("--stored-quality", "80", "--stored-downsample", "4"),
}
ORDERS = (
    ["--order", "raster", "--strip", "6000x256"],
    ["--order", "serpentine", "--strip", "1000x700"],
    ["--order", "column", "--strip", "512x5000"],
    ["--order", "random", "--strip", "900x600"],
)


def build() -> None:
    """Builds the program and the engine where they are missing."""
    if PROGRAM.exists() and ENGINE.exists():
        return
    options = ["-DHER2FAST_PYTHON=OFF", "-DHER2FAST_TESTS=ON", "-DHER2FAST_TORCH=ON"]
    make = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", *options]
    subprocess.run(make, check=True, stdout=sys.stderr)
    targets = ["--target", "scan_and_score", "her2fast_torch"]
    command = ["cmake", "--build", str(BUILD), *targets]
    subprocess.run(command, check=True, stdout=sys.stderr)


def scan(*options: str) -> str:
    """One run of the scanner; what it printed."""
    folder = Path(load_package(None).classify.folder).parent
    known = folder.parent / "known.json"
    command = [str(PROGRAM), str(folder), "--known", str(known), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def control(scanning: Callable[[], str], pushes: dict[str, float]) -> dict[str, float]:
    """A thread that pushes nothing beside a scan: as often, as long as its pushes."""
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder, "control"))
        source = str(Path(__file__).with_name("control.c"))
        subprocess.run([compiler, "-O2", "-std=c99", "-o", program, source], check=True)
        period_ms = 1e3 * pushes["scan_s"] / pushes["pushes"]
        work_us = 1e3 * pushes["push_computed_p50_ms"]
        command = [program, f"{period_ms:.3f}", f"{work_us:.3f}"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as beside:
            scanned = scanning()
            said, _ = beside.communicate()
    out = figures(scanned)
    out["control_times"] = number(said, r"times: (\d+)")
    out["control_lost_core"] = number(said, r"lost the core (\d+)")
    for part in ("p50", "p99", "longest"):
        pattern = rf"work, by the clock: .*{part} ([\d.]+) ms"
        out[f"control_clock_{part}_ms"] = number(said, pattern)
        out[f"control_late_{part}_ms"] = number(said, rf"late: .*{part} ([\d.]+) ms")
    return out


def number(text: str, pattern: str) -> float:
    """The number in parentheses of a pattern that must be there."""
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"scan_and_score printed no {pattern!r}:\n{text}")
    return float(found.group(1))


def figures(text: str) -> dict[str, float]:
    """What one run says of itself."""
    out = {
        "scan_mpx_per_s": number(text, r"px at ([\d.]+) Mpx/s"),
        "last_strip_to_result_s": number(text, r"last strip to result: ([\d.]+) s"),
        "tiles": number(text, r"at the last strip: \d+ of (\d+)"),
        "tiles_hidden": number(text, r"at the last strip: (\d+) of"),
        "model_items": number(text, r"through models: \d+ of (\d+)"),
        "model_items_hidden": number(text, r"through models: (\d+) of"),
        "peak_memory_added_mib": number(text, r"memory added: ([\d.]+) MiB"),
        "pixels_held_mib": number(text, r"held at most: ([\d.]+) MiB"),
        "pushes": number(text, r"pushes: (\d+)"),
        "would_block": number(text, r"would block (\d+)"),
        "pushes_gave_up_core": number(text, r"core was given up (-?\d+) times"),
        "pushes_lost_core": number(text, r"lost (-?\d+) times"),
        "pushes_page_faults": number(text, r"page faults (-?\d+)"),
    }
    size = re.search(r"scanned (\d+) x (\d+) px", text)
    assert size is not None
    out["scan_s"] = (
        1e-6 * int(size[1]) * int(size[2]) / max(out["scan_mpx_per_s"], 1e-9)
    )
    for name, words in (("clock", "by the clock"), ("computed", "computed")):
        for part in ("p50", "p99", "longest"):
            pattern = rf"push, {words}: .*{part} ([\d.]+) ms"
            out[f"push_{name}_{part}_ms"] = number(text, pattern)
    return out


def orders() -> str:
    """Equal bytes in every order, or an end."""
    with tempfile.TemporaryDirectory() as folder:
        saved = []
        for i, order in enumerate(ORDERS):
            path = Path(folder, f"{i}.h2m")
            scan("--size", "6000x5000", "--save", str(path), *order)
            saved.append(path.read_bytes())
    if any(bytes_ != saved[0] for bytes_ in saved[1:]):
        raise SystemExit("the orders give different measurements")
    return f"{len(saved)} orders, equal bytes"


def main() -> None:
    """Runs all and prints or writes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rate", type=float, default=60, help="Mpx/s of `heights`")
    parser.add_argument("--models-size", default="16000x24000")
    arguments = parser.parse_args()
    build()
    result: dict[str, Any] = {
        "her2fast": her2fast.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "orders": orders(),
        "heights": {},
    }
    rate = ["--strip", FIELD, "--rate", str(arguments.rate)]
    for height in HEIGHTS:
        result["heights"][height] = figures(scan("--size", f"40000x{height}", *rate))
    models = [
        "--size",
        arguments.models_size,
        "--strip",
        MODELS_FIELD,
        "--engine",
        str(ENGINE),
    ]
    models += ["--threads", str(os.cpu_count())]
    fastest = figures(scan(*models, *BEHIND))
    result["stored"] = {
        name: {
            "heights": {
                height: figures(scan("--size", f"40000x{height}", *rate, *told))
                for height in HEIGHTS
            },
            "models_fastest": figures(scan(*models, *BEHIND, *told)),
        }
        for name, told in STORED.items()
    }
    steady = str(0.9 * fastest["scan_mpx_per_s"])
    result["models"] = {
        "fastest": fastest,
        "at_90_percent": control(
            lambda: scan(*models, "--rate", steady),
            {**fastest, "scan_s": fastest["scan_s"] / 0.9},
        ),
    }
    tell(result, arguments.json)


if __name__ == "__main__":
    main()
