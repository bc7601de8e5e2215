# SPDX-License-Identifier: Apache-2.0
"""`her2fast train epithelium`: superpixels told apart by a support vector machine
(Khameneh et al., 2019, section 2.1 to 2.3; decisions K4). Needs scikit-learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from her2fast.errors import UsageError
from her2fast.kernels import tissue_mask
from her2fast.kernels.epithelium import (
    FEATURE_ONE,
    superpixel_features,
    superpixel_roots,
    superpixels,
)
from her2fast.models.config import SuperpixelSvm
from her2fast.models.package import VECTORS_FILE
from her2fast.models.superpixel_svm import Machine
from her2fast.models.trust import trust
from her2fast.training.config import EpitheliumConfig
from her2fast.training.config_sections import HALO_PX, TILE_PX, Svm
from her2fast.training.extract import IGNORED, TUMOR
from her2fast.training.loop import epoch_seed
from her2fast.training.packages import write_json
from her2fast.training.patches import Pieces

Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Say = Callable[[str], None]

#: A superpixel counts with at least this share of tissue, and of labelled pixels.
MIN_SHARE = 0.5
TASK, CLASS_NAME, ARCHITECTURE = "segment", "epithelium", "superpixel-svm"


@dataclass(frozen=True)
class Samples:
    """Superpixels of tissue of some slides; n rows.

    Attributes
    ----------
    features : (n, 234) ndarray of int16
    inside_px, labelled_px : (n,) ndarray of int64
        Labelled pixels that are epithelium, and all that are labelled.
    slide : (n,) ndarray of int64
        Number of the slide.
    """

    features: npt.NDArray[np.int16]
    inside_px: Longs
    labelled_px: Longs
    slide: Longs

    def __len__(self) -> int:
        return len(self.slide)

    def pure(self, share: float) -> tuple[Longs, npt.NDArray[np.bool_]]:
        """Rows of which at least `share` is of one kind, and whether epithelium."""
        inside = self.inside_px / self.labelled_px
        rows = np.flatnonzero((inside >= share) | (inside <= 1 - share))
        return rows, inside[rows] >= 0.5


def samples_of(pieces: Pieces, config: EpitheliumConfig) -> Samples:
    """Every superpixel of tissue in the tiles of the slides, in their order, under the
    tile's own look and the others that are asked for.
    """
    rule = config.superpixels

    def of_tile(place: tuple[int, int, int]) -> list[npt.NDArray[Any]]:
        slide, index, look = place
        arrays = pieces.arrays[slide]
        rgb = np.array(arrays["rgb"][index])
        mask = np.asarray(arrays["mask"][index])
        is_tissue = tissue_mask(rgb) > 0
        if look > 0:
            rgb = _other_look(rgb, epoch_seed(config.run.seed, look, slide, index))
        labels, count = superpixels(rgb, **rule.model_dump())
        flat = labels.ravel()

        def pixels(chosen: npt.NDArray[np.bool_]) -> Longs:
            return np.bincount(flat[chosen.ravel()], minlength=count)

        size, labelled = np.bincount(flat, minlength=count), pixels(mask != IGNORED)
        tissue = pixels(is_tissue)
        kept = (tissue >= MIN_SHARE * size) & (labelled >= MIN_SHARE * size)
        features = superpixel_roots(superpixel_features(rgb, labels, count))
        return [
            features[kept],
            pixels(mask == TUMOR)[kept],
            labelled[kept],
            np.full(int(kept.sum()), slide),
        ]

    places = [
        (slide, index, look)
        for slide, arrays in enumerate(pieces.arrays)
        for index in range(len(arrays["rgb"]))
        for look in range(config.svm.looks + 1)
    ]
    with ThreadPoolExecutor(config.compute.workers) as pool:
        parts = list(pool.map(of_tile, places))
    return Samples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _other_look(rgb: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    from her2fast.training import looks

    random = torch.Generator().manual_seed(seed)
    changed = looks.augment(torch.from_numpy(rgb)[None], random, looks.FOR_TUMOR)
    return np.ascontiguousarray(changed[0].numpy())


def chosen_rows(samples: Samples, svm: Svm, seed: int) -> tuple[Longs, Any]:
    """Rows to train on: of both kinds alike, from every slide as evenly as it goes."""
    rows, inside = samples.pure(svm.pure_share)
    rng = np.random.default_rng(seed)
    picked = []
    for kind in (False, True):
        own = rows[inside == kind]
        if len(own) == 0:
            raise UsageError(
                f"no superpixel of the training slides is "
                f"{'epithelium' if kind else 'anything but epithelium'}"
            )
        # The k-th of every slide before the k + 1-st of any.
        own = rng.permutation(own)
        order = np.argsort(samples.slide[own], kind="stable")
        turn = np.empty(len(own), np.int64)
        slides = samples.slide[own][order]
        starts = np.searchsorted(slides, slides)
        turn[order] = np.arange(len(own)) - starts
        own = own[np.argsort(turn, kind="stable")][: svm.max_superpixels // 2]
        picked.append(np.sort(own))
    found = np.concatenate(picked)
    labels = np.repeat([False, True], [len(one) for one in picked])
    return found, labels


def fit_machine(
    train: Samples, val: Samples, config: EpitheliumConfig, say: Say
) -> tuple[Machine, dict[str, Any]]:
    """The machine with the best Dice on the validation slides, and its figures."""
    from sklearn.svm import SVC

    svm, rule = config.svm, config.superpixels
    rows, labels = chosen_rows(train, svm, config.run.seed)
    unit = svm.scale / FEATURE_ONE
    gamma = 1.0 / (2.0 * svm.sigma**2)
    inputs = train.features[rows] * unit
    best: tuple[Machine, dict[str, Any]] | None = None
    for cost in svm.cost:
        fitted = SVC(C=cost, kernel="rbf", gamma=gamma, cache_size=500)
        fitted.fit(inputs, labels)
        machine = Machine(
            SuperpixelSvm(
                **rule.model_dump(),
                gamma=gamma * unit**2,
                intercept=float(fitted.intercept_[0]),
                slope=1.0,
                offset=0.0,
            ),
            np.ascontiguousarray(train.features[rows[fitted.support_]]),
            np.ascontiguousarray(fitted.dual_coef_[0], dtype=np.float64),
        )
        decisions = machine.decisions(val.features)
        slope, offset = logistic_line(decisions, val)
        machine = Machine(
            machine.rule.model_copy(update={"slope": slope, "offset": offset}),
            machine.vectors,
            machine.coefficients,
        )
        figures = figures_of(slope * decisions + offset, val)
        facts = {"cost": cost, "vectors": len(machine.vectors), **figures}
        say(
            f"C {cost:g}: {facts['vectors']} of {len(rows)} vectors, validation Dice "
            f"{facts['val_dice']:.4f}, accuracy {facts['val_accuracy']:.4f}"
        )
        if best is None or facts["val_dice"] > best[1]["val_dice"]:
            best = machine, facts
    assert best is not None
    return best


def logistic_line(decisions: Doubles, val: Samples) -> tuple[float, float]:
    """Platt's line from decision to logit, every pixel of a superpixel with a say."""
    from sklearn.linear_model import LogisticRegression

    if not 0 < val.inside_px.sum() < val.labelled_px.sum():
        raise UsageError("need validation slides with epithelium and with other tissue")
    spread = max(float(decisions.std()), 1e-9)
    line = LogisticRegression(C=1e6, max_iter=1000)
    line.fit(
        np.tile(decisions / spread, 2)[:, None],
        np.repeat([True, False], len(val)),
        sample_weight=np.concatenate([val.inside_px, val.labelled_px - val.inside_px]),
    )
    slope = float(line.coef_[0, 0]) / spread
    if slope <= 0:
        raise UsageError(
            "the machine tells the validation slides the wrong way round: are they "
            "labelled as the training slides are?"
        )
    return slope, float(line.intercept_[0])


