"""The ablation ladder: with how little of the brain a network reaches what it reaches on all of it.

A rung reaches the full accuracy where it beats the larger class and the interval of its difference
from whole slices, over the same subjects, is not below zero. Source: docs/science.md, section 15.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.results.comparisons import Difference, difference_of
from headscope.analysis.results.pooled import Pool, pool_sides
from headscope.analysis.results.settings import SettingResult, pooled_score, setting_results
from headscope.analysis.results.table import Score, recorded_score
from headscope.record import Run, find_runs, read_experiment
from headscope.record.ablation import Ablation, read_ablation, rung_folder, rung_picture
from headscope.tables import Cell, Column, Shown, Table
from headscope.text import interval, percent, signed_points

WHOLE = "whole"
TITLE = "as they are"
NOWHERE = Difference(nan, nan, nan, "", nan)
COLUMNS = (
    Column("Slices"),
    Column("Accuracy", "%", "percent", interval=True),
    Column("Minus whole slices", "points", "signed", interval=True),
    Column("Subject AUC", "", "fraction", interval=True),
    Column("Larger class", "%", "percent"),
)


@dataclass(frozen=True, eq=False)
class Rung:
    """One rung of a setting's ladder: what its heads reach, and how far that is from whole slices.

    accuracy is that of subjects, of slices where they name none; difference is the rung minus whole
    slices, over the same subjects, NaN without subjects.
    """

    name: str
    title: str
    accuracy: Score
    auc: Score
    difference: Difference
    majority: float

    @property
    def beats_majority(self) -> bool:
        """Whether the interval of its accuracy is above what the larger class alone gives."""
        ends = self.accuracy.interval
        return ends is not None and ends[0] > self.majority

    @property
    def level_with_whole(self) -> bool:
        """Whether it is not shown to be below whole slices."""
        if isnan(self.difference.high):
            return self.difference.value >= 0
        return self.difference.high >= 0


@dataclass(frozen=True, eq=False)
class SettingLadder:
    """The ladder of one network: rungs from whole slices to the least; `full` is its result."""

    full: SettingResult
    rungs: tuple[Rung, ...]

    @property
    def network(self) -> str:
        """The architecture and the name of its row."""
        return f"{self.full.architecture} ({self.full.name})"

    @property
    def speaker(self) -> str:
        """The network, with its split where that leaves slices of one subject on both sides."""
        return self.network if self.full.apart else f"{self.network}, {self.full.split} split,"

    @property
    def reached(self) -> Rung | None:
        """The rung that keeps least of those that reach the accuracy of whole slices."""
        whole, *rest = self.rungs
        if not whole.beats_majority:
            return None
        fitting = [rung for rung in rest if rung.beats_majority and rung.level_with_whole]
        return fitting[-1] if fitting else None

    def rows(self) -> list[list[object]]:
        """Return one row of COLUMNS per rung."""
        return [_row(self.full.key, rung) for rung in self.rungs]

    @property
    def sentence(self) -> str:
        """Say what the ladder shows, or why nothing can be said."""
        whole, *rest = self.rungs
        if self.full.nameless:
            return (
                f"Of {self.speaker} the rungs are shown without a verdict: the pictures name no "
                "subjects, over which they could be compared."
            )
        share = f"{percent(whole.majority)}%"
        if not whole.beats_majority:
            return (
                f"Nothing can be said of what {self.speaker} reads: on whole slices its accuracy, "
                f"{_accuracy(whole)}, is not shown to be above the larger class ({share})."
            )
        rung = self.reached
        if rung is not None:
            return (
                f"The rung ‘{rung.title}’ already reaches what {self.speaker} reaches on whole "
                f"slices, as far as {self.full.subjects} subjects tell: {_accuracy(rung)}, where "
                f"whole slices give {percent(whole.accuracy.value)}% (difference "
                f"{_points(rung.difference)}) and the larger class {share}."
            )
        nearest = max(rest, key=lambda rung: rung.accuracy.value, default=None)
        near = f"; ‘{nearest.title}’ comes nearest with {_accuracy(nearest)}" if nearest else ""
        return (
            f"No rung of the ladder reaches what {self.speaker} does on whole slices, "
            f"{_accuracy(whole)}{near}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Ladder(Shown):
    """The ablation ladder of an experiment, one `SettingLadder` per network and split.

    titles are those of the rungs by name, whole slices first; pictures (H, W) show one slice on
    each, where its pixels are there. notes say what was assumed and left out.
    """

    settings: tuple[SettingLadder, ...]
    titles: dict[str, str]
    notes: tuple[str, ...]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What each ladder shows."""
        return tuple(setting.sentence for setting in self.settings)

    def tables(self) -> Sequence[Table]:
        """Return the rungs of each setting."""
        return [
            Table(
                f"{setting.network}, {setting.full.split} split",
                COLUMNS,
                setting.rows(),
                [setting.sentence, *(self.notes if setting is self.settings[-1] else ())],
            )
            for setting in self.settings
        ]


