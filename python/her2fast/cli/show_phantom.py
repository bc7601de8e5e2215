# SPDX-License-Identifier: Apache-2.0
"""What `her2fast phantom` prints: bars on a terminal, a line a slide elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from her2fast.cli.show import plain

if TYPE_CHECKING:
    from her2fast.phantom.cohort import Made


class PhantomDisplay:
    """Shows the events of `make_cohort`; call it with them."""

    def __init__(self, slides: int, *, quiet: bool = False) -> None:
        """`quiet` leaves standard output to the caller."""
        self._slides = slides
        self._done = 0
        self._quiet = quiet
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> PhantomDisplay:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Shows one event."""
        name = fields["slide"]
        if event == "slide_started" and self._progress is not None:
            self._tasks[name] = self._progress.add_task(name, total=None)
        elif event == "progress" and name in self._tasks:
            self._progress.update(
                self._tasks[name], completed=fields["done"], total=fields["planned"]
            )
        elif event == "slide_ended":
            self._done += 1
            if name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))
            if self._quiet:
                return
            line = slide_line(self._done, self._slides, fields)
            if self._progress is not None:
                self._progress.console.print(line, markup=False, highlight=False)
            else:
                click.echo(line)


def slide_line(number: int, slides: int, fields: dict[str, Any]) -> str:
    """One line per slide."""
    how = (
        "finished before"
        if fields["work"] == "kept"
        else f"{fields['elapsed_s']:.1f} s"
    )
    label = fields["label"] or "no tumor"
    return plain(f"[{number}/{slides}] {fields['slide']}: {label} [{how}]")


def phantom_lines(made: Sequence[Made], out: str) -> Iterator[str]:
    """The end of a run."""
    counts = Counter(one.label or "no tumor" for one in made)
    shares = ", ".join(f"{count} of {label}" for label, count in sorted(counts.items()))
    yield f"phantoms: {plain(out)}"
    yield f"{len(made)} slides by pham-2022: {shares}; synthetic, research use only"
    yield f"score them: her2fast score {plain(out)}/manifest.csv -o RESULTS"
