# SPDX-License-Identifier: Apache-2.0
"""Scores one slide in this process: open, measure, decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.decoding import open_decoder
from her2fast.errors import SlideError, UsageError
from her2fast.measure import (
    Models,
    OnProgress,
    crash_as_code,
    default_workers,
    describe_package_device,
    run_session,
)
from her2fast.methods.patches import patch_session
from her2fast.models.package import MethodPackage, load_package
from her2fast.models.runner import check_device
from her2fast.opened_slide import (
    OpenedSlide,
    check_unchanged,
    display_name,
    nameless,
    open_input,
)
from her2fast.record import (
    DecideSettings,
    Provenance,
    Record,
    Roi,
    decided_record,
    empty_slide,
    failed_record,
    method_record,
    provenance,
    record_bytes,
    settings_for,
    unmeasured,
)

READING_MODES = ("scaled", "exact", "level0")
#: `class_map` where a patch was not classified.
NO_CLASS = 255

RoiLike = Roi | str | Path | None


@dataclass(frozen=True)
class Measurement:
    """What was measured on a slide, with what it was measured."""

    core: _core.Measurement
    provenance: Provenance

    @property
    def key(self) -> str:
        """The record's `measurement_key`."""
        return self.core.key

    def to_bytes(self) -> bytes:
        """The `.h2m` file."""
        return self.core.to_bytes()


@dataclass(frozen=True)
class SlideResult:
    """How a slide ended, whatever scored it."""

    record: Record

    @property
    def status(self) -> str:
        """ "scored", "indeterminate", "failed" or "refused"."""
        return str(self.record["status"])

    @property
    def code(self) -> str | None:
        """The reason code; None where scored."""
        code = self.record["code"]
        return None if code is None else str(code)

    @property
    def message(self) -> str:
        """Why, in words; empty where scored."""
        return str(self.record["message"])

    @property
    def score(self) -> str | None:
        """ "0", "1+", "2+" or "3+"; None unless scored by a guideline."""
        score = self.record["score"]
        return None if score is None else str(score)

    @property
    def fractions(self) -> dict[str, float]:
        """Share of the kept tumor area, or of the cells, per class; empty without."""
        values = self.record["fractions"]
        if values is None:
            return {}
        return dict(zip(self.record["class_names"], values, strict=True))

    @property
    def review_required(self) -> bool:
        """Whether `record["review_flags"]` ask for a look."""
        return bool(self.record["review_required"])

    def to_json(self) -> str:
        """The record as `results/<slide>.json` holds it."""
        return record_bytes(self.record).decode("utf-8")


@dataclass(frozen=True)
class Result(SlideResult):
    """How a slide ended: the record, and the measurement where there is one."""

    measurement: Measurement | None = None
    settings: DecideSettings = field(default_factory=DecideSettings)

    @property
    def class_map(self) -> npt.NDArray[np.uint8]:
        """(rows, columns) of the patch grid: the class, or 255 where not classified."""
        if self.measurement is None:
            return np.zeros((0, 0), np.uint8)
        core = self.measurement.core
        side = core.tile_px // core.patch_px
        shape = (core.tiles_y * side, core.tiles_x * side)
        out = np.full(shape, NO_CLASS, np.uint8)
        patches = _core.patch_outcomes(core, **self.settings.core_arguments())
        kept = patches["kept"]
        rows, columns = patches["row"][kept], patches["column"][kept]
        out[rows, columns] = patches["predicted"][kept]
        return out


def as_roi(roi: RoiLike) -> Roi:
    """Polygons of a GeoJSON file, or what is polygons already."""
    if roi is None:
        return ()
    if isinstance(roi, str | Path):
        from her2fast.roi import load_roi

        return load_roi(roi)
    return roi


def asked_settings(
    method: Mapping[str, Any],
    region: Callable[[], Roi],
    guideline: str | None,
    ish: str | None,
) -> DecideSettings | SlideError:
    """What a slide is to be decided by, or why it is refused.

    To be raised when the slide's provenance is known: the record then names the slide
    as that of `rescore` does. Raises `UsageError` at once.
    """
    try:
        return settings_for(method, roi=region(), guideline=guideline, ish=ish)
    except SlideError as error:
        return error


def check_roi(roi: Roi, size_px: tuple[int, int]) -> None:
    """Raises `SlideError` ROI_OUTSIDE where a polygon misses the slide."""
    if roi:
        from her2fast.roi import check_inside

        check_inside(list(roi), size_px)


