# SPDX-License-Identifier: Apache-2.0
"""`her2fast demo`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "-o",
    "--results-dir",
    default="her2fast-demo",
    show_default=True,
    type=click.Path(),
    help="Results folder.",
)
def demo(results_dir: str) -> int:
    """Score the synthetic slide that ships; offline, research use only."""
    from her2fast.cli.show import RunDisplay, demo_lines
    from her2fast.doctor import DEMO_SLIDE
    from her2fast.manifest import Entry
    from her2fast.run import RunOptions, run

    with RunDisplay(1) as display:
        summary = run(
            RunOptions(out=results_dir), [Entry(str(DEMO_SLIDE))], on_event=display
        )
    for line in demo_lines(summary, results_dir):
        click.echo(line)
    return summary.exit_code
