# SPDX-License-Identifier: Apache-2.0
"""The shipped classifier's recipe: the stages of `her2fast train`, each scene a slide.

Phantoms know the classes of every patch, so pretraining learns from these (`truth`)
where a laboratory has the slide's label on all its patches. The constrained stage and
the calibration see labels of scenes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from her2fast import guidelines
from her2fast.manifest import LABELS, Entry
from her2fast.training.calibrate import calibrated, fit_calibration
from her2fast.training.checkpoint import load_checkpoint
from her2fast.training.classify import CLASSES, predict
from her2fast.training.coding import SCANNERS
from her2fast.training.cohort import TrainingSlide
from her2fast.training.config import ConstrainedConfig, PretrainConfig
from her2fast.training.config_sections import (
    Augment,
    Calibration,
    Compute,
    Data,
    Model,
    Optimizer,
    Run,
    Train,
)
from her2fast.training.constrained import ConstrainedWork
from her2fast.training.loop import StageWork, fit, open_fabric
from her2fast.training.networks import TinyClassifier, fold_norms
from her2fast.training.packages import MEAN, STD
from her2fast.training.patches import Longs, Pieces
from her2fast.training.phantom_data import MIN_TUMOR, Pictures, patch_areas
from her2fast.training.pretrain import PretrainWork
from her2fast.training.run_folder import RunFolder

Say = Callable[[str], None]

#: The rule that says what a scene's label is, on its true tumor pixels.
LABEL_RULE = "pham-2022"
#: Largest learning rate from random weights, and of a network that was trained before.
RATE, FURTHER_RATE = 3e-3, 1e-3
#: One scene in so many validates.
VAL_EVERY = 5
#: Turns and flips, and other stains and scanners in place of shifts of color.
AUGMENT = Augment(
    looks=True, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur_share=0.0
)
#: The same, compressed as scanners do; pretraining sees each picture in two codings.
CODED = AUGMENT.model_copy(update={"jpeg_share": SCANNERS.share})
#: Weight of what two codings of a patch disagree in. With 4 fewer of the slides' shares
#: stayed within half a point (docs/design/training.md).
AGREEMENT = 12.0
CODED_TWICE = CODED.model_copy(update={"jpeg_agreement": AGREEMENT})
STATISTICS = (MEAN, STD)


@dataclass(frozen=True)
class Trained:
    """A trained network, batch norms folded.

    A calibration that was kept is in the last layer's bias.
    """

    network: TinyClassifier
    facts: dict[str, Any]


def scene_pieces(
    pictures: Pictures, patch_px: int, stride_px: int
) -> tuple[Pieces, Pieces]:
    """Patches with more than a tenth of tumor, by scene: train and val.

    A scene without such a patch takes no part. Column `shares` holds the true class
    shares of each patch's tumor.
    """
    parts: dict[str, list[tuple[TrainingSlide, dict[str, npt.NDArray[Any]]]]] = {
        "train": [],
        "val": [],
    }
    for scene, class_map in enumerate(pictures.class_map):
        areas = patch_areas(class_map, patch_px, stride_px)
        tumor = areas.sum(-1)
        row, column = np.nonzero(tumor > MIN_TUMOR * patch_px * patch_px)
        if not len(row):
            continue
        score = guidelines.decide([int(n) for n in areas.sum((0, 1))], LABEL_RULE).score
        assert score is not None
        label = LABELS.index(score)
        source = pictures.rgb[scene, 0]
        rgb = np.stack(
            [
                source[y : y + patch_px, x : x + patch_px]
                for y, x in zip(
                    (row * stride_px).tolist(),
                    (column * stride_px).tolist(),
                    strict=True,
                )
            ]
        )
        name = f"scene-{scene:05d}"
        part = "val" if scene % VAL_EVERY == 0 else "train"
        slide = TrainingSlide(
            id=name,
            entry=Entry(slide=name, label=score, patient=name),
            label=label,
            shares=tuple(float(kind == label) for kind in range(CLASSES)),
            part=part,
        )
        arrays = {
            "rgb": rgb,
            "tumor_px": tumor[row, column].astype(np.uint32),
            "shares": (areas[row, column] / tumor[row, column, None]).astype(
                np.float32
            ),
            "scene": np.full(len(row), scene, np.int32),
            "row": row.astype(np.int32),
            "column": column.astype(np.int32),
        }
        parts[part].append((slide, arrays))
    if not parts["train"] or not parts["val"]:
        raise ValueError("need scenes with tumor to train on and to validate")
    return _pieces(parts["train"]), _pieces(parts["val"])


class FinerPatches:
    """Patches of `scene_pieces` at half of their spacing, cut when they are asked for.

    Held as patches they would be many times their pictures, for they overlap.
    """

    def __init__(
        self,
        pictures: npt.NDArray[np.uint8],
        pieces: Pieces,
        patch_px: int,
        stride_px: int,
    ) -> None:
        """`pictures` are (scenes, exposures, 2 H, 2 W, 3); the first exposure's."""
        self._pictures = pictures
        self._side_px = 2 * patch_px
        self._scene = pieces.column("scene")
        self._y, self._x = (
            2 * stride_px * pieces.column(name) for name in ("row", "column")
        )

    def __call__(self, index: Longs) -> npt.NDArray[np.uint8]:
        """(n, 2 P, 2 P, 3) uint8."""
        side = self._side_px
        return np.stack(
            [
                self._pictures[scene, 0, y : y + side, x : x + side]
                for scene, y, x in zip(
                    self._scene[index].tolist(),
                    self._y[index].tolist(),
                    self._x[index].tolist(),
                    strict=True,
                )
            ]
        )


