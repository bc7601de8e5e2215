# SPDX-License-Identifier: Apache-2.0
"""From a record to what the page shows. A field that is absent is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from her2fast.export.class_map import CLASS_WORDS
from her2fast.export.names import printable
from her2fast.export.numbers import percent
from her2fast.export.palettes import class_colors, hex_color
from her2fast.guidelines import rule_sets
from her2fast.report import words
from her2fast.report.sureness import sureness

__all__ = ["AREAS_MEAN_SOMETHING", "intended_use", "page_view", "printable_all"]

#: Elsewhere what was measured, if anything, is of a slide that must not be read.
AREAS_MEAN_SOMETHING = ("scored", "indeterminate")

_NEUTRAL = "#5f6368"
_SCORES = ("0", "1+", "2+", "3+")
_EXACT_BELOW_PX = 1000  # farther from a cut nobody counts tenths of a pixel


def page_view(record: Mapping[str, Any], palette: str) -> dict[str, Any]:
    """Everything the template prints, as text and numbers, ready to be escaped."""
    clean = printable_all(record)
    slide = _mapping(clean.get("slide"))
    guideline = _mapping(clean.get("guideline"))
    classes = _classes(clean, palette)
    status = clean.get("status")
    return {
        "slide_name": slide.get("name") or "unnamed slide",
        "head": _head(clean, guideline, classes),
        "review": _review(clean, guideline),
        "classes": classes,
        "cuts": _cuts(clean, guideline, classes),
        "sure": sureness(clean, classes),
        "facts": _facts(clean),
        "areas": _areas(clean) if status in AREAS_MEAN_SOMETHING else [],
        "tiles": _tiles(_mapping(clean.get("tiles"))),
        "warnings": _list(clean.get("warnings")),
        "provenance": _provenance(clean, slide, guideline),
        "intended_use": intended_use(clean),
        "unit": _unit(clean),
    }


def printable_all(value: Any) -> Any:
    """The value with every text in it as UTF-8 can hold it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): printable_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable_all(item) for item in value]
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _models(record: Mapping[str, Any]) -> list[Any]:
    return _list(record.get("models"))


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _mm2(value: Any) -> str | None:
    number = _number(value)
    return None if number is None else f"{number:.3f} mm²"


def intended_use(record: Mapping[str, Any]) -> str:
    """The package's own words, and what must stand beside every score in any case."""
    text = str(record.get("intended_use") or "Research use only")
    text = text[:1].upper() + text[1:].rstrip(". ") + "."
    synthetic = any(_mapping(model).get("synthetic") for model in _models(record))
    for needed, wanted, sentence in (
        ("research use", True, " Research use only."),
        ("synthetic", synthetic, " Trained on synthetic data."),
        ("medical device", True, " Not a medical device."),
    ):
        if wanted and needed not in text.casefold():
            text += sentence
    return text


def _unit(record: Mapping[str, Any]) -> str:
    spacing = _number(record.get("working_spacing_um"))
    at = "" if spacing is None else f", measured at {spacing:g} µm/px"
    return f"Area-based approximation of cell percentages{at}."


def _classes(record: Mapping[str, Any], palette: str) -> list[dict[str, Any]]:
    if record.get("status") not in AREAS_MEAN_SOMETHING:
        return []
    names = [str(name) for name in _list(record.get("class_names"))]
    pixels = [int(_number(px) or 0) for px in _list(record.get("class_px"))]
    areas = _list(record.get("class_mm2"))
    total = sum(pixels)
    if len(pixels) != len(names) or total == 0:
        return []
    colors = class_colors(names, palette)
    return [
        {
            "name": name,
            "index": index,
            "words": CLASS_WORDS.get(name, ""),
            "color": hex_color(colors[index]),
            "px": pixels[index],
            "pixels": f"{pixels[index]:,}",
            "percent": percent(pixels[index], total),
            "share": pixels[index] / total,
            "mm2": _mm2(areas[index]) if index < len(areas) else None,
        }
        for index, name in enumerate(names)
    ]


