# SPDX-License-Identifier: Apache-2.0
"""The manifest of the study and the truth of its patches."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from design import READERS, SCORES, VAL_FOLDS
from draw import Drawn
from PIL import Image
from readers import disagreement, panel

from her2fast.export.atomic import atomic_write
from her2fast.training.config_sections import PATCH_PX
from her2fast.training.splits import Member, k_folds

Areas = npt.NDArray[np.int64]


def write_manifest(
    path: Path, drawn: Sequence[Drawn], *, noise: float, size: float = 1.0
) -> dict[str, object]:
    """Write the manifest; returns what the panel did.

    Training slides carry the panel's consensus, test slides the truth. `size` keeps
    a part of the training slides of every score and site.
    """
    train = [one for one in drawn if one.group.part == "train"]
    scores, agreed, spread = panel([one.fractions for one in train], noise)
    kept = _kept(train, size)
    members = [
        Member(one.name, one.name, SCORES[label], one.group.profile)
        for one, label, keep in zip(train, agreed, kept, strict=True)
        if keep
    ]
    fold = k_folds(members, VAL_FOLDS, seed=0, test=False)[0]
    val = set(fold["val"])
    readers = [f"reader_{number + 1}" for number in range(READERS)]
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(["slide", "label", "patient", "scanner", "split", *readers])
    for one, label, row, keep in zip(train, agreed, scores, kept, strict=True):
        if keep:
            part = "val" if one.name in val else "train"
            place = [_slide(one), SCORES[label], one.name, one.group.profile, part]
            table.writerow(place + [SCORES[said] for said in row])
    for one in drawn:
        if one.group.part != "train":
            place = [_slide(one), one.group.score, one.name, one.group.profile, "test"]
            table.writerow(place + [""] * READERS)
    atomic_write(path, text.getvalue().encode())
    truth = np.array([SCORES.index(one.group.score) for one in train])
    table_of = np.zeros((4, 4), np.int64)
    np.add.at(table_of, (truth, np.array(agreed)), 1)
    return {
        "readers": READERS,
        "pairs_disagree": disagreement(scores),
        "spread": spread,
        "consensus_wrong": float((truth != agreed).mean()),
        "consensus_by_truth": table_of.tolist(),
        "train_slides": len(members) - len(val),
        "val_slides": len(val),
    }


def _slide(one: Drawn) -> str:
    return f"slides/{one.name}.svs"


def _kept(train: Sequence[Drawn], size: float) -> list[bool]:
    """The first part of every group: a smaller cohort lies within a larger one."""
    seen: dict[str, int] = {}
    kept = []
    for one in train:
        place = seen.get(one.group.name, 0)
        seen[one.group.name] = place + 1
        kept.append(place < round(size * one.group.count))
    return kept


def patch_areas(one: Drawn) -> Areas:
    """(rows, columns, 4) true tumor pixels of the 64 px patches, from the class map."""
    with Image.open(one.truth / "class_map.png") as image:
        classes = np.asarray(image)
    rows, columns = (-(-side // PATCH_PX) for side in classes.shape)
    full = np.zeros((rows * PATCH_PX, columns * PATCH_PX), np.uint8)
    full[: classes.shape[0], : classes.shape[1]] = classes
    blocks = full.reshape(rows, PATCH_PX, columns, PATCH_PX)
    return np.stack([(blocks == kind + 1).sum((1, 3)) for kind in range(4)], -1)
