# SPDX-License-Identifier: Apache-2.0
"""What a report says of how sure it is: intervals, probabilities, the least flip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["sureness"]

_SCORES = ("0", "1+", "2+", "3+")


def sureness(
    record: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Text and numbers of the section; None where the record holds nothing of it."""
    if record.get("status") != "scored":
        return None
    score = record.get("score")
    whiskers = _whiskers(record.get("intervals"), classes)
    chances = _chances(record.get("score_probability"), score, classes)
    flip = _flip(record.get("flip"), score)
    if not (whiskers or chances or flip):
        return None
    return {
        "whiskers": whiskers,
        "chances": chances,
        "flip": flip,
        "how": _how(record) if whiskers else None,
    }


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _numbers(values: Any) -> list[float] | None:
    if not isinstance(values, (list, tuple)):
        return None
    found = [_number(value) for value in values]
    return [n for n in found if n is not None] if None not in found else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _chance(share: float) -> str:
    """Never 0 % or 100 % by rounding, and no finer than the replicates allow."""
    if share in (0.0, 1.0):
        return "none" if share == 0 else "all"
    return _percent(min(max(share, 0.001), 0.999))


def _whiskers(
    intervals: Any, classes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    if not isinstance(intervals, (list, tuple)) or len(intervals) != len(classes):
        return []
    rows = []
    for pair, of_class in zip(intervals, classes, strict=True):
        ends = _numbers(pair)
        if ends is None or len(ends) != 2:
            return []
        low, high = ends
        rows.append(
            {
                "name": of_class["name"],
                "index": of_class["index"],
                "color": of_class["color"],
                "width": 100 * of_class["share"],
                "low": 100 * low,
                "high": 100 * high,
                "text": f"{of_class['percent']}, between {_percent(low)} "
                f"and {_percent(high)}",
            }
        )
    return rows


def _chances(
    shares: Any, score: Any, classes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    known = _numbers(shares)
    if known is None or len(known) != len(_SCORES) or score not in _SCORES:
        return []
    colors = {of_class["name"]: of_class["color"] for of_class in classes}
    return [
        {
            "name": name,
            "color": colors.get(name, "#5f6368"),
            "width": 100 * share,
            "text": _chance(share),
            "reported": name == score,
        }
        for name, share in zip(_SCORES, known, strict=True)
    ]


def _flip(flip: Any, score: Any) -> str | None:
    if not isinstance(flip, Mapping) or score not in _SCORES:
        return None
    px, mm2 = _number(flip.get("least_px")), _number(flip.get("least_mm2"))
    to_score = flip.get("to_score")
    if px is None or to_score not in _SCORES:
        return None
    area = f"{int(px):,} px"
    if mm2 is not None:
        size = f"{mm2:.3f}" if mm2 >= 0.0005 else "less than 0.001"
        area = f"{size} mm² ({area})"
    return (
        f"The score becomes {to_score} where {area} of the tumor is of another class; "
        "no smaller area can change it."
    )


def _how(record: Mapping[str, Any]) -> str:
    bootstrap = record.get("bootstrap")
    values = bootstrap if isinstance(bootstrap, Mapping) else {}
    blocks, replicates = (_number(values.get(k)) for k in ("blocks", "replicates"))
    side, spacing = (
        _number(values.get("block_px")),
        _number(record.get("working_spacing_um")),
    )
    drawn = ""
    if blocks is not None and replicates is not None:
        wide = ""
        if side is not None and spacing is not None:
            wide = f" of {side * spacing / 1000:.2f} mm"
        drawn = (
            f" The tumor's {int(blocks):,} blocks{wide} were drawn again "
            f"{int(replicates):,} times."
        )
    return (
        "Lines mark where 95 % of the shares would lie, and probabilities count the "
        f"scores, had other tumor of the same kind been on the slide.{drawn} Errors "
        "that the method makes everywhere (stain, focus, model) are not in them."
    )
