# SPDX-License-Identifier: Apache-2.0
"""Scores one slide cell by cell: tumor at 1 um/px, membranes at 0.25, then a guideline
on counts of cells. Synthetic packages, research use only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.measure import crash_as_code, default_workers
from her2fast.methods.cell_decision import (
    CLASS_NAMES,
    UNIT,
    CellDecision,
    cell_flags,
    decide_cells,
)
from her2fast.methods.membrane import (
    CellMeasurement,
    Finder,
    MembraneMeasure,
    Seconds,
)
from her2fast.methods.tumor_rows import TumorRows
from her2fast.models.membrane_package import MembranePackage, load_membrane_package
from her2fast.models.package import load_tumor_package
from her2fast.models.runner import (
    describe_device,
    one_intra_op_thread,
    open_runner,
    use_one_thread,
)
from her2fast.record import (
    Provenance,
    Record,
    decided_record,
    digest,
    empty_slide,
    failed_record,
    method_record,
    settings_for,
    unmeasured,
)
from her2fast.scoring import (
    Measurement,
    OpenedSlide,
    RoiLike,
    Scorer,
    as_roi,
    check_roi,
    check_unchanged,
    display_name,
    nameless,
    open_input,
)

OnRow = Callable[[int, int], None]


@dataclass(frozen=True)
class MembraneResult:
    """How a slide ended: the record, and what was measured where there is something."""

    record: Record
    tumor: Measurement | None = None
    cells: CellMeasurement | None = None
    decision: CellDecision | None = None
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def status(self) -> str:
        """ "scored", "indeterminate", "failed" or "refused"."""
        return str(self.record["status"])

    @property
    def score(self) -> str | None:
        """ "0", "1+", "2+" or "3+"; None unless scored by a guideline."""
        score = self.record["score"]
        return None if score is None else str(score)


class NetworkFinder:
    """The membrane network of a package as a finder; one intra-op thread a batch."""

    def __init__(self, package: MembranePackage, device: str = "cpu") -> None:
        """Raises `SlideError` MODEL_HASH or MODEL_SHAPE."""
        self.package = package
        self._runner = open_runner(package.model, device)

    def __call__(
        self,
        rgb: npt.NDArray[np.uint8],
        places_px: Sequence[tuple[int, int]],  # a network sees pixels alone
    ) -> npt.NDArray[np.uint8]:
        """(N, S, S, 3) tiles -> (N, S, S) masks: 1 where its logit is 0 or more."""
        use_one_thread()
        side = self.package.tile_px
        outputs = self._runner.run(rgb).reshape(len(rgb), -1, side, side)[:, 0]
        if not np.isfinite(outputs).all():
            raise SlideError(
                f"{self.package.model.file}: gave values that are no numbers",
                "NON_FINITE",
            )
        return (outputs >= 0).astype(np.uint8)


def measure_cells(
    slide: OpenedSlide,
    tumor: _core.Measurement,
    find: Finder,
    *,
    spacing_um: float,
    step: int,
    tile_px: int,
    batch_size: int,
    workers: int,
    reading: str = "scaled",
    on_row: OnRow | None = None,
) -> tuple[CellMeasurement, Seconds]:
    """Cells and membranes of the tumor that `tumor` has found.

    Raises `SlideError`: NO_LEVEL, INPUT_CHANGED and what reading raises.
    """
    reader = slide.reader(workers=1, reading=reading)
    reader.plan(spacing_um)  # NO_LEVEL before any work
    size_px = tuple(
        -(-round(side * um * 1e6) // round(spacing_um * 1e6))
        for side, um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    masks = TumorRows(tumor, tile_px * spacing_um, size_px, tile_px)
    measure = MembraneMeasure(
        reader,
        find,
        size_px=(size_px[0], size_px[1]),
        spacing_um=spacing_um,
        step=step,
        tile_px=tile_px,
        batch_size=batch_size,
        wanted=masks.wanted(),
        is_tumor=lambda x, y: masks.holds(x, y, spacing_um * step),
    )
    with one_intra_op_thread():
        measured = measure.run(workers=workers, on_row=on_row)
    check_unchanged(slide)
    return measured, measure.seconds


class MembraneScorer:
    """A membrane package and a tumor package, for many slides."""

    def __init__(
        self,
        package: MembranePackage,
        tumor: Scorer,
        *,
        finder: Finder | None = None,
    ) -> None:
        """`finder` replaces the package's network: a bench gives the true mask."""
        if tumor.package.segment is None:
            raise UsageError(
                f"need a tumor package with a segmenter, got {tumor.package.name!r}"
            )
        self.package = package
        self.tumor = tumor
        self._finder = finder

    @property
    def finder(self) -> Finder:
        """The network, opened when first needed."""
        if self._finder is None:
            self._finder = NetworkFinder(self.package, self.tumor.device)
        return self._finder

    @property
    def stain(self) -> str | None:
        """What the slide must be stained with: where either package says so."""
        return self.package.stain or self.tumor.package.stain

    def provenance(self, source: Provenance) -> Provenance:
        """What a cell measurement is made from, given that of its tumor."""
        package = self.package
        model = package.model
        device = describe_device(self.tumor.device, {"membrane": model.batch_size})
        tumor = source.method or {}
        key = digest(
            {
                "tumor": source.measurement_key,
                # Its domain, calibration and guideline decide which flags there are.
                "tumor_method": method_record(self.tumor.package),
                "name": package.name,
                "model": [model.sha256, model.config_sha256],
                "grid": [package.tile_px, package.spacing_um, package.step],
                "device": device,
                "her2fast": _core.__version__,
            }
        )
        method = {
            **tumor,
            "name": package.name,
            "kind": "membrane",
            "guideline": package.guideline,
            "floor_percent": package.floor_percent,
            "stain": self.stain,
            "domain": None,
            "calibration": {"scale_q16": [], "bias_q16": []},
            "tile_px": package.tile_px,
            "patch_px": 0,
            "halo_px": 0,
            "synthetic": package.synthetic or bool(tumor.get("synthetic")),
        }
        return Provenance(
            slide=source.slide,
            working_spacing_um=package.spacing_um,
            reading_mode=source.reading_mode,
            measurement_key=key,
            method=method,
            models=[*source.models, model.to_record()],
            device=device,
            class_names=list(CLASS_NAMES),
            warnings=source.warnings,
            intended_use=_use_of_both(source.intended_use, package),
        )

    def score(
        self,
        slide: OpenedSlide,
        *,
        roi: RoiLike = None,
        guideline: str | None = None,
        ish: str | None = None,
        tumor: Measurement | None = None,
        cells: CellMeasurement | None = None,
        on_row: OnRow | None = None,
    ) -> MembraneResult:
        """Measures what is not given, and decides; raises `SlideError`.

        `tumor` and `cells` are of this slide and these packages: from a results folder.
        """
        polygons = as_roi(roi)
        area_settings = settings_for(
            {**method_record(self.tumor.package), "stain": self.stain},
            roi=polygons,
            ish=ish,
        )
        check_roi(polygons, slide.size_px)
        if tumor is None:
            tumor = self.tumor.measure(slide)
        source = self.provenance(tumor.provenance)
        settings = settings_for(
            source.method or {}, roi=polygons, guideline=guideline, ish=ish
        )
        area = _core.decide(tumor.core, **area_settings.core_arguments())
        area_record = decided_record(tumor.provenance, area, area_settings)
        if area["status"] != "scored":
            record = _without_cells(decided_record(source, _bare(area), settings))
            return MembraneResult(_with_area(record, area_record), tumor)
        package = self.package
        seconds = Seconds()
        if cells is None:
            try:
                with crash_as_code():
                    cells, seconds = measure_cells(
                        slide,
                        tumor.core,
                        self.finder,
                        spacing_um=package.spacing_um,
                        step=package.step,
                        tile_px=package.tile_px,
                        batch_size=package.model.batch_size,
                        workers=self.tumor.workers,
                        reading=self.tumor.reading,
                        on_row=on_row,
                    )
            except SlideError as error:
                record = failed_record(source, nameless(error, slide.path))
                # What was measured before the file changed is no measurement of it.
                kept = None if error.code == "INPUT_CHANGED" else tumor
                return MembraneResult(_with_area(record, area_record), kept)
        decision = decide_cells(
            cells,
            slide_spacing_um=slide.spacing_um,
            roi=polygons,
            rule_set=settings.guideline,
            floor_percent=settings.floor_percent,
            ish=ish,
        )
        record = cell_record(source, settings, decision, area, area_record)
        return MembraneResult(record, tumor, cells, decision, seconds)


