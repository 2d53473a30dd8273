"""`open_experiment`: an experiment that shows itself, at a prompt and in a notebook."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from html import escape
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from headscope.analysis import setting_results
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.results.table import short_table
from headscope.audit_record import read_audit
from headscope.errors import InputError
from headscope.record import Records, Run, find_runs, read_failures
from headscope.reporting.stored import read_report
from headscope.tables import Shown, Table

FILES: Final = ("table.tsv", "runs.tsv", "audit.json", "evaluations.tsv", "paper")
STALE: Final = "No report shows these runs yet; hs.report({!r}) writes it."
OLDER: Final = (
    "The report is older than what is here now (runs, an ablation, an evaluation, or headscope "
    "itself); hs.report({!r}) writes it again."
)


@dataclass(frozen=True, eq=False, repr=False)
class Experiment(Shown):
    """An experiment: its runs by name, its table, and the headline of its report.

    Attributes
    ----------
    path
        Its folder.
    records
        Which runs are whole, and which are left out and why.
    failures
        Which runs failed at the latest start, and why.
    unfinished
        Names of the runs that were begun and have not ended.
    """

    WIDE: ClassVar[int] = 140

    path: Path
    records: Records
    failures: Mapping[str, str]
    unfinished: Sequence[str]

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The finished networks by name, and then what is no network."""
        return {run.name: run for run in [*self.records.runs, *self.records.rivals]}

    def __getitem__(self, name: str) -> Run:
        """Return a run by its name; InputError names the close ones."""
        if name not in self.runs:
            close = get_close_matches(str(name), self.runs, n=3) or [*self.runs]
            names = ", ".join(close[:9]) + (f" and {len(close) - 9} more" if close[9:] else "")
            raise InputError(f"{self.path} has no finished run {name!r}: choose {names}.")
        return self.runs[name]

    def __len__(self) -> int:
        """Return how many runs have finished."""
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        """Yield the finished runs, by name."""
        return iter(self.runs.values())

    @cached_property
    def table(self) -> Table:
        """The results, one row per setting."""
        if not self.runs:
            return Table("", ("Network", "Regime", "Split"), [])
        results, _ = marked_tables(setting_results(self.runs.values()), read_audit(self.path))
        return short_table(results)

    @cached_property
    def headline(self) -> str:
        """The sentence at the top of the report; empty where no report shows these runs."""
        return str(self._report.get("headline", ""))

    @cached_property
    def notes(self) -> list[str]:
        """What else there is to know: runs that failed, are left out or have not ended."""
        notes = [f"{name} failed: {reason}" for name, reason in self.failures.items()]
        notes += self.records.notes
        if self.unfinished:
            notes.append(
                f"Not finished: {', '.join(self.unfinished)}; 'headscope run' continues them."
            )
        if self.runs and not self.headline:
            written = (self.path / "report.html").is_file()
            notes.append((OLDER if written else STALE).format(str(self.path)))
        return notes

    @cached_property
    def _report(self) -> Mapping[str, object]:
        return read_report(self.path)

    def tables(self) -> list[Table]:
        """Return the results, and the runs by name."""
        rows = [
            (name, "simple rival" if run.is_rival else run.epochs)
            for name, run in self.runs.items()
        ]
        title = self.headline or f"{self.path}: {len(rows)} finished runs"
        table = self.table
        first = Table(title, table.columns, table.rows, [*table.notes, *self.notes])
        return [first, Table("Runs", ("Name", "Epochs"), rows)] if rows else [first]

    def _repr_html_(self) -> str:
        """Return tables, then links to the report's chapters and to files."""
        links = []
        if self.headline:
            page = self.path / "report.html"
            links.append(_link(page, "report.html"))
            chapters = self._report.get("chapters")
            names = chapters if isinstance(chapters, Mapping) else {}
            links += [_link(page, str(title), f"#{slug}") for slug, title in names.items()]
        links += [_link(self.path / name, name) for name in FILES if (self.path / name).exists()]
        return f"{super()._repr_html_()}\n<p>{' · '.join(links)}</p>"


def _link(path: Path, text: str, anchor: str = "") -> str:
    """Return a link to a file, relative to the working directory, as a notebook's are."""
    address = quote(Path(os.path.relpath(path)).as_posix()) + anchor
    return f'<a href="{escape(address)}" target="_blank">{escape(text)}</a>'


def open_experiment(experiment: Path | str) -> Experiment:
    """Open an experiment, which shows itself: headline, table, runs by name, links.

    It may be half finished: what has not ended, failed or is left out is named. Nothing is written.

    Parameters
    ----------
    experiment
        Its folder.

    Raises
    ------
    InputError
        The folder does not exist or is no experiment.

    Examples
    --------
    >>> experiment = hs.open("first")
    >>> [run.setting.split for run in experiment]
    ['slice', 'subject']
    >>> experiment.table.headings[:3]
    ['Network', 'Regime', 'Split']
    """
    path = Path(experiment)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    records = find_runs(path)
    ended = {run.name for run in records.all} | records.left_out.keys()
    begun = sorted(run.parent.name for run in (path / "runs").glob("*/run.toml"))
    return Experiment(
        path,
        records,
        read_failures(path),
        [name for name in begun if name not in ended],
    )
