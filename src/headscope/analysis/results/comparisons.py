"""Every two settings that were tested on the same subjects, compared subject by subject."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import combinations
from math import isnan, nan

import numpy as np
import pandas as pd

from headscope.analysis.results.paired import McNemar, bootstrap_p, delong, holm, mcnemar
from headscope.analysis.results.pooled import Pool, pool_runs
from headscope.analysis.results.table import SLICE_KEYS
from headscope.files import NO_ID
from headscope.metrics import Drawn, Units, way_of
from headscope.record import Run
from headscope.tables import Cell, Column, Shown, Table
from headscope.text import p_value, signed_points
from headscope.threads import one_blas_thread

SCORES = {
    "subject_accuracy": "Subject accuracy",
    "slice_accuracy": "Slice accuracy",
    "subject_auc": "Subject AUC",
}
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """How far one setting's score is above another's, as a fraction; NaN where undefined.

    low, high: 95% interval by the same draws of subjects for both; NaN where all draws agree.
    p by `test`; p_holm corrected for all pairs of the split.
    """

    value: float
    low: float
    high: float
    test: str
    p: float
    p_holm: float = nan


@dataclass(frozen=True)
class Comparison:
    """Two settings (architecture and regime) tested on the same slices of the same subjects.

    first, second name them; split is empty where they are tables of predictions; trainings counts
    the seeds and folds over which they are compared; subjects and slices those tested (each once,
    however often). Differences are first minus second. only_first, only_second count the subjects
    that one of them alone predicted correctly, None where subjects were tested several times (over
    seeds), so that McNemar's test does not apply.
    pairs counts the comparisons of the split, over which p-values are corrected.
    """

    first: str
    second: str
    split: str
    trainings: int
    subjects: int
    slices: int
    only_first: int | None
    only_second: int | None
    subject_accuracy: Difference
    slice_accuracy: Difference
    subject_auc: Difference
    pairs: int = 1

    @property
    def distinguishable(self) -> bool:
        """Whether subject accuracy differs at 5% after Holm's correction."""
        return self.subject_accuracy.p_holm < ALPHA


