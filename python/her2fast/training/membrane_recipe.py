# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped package `membrane-tiny` on phantoms of laboratories at random.

    python -m her2fast.training.membrane_recipe --out DIR

draws scenes at 0.25 um/px into DIR/cache and trains as `her2fast train membrane` does;
the package is DIR/run/package. What was killed goes on when called again. One thread,
no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from her2fast.errors import UsageError
from her2fast.training.config import (
    Augment,
    Compute,
    MembraneConfig,
    MembraneData,
    MembraneLoss,
    MembranePackage,
    Model,
    Optimizer,
    Run,
    Train,
)
from her2fast.training.membrane_network import Cuts
from her2fast.training.membrane_scenes import (
    FIRST_SEED,
    SPACING_UM,
    VAL_EVERY,
    Plan,
    photograph,
    scene_pieces,
)

CACHE, RUN = "cache", "run"
#: A scorer's tile; training cuts smaller ones, of which a batch holds more scenes.
TILE_PX = 512
SCENES, EPOCHS, SAMPLES = 252, 10, 1600
#: Scenes on which the cuts are chosen: the first one's number, and how many.
CUT_SCENE, CUT_SCENES = 100_000, 48

#: A cycle of AdamW is quicker on a CPU than the paper's plain descent.
OPTIMIZER = Optimizer(
    name="adamw", lr=3e-3, weight_decay=0.01, schedule="one-cycle", clip_norm=2.0
)
LOSS = MembraneLoss(beta=0.75)
#: Turns and flips, and other stains and scanners in place of shifts of color.
AUGMENT = Augment(
    looks=True, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur_share=0.0
)
PACKAGE = MembranePackage(
    name="membrane-tiny",
    synthetic=True,
    licence="Apache-2.0",
    training_data="generated H-DAB phantoms (her2fast.phantom); no patient data",
    intended_use="synthetic training data, research use only",
)


def recipe(out: Path, *, seed: int, epochs: int, samples: int) -> MembraneConfig:
    """The configuration, as a `membrane.toml` would hold it."""
    return MembraneConfig(
        run=Run(seed=seed),
        # Scenes stand in the place of a manifest's slides.
        data=MembraneData(
            manifest=out, cache=out / CACHE, spacing_um=SPACING_UM, tile_px=TILE_PX
        ),
        model=Model(backbone="tiny"),
        optimizer=OPTIMIZER,
        train=Train(epochs=epochs, batch_size=8, samples_per_epoch=samples, patience=0),
        loss=LOSS,
        augment=AUGMENT,
        compute=Compute(threads=1, workers=1, precision="bf16-mixed"),
        package=PACKAGE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, write DIR/run/package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--cut-scenes", type=int, default=CUT_SCENES)
    parser.add_argument("--side-px", type=int, default=Plan.side_px, help="of a scene")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="tiles an epoch")
    chosen = parser.parse_args(arguments)
    if chosen.scenes < VAL_EVERY:
        raise UsageError(f"need --scenes {VAL_EVERY} or more: one to validate on")
    plan = Plan(side_px=chosen.side_px)
    if chosen.side_px < 1 or chosen.side_px % plan.tile_px:
        raise UsageError(
            f"need --side-px a multiple of {plan.tile_px}, got {chosen.side_px}"
        )
    from her2fast.training.backbones import input_statistics
    from her2fast.training.membrane_cuts import choose_cuts
    from her2fast.training.stages import fit_membranes, run_configured

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    def on_scenes(
        fabric: Any, run: Any, config: MembraneConfig, resume: bool, say: Any
    ) -> dict[str, Any]:
        train, val = scene_pieces(config.data.cache, chosen.scenes, plan, say=say)
        say(f"train: {len(train)} tiles, val: {len(val)} tiles")
        source = {
            "scenes": chosen.scenes,
            "first_scene": FIRST_SEED,
            "scene_px": plan.side_px,
            "exposures": plan.exposures,
        }
        run.write_environment({"seed": config.run.seed, **source})

        def choose(network: Any, cut: float) -> tuple[Cuts, dict[str, Any]]:
            one = Plan(side_px=plan.side_px, exposures=1)
            return choose_cuts(
                network,
                cut,
                [photograph(one, CUT_SCENE + k)[0] for k in range(chosen.cut_scenes)],
                statistics=input_statistics(config.model),
                tile_px=min(config.data.tile_px, plan.side_px),
                halo_px=config.package.halo_px,
            )

        return fit_membranes(
            fabric, run, config, train, val, source, resume, say, choose
        )

    chosen.out.mkdir(parents=True, exist_ok=True)
    config = recipe(
        chosen.out, seed=chosen.seed, epochs=chosen.epochs, samples=chosen.samples
    )
    text = "# python -m her2fast.training.membrane_recipe; see config.json\n"
    facts = run_configured(
        "membrane", config, text, chosen.out / RUN, on_scenes, say=say
    )
    say(json.dumps(facts))


if __name__ == "__main__":
    main()
