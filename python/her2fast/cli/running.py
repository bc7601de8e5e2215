# SPDX-License-Identifier: Apache-2.0
"""What every verb does that scores slides into a folder; options of `of_a_run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from her2fast.run import RunOptions


def score_slides(kind: type[RunOptions], given: Mapping[str, Any], **own: Any) -> int:
    """Scores, or looks with `--dry-run`; returns the exit code.

    `given` holds the options of `of_a_run`, `own` those of the verb.
    """
    from her2fast.exports import ExportOptions
    from her2fast.manifest import collect
    from her2fast.run import check_options, run

    rest = dict(given)
    wsi_dir, as_json = rest.pop("wsi_dir"), rest.pop("as_json")
    entries = collect([*rest.pop("slides"), *([wsi_dir] if wsi_dir else [])])
    fail_fast, dry_run = rest.pop("fail_fast"), rest.pop("dry_run")
    run_options = kind(
        out=rest.pop("results_dir"),
        workers=rest.pop("num_workers"),
        exports=ExportOptions(geojson=own.pop("geojson"), palette=rest.pop("palette")),
        **rest,
        **own,
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
        for line in summary_lines(summary, run_options.out):
            click.echo(line)
    return summary.exit_code
