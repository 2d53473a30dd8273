"""All that is on record of an experiment, read once; what is missing is empty, never guessed."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pandas as pd

from headscope.analysis import setting_results, settings_table
from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.markers import mark_table
from headscope.analysis.results.pooled import pool_runs
from headscope.analysis.results.settings import SettingResult, choose_apart
from headscope.audit_record import Audit, read_audit
from headscope.files import read_table
from headscope.manifest import DAMAGE
from headscope.record import Run, Setting, read_experiment, read_failures

UNKNOWN: Final = "Not on record: an earlier version took the slices."


@dataclass(frozen=True)
class Study:
    """An experiment as its record tells it.

    results are of networks, rivals of what is none. slices are the settings of its slices
    (`slices.json`), problems the scans that could not be used, participants age and sex of each
    session, environment the versions, settings those of `experiment.toml`: each empty where its
    file is not there or, but for tables, cannot be read.
    """

    folder: Path
    results: tuple[SettingResult, ...]
    audit: Audit | None
    failures: Mapping[str, str]
    slices: Mapping[str, Any]
    problems: pd.DataFrame
    participants: pd.DataFrame
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    rivals: tuple[SettingResult, ...] = ()

    @property
    def name(self) -> str:
        """The name of the experiment's folder."""
        return self.folder.resolve().name

    @cached_property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of the table."""
        return [run for result in self.results for run in result.runs]

    @property
    def everything(self) -> tuple[SettingResult, ...]:
        """Networks, then simple rivals."""
        return *self.results, *self.rivals

    @cached_property
    def table(self) -> pd.DataFrame:
        """`table.tsv`: one row per setting."""
        by_key = {result.key: result.runs for result in self.everything}
        return mark_table(settings_table(self.everything), by_key, self.audit)

    @cached_property
    def chosen(self) -> tuple[SettingResult, str]:
        """The setting that validation chooses, as on the page, and by which score among several.

        Of those that keep subjects apart, where there are any, and of one split.
        """
        apart = [result for result in self.results if result.apart]
        result, by, candidates = choose_apart(apart or self.results)
        return result, by if candidates > 1 else ""

    @cached_property
    def leakage(self) -> Leakage:
        """The leakage analysis, as `leakage.json` keeps it."""
        return stored_leakage(self.folder)

    @property
    def tests(self) -> tuple[list[str], list[str]]:
        """By which tests settings are compared, in accuracy and in area, as `compare_runs` chooses.

        Two settings are compared, a simple rival with networks only, where both were trained under
        the same split, seed and fold; both lists are empty where no two were.
        """

        def split_of(result: SettingResult) -> tuple[str, str | None]:
            return result.split, result.runs[0].setting.subjects

        tested = {  # pairs that share split, seeds and folds were tested on the same subjects
            (split_of(one), one.fits & other.fits): one
            for one, other in combinations(self.everything, 2)  # networks come first
            if not one.is_rival and split_of(one) == split_of(other) and one.fits & other.fits
        }
        accuracies, areas = set(), set()
        for (_, shared), result in tested.items():
            pool = pool_runs([run for run in result.runs if run.setting.fit in shared])
            accuracies.add("mcnemar" if pool.once_each else "bootstrap")
            areas.add("delong" if pool.ranked_once else "bootstrap")
        return sorted(accuracies, reverse=True), sorted(areas, reverse=True)

    @cached_property
    def splits(self) -> dict[Setting, Run]:
        """The first run of each split: its kind, seed and fold, subjects apart first."""
        first: dict[tuple[Any, ...], Run] = {}
        for run in sorted(self.runs, key=lambda run: run.setting.split != "subject"):
            setting = run.setting
            first.setdefault((setting.split, *setting.fit), run)
        return {run.setting: run for run in first.values()}

    @property
    def main(self) -> Run:
        """A run of the split that is described: by subject, where there is one."""
        return next(iter(self.splits.values()))

    @property
    def named(self) -> bool:
        """Whether every slice has a subject id."""
        return self.main.named

    @property
    def simulated(self) -> bool:
        """Whether the scans were made by a computer."""
        return any(run.settings.get("simulated") for run in self.runs)

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return self.main.class_names

    @property
    def versions(self) -> dict[str, str]:
        """Versions and machine as flat text, packages last."""
        machine = {name: value for name, value in self.environment.items() if name != "packages"}
        packages = self.environment.get("packages") or {}
        return {name: str(value) for name, value in (machine | packages).items()}

    @property
    def left_out(self) -> list[str]:
        """What the slices say of what was left out before them, and why."""
        if self.slices and "left_out" not in self.slices:
            return [UNKNOWN]
        return [str(note) for note in self.slices.get("left_out") or []]

    @property
    def classes_by(self) -> list[str]:
        """What the slices say of where the classes come from."""
        return [str(note) for note in self.slices.get("classes_by") or []]

    def values(self, key: str) -> list[Any]:
        """Return the values that a setting has over the runs, in order, where they have it."""
        values = [run.settings[key] for run in self.runs if key in run.settings]
        return list(dict.fromkeys(tuple(v) if isinstance(v, list) else v for v in values))


def read_study(experiment: Path | str, results: Sequence[SettingResult] | None = None) -> Study:
    """Read an experiment's record; `results` are those of its settings, where they are at hand.

    Raises
    ------
    InputError
        The folder is no experiment, or holds no finished run.
    """
    folder = Path(experiment)
    results = results or setting_results(read_experiment(folder, rivals=True))
    return Study(
        folder=folder,
        results=tuple(result for result in results if not result.is_rival),
        rivals=tuple(result for result in results if result.is_rival),
        audit=read_audit(folder),
        failures=read_failures(folder),
        slices=_parse(folder / "slices" / "slices.json", json.loads),
        problems=_table(folder / "slices" / "problems.tsv", ["path", "reason"]),
        participants=_table(folder / "participants.tsv", ["subject_id", "session_id"]),
        environment=_parse(folder / "environment.json", json.loads),
        settings=_parse(folder / "experiment.toml", tomllib.loads),
    )


def count_classes(run: Run, rows: pd.DataFrame) -> dict[str, int]:
    """Return how many subjects of each class some rows hold, or slices where they name none."""
    groups = rows.groupby("label")["subject_id"]
    counts = groups.nunique() if run.named else groups.size()
    return {name: int(counts.get(name, 0)) for name in run.class_names}


def _parse(path: Path, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    try:
        return dict(parse(path.read_text(encoding="utf-8")))
    except DAMAGE:  # or not there
        return {}


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    return read_table(path) if path.is_file() else pd.DataFrame(columns=columns)
