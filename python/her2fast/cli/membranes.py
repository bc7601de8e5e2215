# SPDX-License-Identifier: Apache-2.0
"""`her2fast membranes`."""

from __future__ import annotations

from typing import Any

import click

from her2fast.cli import options
from her2fast.cli.running import score_slides
from her2fast.models.names import DEFAULT_MEMBRANE_MODEL, DEFAULT_MODEL


@click.command()
@options.package(DEFAULT_MEMBRANE_MODEL)
@click.option(
    "--tumor-model",
    metavar="NAME|DIR",
    help=f"Package that finds the tumor at 1 um/px.  [default: {DEFAULT_MODEL}]",
)
@options.of_a_run
def membranes(model: str | None, tumor_model: str | None, **given: Any) -> int:
    """Score SLIDES, folders of slides or a MANIFEST.csv cell by cell, by membranes at
    0.25 um/px.

    Exit code: as of `her2fast score`.
    """
    from her2fast.membrane_run import CELLS_GEOJSON, MembraneOptions

    return score_slides(
        MembraneOptions,
        given,
        model=model,
        tumor_model=tumor_model,
        geojson=CELLS_GEOJSON,
    )
