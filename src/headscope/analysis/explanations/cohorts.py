"""What an experiment's networks reach on a cohort from elsewhere, beside their own test.

Each network scores the whole cohort; folds and seeds of a setting are averaged. The two samples are
drawn independently, by subject within class. Source: docs/science.md, section 16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.analysis.explanations.external import (
    CohortResult,
    CohortRow,
    External,
    Recalibration,
)
from headscope.analysis.explanations.recalibration import recalibrate
from headscope.analysis.results.pooled import Pool, Test, pool_runs
from headscope.analysis.results.settings import SettingResult, setting_results
from headscope.analysis.results.table import TESTED
from headscope.analysis.units import Array
from headscope.metrics import (
    EXTERNAL_SEED,
    SHARED_GAP,
    Drawn,
    Resampled,
    logit_columns,
    positive_class,
    resample,
    slice_units,
    strata,
    subject_level,
    subset_scores,
    way_of,
)
from headscope.record import Run, find_runs
from headscope.record.evaluation import Evaluation, Overlap, find_evaluations, run_hash

MOST_UNDEFINED: Final = 0.025  # of draws without a slope, above which its interval has no end


def read_cohorts(experiment: Path) -> tuple[list[CohortResult], list[str]]:
    """Return the results of an experiment's evaluations, and notes on those that are left out."""
    evaluations, left_out = find_evaluations(experiment)
    notes = [
        f"evaluations/{name} is left out: {reason}; 'headscope evaluate' makes it again."
        for name, reason in left_out.items()
    ]
    results = []
    runs = find_runs(experiment).runs if evaluations else []
    for evaluation in evaluations:
        if any(evaluated(evaluation, run) for run in runs):
            results.append(cohort_result(evaluation, runs))
        else:
            notes.append(
                f"evaluations/{evaluation.name} is left out: it is of no run that is here now."
            )
    return results, notes


def evaluated(evaluation: Evaluation, run: Run) -> bool:
    """Whether the scores of a run, as it is now, are there."""
    if run.name not in evaluation.run_names:
        return False
    return evaluation.made_from(run.name)["run_sha256"] == run_hash(run)


def score_cohort(run: Run, table: pd.DataFrame) -> dict[str, Any]:
    """Return the scores of a run's predictions of a cohort, by their table."""
    labels = pd.Index(run.class_names).get_indexer(pd.Index(table["label"]))
    return subset_scores(
        labels.astype(np.int64),
        table[logit_columns(run.class_names)].to_numpy(np.float32),
        table["subject_id"].to_numpy(str),
        class_names=run.class_names,
        aggregate=str(run.settings.get("aggregate", "mean")),
        seed=EXTERNAL_SEED,
    )


def cohort_result(evaluation: Evaluation, runs: Sequence[Run]) -> CohortResult:
    """Return what the settings of some runs reach on a cohort; runs that did not score it wait."""
    scored = [run for run in runs if evaluated(evaluation, run)]
    overlap = evaluation.overlap
    rows = tuple(_row(evaluation, overlap, result) for result in setting_results(scored))
    doubts = swap_doubts(evaluation.settings, rows)
    notes = (*doubts, *_notes(rows, overlap))
    return CohortResult(evaluation.name, evaluation.path, rows, overlap, notes, doubts)


def drop_between(inside: Drawn, there: Drawn) -> Drawn:
    """Return the difference of two samples' scores, whose draws are independent of each other.

    inside and there have the same R repeats and B draws; their subjects stay apart, each sample
    with strata of its own.
    """
    return Drawn(
        inside.once - there.once,
        inside.drawn - there.drawn,
        np.concatenate(
            [inside.left_out - there.once[:, None], inside.once[:, None] - there.left_out], axis=1
        ),
        np.concatenate([inside.stratum, there.stratum + inside.stratum.max() + 1]),
    )


