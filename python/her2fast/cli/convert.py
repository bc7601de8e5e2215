# SPDX-License-Identifier: Apache-2.0
"""`her2fast convert`."""

from __future__ import annotations

import click

from her2fast import _core
from her2fast.cli import options


@click.command()
@click.argument("image", type=click.Path(dir_okay=False))
@click.argument("output", type=click.Path(dir_okay=False))
@click.option(
    "--mpp",
    type=options.FiniteRange(*_core.SPACING_LIMITS_UM),
    required=True,
    help="Spacing of the image, um/px; never guessed.",
)
@click.option(
    "--quality",
    type=click.IntRange(min=0, max=100),
    default=90,
    show_default=True,
    help="JPEG quality; 0 is lossless.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
def convert(image: str, output: str, mpp: float, quality: int, overwrite: bool) -> None:
    """Turn a plain IMAGE (JPEG, PNG, TIFF, BMP) into the pyramidal TIFF OUTPUT."""
    from her2fast.convert import convert_image

    click.echo(
        convert_image(image, output, mpp=mpp, quality=quality, overwrite=overwrite)
    )
