# SPDX-License-Identifier: Apache-2.0
"""Writes an evaluation: JSON, CSV of discordant slides, figures, one HTML page."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from her2fast.evaluation.cases import read_fractions
from her2fast.evaluation.figures import all_figures
from her2fast.evaluation.report import evaluate
from her2fast.export.atomic import atomic_write
from her2fast.manifest import LABELS

if TYPE_CHECKING:
    import jinja2


def write_evaluation(
    out: Path,
    folders: Mapping[str, Path],
    labels: Path,
    *,
    split: str | None = None,
    fractions: Path | None = None,
    annotations: Path | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate into the folder `out`; returns what `evaluation.json` holds."""
    content, found = evaluate(
        folders,
        labels,
        split=split,
        fractions=fractions,
        annotations=annotations,
        replicates=replicates,
        seed=seed,
    )
    truth = {} if fractions is None else read_fractions(fractions)
    pictures = all_figures(content, found, truth)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        atomic_write(out / "figures" / name, data)
    atomic_write(out / "discordant.csv", _discordant_csv(content))
    atomic_write(out / "evaluation.html", page(content, pictures))
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    atomic_write(out / "evaluation.json", text.encode())
    return content


def page(content: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
    """One HTML page that refers to nothing outside itself."""
    shown = {
        name: "data:image/png;base64," + base64.b64encode(data).decode()
        for name, data in pictures.items()
    }
    return _template().render(content=content, pictures=shown).encode()


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("her2fast", "evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "figure": _figure,
        "interval": _interval,
        "words": _words,
        "whole": _whole,
    }
    return environment.get_template("evaluation.html.j2")


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _interval(value: list[float | None] | None) -> str:
    if not value or value[0] is None or value[1] is None:
        return ""
    return f"{value[0]:.3f} to {value[1]:.3f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _discordant_csv(content: Mapping[str, Any]) -> bytes:
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\r\n")
    head = ["results", "slide", "label", "score", "steps", *LABELS, "flags", "cells"]
    table.writerow(head)
    for name, one in content["results"].items():
        for row in one["discordant"]:
            # A name that a spreadsheet would compute is made text.
            slide = row["slide"]
            guarded = f"'{slide}" if slide[:1] in ("=", "+", "-", "@", "\t") else slide
            table.writerow(
                [
                    name,
                    guarded,
                    row["label"],
                    row["score"],
                    row["steps"],
                    *(f"{share:.4f}" for share in row["fractions"]),
                    " ".join(row["review_flags"]),
                    row["cells"],
                ]
            )
    return out.getvalue().encode()