@dataclass(frozen=True, eq=False, repr=False)
class Comparisons(Shown):
    """All comparisons of an experiment, in the order of the runs.

    rows are of two networks, rivals of a network (first) and a simple rival (second), corrected by
    themselves. notes name the runs that are left out, and say why settings are not compared.
    """

    rows: tuple[Comparison, ...]
    notes: tuple[str, ...]
    rivals: tuple[Comparison, ...] = ()

    @property
    def pairs(self) -> tuple[Comparison, ...]:
        """All rows: of two networks, then with rivals."""
        return *self.rows, *self.rivals

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each comparison in words."""
        return tuple(comparison_sentence(row) for row in self.pairs)

    def tables(self) -> Sequence[Table]:
        """Return one table per score: differences in points, intervals and corrected p."""
        columns: list[Column | str] = [
            *("first", "second", "split", "subjects"),
            Column("difference", "points", "signed", interval=True),
            Column("p (Holm)", format="probability"),
        ]
        shown = [0, 1, *([2] if any(row.split for row in self.pairs) else []), 3, 4, 5]
        return [
            Table(
                f"{words}, first minus second",
                [columns[k] for k in shown],
                [[_cells(row, getattr(row, name))[k] for k in shown] for row in self.pairs],
                self.notes if name == "subject_auc" else (),
            )
            for name, words in SCORES.items()
            if self.pairs or name == "subject_auc"  # one empty table says why
        ]

    @property
    def table(self) -> pd.DataFrame:
        """One row per pair, fractions and p-values."""
        rows = []
        for comparison in self.pairs:
            row = asdict(comparison)
            for name in SCORES:
                row |= {f"{name}_{part}": value for part, value in row.pop(name).items()}
            rows.append(row)
        return pd.DataFrame(rows)


@one_blas_thread
def compare_runs(runs: Iterable[Run]) -> Comparisons:
    """Compare every two settings on the subjects on which both were tested.

    Runs of one architecture, regime and split are one setting, whatever their seeds and folds; two
    settings are compared over the seeds and folds in which both tested the very same slices.
    Folds of a seed are pooled (ranks within folds for areas under the curve), seeds averaged; a
    draw holds a subject with all tests of it, and what lies between seeds is in the interval.
    Subject accuracy is tested by McNemar's exact test and the area by DeLong's where each subject
    was tested once and by one training (McNemar: folds too), else by the bootstrap. Simple rivals
    are compared with each network, not with one another. Runs without subject ids are left out.
    Source: docs/trust.md, Comparisons.

    Parameters
    ----------
    runs
        Finished runs, as of `read_experiment`.

    Examples
    --------
    >>> comparisons = hs.compare_runs(hs.read_experiment("first"))
    >>> len(comparisons.rows)  # its runs have different splits
    0
    """
    settings: dict[tuple[str, str], dict[Hashable, Run]] = {}
    notes, simple = [], set()
    for run in sorted(runs, key=lambda run: run.is_rival):  # so that a rival comes second
        test = run.predicted("test")
        if test.empty or (test["subject_id"] == NO_ID).any():
            notes.append(f"{run.name} is left out: its test names no subjects.")
            continue
        variant = "" if run.is_rival else f" {run.setting.variant}"
        key = f"{run.setting.architecture}{variant}", run.setting.split
        simple |= {key} if run.is_rival else set()
        settings.setdefault(key, {})[*run.setting.fit, _fingerprint(test)] = run
    # pools of the same tests draw alike, so that their draws are paired
    pool_of = cache(pool_runs)

    @cache
    def draw(runs: tuple[Run, ...], name: str) -> Drawn:
        return pool_of(runs).draw(name)

    rows: list[Comparison] = []
    rivals: list[Comparison] = []
    apart = []
    for (key, fits), (other, other_fits) in combinations(settings.items(), 2):
        (first, split), (second, other_split) = key, other
        shared = sorted(fits.keys() & other_fits.keys(), key=str)
        if split != other_split or key in simple:
            continue
        if not shared:
            apart.append(f"{first} and {second}, {split} split")
        else:
            sides = tuple(fits[fit] for fit in shared), tuple(other_fits[fit] for fit in shared)
            compared = _compare((first, second), split, sides, pool_of, draw)
            (rivals if other in simple else rows).append(compared)
    networks = [key for key in settings if key not in simple]
    reasons = _not_compared(networks, [*rows, *rivals], apart)
    both = (tuple(_shorten(_by_split(group))) for group in (rows, rivals))
    return Comparisons(next(both), (*notes, *reasons), next(both))


def _by_split(rows: Sequence[Comparison]) -> list[Comparison]:
    """Gather comparisons by split, and correct those of each."""
    splits = list(dict.fromkeys(row.split for row in rows))
    return [row for split in splits for row in _corrected([r for r in rows if r.split == split])]


def _not_compared(
    settings: Iterable[tuple[str, str]], rows: Sequence[Comparison], apart: Sequence[str]
) -> list[str]:
    """Say why settings are not compared: all of them, or those that were tested `apart`."""
    names = [f"{name}, {split} split" for name, split in settings]
    if apart:
        more = f" (and {len(apart) - 1} more pairs)" if len(apart) > 1 else ""
        return [
            f"{apart[0]}, are not compared{more}: they have no seed and fold in which both tested "
            "the same slices."
        ]
    if rows or not names:
        return []
    if len(names) == 1:
        return [f"Nothing is compared: there is but one setting ({names[0]})."]
    return [
        f"Nothing is compared: no two of the settings ({'; '.join(names)}) have the same split, "
        "and under different splits different slices are tested."
    ]


def _corrected(rows: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of a split for the number of its pairs."""
    corrected = [replace(row, pairs=len(rows)) for row in rows]
    for name in SCORES:
        adjusted = holm([getattr(row, name).p for row in rows])
        corrected = [
            replace(row, **{name: replace(getattr(row, name), p_holm=float(p))})
            for row, p in zip(corrected, adjusted, strict=True)
        ]
    return corrected


