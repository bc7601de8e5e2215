# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped package `membrane-tiny` on phantoms of laboratories at random.

    python -m her2fast.training.membrane_recipe --out DIR

draws scenes at 0.25 um/px into DIR/cache and trains as `her2fast train membrane` does:
membranes first (DIR/membranes), then, from those weights, scenes of nuclear DAB among
them (DIR/run); the package is DIR/run/package. What was killed goes on when called
again. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
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

CACHE, RUN, FIRST = "cache", "run", "membranes"
WEIGHTS = "membranes.safetensors"
#: A scorer's tile; training cuts smaller ones, of which a batch holds more scenes.
TILE_PX = 512
SCENES, EPOCHS, SAMPLES = 252, 10, 1600
#: Of the second part: a quarter of its tiles is of nuclear DAB.
NUCLEAR_SCENES, NUCLEAR_EPOCHS, NUCLEAR_SAMPLES = 84, 4, 2128
#: Scenes on which the cuts are chosen: the first one's number, and how many. So many
#: more are of nuclear DAB: there a faint ridge is the rim of a nucleus.
CUT_SCENE, CUT_SCENES, NUCLEAR_CUT_SCENES = 100_000, 48, 18

#: A cycle of AdamW is quicker on a CPU than the paper's plain descent.
OPTIMIZER = Optimizer(
    name="adamw", lr=3e-3, weight_decay=0.01, schedule="one-cycle", clip_norm=2.0
)
#: What is known of membranes is to be kept.
NUCLEAR_LR = 1e-3
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


def recipe(
    out: Path,
    *,
    seed: int,
    epochs: int,
    samples: int,
    weights: Path | None = None,
) -> MembraneConfig:
    """The configuration, as a `membrane.toml` would hold it; `weights`: second part."""
    lr = OPTIMIZER.lr if weights is None else NUCLEAR_LR
    return MembraneConfig(
        run=Run(seed=seed),
        # Scenes stand in the place of a manifest's slides.
        data=MembraneData(
            manifest=out, cache=out / CACHE, spacing_um=SPACING_UM, tile_px=TILE_PX
        ),
        model=Model(backbone="tiny", weights=None if weights is None else str(weights)),
        optimizer=OPTIMIZER.model_copy(update={"lr": lr}),
        train=Train(epochs=epochs, batch_size=8, samples_per_epoch=samples, patience=0),
        loss=LOSS,
        augment=AUGMENT,
        compute=Compute(threads=1, workers=1, precision="bf16-mixed"),
        package=PACKAGE,
    )


def weights_of(checkpoint: Path, to: Path) -> Path:
    """The weights of a checkpoint alone, as a run begins with."""
    from safetensors.torch import save_file

    from her2fast.training.checkpoint import load_checkpoint
    from her2fast.training.membrane_network import TinyMembraneNet

    network = TinyMembraneNet()
    load_checkpoint(checkpoint, network)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, to)
    return to


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, write DIR/run/package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument(
        "--nuclear-scenes", type=int, default=NUCLEAR_SCENES, help="of nuclear DAB"
    )
    parser.add_argument("--cut-scenes", type=int, default=CUT_SCENES)
    parser.add_argument("--nuclear-cut-scenes", type=int, default=NUCLEAR_CUT_SCENES)
    parser.add_argument("--side-px", type=int, default=Plan.side_px, help="of a scene")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the first part")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="tiles an epoch")
    parser.add_argument("--nuclear-epochs", type=int, default=NUCLEAR_EPOCHS)
    parser.add_argument("--nuclear-samples", type=int, default=NUCLEAR_SAMPLES)
    parser.add_argument(
        "--first",
        type=Path,
        help="a checkpoint of an earlier first part, which is then left out",
    )
    chosen = parser.parse_args(arguments)
    if chosen.scenes < VAL_EVERY:
        raise UsageError(f"need --scenes {VAL_EVERY} or more: one to validate on")
    plan = Plan(side_px=chosen.side_px)
    if chosen.side_px < 1 or chosen.side_px % plan.tile_px:
        raise UsageError(
            f"need --side-px a multiple of {plan.tile_px}, got {chosen.side_px}"
        )

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    text = "# python -m her2fast.training.membrane_recipe; see config.json\n"

    def run(name: str, config: MembraneConfig, work: Any) -> dict[str, Any]:
        from her2fast.training.stages import run_configured

        return run_configured(
            "membrane", config, text, chosen.out / name, work, say=say
        )

    chosen.out.mkdir(parents=True, exist_ok=True)
    checkpoint = chosen.first
    if checkpoint is None:
        config = recipe(
            chosen.out, seed=chosen.seed, epochs=chosen.epochs, samples=chosen.samples
        )
        run(FIRST, config, _work(chosen, plan, nuclear=0, cuts=False))
        checkpoint = chosen.out / FIRST / "checkpoints" / "best.safetensors"
    config = recipe(
        chosen.out,
        seed=chosen.seed,
        epochs=chosen.nuclear_epochs,
        samples=chosen.nuclear_samples,
        weights=weights_of(checkpoint, chosen.out / WEIGHTS),
    )
    work = _work(chosen, plan, nuclear=chosen.nuclear_scenes, cuts=True)
    say(json.dumps(run(RUN, config, work)))


def _work(
    chosen: argparse.Namespace, plan: Plan, *, nuclear: int, cuts: bool
) -> Callable[..., dict[str, Any]]:
    """What a run does: scenes, `nuclear` ones of nuclear DAB; at the end its cuts."""
    from her2fast.training.backbones import input_statistics
    from her2fast.training.membrane_cuts import choose_cuts
    from her2fast.training.stages import fit_membranes

    def on_scenes(
        fabric: Any, run: Any, config: MembraneConfig, resume: bool, say: Any
    ) -> dict[str, Any]:
        train, val = scene_pieces(
            config.data.cache, chosen.scenes, plan, nuclear=nuclear, say=say
        )
        say(f"train: {len(train)} tiles, val: {len(val)} tiles")
        source = {
            "scenes": chosen.scenes,
            "nuclear_scenes": nuclear,
            "first_scene": FIRST_SEED,
            "scene_px": plan.side_px,
            "exposures": plan.exposures,
        }
        run.write_environment({"seed": config.run.seed, **source})

        def choose(network: Any, cut: float) -> tuple[Cuts, dict[str, Any]]:
            one = Plan(side_px=plan.side_px, exposures=1)
            pictures = [
                photograph(one, CUT_SCENE + k, nuclear=brown)[0]
                for brown, count in (
                    (False, chosen.cut_scenes),
                    (True, chosen.nuclear_cut_scenes),
                )
                for k in range(count)
            ]
            return choose_cuts(
                network,
                cut,
                pictures,
                statistics=input_statistics(config.model),
                tile_px=min(config.data.tile_px, plan.side_px),
            )

        return fit_membranes(
            fabric,
            run,
            config,
            train,
            val,
            source,
            resume,
            say,
            choose if cuts else None,
        )

    return on_scenes


if __name__ == "__main__":
    main()
