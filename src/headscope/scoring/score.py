"""`score`: predictions of any origin → scores by slice and by subject, and what they are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.analysis.results.calibration import Reliability, reliability
from headscope.analysis.results.chance import CHANCE, AgainstChance, Standing, against_chance
from headscope.analysis.results.comparisons import Comparisons
from headscope.errors import InputError
from headscope.files import encode_nan
from headscope.metrics import AGGREGATES, SCORES, Units, deal_subjects, subject_level, unit_scores
from headscope.scoring.compare import compare_tests
from headscope.scoring.read import Columns, Predictions, read_predictions
from headscope.scoring.tested import Tested, test_rows
from headscope.tables import Cell, Column, Shown, Table
from headscope.text import count, p_value
from headscope.threads import one_blas_thread

NEED_PROBABILITIES: Final = ("auc", "average_precision", "brier", "ece")
MOST_PERMUTED: Final = 1_000  # subjects; more are drawn in groups, and the interval decides
MOST_SUBSETS: Final = 50
NONE: Final = {"value": None, "low": None, "high": None}
LEVELS: Final = ("slice", "subject")
STANDINGS: Final = {
    "above": "Subjects are ranked better than chance",
    "below": "Subjects are ranked worse than chance",
    "no better": "Subjects are ranked no better than chance",
    "unknown": "Subjects are too few to tell their ranking from chance",
}


@dataclass(frozen=True)
class Overlap:
    """Subjects that two subsets share, of those of the first."""

    first: str
    second: str
    shared: int
    subjects: int


@dataclass(frozen=True, eq=False, repr=False)
class PredictionScores(Shown):
    """What one table of predictions comes to.

    Attributes
    ----------
    name
        The file.
    columns
        Which column was read as what.
    class_names, positive_class
        Its classes; of two, the one of which sensitivity is the recall.
    tested
        The subset that is scored; empty where all rows are.
    metrics
        Scores and intervals as `metrics.json` holds those of a subset (docs/record.md).
    slice_majority, subject_majority
        The shares of the largest class.
    chance
        Whether its subjects are ranked better than chance; None without subjects or ranks.
    reliability
        Confidence against correctness of its rows; None without probabilities.
    overlaps
        Subjects that subsets share.
    notes
        What was assumed, left out, or cannot be told.
    """

    name: str
    columns: Mapping[str, str]
    class_names: tuple[str, ...]
    positive_class: str | None
    tested: str
    metrics: Mapping[str, Any]
    slice_majority: float
    subject_majority: float
    chance: AgainstChance | None
    reliability: Reliability | None
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...]

    def tables(self) -> Sequence[Table]:
        """Return the scores of slices and subjects, what subsets share, and the notes."""
        rows = [
            [SCORES[name], *(_cell(self.metrics[f"{level}_{name}"]) for level in LEVELS)]
            for name in SCORES
            if any(self.metrics[f"{level}_{name}"]["value"] is not None for level in LEVELS)
        ]
        shares = (self.slice_majority, self.subject_majority)
        rows.append(["share of the largest class", *shares])
        if self.reliability is not None:
            rows.append(["negative log-likelihood", self.reliability.nll, ""])
        counted = f"{count(self.metrics['slices'])} rows"
        if self.metrics["subjects"]:
            counted += f" of {count(self.metrics['subjects'])} subjects"
        title = f"{self.name}: {self.tested or 'all rows'}, {counted}"
        columns: list[Column | str] = [
            "",
            *(Column(f"by {level}", format="fraction", interval=True) for level in LEVELS),
        ]
        read = "; ".join(f"{part} from {column}" for part, column in self.columns.items())
        tables = [Table(title, columns, rows, [f"Read: {read}.", *self.sentences, *self.notes])]
        if self.overlaps:
            shared = [(o.first, o.second, o.shared, o.subjects) for o in self.overlaps]
            heads = ("subset", "and", "subjects in both", "of")
            tables.append(Table("Subjects that subsets share", heads, shared))
        return tables

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say whether it beats chance, and what subsets share."""
        sentences = []
        if self.chance is not None and not isnan(self.chance.value):
            p = "" if isnan(self.chance.p) else f" ({p_value(self.chance.p)}, labels permuted)"
            sentences.append(f"{STANDINGS[self.chance.standing]}{p}.")
        sentences += [
            f"{overlap.shared} of {overlap.subjects} subjects of {overlap.first} are in "
            f"{overlap.second} too: scores do not speak of new subjects."
            for overlap in self.overlaps
            if overlap.shared and overlap.first == self.tested
        ]
        return tuple(sentences)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("chance", "reliability"):
            values[name] = None if values[name] is None else asdict(values[name])
        values["overlaps"] = [asdict(overlap) for overlap in self.overlaps]
        return dict(encode_nan(values))


