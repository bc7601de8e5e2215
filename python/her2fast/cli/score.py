# SPDX-License-Identifier: Apache-2.0
"""`her2fast score`."""

from __future__ import annotations

from typing import Any

import click

from her2fast.cli import options
from her2fast.cli.running import score_slides
from her2fast.models.names import DEFAULT_MODEL


@click.command()
@options.package(DEFAULT_MODEL)
@options.geojson
@options.decoder
@options.of_a_run
def score(model: str | None, geojson: str, decoder: str, **given: Any) -> int:
    """Score SLIDES, folders of slides or a MANIFEST.csv into a results folder.

    Exit code: 0 where every slide ended scored or indeterminate, 10 where some
    failed or were refused, 20 where all did, 64 for a wrong call, 74 for a folder
    that cannot be written.
    """
    from her2fast.run import RunOptions

    return score_slides(
        RunOptions, given, model=model, geojson=geojson, decoder=decoder
    )
