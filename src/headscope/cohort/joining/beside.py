"""The tables beside the scans: which of them gives a layout, and what others offer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from headscope.cohort.folders import inside
from headscope.cohort.joining.participants import join_participants
from headscope.cohort.joining.subjects import apply_pattern
from headscope.cohort.labels import MOST_CLASSES
from headscope.cohort.oasis import is_oasis1, is_oasis2, read_oasis1, read_oasis2
from headscope.cohort.tables import has_value, listed, read_any_table
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError


def read_by_tables(
    data: Path,
    tables: Sequence[Path],
    names: list[str],
    label: str | None,
    plane: str,
    pattern: str | None,
) -> Layout | None:
    """Return the layout by the first table that gives one; refuse a label that none has."""
    unreadable: list[InputError] = []
    readable: dict[Path, pd.DataFrame] = {}
    for path in tables:
        try:
            table = read_any_table(path)
        except InputError as error:  # a table of something else need not be one for us
            if path.stem.lower() == "participants" or "oasis" in path.stem.lower():
                raise
            unreadable.append(error)
            continue
        if is_oasis1(table, names):
            return apply_pattern(read_oasis1(path, table, names), pattern)
        if is_oasis2(table):
            return apply_pattern(read_oasis2(path, table, names, plane), pattern)
        readable[path] = table
    fitting = [path for path, table in readable.items() if label in table.columns]
    fitting = fitting or [path for path in readable if path.stem.lower() == "participants"]
    if fitting:
        return _join_first({path: readable[path] for path in fitting}, names, label, pattern)
    if unreadable and (label is not None or not any("/" in name for name in names)):
        raise unreadable[0]
    if label is not None:
        seen = "; ".join(f"{path.name} ({listed(readable[path].columns)})" for path in readable)
        books = [path.name for path in sorted(data.glob("*.xls*"))]
        saved = f" Save {listed(books)} as CSV, if that is the table." if books else ""
        raise InputError(
            f"{data} has no table with the column {label!r}: it holds {seen or 'no .csv or .tsv'}."
            f"{saved}{inside(data, names)}"
        )
    return None


def _join_first(
    tables: Mapping[Path, pd.DataFrame], names: list[str], label: str | None, pattern: str | None
) -> Layout:
    """Join the first table that fits the names, and say which others have the label too."""
    errors: list[InputError] = []
    for path, table in tables.items():
        try:
            layout = join_participants(path, table, names, label, pattern)
        except InputError as error:
            errors.append(error)
            continue
        others = [other.name for other in tables if other != path]
        note = Note(f"Only {path.name} is used: {listed(others)} has the column {label} too.")
        return replace(layout, notes=[*layout.notes, *([note] if others else [])])
    raise errors[0]


def suggest_label(tables: Sequence[Path], names: list[str]) -> str:
    """Say which columns of tables beside the scans may hold classes, "" where none does."""
    hints = []
    for path in tables:
        try:
            scans = join_participants(path, read_any_table(path), names).scans
        except InputError:  # a table of something else
            continue
        offered = scans.columns.drop(["path", "subject_id", "session_id"])
        counts = {name: scans.loc[has_value(scans[name]), name].nunique() for name in offered}
        columns = [name for name, count in counts.items() if 2 <= count <= MOST_CLASSES]
        if columns:
            hints.append(
                f" {path.name} fits the names of the scans: --label takes the classes from one of "
                f"its columns ({listed(columns)})."
            )
    return "".join(hints)
