# SPDX-License-Identifier: Apache-2.0
"""Do the results depend on how they were computed? See README.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "score_slide"))

#: Times, hosts and locks: what a run says of itself, not of the slide.
OF_THE_RUN = ("run_", "events_", ".locks")


def command(
    slides: list[Path], out: Path, model: str | None, extra: list[str]
) -> list[str]:
    call = [
        sys.executable,
        "-m",
        "her2fast",
        "score",
        *map(str, slides),
        "-o",
        str(out),
    ]
    if model:
        call += ["-m", model, "--allow-unknown-model"]
    return call + extra


def score(*args: Any) -> float:
    begin = time.perf_counter()
    subprocess.run(command(*args), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def score_with_kills(
    slides: list[Path], out: Path, model: str | None, seconds: float, kills: int
) -> list[float]:
    """Kills the whole process group at random points, then lets one run finish."""
    rng = random.Random(5)
    points = sorted(rng.uniform(0.1, 0.95) * seconds for _ in range(kills))
    for point in points:
        process = subprocess.Popen(
            command(slides, out, model, []),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(point)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(
        command(slides, out, model, []), check=True, stdout=subprocess.DEVNULL
    )
    return points


def tree(out: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of everything but the runs' own files."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        relative = path.relative_to(out).as_posix()
        if not relative.startswith(OF_THE_RUN):
            found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    names = sorted(set(expected) | set(got))
    return [name for name in names if expected.get(name) != got.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    cores = HERE.parents[2] / "shared/data/her2_cores"
    parser.add_argument("--cores", type=Path, default=cores)
    parser.add_argument("--side-px", type=int, default=24576)
    parser.add_argument("--kills", type=int, default=4)
    options = parser.parse_args()
    if not options.cores.is_dir():
        raise SystemExit(f"no folder of tissue cores at {options.cores}; give --cores")
    import torch
    from resnet import write_package
    from slide import make_slide, sample_patches

    import her2fast

    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        large = work / "tissue.svs"
        make_slide(large, sorted(options.cores.glob("core_*.jpg")), options.side_px)
        small = work / "demo.svs"
        shutil.copy(Path(her2fast.__file__).parent / "data/demo/phantom-d.svs", small)
        patches = torch.from_numpy(sample_patches(large, 8))
        package = write_package(work / "resnet18", patches)
        for model, label in ((str(package), "resnet18"), (None, "constrained-tiny")):
            slides = [large, small]
            first = work / f"{label}-first"
            seconds = score(slides, first, model, ["-n", "2"])
            expected = tree(first)
            for name, extra in (
                ("n1", ["-n", "1"]),
                ("b32", ["-b", "32"]),
                ("b256", ["-b", "256"]),
            ):
                out = work / f"{label}-{name}"
                score(slides, out, model, extra)
                cases[f"{label} {name}"] = {"differ": differences(expected, tree(out))}
            out = work / f"{label}-order"
            score(slides[::-1], out, model, [])
            cases[f"{label} slides reversed"] = {
                "differ": differences(expected, tree(out))
            }
            out = work / f"{label}-killed"
            points = score_with_kills(slides, out, model, seconds, options.kills)
            cases[f"{label} killed"] = {
                "killed_after_s": points,
                "differ": differences(expected, tree(out)),
            }
            print(label, len(expected), "files;", f"{seconds:.1f} s a run", flush=True)
    report = {
        "question": "Do the results depend on how they were computed?",
        "side_px": options.side_px,
        "cases": cases,
        "all_equal": not any(case["differ"] for case in cases.values()),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    if not report["all_equal"]:
        raise SystemExit("some bytes depend on how they were computed")


if __name__ == "__main__":
    main()
