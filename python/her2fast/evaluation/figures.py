# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.evaluation.cases import Results, shares_of
from her2fast.kernels.training import FractionLimits
from her2fast.manifest import LABELS

#: Okabe and Ito (2008): told apart also without color vision.
COLORS = ("#009E73", "#0072B2", "#CC79A7", "#D55E00")
DPI = 110
#: Width of the kernel for shares; a slide's share is known to a few percent.
KERNEL = 0.05
#: Below so many slides a density says less than its slides, which are drawn anyway.
MIN_FOR_DENSITY = 5


def _new(columns: int, rows: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    # No software name or date: the same figures, the same bytes.
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def confusion_matrices(content: Mapping[str, Any], view: str) -> bytes:
    """A matrix per results folder; rows are the label, shades the share of a row."""
    results = content["results"]
    figure, axes = _new(len(results), 1, 3.4, 3.3)
    for axis, (name, one) in zip(axes[0], results.items(), strict=True):
        found = one["views"][view]
        table = np.array(found["confusion"])
        names = list(found["per_class"])
        rows = table / np.maximum(table.sum(1, keepdims=True), 1)
        axis.imshow(rows, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            dark = rows[row, column] > 0.5
            axis.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("score")
        axis.set_ylabel("label")
        axis.set_title(f"{name}: {found['slides']} slides", fontsize=10)
    return _png(figure)


def f1_by_results(content: Mapping[str, Any], interval: str = "95 %") -> bytes:
    """F1 of each class and macro-F1 with its interval, per results folder.

    `interval` is what the legend calls it.
    """
    results = content["results"]
    figure, axes = _new(1, 1, 2.2 + 1.5 * len(results), 3.2)
    axis = axes[0][0]
    width = 0.15
    for place, one in enumerate(results.values()):
        found = one["views"]["4-class"]
        for kind, (name, figures) in enumerate(found["per_class"].items()):
            height = figures["f1"]
            axis.bar(
                place + (kind - 2) * width,
                0 if height is None else height,
                width,
                color=COLORS[kind],
                label=name if place == 0 else None,
            )
        macro = found["macro_f1"]
        low, high = found["intervals"].get("macro_f1", [None, None])
        error = None if low is None else [[max(0, macro - low)], [max(0, high - macro)]]
        axis.bar(
            place + 2 * width,
            macro,
            width,
            color="0.35",
            yerr=error,
            capsize=3,
            label=f"macro, {interval}" if place == 0 else None,
        )
    axis.set_xticks(range(len(results)), list(results))
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("F1 of slides")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return _png(figure)


def fraction_grid(results: Results) -> bytes:
    """Shares of each class by label with the guideline's lines (Pham, Fig. 9, 10)."""
    limits = FractionLimits()
    figure, axes = _new(4, 4, 2.3, 1.5)
    labels = np.array([case.label for case in results.scored])
    shares = shares_of(results.scored)
    grid = np.linspace(0, 1, 201)
    for row, column in np.ndindex(4, 4):
        axis = axes[row][column]
        values = shares[labels == row, column]
        axis.plot(values, np.zeros(len(values)), "|", color=COLORS[column], ms=10)
        if len(values) >= MIN_FOR_DENSITY:
            axis.fill_between(
                grid, density(values, grid), color=COLORS[column], alpha=0.4
            )
        line = None
        if column == row:
            line = limits.lower_permille[row]
        elif column > row:
            line = limits.upper_permille[row][column]
        if line is not None and 0 < line <= 1000:
            axis.axvline(line / 1000, color="black", ls=":", lw=1)
        axis.set_xlim(-0.02, 1.02)
        axis.set_yticks([])
        if row == 0:
            axis.set_title(f"share of {LABELS[column]}", fontsize=9)
        if row < 3:
            axis.set_xticklabels([])
        if column == 0:
            axis.set_ylabel(f"label {LABELS[row]}\n{(labels == row).sum()}", fontsize=9)
    return _png(figure)


def density(
    values: npt.NDArray[np.float64], grid: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Kernel density of shares; what leaks over 0 and 1 is folded back."""
    from sklearn.neighbors import KernelDensity

    folded = np.concatenate([values, -values, 2 - values])[:, None]
    kernel = KernelDensity(bandwidth=KERNEL).fit(folded)
    return np.asarray(3.0 * np.exp(kernel.score_samples(grid[:, None])))


def fractions_against_truth(
    results: Results, truth: Mapping[str, tuple[float, ...]]
) -> bytes:
    """Above predicted by true shares, below their difference by their mean."""
    known = [case for case in results.scored if case.name in truth]
    want = np.array([truth[case.name] for case in known])
    got = shares_of(known)
    figure, axes = _new(4, 2, 2.4, 2.4)
    for kind, name in enumerate(LABELS):
        above, below = axes[0][kind], axes[1][kind]
        above.plot([0, 1], [0, 1], color="0.6", lw=1)
        above.axvline(0.1, color="black", ls=":", lw=0.8)
        above.axhline(0.1, color="black", ls=":", lw=0.8)
        above.plot(want[:, kind], got[:, kind], "o", ms=3, color=COLORS[kind])
        above.set_title(name, fontsize=10)
        above.set_xlabel("true share", fontsize=8)
        difference = got[:, kind] - want[:, kind]
        spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
        for line in (-1.96, 0.0, 1.96):
            below.axhline(
                difference.mean() + line * spread,
                color="0.4",
                lw=1,
                ls="-" if line == 0 else "--",
            )
        middle = (got[:, kind] + want[:, kind]) / 2
        below.plot(middle, difference, "o", ms=3, color=COLORS[kind])
        below.set_xlabel("mean of both", fontsize=8)
    axes[0][0].set_ylabel("predicted share", fontsize=8)
    axes[1][0].set_ylabel("predicted - true", fontsize=8)
    return _png(figure)


def all_figures(
    content: Mapping[str, Any],
    found: Sequence[Results],
    truth: Mapping[str, tuple[float, ...]],
) -> dict[str, bytes]:
    """File name -> PNG."""
    made = {
        "confusion_4_classes.png": confusion_matrices(content, "4-class"),
        "confusion_3_classes.png": confusion_matrices(content, "3-class"),
        "f1.png": f1_by_results(content),
    }
    for number, one in enumerate(found):
        made[f"fractions_{number}.png"] = fraction_grid(one)
        if any(case.name in truth for case in one.scored):
            made[f"truth_{number}.png"] = fractions_against_truth(one, truth)
    return made
