# SPDX-License-Identifier: Apache-2.0
"""Figures of the study, and the tables in its page, from its results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from design import SCORES, STAGES

from her2fast.evaluation import figures
from her2fast.evaluation.cases import Case, Results
from her2fast.export.atomic import atomic_write

PAGE = "weak_supervision.md"
WORDS = {
    "baseline": "baseline: the slide's label on every patch",
    "baseline_calibrated": "baseline, calibrated",
    "constrained": "constrained",
    "calibrated": "constrained, calibrated",
    "upper_bound": "bound: true patch labels",
}


def results_of(name: str, found: dict[str, Any]) -> Results:
    """What the figures of `her2fast evaluate` take."""
    cases = tuple(
        Case(
            name=slide,
            label=int(truth),
            patient=slide,
            status="scored",
            code=None,
            score=int(called),
            fractions=tuple(float(share) for share in shares),
            flags=(),
        )
        for slide, truth, called, shares in zip(
            found["_names"],
            found["_truth"],
            found["_called"],
            found["_found"],
            strict=True,
        )
    )
    return Results(name, cases, (), "pham-2022", ())


def _stages(seeds_of: dict[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """What the figures of `her2fast evaluate` take; slides of all seeds together."""
    content: dict[str, Any] = {"results": {}}
    for stage, seeds in seeds_of.items():
        table = np.sum([one["confusion"] for one in seeds], axis=0)
        f1 = np.mean([one["f1_by_class"] for one in seeds], axis=0)
        spread = [one["macro_f1"] for one in seeds]
        content["results"][stage] = {
            "views": {
                "4-class": {
                    "confusion": table.tolist(),
                    "slides": int(table.sum()),
                    "per_class": {
                        name: {"f1": float(f1[kind])}
                        for kind, name in enumerate(SCORES)
                    },
                    "macro_f1": float(np.mean(spread)),
                    "intervals": {"macro_f1": [min(spread), max(spread)]},
                }
            }
        }
    return content


def figures_of(
    main: dict[str, Sequence[dict[str, Any]]],
    known: dict[str, Sequence[dict[str, Any]]],
) -> dict[str, bytes]:
    """File name -> PNG, of the unseen scanner and of the known ones."""
    unseen = _stages(main)
    first = main["calibrated"][0]
    calibrated = results_of("calibrated", first)
    truth = {
        name: tuple(shares)
        for name, shares in zip(first["_names"], first["_shares"], strict=True)
    }
    return {
        "confusion.png": figures.confusion_matrices(unseen, "4-class"),
        "confusion_known.png": figures.confusion_matrices(_stages(known), "4-class"),
        "f1.png": figures.f1_by_results(unseen, "seeds"),
        "f1_known.png": figures.f1_by_results(_stages(known), "seeds"),
        "fractions.png": figures.fraction_grid(calibrated),
        "reliability.png": figures.fractions_against_truth(calibrated, truth),
    }


def write_tables(
    out: Path, results: dict[str, Any] | None, curves: dict[str, Any] | None = None
) -> None:
    """Put the tables between the page's markers; the words around them stay."""
    page = out / PAGE
    if results is None and (out / "results.json").is_file():
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    if curves is None and (out / "curves.json").is_file():
        curves = json.loads((out / "curves.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    blocks = {}
    if results is not None:
        blocks |= {
            "stages": stage_table(results),
            "differences": difference_table(results),
            "views": view_table(results),
            "patches": patch_table(results),
            "confusion": confusion_table(results),
            "calibration": variant_table(results),
            "segmenter": segmenter_table(results),
            "adapted": adapted_table(results),
        }
    if curves is not None:
        blocks["curves"] = curve_table(curves)
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        whole = f"{begin}\n{block}\n{end}"
        if begin in text:
            head, rest = text.split(begin, 1)
            text = head + whole + rest.split(end, 1)[1]
        else:
            text += f"\n{whole}\n"
    atomic_write(page, text.encode())


def stage_table(results: dict[str, Any]) -> str:
    rows = [
        "| stage | macro-F1, 4 classes | macro-F1, 3 classes | patch accuracy "
        "| error of a share | gap closed (macro-F1, patches) |",
        "|---|---|---|---|---|---|",
    ]
    for stage, words in WORDS.items():
        one, gap = results[stage], results["share_of_gap_closed"]
        closed = [gap[key][stage] for key in ("macro_f1", "patch_accuracy")]
        shown = ", ".join("-" if v is None else f"{100 * v:.0f} %" for v in closed)
        rows.append(
            f"| {words} | {_seeds(one['macro_f1'])} | {_seeds(one['macro_f1_3class'])} "
            f"| {_seeds(one['patch_accuracy'])} | {_seeds(one['fraction_mae'])} "
            f"| {shown} |"
        )
    return "\n".join(rows)


def difference_table(results: dict[str, Any]) -> str:
    rows = [
        "| macro-F1, 4 classes | both sets, 250 slides | 50 slides | 200 slides "
        "| known scanners, 104 slides |",
        "|---|---|---|---|---|",
    ]
    found = results["differences"]
    for pair in found["both"]:
        cells = []
        for test_set in ("both", "test", "test2", "known"):
            one = found[test_set][pair]
            low, high = one["interval"]
            cells.append(f"{one['macro_f1']:+.3f} ({low:+.3f} to {high:+.3f})")
        rows.append(f"| {pair} | {' | '.join(cells)} |")
    return "\n".join(rows)


def view_table(results: dict[str, Any]) -> str:
    names = list(results["stages"]["baseline"]["views"])
    rows = [
        f"| macro-F1, mean over seeds | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for stage, words in WORDS.items():
        views = results["stages"][stage]["views"]
        cells = [f"{np.mean([v['macro_f1'] for v in views[n]]):.3f}" for n in names]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def patch_table(results: dict[str, Any]) -> str:
    rows = [
        "| patch accuracy by true class | 0 | 1+ | 2+ | 3+ | all | error of a share |",
        "|---|---|---|---|---|---|---|",
    ]
    for view, where in (
        ("both, predicted mask", "unseen scanner"),
        ("both, true mask", "unseen scanner, true mask"),
        ("known, predicted mask", "known scanners"),
    ):
        for stage, words in WORDS.items():
            found = results["stages"][stage]["views"][view]
            each = np.mean([v["patch_accuracy_by_class"] for v in found], axis=0)
            whole = np.mean([v["patch_accuracy"] for v in found])
            error = np.mean([v["fraction_mae"] for v in found])
            cells = [f"{value:.3f}" for value in (*each, whole, error)]
            rows.append(f"| {where}: {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def confusion_table(results: dict[str, Any]) -> str:
    rows = [
        "| truth: called 0, 1+, 2+, 3+ (all seeds) | 0 | 1+ | 2+ | 3+ |",
        "|---|---|---|---|---|",
    ]
    for view, where in (
        ("both, predicted mask", "unseen scanner"),
        ("known, predicted mask", "known scanners"),
    ):
        for stage, words in WORDS.items():
            found = results["stages"][stage]["views"][view]
            table = np.sum([v["confusion"] for v in found], axis=0)
            cells = [", ".join(str(n) for n in row) for row in table]
            rows.append(f"| {where}: {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def variant_table(results: dict[str, Any]) -> str:
    rows = [
        "| calibration of the constrained networks | macro-F1 | patch accuracy "
        "| error of a share | loss on the slides used, before and after |",
        "|---|---|---|---|---|",
    ]
    for title, seeds in results["variants_of_calibration"].items():
        before = np.mean([one["loss_before"] for one in seeds])
        after = np.mean([one["loss_after"] for one in seeds])
        cells = [
            _seeds([one[key] for one in seeds])
            for key in ("macro_f1", "patch_accuracy", "fraction_mae")
        ]
        rows.append(f"| {title} | {' | '.join(cells)} | {before:.2f}, {after:.2f} |")
    return "\n".join(rows)


def adapted_table(results: dict[str, Any]) -> str:
    rows = [
        "| 200 slides of the unseen scanner | macro-F1 | patch accuracy "
        "| error of a share |",
        "|---|---|---|---|",
    ]
    for title, seeds in results["adapted_to_the_scanner"].items():
        cells = [
            _seeds([one[key] for one in seeds])
            for key in ("macro_f1", "patch_accuracy", "fraction_mae")
        ]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def segmenter_table(results: dict[str, Any]) -> str:
    rows = [
        "| patches of test slides by the slide's score | found of those kept by the "
        "true mask | of those kept by the predicted mask, also by the true one |",
        "|---|---|---|",
    ]
    for score, one in results["segmenter"]["test"].items():
        rows.append(
            f"| {score} | {one['patch_recall']:.2f} | {one['patch_precision']:.2f} |"
        )
    return "\n".join(rows)


def curve_table(curves: dict[str, Any]) -> str:
    rows = [
        "| scanner | readers disagree | part of the cohort | train, val slides "
        "| consensus wrong | baseline | baseline, calibrated | constrained "
        "| constrained, calibrated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for test_set, where in (("known", "known"), ("both", "unseen")):
        for point in curves["points"]:
            cells = []
            for stage in STAGES:
                one = point[stage][test_set]
                cells.append(f"{one['macro_f1']:.3f} / {one['patch_accuracy']:.3f}")
            rows.append(
                f"| {where} | {100 * point['noise']:.0f} % "
                f"| {100 * point['size']:.0f} % "
                f"| {point['train_slides']}, {point['val_slides']} "
                f"| {100 * point['consensus_wrong']:.0f} % | {' | '.join(cells)} |"
            )
    return "\n".join(rows)


def _seeds(values: Sequence[float]) -> str:
    """Mean, and every seed in brackets."""
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{np.mean(values):.3f} ({each})"
