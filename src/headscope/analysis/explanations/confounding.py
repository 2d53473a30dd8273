"""What age, sex, site and the like explain of a setting's accuracy, and what the network reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import nan
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from headscope.analysis.explanations.adjusted import adjusted_auc
from headscope.analysis.explanations.confounders import (
    Permuted,
    differs_by_class,
    full_test,
    partial_test,
)
from headscope.analysis.explanations.covariates import Covariates, has_value, read_covariates
from headscope.analysis.explanations.probes import CovariateProbe, probe_covariates
from headscope.analysis.explanations.strata import Stratum, strata_of
from headscope.analysis.results.paired import holm
from headscope.analysis.results.pooled import Pool, pool_runs
from headscope.analysis.results.settings import SettingResult, pooled_score, setting_results
from headscope.analysis.results.table import Score
from headscope.analysis.units import Array
from headscope.metrics import positive_class
from headscope.record import read_experiment
from headscope.tables import Cell, Column, Shown, Table
from headscope.threads import one_blas_thread

ALPHA = 0.05
DIFFERS = 0.01  # of a covariate that is flagged because it is read: most networks read age a little
FEWEST = 2  # test subjects of each class without which nothing is tested
Finding = Literal["explains", "reads", "coincides", ""]


@dataclass(frozen=True)
class Confounder:
    """What one covariate has to do with the predictions of one setting.

    Attributes
    ----------
    covariate, number
        Its name; whether it is a quantity.
    subjects, missing
        Test subjects with a value, and without.
    label_p
        Of the covariate being alike in all classes, over all subjects of the cohort, corrected for
        all covariates (Holm).
    partial, partial_p
        The test of predictions and covariate given the label, and its p corrected for all
        covariates (Holm).
    full
        The test of predictions and label given the covariate.
    auc, adjusted
        The AUC over these subjects, and among subjects of the same value.
    decides
        Whether each of its categories has test subjects of one class alone.
    finding
        Where the classes differ in it: "explains", the predictions beat chance and are not shown to
        tell the label given the covariate; "coincides", it decides the label, so that nothing can
        be told; "reads", the predictions tell it given the label, and p of a difference is at
        most 0.01.
    """

    covariate: str
    number: bool
    subjects: int
    missing: int
    label_p: float
    partial: Permuted
    partial_p: float
    full: Permuted
    auc: Score
    adjusted: Score
    decides: bool
    finding: Finding

    @property
    def read(self) -> bool:
        """Whether predictions tell the covariate given the label."""
        return self.partial_p <= ALPHA


@dataclass(frozen=True, eq=False, repr=False)
class Confounding(Shown):
    """What the covariates explain of one setting.

    confounders has one row per covariate, strata one per category, probes one per covariate
    (of its first run); notes say what was left out.
    """

    setting: str
    title: str
    better: bool
    confounders: tuple[Confounder, ...]
    strata: tuple[Stratum, ...]
    probes: tuple[CovariateProbe, ...]
    notes: tuple[str, ...]

    @cached_property
    def flagged(self) -> list[Confounder]:
        """The covariates with a finding, those first that could explain the accuracy."""
        order = ("coincides", "explains", "reads")
        flagged = [confounder for confounder in self.confounders if confounder.finding]
        return sorted(flagged, key=lambda confounder: order.index(confounder.finding))

    def tables(self) -> list[Table]:
        """Return the tests, and where they were made the strata and the probes."""
        tables = [tests_table(self)]
        if self.strata:
            tables.append(strata_table(self))
        return [*tables, probes_table(self)] if self.probes else tables


@one_blas_thread
def analyse_confounders(experiment: Path | str) -> list[Confounding]:
    """Test what the covariates of an experiment explain of its settings that keep subjects apart.

    Parameters
    ----------
    experiment
        Its folder, with `participants.tsv`.

    Returns
    -------
    list of Confounding
        One per setting; none where the experiment has no covariates or splits all subjects.

    Raises
    ------
    InputError
        The folder is no experiment.

    Examples
    --------
    >>> hs.analyse_confounders("first")  # without age, sex or site in the data
    []
    """
    covariates = read_covariates(experiment)
    results = setting_results(read_experiment(experiment))
    return [] if covariates is None else confounding(results, covariates)


def confounding(
    results: Sequence[SettingResult], covariates: Covariates, deep: Sequence[str] | None = None
) -> list[Confounding]:
    """Test each setting that keeps subjects apart; strata and probes for those `deep` by key."""
    return [
        _of_setting(result, covariates, deep is None or result.key in deep)
        for result in results
        if result.apart
    ]


def _of_setting(result: SettingResult, covariates: Covariates, deep: bool) -> Confounding:
    names = result.runs[0].class_names
    pool, changing = _one_label(pool_runs(result.runs))
    tested, notes = hold_against(pool, covariates, names, better=result.chance.better)
    if changing:
        notes.insert(0, f"Left out, as their class changes between sessions: {changing} subjects.")
    used = [test.covariate for test in tested if deep]
    return Confounding(
        setting=result.key,
        title=f"{result.architecture}, {result.name}, {result.split} split",
        better=result.chance.better,
        confounders=tuple(tested),
        strata=tuple(row for name in used for row in strata_of(name, pool, covariates, names)),
        probes=tuple(probe_covariates(result.runs[0], covariates, used)) if used else (),
        notes=tuple(notes),
    )


def hold_against(
    pool: Pool, covariates: Covariates, class_names: Sequence[str], *, better: bool
) -> tuple[list[Confounder], list[str]]:
    """Return the tests of each covariate over subjects of one label, and notes on what is left out.

    better says whether the predictions beat chance: what does not needs no explanation.
    """
    tested, notes = [], []
    for name in covariates.columns:
        values, given = covariates.of(name, pool.ids)
        part, missing = pool.restrict(given), int((~given).sum())
        reason = _untested(part, values[given])
        if reason:
            notes.append(f"{name} is not tested: {reason}.")
        else:
            tested.append(_test(name, part, values[given], covariates, class_names, missing))
            if not (tested[-1].full.permutations or tested[-1].decides):
                notes.append(
                    f"Whether {name} explains the classes cannot be tested: no fold has test "
                    "subjects of two classes that could be exchanged."
                )
        if covariates.varying.get(name):
            count = covariates.varying[name]
            notes.append(f"{name} changes between sessions of {count} subjects: the first counts.")
    read = holm([test.partial.p for test in tested])  # for the number of covariates
    differ = holm([test.label_p for test in tested])
    corrected = [
        replace(test, partial_p=float(partial_p), label_p=float(label_p))
        for test, partial_p, label_p in zip(tested, read, differ, strict=True)
    ]
    return [replace(test, finding=_finding(test, better)) for test in corrected], notes


def _one_label(pool: Pool) -> tuple[Pool, int]:
    """Return the tests of subjects that have one label, and how many have several."""
    owners = np.concatenate([test.subjects.owner for test in pool.tests])
    labels = np.concatenate([test.subjects.labels for test in pool.tests])
    pairs = np.unique(np.column_stack([owners, labels]), axis=0)
    one = np.bincount(pairs[:, 0], minlength=len(pool.ids)) == 1
    return (pool, 0) if one.all() else (pool.restrict(one), int((~one).sum()))


def _untested(pool: Pool, values: Array) -> str:
    """Say why nothing can be tested; nothing where it can."""
    if not len(values):
        return "no test subject has a value"
    if (values == values[0]).all():
        return f"it is {values[0]} for every test subject"
    counts = np.bincount(pool.labels, minlength=pool.class_count)
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < FEWEST:
        return f"a class has fewer than {FEWEST} test subjects with a value"
    return ""


def _test(
    name: str,
    pool: Pool,
    values: Array,
    covariates: Covariates,
    class_names: Sequence[str],
    missing: int,
) -> Confounder:
    """Make both tests of one covariate, and the adjusted area; all are judged together later."""
    groups = _groups(pool)
    place = {label: k for k, label in enumerate(class_names)}
    everyone = covariates.columns[name]
    inside = has_value(everyone) & np.isin(covariates.labels, class_names)
    labels = np.array([place[label] for label in covariates.labels[inside]], dtype=np.int64)
    within = pooled_ranks(pool, by_class=True)
    number = bool(np.issubdtype(values.dtype, np.number))
    pairs = {*zip(values.tolist(), pool.labels.tolist(), strict=True)}
    full = full_test(
        pooled_ranks(pool), pool.labels, values, groups, reference=(labels, everyone[inside])
    )
    return Confounder(
        covariate=name,
        number=number,
        subjects=len(values),
        missing=missing,
        label_p=differs_by_class(labels, everyone[inside]),
        partial=partial_test(within, pool.labels, values, groups),
        partial_p=nan,
        full=full,
        auc=pooled_score(pool, "subject_auc", class_names),
        adjusted=adjusted_auc(pool, values, positive_class(class_names)),
        decides=not number and len(pairs) == len(set(values.tolist())),
        finding="",
    )


def _finding(confounder: Confounder, better: bool) -> Finding:
    """Return what both tests come to, where the classes differ in the covariate."""
    if not confounder.label_p <= ALPHA:
        return ""
    if confounder.decides:
        return "coincides"
    if better and confounder.full.p > ALPHA:
        return "explains"
    return "reads" if confounder.read and confounder.label_p <= DIFFERS else ""


def pooled_ranks(pool: Pool, *, by_class: bool = False) -> Array:
    """Return the sum over tests of each subject's rank among those of its test, (S, m).

    As shares, less their mean (of the class); m is 1 for two classes, that of class 1, else K.
    """
    classes = [1] if pool.class_count == 2 else list(range(pool.class_count))
    ranks = np.zeros((len(pool.ids), len(classes)))
    for test in pool.tests:
        units = test.subjects
        for column, k in enumerate(classes):
            share = rankdata(units.margin(k)) / max(len(units.labels), 1)
            for cell in np.unique(units.labels) if by_class else [None]:
                rows = units.labels == cell if by_class else np.ones(len(share), dtype=bool)
                np.add.at(ranks[:, column], units.owner[rows], share[rows] - share[rows].mean())
    return ranks


def _groups(pool: Pool) -> Array:
    """Return the fold of each subject (S,) where all seeds have the same, else one for all."""
    folds = np.full((len(pool.seeds), len(pool.ids)), -1)
    for row, tests in zip(folds, pool.seeds, strict=True):
        for number, test in enumerate(tests):
            row[test.subjects.owner] = number
    return folds[0] if (folds == folds[0]).all() else np.zeros(len(pool.ids), dtype=np.int64)


def tests_table(*results: Confounding) -> Table:
    """Return the tests of settings, one row per covariate."""
    columns = (
        *("Setting", "Covariate", Column("Test subjects", "", "count")),
        Column("Alike in the classes", "p", "probability"),
        Column("Read, given the class", "p", "probability"),
        Column("Class told, given it", "p", "probability"),
        Column("AUC", "", "fraction", interval=True),
        Column("Adjusted AUC", "", "fraction", interval=True),
    )
    rows = []
    for result in results:
        for confounder in result.confounders:
            cell = partial(_cell, result.setting, confounder.covariate)
            rows.append(
                [
                    result.title,
                    confounder.covariate,
                    cell("subjects", confounder.subjects),
                    cell("label_p", confounder.label_p),
                    cell("partial_p", confounder.partial_p),
                    cell("full_p", confounder.full.p),
                    cell("auc", confounder.auc),
                    cell("adjusted_auc", confounder.adjusted),
                ]
            )
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return Table("Confounder tests", columns, rows, list(notes))


def strata_table(result: Confounding) -> Table:
    """Return accuracy and AUC within strata."""
    columns = (
        *("Covariate", "Among", Column("Test subjects", "", "count")),
        Column("Subject accuracy", "%", "percent", interval=True),
        Column("AUC", "", "fraction", interval=True),
    )
    rows: list[list[object]] = []
    for row in result.strata:
        cell = partial(_cell, result.setting, f"{row.covariate}.{row.level}")
        scores = (cell("subject_accuracy", row.accuracy), cell("subject_auc", row.auc))
        rows.append([row.covariate, row.level, cell("subjects", row.subjects), *scores])
    return Table(f"Within strata: {result.title}", columns, rows)


def probes_table(result: Confounding) -> Table:
    """Return how well features tell covariates."""
    columns = (
        *("Covariate", "Told apart", Column("Subjects", "", "count")),
        Column("Balanced accuracy", "%", "percent"),
        Column("Chance", "%", "percent"),
    )
    rows: list[list[object]] = []
    for probe in result.probes:
        cell = partial(_cell, result.setting, f"{probe.covariate}.probe")
        scores = (cell("accuracy", probe.accuracy), cell("chance", probe.chance))
        levels = ", ".join(probe.levels)
        rows.append([probe.covariate, levels, cell("subjects", probe.subjects), *scores])
    return Table(f"Features and covariates: {result.title}", columns, rows)


def _cell(setting: str, covariate: str, name: str, value: Score | float) -> Cell:
    """Return a number as a cell that says where it comes from."""
    score = value if isinstance(value, Score) else Score(value)
    low, high = score.interval or (None, None)
    quantity = f"confounder.{covariate}.{name}"
    return Cell(score.value, low, high, run=setting, quantity=quantity)