def _head(
    record: Mapping[str, Any],
    guideline: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    status = str(record.get("status") or "failed")
    score = record.get("score") if status == "scored" else None
    color = next((c["color"] for c in classes if c["name"] == score), _NEUTRAL)
    head: dict[str, Any] = {
        "score": score,
        "color": color,
        "status": status,
        "alternative": None,
    }
    if score is None:
        code = record.get("code")
        # scored without a guideline: areas are all that was asked for
        head["title"] = (
            "No guideline: areas only"
            if status == "scored"
            else words.STATUSES.get(status, status)
        )
        lines = [words.CODES.get(str(code)), record.get("message")]
        head["lines"] = [str(line) for line in lines if line]
        head["code"] = code
        return head
    head["title"] = words.THREE_WAY.get(str(guideline.get("three_way")), "")
    lines = []
    binary, view = guideline.get("binary"), guideline.get("her2_view")
    if score == "2+":
        lines.append(
            "In-situ hybridization decides."
            if binary is None
            else f"Decided by in-situ hybridization: {binary}."
        )
    if view in words.HER2_VIEWS:
        lines.append(words.HER2_VIEWS[view])
    if score == "0" and guideline.get("ihc0_membrane_staining") == "not_assessable":
        lines.append("Null or ultralow: not assessable from areas")
    head["lines"] = lines
    head["code"] = None
    head["alternative"] = guideline.get("alternative")
    return head


def _review(
    record: Mapping[str, Any], guideline: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Flags that ask for review first, then those that only inform."""
    if record.get("status") != "scored":
        return None
    asking = [str(flag) for flag in _list(record.get("review_flags"))]
    informing = [
        str(flag) for flag in _list(guideline.get("flags")) if flag not in asking
    ]
    flags = []
    for flag in dict.fromkeys([*asking, *informing]):
        title, text = words.FLAGS.get(flag, (flag, ""))
        flags.append({"name": flag, "title": title, "text": text})
    return {"required": bool(record.get("review_required")), "flags": flags}


def _cuts(
    record: Mapping[str, Any],
    guideline: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    margins = [_mapping(margin) for margin in _list(guideline.get("margins"))]
    if tuple(c["name"] for c in classes) != _SCORES or not margins:
        return []
    total = sum(c["px"] for c in classes)
    mm2_of_all = sum(_number(a) or 0.0 for a in _list(record.get("class_mm2")))
    above = {name: classes[c:] for c, name in enumerate(_SCORES)}
    cumulative = all(
        margin.get("area")
        == sum(c["px"] for c in above.get(str(margin.get("cut")), ()))
        for margin in margins
    )
    cuts = []
    for margin in margins:
        name = str(margin.get("cut"))
        area, distance = int(margin.get("area", 0)), int(margin.get("margin", 0))
        shown = above[name] if cumulative else above[name][:1]
        label = f"{name} and above" if cumulative and name != "3+" else name
        cuts.append(
            {
                "label": label,
                "passed": bool(margin.get("passed")),
                "percent": percent(area, total),
                "distance": _distance(distance, total, mm2_of_all),
                "parts": [
                    {"color": c["color"], "width": 100 * c["share"]}
                    for c in reversed(shown)
                ],
            }
        )
    return cuts


def _distance(margin: int, total: int, mm2_of_all: float) -> str:
    """Say how much area lies between the slide and a cut; `margin` is ten times it."""
    if margin == 0:
        return "exactly on the cut"
    tenths = abs(margin)
    if tenths % 10 == 0 or tenths >= 10 * _EXACT_BELOW_PX:
        pixels = f"{(tenths + 5) // 10:,} px"
    else:
        pixels = f"{tenths // 10}.{tenths % 10} px"
    mm2 = tenths / 10 / total * mm2_of_all
    side = "above" if margin > 0 else "below"
    area = f" ({mm2:.3f} mm²)" if mm2 >= 0.0005 else ""
    return f"{pixels}{area} {side} the cut"


def _facts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What decides at a glance whether the rest can be believed."""
    if record.get("status") not in AREAS_MEAN_SOMETHING:
        return []
    flags = _list(record.get("review_flags"))
    tiles = _mapping(record.get("tiles"))
    spoilt = sum(
        int(_number(tiles.get(key)) or 0) for key in ("missing", "corrupt", "warned")
    )
    rows = [
        ("Tumor that counts", _mm2(record.get("tumor_mm2")), False),
        (
            "Tumor left out",
            _share_text(record.get("dropped_tumor_share"), 2),
            False,
        ),
        (
            "Tissue out of focus",
            _share_text(record.get("out_of_focus_share"), 1),
            "OUT_OF_FOCUS" in flags,
        ),
        (
            "Tumor unlike the training data",
            _share_text(_mapping(record.get("domain")).get("outside_share"), 1),
            "OUT_OF_DOMAIN" in flags,
        ),
        (
            "Tiles missing or damaged",
            f"{spoilt:,}" if tiles else None,
            spoilt > 0,
        ),
    ]
    return [
        {"label": label, "text": text, "bad": bad}
        for label, text, bad in rows
        if text is not None
    ]


def _share_text(value: Any, digits: int) -> str | None:
    share = _number(value)
    return None if share is None else f"{100 * share:.{digits}f} %"


def _areas(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Region looked at", _mm2(record.get("roi_mm2"))),
        ("Tissue", _mm2(record.get("tissue_mm2"))),
        ("Tumor that counts", _mm2(record.get("tumor_mm2"))),
    ]
    dropped = _mm2(record.get("dropped_tumor_mm2"))
    share = _number(record.get("dropped_tumor_share"))
    if dropped is not None and share is not None:
        dropped += f" ({_share_text(share, 2)})"
    rows.append(("Tumor left out (patches with little tumor)", dropped))
    rows.append(
        ("Tissue out of focus", _share_text(record.get("out_of_focus_share"), 1))
    )
    strange = _domain(_mapping(record.get("domain")))
    if strange is not None:
        rows.append(("Tumor unlike the training data", strange))
    return [(label, value) for label, value in rows if value is not None]


def _domain(domain: Mapping[str, Any]) -> str | None:
    """The share outside, and each distance in units of its cut."""
    share = _number(domain.get("outside_share"))
    limit = _number(domain.get("max_share"))
    if share is None or limit is None:
        return None
    text = f"{100 * share:.1f} % (review above {100 * limit:.0f} %)"
    parts = []
    for name, values in _mapping(domain.get("distances")).items():
        mean = _number(_mapping(values).get("mean"))
        cut = _number(_mapping(values).get("cut"))
        if mean is not None and cut:
            parts.append(f"{name} {mean / cut:.2f}")
    if parts:
        text += f"; mean distance, 1 is the cut: {', '.join(parts)}"
    return text


def _tiles(tiles: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "count": f"{int(tiles[key]):,}",
            "bad": key in ("missing", "corrupt", "warned") and tiles[key] > 0,
        }
        for key, label in words.TILES
        if _number(tiles.get(key)) is not None
    ]


def _provenance(
    record: Mapping[str, Any], slide: Mapping[str, Any], guideline: Mapping[str, Any]
) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [("Slide", slide.get("name"))]
    size, spacing = _list(slide.get("size_px")), _list(slide.get("spacing_um"))
    if len(size) == 2:
        rows.append(("Size", f"{size[0]} x {size[1]} px"))
    if len(spacing) == 2:
        source = str(slide.get("spacing_source") or "unknown source")
        source = words.SPACING_SOURCES.get(source, source)
        rows.append(("Pixel", f"{spacing[0]:g} x {spacing[1]:g} µm, from: {source}"))
    working = _number(record.get("working_spacing_um"))
    if working is not None:
        mode = record.get("reading_mode")
        reading = f", reading mode {mode}" if mode else ""
        rows.append(("Measured at", f"{working:g} µm/px{reading}"))
    rows.append(("Fingerprint", slide.get("fingerprint")))
    rows.append(("Region", _region(record)))
    rows.append(("Method", _method(record.get("method"))))
    for model in map(_mapping, _models(record)):
        synthetic = " (synthetic training data)" if model.get("synthetic") else ""
        text = (
            f"{model.get('name', '?')}{synthetic}, SHA-256 {model.get('sha256', '?')}"
        )
        rows.append(("Model", text))
    rule_set = guideline.get("rule_set")
    if rule_set:
        rows.append(("Guideline", _rule_set(str(rule_set), guideline)))
        known = {info.name: info for info in rule_sets()}.get(str(rule_set))
        if known:
            rows.append(("", f"{known.title}. {known.source}"))
    rows.append(("Measurement key", record.get("measurement_key")))
    rows.append(("Decision key", record.get("decision_key")))
    rows.append(("Computed on", _pairs(record.get("device"))))
    rows.append(("Versions", _pairs(record.get("versions"))))
    return [(label, str(value)) for label, value in rows if value]


def _pairs(values: Any) -> str:
    return ", ".join(
        f"{name} ({_pairs(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in _mapping(values).items()
    )


def _region(record: Mapping[str, Any]) -> str | None:
    sha256 = record.get("roi_sha256")
    if sha256:
        return f"drawn, SHA-256 {sha256}"
    return "the whole slide" if "roi_sha256" in record else None


def _method(method: Any) -> str | None:
    if not isinstance(method, Mapping):
        return str(method) if method else None
    parts = [str(method.get("name") or "?")]
    for key, text in (
        ("kind", "method {}"),
        ("stain", "stain {}"),
        ("patch_px", "patches of {} px"),
        ("tile_px", "tiles of {} px"),
        ("halo_px", "halo {} px"),
    ):
        if method.get(key) is not None:
            parts.append(text.format(method[key]))
    calibration = _mapping(method.get("calibration"))
    for key, text in (("scale_q16", "scales"), ("bias_q16", "offsets")):
        factors = [_number(value) for value in _list(calibration.get(key))]
        known = [f"{value / 65536:.4g}" for value in factors if value is not None]
        if known:
            parts.append(f"class {text} {' '.join(known)}")
    return ", ".join(parts)


def _rule_set(name: str, guideline: Mapping[str, Any]) -> str:
    parts = [name]
    if guideline.get("floor_percent") is not None:
        parts.append(f"floor {guideline['floor_percent']} %")
    if guideline.get("ish"):
        parts.append(f"in-situ hybridization {guideline['ish']}")
    return ", ".join(parts)
