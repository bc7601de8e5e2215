# SPDX-License-Identifier: Apache-2.0
"""Trains what the study compares, by the commands that a lab would give.

    python stages.py WORK segment
    python stages.py WORK seed NAME SEED      pretrain, constrained, tables of logits
    python stages.py WORK upper NAME SEED     the same net on true patch labels
    python stages.py WORK package NAME SEED   a package, and the scorer on test slides

NAME is a manifest of WORK. Each call is a process of its own; what is finished is kept
and what was killed goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cohort import patch_areas
from design import CONSTRAINED, MAX_PATCHES, PRETRAIN, SCORES, SEGMENT
from draw import Drawn, draw_slides

import her2fast
from her2fast.export.atomic import atomic_write
from her2fast.training.backbones import input_statistics, make_classifier
from her2fast.training.calibrate import calibrated
from her2fast.training.checkpoint import load_checkpoint
from her2fast.training.classify import (
    CLASSES,
    Floats,
    class_areas,
    predict,
    slide_scores,
)
from her2fast.training.cohort import TrainingSlide, load_cohort
from her2fast.training.config import PretrainConfig
from her2fast.training.config_file import config_text, load_config
from her2fast.training.config_sections import Calibration, Compute, Data, Model
from her2fast.training.loop import fit, open_fabric
from her2fast.training.networks import fold_norms, parameter_count
from her2fast.training.patches import Dataset, Pieces
from her2fast.training.pretrain import PretrainWork
from her2fast.training.run_folder import RunFolder
from her2fast.training.stages import run_stage

SEGMENTER = "segmenter"
MASKS = "masks"


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def manifest_of(work: Path, name: str) -> Path:
    return work / f"{name}.csv"


def write_config(path: Path, tables: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config_text(tables), encoding="utf-8")
    return path


def data_of(work: Path, name: str, *, true_masks: bool, most: int) -> dict[str, Any]:
    """`[data]`: tumor as drawn, or as the segmenter finds it."""
    source = (
        {"annotations": work / MASKS}
        if true_masks
        else {"segmenter": work / SEGMENTER / "package"}
    )
    return {
        "manifest": manifest_of(work, name),
        "cache": work / "cache",
        "max_patches": most,
        "bad_slides": "skip",
        **source,
    }


def train_segmenter(work: Path, name: str) -> None:
    """One for all seeds, on the drawn tumor of the training slides."""
    data = data_of(work, name, true_masks=True, most=0)
    del data["max_patches"]
    config = write_config(
        work / "configs" / "segment.toml",
        {
            "data": data,
            **SEGMENT,
            "package": {"name": "study-segmenter", "synthetic": True},
        },
    )
    run_stage("segment", config, work / SEGMENTER, say=say)


def train_seed(work: Path, name: str, seed: int) -> None:
    """Baseline and constrained networks of one seed, and what they say of patches."""
    data = data_of(work, name, true_masks=False, most=MAX_PATCHES)
    runs = work / "runs" / name
    first, second = runs / f"pretrain-{seed}", runs / f"constrained-{seed}"
    plain = {"run": {"seed": seed}, "data": data}
    config = write_config(
        work / "configs" / name / f"pretrain-{seed}.toml", {**plain, **PRETRAIN}
    )
    run_stage("pretrain", config, first, say=say)
    config = write_config(
        work / "configs" / name / f"constrained-{seed}.toml",
        {"start": first, **plain, **CONSTRAINED},
    )
    run_stage("constrained", config, second, say=say)
    for run in (first, second):
        write_logits(work, name, run, parts=("train", "val", "test"))


def train_upper(work: Path, name: str, seed: int) -> None:
    """The bound: the pretraining's recipe with the truth of every patch."""
    data = data_of(work, name, true_masks=True, most=MAX_PATCHES)
    run = RunFolder(work / "runs" / name / f"upper-{seed}", "pretrain")
    path = write_config(
        work / "configs" / name / f"upper-{seed}.toml",
        {"run": {"seed": seed}, "data": data, **PRETRAIN},
    )
    config, text = load_config(path, PretrainConfig)
    fabric = open_fabric(config.compute)
    resume = run.open(config.model_dump(mode="json"), text)
    try:
        if run.outcome() is None:
            _train_upper(work, fabric, run, config, resume)
    finally:
        run.close()
    write_logits(work, name, run.root, parts=("val", "test"))


