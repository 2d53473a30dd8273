"""A table of predictions, of whatever program → labels, probabilities and subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.joining.columns import role_of
from headscope.cohort.tables import MISSING, counted, listed
from headscope.errors import InputError
from headscope.scoring.probabilities import (
    class_values,
    families,
    positive_of,
)
from headscope.scoring.table import (
    ROLES,
    Columns,
    bad_cell,
    check_names,
    existing,
    plain,
    read_table,
)
from headscope.text import count

MOST_CLASSES: Final = 1_000
FEW_CLASSES: Final = 20  # of more, most rows must not have one each


@dataclass(frozen=True, eq=False)
class Predictions:
    """N rows of a table, of whatever subset.

    labels, predicted (N,) count class_names; predicted is None without such a column. logs
    (N, K) are logits, or logarithms of probabilities, None without any; `rank_only` where they
    are scores beyond 0 to 1 that rank. subjects and subset (N,) are texts, None without a column.
    columns names the column of each part.
    """

    name: str
    class_names: tuple[str, ...]
    positive: int
    labels: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any] | None
    logs: np.ndarray[Any, Any] | None
    rank_only: bool
    subjects: pd.Series | None
    subset: pd.Series | None
    columns: Mapping[str, str]
    notes: tuple[str, ...]


def read_predictions(source: pd.DataFrame | Path | str, named: Columns) -> Predictions:
    """Read any program's table, or take a data frame; InputError where a part is missing."""
    name = "The table" if isinstance(source, pd.DataFrame) else str(source)
    table = source if isinstance(source, pd.DataFrame) else read_table(Path(source))
    check_names(name, [str(column) for column in table.columns])
    if table.empty:
        raise InputError(f"{name} has no rows.")
    notes: list[str] = []
    columns = {part: _column(name, table, part, named) for part in (*ROLES, "subject", "session")}
    if columns["label"] is None:
        raise _no_column(name, table, "true labels", "label, y_true, true", "--label")
    table, labels = _labelled(name, table, columns["label"], notes)
    if (twice := table.duplicated()).any():
        rows = counted(int(twice.sum()), "row")
        alike = "is equal to an earlier row" if twice.sum() == 1 else "are equal to earlier rows"
        notes.append(f"{rows} {alike} in every column: each counts as a slice.")
    predicted = _predicted(name, table, columns, labels)
    classes = _class_names(labels, table)
    if predicted is not None:
        predicted = _renamed(name, predicted, classes, columns["predicted"], notes)
        classes += sorted(set(predicted.unique()) - set(classes))
    if len(classes) < 2:
        raise InputError(f"{name} has one class ({classes[0]}): nothing is told apart.")
    values, rank_only = class_values(name, table, columns, classes, named, notes)
    if values is None and predicted is None:
        of_classes = [c for family in families(table).values() for c in family.values()]
        if of_classes:
            raise InputError(
                f"{name}: its columns of probabilities, {listed(of_classes)}, do not fit the "
                f"classes of its labels, {listed(classes)}: correct either, or name the columns by "
                "--probability CLASS=COLUMN."
            )
        usual = "predicted, y_pred, probability_<class>, prob"
        raise _no_column(name, table, "predictions", usual, "--predicted or --probability")
    index = pd.Index(classes)
    return Predictions(
        name=name,
        class_names=tuple(classes),
        positive=positive_of(name, classes, named.positive),
        labels=index.get_indexer(pd.Index(labels)).astype(np.int64),
        predicted=None
        if predicted is None
        else index.get_indexer(pd.Index(predicted)).astype(np.int64),
        logs=values,
        rank_only=rank_only,
        subjects=_ids(name, table, columns["subject"]),
        subset=_ids(name, table, columns["subset"]),
        columns={part: column for part, column in columns.items() if column is not None},
        notes=tuple(notes),
    )


def _column(name: str, table: pd.DataFrame, part: str, named: Columns) -> str | None:
    """Return the column of a part: as named, or by the best of the names it usually has."""
    wanted = getattr(named, part, None)
    if wanted is not None:
        return existing(name, table, wanted)
    if part in ("subject", "session"):
        columns = [column for column in map(str, table.columns) if role_of(column) == part]
        if part == "session":
            columns = [c for c in columns if plain(c) in ("session", "sessionid", "ses", "visit")]
        return columns[0] if columns else None
    by_name = {plain(column): str(column) for column in reversed(table.columns)}
    return next((by_name[usual] for usual in ROLES[part].split() if usual in by_name), None)


