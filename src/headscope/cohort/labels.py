"""A column of a table → the class of each scan."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.tables import MISSING, counted, listed, numbers_in
from headscope.cohort.values import Note
from headscope.errors import InputError

MOST_CLASSES: Final = 10


def label_scans(
    scans: pd.DataFrame,
    column: str,
    classes: Mapping[str, Sequence[str]] | None = None,
    threshold: float | None = None,
    missing: Sequence[str] = MISSING,
) -> tuple[pd.DataFrame, list[str], list[Note]]:
    """Return the scans that show a class, with `label`; the classes in order; notes on the rest.

    threshold cuts a numeric column first; classes then chooses and names values; without it every
    value is a class, at most 10.
    """
    values = scans[column].astype(str)
    given = ~values.isin(missing)
    if classes is not None and threshold is None:  # None may be the class without a tumour
        given |= values.isin([value for group in classes.values() for value in group])
    without = int((~given).sum())
    notes = []
    if without:
        has, are = ("has", "is") if without == 1 else ("have", "are")
        scans_text = counted(without, "scan")
        text = f"{scans_text} {has} no value of {column} and {are} left out."
        notes.append(Note(text, about="left out"))
        spelled = sorted(set(values[~given]) - {"", "n/a"})
        if spelled:
            notes.append(Note(f"No value of {column} is what reads {listed(spelled)}."))
    scans, values = scans[given], values[given]
    names_ids = quotes_subjects(values, scans["subject_id"])
    if threshold is not None:
        values = _cut(values, column, threshold)
    if classes is None:
        _check_number(values, column)
        classes = {value: [value] for value in sorted(values.unique())}
    else:
        named = "; ".join(f"{name} = {', '.join(group)}" for name, group in classes.items())
        notes.append(Note(f"Classes by {column}: {named}.", names_ids, about="classes"))
    class_of = _class_of(classes, values, column)
    left = values[~values.isin(list(class_of))].value_counts().sort_index()
    if len(left):
        counts = ", ".join(f"{value} ({counted(count, 'scan')})" for value, count in left.items())
        notes.append(Note(f"Left out by {column}: {counts}.", names_ids, about="left out"))
    scans = scans.assign(label=values.map(class_of))
    return scans[scans["label"].notna()], list(classes), notes


def quotes_subjects(values: pd.Series, subjects: pd.Series) -> bool:
    """Return whether a value quotes the subject id of its row.

    Ids of one or two characters do not count: "1" is a value of many columns.
    """
    pairs = zip(values, subjects, strict=True)
    return any(len(subject) > 2 and subject in value for value, subject in pairs)


def _class_of(
    classes: Mapping[str, Sequence[str]], values: pd.Series, column: str
) -> dict[str, str]:
    """Return the class of each value, and refuse classes that share a value or have none."""
    class_of: dict[str, str] = {}
    present = set(values)
    for name, group in classes.items():
        for value in group:
            if value in class_of:
                raise InputError(f"The value {value!r} of {column} is in two classes.")
            class_of[value] = name
        if not present & set(group):
            raise InputError(
                f"No scan shows the class {name!r} ({column} {listed(list(group))}): "
                f"the values of {column} are {listed(sorted(present))}."
            )
    return class_of


def _cut(values: pd.Series, column: str, threshold: float) -> pd.Series:
    numbers = numbers_in(values)
    if numbers.isna().any():
        bad = values[numbers.isna()].iloc[0]
        raise InputError(f"Column {column!r} has no threshold: {bad!r} in it is no number.")
    names = np.where(numbers > threshold, f"{column}>{threshold:g}", f"{column}<={threshold:g}")
    return pd.Series(names, index=values.index)


def _check_number(values: pd.Series, column: str) -> None:
    """Refuse more values than classes may be."""
    count = values.nunique()
    if count <= MOST_CLASSES:
        return
    numbers = numbers_in(values)
    if numbers.notna().all():
        raise InputError(
            f"Column {column!r} is numeric, from {numbers.min():g} to {numbers.max():g}: cut it in "
            f"two classes with --threshold, for example {numbers.median():.3g}."
        )
    raise InputError(
        f"Column {column!r} has {count} values, {listed(sorted(values.unique()))}: choose those "
        "that are classes with classes."
    )
