# SPDX-License-Identifier: Apache-2.0
"""`her2fast train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


@click.group()
def train() -> None:
    """Train segmenter and patch classifier from slide labels (docs/guide/train.md).

    In this order: splits, segment, pretrain, constrained, calibrate; membrane stands
    alone, and epithelium in the place of segment. Research use only.
    """


def _stage(name: str, text: str) -> None:
    @train.command(name, help=text)
    @click.argument("config", type=click.Path(path_type=Path))
    @click.option(
        "-o",
        "--run-dir",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the run; a killed run goes on.",
    )
    @click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="TABLE.KEY=VALUE",
        help="Change a value of CONFIG; may be repeated.",
    )
    def command(config: Path, run_dir: Path, changes: tuple[str, ...]) -> int:
        from her2fast.training.stages import run_stage

        run_stage(
            name,
            config,
            run_dir,
            changes=changes,
            say=lambda line: click.echo(line, err=True),
        )
        return 0


_stage("segment", "Learn to find tumor, from drawn areas.")
_stage("pretrain", "Learn the classes, every patch with its slide's label.")
_stage("constrained", "Make patches obey the limits of their slides' labels.")
_stage("calibrate", "One value per class on the logits; writes the package.")
_stage("membrane", "Learn to find stained membrane, from masks; writes the package.")
_stage("epithelium", "Learn to find epithelium by superpixels; writes the package.")


@train.command("splits")
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (JSON).",
)
@click.option("-k", "--folds", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--by-site", is_flag=True, help="Leave one site out each, instead.")
@click.option("--no-test", is_flag=True, help="Train and val alone in every fold.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def splits(
    manifest: Path, out: Path, folds: int, by_site: bool, no_test: bool, seed: int
) -> int:
    """Divide the slides of MANIFEST; patients stay whole, labels are spread evenly."""
    from her2fast.training.split_file import make_split_file

    for line in make_split_file(
        manifest, out, folds=folds, by_site=by_site, test=not no_test, seed=seed
    ):
        click.echo(line)
    return 0
