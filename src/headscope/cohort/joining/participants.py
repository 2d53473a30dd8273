"""A table of participants joined with the scans: the row and the subject of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.folders import name_subjects
from headscope.cohort.ids import SESSION, session_of
from headscope.cohort.joining.columns import (
    all_numbers,
    choose_subject,
    may_be_ids,
    name_files,
    role_of,
)
from headscope.cohort.joining.matching import (
    Matches,
    Names,
    match_files,
    match_key,
    match_sessions,
    match_values,
)
from headscope.cohort.pictures import subjects_by_pattern
from headscope.cohort.tables import MISSING, check_subjects, counted, listed
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError

OURS: Final = ("path", "subject_id", "session_id")
Values = Sequence[str | None]  # of a column, in the names of the scans


@dataclass
class Join:
    """A table, which of its rows is each scan's, and the key that tells a subject's rows apart."""

    table: pd.DataFrame
    rows: list[int | None]
    key: str | None = None
    notes: list[Note] = field(default_factory=list)


def join_participants(
    path: Path,
    table: pd.DataFrame,
    names: list[str],
    label: str | None = None,
    pattern: str | None = None,
) -> Layout:
    """Join a table of participants with the scans whose names contain its ids.

    The subject of a scan and its row are two questions. The subject is in the column that is named
    as subjects are, else in that of the fewest ids among those in most names, else in the names;
    never in the label, nor in names of files. The row is that of the subject; where a subject has
    several, a further column in the names decides, as an image or a session.
    """
    table = table.drop_duplicates(ignore_index=True)
    matches = _match_columns(table, names, label)
    given = None if pattern is None else subjects_by_pattern(names, pattern)
    if given is None:
        column, notes = choose_subject(path, table, matches, names)
    else:
        column, notes = _column_of(table, matches, given)
    key = _best_key(table, matches, column)
    count = 0 if column is None else matches[column].count
    by_scan = key is not None and role_of(key) == "scan" and matches[key].count >= count
    if column is not None and count and not (by_scan or (key and matches[key].count > count)):
        in_sessions = any(map(SESSION.search, names))
        join = _join_by_subject(path, table, column, matches, label, in_sessions=in_sessions)
        subjects: Values = matches[column].in_names
    elif key is not None:
        if column is not None and not matches[column].loose:
            _check_agree(path, table, (column, key), matches)
        join = Join(table, _look_up(table, {key: matches[key].in_names}), key)
        subjects, origin = _subjects_of_rows(path, join, column, names)
        notes = [*notes, *origin]
    else:
        raise InputError(
            f"No column of {path} holds ids that the names of the scans contain, such as "
            f"{names[0]!r}: it has {listed(table.columns)}. If one holds the subjects, call it "
            "subject_id."
        )
    if given is not None:
        text = "Subject ids come from the pattern in the names."
        subjects, notes = given, [Note(text, about="ids")]
    return _layout(path, names, join, subjects, column, notes)


def _match_columns(
    table: pd.DataFrame, names: Sequence[str], label: str | None
) -> dict[str, Matches]:
    """Return what the names hold of each column that may be ids."""
    paths = Names(names)
    matches = {}
    for column in table.columns:
        if column != label and may_be_ids(table, column):
            match = match_sessions if role_of(column) == "session" else match_values
            match = match_files if name_files(table[column]) else match
            matches[column] = match(table[column], paths)
    return matches


def _column_of(
    table: pd.DataFrame, matches: dict[str, Matches], subjects: list[str]
) -> tuple[str | None, list[Note]]:
    """Return the column of the ids that a pattern finds, which is then matched with these alone."""
    texts = Names(subjects)
    by_id = {name: match_values(table[name], texts) for name in matches}
    column = max(by_id, key=lambda name: by_id[name].count, default=None)
    if column is None or not by_id[column].count:
        return None, []
    matches[column] = by_id[column]
    return column, []


def _best_key(
    table: pd.DataFrame, matches: Mapping[str, Matches], column: str | None
) -> str | None:
    """Return the column beside the subjects' that is in most names and finds one row for each.

    Numbers beside a column of subjects are none, but for those of images: they may count rows.
    """

    def finds_one(name: str, match: Matches) -> bool:
        if column is not None and role_of(name) != "scan" and all_numbers(table[name]):
            return False
        values = table.loc[table[name].isin(set(match.in_names) - {None}), name]
        return match.count > 0 and not match.problem and not values.duplicated().any()

    keys = [
        name
        for name, match in matches.items()
        if name != column and role_of(name) != "session" and finds_one(name, match)
    ]
    return max(keys, key=lambda name: matches[name].count, default=None)


def _join_by_subject(
    path: Path,
    table: pd.DataFrame,
    column: str,
    matches: Mapping[str, Matches],
    label: str | None,
    *,
    in_sessions: bool,
) -> Join:
    """Find the row of each scan by its subject, and by a key where a subject has several."""
    check_subjects(path, column, table[column])
    subjects = matches[column].in_names
    counts = Counter(table[column])
    needed = [at for at, subject in enumerate(subjects) if subject and counts[subject] > 1]
    if not needed:
        return Join(table, _look_up(table, {column: subjects}))
    joins = []
    for key, match in matches.items():
        rows = _look_up(table, {column: subjects, key: match.in_names})
        count = sum(rows[at] is not None for at in needed)
        sure = role_of(key) == "scan" or (role_of(key) == "session" and in_sessions)
        enough = count == len(needed) or (count > 0 and sure)
        if key != column and enough and not _follows(needed, subjects, match.in_names, rows):
            joins.append((count, role_of(key) == "scan", Join(table, rows, key)))
    if not joins:
        return _join_by_common(path, table, column, subjects, label)
    join = max(joins, key=lambda item: item[:2])[2]
    alone = _look_up(table, {column: subjects})  # the row of a subject that has but one
    join.rows = [only if row is None else row for row, only in zip(join.rows, alone, strict=True)]
    return join


def _follows(needed: list[int], subjects: Values, values: Values, rows: list[int | None]) -> bool:
    """Return whether a key may be the subject's own number: equal to it, or one row per subject."""
    equal = all(match_key(subjects[at]) == match_key(values[at]) for at in needed)
    count = len({subjects[at] for at in needed})
    used = {rows[at] for at in needed if rows[at] is not None}
    return equal or (len(needed) > count >= len(used))