def _use_of_both(tumor: str, package: MembranePackage) -> str:
    """What the tumor package is for, with what the membrane package adds to it."""
    purpose = tumor
    if package.intended_use and package.intended_use not in purpose:
        purpose += f"; membranes: {package.intended_use}"
    if package.synthetic and "synthetic" not in purpose:
        purpose += "; trained on synthetic data"
    return purpose


def cell_record(
    source: Provenance,
    settings: Any,
    decision: CellDecision,
    area: dict[str, Any],
    area_record: Record,
) -> Record:
    """The record of a slide whose cells were measured."""
    guideline = decision.guideline
    flags = cell_flags(area, guideline)
    error = decision.error
    shell = {
        **_bare(area),
        "status": "scored" if error is None else error.status,
        "code": None if error is None else error.code,
        "message": "" if error is None else str(error),
        "guideline": guideline,
        "review_required": bool(flags) and error is None,
        "review_flags": flags if error is None else [],
    }
    record = decided_record(source, shell, settings)
    if record["guideline"] is not None:
        record["guideline"]["unit"] = UNIT
    record["fractions"] = decision.record["fractions"] if error is None else None
    return _with_area({**record, "cells": decision.record}, area_record)


def _bare(area: dict[str, Any]) -> dict[str, Any]:
    """A decision on areas without what speaks of its classes alone."""
    return {**area, **dict.fromkeys(("flip", "bootstrap", "islands", "domain"))}


