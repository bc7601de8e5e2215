# SPDX-License-Identifier: Apache-2.0
"""Runs one stage from its configuration into its run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from her2fast.errors import UsageError
from her2fast.training.backbones import (
    input_statistics,
    make_classifier,
    make_segmenter,
)
from her2fast.training.calibrate import calibrated, fit_calibration
from her2fast.training.checkpoint import checkpoint_state, load_checkpoint
from her2fast.training.classify import CLASSES, predict, slide_figures
from her2fast.training.cohort import Cohort, load_cohort
from her2fast.training.config import (
    CONFIGS,
    CalibrateConfig,
    ConstrainedConfig,
    EpitheliumConfig,
    MembraneConfig,
    PretrainConfig,
    SegmentConfig,
    StageConfig,
)
from her2fast.training.config_file import load_config
from her2fast.training.config_sections import Data, Model
from her2fast.training.constrained import ConstrainedWork
from her2fast.training.epithelium import fit_machine, samples_of, write_epithelium
from her2fast.training.histogram import HistogramMatch, read_reference
from her2fast.training.loop import Say, StageWork, epoch_seed, fit, open_fabric
from her2fast.training.membrane import MembraneWork
from her2fast.training.membrane_network import (
    Cuts,
    Packaged,
    make_membrane_network,
)
from her2fast.training.method_package import (
    write_membrane,
    write_method,
    write_segmenter,
)
from her2fast.training.networks import parameter_count
from her2fast.training.patches import Dataset, Pieces, segmenter_of
from her2fast.training.pretrain import PretrainWork
from her2fast.training.run_folder import RunFolder, finished_run
from her2fast.training.segment import SegmentWork

PACKAGE = "package"
ChooseCuts = Callable[[nn.Module, float], tuple[Cuts, dict[str, Any]]]
#: What a stage trains and validates on.
PARTS = ("train", "val")


def run_stage(
    stage: str,
    config_file: Path,
    out: Path,
    *,
    changes: Sequence[str] = (),
    say: Say,
) -> dict[str, Any]:
    """Train one stage; a run that was killed goes on where it was.

    Raises `UsageError`, `DeviceError`, `SlideError`. Returns what `run.json` says.
    """
    config, text = load_config(config_file, CONFIGS[stage], changes)
    return run_configured(stage, config, text, out, _RUNNERS[stage], say=say)


def run_configured(
    stage: str,
    config: Any,
    text: str,
    out: Path,
    runner: Callable[..., dict[str, Any]],
    *,
    say: Say,
) -> dict[str, Any]:
    """`run_stage` of a configuration in memory; `text` is kept as its file.

    `runner` takes fabric, run folder, configuration, whether to go on, and `say`.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    if config.compute.accelerator == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fabric = open_fabric(config.compute)
    quiet: Say = say if fabric.is_global_zero else _silent
    run = RunFolder(out, stage)
    resume = _open(fabric, run, config, text)
    try:
        outcome = run.outcome()
        if outcome is not None:
            quiet(f"{out}: this run has finished")
            return outcome
        facts = runner(fabric, run, config, resume, quiet)
        if fabric.is_global_zero:
            run.finish(facts)
        return {"stage": stage, "status": "finished", **facts}
    finally:
        run.close()


def _open(fabric: Any, run: RunFolder, config: StageConfig, text: str) -> bool:
    resume = False
    if fabric.is_global_zero:
        resume = run.open(config.model_dump(mode="json"), text)
    fabric.barrier()
    return bool(fabric.broadcast(resume))


def _data(
    fabric: Any, config: StageConfig, kind: str, parts: Sequence[str], say: Say
) -> tuple[Cohort, Dataset, list[Pieces]]:
    """Read the manifest, cut what the cache lacks (one process), map the rest."""
    data: Data = config.data
    cohort = load_cohort(
        data.manifest,
        splits=data.splits,
        fold=data.fold,
        labels=data.labels,
        need_labels=kind == "patches",
    )
    for note in cohort.notes:
        say(f"note: {note}")
    if not fabric.is_global_zero:
        fabric.barrier()  # the first process cuts; the others find its entries
    dataset = Dataset(data, config.compute, kind, say=say)
    pieces = [dataset.pieces(cohort.part(part)) for part in parts]
    if fabric.is_global_zero:
        fabric.barrier()
    for part, found in zip(parts, pieces, strict=True):
        say(f"{part}: {len(found.slides)} slides, {len(found)} {kind}")
    return cohort, dataset, pieces


