"""What running work says, on stderr: progress and notes; stdout is for results."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from headscope.text import printable, printable_name


class PlainConsole(Console):
    """A console that shows text as it is: control characters in names are escaped."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, text in plain letters."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


console = PlainConsole(
    stderr=True,
    highlight=False,
    markup=False,
    width=None if sys.stderr.isatty() else 120,
    force_jupyter=False,  # plain lines in a notebook, where rich would want widgets
)
T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int, done: int = 0) -> Iterator[T]:
    """Yield `items` under a progress bar with the time that remains.

    `total` counts the whole work, `done` the part that an earlier run finished. Where stderr
    is not a terminal, one line is printed at the end.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[unit]}", markup=False),
        console=console,
    ) as progress:
        task = progress.add_task(
            printable_name(description), total=total, completed=done, unit="left"
        )
        for item in items:
            yield item
            progress.advance(task)
        progress.update(task, unit="in all")
