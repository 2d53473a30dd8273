"""What running work says, on stderr: progress and notes; stdout is for results.

A terminal shows bars and tables that are kept up to date. Elsewhere (a pipe, CI, a notebook) a step
is a plain line when it ends, and one after two seconds and each half minute while it lasts.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Event, Thread
from time import perf_counter
from typing import IO, Any, Final, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from headscope.text import minutes, printable, printable_name

FIRST_S: Final = 2.0  # after so many seconds a step that lasts says so
AGAIN_S: Final = 30.0


class PlainConsole(Console):
    """A console that shows text as it is: control characters in names are escaped.

    shows_table is True while a table is kept up to date: bars vanish when they are full.
    """

    shows_table = False

    @property
    def file(self) -> IO[str]:
        """The stream itself, below those that escape or redirect what is written to it."""
        stream = super().file
        while hasattr(stream, "rich_proxied_file"):
            stream = stream.rich_proxied_file
        return stream

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, text in plain letters."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


console = PlainConsole(
    stderr=True,
    highlight=False,
    markup=False,
    width=None if sys.stderr.isatty() else 120,
    force_jupyter=False,  # plain lines in a notebook, where rich would want widgets
    # and in a pipe that FORCE_COLOR would make a terminal
    force_interactive=None if sys.stderr.isatty() else False,
)
T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int, done: int = 0) -> Iterator[T]:
    """Yield `items` under a progress bar with the time that remains.

    `total` counts the whole work, `done` the part that an earlier run finished. Where stderr
    is no terminal, plain lines say how far it is.
    """
    name = printable_name(description)
    if not console.is_interactive:
        yield from _count_plainly(items, name, total, done)
        return
    with _bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[unit]}", markup=False),
        transient=console.shows_table,
    ) as progress:
        task = progress.add_task(name, total=total, completed=done, unit="left")
        for item in items:
            yield item
            progress.advance(task)
        progress.update(task, unit="in all")


@contextmanager
def busy(description: str) -> Iterator[None]:
    """Show that a step without parts to count continues; nothing is left of it when it ends."""
    name, start = printable_name(description), perf_counter()
    if not console.is_interactive:
        with _repeated(lambda: f"{name}: for {minutes(perf_counter() - start)}"):
            yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with _bar(*columns, transient=True) as progress:
        progress.add_task(name, total=None)
        yield


@contextmanager
def live(table: RenderableType, state: Callable[[], str] | None = None) -> Iterator[None]:
    """Keep a table up to date in a terminal, under what is printed and above the bars of steps.

    Elsewhere `state`, where it is given, is called from time to time for a plain line.
    """
    if not console.is_interactive:
        with _repeated(state) if state else nullcontext():
            yield
        return
    redirect = sys.stdout.isatty()
    with Live(table, console=console, redirect_stdout=redirect, refresh_per_second=4):
        console.shows_table = True
        try:
            yield
        finally:
            console.shows_table = False


def _bar(*columns: Any, transient: bool) -> Progress:
    """Return progress that leaves stdout alone, unless both are one terminal."""
    redirect = sys.stdout.isatty()
    return Progress(*columns, console=console, transient=transient, redirect_stdout=redirect)


def _count_plainly(items: Iterable[T], name: str, total: int, done: int) -> Iterator[T]:
    """Yield `items`; print how far they are from time to time, and a line at the end."""
    start, count = perf_counter(), done

    def state() -> str:
        seconds = perf_counter() - start
        left = seconds * (total - count) / (count - done) if count > done else None
        return f"{name}: {count} of {total}" + (f", {minutes(left)} left" if left else "")

    with _repeated(state):
        for item in items:
            yield item
            count += 1
    console.print(f"{name}: {count} of {total} in {minutes(perf_counter() - start)}")


@contextmanager
def _repeated(state: Callable[[], str]) -> Iterator[None]:
    """Print what `state` says after two seconds, and again every half minute."""
    ended = Event()

    def speak() -> None:
        wait = FIRST_S
        while not ended.wait(wait):
            console.print(state())
            wait = AGAIN_S

    thread = Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