def _environment(
    config: StageConfig, cohort: Cohort, dataset: Dataset
) -> dict[str, Any]:
    return {
        "seed": config.run.seed,
        "manifest_sha256": cohort.manifest_sha256,
        "split_sha256": cohort.split_sha256,
        "fingerprints": dataset.fingerprints,
        "left_out": dataset.skipped,
        "segmenter_sha256": dataset.segmenter.sha256 if dataset.segmenter else None,
        "threads": torch.get_num_threads(),
    }


def _fit(
    fabric: Any,
    run: RunFolder,
    config: Any,
    network: nn.Module,
    work: StageWork,
    resume: bool,
    say: Say,
) -> dict[str, Any]:
    say(f"{parameter_count(network)} parameters on {fabric.device}")
    facts = fit(fabric, run, network, work, config, resume=resume, say=say)
    say(f"best: epoch {facts['best_epoch']}, {facts['monitor']} {facts['best']:.5g}")
    return facts


def _segment(
    fabric: Any, run: RunFolder, config: SegmentConfig, resume: bool, say: Say
) -> dict[str, Any]:
    _check_no_package(run)
    cohort, dataset, (train, val) = _data(
        fabric, config, "tiles", ("train", "val"), say
    )
    if fabric.is_global_zero:
        run.write_environment(_environment(config, cohort, dataset))
    torch.manual_seed(epoch_seed(config.run.seed, 0))
    network = make_segmenter(config.model, weights=not resume)
    statistics = input_statistics(config.model)
    work = SegmentWork(fabric, config, train, val, statistics)
    say(f"weight of tumor in the loss: {work.alpha:.3f}")
    facts = _fit(fabric, run, config, network, work, resume, say)
    facts["alpha"] = work.alpha
    facts["parameters"] = parameter_count(network)
    if fabric.is_global_zero:
        load_checkpoint(run.best, network)
        facts["sha256"] = write_segmenter(
            run.root / PACKAGE,
            network,
            package=config.package,
            backbone=config.model.backbone,
            statistics=statistics,
            spacing_um=config.data.spacing_um,
        )
        from her2fast.models.trust import trust

        trust({facts["sha256"]: config.package.name})
        say(f"segmenter: {run.root / PACKAGE}")
    return facts


def _membrane(
    fabric: Any, run: RunFolder, config: MembraneConfig, resume: bool, say: Say
) -> dict[str, Any]:
    # Before slides are cut, which takes long.
    _check_no_package(run)
    _matching(config)
    cohort, dataset, (train, val) = _data(fabric, config, "membranes", PARTS, say)
    if fabric.is_global_zero:
        run.write_environment(_environment(config, cohort, dataset))
    source = {
        "manifest_sha256": cohort.manifest_sha256,
        "split_sha256": cohort.split_sha256,
    }
    return fit_membranes(fabric, run, config, train, val, source, resume, say)


def _check_no_package(run: RunFolder) -> None:
    if (run.root / PACKAGE).exists():
        raise UsageError(f"{run.root / PACKAGE}: exists already; remove it")


def _matching(config: MembraneConfig) -> HistogramMatch | None:
    reference = config.histogram.reference
    if reference is None:
        return None
    return HistogramMatch(read_reference(reference), *input_statistics(config.model))