def _look_up(table: pd.DataFrame, values: Mapping[str, Values]) -> list[int | None]:
    """Return the row that has the values of each scan, None where none or several have them."""
    keys = [*zip(*(table[name] for name in values), strict=True)]
    counts = Counter(keys)
    rows = {key: row for row, key in enumerate(keys) if counts[key] == 1}
    return [rows.get(key) for key in zip(*values.values(), strict=True)]


def _check_agree(
    path: Path, table: pd.DataFrame, columns: tuple[str, str], matches: Mapping[str, Matches]
) -> None:
    """Refuse a name that holds a subject and the key of another subject's row."""
    column, key = columns
    join = Join(table, _look_up(table, {key: matches[key].in_names}))
    pairs = zip(matches[column].in_names, _values_of(join, column), strict=True)
    for at, (subject, other) in enumerate(pairs):
        if None not in (subject, other) and subject != other:
            raise InputError(
                f"The name of a scan holds {subject} and {matches[key].in_names[at]}, which {path} "
                f"gives to {other}: correct the table, the name, or the column {column}."
            )


def _join_by_common(
    path: Path, table: pd.DataFrame, column: str, subjects: Values, label: str | None
) -> Join:
    """Take what all rows of a subject agree on; refuse rows that differ in the label."""
    used = table[table[column].isin(set(subjects) - {None})]
    counts = used.groupby(column, sort=False).nunique()
    differ = [name for name in counts.columns if (counts[name] > 1).any()]
    if label in differ or any(role_of(name) == "class" for name in differ if label is None):
        several = used.loc[used[column].duplicated(), column]
        raise InputError(
            f"{path} has several rows for {counted(several.nunique(), 'participant')}, the first "
            f"{several.iloc[0]!r}, and the names of the scans do not say which is theirs: give a "
            "scans.tsv with path, subject_id, session_id and label."
        )
    text = f"{path.name} has several rows for a subject: of columns in which they differ "
    text += f"({listed(differ)}) nothing is taken."
    table = table.drop(columns=differ).drop_duplicates(column, ignore_index=True)
    return Join(table, _look_up(table, {column: subjects}), notes=[Note(text)])


def _subjects_of_rows(
    path: Path, join: Join, column: str | None, names: list[str]
) -> tuple[Values, list[Note]]:
    """Return the subjects that the scans' rows name; where no column does, those of their names."""
    if column is None:
        return name_subjects(names, None, nested=False)
    rows = [row for row in join.rows if row is not None]
    check_subjects(path, column, join.table[column].loc[sorted(set(rows))])
    return _values_of(join, column), []


def _layout(
    path: Path,
    names: list[str],
    join: Join,
    subjects: Values,
    column: str | None,
    notes: list[Note],
) -> Layout:
    """Return the scans that have a subject and a row, with the columns of the table."""
    scans = pd.DataFrame({"path": names, "subject_id": subjects, "row": join.rows})
    scans["session_id"], by_table = _sessions(names, join)
    if join.key is not None:
        where = f" and sessions from {by_table}" if by_table else ""
        notes = [*notes, Note(f"Rows of {path.name} are found by {join.key}{where}.")]
    notes = [*notes, *join.notes]
    nameless, rowless = scans["subject_id"].isna(), scans["row"].isna()
    for left, why in (
        (nameless | (rowless & (join.key is None)), f"their names hold no id of {path.name}"),
        (rowless & ~nameless & (join.key is not None), f"{path.name} has no row for them"),
    ):
        if left.any():
            first = scans.loc[left, "path"].iloc[0]
            text = f"Left out, as {why}: {counted(int(left.sum()), 'scan')}, the first {first}."
            notes.append(Note(text, names_ids=True, about="left out"))
    without = len(join.table) - scans["row"].nunique()
    if without:
        notes.append(Note(f"Rows of {path.name} without a scan: {without}.", about="left out"))
    columns = join.table.drop(columns=[*OURS, column or ""], errors="ignore")
    joined = scans[~rowless & ~nameless].merge(columns, left_on="row", right_index=True)
    return Layout("participants table", joined.drop(columns="row"), notes=notes)


def _sessions(names: list[str], join: Join) -> tuple[list[str], str]:
    """Return the sessions in the names; where these hold none, those of the scans' rows."""
    column = next((name for name in join.table.columns if role_of(name) == "session"), "")
    if not column or join.key is None or any(map(SESSION.search, names)):
        return [session_of(name) for name in names], ""
    values = _values_of(join, column)
    return ["1" if value is None or value in MISSING else value for value in values], column


def _values_of(join: Join, column: str) -> list[str | None]:
    """Return the value of a column for each scan."""
    values = list(join.table[column])
    return [None if row is None else values[row] for row in join.rows]
