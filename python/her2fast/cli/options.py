# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


class FiniteRange(click.FloatRange):
    """A range that NaN, which compares with nothing, does not slip through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """The number; a usage error where it is none."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def package(default: str) -> Callable[[Command], Command]:
    """`-m`: the package, `default` where none is given."""
    return click.option(
        "-m",
        "--model",
        metavar="NAME|DIR",
        help=f"Package that ships, or folder of one.  [default: {default}]",
    )


allow_unknown_model = click.option(
    "--allow-unknown-model", is_flag=True, help="Run model files that no list names."
)
mpp = click.option(
    "--mpp",
    type=FiniteRange(min=0, min_open=True),
    help="Level-0 spacing, um/px; wins over the file's.",
)
guideline = click.option(
    "--guideline", metavar="NAME", help="Rule set, or none.  [default: the package's]"
)
device = click.option(
    "--device", default="cpu", show_default=True, metavar="cpu|cuda[:N]"
)
batch_size = click.option(
    "-b", "--batch-size", type=click.IntRange(min=1), help="Patches in flight."
)
workers = click.option(
    "-n",
    "--num-workers",
    type=click.IntRange(min=1),
    help="Batches computed side by side.  [default: one per core]",
)
reading = click.option(
    "--reading",
    type=click.Choice(["scaled", "exact", "level0"]),
    default="scaled",
    show_default=True,
    help="How tiles are decoded; level0: from level 0, whatever levels are stored.",
)
decoder = click.option(
    "--decoder",
    type=click.Choice(["cpu", "nvjpeg"]),
    default="cpu",
    show_default=True,
    help="Who decodes JPEG tiles; nvjpeg: a GPU, to pixels near the CPU's.",
)
geojson = click.option(
    "--geojson",
    type=click.Choice(["regions", "patches"]),
    default="regions",
    show_default=True,
    help="Dissolved regions, or every patch.",
)
palette = click.option(
    "--palette",
    type=click.Choice(["qupath", "pham"]),
    default="qupath",
    show_default=True,
    help="Colors of the classes.",
)
full_hash = click.option(
    "--full-hash",
    is_flag=True,
    help="Hash every byte of a slide, not samples; slower.",
)


_RUN = (
    click.argument("slides", nargs=-1, type=click.Path()),
    click.option(
        "-i", "--wsi-dir", type=click.Path(file_okay=False), help="Folder of slides."
    ),
    click.option(
        "-o", "--results-dir", required=True, type=click.Path(), help="Results folder."
    ),
    allow_unknown_model,
    click.option("--roi", type=click.Path(), help="GeoJSON file, or folder of them."),
    mpp,
    guideline,
    device,
    batch_size,
    workers,
    reading,
    palette,
    full_hash,
    click.option("--overwrite", is_flag=True, help="Score again what is finished."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first bad slide."),
    click.option(
        "--dry-run", is_flag=True, help="List what would be scored; no model."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)


def of_a_run(command: Command) -> Command:
    """What every verb takes that scores slides into a folder (`cli.running`)."""
    for option in reversed(_RUN):
        command = option(command)
    return command
