"""The runs of a grid while they train: a table in a terminal, plain lines elsewhere."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from time import perf_counter
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from headscope.cohort.tables import counted
from headscope.console import console, live
from headscope.experiment.plan import Plan
from headscope.text import fixed, minutes, percent, printable_name
from headscope.tracking.track import Followers

AROUND: Final = 10  # lines of a terminal that the table leaves to others
BESIDE: Final = 67  # letters of a line that are no name
STATES: Final = {  # the word in the table, and how it is set
    "waiting": ("waiting", "dim"),
    "training": ("training", "bold"),
    "finished": ("finished", "green"),
    "already finished": ("earlier", "dim"),
    "elsewhere": ("elsewhere", "dim"),
    "finished elsewhere": ("elsewhere", "green"),
    "failed": ("failed", "red"),
}
GOING_ON: Final = ("waiting", "training", "elsewhere")
COLUMNS: Final = ("Epoch", "Loss", "Val.", "Acc. %", "Val. %", "Time", "Left")


@dataclass
class Line:
    """A run in the table: its epochs in all, state, the last row of its history, its seconds.

    "elsewhere" is what another headscope trains; start is when it began here. Epochs of one `kind`
    take about as long; `paces` holds the seconds of those that ended.
    """

    name: str
    epochs: int
    kind: Hashable = None
    state: str = "waiting"
    last: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    start: float = 0.0
    paces: list[float] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """The epochs that are to come."""
        return self.epochs - self.last.get("epoch", 0) if self.state in GOING_ON else 0

    @property
    def cells(self) -> list[str]:
        """What the columns after name and state show, without the time that is left."""
        if not self.last:
            training = self.state == "training"
            first, last = (f"0/{self.epochs}", minutes(self.seconds)) if training else ("", "")
            return [first, *[""] * 4, last]
        losses = [fixed(self.last[f"{subset}_loss"], 3) for subset in ("train", "val")]
        shares = [percent(self.last[f"{subset}_slice_accuracy"]) for subset in ("train", "val")]
        epoch = f"{self.last['epoch']}/{self.epochs}"
        return [epoch, *losses, *shares, minutes(self.seconds)]


class Board:
    """The runs of a grid with epochs, losses, slice accuracies and the time that remains.

    The time is estimated from the epochs so far of runs of the same network that train the same
    parts; where a run to come is like none, it reads '> 1:20'.
    """

    def __init__(self, plans: Sequence[Plan], followers: Followers | None = None) -> None:
        """List the plans; all wait. Followers hear of epochs and ends too."""
        self.followers, self.names = followers, [plan.name for plan in plans]
        self.lines = [Line(printable_name(plan.name), _epochs(plan), _kind(plan)) for plan in plans]
        self.at, self.over = 0, False

    @contextmanager
    def shown(self, *, said: bool) -> Iterator["Board"]:
        """Show the table in a terminal while the block runs, and whole at its end.

        said: elsewhere a plain line says from time to time how far the runs are, for those that
        train where nothing is printed.
        """
        with live(self, self._progress if said else None):
            yield self
            self.over = True

    def title(self, number: int) -> str:
        """Return what a run is called in what is printed: '[2/4] name'."""
        return f"[{number + 1}/{len(self.lines)}] {self.lines[number].name}"

    def begin(self, number: int) -> None:
        """Note that a run trains from now on."""
        self.at = number
        self.lines[number].state, self.lines[number].start = "training", perf_counter()

    def watch(self, row: Mapping[str, Any], number: int | None = None) -> None:
        """Note the row of the history of the epoch that has ended, by default of the last begun."""
        number = self.at if number is None else number
        line = self.lines[number]
        if row == line.last:
            return
        line.last, line.seconds = row, perf_counter() - line.start
        line.paces.append(row["seconds"])
        if self.followers is not None and line.state != "elsewhere":  # where others tell of it
            self.followers.epoch(self.names[number], row)

    def leave(self, number: int, who: str) -> None:
        """Note that another headscope trains a run; it is said once."""
        line = self.lines[number]
        if line.state != "elsewhere":
            line.state = "elsewhere"
            console.print(f"{self.title(number)}: {who} trains it.", soft_wrap=True)

    def lose(self, number: int) -> None:
        """Note that the process of a run was killed, and that it waits again."""
        self.lines[number].state = "waiting"
        text = "its process was killed; it continues from its resume file"
        console.print(f"{self.title(number)}: {text}.", soft_wrap=True)

    def end(self, number: int, state: str, reason: str = "") -> None:
        """Note how a run ended; a plain line says it where no table is shown."""
        line = self.lines[number]
        line.state = state
        if state == "finished elsewhere":
            line.last = {}  # which was heard of it last, and is not its end
        if state == "finished":
            line.seconds = perf_counter() - line.start
        if reason or not console.is_interactive:
            console.print(f"{self.title(number)}: {reason or self._outcome(line)}", soft_wrap=True)
        if self.followers is not None:
            self.followers.ended(self.names[number], state)

    def _outcome(self, line: Line) -> str:
        """Say in words what the table shows of a run that has ended."""
        if not line.last:
            return line.state
        _, loss, val_loss, share, val_share, seconds = line.cells
        about = self._about()
        return (
            f"{line.state} after {counted(line.last['epoch'], 'epoch')}: loss {loss} "
            f"(validation {val_loss}), slice accuracy {share}% (validation {val_share}%), "
            f"in {seconds}" + (f"; {about}" if about else "")
        )

    def _about(self) -> str:
        """Say in words how long all will take, where it says anything."""
        left = self.left()
        if left in ("", "> 0:00"):
            return ""
        return (left.replace(">", "more than") if ">" in left else f"about {left}") + " left"

    def left(self, lines: Sequence[Line] | None = None) -> str:
        """Say about how long the lines, or all, will take; nothing before the first epoch."""
        paces = {line.kind: fmean(line.paces) for line in self.lines if line.paces}
        lines = [line for line in lines or self.lines if line.to_do]
        paced = [line.to_do * paces[line.kind] for line in lines if line.kind in paces]
        at_once = max(1, sum(line.state in ("training", "elsewhere") for line in lines))
        more = "> " if len(paced) < len(lines) else ""
        return more + minutes(sum(paced) / at_once) if paced else ""

    def __rich__(self) -> Table:
        """Return the table; while runs train, those around the one that does."""
        first, last = self._window()
        caption = self._caption(first, last)
        table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False)
        for name in ("Run", "State"):
            table.add_column(name, no_wrap=True)
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for line in self.lines:
            if line.state == "training":
                line.seconds = perf_counter() - line.start
        for line in self.lines[first:last]:
            left = self.left([line]) if line.state == "training" else ""
            word, style = STATES[line.state]
            cells = (_cut(line.name, console.width - BESIDE), word, *line.cells, left)
            table.add_row(*map(Text, cells), style=style)
        return table

    def _window(self) -> tuple[int, int]:
        """Return which lines fit into the terminal, the run that trains among them."""
        count = len(self.lines)
        room = count if self.over else max(3, console.height - AROUND)
        first = max(0, min(self.at - room // 2, count - room))
        return first, min(count, first + room)

    def _caption(self, first: int, last: int) -> str:
        if last - first == len(self.lines):
            return self._progress()
        return self._progress(f"{first} above and {len(self.lines) - last} below are not shown")

    def _progress(self, *more: str) -> str:
        ended = sum(line.state not in GOING_ON for line in self.lines)
        about = "" if self.over else self._about()
        words = [f"{ended} of {len(self.lines)} runs ended", *more]
        return "; ".join([*words, *([about] if about else [])])


def _cut(name: str, room: int) -> str:
    """Return a name that fits, its middle left out: runs differ in their first and last letters."""
    half = max(8, room // 2 - 1)
    return name if len(name) <= 2 * half + 1 else f"{name[:half]}…{name[-half:]}"


def _epochs(plan: Plan) -> int:
    """Return the epochs of a run, those of the classifier alone among them."""
    recipe = plan.recipe
    probe = (recipe.probe_epochs or recipe.epochs) if plan.regime.probe_first else 0
    return recipe.epochs + probe


def _kind(plan: Plan) -> Hashable:
    """Return what the time of a run's epochs depends on most."""
    return plan.setting.architecture, plan.regime.trains_backbone
