# SPDX-License-Identifier: Apache-2.0
"""The study: what is each stage of the training worth? See README.md.

    python bench/study/study.py --work DIR            main study, docs/study
    python bench/study/study.py --work DIR --curves   label noise and cohort size

Two processes of one thread each train side by side; what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, os.fspath(HERE))

from cohort import write_manifest  # noqa: E402
from design import DISAGREEMENT, NOISES, SEEDS, SIZES  # noqa: E402
from draw import Drawn, draw_slides  # noqa: E402

MAIN = "noise30-all"
WORKERS = 2

Job = tuple[str, ...]


def manifest_name(noise: float, size: float) -> str:
    part = "all" if size == 1.0 else f"size{round(100 * size)}"
    return f"noise{round(100 * noise)}-{part}"


def run_job(work: Path, job: Job) -> None:
    """A stage in a process of its own, its output in a file of its own."""
    log = work / "logs" / ("-".join(job) + ".txt")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, os.fspath(HERE / "stages.py"), os.fspath(work), *job]
    environment = {
        **os.environ,
        "HER2FAST_CONFIG_DIR": os.fspath(work / "trust"),
        # glibc gave and took back the pages of every batch: a third of the time.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    }
    begun = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(job)} failed, see {log}")
    sys.stderr.write(f"{' '.join(job)}: {time.monotonic() - begun:.0f} s\n")


def run_jobs(work: Path, jobs: list[Job]) -> None:
    """All of them, WORKERS at a time, in order; the first failure ends it."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for waiting in [pool.submit(run_job, work, job) for job in jobs]:
            waiting.result()


def train_main(work: Path, drawn: list[Drawn]) -> dict[str, object]:
    facts = write_manifest(work / f"{MAIN}.csv", drawn, noise=DISAGREEMENT)
    run_job(work, ("segment", MAIN))
    jobs: list[Job] = [("seed", MAIN, str(seed)) for seed in SEEDS]
    jobs += [("upper", MAIN, str(seed)) for seed in SEEDS]
    run_jobs(work, jobs)
    run_job(work, ("package", MAIN, str(SEEDS[0])))
    return facts


def train_curves(work: Path, drawn: list[Drawn]) -> dict[str, object]:
    """One seed a point; what the main study has is not trained again."""
    points = [(noise, 1.0) for noise in NOISES]
    points += [(DISAGREEMENT, size) for size in SIZES]
    jobs, facts = [], {}
    for noise, size in dict.fromkeys(points):
        name = manifest_name(noise, size)
        facts[name] = {
            "noise": noise,
            "size": size,
            **write_manifest(work / f"{name}.csv", drawn, noise=noise, size=size),
        }
        if name != MAIN:
            jobs.append(("seed", name, str(SEEDS[0])))
    run_jobs(work, jobs)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "study")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "study")
    parser.add_argument("--curves", action="store_true")
    options = parser.parse_args()
    from summary import write_curves, write_study

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    drawn = draw_slides(work, workers=WORKERS)
    times = {"drawing_s": round(time.monotonic() - begun)}
    if options.curves:
        write_curves(work, options.out, drawn, train_curves(work, drawn))
        return
    facts = train_main(work, drawn)
    times["all_s"] = round(time.monotonic() - begun)
    write_study(work, options.out, drawn, facts)
    sys.stderr.write(json.dumps(times) + "\n")


if __name__ == "__main__":
    main()
