# SPDX-License-Identifier: Apache-2.0
"""The record of a slide: `results/<slide>.json`, a pure function of its inputs.

No time, host or path stands in it (those go to `run_<id>.json`). Keys and order are
stable, so equal inputs give equal bytes. The schema is `data/schemas/result.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import REASON_CODES, SlideError, UsageError
from her2fast.models.config import PACKAGE_LAYOUT_VERSION
from her2fast.models.package import MethodPackage

#: Version of the record's layout; a change that could break a reader raises it.
RECORD_VERSION = 1
INTENDED_USE = "research use only"
AREA_UNIT = "tumor area, an area-based approximation of cell percentages"
#: Decimals of areas in mm2 and of shares: finer than a pixel of any accepted spacing.
DECIMALS = 9

Roi = Sequence[tuple[bool, list[npt.NDArray[np.float64]]]]
Record = dict[str, Any]


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, hex."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def record_bytes(record: Record) -> bytes:
    """The record as it is stored."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


@dataclass(frozen=True)
class DecideSettings:
    """What a decision depends on beside the measurement."""

    roi: Roi = ()
    guideline: str | None = None
    floor_percent: int = 1
    ish: str | None = None
    scale_q16: Sequence[int] = ()
    bias_q16: Sequence[int] = ()
    check_stain: bool = False
    #: The record's `method.domain`.
    domain: Record | None = None

    def core_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `_core.decide` and `_core.patch_outcomes`."""
        return {
            "rule_set": self.guideline,
            "floor_percent": self.floor_percent,
            "ish": self.ish,
            "scale_q16": list(self.scale_q16),
            "bias_q16": list(self.bias_q16),
            "roi": list(self.roi),
            "check_stain": self.check_stain,
            "domain": (
                None
                if self.domain is None
                else (self.domain["cut_q16"], self.domain["max_share_permille"])
            ),
        }

    def key(self, measurement_key: str) -> str:
        """The record's `decision_key`."""
        parts: dict[str, Any] = {
            "measurement_key": measurement_key,
            "roi": self.roi_sha256(),
            "guideline": self.guideline,
            "floor_percent": self.floor_percent,
            "ish": self.ish,
            "scale_q16": list(self.scale_q16),
            "bias_q16": list(self.bias_q16),
            "check_stain": self.check_stain,
        }
        if self.domain is not None:
            parts["domain"] = self.domain
        return digest(parts)

    def roi_sha256(self) -> str | None:
        """SHA-256 over the polygons in level-0 px; None without any."""
        if not self.roi:
            return None
        return digest(
            [
                [bool(exclude), [ring.tolist() for ring in rings]]
                for exclude, rings in self.roi
            ]
        )


@dataclass(frozen=True)
class Provenance:
    """What a measurement was made from: everything but the decision."""

    slide: Record
    working_spacing_um: float | None
    reading_mode: str | None
    measurement_key: str | None
    method: Record | None
    models: list[Record]
    device: Record | None
    class_names: list[str]
    warnings: list[str]
    intended_use: str

    @classmethod
    def from_record(cls, record: Record) -> Provenance:
        """What an earlier record says of its measurement."""
        return cls(**{key: record[key] for key in cls.__dataclass_fields__})


def empty_slide(name: str | None = None) -> Record:
    """The record's `slide` where nothing is known yet."""
    return {
        "name": name,
        "size_px": None,
        "fingerprint": None,
        "sha256": None,
        "spacing_um": None,
        "spacing_source": None,
        "format": None,
        "reader": None,
    }


def method_record(package: MethodPackage) -> Record:
    """The record's `method`: all that deciding again needs of the package."""
    return {
        "name": package.name,
        "kind": package.method,
        "guideline": package.guideline,
        "floor_percent": package.floor_percent,
        "stain": package.stain,
        "domain": package.domain_record,
        "calibration": {"scale_q16": package.scale_q16, "bias_q16": package.bias_q16},
        "tile_px": package.tile_px,
        "patch_px": package.patch_px,
        "halo_px": package.halo_px,
        "synthetic": package.synthetic,
    }


