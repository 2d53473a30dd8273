"""The covariates of an experiment's subjects, from its own folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from headscope.analysis.units import Array
from headscope.errors import InputError
from headscope.files import read_table
from headscope.manifest import DAMAGE, reason_of

KEYS = ("subject_id", "session_id", "label")
CATEGORIES = ("sex", "site", "manufacturer", "field_strength")  # even where they are numbers
FEW = 5  # distinct numbers up to which a column holds categories


@dataclass(frozen=True, eq=False)
class Covariates:
    """Values of covariates by subject: numbers (NaN) or text ('' where missing).

    subjects (S,) are ids; columns has an array (S,) for each covariate. labels (S,) is the class of
    each subject, its first where it changes; varying counts, by covariate, subjects whose category
    changes between sessions: they have that of the first.
    """

    subjects: Array
    labels: Array
    columns: dict[str, Array]
    varying: dict[str, int]

    def of(self, name: str, ids: Array) -> tuple[Array, Array]:
        """Return a covariate of the subjects `ids` (n,), and which of them have a value (n,)."""
        place = pd.Index(self.subjects).get_indexer(pd.Index(ids))
        values = self.columns[name]
        taken = values[np.maximum(place, 0)]
        return taken, (place >= 0) & has_value(taken)


def has_value(values: Array) -> Array:
    """Return which values of a covariate (n,) are given."""
    return np.isfinite(values) if np.issubdtype(values.dtype, np.number) else values != ""


def read_covariates(experiment: Path | str) -> Covariates | None:
    """Return the covariates of an experiment, or None where it has none.

    They are the columns of `participants.tsv`: age, sex, and those that `--covariates` names or
    that were recognised. A number is the mean over a subject's sessions.
    """
    path = Path(experiment) / "participants.tsv"
    if not path.is_file():
        return None
    try:
        table = read_table(path)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged ({reason_of(error)}).") from None
    return covariates_of(table, [str(name) for name in table.columns if name not in KEYS])


def covariates_of(table: pd.DataFrame, names: Iterable[str]) -> Covariates | None:
    """Return columns of a table (subject_id, label, …) by subject; None where none has a value."""
    groups = table.groupby("subject_id", sort=True)
    values: dict[str, Array] = {}
    varying: dict[str, int] = {}
    for name in names:
        column = table[name]
        if column.isna().all():
            continue
        if _is_quantity(name, column):
            values[name] = groups[name].mean().to_numpy(np.float64)
            continue
        text = column.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
        text = text.mask(column.isna())
        by_subject = text.groupby(table["subject_id"], sort=True)
        values[name] = by_subject.first().fillna("").to_numpy(str)
        varying[name] = int(by_subject.nunique().gt(1).sum())
    if not values:
        return None
    subjects = np.array(list(groups.groups), dtype=str)
    return Covariates(subjects, groups["label"].first().to_numpy(str), values, varying)


def _is_quantity(name: str, column: pd.Series) -> bool:
    number = pd.api.types.is_numeric_dtype(column)
    return name not in CATEGORIES and number and (name == "age" or column.nunique() > FEW)