def _pieces(
    found: list[tuple[TrainingSlide, dict[str, npt.NDArray[Any]]]],
) -> Pieces:
    return Pieces.of([slide for slide, _ in found], [arrays for _, arrays in found])


def train_on_scenes(
    pictures: Pictures,
    runs: Path,
    *,
    patch_px: int,
    stride_px: int,
    truth: bool,
    seed: int,
    epochs: tuple[int, int],
    samples: int,
    say: Say,
    start: TinyClassifier | None = None,
    coded: bool = False,
) -> Trained:
    """Pretrain, train constrained, calibrate; run folders under `runs`.

    Parameters
    ----------
    pictures : Pictures
    runs : path
        `pretrain` and `constrained` are written here, as `her2fast train` does.
    patch_px, stride_px : int
    truth : bool
        Pretrain on the true classes of patches, not on the label of their scene.
    seed : int
    epochs : (int, int)
        Of pretraining and of constrained training; 0 of the latter leaves it out.
    samples : int
        Patches of an epoch of pretraining; labels are drawn equally often.
    start : TinyClassifier, optional
        Trained and folded; it is trained further, by smaller steps.
    coded : bool
        Compress patches as scanners do, each in two codings; from half of the spacing
        where `pictures` have it.
    """
    train, val = scene_pieces(pictures, patch_px, stride_px)
    targets = (train.column("shares"), val.column("shares")) if truth else None
    torch.manual_seed(seed)
    compute = Compute(threads=1, workers=1, precision="bf16-mixed")
    fabric = open_fabric(compute)
    data = Data(manifest=runs, cache=runs)  # the pieces are here already
    first = PretrainConfig(
        run=Run(seed=seed),
        data=data,
        model=Model(backbone="tiny"),
        optimizer=Optimizer(
            name="adamw",
            lr=RATE if start is None else FURTHER_RATE,
            schedule="one-cycle",
        ),
        train=Train(
            epochs=epochs[0],
            batch_size=32 if coded else 64,  # as many pictures: two codings of each
            patience=0,
            samples_per_epoch=samples,
            balance=["label"],
        ),
        augment=CODED_TWICE if coded else AUGMENT,
        compute=compute,
    )
    network = TinyClassifier(CLASSES)
    if start is not None:
        fold_norms(network)
        network.features.load_state_dict(start.features.state_dict())
        network.head.load_state_dict(start.head.state_dict())
    finer = None
    if coded and pictures.finer is not None:
        finer = FinerPatches(pictures.finer, train, patch_px, stride_px)
    work = PretrainWork(fabric, first, train, val, STATISTICS, targets, finer)
    run = RunFolder(runs / "pretrain", "pretrain")
    best = {"pretrain": _run(fabric, run, first, network, work, say)}
    if epochs[1] > 0:
        second = ConstrainedConfig(
            run=Run(seed=seed),
            data=data,
            start=runs / "pretrain",
            optimizer=Optimizer(lr=1e-4),
            train=Train(epochs=epochs[1], batch_size=64, patience=0),
            augment=CODED if coded else AUGMENT,
            compute=compute,
        )
        run = RunFolder(runs / "constrained", "constrained")
        best["constrained"] = _run(
            fabric,
            run,
            second,
            network,
            ConstrainedWork(fabric, second, train, val, STATISTICS, run),
            say,
        )
    fold_norms(network)
    exact = open_fabric(Compute(threads=1, workers=1))
    logits = predict(exact, network, val, STATISTICS)
    fitted = fit_calibration(logits, val, Calibration(), seed, 1)
    kinds = val.column("shares").argmax(1)
    right = [
        float((calibrated(logits, values, fitted.mode).argmax(1) == kinds).mean())
        for values in (None, fitted.values)
    ]
    # The labels of scenes ask for a tenth of a class; the patches know better.
    kept = fitted.mode == "bias" and (not truth or right[1] >= right[0])
    if kept:
        with torch.no_grad():
            network.head.bias.add_(torch.tensor(fitted.values))
    facts = {
        "label_rule": LABEL_RULE,
        "train_scenes": len(train.slides),
        "val_scenes": len(val.slides),
        "train_patches": len(train),
        "best_epochs": best,
        "calibration": fitted.facts,
        "val_patches_right": right[0],
        "val_patches_right_calibrated": right[1],
        "calibration_kept": kept,
    }
    return Trained(network, facts)


def _run(
    fabric: Any,
    run: RunFolder,
    config: PretrainConfig | ConstrainedConfig,
    network: TinyClassifier,
    work: StageWork,
    say: Say,
) -> int:
    """Train in place, as `her2fast train` does; the best epoch's weights stay.

    Returns that epoch; 0 is the start.
    """
    resume = run.open(config.model_dump(mode="json"), "")
    try:
        facts = fit(fabric, run, network, work, config, resume=resume, say=say)
        run.finish(facts)
        load_checkpoint(run.best, network)
        return int(facts["best_epoch"])
    finally:
        run.close()
