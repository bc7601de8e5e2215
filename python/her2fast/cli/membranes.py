# SPDX-License-Identifier: Apache-2.0
"""`her2fast membranes`."""

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
    metavar="NAME|DIR",
    required=True,
    help="Membrane package, as `her2fast train membrane` writes it.",
)
@click.option(
    "--tumor-model",
    metavar="NAME|DIR",
    help="Package that finds the tumor at 1 um/px.  [default: constrained-tiny]",
)
@options.allow_unknown_model
@click.option("--roi", type=click.Path(), help="GeoJSON file, or folder of them.")
@options.mpp
@options.guideline
@options.device
@options.workers
@options.palette
@click.option("--overwrite", is_flag=True, help="Score again what is finished.")
def membranes(
    slides: tuple[str, ...],
    results_dir: str,
    model: str,
    tumor_model: str | None,
    allow_unknown_model: bool,
    roi: str | None,
    mpp: float | None,
    guideline: str | None,
    device: str,
    num_workers: int | None,
    palette: str,
    overwrite: bool,
) -> int:
    """Score SLIDES or a MANIFEST.csv cell by cell, by membranes at 0.25 um/px.

    Exit code: as of `her2fast score`.
    """
    from her2fast.manifest import collect
    from her2fast.membrane_run import MembraneOptions, run_membranes

    def show(slide: str, record: dict[str, Any], work: str) -> None:
        cells = record.get("cells") or {}
        parts = [slide, record["status"], record["score"] or record["code"] or "-"]
        if cells:
            counts = "/".join(map(str, cells["class_cells"]))
            parts.append(f"{cells['count']} cells: 0/1+/2+/3+ {counts}")
        if record["review_flags"]:
            parts.append("review: " + ", ".join(record["review_flags"]))
        parts.append(f"({work}; {record['intended_use']})")
        click.echo("  ".join(parts))

    return run_membranes(
        MembraneOptions(
            out=results_dir,
            model=model,
            tumor_model=tumor_model,
            device=device,
            guideline=guideline,
            mpp=mpp,
            roi=roi,
            workers=num_workers,
            overwrite=overwrite,
            allow_unknown_model=allow_unknown_model,
            palette=palette,
        ),
        collect(list(slides)),
        show,
    )