def provenance(
    package: MethodPackage,
    *,
    slide: Record,
    device: Record | None = None,
    reading_mode: str | None = None,
    warnings: Sequence[str] = (),
) -> Provenance:
    """The provenance of one slide and package; keyed once the device is known."""
    models = [model.to_record() for model in package.models]
    key = None
    if device is not None and slide["size_px"] is not None:
        key = digest(
            {
                "fingerprint": slide["fingerprint"],
                "size_px": slide["size_px"],
                "spacing_um": slide["spacing_um"],
                "models": [[m["sha256"], m["config_sha256"]] for m in models],
                "working_spacing_um": package.spacing_um,
                "grid": [package.tile_px, package.patch_px, package.halo_px],
                "reading_mode": reading_mode,
                "package_layout": PACKAGE_LAYOUT_VERSION,
                "device": device,
                "her2fast": _core.__version__,
            }
        )
    purpose = package.intended_use or INTENDED_USE
    if package.synthetic and "synthetic" not in purpose:
        purpose += "; trained on synthetic data"
    return Provenance(
        slide=slide,
        working_spacing_um=package.spacing_um,
        reading_mode=reading_mode,
        measurement_key=key,
        method=method_record(package),
        models=models,
        device=device,
        class_names=package.class_names,
        warnings=list(warnings),
        intended_use=purpose,
    )


def unmeasured(slide: Record, package: MethodPackage | None = None) -> Provenance:
    """The provenance of a slide that was not measured."""
    if package is not None:
        return provenance(package, slide=slide)
    return Provenance(
        slide=slide,
        working_spacing_um=None,
        reading_mode=None,
        measurement_key=None,
        method=None,
        models=[],
        device=None,
        class_names=[],
        warnings=[],
        intended_use=INTENDED_USE,
    )


def settings_for(
    method: Mapping[str, Any],
    *,
    roi: Roi = (),
    guideline: str | None = None,
    ish: str | None = None,
) -> DecideSettings:
    """Settings of a decision by a record's `method`; `guideline` overrides its default.

    A package without a guideline has none to override: its classes are not HER2's.
    """
    known = [rule_set["name"] for rule_set in _core.rule_sets()]
    if guideline not in (None, "none", *known):
        raise UsageError(
            f"need a guideline of {', '.join(known)}, none; got {guideline!r}"
        )
    if ish not in (None, "positive", "negative"):
        raise UsageError(f"need ish of positive, negative; got {ish!r}")
    default = method["guideline"]
    chosen = default if guideline is None else guideline
    if guideline == "none":
        chosen = None
    elif guideline is not None and default is None:
        raise SlideError(
            f"guideline {guideline!r}: the package {method['name']!r} names no "
            "guideline, so its classes give areas only",
            "MODEL_CLASSES",
        )
    return DecideSettings(
        roi=roi,
        guideline=chosen,
        floor_percent=method["floor_percent"],
        ish=ish,
        scale_q16=method["calibration"]["scale_q16"],
        bias_q16=method["calibration"]["bias_q16"],
        check_stain=method["stain"] == "h-dab",
        domain=method.get("domain"),  # records of older releases have none
    )


def decided_record(
    source: Provenance, decision: Mapping[str, Any], settings: DecideSettings
) -> Record:
    """The record of a measured slide."""
    mm2 = float(decision["pixel_mm2"])
    class_px = [int(n) for n in decision["class_px"]]
    kept_px = sum(class_px)
    dropped_px = int(decision["dropped_tumor_px"])
    focus_px = int(decision["focus_tissue_px"])
    out_px = int(decision["out_of_focus_tissue_px"])
    return _record(
        source,
        status=str(decision["status"]),
        code=decision["code"],
        message=str(decision["message"]),
        settings=settings,
        guideline=decision["guideline"],
        areas={
            "class_px": class_px,
            "class_mm2": [_share(n * mm2) for n in class_px],
            "class_patches": [int(n) for n in decision["class_patches"]],
            "fractions": [_share(n / kept_px) for n in class_px] if kept_px else None,
            "tissue_mm2": _share(int(decision["tissue_px"]) * mm2),
            "tumor_mm2": _share(kept_px * mm2),
            "dropped_tumor_mm2": _share(dropped_px * mm2),
            "dropped_tumor_share": (
                _share(dropped_px / (dropped_px + kept_px))
                if dropped_px + kept_px
                else None
            ),
            "roi_mm2": _share(int(decision["roi_px"]) * mm2),
            "tiles": {key: int(decision["tiles"][key]) for key in TILE_KEYS},
            "out_of_focus_share": _share(out_px / focus_px) if focus_px else None,
            "domain": _domain(decision["domain"], settings, kept_px),
            **_sureness(decision, mm2),
        },
        review_required=bool(decision["review_required"]),
        review_flags=[str(flag) for flag in decision["review_flags"]],
    )


def _domain(
    finding: Mapping[str, Any] | None, settings: DecideSettings, kept_px: int
) -> Record | None:
    """How far the tumor lies from what the package was trained on."""
    limits = settings.domain
    if finding is None or limits is None:
        return None
    return {
        "outside_share": _share(int(finding["outside_px"]) / kept_px),
        "max_share": limits["max_share_permille"] / 1000,
        "distances": {
            name: {"mean": _share(float(mean)), "cut": _share(cut / 65536)}
            for name, mean, cut in zip(
                limits["names"], finding["means"], limits["cut_q16"], strict=True
            )
        },
    }


