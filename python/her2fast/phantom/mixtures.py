# SPDX-License-Identifier: Apache-2.0
"""Which classes a slide of a given score holds, and how much of each.

A slide is not of one class: its score says what more than a tenth of it shows at least
(`pham-2022`: the highest class with a tenth or more). A 2+ slide holds much 0 and 1+, a
3+ slide little. These distributions are chosen, not measured: no labelled set of slides
is open, and what is published gives the order (heterogeneous 2+, nearly uniform 3+).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

Shares = tuple[float, float, float, float]


@dataclass(frozen=True)
class ScoreMix:
    """Distribution of the shares of 0, 1+, 2+ and 3+ on slides of one score."""

    score: int  # 0 to 3
    own: tuple[float, float]  # range of the score's own class, dimensionless
    own_beta: tuple[float, float]  # Beta parameters within that range
    above: float  # probability that higher classes appear at all
    above_most: float  # at most this share of them together; below a tenth
    below: tuple[float, float, float]  # Dirichlet of what is left, over 0, 1+ and 2+

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 3:
            raise ValueError(f"need 0 <= score <= 3, got {self.score}")
        low, high = self.own
        if not 0.0 < low <= high <= 1.0 or min(self.own_beta) <= 0.0:
            raise ValueError(f"need 0 < low <= high <= 1, got own={self.own}")
        if not (0.0 <= self.above <= 1.0 and 0.0 <= self.above_most < 0.1):
            raise ValueError(
                f"need above in [0, 1] and above_most in [0, 0.1), got {self.above} "
                f"and {self.above_most}"
            )
        if self.score and min(self.below[: self.score]) <= 0.0:
            raise ValueError(f"need positive numbers below, got {self.below}")

    def draw(self, rng: np.random.Generator) -> Shares:
        """Four shares that add to 1."""
        low, high = self.own
        own = low + (high - low) * float(rng.beta(*self.own_beta))
        shares = np.zeros(4)
        if self.score == 0:
            own = 1.0
        shares[self.score] = own
        if self.score < 3 and rng.random() < self.above:
            # Small clusters of a higher class: mostly one step up, seldom more.
            more = self.above_most * float(rng.beta(1.0, 2.0))
            weights = rng.dirichlet([1.0, 0.4, 0.25][: 3 - self.score])
            more = min(more, 1.0 - own) if self.score else more
            shares[self.score + 1 :] += more * weights
            if self.score == 0:
                shares[0] -= more
        if self.score:
            left = 1.0 - float(shares.sum())
            parts = rng.dirichlet(self.below[: self.score])
            shares[: self.score] += left * parts
        shares = np.clip(shares, 0.0, 1.0)
        shares /= shares.sum()
        return tuple(float(share) for share in shares)  # type: ignore[return-value]


#: The distributions in use. Own share of a 2+ slide: 12 to 95 %, mean 47 %, so that
#: half of its tumor is 0 and 1+; of a 3+ slide: 12 to 100 %, mean 78 %, and what is
#: left is mostly 2+. Below 3+, up to 9 % of a slide are focal clusters of higher ones.
MIXES: Mapping[int, ScoreMix] = MappingProxyType(
    {
        0: ScoreMix(0, (1.0, 1.0), (1.0, 1.0), 0.55, 0.09, (1.0, 1.0, 1.0)),
        1: ScoreMix(1, (0.12, 0.98), (1.3, 1.3), 0.55, 0.09, (1.0, 1.0, 1.0)),
        2: ScoreMix(2, (0.12, 0.95), (1.2, 1.6), 0.50, 0.09, (1.0, 1.2, 1.0)),
        3: ScoreMix(3, (0.12, 1.00), (2.2, 0.75), 0.0, 0.0, (0.35, 0.5, 1.6)),
    }
)
NAMES = ("0", "1+", "2+", "3+")


def draw_mixture(
    rng: np.random.Generator,
    score: int | str,
    *,
    mixes: Mapping[int, ScoreMix] = MIXES,
) -> Shares:
    """Shares of 0, 1+, 2+ and 3+ tumor for a slide of `score`.

    Parameters
    ----------
    rng
        Source of random numbers.
    score
        0 to 3, or "0", "1+", "2+", "3+".
    mixes
        Other distributions than `MIXES`.

    Returns
    -------
        Four shares, dimensionless, that add to 1. By `pham-2022` they make `score`;
        what a drawn slide holds can differ a little, as cells are whole.

    Raises
    ------
    ValueError
        `score` is none of the four.
    """
    wanted = NAMES.index(score) if score in NAMES else score
    if not isinstance(wanted, int | np.integer) or int(wanted) not in mixes:
        raise ValueError(f"need a score of {list(NAMES)} or 0 to 3, got {score!r}")
    return mixes[int(wanted)].draw(rng)