def _without_cells(record: Record) -> Record:
    """Of a slide on which no cell was looked for."""
    return {**record, "fractions": None, "cells": None}


def _with_area(record: Record, area: Record) -> Record:
    """Areas of classes are the other package's; they stand apart, as its reading."""
    out = dict(record)
    for key in ("class_px", "class_mm2", "class_patches"):
        out[key] = None
    for key in ("tissue_mm2", "tumor_mm2", "roi_mm2", "tiles", "out_of_focus_share"):
        out[key] = area[key]
    out.setdefault("cells", None)
    out["area_reading"] = {
        "method": area["method"]["name"],
        "working_spacing_um": area["working_spacing_um"],
        "score": area["score"],
        "fractions": area["fractions"],
        "review_flags": area["review_flags"],
    }
    return out


def score_membranes(
    slide: str | os.PathLike[str],
    *,
    model: str | Path | MembranePackage | None = None,
    tumor_model: str | Path | None = None,
    roi: RoiLike = None,
    device: str = "cpu",
    guideline: str | None = None,
    mpp: float | None = None,
    ish: str | None = None,
    workers: int | None = None,
    allow_unknown_model: bool = False,
    finder: Finder | None = None,
    on_row: OnRow | None = None,
) -> MembraneResult:
    """Scores one slide cell by cell.

    Parameters
    ----------
    slide : path
        A whole-slide image with a level of 0.25 um/px (or what the package asks for).
    model : str, Path or MembranePackage, optional
        A membrane package, as `her2fast train membrane` writes it.
    tumor_model : str or Path, optional
        The package whose segmenter finds the tumor at 1 um/px.
    roi, device, guideline, mpp, ish, workers, allow_unknown_model
        As for `score`.
    finder : callable, optional
        Finds the membranes in the network's place.

    Returns
    -------
    MembraneResult
        With exactly one status; whatever ails the slide is a status, not an exception.

    Raises
    ------
    UsageError
        The call or a package is wrong.
    DeviceError
        This machine lacks the device.
    """
    record = empty_slide(display_name(slide))
    try:
        with crash_as_code():
            package = (
                model
                if isinstance(model, MembranePackage)
                else load_membrane_package(model)
            )
            tumor = load_tumor_package(tumor_model)
            if not allow_unknown_model:
                package.require_known()
                tumor.require_known()
            scorer = MembraneScorer(
                package,
                Scorer(tumor, device=device, workers=workers or default_workers()),
                finder=finder,
            )
            opened = open_input(slide, mpp, record)
            return scorer.score(
                opened, roi=roi, guideline=guideline, ish=ish, on_row=on_row
            )
    except SlideError as error:
        failed = failed_record(unmeasured(record), nameless(error, slide))
        return MembraneResult({**failed, "cells": None, "area_reading": None})