def _sureness(decision: Mapping[str, Any], mm2: float) -> Record:
    """How sure the decision is: docs/design/decide.md."""
    flip, bootstrap = decision["flip"], decision["bootstrap"]
    islands = decision["islands"]
    scored = decision["guideline"] is not None
    out: Record = dict.fromkeys(SURENESS_KEYS)
    if bootstrap is not None:
        out["intervals"] = [
            [_share(x) for x in pair] for pair in bootstrap["intervals"]
        ]
        if scored:
            shares = [_share(x) for x in bootstrap["score_probability"]]
            out["score_probability"] = shares
        out["bootstrap"] = {
            key: int(bootstrap[key]) for key in ("replicates", "blocks", "block_px")
        }
    if flip is not None:
        out["flip"] = {
            "least_px": int(flip["least_px"]),
            "least_mm2": _share(int(flip["least_px"]) * mm2),
            "to_score": str(flip["to_score"]),
        }
    if islands is not None:
        out["islands"] = {
            "count": int(islands["count"]),
            "score_mm2": [_share(int(n) * mm2) for n in islands["score_px"]],
        }
    return out


SURENESS_KEYS = ("intervals", "score_probability", "bootstrap", "flip", "islands")
TILE_KEYS = ("total", "read", "missing", "corrupt", "warned")
_NO_AREAS: Record = dict.fromkeys(
    (
        "class_px",
        "class_mm2",
        "class_patches",
        "fractions",
        "tissue_mm2",
        "tumor_mm2",
        "dropped_tumor_mm2",
        "dropped_tumor_share",
        "roi_mm2",
        "tiles",
        "out_of_focus_share",
        "domain",
        *SURENESS_KEYS,
    )
)


def failed_record(source: Provenance, error: SlideError) -> Record:
    """The record of a slide that ended with an error before it was decided."""
    return _record(
        source,
        status=error.status,
        code=error.code,
        message=str(error),
        settings=None,
        guideline=None,
        areas=_NO_AREAS,
        review_required=False,
        review_flags=[],
    )


def _record(
    source: Provenance,
    *,
    status: str,
    code: str | None,
    message: str,
    settings: DecideSettings | None,
    guideline: Mapping[str, Any] | None,
    areas: Record,
    review_required: bool,
    review_flags: list[str],
) -> Record:
    score = guideline["score"] if guideline is not None else None
    # The one place where a score enters a record.
    if (status == "scored") != (code is None) or (score is not None and code):
        raise SlideError(f"status {status!r} with code {code!r}", "CRASH")
    if code is not None and REASON_CODES[code] != status:
        raise SlideError(f"status {status!r} with code {code!r}", "CRASH")
    key = source.measurement_key
    decided = settings is not None and key is not None
    return {
        "record_version": RECORD_VERSION,
        "slide": source.slide,
        "working_spacing_um": source.working_spacing_um,
        "reading_mode": source.reading_mode,
        "measurement_key": key,
        "decision_key": settings.key(key) if decided and settings and key else None,
        "method": source.method,
        "models": source.models,
        "device": source.device,
        "status": status,
        "code": code,
        "message": message,
        "score": score,
        "guideline": _guideline_record(guideline, settings),
        "roi_sha256": settings.roi_sha256() if settings else None,
        "class_names": source.class_names,
        **areas,
        "review_required": review_required,
        "review_flags": review_flags,
        "warnings": source.warnings,
        "versions": {
            "her2fast": _core.__version__,
            "package_layout": PACKAGE_LAYOUT_VERSION,
        },
        "intended_use": source.intended_use,
    }


def _guideline_record(
    guideline: Mapping[str, Any] | None, settings: DecideSettings | None
) -> Record | None:
    if guideline is None or settings is None:
        return None
    return {
        "rule_set": guideline["rule_set"],
        "floor_percent": settings.floor_percent,
        "ish": settings.ish,
        "unit": AREA_UNIT,
        "flags": list(guideline["flags"]),
        "alternative": guideline["alternative"],
        "binary": guideline["binary"],
        "three_way": guideline["three_way"],
        "her2_view": guideline["her2_view"],
        "ihc0_membrane_staining": guideline["ihc0_membrane_staining"],
        "margins": [dict(margin) for margin in guideline["margins"]],
    }


def _share(value: float) -> float:
    return round(value, DECIMALS)
