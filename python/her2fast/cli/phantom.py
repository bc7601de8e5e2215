# SPDX-License-Identifier: Apache-2.0
"""`her2fast phantom`."""

from __future__ import annotations

import json

import click

from her2fast.cli import options


@click.command()
@click.option("-o", "--out", type=click.Path(), help="Folder of the phantoms.")
@click.option("--slides", type=int, default=1, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all slides.")
@click.option("--spec", type=click.Path(), help="TOML file; see --default-spec.")
@click.option(
    "--score",
    type=click.Choice(["cycle", "0", "1+", "2+", "3+"]),
    help="Score by pham-2022; cycle goes through the classes.  [default: cycle]",
)
@click.option(
    "--spacing",
    type=options.FiniteRange(0.2, 2.0),
    help="Level-0 spacing, um/px.  [default: 1.0]",
)
@click.option("--profile", help="Laboratory and scanner.  [default: cycle]")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["svs"]),
    default="svs",
    show_default=True,
    help="Aperio layout.",
)
@click.option(
    "-n",
    "--num-workers",
    "--workers",
    "workers",
    type=click.IntRange(min=1),
    help="Slides drawn side by side.  [default: one per core]",
)
@click.option("--default-spec", is_flag=True, help="Print the default TOML and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def phantom(
    out: str | None,
    slides: int,
    seed: int,
    spec: str | None,
    score: str | None,
    spacing: float | None,
    profile: str | None,
    file_format: str,
    workers: int | None,
    default_spec: bool,
    as_json: bool,
) -> int:
    """Draw synthetic slides whose truth is known at every pixel.

    Research use only. What a folder holds is never overwritten; a rerun with the same
    options makes what is missing.
    """
    from importlib.util import find_spec

    from her2fast.errors import UsageError

    if find_spec("scipy") is None:
        raise UsageError("phantoms need SciPy: pip install her2fast[train]")
    from her2fast.cli.show_phantom import PhantomDisplay, phantom_lines
    from her2fast.phantom.spec import default_toml, load_spec, with_options

    if default_spec:
        click.echo(default_toml(), nl=False)
        return 0
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    from her2fast.measure import default_workers
    from her2fast.phantom.cohort import Request, make_cohort

    request = Request(
        out=out,
        slides=slides,
        seed=seed,
        spec=with_options(
            load_spec(spec) if spec else None,
            score=score,
            spacing_um=spacing,
            profile=profile,
            file_format=file_format,
        ),
        workers=workers or default_workers(),
    )
    with PhantomDisplay(slides, quiet=as_json) as display:
        made = make_cohort(request, display)
    if as_json:
        rows = [
            {"slide": one.name, "label": one.label, "work": one.work} for one in made
        ]
        click.echo(json.dumps({"out": out, "slides": rows}))
    else:
        for line in phantom_lines(made, out):
            click.echo(line)
    return 0
