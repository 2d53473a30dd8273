"""The columns of probabilities, logits or scores of a table, as logits or logarithms (N, K)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.tables import counted, listed
from headscope.errors import InputError
from headscope.metrics import positive_class
from headscope.metrics.subjects import CONTROLS
from headscope.scoring.table import Columns, bad_cell, existing, plain

OF_CLASS: Final = re.compile(  # probability_AD, prob.1, P(AD)
    r"(?P<prefix>(?:logits?|probability|probabilities|probs?|proba|p|scores?|softmax)[\W_]*)"
    r"(?P<name>[^\W_].*?)[)\]]?",
    re.IGNORECASE,
)
NUMBERED: Final = ({"0", "1"}, {"-1", "1"}, {"false", "true"}, {"False", "True"})  # negative first
LOGITS: Final = ("logit", "decision")
FAR: Final = 0.01  # from 1: what a sum of probabilities may be by rounding


def positive_of(name: str, classes: Sequence[str], wanted: str | None) -> int:
    """Return the class of which sensitivity is the recall, and a lone probability speaks."""
    if wanted is not None:
        if wanted not in classes:
            raise InputError(f"{name} has no class {wanted!r}: choose {listed(classes)}.")
        return [*classes].index(wanted)
    return 1 if set(classes) in NUMBERED else positive_class(classes)


def families(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return the columns whose names begin alike, as probability_AD does, by what follows."""
    families: dict[str, dict[str, str]] = {}
    for column in map(str, table.columns):
        match = OF_CLASS.fullmatch(column)
        if match:
            families.setdefault(match["prefix"].lower(), {}).setdefault(match["name"], column)
    return families


def class_values(
    name: str,
    table: pd.DataFrame,
    columns: dict[str, str | None],
    classes: Sequence[str],
    named: Columns,
    notes: list[str],
) -> tuple[np.ndarray[Any, Any] | None, bool]:
    """Return logits or logarithms of probabilities (N, K), and whether they only rank.

    columns gets the names of those that were read.
    """
    score = columns.pop("score", None)
    given = (
        named.probability.split(",") if isinstance(named.probability, str) else named.probability
    )
    parts = [part.strip() for part in given or ()]
    if len(parts) == 1 and (parts[0] in table.columns or "=" not in parts[0]):
        score, chosen = existing(name, table, parts[0]), {}
    else:
        chosen = _named(name, table, classes, parts) if parts else _by_name(table, classes)
    if not chosen and score is not None:
        chosen = {_spoken_of(name, classes, named.positive, score): score}
    if not chosen:
        return None, False
    columns["probability"] = ", ".join(chosen.values())
    logits = all(plain(column).startswith(LOGITS) for column in chosen.values())
    numbers = np.column_stack([_numbers(name, table, column) for column in chosen.values()])
    if len(chosen) == 1:
        if not logits and plain(*chosen.values()).startswith(("prob", "yprob")):
            _check_share(name, numbers, [*chosen.values()])
        return _of_one(numbers[:, 0], classes, chosen, logits, notes)
    numbers = numbers[:, [[*chosen].index(text) for text in classes]]
    if logits:
        ours = {"scan", "plane", "slice_index"} <= set(table.columns)  # single precision as text
        return numbers.astype(np.float32 if ours else np.float64), False
    return _logs(name, numbers, [chosen[text] for text in classes], notes), False


def _spoken_of(name: str, classes: Sequence[str], positive: str | None, column: str) -> str:
    """Return the class of which a lone column speaks; refuse where names do not say it."""
    if len(classes) != 2:
        raise InputError(
            f"{name} has {len(classes)} classes and one column of scores, {column!r}: each class "
            "needs one, as probability_<class>."
        )
    controls = [text.lower().replace("-", "") in CONTROLS for text in classes]
    if positive is None and set(classes) not in NUMBERED and sum(controls) != 1:
        raise InputError(
            f"{name}: of which class does the column {column!r} speak, {' or '.join(classes)}? "
            "Name it by --positive."
        )
    return classes[positive_of(name, classes, positive)]


