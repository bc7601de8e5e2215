# SPDX-License-Identifier: Apache-2.0
"""`her2fast info`."""

from __future__ import annotations

import json

import click

from her2fast.cli import options

EXIT_PROBLEMS = 64


@click.command()
@click.argument("slide", metavar="SLIDE|MANIFEST.csv", type=click.Path())
@options.mpp
@options.full_hash
@click.option(
    "--manifest", is_flag=True, help="Check a manifest, as for a name ending in .csv."
)
@click.option(
    "--training", is_flag=True, help="A manifest to train with: needs labels."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(
    slide: str,
    mpp: float | None,
    full_hash: bool,
    manifest: bool,
    training: bool,
    as_json: bool,
) -> int:
    """What is known of SLIDE: format, levels, spacing and its source.

    Of a manifest: every problem of every line, each slide opened and compared by
    fingerprint. Exit code 64 where there is one.
    """
    if manifest or slide.lower().endswith(".csv"):
        if mpp is not None or full_hash:
            raise click.UsageError("--mpp and --full-hash are for slides")
        return _check(slide, training=training, as_json=as_json)
    if training:
        raise click.UsageError("--training is for manifests")
    from her2fast.cli.show import plain
    from her2fast.slide_info import describe_slide

    report = describe_slide(slide, mpp, full_hash=full_hash)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(plain(line))
    return report.exit_code


def _check(path: str, *, training: bool, as_json: bool) -> int:
    from her2fast.cli.show import plain
    from her2fast.manifest_check import check_manifest

    report = check_manifest(path, training=training)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(plain(line))
    return EXIT_PROBLEMS if report.problems else 0