class Scorer:
    """A package on a device, for many slides; models are opened when first needed."""

    def __init__(
        self,
        package: MethodPackage,
        *,
        device: str = "cpu",
        reading: str = "scaled",
        decoder: str = "cpu",
        workers: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Raises `DeviceError` and `UsageError`."""
        if reading not in READING_MODES:
            raise UsageError(f"need reading of {READING_MODES}, got {reading!r}")
        for name, value in (("workers", workers), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"need {name} >= 1, got {value}")
        self.package = package
        self.device = check_device(device)
        self.reading = reading
        self.decoder = open_decoder(decoder, self.device)
        self.workers = workers or default_workers()
        self.batch_size = batch_size
        self._models: Models | None = None

    @property
    def models(self) -> Models:
        """The opened models."""
        if self._models is None:
            self._models = Models(self.package, self.device)
        return self._models

    @property
    def spacings_um(self) -> tuple[float, ...]:
        """Spacings at which slides are read."""
        return (self.package.spacing_um,)

    def unmeasured(self, slide: Record) -> Provenance:
        """The provenance of a slide that was not measured."""
        return unmeasured(slide, self.package)

    def provenance(self, slide: OpenedSlide) -> Provenance:
        """What a measurement of this slide would be made from; opens no model."""
        stored = _core.stored_level_warning(
            slide.core, slide.spacing_um, self.package.spacing_um, self.reading
        )
        return provenance(
            self.package,
            slide=slide.record,
            device=self.decoder.to_record(
                describe_package_device(self.package, self.device)
            ),
            reading_mode=self.reading,
            warnings=slide.warnings if stored is None else (*slide.warnings, stored),
        )

    def measure(
        self, slide: OpenedSlide, *, on_progress: OnProgress | None = None
    ) -> Measurement:
        """Measures an opened slide; raises `SlideError`."""
        package = self.package
        source = self.provenance(slide)
        decoded = self.decoder.slide(slide.core)
        reader = slide.reader(workers=self.workers, reading=self.reading, core=decoded)
        reader.plan(package.spacing_um)  # NO_LEVEL before any work
        session = patch_session(
            package,
            size_px=slide.size_px,
            slide_spacing_um=slide.spacing_um,
            in_flight=self.batch_size,
            memory=self.models.memory,
        )
        core = run_session(
            session,
            self.models,
            lambda s: s.read_from(reader),
            workers=self.workers,
            on_progress=on_progress,
        )
        check_unchanged(slide)
        core.key = source.measurement_key or ""
        warnings = self.decoder.warnings(decoded)
        if warnings:
            source = replace(source, warnings=[*source.warnings, *warnings])
        return Measurement(core, source)


def decide_with(measurement: Measurement, settings: DecideSettings) -> Result:
    """The result of a measurement under `settings`; never raises `SlideError`."""
    source = measurement.provenance
    try:
        check_roi(settings.roi, measurement.core.slide_size_px)
        decision = _core.decide(measurement.core, **settings.core_arguments())
        record = decided_record(source, decision, settings)
    except SlideError as error:
        record = failed_record(source, error)
    return Result(record, measurement, settings)


def decide(
    measurement: Measurement,
    *,
    roi: RoiLike = None,
    guideline: str | None = None,
    ish: str | None = None,
) -> Result:
    """Decides on a measurement: ROI, calibration, rule set. No model, no pixels.

    Parameters
    ----------
    measurement : Measurement
        From `Session.finish`, `Result.measurement` or a results folder.
    roi : str, Path or sequence of (exclude, rings), optional
        GeoJSON file, or polygons in level-0 px.
    guideline : str, optional
        A rule set's name; None is the package's own, "none" gives areas only.
    ish : {"positive", "negative"}, optional
        In-situ hybridization, for the binary view of 2+.
    """
    try:
        settings = settings_for(
            measurement.provenance.method or {},
            roi=as_roi(roi),
            guideline=guideline,
            ish=ish,
        )
    except SlideError as error:
        return Result(failed_record(measurement.provenance, error), measurement)
    return decide_with(measurement, settings)


def score(
    slide: str | os.PathLike[str],
    *,
    model: str | Path | MethodPackage | None = None,
    roi: RoiLike = None,
    device: str = "cpu",
    guideline: str | None = None,
    mpp: float | None = None,
    ish: str | None = None,
    reading: str = "scaled",
    decoder: str = "cpu",
    workers: int | None = None,
    batch_size: int | None = None,
    allow_unknown_model: bool = False,
    on_progress: OnProgress | None = None,
) -> Result:
    """Scores one slide in this process.

    Parameters
    ----------
    slide : path
        A whole-slide image.
    model : str, Path or MethodPackage, optional
        Name of a shipped package or a package's folder.
    roi : str, Path or polygons, optional
        GeoJSON file as QuPath writes it, or polygons in level-0 px.
    device : str
        "cpu" or "cuda[:N]"; a device is a promise.
    guideline : str, optional
        A rule set's name; None is the package's own, "none" gives areas only.
    mpp : float, optional
        Level-0 spacing, um/px; wins over the file's.
    ish : {"positive", "negative"}, optional
        In-situ hybridization, for the binary view of 2+.
    reading : {"scaled", "exact", "level0"}
        How tiles are decoded, and of which level (`her2fast.open_slide`).
    decoder : {"cpu", "nvjpeg"}
        Who decodes them. nvJPEG needs a GPU and gives pixels near the CPU's
        (docs/guide/gpu.md); the record names it.
    workers : int, optional
        Batches computed side by side; default is one per core.
    batch_size : int, optional
        Patches in flight; never the shape of a batch.
    allow_unknown_model : bool
        Run model files that no list names; recorded.

    Returns
    -------
    Result
        With exactly one status; whatever ails the slide is a status, not an exception.

    Raises
    ------
    UsageError
        The call, the package or the manifest is wrong.
    DeviceError
        This machine lacks the device.
    """
    slide_record = empty_slide(display_name(slide))
    package = model if isinstance(model, MethodPackage) else None
    scorer: Scorer | None = None
    source: Provenance | None = None
    check_device(device)
    try:
        with crash_as_code():
            if not isinstance(model, MethodPackage):
                package = load_package(model)
            assert package is not None
            if not allow_unknown_model:
                package.require_known()
            scorer = Scorer(
                package,
                device=device,
                reading=reading,
                decoder=decoder,
                workers=workers,
                batch_size=batch_size,
            )
            settings = asked_settings(
                method_record(package), lambda: as_roi(roi), guideline, ish
            )
            opened = open_input(slide, mpp, slide_record)
            source = scorer.provenance(opened)
            if isinstance(settings, SlideError):
                raise settings
            check_roi(settings.roi, opened.size_px)
            measurement = scorer.measure(opened, on_progress=on_progress)
    except SlideError as error:
        source = source or unmeasured(slide_record, package)
        return Result(failed_record(source, nameless(error, slide)))
    return decide_with(measurement, settings)
