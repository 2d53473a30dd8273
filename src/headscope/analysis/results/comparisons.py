"""Every two settings that were tested on the same subjects, compared subject by subject."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from math import isnan, nan

import numpy as np
import pandas as pd

from headscope.analysis.results.paired import bootstrap_p, delong, holm, mcnemar
from headscope.analysis.results.pooled import Pool, pool_runs
from headscope.files import NO_ID
from headscope.metrics import repeated_draws, repeated_interval, way_of
from headscope.metrics.subjects import Array
from headscope.record import Run
from headscope.tables import Shown, Table

KEYS = ["subject_id", "session_id", "plane", "slice_index", "label"]
SCORES = ("subject_accuracy", "slice_accuracy", "subject_auc")
SHOWN = ("Subject accuracy", "Slice accuracy", "Subject AUC")
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """How far one setting's score lies above another's, as a fraction; NaN where undefined.

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

    first, second name them; trainings counts the seeds and folds over which they are compared;
    subjects and slices those tested (each once, however often). Differences are first minus
    second. only_first, only_second count the subjects whom one of them alone called rightly, None
    where subjects were tested several times (over seeds), so that McNemar's test does not apply.
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
    """All comparisons of an experiment, in the order of the runs, and what was left out."""

    rows: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say each comparison in words."""
        return tuple(comparison_sentence(row) for row in self.rows)

    def tables(self) -> Sequence[Table]:
        """Return a table a score: differences in points, intervals and corrected p."""
        columns = ("first", "second", "split", "subjects", "points", "95% interval", "p (Holm)")
        found = []
        for name, words in zip(SCORES, SHOWN, strict=True):
            rows = [
                (row.first, row.second, row.split, row.subjects, *_cells(getattr(row, name)))
                for row in self.rows
            ]
            notes = self.notes if name == SCORES[-1] else ()
            found.append(Table(f"{words}, first minus second", columns, rows, notes))
        return found

    @property
    def table(self) -> pd.DataFrame:
        """One row a pair, fractions and p-values."""
        plain = [field.name for field in fields(Comparison) if field.name not in SCORES]
        rows = []
        for each in self.rows:
            row = {name: getattr(each, name) for name in plain}
            for name in SCORES:
                found = getattr(each, name)
                row |= {f"{name}_{part.name}": getattr(found, part.name) for part in fields(found)}
            rows.append(row)
        return pd.DataFrame(rows)


def compare_runs(runs: Iterable[Run]) -> Comparisons:
    """Compare every two settings on the subjects that both were tested on.

    Runs of one architecture, regime and split are one setting, whatever their seeds and folds; two
    settings are compared over the seeds and folds in which both tested the very same slices.
    Folds of a seed are pooled (ranks within folds for areas under the curve), seeds averaged; a
    draw holds a subject with all tests of it, and what lies between seeds is in the interval.
    Subject accuracy is tested by McNemar's exact test and the area by DeLong's where each subject
    was tested once and by one training (McNemar: folds too), else by the bootstrap. Runs without
    subject ids are left out. Source: docs/trust.md, Comparisons.
    """
    settings: dict[tuple[str, str], dict[Hashable, Run]] = {}
    notes = []
    for run in runs:
        test = _test_rows(run)
        if test.empty or (test["subject_id"] == NO_ID).any():
            notes.append(f"{run.name} is left out: its test names no subjects.")
            continue
        fit = run.settings["seed"], run.settings.get("fold"), _fingerprint(test)
        settings.setdefault((_setting(run), run.settings["split"]), {})[fit] = run
    pools = _Pools()
    rows = []
    for (one, first), (two, second) in combinations(settings.items(), 2):
        shared = sorted(first.keys() & second.keys(), key=str)
        if one[1] == two[1] and shared:
            pair = [first[fit] for fit in shared], [second[fit] for fit in shared]
            rows.append(_compare(one[0], two[0], one[1], pair, pools))
    splits = list(dict.fromkeys(row.split for row in rows))
    rows = [row for split in splits for row in _corrected([r for r in rows if r.split == split])]
    return Comparisons(tuple(_shorten(rows)), tuple(notes))


def _corrected(rows: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of all pairs of a split for being so many."""
    found = list(rows)
    for name in SCORES:
        adjusted = holm([getattr(row, name).p for row in found])
        found = [
            replace(row, **{name: replace(getattr(row, name), p_holm=float(p))}, pairs=len(found))
            for row, p in zip(found, adjusted, strict=True)
        ]
    return found


def comparison_sentence(row: Comparison) -> str:
    """Say whether two settings differ in subject accuracy, by how much, and on how many people."""
    found = row.subject_accuracy
    points = f"{_signed(100 * found.value)} points"
    if not isnan(found.low):
        points += f", 95% {_signed(100 * found.low)} to {_signed(100 * found.high)}"
    over = "" if row.trainings == 1 else f" over {row.trainings} trainings of each"
    on = f"{row.subjects} subjects{over}"
    if row.split != "subject":
        on += f", {row.split} split"
    if row.distinguishable:
        word = "better" if found.value > 0 else "worse"
        return (
            f"{row.first} is {word} than {row.second}: {points}, {on}{_tested(found, row.pairs)}."
        )
    if found.value == 0 and isnan(found.low):
        return f"{row.first} is not distinguishable from {row.second}: equal on all {on}."
    excludes = found.low > 0 or found.high < 0
    caution = _tested(found, row.pairs) if excludes else ""
    return f"{row.first} is not distinguishable from {row.second}: {points}, {on}{caution}."


