"""`track`: an experiment's finished runs in MLflow or TensorBoard; and the same while it runs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

from headscope.console import busy, console
from headscope.errors import InputError, RunError
from headscope.files import locked
from headscope.manifest import reason_of
from headscope.record import Run, find_runs
from headscope.tables import Shown, Table
from headscope.tracking.target import TOOLS, Target, check_installed, parse_target

EVERY_S: Final = 2.0  # between writes of epochs, which of a frozen network take less


class Tracker(Protocol):
    """A tool that shows runs."""

    place: str

    @property
    def look(self) -> str: ...  # noqa: D102

    def add_epochs(self, run: Run, rows: Iterable[Mapping[str, Any]]) -> None: ...  # noqa: D102

    def write(self, run: Run) -> bool: ...  # noqa: D102

    def fail(self, run: Run) -> None: ...  # noqa: D102


def open_tracker(target: Target, experiment: Path, thumbnails: str | None = None) -> Tracker:
    """Open the place of a target for an experiment."""
    check_installed(target)
    if target.tool == "mlflow":
        from headscope.tracking.mlflow import MlflowTracker

        return MlflowTracker(target, experiment)
    from headscope.tracking.tensorboard import TensorboardTracker

    return TensorboardTracker(target, experiment, thumbnails)


@contextmanager
def alone(experiment: Path) -> Iterator[None]:
    """Let one process at a time write what it lacks, so that no run is made twice; others wait."""
    with ExitStack() as stack:
        with suppress(OSError):  # an experiment that may only be read: no other process fills it
            stack.enter_context(locked(experiment / ".tracking", wait=True))
        yield


@dataclass(frozen=True, eq=False, repr=False)
class Tracked(Shown):
    """What `track` did.

    Attributes
    ----------
    tool, place
        'mlflow' or 'tensorboard', and where its runs are.
    look
        The command that shows them.
    written, unchanged
        Names of the runs that were written, and of those that were there already.
    notes
        What of the experiment is left out.
    """

    tool: str
    place: str
    look: str
    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return how many runs were written, and how many were there."""
        rows = [("Runs written", len(self.written)), ("Already there", len(self.unchanged))]
        return [Table(TOOLS[self.tool], ("", "Runs"), rows, self.notes)]


def track(experiment: Path | str, to: str = "mlflow", thumbnails: str | None = None) -> Tracked:
    """Show the finished runs of an experiment in MLflow or TensorBoard, from their records.

    What is there already is not written again, so that it may be called at any time; `run` does
    the same with the setting `track`.

    Parameters
    ----------
    experiment
        Its folder.
    to
        'mlflow' (an SQLite file in the experiment, or the store of MLFLOW_TRACKING_URI),
        'mlflow:URI', 'tensorboard' (a folder in the experiment) or 'tensorboard:FOLDER'.
    thumbnails
        Which test slices the projector of TensorBoard holds as pictures, as in `report`: "test",
        "errors" or "none"; by default all of the test, and none where subjects have pseudonyms.

    Raises
    ------
    InputError
        The folder is no experiment or has no finished run, or the tool is unknown or not installed.
    RunError
        The tool could not write.

    Examples
    --------
    >>> hs.track("first", to="tensorboard").look
    'tensorboard --logdir first/tensorboard'
    """
    experiment, target = Path(experiment), parse_target(to)
    records = find_runs(experiment)
    runs = [*records.runs, *records.rivals]
    if not runs:
        raise InputError(f"{experiment} has no finished run yet; 'headscope run' continues it.")
    with busy(f"Writing to {TOOLS[target.tool]}"):
        try:
            with alone(experiment):
                tracker = open_tracker(target, experiment, thumbnails)
                written = {run.name: tracker.write(run) for run in runs}
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever another program's library raises)
            raise RunError(f"{TOOLS[target.tool]} could not write: {reason_of(error)}.") from None
    return Tracked(
        target.tool,
        tracker.place,
        tracker.look,
        tuple(name for name, new in written.items() if new),
        tuple(name for name, new in written.items() if not new),
        tuple(records.notes),
    )


class Followers:
    """The trackers of a grid that runs: they hear of epochs and of the ends of runs.

    One that fails is left with a warning, and the runs continue.
    """

    def __init__(self, targets: Iterable[str], experiment: Path) -> None:
        """Take targets as `parse_target` does; InputError where one is not installed."""
        self.experiment = experiment
        self.targets = [parse_target(text) for text in targets]
        self._trackers: dict[Target, Tracker] = {}
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}
        self._written_at = perf_counter()
        for target in self.targets:
            check_installed(target)

    def open(self) -> None:
        """Open the places, before anything is trained; InputError where one is something else."""
        self._let_all()

    def epoch(self, name: str, row: Mapping[str, Any]) -> None:
        """Show the row of the history of an epoch that has ended; fast ones some at a time."""
        if not self.targets:
            return
        self._waiting.setdefault(name, []).append(row)
        if perf_counter() - self._written_at >= EVERY_S:
            for waiting, rows in self._waiting.items():
                self._let_all("add_epochs", self._run(waiting), rows)
            self._waiting, self._written_at = {}, perf_counter()

    def ended(self, name: str, state: str) -> None:
        """Show a run that has ended: from its record, where it has finished."""
        self._waiting.pop(name, None)
        run = self._run(name)
        if state == "finished":
            self._let_all("write", run)
        elif state == "failed":
            self._let_all("fail", run)

    def write_all(self) -> None:
        """Show every run of the experiment that is whole, those of earlier starts too."""
        if self.targets:
            records = find_runs(self.experiment)
            for run in [*records.runs, *records.rivals]:
                self._let_all("write", run)

    def _run(self, name: str) -> Run:
        return Run(self.experiment / "runs" / name)

    def _let_all(self, act: str = "", *arguments: Any) -> None:
        """Open every tracker and let it act; the one that fails is named and acts no more."""
        for target in [*self.targets]:
            try:
                with alone(self.experiment):
                    if target not in self._trackers:
                        self._trackers[target] = open_tracker(target, self.experiment)
                    if act:
                        getattr(self._trackers[target], act)(*arguments)
            except Exception as error:
                if isinstance(error, InputError) and target not in self._trackers:
                    raise
                self.targets.remove(target)  # a tracker must not lose a run
                console.print(
                    f"{TOOLS[target.tool]} shows no more of these runs ({reason_of(error)}). They "
                    f"continue; 'headscope track {self.experiment} --to {target}' writes the rest.",
                    soft_wrap=True,
                )