def fit_membranes(
    fabric: Any,
    run: RunFolder,
    config: MembraneConfig,
    train: Pieces,
    val: Pieces,
    source: dict[str, Any],
    resume: bool,
    say: Say,
    choose: ChooseCuts | None = None,
) -> dict[str, Any]:
    """Train on pieces with masks, write the package; `source`: whence they are.

    `choose` is given the network and its one best cut, and returns the package's cuts
    and what is to be said of them.
    """
    _check_no_package(run)
    statistics = input_statistics(config.model)
    match = _matching(config)
    torch.manual_seed(epoch_seed(config.run.seed, 0))
    network = make_membrane_network(config.model, weights=not resume)
    work = MembraneWork(fabric, config, train, val, statistics, match)
    say(f"weight of membrane in the loss: {work.beta:.3f}")
    facts = _fit(fabric, run, config, network, work, resume, say)
    facts["beta"] = work.beta
    facts["parameters"] = parameter_count(network)
    if fabric.is_global_zero:
        load_checkpoint(run.best, network)
        best = checkpoint_state(run.best)
        cuts = Cuts(best["val_cut"] if config.package.cut == "best" else 0.0)
        facts["cut"], facts["cuts"] = cuts.high, asdict(cuts)
        if choose is not None:
            cuts, figures = choose(network.eval(), cuts.high)
            facts["cuts"] = {**asdict(cuts), **figures}
            say(f"cuts: {facts['cuts']}")
        facts["sha256"] = write_membrane(
            run.root / PACKAGE,
            Packaged(network, cuts, match),
            package=config.package,
            backbone=config.model.backbone,
            statistics=statistics,
            spacing_um=config.data.spacing_um,
            tile_px=config.data.tile_px,
            training={
                "stage": "membrane",
                "checkpoint": best,
                "cut": facts["cut"],
                "cuts": facts["cuts"],
                "beta": work.beta,
                "parameters": facts["parameters"],
                "train_tiles": len(train),
                "val_tiles": len(val),
                **source,
                "seed": config.run.seed,
                "torch": torch.__version__,
            },
        )
        say(f"package: {run.root / PACKAGE}")
    return facts


def _epithelium(
    fabric: Any, run: RunFolder, config: EpitheliumConfig, resume: bool, say: Say
) -> dict[str, Any]:
    _check_no_package(run)
    cohort, dataset, pieces = _data(fabric, config, "tiles", PARTS, say)
    if not fabric.is_global_zero:
        return {}
    environment = _environment(config, cohort, dataset)
    run.write_environment(environment)
    train, val = (samples_of(part, config) for part in pieces)
    say(f"superpixels of tissue: {len(train)} to train, {len(val)} to validate")
    machine, facts = fit_machine(train, val, config, say)
    folder = run.root / PACKAGE
    facts = {
        "train_superpixels": len(train),
        "val_superpixels": len(val),
        **facts,
        "sigma": config.svm.sigma,
        "scale": config.svm.scale,
    }
    training = {
        "stage": "epithelium",
        **facts,
        "manifest_sha256": cohort.manifest_sha256,
        "split_sha256": cohort.split_sha256,
        "seed": config.run.seed,
    }
    facts["sha256"] = write_epithelium(folder, machine, config, training)
    say(f"package: {folder}  (her2fast epithelium SLIDES -m {folder} -o OUT)")
    return facts


def _pretrain(
    fabric: Any, run: RunFolder, config: PretrainConfig, resume: bool, say: Say
) -> dict[str, Any]:
    cohort, dataset, (train, val) = _data(fabric, config, "patches", PARTS, say)
    if fabric.is_global_zero:
        run.write_environment(_environment(config, cohort, dataset))
    torch.manual_seed(epoch_seed(config.run.seed, 0))
    network = make_classifier(config.model, CLASSES, weights=not resume)
    work = PretrainWork(fabric, config, train, val, input_statistics(config.model))
    return {
        **_fit(fabric, run, config, network, work, resume, say),
        "model": config.model.model_dump(mode="json"),
        "parameters": parameter_count(network),
    }


def _constrained(
    fabric: Any, run: RunFolder, config: ConstrainedConfig, resume: bool, say: Say
) -> dict[str, Any]:
    start, model, network = _started(config.start, ("pretrain",))
    cohort, dataset, (train, val) = _data(fabric, config, "patches", PARTS, say)
    _check_split(start, cohort, dataset, config.start)
    if fabric.is_global_zero:
        run.write_environment(_environment(config, cohort, dataset))
    work = ConstrainedWork(fabric, config, train, val, input_statistics(model), run)
    return {
        **_fit(fabric, run, config, network, work, resume, say),
        "model": model.model_dump(mode="json"),
        "parameters": parameter_count(network),
        "start_epoch": checkpoint_state(start.best)["epoch"],
    }


