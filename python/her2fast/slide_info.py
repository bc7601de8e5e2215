# SPDX-License-Identifier: Apache-2.0
"""What `info` and `--dry-run` say of a slide, without scoring it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from her2fast.errors import SlideError
from her2fast.opened_slide import OpenedSlide, display_name, open_core, open_input
from her2fast.record import Record, empty_slide

EXIT_ALL = 20


@dataclass
class SlideInfo:
    """A slide's frame and levels, or why there is none."""

    record: Record
    levels: list[dict[str, Any]] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    status: str = "readable"
    code: str | None = None
    message: str = ""
    opened: OpenedSlide | None = None

    @property
    def exit_code(self) -> int:
        """0 where the slide can be read, else that of a run in which all failed."""
        return 0 if self.code is None else EXIT_ALL

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "slide": self.record,
            "levels": self.levels,
            "properties": self.properties,
            "warnings": self.warnings,
            "status": self.status,
            "code": self.code,
            "message": self.message,
        }

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        yield f"slide:       {self.record['name']}"
        if self.record["format"] is not None:
            yield f"format:      {self.record['format']}"
            yield f"reader:      {self.record['reader']}"
            width_px, height_px = self.record["size_px"]
            yield f"level 0:     {width_px} x {height_px} px"
        for index, level in enumerate(self.levels[1:], start=1):
            yield (
                f"level {index}:     {level['width_px']} x {level['height_px']} px, "
                f"1/{level['downsample']:g}"
            )
        if self.record["spacing_um"] is not None:
            x_um, y_um = self.record["spacing_um"]
            source = self.record["spacing_source"]
            yield f"spacing:     {x_um:g} x {y_um:g} um/px ({source})"
        if self.record["fingerprint"] is not None:
            yield f"fingerprint: {self.record['fingerprint']}"
        if self.record["sha256"] is not None:
            yield f"sha256:      {self.record['sha256']}"
        for key, value in self.properties.items():
            yield f"  {key}: {value}"
        for warning in self.warnings:
            yield f"warning:     {warning}"
        if self.code is not None:
            yield f"{self.status}: {self.code}: {self.message}"


def describe_slide(
    slide: str | os.PathLike[str],
    mpp: float | None = None,
    *,
    full_hash: bool = False,
) -> SlideInfo:
    """Opens a slide and says what is known; never raises `SlideError`."""
    info = SlideInfo(record=empty_slide(display_name(slide)))
    try:
        info.opened = open_input(slide, mpp, info.record, full_hash=full_hash)
        info.warnings = list(info.opened.warnings)
    except SlideError as error:
        info.status, info.code, info.message = error.status, error.code, str(error)
        if info.record["format"] is None:
            return info
    core = info.opened.core if info.opened else _open_again(slide)
    if core is not None:
        info.levels = [
            {
                "width_px": width_px,
                "height_px": height_px,
                "tile_width_px": tile_width_px,
                "tile_height_px": tile_height_px,
                "downsample": downsample,
            }
            for width_px, height_px, tile_width_px, tile_height_px, downsample in (
                core.levels
            )
        ]
        info.properties = dict(core.properties)
    return info


def _open_again(slide: str | os.PathLike[str]) -> Any:
    try:
        return open_core(slide)
    except SlideError:
        return None
