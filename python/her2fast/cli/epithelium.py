# SPDX-License-Identifier: Apache-2.0
"""`her2fast epithelium`."""

from __future__ import annotations

from typing import Any

import click

from her2fast.cli import options


@click.command()
@click.argument("slides", nargs=-1, type=click.Path(), required=True)
@click.option(
    "-o", "--results-dir", required=True, type=click.Path(), help="Results folder."
)
@click.option(
    "-m",
    "--model",
    metavar="DIR",
    required=True,
    help="Package, as `her2fast train epithelium` writes it.",
)
@options.allow_unknown_model
@options.mpp
@options.workers
@options.reading
def epithelium(
    slides: tuple[str, ...],
    results_dir: str,
    model: str,
    allow_unknown_model: bool,
    mpp: float | None,
    num_workers: int | None,
    reading: str,
) -> int:
    """Find epithelium in SLIDES or a MANIFEST.csv by superpixels.

    Writes a probability map (PNG), outlines (GeoJSON) and areas (JSON) of each slide
    into RESULTS_DIR/epithelium. Exit code: as of `her2fast score`.
    """
    from her2fast.epithelium import EpitheliumOptions, run_epithelium
    from her2fast.manifest import collect

    def show(record: dict[str, Any]) -> None:
        parts = [record["slide"]["name"], record["status"]]
        if record["code"] is None:
            parts.append(
                f"{record['epithelium_mm2']:.2f} of {record['tissue_mm2']:.2f} mm2"
            )
        else:
            parts += [record["code"], record["message"]]
        click.echo("  ".join([*parts, f"({record['intended_use']})"]))

    return run_epithelium(
        EpitheliumOptions(
            out=results_dir,
            model=model,
            mpp=mpp,
            workers=num_workers,
            reading=reading,
            allow_unknown_model=allow_unknown_model,
        ),
        collect(list(slides)),
        show,
    )
