# SPDX-License-Identifier: Apache-2.0
"""Scores one slide cell by cell: tumor at 1 um/px, membranes at 0.25, then a guideline
on counts of cells. Synthetic packages, research use only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.kernels.cells import CELL_CUTS
from her2fast.measure import OnProgress, OnStage, crash_as_code
from her2fast.membrane_decision import (
    MembraneMeasurement,
    MembraneResult,
    decide_membranes,
    failed_membranes,
)
from her2fast.methods import cell_file
from her2fast.methods.cell_decision import CLASS_NAMES
from her2fast.methods.glass import PICTURE_UM, Color, glass_color
from her2fast.methods.membrane import (
    CellMeasurement,
    Finder,
    MembraneMeasure,
    Seconds,
    halo_of,
)
from her2fast.methods.tumor_rows import TumorRows, tumor_px_of_tile
from her2fast.models.membrane_package import MembranePackage, load_membrane_package
from her2fast.models.package import load_tumor_package
from her2fast.models.runner import (
    check_device,
    describe_device,
    one_intra_op_thread,
    open_runner,
    use_one_thread,
)
from her2fast.opened_slide import (
    OpenedSlide,
    check_unchanged,
    display_name,
    nameless,
    open_input,
)
from her2fast.overview import overview_frame
from her2fast.record import (
    DecideSettings,
    Provenance,
    Record,
    digest,
    empty_slide,
    unmeasured,
)
from her2fast.scoring import (
    Measurement,
    RoiLike,
    Scorer,
    as_roi,
    asked_settings,
    check_roi,
)

__all__ = [
    "MembraneMeasurement",
    "MembraneResult",
    "MembraneScorer",
    "NetworkFinder",
    "measure_cells",
    "score_membranes",
]


#: Side of what is left out of an overview where a part of it cannot be read.
GLASS_BLOCK_PX = 128


class NetworkFinder:
    """The membrane network of a package as a finder; one intra-op thread a batch."""

    def __init__(self, package: MembranePackage, device: str = "cpu") -> None:
        """Raises `SlideError` MODEL_HASH or MODEL_SHAPE."""
        self.package = package
        self._runner = open_runner(package.model, device)

    @property
    def halo_px(self) -> int:
        """What it is shown beyond a tile on each side."""
        return self.package.halo_px

    def __call__(
        self,
        rgb: npt.NDArray[np.uint8],
        places_px: Sequence[tuple[int, int]],  # a network sees pixels alone
    ) -> npt.NDArray[np.uint8]:
        """(N, W, W, 3) tiles with halo -> (N, S, S) masks of the tiles alone.

        1 where the network's logit is 0 or more; W is S + 2 halo.
        """
        use_one_thread()
        side = self.package.tile_px
        halo = self.package.halo_px
        inner = slice(halo, halo + side)
        wide = side + 2 * halo
        outputs = self._runner.run(rgb).reshape(len(rgb), -1, wide, wide)[:, 0]
        if not np.isfinite(outputs).all():
            raise SlideError(
                f"{self.package.model.file}: gave values that are no numbers",
                "NON_FINITE",
            )
        return (outputs[:, inner, inner] >= 0).astype(np.uint8)


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
    prune_px: int = 0,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> tuple[CellMeasurement, Seconds]:
    """Cells and membranes of the tumor that `tumor` has found; `device` is `find`'s.

    Raises `SlideError`: NO_LEVEL, INPUT_CHANGED and what reading raises.
    """
    reader = slide.reader(workers=1, reading=reading)
    reader.plan(spacing_um)  # NO_LEVEL before any work
    size_px = tuple(
        -(-round(side * um * 1e6) // round(spacing_um * 1e6))
        for side, um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    masks = TumorRows(tumor, size_px, tile_px=tile_px, spacing_um=spacing_um)
    measure = MembraneMeasure(
        reader,
        find,
        size_px=(size_px[0], size_px[1]),
        spacing_um=spacing_um,
        step=step,
        tile_px=tile_px,
        batch_size=batch_size,
        prune_px=prune_px,
        glass_rgb=glass_of_slide(slide),
        wanted=masks.wanted(),
        is_tumor=lambda x, y: masks.holds(x, y, spacing_um * step),
    )
    with one_intra_op_thread(device):
        measured = measure.run(workers=workers, on_progress=on_progress)
    check_unchanged(slide)
    return measured, measure.seconds


def glass_of_slide(slide: OpenedSlide) -> Color | None:
    """The color of empty glass, from an overview; None where none is to be seen.

    Blocks of it that cannot be read, wholly or in part, are left out. Whatever the
    reading mode, it is read from the level nearest to the overview's spacing. Raises
    what reading raises.
    """
    width_px, height_px, spacing_um = overview_frame(
        slide.size_px, slide.spacing_um, least_um=PICTURE_UM
    )
    reader = slide.reader(workers=1, reading="scaled")
    rgb = np.full((height_px, width_px, 3), 255, np.uint8)  # exact white is no glass
    for y in range(0, height_px, GLASS_BLOCK_PX):
        for x in range(0, width_px, GLASS_BLOCK_PX):
            part = rgb[y : y + GLASS_BLOCK_PX, x : x + GLASS_BLOCK_PX]
            pixels, status = reader.read(x, y, part.shape[1], part.shape[0], spacing_um)
            if status == "ok":
                part[:] = pixels
    return glass_color(rgb)


class MembraneScorer:
    """A membrane package and a tumor package, for many slides."""

    def __init__(
        self,
        package: MembranePackage,
        tumor: Scorer,
        *,
        finder: Finder | None = None,
    ) -> None:
        """`finder` replaces the package's network: a bench gives the true mask.

        Raises `UsageError` where the packages do not go together.
        """
        if tumor.package.segment is None:
            raise UsageError(
                f"need a tumor package with a segmenter, got {tumor.package.name!r}"
            )
        self.package = package
        self.tumor = tumor
        tumor_px_of_tile(package.tile_px, package.spacing_um, tumor.package.spacing_um)
        self._finder = finder

    @property
    def finder(self) -> Finder:
        """The network, opened when first needed."""
        if self._finder is None:
            self._finder = NetworkFinder(self.package, self.tumor.device)
        return self._finder

    @property
    def halo_px(self) -> int:
        """What is seen beyond a tile on each side: of a given finder its own, or 0."""
        if self._finder is None:
            return self.package.halo_px
        return halo_of(self._finder)

    @property
    def stain(self) -> str | None:
        """What the slide must be stained with: where either package says so."""
        return self.package.stain or self.tumor.package.stain

    @property
    def workers(self) -> int:
        """Threads of a slide."""
        return self.tumor.workers

    @property
    def spacings_um(self) -> tuple[float, ...]:
        """Of the tumor, and of the membranes."""
        return *self.tumor.spacings_um, self.package.spacing_um

    def unmeasured(self, slide: Record) -> Provenance:
        """The provenance of a slide that was not measured."""
        return self._with_tumor(self.tumor.unmeasured(slide))

    def provenance(self, slide: OpenedSlide) -> Provenance:
        """What a measurement of this slide would be made from; opens no model."""
        return self._with_tumor(self.tumor.provenance(slide))

    def _with_tumor(self, source: Provenance) -> Provenance:
        """What cells are measured from, given that of their tumor."""
        package = self.package
        model = package.model
        tumor = source.method or {}
        key = device = None
        if source.measurement_key is not None:
            device = describe_device(self.tumor.device, {"membrane": model.batch_size})
            key = digest(
                {
                    "tumor": source.measurement_key,
                    # Its domain, calibration and guideline decide which flags there
                    # are.
                    "tumor_method": tumor,
                    "name": package.name,
                    "model": [model.sha256, model.config_sha256],
                    "grid": [
                        package.tile_px,
                        self.halo_px,
                        package.spacing_um,
                        package.step,
                    ],
                    "prune_px": package.prune_px,
                    # What becomes of a network's mask: how cells are found and stored.
                    "cells": [
                        cell_file.MAGIC.decode(),
                        CELL_CUTS["faintest_dab_hundredths"],
                    ],
                    "device": device,
                    "her2fast": _core.__version__,
                }
            )
        method = {
            **tumor,
            "name": package.name,
            "kind": package.method,
            "guideline": package.guideline,
            "floor_percent": package.floor_percent,
            "stain": self.stain,
            "domain": None,
            "calibration": {"scale_q16": [], "bias_q16": []},
            "tile_px": package.tile_px,
            "patch_px": 0,
            "halo_px": self.halo_px,
            "synthetic": package.synthetic or bool(tumor.get("synthetic")),
            "tumor": {
                "measurement_key": source.measurement_key,
                "working_spacing_um": source.working_spacing_um,
                "method": tumor,
            },
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

    def measure_tumor(
        self, slide: OpenedSlide, on_stage: OnStage | None = None
    ) -> Measurement:
        """The tumor at the other package's spacing; raises `SlideError`.

        `on_stage` hears of "tumor", and in `finish` of "membranes".
        """
        return self.tumor.measure(slide, on_progress=_of("tumor", on_stage))

    def finish(
        self,
        slide: OpenedSlide,
        measurement: MembraneMeasurement,
        settings: DecideSettings,
        on_stage: OnStage | None = None,
        keep: Callable[[CellMeasurement], None] | None = None,
    ) -> MembraneResult:
        """Measures cells if a decision needs them and there are none, and decides.

        `settings` are those for the method of `provenance`; `keep` is given cells that
        were measured before anything is decided on them. Raises `SlideError`
        INPUT_CHANGED; whatever else ails the slide is a record.
        """
        spent = Seconds()

        def measure() -> CellMeasurement:
            nonlocal spent
            package = self.package
            try:
                with crash_as_code():
                    measured, spent = measure_cells(
                        slide,
                        measurement.tumor.core,
                        self.finder,
                        spacing_um=package.spacing_um,
                        step=package.step,
                        tile_px=package.tile_px,
                        batch_size=package.model.batch_size,
                        workers=self.workers,
                        reading=self.tumor.reading,
                        prune_px=package.prune_px,
                        device=self.tumor.device,
                        on_progress=_of("membranes", on_stage),
                    )
            except SlideError as error:
                raise nameless(error, slide.path) from error
            if keep is not None:
                keep(measured)
            return measured

        result = decide_membranes(measurement, settings, measure)
        return replace(result, seconds=spent)


def _of(stage: str, on_stage: OnStage | None) -> OnProgress | None:
    return None if on_stage is None else partial(on_stage, stage)


def _use_of_both(tumor: str, package: MembranePackage) -> str:
    """What the tumor package is for, with what the membrane package adds to it."""
    purpose = tumor
    if package.intended_use and package.intended_use not in purpose:
        purpose += f"; membranes: {package.intended_use}"
    if package.synthetic and "synthetic" not in purpose:
        purpose += "; trained on synthetic data"
    return purpose


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
    on_stage: OnStage | None = None,
) -> MembraneResult:
    """Scores one slide cell by cell.

    Parameters
    ----------
    slide : path
        A whole-slide image with a level of 0.25 um/px (or what the package asks for).
    model : str, Path or MembranePackage, optional
        A membrane package, as `her2fast train membrane` writes it: the name of one
        that ships, or its folder.
    tumor_model : str or Path, optional
        The package whose segmenter finds the tumor at 1 um/px.
    roi, device, guideline, mpp, ish, workers, allow_unknown_model
        As for `score`.
    finder : callable, optional
        Finds the membranes in the network's place (`methods.membrane.Finder`).
    on_stage : callable, optional
        Hears of "tumor" and "membranes", with a `measure.Progress`.

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
    slide_record = empty_slide(display_name(slide))
    source = unmeasured(slide_record)
    check_device(device)
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
                Scorer(tumor, device=device, workers=workers),
                finder=finder,
            )
            source = scorer.unmeasured(slide_record)
            settings = asked_settings(
                source.method or {}, lambda: as_roi(roi), guideline, ish
            )
            opened = open_input(slide, mpp, slide_record)
            source = scorer.provenance(opened)
            if isinstance(settings, SlideError):
                raise settings
            check_roi(settings.roi, opened.size_px)
            measured = scorer.measure_tumor(opened, on_stage)
            measurement = MembraneMeasurement(measured, source)
            return scorer.finish(opened, measurement, settings, on_stage)
    except SlideError as error:
        return failed_membranes(source, nameless(error, slide))
