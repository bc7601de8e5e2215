# SPDX-License-Identifier: Apache-2.0
"""Writes docs/study: results.json, curves.json, figures, and the page's tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from design import NOISES, SCORES, SEEDS, SIZES, STAGES
from draw import Drawn
from measures import (
    MASKS,
    TEST_SETS,
    Table,
    differences,
    figures_on_test,
    of_test_set,
    plain,
)
from pages import figures_of, write_tables

from her2fast import __version__
from her2fast.export.atomic import atomic_write
from her2fast.training.calibrate import Fitted
from her2fast.training.config_sections import Calibration

MAIN = "noise30-all"
#: Stages in the order of their tables; the bound has no calibration.
ALL = (*STAGES, "upper_bound")
PAIRS = (
    ("baseline_calibrated", "baseline"),
    ("constrained", "baseline"),
    ("calibrated", "constrained"),
    ("calibrated", "baseline_calibrated"),
    ("calibrated", "baseline"),
    ("upper_bound", "calibrated"),
)
HEAD = ("macro_f1", "macro_f1_3class", "patch_accuracy", "fraction_mae")
#: Ways of calibrating, beside the product's default that `calibrated` has.
VARIANTS = {
    "bias, val, guarded (default)": Calibration(),
    "scale, val, guarded": Calibration(mode="scale"),
    "bias, val": Calibration(guard=False),
    "scale, val": Calibration(mode="scale", guard=False),
    "scale, train (the paper)": Calibration(mode="scale", on=["train"], guard=False),
    "bias, train": Calibration(on=["train"], guard=False),
}


@cache
def read_stage(work: Path, name: str, stage: str, seed: int) -> Table:
    run = {
        "baseline": "pretrain",
        "baseline_calibrated": "pretrain",
        "constrained": "constrained",
        "calibrated": "constrained",
        "upper_bound": "upper",
    }[stage]
    return Table.read(work / "runs" / name / f"{run}-{seed}" / "logits.npz")


@cache
def fit_stage(work: Path, name: str, stage: str, seed: int) -> Fitted | None:
    """The default calibration, for the stages that have one."""
    if stage not in ("baseline_calibrated", "calibrated"):
        return None
    return read_stage(work, name, stage, seed).calibration("val", Calibration(), seed)


def stage_results(
    work: Path, name: str, drawn: dict[str, Drawn], seeds: Sequence[int]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Figures of the main view by stage and seed, and everything else."""
    main: dict[str, list[Any]] = {stage: [] for stage in ALL}
    more: dict[str, Any] = {}
    for stage in ALL:
        views: dict[str, Any] = {}
        facts = []
        for seed in seeds:
            table = read_stage(work, name, stage, seed)
            fitted = fit_stage(work, name, stage, seed)
            main[stage].append(figures_on_test(table, drawn, fitted=fitted))
            for mask in MASKS:
                for test_set in TEST_SETS:
                    found = figures_on_test(
                        table, drawn, fitted=fitted, mask=mask, test_set=test_set
                    )
                    views.setdefault(f"{test_set}, {mask} mask", []).append(
                        plain(found)
                    )
            asco = figures_on_test(
                table, drawn, fitted=fitted, rule_set="asco-cap-2018"
            )
            views.setdefault("both, predicted mask, asco-cap-2018", []).append(
                plain(asco)
            )
            facts.append(None if fitted is None else fitted.facts)
        more[stage] = {"views": views, "calibration": facts}
    return main, more


def variants(
    work: Path, name: str, drawn: dict[str, Drawn], seeds: Sequence[int]
) -> dict[str, Any]:
    """Every way of calibrating, on the constrained networks."""
    out: dict[str, Any] = {}
    for title, config in VARIANTS.items():
        rows = []
        for seed in seeds:
            table = read_stage(work, name, "constrained", seed)
            fitted = table.calibration(str(config.on[0]), config, seed)
            found = plain(figures_on_test(table, drawn, fitted=fitted))
            rows.append(
                {
                    **{key: found[key] for key in HEAD},
                    "values": list(fitted.values),
                    "loss_before": fitted.facts["loss_before"],
                    "loss_after": fitted.facts["loss_after"],
                }
            )
        out[title] = rows
    return out


def adapted(
    work: Path, name: str, drawn: dict[str, Drawn], seeds: Sequence[int]
) -> dict[str, Any]:
    """Calibrated on the 50 slides of the new scanner, tested on its 200 others.

    What a laboratory can do with slides of its own; beside it the same 200 slides as
    the training left them.
    """
    out: dict[str, Any] = {}
    for stage in ("baseline", "constrained", "upper_bound"):
        for title in ("as trained", "calibrated on 50 of its slides"):
            rows = []
            for seed in seeds:
                table = read_stage(work, name, stage, seed)
                fitted = None
                if title != "as trained":
                    own = of_test_set(table, drawn, "test")
                    fitted = own.calibration("adapt", Calibration(), seed)
                found = figures_on_test(table, drawn, fitted=fitted, test_set="test2")
                rows.append({key: found[key] for key in HEAD})
            out[f"{stage}, {title}"] = rows
    return out


