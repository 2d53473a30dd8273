"""The runs of an experiment: which are whole, which are left out, and which failed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from headscope.console import console
from headscope.errors import InputError
from headscope.files import read_table, write_table
from headscope.manifest import DAMAGE, NAME, reason_of
from headscope.record.run import Run
from headscope.record.whole import run_problem


@dataclass(frozen=True)
class Records:
    """The finished runs of an experiment, by name.

    runs are whole networks on the true labels, permuted whole ones on permuted labels, rivals what
    is no network; left_out says of each other run why nothing is drawn from it. unchecked names
    those of an earlier version, which have no manifest.
    """

    runs: list[Run]
    permuted: list[Run]
    left_out: dict[str, str]
    unchecked: list[str]
    rivals: list[Run] = field(default_factory=list)

    @property
    def all(self) -> list[Run]:
        """Every run that is whole."""
        return [*self.runs, *self.rivals, *self.permuted]

    @property
    def notes(self) -> list[str]:
        """Sentences on the runs that are left out, and on those that cannot be checked."""
        left_out = [f"{name} is left out: {reason}." for name, reason in self.left_out.items()]
        return [*left_out, *self.unchecked_notes]

    @property
    def unchecked_notes(self) -> list[str]:
        """A sentence on the runs that cannot be checked, where there are any."""
        if not self.unchecked:
            return []
        were = "it was" if len(self.unchecked) == 1 else "they were"
        return [
            f"No manifest: {', '.join(self.unchecked)} cannot be checked, as {were} written by an "
            "earlier version."
        ]


def write_failures(experiment: Path, failures: Mapping[str, str]) -> None:
    """Write `failures.tsv`, the runs of the latest start that failed and why; none: no file."""
    path = experiment / "failures.tsv"
    if failures:
        write_table(path, pd.DataFrame(failures.items(), columns=["run", "reason"]))
    else:
        path.unlink(missing_ok=True)


def read_failures(experiment: Path) -> dict[str, str]:
    """Return which runs failed at the latest start, and why."""
    path = experiment / "failures.tsv"
    if not path.is_file():
        return {}
    try:
        table = read_table(path)
        return dict(zip(table["run"].astype(str), table["reason"].astype(str), strict=True))
    except DAMAGE as error:
        raise InputError(f"{path} is damaged ({reason_of(error)}): delete it.") from None


def find_runs(experiment: Path | str) -> Records:
    """Return the runs of an experiment, those apart whose record has changed since.

    Raises
    ------
    InputError
        The folder does not exist or is no experiment.
    """
    folder = Path(experiment) / "runs"
    if not folder.is_dir():
        raise InputError(f"{experiment} is no experiment: it has no folder 'runs'.")
    slices = _slices_hash(folder.parent)
    records = Records([], [], {}, [])
    for run in map(Run, sorted(folder.iterdir())):
        if not run.finished:
            if (run.path / NAME).is_file() and not (run.path / "checkpoint").exists():
                records.left_out[run.name] = "metrics.json is missing"
            continue
        problem = run_problem(run) or _stranger(run, slices)
        if problem:
            records.left_out[run.name] = problem
            continue
        kind = records.rivals if run.is_rival else records.runs
        (records.permuted if "permutation" in run.settings else kind).append(run)
        if not (run.path / NAME).is_file():
            records.unchecked.append(run.name)
    return records


def read_experiment(
    experiment: Path | str, *, permuted: bool = False, rivals: bool = False
) -> list[Run]:
    """Return the finished networks of an experiment, by name.

    A run whose record has changed since it was written is left out, and said on stderr.

    permuted: those trained on permuted labels (`settings["permutation"]` numbers them, from 1)
    in place of those on the true ones. rivals: what is no network too (`Run.is_rival`), last.

    Raises
    ------
    InputError
        The folder does not exist or holds no such finished run.

    Examples
    --------
    >>> [run.setting.split for run in hs.read_experiment("first")]
    ['slice', 'subject']
    """
    records = find_runs(experiment)
    for note in records.notes:
        _say_once(str(experiment), note)
    runs = records.permuted if permuted else records.runs
    if runs:
        return [*runs, *(records.rivals if rivals else [])]
    kind = " on permuted labels" if permuted else ""
    if records.left_out and not permuted:
        raise InputError(f"{experiment} has no run that is whole: {' '.join(records.notes)}")
    raise InputError(f"{experiment} has no finished run{kind} yet; 'headscope run' continues it.")


@cache
def _say_once(experiment: str, note: str) -> None:
    """Print a note, once for all readers of an experiment."""
    console.print(note, soft_wrap=True)


def _slices_hash(experiment: Path) -> str | None:
    """Return the hash of an experiment's slices, if they are still there."""
    try:
        stored = json.loads((experiment / "slices" / "slices.json").read_text(encoding="utf-8"))
        return str(stored["sha256"])
    except DAMAGE:
        return None


def _stranger(run: Run, slices: str | None) -> str:
    """Say why a run is not of this experiment or not of this name; nothing where it is."""
    name, trained_on = run.settings.get("name", run.name), run.settings.get("slices_sha256")
    if name != run.name:
        return f"it is the record of {name}"
    if slices and trained_on and slices != trained_on:
        return "it was trained on other slices than those of this experiment"
    return ""