def _no_column(name: str, table: pd.DataFrame, what: str, usual: str, option: str) -> InputError:
    return InputError(
        f"{name} has no column of {what} that is named as usual ({usual}); it has "
        f"{listed(table.columns)}: name it by {option} COLUMN."
    )


def _texts(cells: pd.Series) -> pd.Series:
    """Return cells as text, missing ones NaN; 1.0 reads 1."""
    kinds = pd.Series(cells.unique()).dropna()
    names = {value: _text(value) for value in kinds}
    return cells.astype(object).map(names)


def _text(value: object) -> str | float:
    text = str(value).strip()
    if text in MISSING:
        return np.nan
    try:
        number = float(text)
        return str(int(number)) if number.is_integer() and not text.isdigit() else text
    except (ValueError, OverflowError):
        return text


def _labelled(
    name: str, table: pd.DataFrame, column: str, notes: list[str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows that have a label, and their labels."""
    labels = _texts(table[column])
    bare = labels.isna().to_numpy()
    if bare.all():
        raise InputError(f"{name}: no row has a label in the column {column!r}.")
    if bare.any():
        notes.append(f"{counted(bare.sum(), 'row')} without a label are left out.")
        table = table[~bare].reset_index(drop=True)
        labels = labels[~bare].reset_index(drop=True)
    kinds = labels.nunique()
    if kinds > MOST_CLASSES or (kinds > FEW_CLASSES and kinds > len(labels) / 2):
        raise InputError(
            f"{name}: the column {column!r} has {count(kinds)} different values, as a measurement "
            "has: --label names a column of classes."
        )
    return table, labels


def _predicted(
    name: str, table: pd.DataFrame, columns: dict[str, str | None], labels: pd.Series
) -> pd.Series | None:
    """Return the predicted classes; a column of fractions is a score, and moved there."""
    column = columns["predicted"]
    if column is None:
        return None
    cells = _texts(table[column])
    values = set(cells.dropna().unique())
    numbers = pd.to_numeric(pd.Series([*values], dtype=object), errors="coerce")
    if numbers.notna().all() and (numbers % 1 != 0).any() and not values <= set(labels.unique()):
        columns["predicted"], columns["score"] = None, columns["score"] or column
        return None
    if cells.isna().any():
        raise bad_cell(name, column, cells.isna(), "holds no class")
    return cells


def _class_names(labels: pd.Series, table: pd.DataFrame) -> list[str]:
    """Return the classes: in the order of the columns of probabilities, or else sorted."""
    names = set(labels.unique())
    folded = {text.casefold(): text for text in names}
    for prefix, family in families(table).items():
        if folded.keys() <= {text.casefold() for text in family}:
            ordered = [folded.get(text.casefold(), text) for text in family]
            return ordered if len(prefix) > 2 else [text for text in ordered if text in names]
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _renamed(
    name: str, cells: pd.Series, classes: Sequence[str], column: str | None, notes: list[str]
) -> pd.Series:
    """Return predicted classes by the names of the labels; 0 and 1 count the classes."""
    values = set(cells.unique())
    if values & set(classes):
        return cells
    folded = {text.casefold(): text for text in classes}
    if {value.casefold() for value in values} <= folded.keys():
        return cells.map(lambda value: folded[value.casefold()])
    if values <= {str(k) for k in range(len(classes))}:
        pairs = ", ".join(f"{k} is {text}" for k, text in enumerate(classes))
        notes.append(f"The column {column!r} holds numbers: {pairs}.")
        return cells.map(lambda value: classes[int(value)])
    raise InputError(
        f"{name}: the labels ({listed(classes)}) and the predicted classes "
        f"({listed(sorted(values))}) have no name in common."
    )


def _ids(name: str, table: pd.DataFrame, column: str | None) -> pd.Series | None:
    """Return ids or subsets as texts; an error names the first row without."""
    if column is None:
        return None
    codes, values = pd.factorize(table[column])  # -1: missing
    names = np.array([str(value).strip() for value in values.tolist()], dtype=object)
    empty = {*MISSING}
    bad = np.isin(codes, [-1, *(k for k, text in enumerate(names) if text in empty)])
    if bad.any():
        raise bad_cell(name, column, bad, "is empty")
    return pd.Series(names[codes], dtype=object)
