"""Table 1: subjects, sessions, slices, classes, age and sex of each subset, with tests."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from headscope.files import NO_ID
from headscope.record import SUBSETS, Run
from headscope.tables import Table
from headscope.text import MISSING, probability, show

TITLES: Final = {"all": "All", "train": "Training", "val": "Validation", "test": "Test"}
LEAST_EXPECTED: Final = 5  # of a cell, for the chi-squared test; Fisher's holds below it
RESAMPLES: Final = 9_999  # of Fisher's test on tables larger than two by two
SEXES: Final = {"f", "female", "woman", "m", "male", "man"}
SHARED: Final = "not tested: subsets share subjects"
NAMELESS: Final = "not tested: the pictures name no subjects"
ALIKE: Final = "not tested: all have the same value"
NOT_RECORDED: Final = "not recorded"


@dataclass(frozen=True)
class Entry:
    """A number of a subset: a count, with the `of` that it is a share of; or a mean with its sd."""

    count: int | None
    of: int | None = None
    mean: float = nan
    sd: float = nan

    @property
    def text(self) -> str:
        """As the table shows it."""
        if self.count is None:
            return "unknown"
        if self.of is not None:
            share = f" ({100 * self.count / self.of:.0f}%)" if self.of else ""
            return f"{show(self.count, 'count')}{share}"
        if isnan(self.mean):
            return show(self.count, "count")
        spread = "" if isnan(self.sd) else f" ({self.sd:.1f})"
        return f"{self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Characteristic:
    """One row: entries by subset, and the test of whether the subsets differ.

    p is NaN where there is no test; `test` then says why, or is empty.
    """

    name: str
    entries: Mapping[str, Entry]
    test: str = ""
    p: float = nan


def characteristics(run: Run, participants: pd.DataFrame) -> list[Characteristic]:
    """Return the rows of Table 1 by one run's split, whose predictions say who is in which subset.

    participants: subject_id with age (years) and sex; either may be missing. A subject counts once,
    with its lowest age.
    """
    slices = run.predictions
    named = slices[slices["subject_id"] != NO_ID]
    whole = len(named) == len(slices)
    groups = _by_subset(named, named)
    rows = [
        _count("Subjects", groups, ["subject_id"], whole),
        _count("Sessions", groups, ["subject_id", "session_id"], whole),
    ]
    everything = _by_subset(slices, slices)
    rows.append(Characteristic("Slices", {k: Entry(len(part)) for k, part in everything.items()}))
    if not whole:
        for name in run.class_names:
            counts = {k: int((part["label"] == name).sum()) for k, part in everything.items()}
            entries = {k: Entry(count, len(everything[k])) for k, count in counts.items()}
            rows.append(Characteristic(f"Slices of {name}", entries, NAMELESS))
        return rows
    subjects = named[["subject_id", "subset", "label"]].drop_duplicates().reset_index(drop=True)
    shared = bool(subjects["subject_id"].duplicated().any())
    rows += _shares(subjects, "label", run.class_names, "Class", shared)
    described = _described(subjects, participants)
    if "sex" in described:
        values = sorted(described["sex"].dropna().unique())
        rows += _shares(described.dropna(subset="sex"), "sex", values, "Sex", shared)
    if "age" in described:
        rows.append(_ages(described.dropna(subset="age"), shared))
    return rows


def characteristics_table(run: Run, participants: pd.DataFrame) -> Table:
    """Return Table 1 as it is read: counts with shares, means with standard deviations."""
    rows = characteristics(run, participants)
    lines = []
    for row in rows:
        p = probability(row.p) if not isnan(row.p) else MISSING if row.test else ""
        lines.append([row.name, *(row.entries[k].text for k in TITLES), p, row.test])
    setting = run.setting
    fold = f", fold {setting.fold_text}" if setting.fold_text else ""
    title = f"Subjects by subset: {setting.split} split{fold}, seed {setting.seed}"
    return Table(title, ["Characteristic", *TITLES.values(), "p", "Test"], lines, _notes(rows, run))


def characteristics_frame(run: Run, participants: pd.DataFrame) -> pd.DataFrame:
    """Return Table 1 in full numbers: one row per characteristic and subset."""
    setting = run.setting
    split = {"split": setting.split, "seed": setting.seed, "fold": setting.fold_text}
    return pd.DataFrame(
        [
            {**split, "characteristic": row.name, "subset": subset, **asdict(entry),
             "test": row.test, "p": row.p}
            for row in characteristics(run, participants)
            for subset, entry in row.entries.items()
        ]
    ).astype({"count": "Int64", "of": "Int64"})  # fmt: skip


def unrecorded(rows: list[Characteristic], class_names: Sequence[str]) -> list[str]:
    """Return which of Age and Sex no row has; where the classes are the sexes, Sex is theirs."""
    names = {row.name.partition(",")[0].partition(" of ")[0] for row in rows}
    if {name.casefold() for name in class_names} <= SEXES:
        names.add("Sex")
    return [name for name in ("Age", "Sex") if name not in names]


def _notes(rows: list[Characteristic], run: Run) -> list[str]:
    notes = [
        "Counts with shares of the subset's subjects; age is the mean (standard deviation) in "
        "years at the first session that has one. p tests whether the three subsets differ."
    ]
    notes += _without(rows)
    missing = unrecorded(rows, run.class_names)
    if missing and run.named:
        notes.append(f"{' and '.join(missing)}: {NOT_RECORDED}.")
    labels = run.predictions.drop_duplicates(["subject_id", "label"])
    twice = int(labels["subject_id"].duplicated().sum())
    if twice and run.named:
        notes.append(f"Subjects whose label changes between sessions count under each: {twice}.")
    return notes


def _without(rows: list[Characteristic]) -> list[str]:
    """Say how many subjects have no age or sex, over which shares and means are not taken."""
    subjects = rows[0].entries["all"].count or 0
    entries = {row.name.partition(",")[0].lower(): row.entries["all"] for row in rows}
    counts = {name: entry.of or entry.count or 0 for name, entry in entries.items()}
    lacking = [
        f"{name} of {subjects - counts[name]}"
        for name in ("age", "sex")
        if 0 < counts.get(name, 0) < subjects
    ]
    if not lacking:
        return []
    noun = "subject" if lacking[-1].endswith(" 1") else "subjects"
    return [f"Missing: {' and '.join(lacking)} {noun}; shares and means are of the others."]


def _count(
    name: str, groups: Mapping[str, pd.DataFrame], key: list[str], whole: bool
) -> Characteristic:
    counts = {k: len(part.drop_duplicates(key)) if whole else None for k, part in groups.items()}
    return Characteristic(name, {k: Entry(count) for k, count in counts.items()})


def _by_subset(rows: pd.DataFrame, everything: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"all": everything} | {name: rows[rows["subset"] == name] for name in SUBSETS}


def _described(subjects: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """Return one row per subject and subset, with its age and sex where they are known."""
    once = subjects.drop_duplicates(["subject_id", "subset"]).drop(columns="label")
    for name in ("age", "sex"):
        if name in participants.columns:
            # the lowest age is that of the first session, whatever pseudonyms did to their order
            values = participants.dropna(subset=name).groupby("subject_id")[name].min()
            once = once.merge(values, left_on="subject_id", right_index=True, how="left")
    return once


def _shares(
    subjects: pd.DataFrame, column: str, values: list[str], title: str, shared: bool
) -> list[Characteristic]:
    """Return a row per value: how many subjects of each subset have it, and a test."""
    groups = _by_subset(subjects, subjects.drop_duplicates(["subject_id", column]))
    of = {k: part["subject_id"].nunique() for k, part in groups.items()}
    test, p = SHARED, nan
    if not shared:
        test, p = independence(pd.crosstab(subjects[column], subjects["subset"]).to_numpy())
    elif subjects.drop_duplicates(["subject_id", "subset"])["subject_id"].is_unique:
        first = subjects.drop_duplicates("subject_id")
        test, p = independence(pd.crosstab(first[column], first["subset"]).to_numpy())
        test += ", by first label" * (not isnan(p))
    rows = []
    for value in values:
        counts = {k: int((part[column] == value).sum()) for k, part in groups.items()}
        entries = {k: Entry(count, of[k]) for k, count in counts.items()}
        rows.append(Characteristic(f"{title}, {value}", entries, test, p))
        test, p = "", nan  # stand beside the first value alone
    return rows


def _ages(subjects: pd.DataFrame, shared: bool) -> Characteristic:
    groups = _by_subset(subjects, subjects.drop_duplicates("subject_id"))
    entries = {}
    for name, part in groups.items():
        ages = part["age"].astype(float)
        sd = float(ages.std()) if len(ages) > 1 else nan
        entries[name] = Entry(len(ages), None, float(ages.mean()) if len(ages) else nan, sd)
    apart = subjects["subject_id"].is_unique
    test, p = SHARED, nan
    if apart or not shared:
        parts = [groups[name]["age"].to_numpy(float) for name in SUBSETS]
        test, p = location([part for part in parts if len(part)])
    return Characteristic("Age, years", entries, test, p)


def independence(counts: Any) -> tuple[str, float]:
    """Test whether values differ between subsets: the test's name and p, or why there is none.

    counts (values, subsets) of subjects. The chi-squared test where every expected count is 5 or
    more, else Fisher's exact test, by resampling on tables larger than two by two.
    """
    counts = np.asarray(counts)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    if min(counts.shape, default=0) < 2:
        return ALIKE, nan
    expected = stats.contingency.expected_freq(counts)
    if expected.min() >= LEAST_EXPECTED:
        return "chi-squared", float(stats.chi2_contingency(counts, correction=False).pvalue)
    if counts.shape == (2, 2):
        return "Fisher", float(stats.fisher_exact(counts).pvalue)
    return "Fisher, resampled", _fisher_resampled(counts)


def _fisher_resampled(counts: Any) -> float:
    """Return Fisher's p over tables of the same margins: the share that is no likelier."""
    tables = stats.random_table(counts.sum(axis=1), counts.sum(axis=0), seed=0)
    drawn = tables.rvs(RESAMPLES)
    observed, likelihoods = tables.logpmf(counts), tables.logpmf(drawn)
    return float((1 + (likelihoods <= observed + 1e-9).sum()) / (1 + RESAMPLES))


def location(groups: list[Any]) -> tuple[str, float]:
    """Test whether a number differs between subsets: the test's name and p, or why there is none.

    Welch's t-test of two groups, Kruskal and Wallis' of three or more.
    """
    if len(groups) < 2 or np.ptp(np.concatenate(groups)) == 0:
        return ALIKE, nan
    if len(groups) > 2:
        return "Kruskal-Wallis", float(stats.kruskal(*groups).pvalue)
    if min(map(len, groups)) < 2:
        return "not tested: one subject in a subset", nan
    if max(map(np.ptp, groups)) == 0:
        return "not tested: no spread within the subsets", nan
    return "Welch's t", float(stats.ttest_ind(*groups, equal_var=False).pvalue)
