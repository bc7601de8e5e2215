# SPDX-License-Identifier: Apache-2.0
"""Selection of patches by sorting (Pham et al., Eq. 9 and 12 to 14), slide by slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NONE, UPPER, LOWER = 0, 1, 2


def log_odds(logits: npt.NDArray[np.float32], c: int) -> npt.NDArray[np.float32]:
    wide = logits.astype(np.float64)
    others = np.logaddexp.reduce(np.delete(wide, c, axis=1), axis=1)
    largest = float(np.finfo(np.float32).max)
    return np.clip(wide[:, c] - others, -largest, largest).astype(np.float32)


def admissible_bits(c: int, neighbors: str) -> int:
    classes = {
        "neighbors": [c - 1, c + 1],
        "complement": [k for k in range(4) if k != c],
        "lower": [c - 1],
    }[neighbors]
    return sum(1 << k for k in classes if 0 <= k <= 3)


def fewest(order: npt.NDArray[Any], px: npt.NDArray[Any], need: int) -> Any:
    """The shortest beginning of `order` whose weights reach `need`."""
    reached = np.cumsum(px[order].astype(np.int64)) >= need
    return order[: int(np.argmax(reached)) + 1] if reached.any() else order


def constraint_select(
    logits: npt.NDArray[np.float32],
    tumor_px: npt.NDArray[np.uint32],
    offsets: list[int],
    labels: list[int],
    lower: Any,
    upper: Any,
    neighbors: str,
) -> dict[str, npt.NDArray[Any]]:
    slides = len(labels)
    out = {
        "action": np.zeros(len(tumor_px), np.uint8),
        "class_id": np.full(len(tumor_px), -1, np.int8),
        "admissible": np.zeros(len(tumor_px), np.uint8),
        "class_px": np.zeros((slides, 4), np.int64),
        "excess_px": np.zeros((slides, 4), np.int64),
        "missing_px": np.zeros(slides, np.int64),
        "pushed_px": np.zeros((slides, 4), np.int64),
        "pulled_px": np.zeros(slides, np.int64),
        "reach": np.zeros(slides, np.int32),
    }
    predicted = np.argmax(logits, axis=1) if len(logits) else np.zeros(0, np.int64)
    for s, label in enumerate(labels):
        here = np.arange(offsets[s], offsets[s + 1])
        px = {c: here[predicted[here] == c] for c in range(4)}
        areas = [int(tumor_px[px[c]].sum(dtype=np.int64)) for c in range(4)]
        out["class_px"][s] = areas
        total = sum(areas)
        if total == 0:
            continue

        for c in range(label + 1, 4):
            remaining = areas[c]
            if 1000 * remaining < upper[label][c] * total:
                continue
            allowed = -(-upper[label][c] * total // 1000) - 1
            need = areas[c] - allowed
            order = px[c][np.argsort(log_odds(logits[px[c]], c), kind="stable")]
            chosen = fewest(order, tumor_px, need)
            out["action"][chosen], out["class_id"][chosen] = UPPER, c
            out["admissible"][chosen] = admissible_bits(c, neighbors)
            out["excess_px"][s, c] = need
            out["pushed_px"][s, c] = tumor_px[chosen].sum(dtype=np.int64)

        need = -(-lower[label] * total // 1000) - areas[label]
        if need <= 0:
            continue
        out["missing_px"][s] = need
        for away in (1, 2, 3):
            if need <= 0:
                break
            pool = here[np.abs(predicted[here] - label) == away]
            key = log_odds(logits[pool], label)
            chosen = fewest(pool[np.argsort(key, kind="stable")][::-1], tumor_px, need)
            out["action"][chosen], out["class_id"][chosen] = LOWER, label
            out["admissible"][chosen] = 1 << label
            taken = int(tumor_px[chosen].sum(dtype=np.int64))
            out["pulled_px"][s] += taken
            out["reach"][s] = away
            need -= taken
    return out
