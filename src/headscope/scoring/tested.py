"""The rows of a table that are scored: those of the test, as units whose owners are subjects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.analysis.results.pooled import Pool, Test
from headscope.cohort.ids import id_twins
from headscope.cohort.tables import listed
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.metrics import Units, slice_units, strata, subject_level
from headscope.scoring.read import Predictions
from headscope.text import count

TEST: Final = {"test", "testing", "tests", "holdout", "heldout", "evaluation", "eval"}
OTHER: Final = {"train", "training", "val", "valid", "validation", "dev", "development", "tune"}
TIE: Final = 1e-9  # what probabilities weigh beside predicted classes: they decide ties alone
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Tested:
    """The N tested rows of a table.

    hard are units whose largest probability is the predicted class; soft those that rank and have
    probabilities: the same where both agree, None without. ids (S,) are the subjects that owners
    count; of rows without ids there is one, NO_ID. subset names what is tested; empty where all is.
    """

    name: str
    subset: str
    class_names: tuple[str, ...]
    positive: int
    hard: Units
    soft: Units | None
    rank_only: bool
    ids: Array
    notes: tuple[str, ...]

    @property
    def subjects(self) -> int:
        """S."""
        return len(self.ids)

    @property
    def named(self) -> bool:
        """Whether rows name their subjects."""
        return NO_ID not in self.ids

    def aggregate_of_hard(self, aggregate: str) -> str:
        """Return how predicted classes make a subject: by vote, where they are no probabilities."""
        return aggregate if self.soft is self.hard else "mean"

    def levels(self, aggregate: str, ranked: bool) -> Test:
        """Return slices and subjects as units: those that rank, or those of predicted classes."""
        slices = self.soft if ranked else self.hard
        assert slices is not None
        way = aggregate if ranked else self.aggregate_of_hard(aggregate)
        return Test(slices, subject_level(slices, way))

    def pool(self, aggregate: str, ranked: bool) -> Pool:
        """Return the test as one that draws of subjects can score."""
        test = self.levels(aggregate, ranked)
        labels = strata(self.hard.labels, self.hard.owner, self.subjects)
        return Pool(((test,),), self.ids, labels, 1.0)

    def in_order(self, class_names: tuple[str, ...]) -> "Tested":
        """Return the same with its classes in another order."""
        order = [self.class_names.index(text) for text in class_names]
        rank = np.argsort(order)

        def turn(units: Units) -> Units:
            return Units(rank[units.labels], units.log_probabilities[:, order], units.owner)

        hard = turn(self.hard)
        soft = hard if self.soft is self.hard else None if self.soft is None else turn(self.soft)
        positive = int(rank[self.positive])
        return replace(self, class_names=class_names, positive=positive, hard=hard, soft=soft)

    def only(self, ids: Array) -> "Tested":
        """Return the rows of some subjects; `ids` are sorted and among those of the test."""
        place = np.searchsorted(ids, self.ids)
        inside = np.isin(self.ids, ids)
        rows = inside[self.hard.owner]

        def cut(units: Units) -> Units:
            owner = place[units.owner[rows]]
            return Units(units.labels[rows], units.log_probabilities[rows], owner)

        hard = cut(self.hard)
        soft = hard if self.soft is self.hard else None if self.soft is None else cut(self.soft)
        return replace(self, hard=hard, soft=soft, ids=ids)


def test_rows(table: Predictions) -> Tested:
    """Return what is scored of a table: the rows of the test, or all where no subset is one."""
    rows, subset, notes = _tested(table)
    labels = table.labels[rows]
    ids, owner = _owners(table, rows, notes)
    soft = hard = None
    if table.logs is not None:
        soft = slice_units(labels, table.logs[rows], owner)
    if table.predicted is not None:
        hard = _hard(table, labels, table.predicted[rows], soft, owner, notes)
    if hard is None and soft is None:
        raise InputError(f"{table.name} has neither predicted classes nor probabilities.")
    return Tested(
        name=table.name,
        subset=subset,
        class_names=table.class_names,
        positive=table.positive,
        hard=hard or soft,  # type: ignore[arg-type]
        soft=soft,
        rank_only=table.rank_only,
        ids=ids,
        notes=tuple(notes),
    )


test_rows.__test__ = False  # type: ignore[attr-defined]


def _tested(table: Predictions) -> tuple[Array, str, list[str]]:
    """Return which rows (N,) are tested, by which subset, and what is to be said of it."""
    everything = np.ones(len(table.labels), dtype=bool)
    if table.subset is None:
        return everything, "", []
    values = [str(value) for value in table.subset.unique()]
    tests = [value for value in values if value.casefold() in TEST]
    if tests:
        return table.subset.isin(tests).to_numpy(), " and ".join(tests), []
    column = table.columns["subset"]
    if any(value.casefold() in OTHER for value in values):
        raise InputError(
            f"{table.name}: the column {column!r} names no test ({listed(values)}): call the rows "
            "to be scored 'test', or leave the others out."
        )
    note = f"The column {column!r} names no test ({listed(values)}): all rows are scored."
    return everything, "", [note]


def _owners(table: Predictions, rows: Array, notes: list[str]) -> tuple[Array, Array]:
    """Return the subjects' ids (S,), sorted, and the subject of each row as a number (n,)."""
    if table.subjects is not None:
        subjects = table.subjects[rows]
        if not (subjects == NO_ID).any():
            owner, ids = pd.factorize(subjects, sort=True)
            notes += id_twins(ids)
            return np.asarray(ids, dtype=str), owner.astype(np.int64)
    notes.append(
        "No column names the subject of a row: scores by row alone, without intervals, since rows "
        "of one subject are no independent tests (--subject COLUMN names it)."
    )
    return np.array([NO_ID]), np.zeros(int(rows.sum()), dtype=np.int64)


def _hard(
    table: Predictions,
    labels: Array,
    predicted: Array,
    soft: Units | None,
    owner: Array,
    notes: list[str],
) -> Units:
    """Return units of the predicted classes; the ranked ones themselves where they agree."""
    if soft is None:
        notes.append("Without probabilities there are no areas under curves and no calibration.")
        spread = np.full((len(labels), len(table.class_names)), np.log(TIE))
        spread[np.arange(len(labels)), predicted] = 0.0
        return slice_units(labels, spread, owner)
    differing = predicted != soft.predicted
    if not differing.any():
        return soft
    votes = np.full(soft.log_probabilities.shape, -np.inf)
    votes[np.arange(len(labels)), predicted] = 0.0
    notes.append(
        f"In {count(int(differing.sum()))} of {count(len(labels))} rows the predicted class is not "
        "that of the highest probability: shares are of predicted classes (of subjects "
        "by vote), areas and calibration of probabilities."
    )
    mixed = np.logaddexp(votes, np.log(TIE) + soft.log_probabilities)
    return slice_units(labels, mixed, owner)


def labels_by_subject(test: Tested) -> dict[str, Sequence[str]]:
    """Return the labels of each subject, by its id."""
    pairs = np.unique(np.column_stack([test.hard.owner, test.hard.labels]), axis=0)
    labels: dict[str, list[str]] = {}
    for owner, label in pairs.tolist():
        labels.setdefault(str(test.ids[owner]), []).append(test.class_names[label])
    return dict(labels)
