# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped package `constrained-tiny` on phantoms.

    python -m her2fast.training.tiny_recipe --out DIR --seed 0

`--coded` draws scenes of any laboratory and shows them compressed as scanners do, each
in two codings whose answers are to agree; with `--start`, as the shipped classifier was
trained further, docs/guide/phantoms.md.

The classifier comes from the stages of `her2fast train`, with the true classes of
patches where a laboratory has its slides' labels (`scene_classifier`). One thread a
network, no GPU, a fixed order: on one machine and torch version the same seed gives
the same package, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from her2fast.training.checkpoint import load_checkpoint, save_checkpoint
from her2fast.training.coding import SCANNERS, Coding, code_twice
from her2fast.training.domain_statistics import (
    Domain,
    JudgedClassifier,
    fit_domain,
)
from her2fast.training.looks import any_laboratory, wide_profile
from her2fast.training.losses import disagreement
from her2fast.training.networks import (
    TinyClassifier,
    TinyUNet,
    fold_norms,
    parameter_count,
)
from her2fast.training.packages import MEAN, STD, write_json
from her2fast.training.phantom_data import (
    DOMAIN_SEED,
    FIRST_SEED,
    Pictures,
    cached_pictures,
    check_same,
    crop_batches,
    make_pictures,
    normalize,
    patch_batches,
    phantom_sources_sha256,
    pictures_sha256,
    scene_patches,
)
from her2fast.training.restart import classifier_of, segmenter_of
from her2fast.training.scene_classifier import Trained, train_on_scenes
from her2fast.training.tiny_evaluation import (
    PATCH_PX,
    evaluate_coding,
    evaluate_phantoms,
)
from her2fast.training.tiny_package import model_hashes, origin, write_package

#: Side of the segmenter's training crops.
CROP_PX = 192
#: Patches that a classifier is trained on overlap by half.
STRIDE_PX = 32
#: Largest learning rate of the segmenter's AdamW from random weights, and of one that
#: was trained before.
RATE, FURTHER_RATE = 3e-3, 1e-3
#: Weight of what two codings of a crop disagree in, in the segmenter's loss.
SEGMENT_AGREEMENT = 6.0
#: File of a folder of `--runs` that says what its networks come from.
MADE_OF = "made_of.json"
#: Batches of training patches that the domain's statistics are taken of.
DOMAIN_STEPS = 80

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def _log(text: str) -> None:
    sys.stderr.write(text + "\n")


def _segmentation_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    mask, weight = truth[:, :1], truth[:, 1:]
    likelihood = functional.binary_cross_entropy_with_logits(logits, mask, weight)
    share = torch.sigmoid(logits)
    overlap = 2.0 * (share * mask).sum() + 1.0
    return likelihood + 0.25 * (1.0 - overlap / (share.sum() + mask.sum() + 1.0))


def _coded_twice(batches: Batches, seed: int) -> Batches:
    """Every crop of a batch in two codings: (2 N, ...), the truth twice."""
    random = torch.Generator().manual_seed(seed)
    for rgb, truth in batches:
        yield code_twice(rgb, random, SCANNERS), torch.cat([truth, truth])


def _disagreement(logits: torch.Tensor) -> torch.Tensor:
    """Of the two halves of a batch, by pixel."""
    first, second = (
        torch.stack([torch.zeros_like(half), half], 1)
        for half in logits.flatten().chunk(2)
    )
    return disagreement(first, second)


