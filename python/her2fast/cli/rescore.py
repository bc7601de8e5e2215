# SPDX-License-Identifier: Apache-2.0
"""`her2fast rescore`."""

from __future__ import annotations

import click


@click.command()
@click.argument("out", type=click.Path())
@click.option("--roi", type=click.Path(), help="GeoJSON file, folder of them, or none.")
@click.option("--guideline", metavar="NAME", help="Rule set, or none.")
@click.option("--ish", type=click.Path(), help="CSV with the columns slide and ish.")
def rescore(
    out: str,
    roi: str | None,
    guideline: str | None,
    ish: str | None,
) -> int:
    """Decide again on the measurements in OUT: no model, no pixels.

    What is not given stays as it was.
    """
    from her2fast.cli.show import rescored_lines
    from her2fast.manifest import read_ish
    from her2fast.rescoring import exit_code, rescore_folder

    done = rescore_folder(
        out,
        roi=roi,
        guideline=guideline,
        ish=read_ish(ish) if ish else None,
    )
    for line in rescored_lines(done):
        click.echo(line)
    return exit_code(done)