def _train_upper(
    work: Path, fabric: Any, run: RunFolder, config: PretrainConfig, resume: bool
) -> None:
    import torch

    cohort = load_cohort(config.data.manifest)
    dataset = Dataset(config.data, config.compute, "patches", say=say)
    train, val = (dataset.pieces(cohort.part(part)) for part in ("train", "val"))
    truth = truth_by_name(work)
    targets = tuple(true_targets(pieces, truth) for pieces in (train, val))
    torch.manual_seed(config.run.seed)
    network = make_classifier(config.model, CLASSES)
    work_of = PretrainWork(
        fabric,
        config,
        train,
        val,
        input_statistics(config.model),
        targets=(targets[0], targets[1]),
    )
    facts = fit(fabric, run, network, work_of, config, resume=resume, say=say)
    model = config.model.model_dump(mode="json")
    run.finish({**facts, "model": model, "parameters": parameter_count(network)})


def check_package(work: Path, name: str, seed: int) -> None:
    """`her2fast train calibrate` and `her2fast.score` give what the study counts.

    The first test set, scored slide by slide; check.json says how many slides have the
    same class areas, and the largest difference.
    """
    run = work / "runs" / name
    package = run / f"calibrate-{seed}"
    data = data_of(work, name, true_masks=False, most=MAX_PATCHES)
    config = write_config(
        work / "configs" / name / f"calibrate-{seed}.toml",
        {
            "start": run / f"constrained-{seed}",
            "run": {"seed": seed},
            "data": data,
            "compute": {"threads": 1},
            "package": {
                "name": "study-constrained",
                "synthetic": True,
                "guideline": "pham-2022",
            },
        },
    )
    run_stage("calibrate", config, package, say=say)
    from measures import Table

    table = Table.read(run / f"constrained-{seed}" / "logits.npz")
    fitted = table.calibration("val", Calibration(), seed)
    classes = calibrated(table["test_logits"], fitted.values, fitted.mode).argmax(1)
    weights = table["test_found_px"].astype(np.uint32)
    areas = class_areas(classes, weights, table["test_offsets"])
    scores = slide_scores(areas)
    rows = []
    for index, slide in enumerate(table["test_names"].tolist()):
        if not slide.startswith("test-"):
            continue
        result = her2fast.score(
            work / "slides" / f"{slide}.svs", model=package / "package"
        )
        found = result.record["class_px"]
        rows.append(
            {
                "slide": slide,
                "status": result.status,
                "largest_difference_px": max(
                    abs(a - b)
                    for a, b in zip(areas[index].tolist(), found, strict=True)
                ),
                "tumor_px": int(areas[index].sum()),
                "same_score": result.score == SCORES[scores[index]],
            }
        )
    scored = [row for row in rows if row["status"] == "scored"]
    facts = {
        "slides": len(rows),
        "scored": len(scored),
        "same_areas": sum(row["largest_difference_px"] == 0 for row in scored),
        "same_score": sum(bool(row["same_score"]) for row in scored),
        "largest_difference_px": max(row["largest_difference_px"] for row in scored),
        "not_scored": [row["slide"] for row in rows if row["status"] != "scored"],
        "calibration": json.loads((package / "run.json").read_text(encoding="utf-8"))[
            "calibration"
        ]["values"],
        "calibration_of_the_study": list(fitted.values),
    }
    atomic_write(run / "check.json", (json.dumps(facts, indent=1) + "\n").encode())
    say(json.dumps(facts))


def truth_by_name(work: Path) -> dict[str, Drawn]:
    """Slide -> what is true of it; nothing is drawn, all is there."""
    return {one.name: one for one in draw_slides(work, workers=1)}


def name_of(slide: TrainingSlide) -> str:
    return Path(slide.entry.slide).stem


def true_targets(pieces: Pieces, truth: Mapping[str, Drawn]) -> Floats:
    """(n, 4), one-hot: the class with the most true tumor of each patch."""
    out = np.zeros((len(pieces), CLASSES), np.float32)
    for index, (slide, arrays) in enumerate(
        zip(pieces.slides, pieces.arrays, strict=True)
    ):
        areas = patch_areas(truth[name_of(slide)])[arrays["row"], arrays["column"]]
        rows = np.arange(pieces.offsets[index], pieces.offsets[index + 1])
        out[rows, areas.argmax(1)] = 1.0
    return out


# --- what networks say ----------------------------------------------------------------


