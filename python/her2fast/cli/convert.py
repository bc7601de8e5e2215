# SPDX-License-Identifier: Apache-2.0
"""`her2fast convert`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from her2fast import _core
from her2fast.cli import options

if TYPE_CHECKING:
    from her2fast.tma import SplitCore

#: A line on standard error this often.
INTERVAL_S = 5.0


class _Region(click.ParamType[tuple[int, int, int, int]]):
    """X,Y,WIDTH,HEIGHT in level-0 pixels."""

    name = "X,Y,W,H"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int, int, int]:
        """Four whole numbers; a usage error for anything else."""
        parts = str(value).split(",")
        try:
            x0, y0, width, height = (int(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r}: need four whole numbers: X,Y,WIDTH,HEIGHT", param)
        return x0, y0, width, height


@click.command()
@click.argument("source", metavar="SLIDE|IMAGE", type=click.Path(dir_okay=False))
@click.argument("output", type=click.Path())
@click.option(
    "--mpp",
    type=options.FiniteRange(*_core.SPACING_LIMITS_UM),
    help="Spacing, um/px; wins over the slide's. A plain image needs it.",
)
@click.option(
    "--quality",
    type=click.IntRange(min=0, max=100),
    default=90,
    show_default=True,
    help="JPEG quality of what is encoded; 0 is lossless.",
)
@click.option(
    "--region", type=_Region(), help="Only this rectangle, in level-0 pixels."
)
@click.option(
    "--re-encode", is_flag=True, help="Encode level 0 anew where it could be copied."
)
@click.option(
    "--cores",
    metavar="detect|FILE",
    help="Split a tissue microarray: a slide per core into the folder OUTPUT.",
)
@click.option(
    "--core-diameter-um",
    type=options.FiniteRange(min=100, max=4000),
    help="Diameter of the cores.  [default: that of most]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
@options.workers
def convert(
    source: str,
    output: str,
    mpp: float | None,
    quality: int,
    region: tuple[int, int, int, int] | None,
    re_encode: bool,
    cores: str | None,
    core_diameter_um: float | None,
    overwrite: bool,
    num_workers: int | None,
) -> None:
    """Turn a slide or a plain image into a pyramid, or a TMA into its cores.

    JPEG tiles of a slide's level 0 are copied as they are; spacing and color profile
    are kept, label and macro images are not. OUTPUT ends in .tif, .tiff or .svs.
    """
    from her2fast.measure import default_workers

    workers = num_workers or default_workers()
    if cores is None:
        if core_diameter_um is not None:
            raise click.UsageError("--core-diameter-um goes with --cores")
        from her2fast.convert import convert as write

        click.echo(
            write(
                source,
                output,
                mpp=mpp,
                quality=quality,
                box=region,
                copy_tiles=not re_encode,
                overwrite=overwrite,
                workers=workers,
                on_rows=_Progress(),
            ).line()
        )
        return
    if region is not None:
        raise click.UsageError("--region does not go with --cores")
    from her2fast.tma import split_cores

    done = split_cores(
        source,
        output,
        cores=cores,
        diameter_um=core_diameter_um,
        mpp=mpp,
        quality=quality,
        copy_tiles=not re_encode,
        overwrite=overwrite,
        workers=workers,
        on_core=_show_core,
    )
    written = sum(core.file is not None for core in done)
    click.echo(f"{output}: {written} cores, {len(done) - written} missing")
    click.echo(f"manifest: {output}/manifest.csv")


class _Progress:
    """Tells of a long conversion, a line at a time."""

    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def __call__(self, rows_px: int, all_px: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= INTERVAL_S and rows_px < all_px:
            self._told_s = now_s
            click.echo(f"{100 * rows_px // all_px} %", err=True)


def _show_core(item: SplitCore, number: int, total: int) -> None:
    from her2fast.cli.show import plain

    core = item.core
    text = f"[{number}/{total}] {core.name}: {core.status}"
    if item.file is not None:
        width_px, height_px = item.box_px[2:]
        text += f", {width_px} x {height_px} px"
        text += ", tiles copied" if item.converted and item.converted.copied else ""
        text += " (finished before)" if item.converted is None else ""
        if item.overlaps:
            text += f", overlaps {', '.join(item.overlaps)}"
    click.echo(plain(text))
