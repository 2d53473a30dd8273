"""A table as any program writes it → a data frame, and the names that its columns usually have."""

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.joining.columns import role_of
from headscope.cohort.tables import MISSING, counted, listed, open_table
from headscope.errors import InputError

ROLES: Final = {  # without case, spaces and signs; better names first
    "label": "label truelabel labeltrue ytrue true truth groundtruth gt target reference actual "
    "trueclass y class diagnosis dx",
    "subset": "subset split partition set fold",
    "predicted": "predicted predictedlabel predlabel predictedclass predclass prediction pred "
    "ypred yhat",
    "score": "probability prob proba probabilities yprob yproba score yscore predictedprobability "
    "logit decision",
}
COMMA: Final = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold, as they were named; None: recognised or absent.

    probability is a column of the positive class, or several, each as COLUMN or CLASS=COLUMN;
    positive is a class.
    """

    subject: str | None = None
    session: str | None = None
    label: str | None = None
    subset: str | None = None
    predicted: str | None = None
    probability: str | Sequence[str] | None = None
    positive: str | None = None


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV once: numbers as numbers, what is text as categories of text."""
    text, lines, separator = open_table(path)
    if len(lines) < 2:
        raise InputError(f"{path} holds no rows below its header.")
    sample = [*islice(csv.reader(StringIO("\n".join(lines)), delimiter=separator), 100)]
    header = [cell.strip() for cell in sample[0]]
    check_names(str(path), header)
    cells = [cell.strip() for row in sample[1:] for cell in row]
    numeric = [
        at
        for at, name in enumerate(header)
        if all(_is_number(row[at]) for row in sample[1:] if len(row) > at) and not _is_text(name)
    ]
    texts = [at for at in range(len(header)) if at not in numeric]
    options: dict[str, Any] = {}
    if separator != "," and any(map(COMMA.fullmatch, cells)):
        options["decimal"] = ","
    elif int(pd.__version__.partition(".")[0]) < 3:  # which loses the last digit of a float
        options["float_precision"] = "round_trip"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                StringIO(text),
                sep=separator,
                dtype=dict.fromkeys(texts, str),  # as categories 007 would be read as 7
                keep_default_na=False,
                na_values=[*MISSING],
                skipinitialspace=True,
                index_col=False,
                **options,
            )
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: rows have more fields than the header, {len(header)}.") from None
    except (ValueError, pd.errors.ParserError) as error:
        reason = str(error).splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path} cannot be read: {reason.strip().rstrip('.')}.") from None
    named = table.columns[texts]
    table = table.astype(dict.fromkeys(named, "category"))
    return table.rename(columns=lambda name: str(name).strip())


def _is_number(cell: str) -> bool:
    cell = cell.strip()
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return cell in MISSING
    return True


def _is_text(column: str) -> bool:
    """Whether a column holds text whatever it looks like: ids, labels, subsets."""
    return bool(role_of(column)) or any(
        plain(column) in ROLES[part].split() for part in ("label", "subset", "predicted")
    )


def check_names(name: str, header: Sequence[str]) -> None:
    """Refuse a table that has two columns of one name."""
    twice = sorted({text for text in header if text and header.count(text) > 1})
    if twice:
        raise InputError(f"{name} names the column {twice[0]!r} twice.")


def plain(column: object) -> str:
    """Return a column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", str(column).casefold())


def existing(name: str, table: pd.DataFrame, column: str) -> str:
    """Return the name of a column that there is; InputError with the choices otherwise."""
    if column not in table.columns:
        raise InputError(f"{name} has no column {column!r}: choose {listed(table.columns)}.")
    return column


def bad_cell(name: str, column: str | None, bad: Any, what: str) -> InputError:
    """Return an error that names the first bad row; the header is row 1."""
    bad = np.asarray(bad)
    where = f"in {counted(bad.sum(), 'row')}, the first row {bad.argmax() + 2}"
    return InputError(f"{name}: the column {column!r} {what} {where}.")
