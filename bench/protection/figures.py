# SPDX-License-Identifier: Apache-2.0
"""From rows of scored slides to figures; no pixels, no models."""

from __future__ import annotations

from collections import Counter
from typing import Any

SCORES = ("0", "1+", "2+", "3+")
Row = dict[str, Any]


def summarize(rows: list[Row]) -> dict[str, Any]:
    """All figures."""
    by = {
        group: [row for row in rows if row["group"] == group]
        for group in ("control", "blur", "artifact", "pieces")
    }
    return {
        "control": control_figures(by["control"]),
        "blur": blur_figures(by["blur"]),
        "artifact": artifact_figures(by["artifact"]),
        "pieces_without_control": piece_figures(by["pieces"]),
    }


def control_figures(rows: list[Row]) -> dict[str, Any]:
    """What became of slides with a control strip."""
    scored = [row for row in rows if row["status"] == "scored"]
    silent = [row for row in scored if not row["flags"]]
    suspected = [row for row in scored if "CONTROL_SUSPECTED" in row["flags"]]
    ideal = [row["perfect"] for row in rows]
    return {
        "slides": len(rows),
        "with_a_perfect_scorer": {
            "scored": sum(p["status"] == "scored" for p in ideal),
            "without_any_flag": sum(
                p["status"] == "scored" and not p["flags"] for p in ideal
            ),
            "control_suspected": sum("CONTROL_SUSPECTED" in p["flags"] for p in ideal),
            "scores": dict(Counter(p["score"] for p in ideal)),
        },
        "scored": len(scored),
        "not_scored": dict(Counter(r["code"] for r in rows if r["status"] != "scored")),
        "without_any_flag": len(silent),
        "wrong_without_any_flag": sum(r["score"] != r["truth"] for r in silent),
        "control_suspected": len(suspected),
        "wrong": sum(r["score"] != r["truth"] for r in scored),
        "wrong_without_control_suspected": sum(
            r["score"] != r["truth"] and "CONTROL_SUSPECTED" not in r["flags"]
            for r in scored
        ),
        "scores": dict(Counter(r["score"] for r in scored)),
        "flags": dict(Counter(flag for r in scored for flag in r["flags"])),
        "without_any_flag_indices": [r["index"] for r in silent],
    }


def blur_figures(rows: list[Row]) -> dict[str, Any]:
    """By blur: flagged, not scored, and scores that are wrong in silence."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        scored = [row for row in mine if row["status"] == "scored"]
        shares = [r["out_of_focus_share"] for r in mine]
        known = sorted(share for share in shares if share is not None)
        out[name] = {
            "slides": len(mine),
            "out_of_focus": sum("OUT_OF_FOCUS" in row["flags"] for row in scored),
            "not_scored": len(mine) - len(scored),
            "without_any_flag": sum(not row["flags"] for row in scored),
            "wrong": sum(row["score"] != row["truth"] for row in scored),
            "wrong_without_any_flag": sum(
                row["score"] != row["truth"] and not row["flags"] for row in scored
            ),
            "out_of_focus_share": [known[0], known[-1]] if known else None,
        }
    return out


def artifact_figures(rows: list[Row]) -> dict[str, Any]:
    """Against the same slide without: does the score, or what is 2+ and 3+, rise?"""
    clean = {row["index"]: row for row in rows if row["name"] == "clean"}
    out: dict[str, Any] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        pairs = [
            (clean[row["index"]], row)
            for row in rows
            if row["name"] == name and row["index"] in clean
        ]
        both = [(a, b) for a, b in pairs if a["score"] and b["score"]]
        rises = [(a, b) for a, b in both if _level(b) > _level(a)]
        shares = [_high(b) - _high(a) for a, b in both]
        out[name] = {
            "slides": len(pairs),
            "both_scored": len(both),
            "score_rises": len(rises),
            "score_rises_without_flag": sum(not b["flags"] for _, b in rises),
            "score_falls": sum(_level(b) < _level(a) for a, b in both),
            "change_of_2_and_3_share": [
                round(min(shares), 4),
                round(sum(shares) / len(shares), 4),
                round(max(shares), 4),
            ]
            if shares
            else None,
        }
    return out


def piece_figures(rows: list[Row]) -> dict[str, Any]:
    """How often a control is suspected where there is none."""
    ideal = [row["perfect"] for row in rows]
    return {
        "slides": len(rows),
        "control_suspected": sum("CONTROL_SUSPECTED" in row["flags"] for row in rows),
        "control_suspected_by_a_perfect_scorer": sum(
            "CONTROL_SUSPECTED" in p["flags"] for p in ideal
        ),
    }


def _level(row: Row) -> int:
    return SCORES.index(row["score"])


def _high(row: Row) -> float:
    return float(sum(row["fractions"][2:]))
