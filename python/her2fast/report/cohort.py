# SPDX-License-Identifier: Apache-2.0
"""The cohort page: every slide of a results folder, by need of review."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

from her2fast.export.numbers import percent
from her2fast.export.palettes import DEFAULT_PALETTE, class_colors, hex_color
from her2fast.export.results_table import Need, class_counts, worklist
from her2fast.report import words
from her2fast.report.html import template
from her2fast.report.view import AREAS_MEAN_SOMETHING, intended_use, printable_all

__all__ = ["cohort_html"]

_SCORES = ("0", "1+", "2+", "3+")
_NONE = "no score"
_AREAS = "areas only"


def cohort_html(
    records: Iterable[Mapping[str, Any]], *, palette: str = DEFAULT_PALETTE
) -> bytes:
    """Write the page.

    Parameters
    ----------
    records : iterable of mappings
        Result records; `folder` beside what a record holds is the slide's name in the
        results folder, and gives the link to its report.

    Returns
    -------
    bytes
        HTML in UTF-8 that loads nothing. The same records give the same bytes in
        whatever order they come.
    """
    needs = worklist([printable_all(record) for record in records])
    rows = [_row(number, item, palette) for number, item in enumerate(needs, 1)]
    script = resources.files("her2fast.report").joinpath("cohort.js").read_text("utf-8")
    sha256 = hashlib.sha256(script.encode()).digest()
    colors = [hex_color(color) for color in class_colors(_SCORES, palette)]
    scores = Counter(row["score"] for row in rows)
    shown = [*_SCORES, *(s for s in (_AREAS, _NONE) if scores[s])]
    page = template("cohort.html.j2").render(
        slides=len(rows),
        sentence=_sentence(scores, sum(row["need"] == "review" for row in rows)),
        uses=sorted({intended_use(item.record) for item in needs}),
        rows=rows,
        classes=[
            {"name": name, "index": index, "color": colors[index]}
            for index, name in enumerate(_SCORES)
        ],
        counts=_bars(
            {name: scores[name] for name in shown},
            dict(zip(_SCORES, colors, strict=True)),
        ),
        groups=_groups(needs, colors),
        reasons=_reasons(rows),
        script=script,
        script_sha256=base64.b64encode(sha256).decode("ascii"),
    )
    return page.encode()


def _sentence(scores: Counter[str], review: int) -> str:
    total = scores.total()
    scored = total - scores[_NONE]
    text = f"{scored:,} of {total:,} slides scored"
    if scores[_AREAS]:
        text += f" ({scores[_AREAS]:,} with areas only)"
    return f"{text}; {review:,} of them ask for review"


def _row(number: int, item: Need, palette: str) -> dict[str, Any]:
    record = item.record
    slide = _mapping(record.get("slide"))
    status = str(record.get("status") or "failed")
    score = record.get("score") if status == "scored" else None
    name = str(slide.get("name") or record.get("folder") or "unnamed slide")
    folder = record.get("folder")
    areas = record if status in AREAS_MEAN_SOMETHING else {}
    tumor = _number(areas.get("tumor_mm2"))
    return {
        "number": number,
        "name": name,
        "link": f"reports/{quote(str(folder), safe='')}.html" if folder else None,
        "score": score if score in _SCORES else _NONE if status != "scored" else _AREAS,
        "need": item.need,
        "reasons": _why(record, status),
        "message": "" if status == "scored" else str(record.get("message") or ""),
        "alternative": _mapping(record.get("guideline")).get("alternative"),
        "shares": _shares(areas, palette),
        "values": [
            _value(tumor, tumor and f"{tumor:.3f}"),
            _value(item.probability, _probability(item.probability)),
            _share_value(areas.get("dropped_tumor_share"), 2),
            _share_value(areas.get("out_of_focus_share"), 1),
            _share_value(_mapping(areas.get("domain")).get("outside_share"), 1),
        ],
    }


def _why(record: Mapping[str, Any], status: str) -> list[dict[str, Any]]:
    """The code of a slide without a score; else what asks for review, what informs."""
    if status != "scored":
        code = str(record.get("code") or status)
        text = words.CODES.get(code) or words.STATUSES.get(status, status)
        return [{"code": code, "title": code, "text": text, "asks": True}]
    asking = _texts(record.get("review_flags"))
    informing = _texts(_mapping(record.get("guideline")).get("flags"))
    found = []
    for flag in dict.fromkeys([*asking, *informing]):
        title, text = words.FLAGS.get(flag, (flag, ""))
        asks = flag in asking
        found.append({"code": flag, "title": title, "text": text, "asks": asks})
    return found


def _class_px(record: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    names, pixels = _texts(record.get("class_names")), class_counts(record)
    counts = [_number(px) for px in pixels] if isinstance(pixels, list) else []
    whole = [int(count) for count in counts if count is not None and count >= 0]
    return (names, whole) if len(whole) == len(counts) == len(names) else ([], [])


def _shares(record: Mapping[str, Any], palette: str) -> list[dict[str, Any]]:
    names, pixels = _class_px(record)
    total = sum(pixels)
    if not total:
        return []
    return [
        {
            "name": name,
            "index": index,
            "color": hex_color(color),
            "width": 100 * pixels[index] / total,
            "text": percent(pixels[index], total).removesuffix(" %"),
        }
        for index, (name, color) in enumerate(
            zip(names, class_colors(names, palette), strict=True)
        )
    ]


def _groups(needs: Sequence[Need], colors: Sequence[str]) -> list[dict[str, Any]]:
    """Per score its slides as columns of shares, most of the highest class first."""
    shares: dict[str, list[tuple[float, ...]]] = {name: [] for name in _SCORES}
    for item in needs:
        names, pixels = _class_px(item.record)
        score, total = str(item.record.get("score")), sum(pixels)
        scored = item.record.get("status") == "scored"
        if scored and tuple(names) == _SCORES and score in shares and total:
            shares[score].append(tuple(px / total for px in pixels))
    return [
        {
            "score": score,
            "count": len(columns),
            "areas": _areas(
                sorted(columns, key=lambda c: c[::-1], reverse=True), colors
            ),
            "medians": [
                f"{100 * _median([c[index] for c in columns]):.1f} %"
                for index in range(len(_SCORES))
            ],
        }
        for score, columns in shares.items()
        if columns
    ]


def _areas(
    columns: Sequence[tuple[float, ...]], colors: Sequence[str]
) -> list[dict[str, str]]:
    """One outline per class, the highest class at the bottom; y runs down to 100."""
    below = [100.0] * len(columns)
    areas = []
    for index in reversed(range(len(_SCORES))):
        above = [
            y - 100 * column[index] for y, column in zip(below, columns, strict=True)
        ]
        there = " ".join(f"{x},{y:.2f} {x + 1},{y:.2f}" for x, y in enumerate(above))
        back = " ".join(
            f"{x + 1},{below[x]:.2f} {x},{below[x]:.2f}"
            for x in reversed(range(len(columns)))
        )
        areas.append({"color": colors[index], "points": f"{there} {back}"})
        below = above
    return areas


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return (ordered[half] + ordered[-half - 1]) / 2


def _bars(counts: Mapping[str, int], colors: Mapping[str, str]) -> list[dict[str, Any]]:
    most = max([1, *counts.values()])
    return [
        {
            "name": name,
            "index": _SCORES.index(name) if name in _SCORES else 0,
            "color": colors.get(name, "#c9cdd3"),
            "count": count,
            "width": 100 * count / most,
        }
        for name, count in counts.items()
    ]


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How often each reason comes, the most frequent first; also the filter's list."""
    counts: Counter[str] = Counter()
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        for reason in row["reasons"]:
            counts[reason["code"]] += 1
            known.setdefault(reason["code"], reason)
    ordered = sorted(counts, key=lambda code: (-counts[code], code))
    most = max([1, *counts.values()])
    return [
        {**known[code], "count": counts[code], "width": 100 * counts[code] / most}
        for code in ordered
    ]


def _probability(share: float | None) -> str:
    """Never 0 % or 100 % by rounding."""
    if share is None:
        return ""
    return ">99.9 %" if share == 1 else f"{100 * min(max(share, 0.001), 0.999):.1f} %"


def _share_value(value: Any, digits: int) -> dict[str, Any]:
    share = _number(value)
    return _value(share, None if share is None else f"{100 * share:.{digits}f} %")


def _value(number: float | None, text: str | float | None) -> dict[str, Any]:
    """A cell: `sort` is what the script compares; nothing known sorts last."""
    return {"sort": "" if number is None else repr(number), "text": text or ""}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
