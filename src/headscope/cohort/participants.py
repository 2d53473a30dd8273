"""A table of participants joined with the scans in whose names its ids stand."""

import re
from pathlib import Path

import pandas as pd

from headscope.cohort.ids import ID, Found, session_of
from headscope.cohort.tables import MISSING, check_subjects, counted, listed
from headscope.errors import InputError


def join_participants(path: Path, table: pd.DataFrame, names: list[str]) -> Found:
    """Join a table of participants with the scans in whose names its ids stand."""
    column, subjects = _id_column(table, names)
    if column is None:
        raise InputError(
            f"No column of {path} holds ids that stand in the names of the scans, such as "
            f"{names[0]!r}: it has {listed(table.columns)}."
        )
    check_subjects(path, column, table[column])
    scans = pd.DataFrame({"path": names, "subject_id": subjects})
    unknown = scans["subject_id"].isna()
    table = table.drop_duplicates()
    twice = table.loc[table[column].duplicated(), column]
    if len(twice):
        raise InputError(
            f"{path} has several rows for {counted(twice.nunique(), 'participant')}, the first "
            f"{twice.iloc[0]!r}: give a scans.tsv with path, subject_id, session_id and label."
        )
    notes = [f"Subject ids come from the column {column} of {path.name}."]
    if unknown.any():
        notes.append(
            f"Left out, as their names hold no id of {path.name}: "
            f"{counted(unknown.sum(), 'scan')}, the first {scans.loc[unknown, 'path'].iloc[0]}."
        )
    scans = scans[~unknown].assign(
        session_id=[session_of(name) for name in scans.loc[~unknown, "path"]]
    )
    without = len(set(table[column]) - set(scans["subject_id"]))
    if without:
        notes.append(f"Rows of {path.name} without a scan: {without}.")
    ours = [
        name
        for name in ("path", "subject_id", "session_id")
        if name in table.columns and name != column
    ]
    joined = scans.merge(
        table.drop(columns=ours).rename(columns={column: ID}), left_on="subject_id", right_on=ID
    )
    return Found("participants table", joined, None, notes=notes)


def _id_column(table: pd.DataFrame, names: list[str]) -> tuple[str | None, list[str | None]]:
    """Return the column whose values stand in most names, and the id of each name."""
    best: tuple[str | None, list[str | None]] = (None, [None] * len(names))
    runs = [_token_runs(name) for name in names]
    for column in table.columns:
        ids = {_tokens(value): value for value in table[column] if value not in MISSING}
        subjects = [next((ids[run] for run in own if run in ids), None) for own in runs]
        if _known(subjects) > _known(best[1]):
            best = (column, subjects)
    return best


def _known(subjects: list[str | None]) -> int:
    return sum(subject is not None for subject in subjects)


def _token_runs(name: str) -> list[tuple[str, ...]]:
    """Return the runs of whole tokens in a path, longest first: Subj1 is no part of Subj10."""
    tokens = _tokens(name)
    spans = [(a, b) for a in range(len(tokens)) for b in range(a + 1, len(tokens) + 1)]
    spans.sort(key=lambda span: (span[0] - span[1], -span[0]))
    return [tokens[a:b] for a, b in spans]


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token for token in re.split(r"[^A-Za-z0-9]+", text) if token)