@dataclass(frozen=True, eq=False, repr=False)
class Scoring(Shown):
    """Scores of one table of predictions or several, and of two their comparison."""

    files: tuple[PredictionScores, ...]
    comparison: Comparisons | None = None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The scores of the first table."""
        return self.files[0].metrics

    def tables(self) -> Sequence[Table]:
        """Return the tables of each file, and that of the comparison."""
        tables = [table for scored in self.files for table in scored.tables()]
        return [*tables, *(self.comparison.tables() if self.comparison else ())]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        compared = None
        if self.comparison is not None:
            (row,), notes = self.comparison.rows, self.comparison.notes
            compared = encode_nan(asdict(row)) | {"notes": list(notes)}
        return {"files": [scored.as_dict() for scored in self.files], "comparison": compared}


@one_blas_thread
def score(
    predictions: pd.DataFrame | Path | str,
    other: pd.DataFrame | Path | str | None = None,
    *,
    subject: str | None = None,
    session: str | None = None,
    label: str | None = None,
    subset: str | None = None,
    predicted: str | None = None,
    probability: str | Sequence[str] | None = None,
    positive: str | None = None,
    aggregate: str = "mean",
) -> Scoring:
    """Score predictions of any origin: a row per slice, scan or subject, of whatever program.

    Where a column names subsets, the rows of the test alone are scored. Source: docs/score.md.

    Parameters
    ----------
    predictions
        A CSV or TSV (comma, semicolon, tab; decimal commas; UTF-8, UTF-16), or a data frame.
    other
        Another prediction of the same subjects, which is compared with the first.
    subject, session, label, subset, predicted
        Names of columns; by default those with usual names (subject_id, y_true, split, y_pred …).
    probability
        A column of the positive class's probability or score, or one column per class, each as
        COLUMN or CLASS=COLUMN; by default probability_<class>, prob, y_score and the like.
    positive
        The class of which sensitivity is the recall.
    aggregate
        How rows make a subject: "mean", "logits" or "vote", as of `Config`.

    Returns
    -------
    Scoring
        One `PredictionScores` per table and, of two tables, their comparison.

    Raises
    ------
    InputError
        A column is missing, ambiguous, or holds what it should not: one sentence.

    Examples
    --------
    >>> run = hs.read_experiment("first")[1]
    >>> scoring = hs.score(run.path / "predictions.tsv")
    >>> scoring.metrics == {name: run.metrics["test"][name] for name in scoring.metrics}
    True
    """
    if aggregate not in AGGREGATES:
        raise InputError(f"Unknown aggregate {aggregate!r}: choose {', '.join(AGGREGATES)}.")
    named = Columns(subject, session, label, subset, predicted, probability, positive)
    sources = [predictions] if other is None else [predictions, other]
    read = [read_predictions(source, named) for source in sources]
    tests = [test_rows(table) for table in read]
    files = [_score(*pair, aggregate) for pair in zip(read, tests, strict=True)]
    comparison = compare_tests(tests[0], tests[1], aggregate) if len(tests) == 2 else None
    return Scoring(tuple(files), comparison)


def _score(table: Predictions, test: Tested, aggregate: str) -> PredictionScores:
    """Score the tested rows of a table."""
    metrics = _metrics(test, aggregate)
    hard = subject_level(test.hard, test.aggregate_of_hard(aggregate))
    soft = test.soft
    return PredictionScores(
        name=table.name,
        columns=table.columns,
        class_names=table.class_names,
        positive_class=metrics["positive_class"],
        tested=test.subset,
        metrics=metrics,
        slice_majority=_largest(test.hard),
        subject_majority=_largest(hard) if test.named else nan,
        chance=_chance(test, metrics, aggregate) if soft is not None and test.named else None,
        reliability=_reliability(test) if soft is not None and not test.rank_only else None,
        overlaps=_overlaps(table, test),
        notes=(*table.notes, *test.notes, *_label_notes(metrics), *_tie_notes(test, hard)),
    )


def _metrics(test: Tested, aggregate: str) -> dict[str, Any]:
    """Return the scores: of predicted classes where a column has them, ranks of probabilities."""
    facts: dict[str, Any] = {"positive": test.positive}
    shape = test.subjects, test.class_names, test.named
    way = test.aggregate_of_hard(aggregate)
    metrics = unit_scores(test.hard, *shape, aggregate=way, **facts)
    if test.soft is test.hard and not test.rank_only:
        return metrics
    ranked = None if test.soft is None else metrics
    if test.soft is not None and test.soft is not test.hard:
        ranked = unit_scores(test.soft, *shape, aggregate=aggregate, **facts)
    for level in LEVELS:
        for name in NEED_PROBABILITIES:
            lost = ranked is None or (test.rank_only and name in ("brier", "ece"))
            metrics[f"{level}_{name}"] = NONE if lost else ranked[f"{level}_{name}"]  # type: ignore[index]
        for text, values in metrics.get(f"{level}_per_class", {}).items():
            for name in set(NEED_PROBABILITIES) & values.keys():
                values[name] = NONE if ranked is None else ranked[f"{level}_per_class"][text][name]
    return metrics


def _chance(test: Tested, metrics: Mapping[str, Any], aggregate: str) -> AgainstChance:
    """Test the subject AUC against chance; of very many subjects by its interval."""
    auc = metrics["subject_auc"]
    value, low, high = (nan if auc[end] is None else auc[end] for end in ("value", "low", "high"))
    if test.subjects <= MOST_PERMUTED:
        return against_chance(test.pool(aggregate, ranked=True), low, high)
    standing: Standing = "unknown"
    if not isnan(low):
        standing = "above" if low > CHANCE else "below" if high < CHANCE else "no better"
    return AgainstChance(standing, value, low, high, nan, test.subjects, len(test.class_names))


def _reliability(test: Tested) -> Reliability:
    assert test.soft is not None
    owner = None
    if test.named:
        dealt, _ = deal_subjects(test.soft.labels, test.soft.owner, test.subjects)
        owner = dealt[test.soft.owner]
    return reliability(test.soft.log_probabilities, test.soft.labels, owner=owner)


def _largest(units: Units) -> float:
    return float(np.bincount(units.labels).max() / len(units.labels))


def _label_notes(metrics: Mapping[str, Any]) -> list[str]:
    """Say that some subjects have several labels, where they have."""
    subjects, labels = metrics["subjects"], metrics["subject_labels"]
    if labels <= subjects:
        return []
    return [
        f"Some subjects have several labels: {count(subjects)} subjects have {count(labels)}, and "
        "each label counts by itself in what is by subject."
    ]


def _tie_notes(test: Tested, subjects: Units) -> list[str]:
    """Say how many subjects' rows are split evenly between classes, where votes alone decide."""
    if test.soft is not None or not test.named:
        return []
    top = np.sort(subjects.log_probabilities, axis=1)
    tied = int((top[:, -1] - top[:, -2] < 1e-6).sum())
    if not tied:
        return []
    return [
        f"{count(tied)} of {count(len(top))} subjects have as many rows for one class as for "
        "another: the first of the classes counts."
    ]


def _overlaps(table: Predictions, test: Tested) -> tuple[Overlap, ...]:
    """Count the subjects that subsets share; of folds those pairs that share some."""
    if table.subset is None or table.subjects is None:
        return ()
    codes, ids = pd.factorize(table.subjects)
    places, names = pd.factorize(table.subset)
    if len(names) > MOST_SUBSETS:
        return ()
    held = np.zeros((len(ids), len(names)))
    held[codes, places] = 1
    shared = (held.T @ held).astype(np.int64)
    order = sorted(range(len(names)), key=lambda k: (names[k] != test.subset, k))
    return tuple(
        Overlap(str(names[a]), str(names[b]), int(shared[a, b]), int(shared[a, a]))
        for a, b in combinations(order, 2)
        if shared[a, b] or test.subset in (names[a], names[b])
    )


def _cell(value: Mapping[str, float | None]) -> Cell:
    low, high = value["low"], value["high"]
    if low is None:
        low, high = value.get("wilson_low"), value.get("wilson_high")
    return Cell(nan if value["value"] is None else value["value"], low, high)
