"""A column of a table → the class of each scan."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.tables import MISSING, listed
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
    notes = []
    if not known.all():
        notes.append(f"{(~known).sum()} scans have no value of {column} and are left out.")
    scans, values = scans[known], values[known]
    if threshold is not None:
        values = _cut(values, column, threshold)
    elif classes is None:
        _check_classes(values, column)
    names = list(classes) if classes is not None else sorted(values.unique())
    chosen = classes if classes is not None else {name: [name] for name in names}
    of_value = {str(value): name for name, group in chosen.items() for value in group}
    left = values[~values.isin(list(of_value))].value_counts().sort_index()
    if len(left):
        each = ", ".join(f"{value} {count}" for value, count in left.items())
        notes.append(f"Left out by {column}: {each} ({left.sum()} scans).")
    if classes is not None:
        named = "; ".join(
            f"{name} = {', '.join(map(str, group))}" for name, group in chosen.items()
        )
        notes.append(f"Classes by {column}: {named}.")
    scans = scans.drop(columns="label", errors="ignore").assign(label=values.map(of_value))
    return scans[scans["label"].notna()], [str(name) for name in names], notes


def _cut(values: pd.Series, column: str, threshold: float) -> pd.Series:
    numbers = _numbers(values)
    if numbers is None:
        bad = next(value for value in values if _numbers(pd.Series([value])) is None)
        raise InputError(f"Column {column!r} has no threshold: {bad!r} in it is no number.")
    names = np.where(numbers > threshold, f"{column}>{threshold:g}", f"{column}<={threshold:g}")
    return pd.Series(names, index=values.index)


def _numbers(values: pd.Series) -> pd.Series | None:
    """Return the values as numbers, decimal commas allowed; None where one is no number."""
    numbers = pd.to_numeric(values.str.replace(",", ".", regex=False), errors="coerce")
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
