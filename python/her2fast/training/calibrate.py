# SPDX-License-Identifier: Apache-2.0
"""`her2fast train calibrate`: one value per class on the logits (section 3.5.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from her2fast.kernels.training import calibration_loss, logit_calibrate
from her2fast.training.classify import Floats, class_areas, hard_labels, slide_scores
from her2fast.training.config_sections import Calibration
from her2fast.training.patches import Pieces

IDENTITY = {"scale": (1.0,) * 4, "bias": (0.0,) * 4, "none": (1.0,) * 4}
#: A package stores calibration in 1/65536, and takes values of at most this.
STEP = 1.0 / 65536.0
LARGEST = 1000.0
#: With the guard, how finely the way from no calibration to the found one is looked at.
STEPS = 20


@dataclass(frozen=True)
class Fitted:
    """Values as a package states them, and what they did on the slides used."""

    mode: str
    values: tuple[float, ...]
    facts: dict[str, Any]

    @property
    def calibration(self) -> dict[str, list[float]]:
        """`method.json`'s `calibration`."""
        return {} if self.mode == "none" else {self.mode: list(self.values)}


def fit_calibration(
    logits: Floats, pieces: Pieces, config: Calibration, seed: int, workers: int
) -> Fitted:
    """Search the values on `pieces`; the identity where they would not help.

    Eq. 20 asks a slide of 3+ for a tenth of 3+ and one of 0 for seven tenths of 0, so
    its minimum may lie where everything but that tenth is called 0, and slides lose
    their label while the loss falls. With `guard`, of the points on the way from no
    calibration to the minimum the one of lowest loss is taken at which no fewer
    slides get their label.

    What counts is the loss of the values as the package stores them, with the same
    limits and margin: rounded, and within its range.
    """
    labels = hard_labels(pieces)
    tumor_px = pieces.column("tumor_px").astype(np.uint32)
    table = (logits, tumor_px, pieces.offsets, labels)
    mode = config.mode
    none = IDENTITY[mode]
    native = "bias" if mode == "none" else mode
    start = (0.0,) * 4 if mode == "none" else none
    options: dict[str, Any] = {
        "mode": native,
        "workers": workers,
        "margin_permille": config.margin_permille,
    }
    before, broken = calibration_loss(*table, start, **options)
    right = _accuracy(logits, pieces, None, mode)
    values: tuple[float, ...] = none
    share, reason = 0.0, "not asked for"
    if mode != "none":
        found = logit_calibrate(*table, starts=config.starts, seed=seed, **options)
        reason = "no values found that lower the loss"
        best = before
        for step in range(STEPS, 0, -1):
            tried = _toward(found.values, step / STEPS, mode)
            if not _storable(tried, mode):
                reason = f"beyond what a package holds: {tried}"
                continue
            loss = calibration_loss(*table, tried, **options)[0]
            if loss >= best:
                continue
            if config.guard and _accuracy(logits, pieces, tried, mode) < right:
                reason = "it lowers the loss, but fewer slides get their label"
                continue
            values, share, reason, best = tried, step / STEPS, "", loss
            if not config.guard:
                break  # the search's own answer, or the nearest that can be stored
    used = start if mode == "none" else values
    after, broken_after = calibration_loss(*table, used, **options)
    facts = {
        "mode": mode,
        "values": list(values),
        "share_of_step": share,
        "identity_because": None if values != none else reason,
        "slides": len(labels),
        "patches": len(logits),
        "margin_permille": config.margin_permille,
        "loss_before": before,
        "loss_after": after,
        "broken_slides_before": broken,
        "broken_slides_after": broken_after,
        "slide_accuracy_before": right,
        "slide_accuracy_after": _accuracy(logits, pieces, values, mode),
    }
    return Fitted("none" if values == none else mode, values, facts)


def calibrated(logits: Floats, values: tuple[float, ...] | None, mode: str) -> Floats:
    """Logits with the values applied, in double precision."""
    if values is None or mode == "none":
        return logits
    row = np.asarray(values)
    wide = logits.astype(np.float64)
    return np.asarray(wide * row if mode == "scale" else wide + row)


def _accuracy(
    logits: Floats, pieces: Pieces, values: tuple[float, ...] | None, mode: str
) -> float:
    classes = calibrated(logits, values, mode).argmax(1)
    tumor_px = pieces.column("tumor_px").astype(np.uint32)
    scores = slide_scores(class_areas(classes, tumor_px, pieces.offsets))
    return float((scores == hard_labels(pieces)).mean())


def _toward(values: tuple[float, ...], share: float, mode: str) -> tuple[float, ...]:
    """A part of the way from no calibration, as a package stores it."""
    if mode == "scale":
        return tuple(_stored(math.exp(share * math.log(v))) for v in values)
    return tuple(_stored(share * v) for v in values)


def _storable(values: tuple[float, ...], mode: str) -> bool:
    return max(map(abs, values)) <= LARGEST and (mode == "bias" or min(values) > 0)


def _stored(value: float) -> float:
    return round(value / STEP) * STEP
