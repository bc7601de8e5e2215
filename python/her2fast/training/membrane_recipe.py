# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped package `membrane-tiny` on phantoms of the eight laboratories.

    python -m her2fast.training.membrane_recipe --out DIR

draws phantom slides at 0.25 um/px, writes DIR/membrane.toml and runs it as `her2fast
train membrane` would. What was killed goes on when called again. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from her2fast.errors import UsageError
from her2fast.export.atomic import atomic_write
from her2fast.manifest import LABELS
from her2fast.phantom.cohort import Request, make_cohort, slide_name
from her2fast.phantom.optics import PROFILES
from her2fast.phantom.spec import SlideSpec
from her2fast.training.config import CONFIGS
from her2fast.training.config_file import load_config

SIDE_UM = 768
SPACING_UM = 0.25
LOBULE_UM = 300
#: Slides of each score; slide i is of laboratory i mod 8.
SLIDES = 16
PHANTOMS, MANIFEST, CONFIG, RUN = "phantoms", "phantoms.csv", "membrane.toml", "run"

#: Of the network: a cycle of AdamW is quicker on a CPU than the paper's plain descent.
#: `looks` moves stain and scanner further than the laboratories do.
RECIPE = """\
# The recipe of `membrane-tiny` (python -m her2fast.training.membrane_recipe).
[run]
seed = {seed}

[data]
manifest = "phantoms.csv"
cache = "cache"

[model]
backbone = "tiny"

[optimizer]
name = "adamw"
lr = 3e-3
weight_decay = 0.01
schedule = "one-cycle"
clip_norm = 2.0

[train]
epochs = {epochs}
batch_size = 2
samples_per_epoch = {samples}
patience = 0

[loss]
beta = 0.75

[augment]
looks = true
brightness = 0.0
contrast = 0.0
saturation = 0.0
hue = 0.0
blur_share = 0.0

[compute]
threads = 1
workers = 1
precision = "bf16-mixed"

[package]
name = "membrane-tiny"
synthetic = true
batch_size = 4
licence = "Apache-2.0"
training_data = "generated H-DAB phantoms (her2fast.phantom); no patient data"
intended_use = "synthetic training data, research use only"
"""


def spec_of(score: str, side_um: float = SIDE_UM) -> SlideSpec:
    """Slides of one score whose laboratories go round."""
    return SlideSpec.model_validate(
        {
            "slide": {
                "width_um": side_um,
                "height_um": side_um,
                "spacing_um": SPACING_UM,
            },
            "tumor": {"score": score, "free_share": 0.0},
            "tissue": {"lobule_um": LOBULE_UM},
        }
    )


def is_validation(score: int, index: int) -> bool:
    """The second slide of two laboratories of each score: all eight, once."""
    count = len(PROFILES)
    own = count // len(LABELS)
    return index // count == 1 and index % count // own == score


def draw_phantoms(
    out: Path, *, slides: int, seed: int, side_um: float = SIDE_UM, workers: int = 1
) -> Path:
    """Draw what is missing of four cohorts; returns their common manifest."""
    rows = []
    for score, name in enumerate(LABELS):
        folder = out / PHANTOMS / f"score-{score}"
        spec = spec_of(name, side_um)
        make_cohort(Request(str(folder), slides, seed + score, spec, workers))
        for index in range(slides):
            slide = slide_name(index)
            rows.append(
                {
                    "slide": f"{PHANTOMS}/score-{score}/slides/{slide}.svs",
                    "patient": f"score-{score}/{slide}",
                    "scanner": PROFILES[index % len(PROFILES)].name,
                    "split": "val" if is_validation(score, index) else "train",
                }
            )
    place = out / MANIFEST
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    atomic_write(place, ("\r\n".join(lines) + "\r\n").encode())
    return place


def write_config(out: Path, *, seed: int, epochs: int, samples: int) -> Path:
    """The configuration, checked; another one there is an error of the run's folder."""
    place = out / CONFIG
    text = RECIPE.format(seed=seed, epochs=epochs, samples=samples)
    atomic_write(place, text.encode())
    load_config(place, CONFIGS["membrane"])
    return place


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, write DIR/run/package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--slides", type=int, default=SLIDES, help="of each score")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=500, help="tiles an epoch")
    parser.add_argument("--workers", type=int, default=1, help="that draw")
    chosen = parser.parse_args(arguments)
    if chosen.slides < 2 * len(PROFILES):
        raise UsageError(f"need --slides {2 * len(PROFILES)} or more: two of each lab")

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    chosen.out.mkdir(parents=True, exist_ok=True)
    manifest = draw_phantoms(
        chosen.out, slides=chosen.slides, seed=chosen.seed, workers=chosen.workers
    )
    with manifest.open(newline="", encoding="utf-8") as file:
        say(f"{sum(1 for _ in csv.reader(file)) - 1} slides in {manifest}")
    config = write_config(
        chosen.out, seed=chosen.seed, epochs=chosen.epochs, samples=chosen.samples
    )
    from her2fast.training.stages import run_stage

    facts = run_stage("membrane", config, chosen.out / RUN, say=say)
    say(json.dumps(facts))


if __name__ == "__main__":
    main()