def write_study(
    work: Path, out: Path, drawn: Sequence[Drawn], panel: dict[str, object]
) -> None:
    """docs/study/results.json, its figures, and the tables of the page."""
    out.mkdir(parents=True, exist_ok=True)
    known = {one.name: one for one in drawn if one.group.part != "train"}
    main, more = stage_results(work, MAIN, known, SEEDS)
    gap = {}
    for key in HEAD:
        means = {s: float(np.mean([one[key] for one in main[s]])) for s in ALL}
        whole = means["upper_bound"] - means["baseline"]
        gap[key] = {
            stage: (means[stage] - means["baseline"]) / whole if whole else None
            for stage in ALL
        }
    content: dict[str, Any] = {
        "synthetic": True,
        "view": "both test sets (250 slides), tumor by the segmenter, pham-2022",
        "her2fast": __version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "seeds": list(SEEDS),
        "panel": panel,
        "segmenter": segmenter_facts(work, known),
        "scorer": json.loads(
            (work / "runs" / MAIN / "check.json").read_text(encoding="utf-8")
        ),
        **{
            stage: {key: [one[key] for one in main[stage]] for key in HEAD}
            for stage in ALL
        },
        "share_of_gap_closed": gap,
        "differences": {
            test_set: differences(
                {
                    stage: [
                        figures_on_test(
                            read_stage(work, MAIN, stage, seed),
                            known,
                            fitted=fit_stage(work, MAIN, stage, seed),
                            test_set=test_set,
                        )
                        for seed in SEEDS
                    ]
                    for stage in ALL
                },
                PAIRS,
            )
            for test_set in TEST_SETS
        },
        "variants_of_calibration": variants(work, MAIN, known, SEEDS),
        "adapted_to_the_scanner": adapted(work, MAIN, known, SEEDS),
        "stages": more,
    }
    _write_json(out / "results.json", content)
    on_known = {stage: more[stage]["views"]["known, predicted mask"] for stage in ALL}
    for name, data in figures_of(main, on_known).items():
        atomic_write(out / name, data)
    write_tables(out, content)


def segmenter_facts(work: Path, drawn: dict[str, Drawn]) -> dict[str, Any]:
    """Kept tumor pixels of both masks on the test slides, by score."""
    run = json.loads((work / "segmenter" / "run.json").read_text(encoding="utf-8"))
    table = read_stage(work, MAIN, "baseline", SEEDS[0])
    owner = np.repeat(
        np.arange(len(table["test_names"])), np.diff(table["test_offsets"])
    )
    kinds = np.array(
        [SCORES.index(drawn[str(name)].group.score) for name in table["test_names"]]
    )
    found, true = table["test_found_px"] > 0, table["test_true_mask_px"] > 0
    by_score = {}
    for kind, score in enumerate(SCORES):
        mine = kinds[owner] == kind
        both = int((found & true & mine).sum())
        by_score[score] = {
            "patch_recall": both / max(int((true & mine).sum()), 1),
            "patch_precision": both / max(int((found & mine).sum()), 1),
        }
    return {"val_loss": run["best"], "epochs": run["epochs"], "test": by_score}


def write_curves(
    work: Path, out: Path, drawn: Sequence[Drawn], facts: dict[str, Any]
) -> None:
    """docs/study/curves.json: one seed a point."""
    known = {one.name: one for one in drawn if one.group.part != "train"}
    points = []
    for name, made in facts.items():
        row: dict[str, Any] = {"name": name, **made}
        for stage in STAGES:
            table = read_stage(work, name, stage, SEEDS[0])
            fitted = fit_stage(work, name, stage, SEEDS[0])
            row[stage] = {}
            for test_set in ("both", "known"):
                found = figures_on_test(table, known, fitted=fitted, test_set=test_set)
                row[stage][test_set] = {key: found[key] for key in HEAD}
        points.append(row)
    content = {
        "synthetic": True,
        "view": "both: unseen scanner, 250 slides; known: known scanners, 104 slides; "
        "tumor by the segmenter, pham-2022",
        "seed": SEEDS[0],
        "noises": list(NOISES),
        "sizes": list(SIZES),
        "points": points,
    }
    _write_json(out / "curves.json", content)
    write_tables(out, None, content)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())