def _named(
    name: str, table: pd.DataFrame, classes: Sequence[str], parts: Sequence[str]
) -> dict[str, str]:
    """Return the columns that were named: CLASS=COLUMN, or a name that ends in the class."""
    chosen = {}
    for part in parts:
        text, equals, column = part.partition("=")
        if not equals:
            column = part
            ends = [text for text in classes if part.casefold().endswith(text.casefold())]
            text = max(ends, key=len, default=part)
        if text not in classes:
            choices = listed(classes)
            raise InputError(
                f"{name}: {part!r} names no class: write CLASS=COLUMN, with {choices}."
            )
        chosen[text] = existing(name, table, column)
    absent = [text for text in classes if text not in chosen]
    if absent and not (len(classes) == 2 and len(chosen) == 1):
        raise InputError(f"{name}: --probability names no column of the class {absent[0]!r}.")
    return chosen


def _by_name(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, str]:
    """Return the columns that bear the classes' names: logits before probabilities."""
    bare = {str(column): str(column) for column in table.columns}
    groups = sorted(families(table).items(), key=lambda group: not group[0].startswith(LOGITS))
    alone: dict[str, str] = {}
    for prefix, family in [*groups, ("", bare)]:
        folded = {text.casefold(): column for text, column in family.items()}
        chosen = {text: folded[text.casefold()] for text in classes if text.casefold() in folded}
        if len(chosen) == len(classes):
            return chosen
        if len(classes) == 2 and chosen and prefix and not alone:
            alone = chosen
    return alone


def _numbers(name: str, table: pd.DataFrame, column: str) -> np.ndarray[Any, Any]:
    """Return a column as numbers (N,); an error names the first row that holds none."""
    cells = table[column]
    if not pd.api.types.is_numeric_dtype(cells):
        texts = cells.astype(object).astype(str).str.replace(",", ".", regex=False)
        cells = pd.to_numeric(texts, errors="coerce")
    values = cells.to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        raise bad_cell(name, column, ~np.isfinite(values), "holds no finite number")
    return values


def _of_one(
    numbers: np.ndarray[Any, Any],
    classes: Sequence[str],
    chosen: Mapping[str, str],
    logits: bool,
    notes: list[str],
) -> tuple[np.ndarray[Any, Any], bool]:
    """Return logs of both probabilities of two classes, of one of which there is a column."""
    ((text, column),) = chosen.items()
    values, k = np.zeros((len(numbers), 2)), [*classes].index(text)
    beyond = numbers.min() < 0 or numbers.max() > 1
    if logits or beyond:
        values[:, k] = numbers
        if not logits:
            notes.append(
                f"The column {column!r} holds scores of {text} beyond 0 to 1: they rank, and are "
                "cut at 0; as they are no probabilities, there is no calibration."
            )
        return values, not logits
    notes.append(f"The column {column!r} is the probability of {text}.")
    with np.errstate(divide="ignore"):
        values[:, k], values[:, 1 - k] = np.log(numbers), np.log1p(-numbers)
    return values, False


def _check_share(name: str, numbers: np.ndarray[Any, Any], columns: Sequence[str]) -> None:
    """Refuse probabilities (N, ·) that are none."""
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        row, k = np.argwhere(outside)[0]
        raise InputError(
            f"{name}: the column {columns[k]!r} holds {numbers[row, k]:g} in row {row + 2}: "
            "probabilities are between 0 and 1 (columns of logits are called logit_<class>, one of "
            "scores y_score)."
        )


def _logs(
    name: str, numbers: np.ndarray[Any, Any], columns: Sequence[str], notes: list[str]
) -> np.ndarray[Any, Any]:
    """Return logarithms of probabilities (N, K), each row divided by its sum."""
    _check_share(name, numbers, columns)
    sums = numbers.sum(axis=1)
    if (sums == 0).any():
        raise bad_cell(name, columns[0], sums == 0, "and the others are all 0")
    far = np.abs(sums - 1) > FAR
    if far.any():
        notes.append(
            f"The probabilities of {counted(far.sum(), 'row')} do not sum to 1 ({sums.min():.3g} "
            f"to {sums.max():.3g}): each is divided by its row's sum."
        )
    with np.errstate(divide="ignore"):
        return np.log(numbers / sums[:, None])
