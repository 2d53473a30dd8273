"""A column of a table → the class of each scan."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.tables import MISSING, counted, listed, numbers_in
from headscope.errors import InputError

MOST_CLASSES: Final = 10


def label_scans(
    scans: pd.DataFrame,
    column: str,
    classes: Mapping[str, Sequence[str]] | None = None,
    threshold: float | None = None,
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the scans that show a class, with `label`; the classes in order; what was left out.

    threshold cuts a numeric column first; classes then chooses and names values; without it every
    value is a class, at most 10.

    Raises
    ------
    InputError
        The column is numeric and uncut, has too many values, or the threshold meets text.
    """
    values = scans[column].astype(str)
    known = ~values.isin(MISSING)
    notes = _left_out(f"no value of {column}", (~known).sum())
    scans, values = scans[known], values[known]
    if threshold is not None:
        values = _cut(values, column, threshold)
    if classes is None:
        _check_classes(values, column)
        classes = {value: [value] for value in sorted(values.unique())}
    else:
        named = "; ".join(f"{name} = {', '.join(group)}" for name, group in classes.items())
        notes.append(f"Classes by {column}: {named}.")
    class_of = _class_of(classes, values, column)
    left = values[~values.isin(list(class_of))].value_counts().sort_index()
    if len(left):
        each = ", ".join(f"{value} ({counted(count, 'scan')})" for value, count in left.items())
        notes.append(f"Left out by {column}: {each}.")
    scans = scans.assign(label=values.map(class_of))
    return scans[scans["label"].notna()], list(classes), notes


def _left_out(what: str, number: int) -> list[str]:
    if number == 0:
        return []
    verbs = ("has", "is") if number == 1 else ("have", "are")
    return [f"{counted(number, 'scan')} {verbs[0]} {what} and {verbs[1]} left out."]


def _class_of(
    classes: Mapping[str, Sequence[str]], values: pd.Series, column: str
) -> dict[str, str]:
    """Return the class of each value, and refuse classes that share a value or have none."""
    class_of: dict[str, str] = {}
    held = set(values)
    for name, group in classes.items():
        for value in group:
            if value in class_of:
                raise InputError(f"The value {value!r} of {column} stands in two classes.")
            class_of[value] = name
        if not held & set(group):
            raise InputError(
                f"No scan shows the class {name!r} ({column} {listed(list(group))}): "
                f"the values of {column} are {listed(sorted(held))}."
            )
    return class_of


def _cut(values: pd.Series, column: str, threshold: float) -> pd.Series:
    numbers = _numbers(values)
    if numbers is None:
        bad = next(value for value in values if _numbers(pd.Series([value])) is None)
        raise InputError(f"Column {column!r} has no threshold: {bad!r} in it is no number.")
    names = np.where(numbers > threshold, f"{column}>{threshold:g}", f"{column}<={threshold:g}")
    return pd.Series(names, index=values.index)


def _numbers(values: pd.Series) -> pd.Series | None:
    """Return the values as numbers, decimal commas allowed; None where one is no number."""
    numbers = numbers_in(values)
    return None if numbers.isna().any() else numbers


def _check_classes(values: pd.Series, column: str) -> None:
    count = values.nunique()
    if count <= MOST_CLASSES:
        return
    numbers = _numbers(values)
    if numbers is not None:
        raise InputError(
            f"Column {column!r} is numeric, from {numbers.min():g} to {numbers.max():g}: cut it in "
            f"two classes with threshold, for example {numbers.median():.3g}."
        )
    raise InputError(
        f"Column {column!r} has {count} values, {listed(sorted(values.unique()))}: choose those "
        "that are classes with classes."
    )
