"""Tables as other programs write them → text columns."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import ID
from headscope.errors import InputError
from headscope.files import NO_ID

MISSING: Final = ("", "n/a", "N/A", "NA", "NaN", "nan", "None")


def read_any_table(path: Path) -> pd.DataFrame:
    """Read a TSV or CSV as other programs write it; every value stays text, spaces stripped.

    Separators tab, comma and semicolon; line ends LF, CRLF and CR; UTF-8 with or without a mark,
    UTF-16 with one, else Windows-1252.
    """
    if not path.is_file():  # of a pipe nothing might ever come
        raise InputError(f"{path} does not exist, or is no file.")
    raw = path.read_bytes()
    text = _decode(raw).replace("\r\n", "\n").replace("\r", "\n")
    header = text.lstrip("\n").split("\n", 1)[0]
    separator = max("\t;,", key=header.count)
    reader = csv.reader(StringIO(text), delimiter=separator, skipinitialspace=True)  # as in a; "b"
    rows = [row for row in reader if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path} holds no rows below its header.")
    names, width = [name.strip() for name in rows[0]], len(rows[0])
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise InputError(f"{path}: row {number} has {len(row)} fields, the header {width}.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} names the column {twice[0]!r} twice.")
    cells = [[*map(str.strip, row[:width]), *[""] * (width - len(row))] for row in rows[1:]]
    return pd.DataFrame(cells, columns=names, dtype=str)


def check_subjects(path: Path, column: str, ids: pd.Series) -> None:
    """Refuse a table whose rows lack a subject id, or give the word that stands for none."""
    for bad, what in ((ids.isin(MISSING), "no"), (ids == NO_ID, f"the reserved word {NO_ID!r} as")):
        if bad.any():
            raise InputError(
                f"{path} has {what} subject id in {counted(int(bad.sum()), 'row')}, column "
                f"{column!r}, the first in row {int(bad.to_numpy().argmax()) + 2}."
            )


def rows_by_subject(path: Path, table: pd.DataFrame, column: str, prefix: str = "") -> pd.DataFrame:
    """Return a table of one row per subject with its ids in `ID`, without columns of scans."""
    check_subjects(path, column, table[column])
    table = table.drop_duplicates()
    ids = with_prefix(prefix, table[column])
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise InputError(
            f"{path} has several rows for {counted(repeated.nunique(), 'participant')}, the first "
            f"{repeated.iloc[0]!r}: give a scans.tsv with path, subject_id, session_id and label."
        )
    ours = [column, "path", "subject_id", "session_id"]
    return table.drop(columns=ours, errors="ignore").assign(**{ID: ids})


def with_prefix(prefix: str, ids: pd.Series) -> pd.Series:
    """Return ids that begin with sub- or the like, whether or not they did."""
    return ids.where(ids.str.startswith(prefix), prefix + ids)


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def listed(names: Sequence[str] | pd.Index) -> str:
    """Name up to 20 of `names` in a sentence."""
    shown = ", ".join(map(str, list(names)[:20]))
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: 1 scan, 2 scans, 3 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def numbers_in(values: pd.Series) -> pd.Series:
    """Return texts as numbers, decimal commas allowed; NaN where one is no number."""
    return pd.to_numeric(values.str.replace(",", ".", regex=False), errors="coerce")