def open_pieces(work: Path, name: str, part: str, *, true_masks: bool) -> Pieces:
    """The patches of a part; all of a test slide, at most MAX_PATCHES of another."""
    most = 0 if part == "test" else MAX_PATCHES
    data = Data.model_validate(data_of(work, name, true_masks=true_masks, most=most))
    cohort = load_cohort(data.manifest)
    dataset = Dataset(data, Compute(), "patches", say=say)
    return dataset.pieces(cohort.part(part))


def cut_all(work: Path, name: str) -> None:
    """Fill the cache, so that the jobs that run side by side find all there."""
    for part in ("train", "val", "test"):
        for true_masks in (True, False):
            open_pieces(work, name, part, true_masks=true_masks)


def united(found: Pieces, true: Pieces) -> tuple[Pieces, list[str]]:
    """The patches of either mask, each once; tumor pixels of both.

    A patch reads the same pixels whichever mask kept it.
    """
    by_name = {name_of(slide): place for place, slide in enumerate(true.slides)}
    slides, arrays, names = [], [], []
    for slide, own in zip(found.slides, found.arrays, strict=True):
        name = name_of(slide)
        place = by_name.pop(name, None)
        other = None if place is None else true.arrays[place]
        slides.append(slide)
        arrays.append(_both(own, other))
        names.append(name)
    for name, place in by_name.items():
        slides.append(true.slides[place])
        arrays.append(_both(None, true.arrays[place]))
        names.append(name)
    return Pieces.of(slides, arrays), names


def _both(own: Any, other: Any) -> dict[str, Any]:
    rows: dict[tuple[int, int], list[Any]] = {}
    for which, table in enumerate((own, other)):
        if table is None:
            continue
        places = zip(table["row"].tolist(), table["column"].tolist(), strict=True)
        for index, place in enumerate(places):
            entry = rows.setdefault(place, [0, 0, table["rgb"][index]])
            entry[which] = int(table["tumor_px"][index])
    order = sorted(rows)
    return {
        "row": np.array([row for row, _ in order], np.int32),
        "column": np.array([column for _, column in order], np.int32),
        "found_px": np.array([rows[at][0] for at in order], np.int64),
        "true_mask_px": np.array([rows[at][1] for at in order], np.int64),
        "rgb": np.stack([rows[at][2] for at in order]),
    }


def write_logits(work: Path, name: str, run: Path, *, parts: tuple[str, ...]) -> None:
    """float32 logits of the run's best network, as a package computes them."""
    out = run / "logits.npz"
    if out.is_file():
        return
    network = make_classifier(Model(backbone="tiny"), CLASSES, weights=False)
    load_checkpoint(RunFolder(run, "pretrain").best, network)
    network = fold_norms(network)
    fabric = open_fabric(Compute(threads=1))
    statistics = input_statistics(Model(backbone="tiny"))
    columns: dict[str, Any] = {}
    for part in parts:
        pieces = open_pieces(work, name, part, true_masks=False)
        names = [name_of(slide) for slide in pieces.slides]
        if part == "test":
            pieces, names = united(
                pieces, open_pieces(work, name, part, true_masks=True)
            )
            truth = truth_by_name(work)
            areas = []
            for one, arrays in zip(names, pieces.arrays, strict=True):
                table = patch_areas(truth[one])
                areas.append(table[arrays["row"], arrays["column"]])
            columns["test_true_areas"] = np.concatenate(areas)
            columns["test_found_px"] = pieces.column("found_px")
            columns["test_true_mask_px"] = pieces.column("true_mask_px")
            columns["test_row"] = pieces.column("row")
            columns["test_column"] = pieces.column("column")
        else:
            columns[f"{part}_tumor_px"] = pieces.column("tumor_px")
            columns[f"{part}_labels"] = np.array(
                [slide.label for slide in pieces.slides], np.int64
            )
        columns[f"{part}_names"] = np.array(names)
        columns[f"{part}_offsets"] = pieces.offsets
        columns[f"{part}_logits"] = predict(fabric, network, pieces, statistics)
    temporary = out.with_name("part-logits.npz")
    np.savez(temporary, **columns)
    os.replace(temporary, out)
    say(f"{run}: logits written")


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve()
    os.environ.setdefault("HER2FAST_CONFIG_DIR", os.fspath(root / "trust"))
    task = sys.argv[2]
    if task == "segment":
        train_segmenter(root, sys.argv[3])
        cut_all(root, sys.argv[3])
    else:
        runner = {
            "seed": train_seed,
            "upper": train_upper,
            "package": check_package,
        }[task]
        runner(root, sys.argv[3], int(sys.argv[4]))
