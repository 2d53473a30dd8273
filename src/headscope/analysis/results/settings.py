"""Runs of one setting, over seeds and folds, as one result: a row of the table (Table 2).

A setting is an architecture, a regime (or a row's own name) and a split. Folds are pooled, seeds
averaged with an interval that holds what lies between them, and no fold is ever averaged over
seeds. Source: docs/science.md, sections 18 to 21.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from headscope.analysis.results.chance import AgainstChance, against_chance
from headscope.analysis.results.pooled import Pool, pool_runs
from headscope.analysis.results.table import (
    SLICE_KEYS,
    TESTED,
    Score,
    first_try,
    mixed_marker,
    recorded_score,
    run_rank,
    score_columns,
    shared_subjects,
)
from headscope.errors import InputError
from headscope.metrics import positive_class, way_of
from headscope.record import RIVAL, Run

VALIDATION = {
    "subject_auc": "validation AUC over subjects",
    "subject_balanced_accuracy": "balanced validation accuracy over subjects",
    "slice_balanced_accuracy": "balanced validation accuracy over slices",
}


@dataclass(frozen=True)
class Majority:
    """What predicting the larger class alone gives: its share of slices and of subjects.

    class_name is empty where no class is larger than the others.
    """

    class_name: str
    slice_share: float
    subject_share: float


@dataclass(frozen=True, eq=False)
class SettingResult:
    """What one setting reached over its seeds and folds.

    Attributes
    ----------
    architecture, name, regime, split
        The setting; `name` is the row's own name, or the regime.
    runs
        Its runs, by seed and fold.
    scores
        By name of `TESTED`, of the test.
    majority
        The larger class of the tests.
    constant
        The runs that predict one class for all of their test slices, with that class.
    constant_in_validation
        How many runs do so in validation.
    subjects, subject_labels, slices
        Distinct ones tested; subject_labels counts a subject once per label. 0 without ids.
    shared_subjects
        Test subjects with other slices in training, the most of any run.
    chance
        Whether its subjects are ranked better than chance.
    """

    architecture: str
    name: str
    regime: str
    split: str
    runs: tuple[Run, ...]
    scores: Mapping[str, Score]
    majority: Majority
    constant: Mapping[str, str]
    constant_in_validation: int
    subjects: int
    subject_labels: int
    slices: int
    shared_subjects: int
    nameless: bool
    chance: AgainstChance

    @property
    def key(self) -> str:
        """The name of its only run, or of the setting."""
        return (
            self.runs[0].name
            if len(self.runs) == 1
            else f"{self.architecture}-{self.name}-{self.split}"
        )

    @property
    def untested(self) -> list[str]:
        """The classes of which no slice is in the test of any of its runs."""
        tested = {label for run in self.runs for label in run.predicted("test")["label"]}
        return [name for name in self.runs[0].class_names if name not in tested]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, in order."""
        return tuple(sorted({run.setting.seed for run in self.runs}))

    @property
    def folds(self) -> tuple[int, ...]:
        """Its folds, in order; none without cross-validation."""
        folds = {run.setting.fold for run in self.runs}
        return tuple(sorted(fold for fold in folds if fold is not None))

    @property
    def fits(self) -> frozenset[tuple[int, int | None]]:
        """Seed and fold of every run."""
        return frozenset(run.setting.fit for run in self.runs)

    @property
    def is_rival(self) -> bool:
        """Whether it is a simple rival of the networks."""
        return self.regime == RIVAL

    @property
    def apart(self) -> bool:
        """Whether no test subject is in training."""
        return not (self.nameless or self.shared_subjects)

    @property
    def marker(self) -> str:
        """Why the accuracy may be inflated, and whether subjects are inferred; or nothing."""
        run = next((run for run in self.runs if not run.named), self.runs[0])
        return mixed_marker(run, self.shared_subjects)

    def validation(self, name: str) -> float:
        """Return the mean of a validation score over the runs; NaN where one lacks it."""
        values = [run.score("val", name) for run in self.runs]
        return float(np.mean(values))


def setting_results(runs: Iterable[Run]) -> list[SettingResult]:
    """Return one result per setting, in the order of the table.

    Raises
    ------
    InputError
        There are no runs.
    """
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in sorted(runs, key=run_rank):
        groups.setdefault(run.setting.row, []).append(run)
    if not groups:
        raise InputError("A table of results needs at least one run.")
    return [_result(key, group) for key, group in groups.items()]


def _result(key: tuple[str, str, str, str], runs: Sequence[Run]) -> SettingResult:
    pool = pool_runs(runs)
    scores = {name: recorded_score(runs[0], name) for name in TESTED}
    if len(runs) > 1:
        scores = {name: pooled_score(pool, name, runs[0].class_names) for name in TESTED}
    nameless = not all(run.named for run in runs)
    rows = pd.concat([run.predicted("test")[SLICE_KEYS] for run in runs])
    labelled = rows[["subject_id", "label"]].drop_duplicates()
    return SettingResult(
        *key,
        runs=tuple(runs),
        scores=scores,
        majority=_majority(pool, runs[0].class_names),
        constant=_constant(runs, "test"),
        constant_in_validation=len(_constant(runs, "val")),
        subjects=0 if nameless else labelled["subject_id"].nunique(),
        subject_labels=0 if nameless else len(labelled),
        slices=len(rows.drop_duplicates()),
        shared_subjects=max(shared_subjects(run) for run in runs),
        nameless=nameless,
        chance=against_chance(pool, scores["subject_auc"].low, scores["subject_auc"].high),
    )