@dataclass(frozen=True, eq=False)
class _Sample:
    """The tests of a setting's runs on a cohort: one per run, all of the same subjects.

    seeds (R, runs) averages the runs of each seed.
    """

    pool: Pool
    resampled: Resampled
    seeds: Array

    def draw(self, name: str, positive: int) -> Drawn:
        """Return a score of each seed, over draws that are independent of those of the test."""
        return self.resampled.apply(
            lambda counts: {name: self.seeds @ self.pool.grouped.score(name, counts, positive)}
        )[name]

    def calibrate(self, k: int) -> dict[str, Drawn]:
        """Return calibration in the large and slope of a class, of each seed."""

        def both(counts: Array) -> dict[str, Array]:
            of_runs = []
            for test in self.pool.grouped.tests:
                units = test.subjects
                weights = counts[:, units.owner]  # (B, n)
                of_runs.append(recalibrate(units.margin(k), units.labels == k, weights))
            large, slope = (self.seeds @ np.stack(part) for part in zip(*of_runs, strict=True))
            return {"large": large, "slope": slope}

        return self.resampled.apply(both)


def _row(evaluation: Evaluation, overlap: Overlap, inside: SettingResult) -> CohortRow:
    runs = inside.runs
    tables = [evaluation.predictions(run.name) for run in runs]
    pool, there = pool_runs(runs), _sample(runs, tables)
    names = runs[0].class_names
    positive = positive_class(names)
    classes = [positive] if len(names) == 2 else [*range(len(names))]
    named = there.pool.named
    subjects = [set(table["subject_id"]) for table in tables]
    labels = tables[0][["subject_id", "label"]].drop_duplicates()
    return CohortRow(
        inside=inside,
        scores={name: _score(pool, there, name, inside, positive) for name in TESTED},
        calibration=tuple(_calibration(there, pool, k, names[k]) for k in classes) if named else (),
        prevalence=_prevalence(inside, labels, names) if named else {},
        subjects=len(subjects[0]) if named else 0,
        slices=len(tables[0]),
        farther=_farther(tables) if named else nan,
        known_heads=len(_known(overlap, runs)),
    )


