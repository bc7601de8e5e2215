# SPDX-License-Identifier: Apache-2.0
"""`her2fast doctor`."""

from __future__ import annotations

import click


@click.command()
@click.option("--verify", is_flag=True, help="Score the shipped slide, compare areas.")
def doctor(verify: bool) -> int:
    """Check this machine and installation; exit code 20 where something is wrong."""
    from her2fast import doctor as checks

    good = True
    found = list(checks.check_machine())
    for check in [*found, *([checks.verify()] if verify else [])]:
        word = "ok  " if check.good else "FAIL"
        code = f" {check.code}" if check.code else ""
        click.echo(f"{word} {check.name}:{code} {check.text}")
        good = good and check.good
    return 0 if good else 20
