"""A table of participants joined with the scans whose names contain its ids."""

import re
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import ID, session_of
from headscope.cohort.tables import MISSING, counted, listed, numbers_in, rows_by_subject
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError

AGE, SEX = "_age", "_sex"  # columns of ours, which no table has
AGES: Final = ("age", "age_years", "age_at_scan", "age_at_visit", "age_at_entry")
SEXES: Final = ("sex", "gender", "m/f", "f/m", "ptgender")
WORDS: Final = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}


def describe_subjects(scans: pd.DataFrame) -> pd.DataFrame:
    """Return age in years and sex of each scan's subject, in `AGE` and `SEX`, as a table has them.

    A column is taken by its name (age, sex, gender, M/F). Ages that are no numbers are missing;
    values of sex other than words for female and male stay as they are.
    """
    columns = {name.casefold(): name for name in reversed(list(map(str, scans.columns)))}
    age = next((columns[name] for name in AGES if name in columns), None)
    sex = next((columns[name] for name in SEXES if name in columns), None)
    described = pd.DataFrame(index=scans.index)
    if age is not None:
        described[AGE] = numbers_in(scans[age].mask(scans[age].isin(MISSING)))
    if sex is not None:
        values = scans[sex].astype(str)
        words = values.str.casefold().map(WORDS)
        described[SEX] = words.fillna(values).mask(values.isin(MISSING))
    return described


def join_participants(path: Path, table: pd.DataFrame, names: list[str]) -> Layout:
    """Join a table of participants with the scans whose names contain its ids."""
    column, subjects = _id_column(table, names)
    if column is None:
        raise InputError(
            f"No column of {path} holds ids that the names of the scans contain, such as "
            f"{names[0]!r}: it has {listed(table.columns)}."
        )
    table = rows_by_subject(path, table, column)
    notes = [Note(f"Subject ids come from the column {column} of {path.name}.")]
    scans = pd.DataFrame(
        {"path": names, "subject_id": subjects, "session_id": map(session_of, names)}
    )
    unnamed = scans.loc[scans["subject_id"].isna(), "path"]
    if len(unnamed):
        text = (
            f"Left out, as their names hold no id of {path.name}: "
            f"{counted(len(unnamed), 'scan')}, the first {unnamed.iloc[0]}."
        )
        notes.append(Note(text, names_ids=True))
    without = len(set(table[ID]) - set(subjects))
    if without:
        notes.append(Note(f"Rows of {path.name} without a scan: {without}."))
    joined = scans.merge(table, left_on="subject_id", right_on=ID)
    return Layout("participants table", joined, notes=notes)


def _id_column(table: pd.DataFrame, names: list[str]) -> tuple[str | None, list[str | None]]:
    """Return the column whose values most names contain, and the id in each name."""
    best: tuple[str | None, list[str | None]] = (None, [None] * len(names))
    most = 0
    runs_of_names = [_token_runs(name) for name in names]
    for column in table.columns:
        ids = {_tokens(value): value for value in table[column] if value not in MISSING}
        subjects = [next((ids[run] for run in runs if run in ids), None) for runs in runs_of_names]
        matches = sum(subject is not None for subject in subjects)
        if matches > most:
            most, best = matches, (column, subjects)
    return best


def _token_runs(name: str) -> list[tuple[str, ...]]:
    """Return the runs of whole tokens in a path, longest first: Subj1 is no part of Subj10."""
    tokens = _tokens(name)
    spans = [(a, b) for a in range(len(tokens)) for b in range(a + 1, len(tokens) + 1)]
    spans.sort(key=lambda span: (span[0] - span[1], -span[0]))
    return [tokens[a:b] for a, b in spans]


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token for token in re.split(r"[^A-Za-z0-9]+", text) if token)