def _calibrate(
    fabric: Any, run: RunFolder, config: CalibrateConfig, resume: bool, say: Say
) -> dict[str, Any]:
    start, model, network = _started(config.start, ("pretrain", "constrained"))
    parts = list(config.calibration.on)
    cohort, dataset, pieces = _data(fabric, config, "patches", parts, say)
    _check_split(start, cohort, dataset, config.start)
    network = fabric.setup_module(network)
    statistics = input_statistics(model)
    together = _joined(pieces)
    logits = predict(fabric, network, together, statistics)
    fitted = fit_calibration(
        logits,
        together,
        config.calibration,
        config.run.seed,
        config.compute.workers,
    )
    facts = fitted.facts
    say(
        f"{facts['mode']} {[round(v, 4) for v in facts['values']]}: loss "
        f"{facts['loss_before']:.4f} -> {facts['loss_after']:.4f}, slides right "
        f"{facts['slide_accuracy_before']:.3f} -> {facts['slide_accuracy_after']:.3f}"
    )
    if facts["identity_because"]:
        say(f"no calibration: {facts['identity_because']}")
    environment = _environment(config, cohort, dataset)
    outcome = {
        "start_stage": start.stage,
        "calibration": facts,
        "figures": slide_figures(
            calibrated(logits, fitted.values, fitted.mode).astype("float32"), together
        ),
    }
    if fabric.is_global_zero:
        run.write_environment(environment)
        bare = network.module if hasattr(network, "module") else network
        folder = run.root / PACKAGE
        outcome["sha256"] = write_method(
            folder,
            bare,
            segmenter=dataset.segmenter or segmenter_of(config.package.segmenter),
            package=config.package,
            backbone=model.backbone,
            statistics=statistics,
            spacing_um=config.data.spacing_um,
            calibration=fitted.calibration,
            training={
                "stage": start.stage,
                "checkpoint": checkpoint_state(start.best),
                "calibration": facts,
                "manifest_sha256": cohort.manifest_sha256,
                "split_sha256": cohort.split_sha256,
                "seed": config.run.seed,
                "torch": torch.__version__,
            },
        )
        say(f"package: {folder}  (her2fast score SLIDES -m {folder} -o OUT)")
    return outcome


def _started(place: Path, stages: Sequence[str]) -> tuple[RunFolder, Model, nn.Module]:
    """A finished run, its model, and the network with the run's best weights."""
    start = finished_run(place, stages)
    outcome = start.outcome() or {}
    model = Model.model_validate(outcome["model"])
    network = make_classifier(model, CLASSES, weights=False)
    load_checkpoint(start.best, network)
    return start, model, network


def _check_split(
    start: RunFolder, cohort: Cohort, dataset: Dataset, place: Path
) -> None:
    """A later stage on another division would validate on slides it was trained on."""
    before = start.environment()
    if before.get("split_sha256") != cohort.split_sha256:
        raise UsageError(
            f"{place}: was trained on another division of slides (split_sha256 "
            f"{str(before.get('split_sha256'))[:12]} there, "
            f"{cohort.split_sha256[:12]} here); name the same splits and fold"
        )
    here = dataset.segmenter.sha256 if dataset.segmenter else None
    if before.get("segmenter_sha256") != here:
        raise UsageError(
            f"{place}: was trained with another segmenter; name the same one, or none"
        )


def _joined(pieces: Sequence[Pieces]) -> Pieces:
    return Pieces.of(
        [slide for one in pieces for slide in one.slides],
        [array for one in pieces for array in one.arrays],
    )


def _silent(text: str) -> None:
    """What the other processes say."""


_RUNNERS: dict[str, Callable[..., dict[str, Any]]] = {
    "segment": _segment,
    "pretrain": _pretrain,
    "constrained": _constrained,
    "calibrate": _calibrate,
    "membrane": _membrane,
    "epithelium": _epithelium,
}
