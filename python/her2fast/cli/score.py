# SPDX-License-Identifier: Apache-2.0
"""`her2fast score`."""

from __future__ import annotations

import json

import click

from her2fast.cli import options


@click.command()
@click.argument("slides", nargs=-1, type=click.Path())
@click.option(
    "-i", "--wsi-dir", type=click.Path(file_okay=False), help="Folder of slides."
)
@click.option(
    "-o", "--results-dir", required=True, type=click.Path(), help="Results folder."
)
@options.model
@options.allow_unknown_model
@click.option("--roi", type=click.Path(), help="GeoJSON file, or folder of them.")
@options.mpp
@options.guideline
@options.device
@options.batch_size
@options.workers
@options.reading
@options.geojson
@options.palette
@options.full_hash
@click.option("--overwrite", is_flag=True, help="Score again what is finished.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first bad slide.")
@click.option("--dry-run", is_flag=True, help="List what would be scored; no model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def score(
    slides: tuple[str, ...],
    wsi_dir: str | None,
    results_dir: str,
    model: str | None,
    allow_unknown_model: bool,
    roi: str | None,
    mpp: float | None,
    guideline: str | None,
    device: str,
    batch_size: int | None,
    num_workers: int | None,
    reading: str,
    geojson: str,
    palette: str,
    full_hash: bool,
    overwrite: bool,
    fail_fast: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Score SLIDES, folders of slides or a MANIFEST.csv into a results folder.

    Exit code: 0 where every slide ended scored or indeterminate, 10 where some
    failed or were refused, 20 where all did, 64 for a wrong call, 74 for a folder
    that cannot be written.
    """
    from her2fast.exports import ExportOptions
    from her2fast.manifest import collect
    from her2fast.run import RunOptions, check_options, run

    entries = collect([*slides, *([wsi_dir] if wsi_dir else [])])
    run_options = RunOptions(
        out=results_dir,
        model=model,
        device=device,
        guideline=guideline,
        mpp=mpp,
        roi=roi,
        reading=reading,
        workers=num_workers,
        batch_size=batch_size,
        overwrite=overwrite,
        allow_unknown_model=allow_unknown_model,
        full_hash=full_hash,
        exports=ExportOptions(geojson=geojson, palette=palette),
    )
    check_options(run_options)
    if dry_run:
        from her2fast.cli.show import show_dry_run
        from her2fast.dryrun import dry_run as look

        return show_dry_run(look(run_options, entries), as_json=as_json)
    from her2fast.cli.show import RunDisplay, summary_lines

    with RunDisplay(len(entries), quiet=as_json) as display:
        summary = run(run_options, entries, fail_fast=fail_fast, on_event=display)
    if as_json:
        click.echo(json.dumps(summary.to_json(), ensure_ascii=False))
    else:
        for line in summary_lines(summary, results_dir):
            click.echo(line)
    return summary.exit_code