def _sample(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> _Sample:
    """Return the tests of some runs on a cohort, by their tables of predictions there."""
    ids = np.unique(tables[0]["subject_id"].to_numpy(str))
    tests = []
    for run, table in zip(runs, tables, strict=True):
        owner = np.searchsorted(ids, table["subject_id"].to_numpy(str))
        labels = pd.Index(run.class_names).get_indexer(pd.Index(table["label"])).astype(np.int64)
        columns = [f"logit_{name}" for name in run.class_names]
        slices = slice_units(labels, table[columns].to_numpy(np.float32), owner)
        aggregate = str(run.settings.get("aggregate", "mean"))
        tests.append((Test(slices, subject_level(slices, aggregate)),))
    first = tests[0][0].slices
    pool = Pool(tuple(tests), ids, strata(first.labels, first.owner, len(ids)), nan)
    labels = pool.grouped.labels
    resampled = resample(labels, np.arange(len(labels)), len(labels), seed=EXTERNAL_SEED)
    seeds = [run.setting.seed for run in runs]
    same = np.equal.outer([*dict.fromkeys(seeds)], seeds).astype(float)  # (R, runs)
    return _Sample(pool, resampled, same / same.sum(axis=1, keepdims=True))


def _score(pool: Pool, there: _Sample, name: str, inside: SettingResult, positive: int) -> External:
    """Return a score there with its drop; the interval of what draws cannot tell is Wilson's."""
    at_home = inside.scores[name].value
    if name.startswith("subject") and not there.pool.named:
        return External(nan, nan, nan, at_home, nan, nan, nan)
    drawn, way = there.draw(name, positive), way_of(name)
    low = high = drop_low = drop_high = nan
    if there.pool.named:
        low, high = drawn.interval(way, pool.ratio, bounds=(0.0, 1.0))
        if isnan(low):
            low, high = there.pool.wilson(name, positive)
    if there.pool.named and pool.named:
        difference = drop_between(pool.draw(name, positive), drawn)
        drop_low, drop_high = difference.interval(way, pool.ratio, SHARED_GAP, (-1.0, 1.0))
    return External(drawn.mean, low, high, at_home, at_home - drawn.mean, drop_low, drop_high)


def _calibration(there: _Sample, pool: Pool, k: int, name: str) -> Recalibration:
    units = [test.subjects for test in there.pool.tests]
    values: dict[str, float] = {}
    for part, drawn in there.calibrate(k).items():
        low = high = nan
        if np.isfinite(drawn.once).all() and (~np.isfinite(drawn.drawn)).mean() <= MOST_UNDEFINED:
            low, high = drawn.interval("percentile", pool.ratio)
        values |= {part: drawn.mean, f"{part}_low": low, f"{part}_high": high}
    return Recalibration(
        class_name=name,
        **values,
        expected=float(np.mean([part.probabilities[:, k].mean() for part in units])),
        observed=float((units[0].labels == k).mean()),
    )


def _prevalence(
    inside: SettingResult, labels: pd.DataFrame, names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return the share of subjects (a subject once per label) of each class, here and there."""
    tested = pd.concat([run.predicted("test")[["subject_id", "label"]] for run in inside.runs])
    shares = [
        part.drop_duplicates()["label"].value_counts(normalize=True) for part in (tested, labels)
    ]
    return {name: (float(shares[0].get(name, 0)), float(shares[1].get(name, 0))) for name in names}


def _farther(tables: Sequence[pd.DataFrame]) -> float:
    """Return how many subjects have a scan beyond every training subject, mean over runs."""
    judged = [table[table["distance"].notna()] for table in tables]
    if not all(map(len, judged)):
        return nan
    return float(
        np.mean([table[table["distance"] > 1]["subject_id"].nunique() for table in judged])
    )


def _known(overlap: Overlap, runs: Sequence[Run]) -> set[str]:
    """Return the new subjects whose head is in training or validation of one of the runs."""
    keys = ["scan", "session_id"]  # a run of inferred subjects has other ids than its slices
    seen: set[tuple[str, ...]] = set()
    for run in runs:
        table = run.predictions[run.predictions["subset"] != "test"]
        seen |= set(table[keys].astype(str).itertuples(index=False, name=None))
    return {
        overlap.new_unit(head)
        for head in overlap.heads
        if (head.scans[0], head.sessions[0]) in seen
    }


def swap_doubts(settings: Mapping[str, Any], rows: Sequence[CohortRow]) -> tuple[str, ...]:
    """Say where the cohort's classes may be swapped: by how they were named, and by the areas.

    settings are those of `evaluation.toml`. Areas tell it whose interval is below 0.5, or that are
    0, of which draws give no interval.
    """
    doubts = []
    crossed = [
        f"{value} counts as {name}"
        for name, values in (settings.get("classes") or {}).items()
        for value in values
        if value in settings["class_names"] and value != name
    ]
    if crossed:
        doubts.append(
            f"By --classes {', '.join(crossed)} there, though the networks have a class of each of "
            "these names: if that was not meant, labels are swapped."
        )
    areas = [
        (row.scores["subject_auc" if row.subjects else "slice_auc"], row.inside) for row in rows
    ]
    against = [(area, one) for area, one in areas if area.high < 0.5 or area.value == 0]
    if against:
        area, one = min(against, key=lambda pair: pair[0].value)
        ends = "" if isnan(area.low) else f", 95% {area.low:.3f} to {area.high:.3f}"
        doubts.append(
            f"{len(against)} of {len(rows)} settings rank that cohort against its labels (most of "
            f"all {one.architecture} {one.name}, {one.split} split: AUC {area.value:.3f}{ends}): "
            "its classes may be swapped."
        )
    return tuple(doubts)


def _notes(rows: Sequence[CohortRow], overlap: Overlap) -> tuple[str, ...]:
    notes = []
    count, unit = overlap.counted
    if overlap.heads:
        trained = max(row.known_heads for row in rows)
        notes.append(
            f"{len(overlap.new_subjects)} of {count} {unit} show a head that is in the experiment "
            f"too, {trained} of them one that trained or chose a network here: what "
            "is reached on them is no figure of a cohort from elsewhere."
        )
    if overlap.same_ids:
        notes.append(
            f"{len(overlap.same_ids)} subject ids are in both cohorts (first {overlap.same_ids[0]})"
            ", by chance if ids are plain numbers."
        )
    if overlap.note:
        notes.append(overlap.note)
    far = [row.farther for row in rows if row.farther > 0]
    if far:
        notes.append(
            f"{max(far):.0f} of {rows[0].subjects} subjects are farther from the training scans, "
            "in what the final layer reads, than any training subject is from the others."
        )
    if not rows[0].subjects:
        notes.append(
            "The pictures name no subjects: there are no scores over subjects and no intervals."
        )
    return tuple(notes)
