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
    """Score the six synthetic slides that ship; offline, research use only."""
    from her2fast.cli.show import RunDisplay, demo_lines
    from her2fast.golden import demo_paths, unexpected
    from her2fast.manifest import Entry
    from her2fast.run import EXIT_ALL, EXIT_OK, RunOptions, run

    entries = [Entry(str(path)) for path in demo_paths()]
    with RunDisplay(len(entries)) as display:
        summary = run(RunOptions(out=results_dir), entries, on_event=display)
    wrong = unexpected(summary.outcomes)
    for line in demo_lines(summary, results_dir, wrong):
        click.echo(line)
    return EXIT_ALL if wrong else EXIT_OK