def _row(setting: str, rung: Rung) -> list[object]:
    """Return a rung as a row of COLUMNS, whose cells say where they come from."""

    def cell(quantity: str, value: float, low: float = nan, high: float = nan) -> Cell:
        return Cell(value, low, high, run=f"{setting} {rung.name}", quantity=quantity)

    accuracy, auc = (
        cell(name, score.value, *(score.interval or ()))
        for name, score in (("accuracy", rung.accuracy), ("subject_auc", rung.auc))
    )
    gap: Cell | str = ""
    if rung.name != WHOLE and not isnan(rung.difference.value):
        ends = rung.difference.value, rung.difference.low, rung.difference.high
        gap = cell("difference", *(100 * end for end in ends))
    return [rung.title, accuracy, gap, auc, cell("majority", rung.majority)]


def _accuracy(rung: Rung) -> str:
    ends = rung.accuracy.interval
    text = f"{percent(rung.accuracy.value)}% of subjects"
    return f"{text} (95% {interval(*map(percent, ends))})" if ends else text


def _points(difference: Difference) -> str:
    text = f"{signed_points(100 * difference.value)} points"
    if isnan(difference.low):
        return text
    ends = (signed_points(100 * end) for end in (difference.low, difference.high))
    return f"{text}, 95% {' to '.join(ends)}"


def read_ladder(experiment: Path | str) -> Ladder | None:
    """Read the ablation ladder of an experiment from its runs; None where there is none."""
    folder = Path(experiment)
    ablation = read_ablation(folder)
    if ablation is None:
        return None
    by_rung = {name: _runs_of(folder, name) for name in ablation.rungs}
    names = {run.name for runs in by_rung.values() for run in runs}
    whole = [run for run in read_experiment(folder) if run.name in names]
    if not whole:
        return None
    settings = tuple(
        SettingLadder(full, tuple(_rungs(full, by_rung, ablation)))
        for full in setting_results(whole)
    )
    titles = {WHOLE: TITLE, **ablation.rungs}
    folders = {WHOLE: folder} | {name: rung_folder(folder, name) for name in ablation.rungs}
    pictures = {name: rung_picture(place, ablation.example) for name, place in folders.items()}
    return Ladder(
        settings,
        titles,
        (*ablation.notes, *ablation.omitted.values()),
        {name: picture for name, picture in pictures.items() if picture is not None},
    )


def _runs_of(experiment: Path, rung: str) -> list[Run]:
    """Return the finished runs of a rung that are whole."""
    folder = rung_folder(experiment, rung)
    return find_runs(folder).runs if (folder / "runs").is_dir() else []


def _rungs(full: SettingResult, by_rung: dict[str, list[Run]], ablation: Ablation) -> list[Rung]:
    """Return the rungs of a setting: whole slices, and those of which all of its runs are there."""
    level = "slice" if full.nameless else "subject"
    share = getattr(full.majority, f"{level}_share")
    whole = full.scores[f"{level}_accuracy"], full.scores["subject_auc"]
    rungs = [Rung(WHOLE, TITLE, *whole, NOWHERE, share)]
    wanted = {run.name for run in full.runs}
    for name, title in ablation.rungs.items():
        runs = [run for run in by_rung[name] if run.name in wanted]
        if len(runs) == len(wanted):
            pools = pool_sides([runs, full.runs])
            accuracy = _score(runs, pools[0], f"{level}_accuracy")
            auc = _score(runs, pools[0], "subject_auc")
            rungs.append(Rung(name, title, accuracy, auc, _difference(pools), share))
    return rungs


def _score(runs: Sequence[Run], pool: Pool, name: str) -> Score:
    """Return a score of the test, as the table of results has it."""
    if len(runs) == 1:
        return recorded_score(runs[0], name)
    return pooled_score(pool, name, runs[0].class_names)


def _difference(pools: Sequence[Pool]) -> Difference:
    """Return the subject accuracy of the first less that of the second, by the same draws."""
    if not pools[0].named:
        return NOWHERE
    first, second = (pool.draw("subject_accuracy") for pool in pools)
    return difference_of(first - second, "subject_accuracy", pools[0].ratio)