def comparison_sentence(row: Comparison) -> str:
    """Say whether two settings differ in subject accuracy, by how much and on how many."""
    difference = row.subject_accuracy
    points = f"{signed_points(100 * difference.value)} points"
    if not isnan(difference.low):
        ends = (signed_points(100 * end) for end in (difference.low, difference.high))
        points += f", 95% {' to '.join(ends)}"
    over = "" if row.trainings == 1 else f" over {row.trainings} trainings of each"
    on = f"{row.subjects} subjects{over}"
    if row.split not in ("subject", ""):
        on += f", {row.split} split"
    tested = f" ({p_value(difference.p_holm)}, {difference.test}" + (
        f", Holm over {row.pairs} pairs)" if row.pairs > 1 else ")"
    )
    if row.distinguishable:
        word = "better" if difference.value > 0 else "worse"
        return f"{row.first} is {word} than {row.second}: {points}, {on}{tested}."
    alike = f"{row.first} is not distinguishable from {row.second}"
    if difference.value == 0 and isnan(difference.low):
        return f"{alike}: equal on all {on}."
    excludes = difference.low > 0 or difference.high < 0
    return f"{alike}: {points}, {on}{tested if excludes else ''}."


def _cells(row: Comparison, difference: Difference) -> tuple[object, ...]:
    value, low, high = (100 * part for part in (difference.value, difference.low, difference.high))
    points = Cell(value, low, high)
    return row.first, row.second, row.split, row.subjects, points, difference.p_holm


def _compare(
    names: tuple[str, str],
    split: str,
    sides: tuple[tuple[Run, ...], tuple[Run, ...]],
    pool_of: Callable[[tuple[Run, ...]], Pool],
    draw: Callable[[tuple[Run, ...], str], Drawn],
) -> Comparison:
    pools = [pool_of(runs) for runs in sides]
    right = [np.concatenate([test.subjects.correct for test in pool.tests]) for pool in pools]
    first = pools[0]
    counts = mcnemar(*right) if first.once_each else None
    differences = {
        name: difference_of(draw(sides[0], name) - draw(sides[1], name), name, first.ratio)
        for name in SCORES
    }
    ranked = [pool.tests[0].subjects for pool in pools]
    differences = exactly_tested(differences, counts, ranked if first.ranked_once else None)
    tested = pd.concat([run.predicted("test")[SLICE_KEYS] for run in sides[0]]).drop_duplicates()
    return Comparison(
        first=names[0],
        second=names[1],
        split=split,
        trainings=len(sides[0]),
        subjects=len(first.ids),
        slices=len(tested),
        only_first=counts.only_first if counts else None,
        only_second=counts.only_second if counts else None,
        **differences,  # type: ignore[arg-type]
    )


def exactly_tested(
    differences: Mapping[str, Difference],
    counts: McNemar | None,
    ranked: Sequence[Units] | None,
) -> dict[str, Difference]:
    """Return differences with p of McNemar's test, and of DeLong's of two rankings, if given."""
    tested = dict(differences)
    if counts is not None:
        tested["subject_accuracy"] = replace(
            tested["subject_accuracy"], test="McNemar's exact test", p=counts.p
        )
    if ranked is not None:
        p = delong(ranked[0].labels, *(units.margin(1) for units in ranked)).p
        tested["subject_auc"] = replace(tested["subject_auc"], test="DeLong's test", p=p)
    return tested


def difference_of(drawn: Drawn, name: str, ratio: float) -> Difference:
    """Return a score's difference from paired draws, with what lies between seeds."""
    low, high = drawn.interval(way_of(name), ratio)
    p = 1.0 if drawn.mean == 0 else nan
    if not isnan(low):
        p = bootstrap_p(drawn.spread(ratio))
    return Difference(drawn.mean, low, high, "bootstrap over subjects", p)


def _fingerprint(test: pd.DataFrame) -> bytes:
    """Return what is equal for two tests of the same slices in the same order."""
    return (
        pd.util.hash_pandas_object(test[SLICE_KEYS].astype(str), index=False).to_numpy().tobytes()
    )


def _shorten(rows: Sequence[Comparison]) -> list[Comparison]:
    """Leave the architecture out of the names of networks where there is but one."""
    names = {name for row in rows for name in (row.first, row.second) if " " in name}
    if len({name.partition(" ")[0] for name in names}) != 1:
        return list(rows)
    short = {name: name.partition(" ")[2] for name in names}
    return [
        replace(row, first=short[row.first], second=short.get(row.second, row.second))
        for row in rows
    ]
