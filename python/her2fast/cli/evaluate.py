# SPDX-License-Identifier: Apache-2.0
"""`her2fast evaluate` and `her2fast validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_labels = click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Manifest with slide and label (patient, reader_1 ...).",
)
_fractions = click.option(
    "--fractions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV of true shares: slide,0,1+,2+,3+.",
)
_annotations = click.option(
    "--annotations",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of drawn tumor, for Dice: <slide>.geojson or .png.",
)
_out = click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for page, figures and JSON.",
)
_replicates = click.option(
    "--replicates",
    type=click.IntRange(min=10, max=100_000),
    default=1000,
    show_default=True,
    help="Draws of the bootstrap.",
)
_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="NAME=RESULTS...")
@_labels
@click.option("--split", help="Only slides of this part of the manifest.")
@_fractions
@_annotations
@_out
@_replicates
@_seed
def evaluate(results: tuple[str, ...], labels: Path, out: Path, **options: Any) -> int:
    """Compare results folders with labels, and with each other.

    Differences are to the first one: name the baseline first.
    """
    folders: dict[str, Path] = {}
    for text in results:
        name, equals, folder = text.partition("=")
        if not (equals and name and folder) or name in folders:
            raise click.UsageError(f"need distinct NAME=RESULTS, got {text!r}")
        folders[name] = Path(folder)
    return _write(out, folders, labels, **options)


@click.command()
@click.argument("results", type=click.Path(path_type=Path, file_okay=False))
@_labels
@_fractions
@_annotations
@_out
@_replicates
@_seed
def validate(results: Path, labels: Path, out: Path, **options: Any) -> int:
    """Compare RESULTS with a laboratory's own labels."""
    return _write(
        out, {results.resolve().name or "results": results}, labels, **options
    )


def _write(out: Path, folders: dict[str, Path], labels: Path, **options: Any) -> int:
    from her2fast.cli.show import plain
    from her2fast.evaluation.page import write_evaluation

    content = write_evaluation(out, folders, labels, **options)
    for name, one in content["results"].items():
        for file, code in one["left_out"].items():
            click.echo(
                plain(f"{name}: results/{file} left out ({code}): no record of a slide")
            )
        found = one["views"]["4-class"]
        low, high = found["intervals"]["macro_f1"]
        click.echo(
            f"{name}: {one['scored']} of {content['labelled_slides']} slides scored, "
            f"accuracy {found['accuracy']:.3f}, macro-F1 {found['macro_f1']:.3f} "
            f"({low:.3f} to {high:.3f})"
        )
    click.echo(f"page: {out / 'evaluation.html'}")
    return 0
