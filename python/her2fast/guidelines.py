# SPDX-License-Identifier: Apache-2.0
"""HER2 guidelines as exact integers.

The rules, with their sources, are defined once, in the core
(``csrc/session/guideline.cpp``); docs/decisions/guidelines.md says how they are read.
The unit of an area-based score is area: an approximation of the percentages of cells
that the guidelines speak of.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast

from her2fast import _core

__all__ = ["GuidelineDecision", "Margin", "RuleSet", "decide", "rule_sets"]

Score = Literal["0", "1+", "2+", "3+"]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A rule set that `decide` knows."""

    name: str
    title: str
    source: str


@dataclass(frozen=True, slots=True)
class Margin:
    """One cut of a rule set, as it fell.

    `margin` is ten times the compared `area` less the whole tumor area: 0 is on the
    cut, and a tenth of it is how much area the slide lies past (or short of) the cut.
    """

    cut: Score
    area: int
    margin: int
    passed: bool


@dataclass(frozen=True, slots=True)
class GuidelineDecision:
    """What a rule set says of one slide's class areas.

    `score` is None, and with it every view, where there is no tumor area: not
    evaluable is never 0. `flags` come in the order ULTRALOW, GUIDELINE_GAP, BORDERLINE,
    HETEROGENEOUS, UNUSUAL_PATTERN; all but the first ask for review. Areas never set
    UNUSUAL_PATTERN, nor tell null from ultralow: both need measured membranes.
    """

    rule_set: str
    score: Score | None
    flags: tuple[str, ...]
    review_required: bool
    alternative: Score | None
    binary: Literal["negative", "positive"] | None
    three_way: Literal["negative", "equivocal", "positive"] | None
    her2_view: Literal["zero", "low", "high"] | None
    ihc0_membrane_staining: Literal["null", "ultralow", "not_assessable"]
    margins: tuple[Margin, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GuidelineDecision:
        """Read the form that the core and the result records hold."""
        fields = {name: values[name] for name in cls.__slots__}
        fields["flags"] = tuple(values["flags"])
        fields["margins"] = tuple(Margin(**margin) for margin in values["margins"])
        return cls(**fields)


def rule_sets() -> tuple[RuleSet, ...]:
    """List the rule sets, the default first.

    Examples
    --------
    >>> [rule_set.name for rule_set in rule_sets()]  # doctest: +NORMALIZE_WHITESPACE
    ['asco-cap-2018', 'gefpics-2021', 'pham-2022', 'pham-2022-heterogeneous',
     'gastric-2016']
    """
    return tuple(RuleSet(**info) for info in _core.rule_sets())


def decide(
    areas: Iterable[SupportsIndex],
    rule_set: str = "asco-cap-2018",
    floor_percent: SupportsIndex = 1,
    patches: Iterable[SupportsIndex] | None = None,
    ish: str | None = None,
    unusual: SupportsIndex | None = None,
) -> GuidelineDecision:
    """Apply a guideline to the tumor areas of the classes 0, 1+, 2+ and 3+.

    Parameters
    ----------
    areas : four integers >= 0, below 2**53
        Tumor area per class in any one unit that is counted (pixels, cells). Floats are
        refused: ten times 0.01 is below 0.1, and a slide must not fall by that.
    rule_set : str
        A name of `rule_sets`.
    floor_percent : int in 0..100
        A class counts as present from this share of the tumor on, and, where `patches`
        are given, from three patches on. 0 switches both off.
    patches : four integers >= 0, optional
        Classified patches per class.
    ish : "positive", "negative" or None
        Result of in-situ hybridization; read where the score is 2+, and only there.
    unusual : int, optional
        Where `areas` are cells whose membranes were measured at 0.5 um/px or finer: how
        many of class 2+ are moderate to intense but incomplete.

    Returns
    -------
    GuidelineDecision

    Raises
    ------
    TypeError
        Anything but integers (NumPy's included; bool is none).
    ValueError
        Negative or too large areas, an unknown rule set, bad options.

    References
    ----------
    Wolff et al., J Clin Oncol 2018;36:2105-2122 (ASCO/CAP 2018), affirmed 2023;41:3867.
    Franchet et al., Ann Pathol 2021;41:507-520 (GEFPICS 2021).
    Bartley et al., J Clin Oncol 2017;35:446-464 (gastroesophageal, 2016).
    Pham et al., Comput Med Imaging Graph 2023;108:102261, Table 1 and section 6.1.

    Examples
    --------
    >>> decision = decide((820, 90, 90, 0))
    >>> decision.score, decision.her2_view, decision.alternative
    ('1+', 'low', '2+')
    >>> decision.flags
    ('GUIDELINE_GAP', 'BORDERLINE', 'HETEROGENEOUS')
    >>> [(m.cut, m.area, m.margin) for m in decision.margins]
    [('3+', 0, -1000), ('2+', 90, -100), ('1+', 180, 800)]
    >>> decide((900, 0, 0, 100)).score, decide((899, 0, 0, 101)).score
    ('2+', '3+')
    >>> decide((500, 0, 500, 0), ish="negative").her2_view
    'low'
    >>> decide((0, 0, 0, 0)).score is None
    True
    """
    return GuidelineDecision.from_dict(
        _core.decide_guideline(
            _four(areas, "areas"),
            _text(rule_set, "rule_set"),
            _integer(floor_percent, "floor_percent"),
            None if patches is None else _four(patches, "patches"),
            None if ish is None else _text(ish, "ish"),
            None if unusual is None else _integer(unusual, "unusual"),
        )
    )


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"need an integer {name}, got {value!r}")
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"need an integer {name}, got {kind} {value!r}") from None


def _four(values: object, name: str) -> tuple[int, int, int, int]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"need four integers as {name}, got {values!r}")
    items = tuple(_integer(value, f"{name}[{c}]") for c, value in enumerate(values))
    if len(items) != 4:
        raise ValueError(f"need four {name}, for 0, 1+, 2+ and 3+, got {len(items)}")
    return items


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"need a string {name}, got {value!r}")
    return value
