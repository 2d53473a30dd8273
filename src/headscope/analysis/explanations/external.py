"""What settings reach on cohorts from elsewhere, as values and as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, Final

import pandas as pd

from headscope.analysis.results.settings import SettingResult
from headscope.files import encode_nan, write_table
from headscope.record.evaluation import Overlap
from headscope.tables import Cell, Column, Shown, Table

TABLE: Final = "evaluations.tsv"


@dataclass(frozen=True)
class External:
    """A score on a cohort from elsewhere, and by how much it is below that of the own test.

    low, high and drop_low, drop_high are 95% intervals over subjects; NaN where undefined.
    """

    value: float
    low: float
    high: float
    inside: float
    drop: float
    drop_low: float
    drop_high: float


@dataclass(frozen=True)
class Recalibration:
    """Whether a class's probabilities are right there, over subjects (`recalibrate`).

    large is 0 and slope 1 where they are; expected is the mean probability, observed the share of
    subjects of the class.
    """

    class_name: str
    large: float
    large_low: float
    large_high: float
    slope: float
    slope_low: float
    slope_high: float
    expected: float
    observed: float


@dataclass(frozen=True, eq=False)
class CohortRow:
    """What one setting reaches on a cohort from elsewhere.

    Attributes
    ----------
    inside
        The setting and what it reached on its own test, of the runs that were evaluated.
    scores
        By name of `TESTED`.
    calibration
        Of the positive class of two, or of each class.
    prevalence
        The share of subjects of each class: in the own test and there.
    subjects, slices
        How many were scored there.
    farther
        Subjects there that are farther from the training scans than any training subject, on
        average over the runs; NaN where none could be judged.
    known_heads
        Subjects there whose head trained one of the runs, or was in its validation.
    """

    inside: SettingResult
    scores: Mapping[str, External]
    calibration: tuple[Recalibration, ...]
    prevalence: Mapping[str, tuple[float, float]]
    subjects: int
    slices: int
    farther: float
    known_heads: int

    @property
    def key(self) -> str:
        """The name of its only run, or of the setting."""
        return self.inside.key


@dataclass(frozen=True, eq=False, repr=False)
class CohortResult(Shown):
    """What an experiment's settings reach on a cohort from elsewhere.

    Attributes
    ----------
    name
        Of the evaluation.
    path
        Its folder.
    rows
        One per setting, in the order of the table of results.
    overlap
        Heads and ids that are in both cohorts.
    notes
        What must be known to read it.
    doubts
        Those of the notes that say that the cohort's classes may be swapped.
    """

    name: str
    path: Path
    rows: tuple[CohortRow, ...]
    overlap: Overlap
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "name": self.name,
            "settings": [encode_nan(_plain(self.name, row)) for row in self.rows],
            "heads_in_both": len(self.overlap.heads),
            "subjects_in_both": self.overlap.new_subjects,
            "same_ids": list(self.overlap.same_ids),
            "notes": list(self.notes),
        }

    def tables(self) -> Sequence[Table]:
        """Return the scores of each setting there, with the drop and the calibration."""
        (table,) = short_cohorts(cohorts_table([self]))
        return [Table(table.title, table.columns, table.rows, self.notes)]


def short_cohorts(frame: pd.DataFrame) -> list[Table]:
    """Return `evaluations.tsv` for a terminal: one table per cohort, what fits in its width."""
    tables = []
    for name, part in frame.groupby("evaluation", sort=False):
        rows = [_short(row) for row in part.to_dict("records")]
        first = part.iloc[0]
        subjects = f"{first['subjects']} subjects, " if first["subjects"] else "no subject ids, "
        title = f"{name}: {subjects}{first['slices']} slices from elsewhere"
        tables.append(Table(title, _short_columns(bool(first["subjects"])), rows))
    return tables


def _short_columns(named: bool) -> tuple[str | Column, ...]:
    """Return the columns of the short table: over subjects, or over slices where none is named."""
    of = "Subject" if named else "Slice"
    return (
        *("Network", "Regime", "Split", "Runs"),
        Column(f"{of} % there [95%]", format="percent"),
        Column("own test", format="percent"),
        Column("drop, points [95%]", format="points"),
        Column(f"{of} AUC there [95%]", format="fraction"),
        Column("own test", format="fraction"),
        Column("in the large", format="fraction"),
        Column("slope", format="fraction"),
    )


def _short(row: Mapping[Any, Any]) -> list[object]:
    level = "subject" if row["subjects"] else "slice"
    share, area = f"{level}_accuracy", f"{level}_auc"
    drop = [100 * row[f"{share}_drop{end}"] for end in ("", "_low", "_high")]
    calibration = [
        next((row[name] for name in row if name.startswith(part)), nan)
        for part in ("large_", "slope_")
    ]
    return [
        *(row["architecture"], row["name"], row["split"], row["runs"]),
        Cell(*(row[share + end] for end in ("", "_low", "_high"))),
        row[f"{share}_inside"],
        Cell(*drop),
        Cell(*(row[area + end] for end in ("", "_low", "_high"))),
        row[f"{area}_inside"],
        *calibration,
    ]


def write_cohorts(experiment: Path, results: Sequence[CohortResult]) -> None:
    """Write `evaluations.tsv`, one row per cohort and setting; none: no file."""
    if results:
        write_table(experiment / TABLE, cohorts_table(results))
    else:
        (experiment / TABLE).unlink(missing_ok=True)


def cohorts_table(results: Sequence[CohortResult]) -> pd.DataFrame:
    """Return one row per cohort and setting, with full values."""
    return pd.DataFrame([_plain(result.name, row) for result in results for row in result.rows])


def _plain(name: str, row: CohortRow) -> dict[str, Any]:
    """Return a row of `evaluations.tsv`."""
    inside = row.inside
    values: dict[str, Any] = {
        "evaluation": name,
        "run": inside.key,
        "architecture": inside.architecture,
        "name": inside.name,
        "split": inside.split,
        "runs": len(inside.runs),
        "subjects": row.subjects,
        "slices": row.slices,
        "subjects_farther": row.farther,
        "subjects_known": row.known_heads,
    }
    for score, part in row.scores.items():
        ends = {"": part.value, "_low": part.low, "_high": part.high}
        ends |= {"_inside": part.inside, "_drop": part.drop}
        ends |= {"_drop_low": part.drop_low, "_drop_high": part.drop_high}
        values |= {score + end: value for end, value in ends.items()}
    for fit in row.calibration:
        values |= {
            f"{quantity}_{fit.class_name}{end}": getattr(fit, quantity + end)
            for quantity in ("large", "slope")
            for end in ("", "_low", "_high")
        }
        values[f"expected_{fit.class_name}"] = fit.expected
    for label, (here, there) in row.prevalence.items():
        values |= {f"prevalence_{label}_inside": here, f"prevalence_{label}": there}
    return values