def _train_segmenter(
    network: TinyUNet, batches: Batches, steps: int, rate: float, agreement: float
) -> float:
    """AdamW with one cycle to `rate`; returns the mean loss of the last tenth.

    With `agreement` a batch holds every crop in two codings.
    """
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.15
    )
    losses: list[float] = []
    for step in range(steps):
        rgb, truth = next(batches)
        inputs = normalize(rgb, MEAN, STD).contiguous(memory_format=torch.channels_last)
        # Half precision is twice as fast where the CPU has it; weights stay in float32.
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(inputs)
        loss = _segmentation_loss(outputs.float(), truth)
        if agreement > 0.0:
            loss = loss + agreement * _disagreement(outputs.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % max(1, steps // 10) == 0:
            recent = float(np.mean(losses[-max(1, steps // 10) :]))
            _log(f"  segmenter step {step + 1}/{steps} loss {recent:.4f}")
    return float(np.mean(losses[-max(1, steps // 10) :]))


def _kept_segmenter(
    network: TinyUNet,
    batches: Batches,
    steps: int,
    rate: float,
    agreement: float,
    path: Path,
) -> float | None:
    """`_train_segmenter`, or what an earlier run left in `path`; None of no steps."""
    if steps == 0:
        return None
    if path.is_file():
        return float(load_checkpoint(path, network)["loss"])
    loss = _train_segmenter(network, batches, steps, rate, agreement)
    save_checkpoint(path, network, {"loss": loss})
    return loss


def _claim(runs: Path, made_of: dict[str, Any]) -> None:
    """Writes what networks under `runs` come from, or checks that it is the same."""
    runs.mkdir(parents=True, exist_ok=True)
    stored = runs / MADE_OF
    if stored.is_file() or any(runs.iterdir()):
        held = json.loads(stored.read_text("utf-8")) if stored.is_file() else {}
        check_same(runs, held, made_of, "--runs")
    else:
        write_json(stored, made_of)


def train_networks(
    pictures: Pictures,
    *,
    seed: int,
    segment_steps: int,
    epochs: tuple[int, int],
    samples: int,
    runs: Path | None = None,
    start: Path | None = None,
    coded: bool = False,
) -> tuple[TinyUNet, Trained | None, float | None]:
    """Train both networks; batch norms are folded in what comes back.

    Without `segment_steps` the segmenter, and without epochs the classifier, is not
    trained (None, and what `start` has).
    `start` is a package whose networks are trained further. What is under `runs` from a
    run that ended early, with these arguments, is not trained again; a folder of other
    pictures, another start, `coded` or rate is a `UsageError`. `coded` shows pictures
    compressed as scanners do.
    """
    known = None if start is None else classifier_of(start)
    torch.manual_seed(seed)
    segmenter = TinyUNet() if start is None else segmenter_of(start)
    crops = crop_batches(pictures, 8, CROP_PX, seed)
    if coded:
        crops = _coded_twice(crops, seed + 3)
    rate = RATE if start is None else FURTHER_RATE
    # Side by side, a thread each: they share nothing, so the bytes are the same.
    with (
        tempfile.TemporaryDirectory() as temporary,
        ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        folder = Path(temporary)
        if runs is not None:
            folder = runs
            made_of = {
                "start": None if start is None else model_hashes(start),
                "pictures": pictures_sha256(pictures),
                "coded": coded,
                "segmenter_rate": rate,
                "segmenter_agreement": SEGMENT_AGREEMENT if coded else 0.0,
            }
            _claim(runs, made_of)
        first = pool.submit(
            _kept_segmenter,
            segmenter,
            crops,
            segment_steps,
            rate,
            SEGMENT_AGREEMENT if coded else 0.0,
            folder / f"segmenter-{seed}-{segment_steps}.safetensors",
        )
        trained = None
        if epochs[0] > 0:
            trained = pool.submit(
                train_on_scenes,
                pictures,
                folder,
                patch_px=PATCH_PX,
                stride_px=STRIDE_PX,
                truth=True,
                seed=seed,
                epochs=epochs,
                samples=samples,
                say=lambda text: _log(f"  classifier {text}"),
                start=known,
                coded=coded,
            ).result()
        segment_loss = first.result()
    fold_norms(segmenter)
    return segmenter, trained, segment_loss


def judge_domain(
    classifier: TinyClassifier,
    pictures: Pictures,
    fresh: Pictures,
    *,
    seed: int,
    coding: Coding | None = None,
) -> tuple[JudgedClassifier, Domain]:
    """The classifier with its distances; cuts by `fresh` scenes of the same kind."""
    known = (
        (normalize(rgb, MEAN, STD), shares)
        for rgb, shares in patch_batches(pictures, 48, PATCH_PX, seed + 1, coding)
    )
    others = [
        (normalize(rgb, MEAN, STD), tumor)
        for rgb, tumor in scene_patches(fresh, PATCH_PX, seed + 2, coding)
    ]
    return fit_domain(classifier, known, others, steps=DOMAIN_STEPS, mean=MEAN, std=STD)


def main(arguments: list[str] | None = None) -> None:
    """Generate, train, evaluate on fresh phantoms, write the package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of scenes")
    parser.add_argument(
        "--crowded", type=float, default=0.0, help="share with much that is no tumor"
    )
    parser.add_argument("--exposures", type=int, default=1)
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--segment-steps", type=int, default=3600)
    parser.add_argument("--pretrain-epochs", type=int, default=16)
    parser.add_argument("--constrained-epochs", type=int, default=6)
    parser.add_argument("--epoch-patches", type=int, default=12_288)
    parser.add_argument("--processes", type=int, default=2, help="that render")
    parser.add_argument("--domain-scenes", type=int, default=48)
    parser.add_argument("--test-scenes", type=int, default=12)
    parser.add_argument("--cache", type=Path, help="keep the phantoms in this .npz")
    parser.add_argument(
        "--coded", action="store_true", help="any laboratory, compressed pictures, too"
    )
    parser.add_argument(
        "--finer",
        action="store_true",
        help="with --coded: drawn at half of the spacing",
    )
    parser.add_argument("--start", type=Path, help="package that is trained further")
    parser.add_argument("--runs", type=Path, help="keep, and go on from, trained parts")
    chosen = parser.parse_args(arguments)
    if chosen.start is None and not (chosen.segment_steps and chosen.pretrain_epochs):
        parser.error("need --start for a network that is not trained")
    if chosen.constrained_epochs and not chosen.pretrain_epochs:
        parser.error("need --pretrain-epochs with --constrained-epochs, or 0 of both")
    if not 0.0 <= chosen.crowded <= 1.0:
        parser.error(f"need 0 <= --crowded <= 1, got {chosen.crowded}")
    if chosen.finer and not chosen.coded:
        parser.error("need --coded with --finer: only what is compressed is finer")

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    began = time.monotonic()
    laboratory = any_laboratory if chosen.coded else wide_profile
    pictures = cached_pictures(
        chosen.cache,
        chosen.scenes,
        chosen.size_px,
        chosen.exposures,
        chosen.processes,
        first_seed=chosen.first_seed,
        laboratory=laboratory,
        raw=chosen.coded,
        finer=chosen.finer,
        crowded=chosen.crowded,
    )
    _log(f"phantoms ready after {time.monotonic() - began:.0f} s")
    segmenter, trained, segment_loss = train_networks(
        pictures,
        seed=chosen.seed,
        segment_steps=chosen.segment_steps,
        epochs=(chosen.pretrain_epochs, chosen.constrained_epochs),
        samples=chosen.epoch_patches,
        runs=chosen.runs,
        start=chosen.start,
        coded=chosen.coded,
    )
    _log(f"trained after {time.monotonic() - began:.0f} s")
    # A classifier that is not trained keeps its distances and their cuts, too.
    judged = None
    if trained is None:
        classifier = classifier_of(chosen.start)
    else:
        classifier = trained.network
        fresh = make_pictures(
            chosen.domain_scenes,
            chosen.size_px,
            1,
            first_seed=DOMAIN_SEED,
            laboratory=laboratory,
            empty_share=0.0,
            raw=chosen.coded,
            finer=chosen.finer,
        )
        judged = judge_domain(
            classifier,
            pictures,
            fresh,
            seed=chosen.seed,
            coding=SCANNERS if chosen.coded else None,
        )
    figures = evaluate_phantoms(segmenter, classifier, count=chosen.test_scenes)
    stored = evaluate_coding(segmenter, classifier, count=chosen.test_scenes)
    training = {
        "recipe": "python -m her2fast.training.tiny_recipe",
        "coded": chosen.coded,
        "finer": chosen.finer,
        "started_from": None if chosen.start is None else origin(chosen.start),
        "seed": chosen.seed,
        "scenes": chosen.scenes,
        "first_seed": chosen.first_seed,
        "crowded": chosen.crowded,
        "laboratory": laboratory.__name__,
        "exposures": chosen.exposures,
        "size_px": chosen.size_px,
        "domain_scenes": chosen.domain_scenes,
        "segment_steps": chosen.segment_steps,
        "pretrain_epochs": chosen.pretrain_epochs,
        "constrained_epochs": chosen.constrained_epochs,
        "epoch_patches": chosen.epoch_patches,
        "segment_parameters": parameter_count(segmenter),
        "classify_parameters": parameter_count(classifier),
        "final_segment_loss": (
            None if segment_loss is None else round(segment_loss, 5)
        ),
        "classifier": None if trained is None else trained.facts,
        "held_out_phantoms": figures,
        "held_out_phantoms_compressed": stored,
        "phantom_sources_sha256": phantom_sources_sha256(),
        "torch": torch.__version__,
    }
    digests = write_package(
        chosen.out,
        None if segment_loss is None else segmenter,
        judged,
        training,
        start=chosen.start,
    )
    for name, digest in digests.items():
        _log(f"{name} sha256 {digest}")
    _log(f"held out: {figures}")
    _log(f"done after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