def pooled_score(pool: Pool, name: str, class_names: Sequence[str]) -> Score:
    """Return a score over folds and seeds; its interval holds what lies between seeds."""
    if name.startswith("subject") and not pool.named:
        return Score(nan)
    drawn = pool.draw(name, positive_class(class_names))
    sd = float(drawn.once.std(ddof=1)) if len(drawn.once) > 1 else nan
    ends = nan, nan
    if pool.named:
        ends = drawn.interval(way_of(name), pool.ratio, bounds=(0.0, 1.0))
    return Score(drawn.mean, *ends, *pool.wilson(name, positive_class(class_names)), sd=sd)


def _majority(pool: Pool, class_names: Sequence[str]) -> Majority:
    """Return the larger class of the tests, and its mean share over seeds."""
    sums, shares = np.zeros(pool.class_count), {"slice": [], "subject": []}  # type: ignore[var-annotated]
    for folds in pool.seeds:
        for level, values in shares.items():
            labels = np.concatenate([test.level(level).labels for test in folds])
            counts = np.bincount(labels, minlength=pool.class_count)
            values.append(counts.max() / counts.sum() if counts.sum() else nan)
            sums += counts if level == "subject" else 0
    largest = np.flatnonzero(sums == sums.max())
    name = str(class_names[largest[0]]) if len(largest) == 1 else ""
    subject = float(np.mean(shares["subject"])) if pool.named else nan
    return Majority(name, float(np.mean(shares["slice"])), subject)


def _constant(runs: Sequence[Run], subset: str) -> dict[str, str]:
    """Return the class that a run predicts for all slices of a subset, by run, where it does."""
    constant = {}
    for run in runs:
        rows = run.predicted(subset)
        predicted = rows["predicted"].unique()
        if len(predicted) == 1 and len(rows["label"].unique()) > 1:
            constant[run.name] = str(predicted[0])
    return constant


def choose(results: Sequence[SettingResult]) -> tuple[SettingResult, str]:
    """Return the setting that validation chooses, and by which score, in words.

    By the mean validation AUC over subjects; by balanced accuracy, of subjects or else of slices,
    where that is undefined for one of them. A network that predicts one class for all validation
    slices is not chosen while another does not. Test scores play no part. Source: docs/science.md,
    section 21.
    """
    several = [result for result in results if result.constant_in_validation < len(result.runs)]
    candidates = several or list(results)
    for name, words in VALIDATION.items():
        values = [result.validation(name) for result in candidates]
        if not any(map(isnan, values)):
            return candidates[int(np.argmax(values))], words
    return candidates[0], ""


def choose_apart(results: Sequence[SettingResult]) -> tuple[SettingResult, str, int]:
    """Return the setting that validation chooses, by which score, and among how many.

    Only settings of one split, tested over the same seeds and folds, are ranked: the most that are.
    Of subjects inferred twice those by the loose threshold count, which keeps more slices together.
    """

    def splits(result: SettingResult) -> tuple[object, ...]:
        return result.split, result.runs[0].setting.subjects, result.fits

    def extent(result: SettingResult) -> tuple[int, bool]:
        return len(result.fits), str(result.runs[0].setting.subjects).endswith("loose")

    most = splits(max(results, key=extent))
    candidates = [result for result in results if splits(result) == most]
    return *choose(candidates), len(candidates)


def rival_words(rival: SettingResult) -> str:
    """Return what a rival knows: 'the larger class', 'age and sex', 'small pixels'."""
    if rival.architecture == "majority":
        return "the larger class of training"
    if rival.architecture == "pixels":
        return "slices shrunk to 32 × 32 pixels"
    columns = rival.runs[0].settings.get("covariates", [])
    names = dict.fromkeys(name.partition("=")[0].removesuffix(" missing") for name in columns)
    *most, last = names or {"covariates": None}
    return f"{', '.join(most)} and {last}" if most else last


def settings_table(results: Sequence[SettingResult]) -> pd.DataFrame:
    """Return one row per setting: raw fractions and seconds, with 95% intervals over subjects.

    `slice_majority` and `subject_majority` are what the larger class of the test alone gives;
    `one_class_runs` counts the runs that predict one class for all test slices; `chance_p` is the
    p of `AgainstChance`; `train_seconds` the mean over the runs. Scores that a record lacks are
    NaN. Source: Table 2.
    """
    return pd.DataFrame([_row(result) for result in results])


def _row(result: SettingResult) -> dict[str, Any]:
    epochs = sorted({run.epochs for run in result.runs})
    seconds = [run.metrics.get("train_seconds", nan) for run in result.runs]
    row: dict[str, Any] = {
        "run": result.key,
        "architecture": result.architecture,
        "name": result.name,
        "regime": result.regime,
        "split": result.split,
        "seed": ", ".join(map(str, result.seeds)),
        "folds": len(result.folds),
        "runs": len(result.runs),
        "epochs": epochs[0] if len(epochs) == 1 else " to ".join(map(str, (epochs[0], epochs[-1]))),
    }
    for subset in ("train", "val"):
        values = [run.score(subset, "slice_accuracy") for run in result.runs]
        row[f"{subset}_slice_accuracy"] = float(np.mean(values))
    for name, score in result.scores.items():
        row |= score_columns(name, score)
        row[f"test_{name}_seed_sd"] = score.sd
    return row | {
        "larger_class": result.majority.class_name,
        "slice_majority": result.majority.slice_share,
        "subject_majority": result.majority.subject_share,
        "one_class_runs": len(result.constant),
        "chance_p": result.chance.p,
        "positive_class": (result.runs[0].metrics.get("test") or {}).get("positive_class") or "",
        "test_slices": result.slices,
        "test_subjects": result.subjects,
        "train_seconds": float(np.mean(seconds)),
        "shared_subjects": result.shared_subjects,
        "marker": "; ".join(filter(None, [result.marker, first_try(result.runs[0])])),
    }
