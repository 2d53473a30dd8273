"""Conditions on the columns of a table, as in `Age > 60 and M/F == F`; read, never evaluated."""

import operator
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.tables import has_value, listed, numbers_in
from headscope.errors import InputError

OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
NAME: Final = r"""(?:"[^"]*"|'[^']*'|`[^`]*`|[^"'`].*?)"""
VALUE: Final = r"""(?:"[^"]*"|'[^']*'|[^"'].*?)"""
CONDITION: Final = re.compile(
    rf"\s*({NAME})\s*({'|'.join(OPERATORS)})\s*({VALUE})\s*(?:$|\band\b\s*(?=\S))", re.IGNORECASE
)


def where_holds(table: pd.DataFrame, text: str) -> NDArray[np.bool_]:
    """Return for each row whether all conditions hold: COLUMN OP VALUE, joined by 'and'.

    OP is one of ==, !=, >, >=, <, <=. Names and values may be quoted, and must be where they hold
    an operator or the word 'and'. Numbers compare as numbers (decimal commas allowed), other
    values as text, with == and != alone. A row without a value meets no condition.
    """
    holds = np.ones(len(table), dtype=bool)
    for column, sign, value in parse_where(text):
        if column not in table.columns:
            raise InputError(
                f"--where names no column {column!r}: there are {listed(table.columns)}."
            )
        holds &= _holds(table[column].astype(str), column, sign, value)
    return holds


def parse_where(text: str) -> list[tuple[str, str, str]]:
    """Return the conditions of a text: column, operator, value."""
    conditions: list[tuple[str, str, str]] = []
    at = 0
    while at < len(text) or not conditions:
        match = CONDITION.match(text, at)
        if match is None:
            raise InputError(
                f"--where takes COLUMN OP VALUE joined by 'and', as in \"Age > 60 and M/F == F\" "
                f"(OP one of ==, !=, >, >=, <, <=); {text[at:].strip() or text!r} is not of that "
                "form."
            )
        conditions.append((_unquote(match[1]), match[2], _unquote(match[3])))
        at = match.end()
    return conditions


def _holds(values: pd.Series, column: str, sign: str, value: str) -> NDArray[np.bool_]:
    given = (has_value(values) | (values == value)).to_numpy()
    compare = OPERATORS[sign]
    numbers = numbers_in(values).to_numpy()
    number = numbers_in(pd.Series([value])).iloc[0]
    if not np.isnan(number) and not np.isnan(numbers[given]).any():
        with np.errstate(invalid="ignore"):
            return given & compare(numbers, number)
    if sign not in ("==", "!=", "="):
        bad = value if np.isnan(number) else values[given & np.isnan(numbers)].iloc[0]
        raise InputError(f"--where {column} {sign} {value}: {bad!r} is no number to compare with.")
    return given & compare(values.to_numpy(dtype=object), value)


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`" else text
