# SPDX-License-Identifier: Apache-2.0
"""`her2fast models`."""

from __future__ import annotations

import json

import click


@click.group()
def models() -> None:
    """List, show, check and trust model packages."""


@models.command("ls")
def list_models() -> None:
    """What ships, and what you trust."""
    from her2fast.models.describe import list_lines

    for line in list_lines():
        click.echo(line)


@models.command("show")
@click.argument("package")
def show(package: str) -> None:
    """Configuration and hashes of a PACKAGE (name or folder), as JSON."""
    from her2fast.models.describe import describe
    from her2fast.models.membrane_package import load_any_package

    click.echo(json.dumps(describe(load_any_package(package)), indent=1))


@models.command("check")
@click.argument("package")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda[:N]")
@click.option(
    "--allow-unknown-model", is_flag=True, help="Open model files that no list names."
)
def check(package: str, device: str, allow_unknown_model: bool) -> int:
    """Check hashes, shapes and one forward pass of a PACKAGE."""
    from her2fast.models.describe import check_lines
    from her2fast.models.membrane_package import load_any_package

    loaded = load_any_package(package)
    if not allow_unknown_model:
        loaded.require_known()
    for line in check_lines(loaded, device):
        click.echo(line)
    return 0


@models.command("trust")
@click.argument("package")
def trust(package: str) -> None:
    """Add the model files of a PACKAGE to your trust file."""
    from her2fast.models.describe import trust_package

    click.echo(trust_package(package))
