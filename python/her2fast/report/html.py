# SPDX-License-Identifier: Apache-2.0
"""Render the pages. Pure functions of their inputs: no time, no host, no network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from her2fast.export.palettes import DEFAULT_PALETTE
from her2fast.report.gallery import Gallery, gallery_view
from her2fast.report.slide_map import map_view
from her2fast.report.view import page_view

if TYPE_CHECKING:
    import jinja2
    from PIL import Image

__all__ = ["MAX_REPORT_BYTES", "report_html", "template"]

#: A report is mailed and archived; map and gallery are bounded so that it fits.
MAX_REPORT_BYTES = 3_000_000


def report_html(
    record: Mapping[str, Any],
    class_map: Image.Image | None = None,
    *,
    gallery: Gallery | None = None,
    palette: str = DEFAULT_PALETTE,
) -> bytes:
    """Write the report of one slide.

    Parameters
    ----------
    record : mapping
        A result record (``results/<slide>.json``); what it lacks is left out.
    class_map : PIL.Image.Image, optional
        The classes over the slide (`export.class_map.class_picture`), scaled down to
        at most 1600 px.
    gallery : Gallery, optional
        Patches to show one by one, and on the map.

    Returns
    -------
    bytes
        HTML in UTF-8 that refers to nothing outside itself.
    """
    view = page_view(record, palette)
    shown = None if gallery is None else gallery_view(gallery, palette)
    cards = [card for c in shown["classes"] for card in c["cards"]] if shown else []
    slide = record.get("slide")
    slide = slide if isinstance(slide, Mapping) else {}
    drawn = None if class_map is None else map_view(class_map, slide, cards)
    page = template("report.html.j2").render(view, map=drawn, gallery=shown)
    return page.encode()


@cache
def template(name: str) -> jinja2.Template:
    """A template of this folder; whatever it prints is escaped."""
    import jinja2

    def source(wanted: str) -> str:
        return resources.files("her2fast.report").joinpath(wanted).read_text("utf-8")

    environment = jinja2.Environment(
        autoescape=True,  # every name in a record is foreign
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(source),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
