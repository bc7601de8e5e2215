# SPDX-License-Identifier: Apache-2.0
"""`her2fast info`."""

from __future__ import annotations

import json

import click

from her2fast.cli import options


@click.command()
@click.argument("slide", type=click.Path())
@options.mpp
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(slide: str, mpp: float | None, as_json: bool) -> int:
    """What is known of SLIDE: format, levels, spacing and its source."""
    from her2fast.cli.show import plain
    from her2fast.slide_info import describe_slide

    report = describe_slide(slide, mpp)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(plain(line))
    return report.exit_code
