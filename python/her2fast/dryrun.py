# SPDX-License-Identifier: Apache-2.0
"""`score --dry-run`: what would be scored, how much tissue, how long; no model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.errors import SlideError
from her2fast.manifest import Entry, region_of
from her2fast.measure import crash_as_code
from her2fast.opened_slide import OpenedSlide, display_name
from her2fast.record import empty_slide
from her2fast.run import RunOptions, check_run_regions, exit_code_of
from her2fast.scoring import as_roi, check_roi
from her2fast.slide_info import SlideInfo, describe_slide
from her2fast.store import ResultsFolder

#: Spacing of the low-resolution pass; a coarse look at where tissue lies.
LOOK_SPACING_UM = 8.0
LOOK_TILE_PX = 1024
WHITE_RGB = (255, 255, 255)


@dataclass
class DryRunSlide:
    """One slide of a dry run."""

    info: SlideInfo
    tissue_mm2: float | None = None
    expected_s: float | None = None


@dataclass
class DryRun:
    """What a run would meet."""

    slides: list[DryRunSlide]

    @property
    def exit_code(self) -> int:
        """That of a run in which every slide not refused here ends well."""
        return exit_code_of([slide.info.status for slide in self.slides])

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "exit_code": self.exit_code,
            "slides": [
                {
                    **slide.info.to_json(),
                    "tissue_mm2": slide.tissue_mm2,
                    "expected_s": slide.expected_s,
                }
                for slide in self.slides
            ],
        }

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        total_s = 0.0
        for slide in self.slides:
            record, info = slide.info.record, slide.info
            if info.code is not None:
                yield f"{record['name']}: {info.status} {info.code}: {info.message}"
                continue
            x_um, y_um = record["spacing_um"]
            yield (
                f"{record['name']}: {record['format']}, "
                f"{x_um:g} x {y_um:g} um/px ({record['spacing_source']}), "
                f"{len(info.levels)} levels, about {slide.tissue_mm2:.1f} mm2 of "
                f"tissue, about {slide.expected_s:.0f} s"
            )
            for warning in info.warnings:
                yield f"  warning: {warning}"
            total_s += slide.expected_s or 0.0
        good = sum(slide.info.code is None for slide in self.slides)
        yield (
            f"{good} of {len(self.slides)} slides can be read; about {total_s:.0f} s "
            "in all; nothing was scored"
        )


def dry_run(options: RunOptions, entries: Sequence[Entry]) -> DryRun:
    """Looks at every slide; opens no model and writes nothing."""
    folder = ResultsFolder(options.out)
    check_run_regions(options, entries, folder)
    names = folder.assign_names([entry.slide for entry in entries])
    pairs = zip(entries, names, strict=True)
    return DryRun([_look(options, entry, name) for entry, name in pairs])


def _look(options: RunOptions, entry: Entry, name: str) -> DryRunSlide:
    mpp = options.mpp if options.mpp is not None else entry.mpp
    try:
        with crash_as_code():
            method = options.open_method()
            info = describe_slide(entry.slide, mpp)
            slide = DryRunSlide(info)
            if info.opened is None:
                return slide
            roi = as_roi(region_of(entry, options.roi, name))
            check_roi(roi, info.opened.size_px)
            workers = method.scorer.workers
            reader = info.opened.reader(workers=workers, reading=options.reading)
            for spacing_um in method.scorer.spacings_um:
                reader.plan(spacing_um)
                stored = _core.stored_level_warning(
                    info.opened.core,
                    info.opened.spacing_um,
                    spacing_um,
                    options.reading,
                )
                if stored is not None:
                    info.warnings.append(stored)
            slide.tissue_mm2 = tissue_mm2(info.opened, reader)
            rough_s = method.rough_s_per_mm2 / workers
            per_mm2_s = seconds_per_mm2(options.out, rough_s)
            slide.expected_s = round(slide.tissue_mm2 * per_mm2_s + 2.0, 1)
            return slide
    except SlideError as error:
        record = empty_slide(display_name(entry.slide))
        info = SlideInfo(record, status=error.status, code=error.code)
        info.message = str(error)
        return DryRunSlide(info)


def tissue_mm2(slide: OpenedSlide, reader: _core.TileReader) -> float:
    """An estimate of the tissue from a pass at low resolution."""
    spacing_um = max(LOOK_SPACING_UM, *slide.spacing_um)
    width_px, height_px = (
        max(1, int(size * own_um / spacing_um))
        for size, own_um in zip(slide.size_px, slide.spacing_um, strict=True)
    )
    count = 0
    for y_px in range(0, height_px, LOOK_TILE_PX):
        for x_px in range(0, width_px, LOOK_TILE_PX):
            rgb, status = reader.read(
                x_px,
                y_px,
                min(LOOK_TILE_PX, width_px - x_px),
                min(LOOK_TILE_PX, height_px - y_px),
                spacing_um,
            )
            if status in ("ok", "warned"):
                count += int(np.count_nonzero(_core.tissue_mask(rgb, WHITE_RGB)))
    return round(count * spacing_um * spacing_um * 1e-6, 3)


def seconds_per_mm2(out: str, rough_s: float) -> float:
    """From the latest run into this folder, else the rough figure."""
    for path in sorted(Path(out).glob("run_*.json"), reverse=True):
        try:
            run = json.loads(path.read_bytes())
            measured = [s for s in run["slides"] if s["work"] == "measured"]
            seconds = sum(s["elapsed_s"] for s in measured)
            tissue = 0.0
            for slide in measured:
                result = Path(out) / "results" / f"{slide['name']}.json"
                tissue += json.loads(result.read_bytes())["tissue_mm2"] or 0.0
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if tissue > 0:
            return float(seconds / tissue)
    return rough_s
