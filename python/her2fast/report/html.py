# SPDX-License-Identifier: Apache-2.0
"""Render the report. A pure function of its inputs: no time, no host, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from her2fast.export.palettes import DEFAULT_PALETTE
from her2fast.report.view import page_view

if TYPE_CHECKING:
    import jinja2

__all__ = ["MAX_IMAGE_BYTES", "MAX_IMAGE_SIDE_PX", "report_html"]

# A report is mailed and archived: enough for a printed page, no more.
MAX_IMAGE_SIDE_PX = 1600
MAX_IMAGE_BYTES = 3 << 20


def report_html(
    record: Mapping[str, Any],
    class_map_png: bytes | None = None,
    *,
    palette: str = DEFAULT_PALETTE,
) -> bytes:
    """Write the report of one slide.

    Parameters
    ----------
    record : mapping
        A result record (``results/<slide>.json``); what it lacks is left out.
    class_map_png : bytes, optional
        The class map; scaled down to at most 1600 px and 3 MiB.

    Returns
    -------
    bytes
        HTML in UTF-8 that refers to nothing outside itself.
    """
    view = page_view(record, palette)
    image = None
    if class_map_png is not None:
        bounded = _bounded(class_map_png)
        image = "data:image/png;base64," + base64.b64encode(bounded).decode("ascii")
    return _template().render(view, image=image).encode()


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,  # every name in a record is foreign
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = resources.files("her2fast.report").joinpath("report.html.j2").read_text()
    return environment.from_string(text)


def _bounded(png: bytes) -> bytes:
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(png))
    side = MAX_IMAGE_SIDE_PX
    if max(image.size) <= side and len(png) <= MAX_IMAGE_BYTES:
        return png
    image = image.convert("RGB")
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "PNG", optimize=True)
        if out.tell() <= MAX_IMAGE_BYTES or side < 200:
            return out.getvalue()
        side = side * 3 // 4
