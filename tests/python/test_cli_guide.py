# SPDX-License-Identifier: Apache-2.0
"""docs/guide names every option of every verb, and no other of `score`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from her2fast.cli import COMMANDS, cli

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide"
#: Verb -> where its options stand.
PAGES = {
    "score": ["score"],
    "rescore": ["score"],
    "membranes": ["membranes", "score"],
    "epithelium": ["membranes"],
    "convert": ["convert"],
    "info": ["slides", "manifest", "results"],
    "train": ["train"],
    "evaluate": ["evaluate"],
    "validate": ["evaluate"],
    "models": ["models"],
    "doctor": ["score"],
    "phantom": ["phantoms"],
    "demo": ["score"],
}


def command(verb: str) -> click.Command:
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    return found


def options(command: click.Command) -> Iterator[tuple[str, ...]]:
    """The spellings of each option, `-o` and `--out`, also of a group's commands."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from options(one)
        return
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield (*parameter.opts, *parameter.secondary_opts)


def names(text: str) -> set[str]:
    """What stands there as an option."""
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*(?![\w-])", text))


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_in_the_guide(verb: str) -> None:
    text = "\n".join((GUIDE / f"{page}.md").read_text() for page in PAGES[verb])
    known = names(text)
    assert [
        all_of for all_of in options(command(verb)) if known.isdisjoint(all_of)
    ] == []


def test_the_table_of_score_is_its_options() -> None:
    text = (GUIDE / "score.md").read_text()
    table = text[text.index("| option | meaning |") : text.index("Exit code:")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    wanted = {name for all_of in options(command("score")) for name in all_of}
    assert names(" ".join(rows)) == wanted
