# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped package `membrane-tiny` on phantoms of laboratories at random.

    python -m her2fast.training.membrane_recipe --out DIR

draws scenes at 0.25 um/px into DIR/cache and trains as `her2fast train membrane` does:
membranes first (DIR/membranes), then, from those weights, with scenes of nuclear DAB
among them (DIR/nuclear), then with such scenes of sky blue counterstains (DIR/run);
the package is DIR/run/package. What was killed goes on when called again. `--from PART`
begins with what the part before left in DIR, or with `--weights`. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from her2fast.errors import UsageError
from her2fast.training.config import MembraneConfig
from her2fast.training.config_sections import (
    Augment,
    Compute,
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
    BLUE,
    FIRST_SEED,
    NUCLEAR,
    SPACING_UM,
    USUAL,
    VAL_EVERY,
    Kind,
    Plan,
    photograph,
    scene_pieces,
)
from her2fast.training.run_folder import finished_run

CACHE, RUN = "cache", "run"
#: A scorer's tile; training cuts smaller ones, of which a batch holds more scenes.
TILE_PX = 512


@dataclass(frozen=True)
class Part:
    """A part of the training; the next begins with its weights."""

    name: str
    epochs: int
    samples: int  # tiles of an epoch
    lr: float
    counts: Mapping[Kind, int]  # scenes


#: Later parts are to keep what is known of membranes: a third of the rate.
PARTS = (
    Part("membranes", 10, 1600, 3e-3, {USUAL: 252}),
    Part("nuclear", 4, 2128, 1e-3, {USUAL: 252, NUCLEAR: 84}),
    Part(RUN, 2, 2128, 1e-3, {USUAL: 252, NUCLEAR: 84, BLUE: 42}),
)
#: Scenes on which the cuts are chosen: the first one's number, and how many. Some are
#: of nuclear DAB: there a faint ridge is the rim of a nucleus.
CUT_SCENE = 100_000
CUT_SCENES: Mapping[Kind, int] = {USUAL: 48, NUCLEAR: 18, BLUE: 12}

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


def recipe(
    out: Path, part: Part, *, seed: int, weights: Path | None = None
) -> MembraneConfig:
    """The configuration of a part, as a `membrane.toml` would hold it."""
    return MembraneConfig(
        run=Run(seed=seed),
        # Scenes stand in the place of a manifest's slides.
        data=MembraneData(
            manifest=out, cache=out / CACHE, spacing_um=SPACING_UM, tile_px=TILE_PX
        ),
        model=Model(backbone="tiny", weights=None if weights is None else str(weights)),
        optimizer=OPTIMIZER.model_copy(update={"lr": part.lr}),
        train=Train(
            epochs=part.epochs,
            batch_size=8,
            samples_per_epoch=part.samples,
            patience=0,
        ),
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


def begun_with(out: Path, begin: str, weights: Path | None) -> Path | None:
    """The checkpoint that part `begin` starts from; None of the first: at random.

    Raises `UsageError` where the part before was not trained to its end in `out`.
    """
    at = [part.name for part in PARTS].index(begin)
    if weights is not None or at == 0:
        return weights
    before = PARTS[at - 1].name
    try:
        return finished_run(out / before, ["membrane"]).best
    except UsageError as error:
        raise UsageError(
            f"--from {begin} begins with the part before it: {error}; train it with "
            f"--from {before}, or name --weights CHECKPOINT"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, write DIR/run/package."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--side-px", type=int, default=Plan.side_px, help="of a scene")
    parser.add_argument(
        "--from", dest="begin", choices=names, default=names[0], help="part"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="checkpoint to begin with; default: of the part before, in DIR",
    )
    # For trials: of each kind that a part has, and of each part.
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--cut-scenes", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--samples", type=int, help="tiles an epoch")
    chosen = parser.parse_args(arguments)
    if chosen.scenes is not None and chosen.scenes < VAL_EVERY:
        raise UsageError(f"need --scenes {VAL_EVERY} or more: one to validate on")
    for name in ("cut_scenes", "epochs", "samples"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise UsageError(
                f"need --{name.replace('_', '-')} of 1 or more, got {value}"
            )
    plan = Plan(side_px=chosen.side_px)
    if chosen.side_px < 1 or chosen.side_px % plan.tile_px:
        raise UsageError(
            f"need --side-px a multiple of {plan.tile_px}, got {chosen.side_px}"
        )
    checkpoint = begun_with(chosen.out, chosen.begin, chosen.weights)
    from her2fast.training.stages import run_configured

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    chosen.out.mkdir(parents=True, exist_ok=True)
    text = "# python -m her2fast.training.membrane_recipe; see config.json\n"
    facts: dict[str, Any] = {}
    for part in PARTS[names.index(chosen.begin) :]:
        part = replace(
            part,
            epochs=chosen.epochs or part.epochs,
            samples=chosen.samples or part.samples,
            counts={k: chosen.scenes or n for k, n in part.counts.items()},
        )
        weights = None
        if checkpoint is not None:
            path = chosen.out / f"{part.name}-begin.safetensors"
            weights = weights_of(checkpoint, path)
        config = recipe(chosen.out, part, seed=chosen.seed, weights=weights)
        cuts = {k: chosen.cut_scenes or n for k, n in CUT_SCENES.items()}
        work = _work(part, plan, cuts if part.name == RUN else {})
        folder = chosen.out / part.name
        facts = run_configured("membrane", config, text, folder, work, say=say)
        checkpoint = folder / "checkpoints" / "best.safetensors"
    say(json.dumps(facts))


def _work(
    part: Part, plan: Plan, cut_scenes: Mapping[Kind, int]
) -> Callable[..., dict[str, Any]]:
    """What a part does; cuts are chosen on `cut_scenes`, if there are any."""
    from her2fast.training.backbones import input_statistics
    from her2fast.training.membrane_cuts import choose_cuts
    from her2fast.training.stages import fit_membranes

    def on_scenes(
        fabric: Any, run: Any, config: MembraneConfig, resume: bool, say: Any
    ) -> dict[str, Any]:
        train, val = scene_pieces(config.data.cache, part.counts, plan, say=say)
        say(f"train: {len(train)} tiles, val: {len(val)} tiles")
        source = {
            "part": part.name,
            "scenes": {kind.name: count for kind, count in part.counts.items()},
            "first_scene": FIRST_SEED,
            "scene_px": plan.side_px,
            "exposures": plan.exposures,
        }
        run.write_environment({"seed": config.run.seed, **source})

        def choose(network: Any, cut: float) -> tuple[Cuts, dict[str, Any]]:
            one = Plan(side_px=plan.side_px, exposures=1)
            pictures = [
                photograph(one, CUT_SCENE + k, kind)[0]
                for kind, count in cut_scenes.items()
                for k in range(count)
            ]
            return choose_cuts(
                network,
                cut,
                pictures,
                statistics=input_statistics(config.model),
                tile_px=min(config.data.tile_px, plan.side_px),
                halo_px=config.package.halo_px,
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
            choose if cut_scenes else None,
        )

    return on_scenes


if __name__ == "__main__":
    main()