def _cells(found: Difference) -> tuple[str, str, str]:
    interval = "undefined"
    if not isnan(found.low):
        interval = f"{_signed(100 * found.low)} to {_signed(100 * found.high)}"
    p = "undefined" if isnan(found.p_holm) else _p(found.p_holm).removeprefix("p ").lstrip("= ")
    return _signed(100 * found.value), interval, p


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _tested(found: Difference, pairs: int) -> str:
    return f" ({_p(found.p_holm)}, {found.test}" + (
        f", Holm over {pairs} pairs)" if pairs > 1 else ")"
    )


def _signed(points: float) -> str:
    text = f"{points:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _compare(
    first: str, second: str, split: str, pair: tuple[list[Run], list[Run]], pools: "_Pools"
) -> Comparison:
    one, two = (pools.of(runs) for runs in pair)
    right = [np.concatenate([test.subjects.correct for test in pool.tests]) for pool in (one, two)]
    counts = mcnemar(*right) if one.once_each else None
    differences = {name: _difference(pools, pair, name) for name in SCORES}
    if counts:
        differences["subject_accuracy"] = replace(
            differences["subject_accuracy"], test="McNemar's exact test", p=counts.p
        )
    if one.once_each and one.class_count == 2 and len(one.tests) == 1:
        tests = one.tests[0].subjects, two.tests[0].subjects
        p = delong(tests[0].labels, tests[0].margin(1), tests[1].margin(1)).p
        differences["subject_auc"] = replace(differences["subject_auc"], test="DeLong's test", p=p)
    tested = pd.concat([_test_rows(run)[KEYS] for run in pair[0]]).drop_duplicates()
    return Comparison(
        first=first,
        second=second,
        split=split,
        trainings=len(pair[0]),
        subjects=len(one.ids),
        slices=len(tested),
        only_first=counts.only_first if counts else None,
        only_second=counts.only_second if counts else None,
        subject_accuracy=differences["subject_accuracy"],
        slice_accuracy=differences["slice_accuracy"],
        subject_auc=differences["subject_auc"],
    )


class _Pools:
    """Pools and draws of the settings, each made once. Pools of the same tests draw alike."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._drawn: dict[tuple[str, ...], tuple[Array, Array, Array]] = {}

    def of(self, runs: Sequence[Run]) -> Pool:
        """Return the pool of the runs of one setting."""
        key = tuple(run.name for run in runs)
        if key not in self._pools:
            self._pools[key] = pool_runs(runs)
        return self._pools[key]

    def drawn(self, runs: Sequence[Run], name: str) -> tuple[Array, Array, Array]:
        """Return a score of the runs: once (R,), over draws (R, B), subjects left out (R, S)."""
        key = (*(run.name for run in runs), name)
        if key not in self._drawn:
            level, quantity = name.split("_", 1)
            self._drawn[key] = self.of(runs).drawn(level, quantity)
        return self._drawn[key]


def _difference(pools: _Pools, pair: tuple[list[Run], list[Run]], name: str) -> Difference:
    """Return a score's difference: paired draws of subjects, and what lies between seeds."""
    once, drawn, left_out = (
        first - second
        for first, second in zip(*(pools.drawn(runs, name) for runs in pair), strict=True)
    )
    pool, value, interval = pools.of(pair[0]), float(once.mean()), None
    stratum = pool.resampled.stratum
    if not isnan(value):
        interval = repeated_interval(
            once, drawn, left_out, stratum, way_of(*name.split("_", 1)), pool.ratio
        )
    low, high = interval or (nan, nan)
    p = 1.0 if value == 0 else nan
    if interval:
        p = bootstrap_p(repeated_draws(once, drawn, stratum, pool.ratio))
    return Difference(value, low, high, "bootstrap over subjects", p)


def _test_rows(run: Run) -> pd.DataFrame:
    return run.predictions[run.predictions["subset"] == "test"]


def _fingerprint(test: pd.DataFrame) -> bytes:
    """Tell whether two tests hold the same slices in the same order."""
    return pd.util.hash_pandas_object(test[KEYS].astype(str), index=False).to_numpy().tobytes()


def _setting(run: Run) -> str:
    """Name architecture and regime, without the fold that a run's own name bears."""
    return f"{run.settings['architecture']} {run.setting.variant}"


def _shorten(rows: Sequence[Comparison]) -> list[Comparison]:
    """Leave the architecture out of the names where there is but one."""
    networks = {name.partition(" ")[0] for row in rows for name in (row.first, row.second)}
    if len(networks) != 1:
        return list(rows)
    return [
        replace(row, first=row.first.partition(" ")[2], second=row.second.partition(" ")[2])
        for row in rows
    ]
