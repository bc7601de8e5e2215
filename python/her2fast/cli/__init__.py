# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per verb, found by name, imported when it is run."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from her2fast._core import __version__

#: Verb -> (module:function, one line of help). `--help` imports no verb.
COMMANDS: dict[str, tuple[str, str]] = {
    "score": ("score:score", "Score slides into a results folder."),
    "rescore": ("rescore:rescore", "Decide again: other ROI, guideline or ISH."),
    "membranes": ("membranes:membranes", "Score slides cell by cell, by membranes."),
    "epithelium": ("epithelium:epithelium", "Find epithelium by superpixels."),
    "convert": ("convert:convert", "Slide or image to a pyramid, TMA to its cores."),
    "info": ("info:info", "What is known of a slide, without scoring it."),
    "train": ("train:train", "Train a scorer from slide labels."),
    "evaluate": ("evaluate:evaluate", "Results folders against labels."),
    "validate": ("evaluate:validate", "One results folder against a lab's labels."),
    "models": ("models:models", "List, show, check and trust model packages."),
    "doctor": ("doctor:doctor", "Check this machine and installation."),
    "phantom": ("phantom:phantom", "Draw synthetic slides with their truth."),
    "demo": ("demo:demo", "Score the synthetic slide that ships."),
}

EXIT_USAGE = 64
EXIT_IO = 74
EXIT_INTERRUPTED = 130


class _Group(click.Group):
    """Commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"her2fast.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="her2fast")
def cli() -> None:
    """Score HER2 in breast cancer slides.

    Research use only. The packages that ship were trained on synthetic data.
    """


def main(arguments: list[str] | None = None) -> None:
    """The console script; exits with 0, 10, 20, 64 (usage) or 74 (I/O)."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Runs one command; returns its exit code."""
    from her2fast.errors import DeviceError, SlideError, UsageError

    try:
        value: Any = cli.main(arguments, prog_name="her2fast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return EXIT_IO if isinstance(error, click.FileError) else EXIT_USAGE
    except (UsageError, DeviceError) as error:
        return _complain(error, EXIT_USAGE)
    except SlideError as error:
        return _complain(f"{error.code}: {error}", EXIT_IO)
    except BrokenPipeError:
        return EXIT_IO
    except OSError as error:
        return _complain(error, EXIT_IO)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted; a rerun completes what is missing", 130)
    return value if isinstance(value, int) else 0


def _complain(error: object, code: int) -> int:
    text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
    click.echo(f"her2fast: {text}", err=True)
    return code
