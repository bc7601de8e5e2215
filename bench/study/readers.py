# SPDX-License-Identifier: Apache-2.0
"""A panel of readers, simulated: who reads what, and what they agree on.

A reader eyeballs percentages: on a slide a share of every class is read one class too
high (or too low), drawn anew for reader and slide around the reader's own leaning, and
percentages are over- and underestimated. The score then follows the guideline. So
errors lie between neighboring classes and mostly where a share is near a cut, as among
pathologists. How far readers stray is set so that pairs of them disagree on a stated
part of the training slides; that looks at true areas alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from design import READER_SEED, READERS, SCORES

from her2fast import guidelines

Areas = Sequence[int]
Floats = npt.NDArray[np.float64]

#: A reader's own leaning, beside what is drawn for every slide.
LEANING = 0.5
#: How much more the logarithm of a percentage is misjudged than a class is mistaken.
WEIGHING = 4.0
#: Area on which shares are counted.
UNIT = 1_000_000


def score_of(areas: Areas) -> int:
    """By `pham-2022`, 0 to 3."""
    score = guidelines.decide([int(a) for a in areas], "pham-2022").score
    assert score is not None
    return SCORES.index(score)


def read_slide(fractions: Sequence[float], shift: float, weights: Floats) -> int:
    """The score where a share |shift| of each class is read a class higher (lower).

    `weights` are the logarithms by which the reader's eye weighs each class.
    """
    part = min(abs(shift), 1.0)
    true = np.asarray(fractions)
    seen, moved = true * (1.0 - part), true * part
    if shift > 0:
        seen[1:] += moved[:-1]
        seen[-1] += moved[-1]
    else:
        seen[:-1] += moved[1:]
        seen[0] += moved[0]
    seen = seen * np.exp(weights)
    return score_of(np.round(seen / seen.sum() * UNIT).astype(np.int64).tolist())


def draw_errors(slides: int) -> Floats:
    """(slides, readers, 5), in units of the spread: a shift, and four weights."""
    rng = np.random.default_rng(READER_SEED)
    errors = rng.standard_normal((slides, READERS, 5))
    errors[..., 0] += LEANING * rng.standard_normal(READERS)
    errors[..., 1:] *= WEIGHING
    return np.asarray(errors)


def readings(
    fractions: Sequence[Sequence[float]], spread: float, errors: Floats
) -> npt.NDArray[np.int64]:
    """(slides, readers) scores."""
    return np.array(
        [
            [read_slide(one, spread * e[0], spread * e[1:]) for e in row]
            for one, row in zip(fractions, errors, strict=True)
        ],
        np.int64,
    )


def disagreement(scores: npt.NDArray[np.int64]) -> float:
    """Share of slides on which a pair of readers differs, mean over the pairs."""
    pairs = combinations(range(scores.shape[1]), 2)
    return float(np.mean([(scores[:, a] != scores[:, b]).mean() for a, b in pairs]))


def consensus(row: Sequence[int]) -> int:
    """What most say; where all differ, the middle one."""
    value, votes = Counter(row).most_common(1)[0]
    return int(value if votes > 1 else sorted(row)[len(row) // 2])


def panel(
    fractions: Sequence[Sequence[float]], wanted: float
) -> tuple[npt.NDArray[np.int64], list[int], float]:
    """Readings and consensus of every slide, and the spread that was found.

    The spread is searched by halving; the disagreement jumps slide by slide, so what
    comes out is near `wanted`, not equal.
    """
    errors = draw_errors(len(fractions))
    if wanted == 0:
        scores = readings(fractions, 0.0, errors)
        return scores, [consensus(row) for row in scores.tolist()], 0.0
    low, high = 0.0, 2.0
    best: tuple[float, float] = (float("inf"), 0.0)
    for _ in range(14):
        middle = (low + high) / 2
        found = disagreement(readings(fractions, middle, errors))
        best = min(best, (abs(found - wanted), middle))
        low, high = (middle, high) if found < wanted else (low, middle)
    scores = readings(fractions, best[1], errors)
    return scores, [consensus(row) for row in scores.tolist()], best[1]