def figures_of(logits: Doubles, val: Samples) -> dict[str, float]:
    """Dice, precision, recall and accuracy of labelled pixels of tissue, p >= 0.5."""
    called = logits >= 0
    both = int(val.inside_px[called].sum())
    said, true = int(val.labelled_px[called].sum()), int(val.inside_px.sum())
    right = both + int((val.labelled_px - val.inside_px)[~called].sum())
    return {
        "val_dice": 2 * both / max(said + true, 1),
        "val_precision": both / max(said, 1),
        "val_recall": both / max(true, 1),
        "val_accuracy": right / max(int(val.labelled_px.sum()), 1),
    }


def write_epithelium(
    folder: Path, machine: Machine, config: EpitheliumConfig, facts: dict[str, Any]
) -> str:
    """A segmenter's package that holds the machine; returns the SHA-256 of its file.

    The file is added to the user's trust file.
    """
    data = machine.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VECTORS_FILE).write_bytes(data)
    package = config.package
    write_json(folder / "training.json", facts)
    # The configuration last: a folder without it is no package yet.
    write_json(
        folder / "config.json",
        {
            "spec_version": "1.0",
            "architecture": ARCHITECTURE,
            "num_classes": 1,
            "class_names": [CLASS_NAME],
            "patch_size_pixels": TILE_PX + 2 * HALO_PX,
            "spacing_um_px": config.data.spacing_um,
            "transform": [],
            "her2fast": {
                "task": TASK,
                "activation": "sigmoid",
                "input_layout": "NCHW",
                "halo_px": HALO_PX,
                "dtype": "float32",
                "batch_size": package.segment_batch_size,
                "superpixel_svm": machine.rule.model_dump(),
                "sha256": digest,
                "licence": package.licence,
                "training_data": package.training_data,
                "intended_use": package.intended_use,
                "synthetic": package.synthetic,
            },
        },
    )
    trust({digest: package.name})
    return digest
