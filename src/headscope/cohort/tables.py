"""Tables as other programs write them → text columns."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import ID
from headscope.errors import InputError
from headscope.files import NO_ID

WORDS: Final = ("n/a", "na", "nan", "none", "null", "nil", "<na>", "missing")
ERRORS: Final = ("#N/A", "#N/A N/A", "#NA", "#NV", "#VALUE!", "#REF!", "#DIV/0!", "#NAME?", "#NUM!")
SIGNS: Final = ("-", "--", "–", "?", ".", "#NULL!")
SPELLINGS: Final = [form(word) for word in WORDS for form in (str.lower, str.upper, str.title)]
MISSING: Final = tuple(dict.fromkeys(["", *SPELLINGS, "NaN", *ERRORS, *SIGNS]))
CLASS_FOLDER: Final = "class folder"  # the column of folders, whose names are never missing
SEPARATORS: Final = "\t;,|"
MOST_BYTES: Final = 2**28
MOST_CELLS: Final = 2 * 10**7


def read_any_table(path: Path) -> pd.DataFrame:
    """Read a TSV or CSV as other programs write it; every value stays text, spaces stripped.

    Separators tab, semicolon, comma and bar, or the one that Excel's first line `sep=;` names; line
    ends LF, CRLF and CR; UTF-8, UTF-16, else Windows-1252. Lines of a title above the header and
    empty rows and columns are passed over; a column without a name is called by its number.
    """
    rows = _rows_of(path)
    while len(rows) > 1 and rows[0][0] and not any(rows[0][1:]) and any(map(_has_two, rows)):
        rows = rows[1:]  # a title
    if len(rows) < 2:
        raise InputError(f"{path} holds no rows below its header.")
    width = max(at for at, name in enumerate(rows[0], start=1) if name or at == 1)
    for number, row in enumerate(rows, start=1):
        if any(row[width:]):
            raise InputError(f"{path}: row {number} has {len(row)} fields, the header {width}.")
    if len(rows) * width > MOST_CELLS:
        raise InputError(
            f"{path} has {len(rows):,} rows of {width:,} columns: tables of up to {MOST_CELLS:,} "
            "cells are read."
        )
    names = [name or f"column {at}" for at, name in enumerate(rows[0][:width], start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path} names the column {twice[0]!r} twice.")
    cells = [[*row[:width], *[""] * (width - len(row))] for row in rows[1:]]
    return pd.DataFrame(cells, columns=names, dtype=str)


def _has_two(row: list[str]) -> bool:
    return sum(map(bool, row)) > 1


def open_table(path: Path) -> tuple[str, list[str], str]:
    """Return a table's text, its first lines that hold anything, and its separator."""
    text = _text_of(path)
    lines = [line for line in text.split("\n", 100)[:100] if line.strip()]
    given = re.fullmatch(r'"?sep=(.)"?[\t;,|]*', lines[0]) if lines else None
    if given:
        return text.lstrip("\n").partition("\n")[2], lines[1:], given[1]
    return text, lines, _separator_of(lines)


def _text_of(path: Path) -> str:
    """Return a table's text, or say why it has none."""
    if not path.is_file():  # of a pipe nothing might ever come
        raise InputError(f"{path} does not exist, or is no file.")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            mib = f"{size / 2**20:.0f} MiB: tables of up to {MOST_BYTES // 2**20} MiB are read"
            raise InputError(f"{path} holds {mib}.")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path} is a workbook of Excel or the like: save it as CSV.")
    text = _decode(raw)
    if "\0" in text:
        raise InputError(f"{path} is no table: it holds bytes that are no text.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows_of(path: Path) -> list[list[str]]:
    """Return the rows that hold anything, spaces stripped."""
    text, _, separator = open_table(path)
    # spaces may stand before a quotation mark, as in a; "b"
    stream = csv.reader(StringIO(text), delimiter=separator, skipinitialspace=True)
    try:
        rows = [[cell.strip() for cell in row] for row in stream if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(
            f"{path} is no table that can be read, at line {stream.line_num} ({error}): is a "
            "quotation mark left open?"
        ) from None
    if rows and text.count('"') % 2 and any("\n" in cell for cell in rows[-1]):
        raise InputError(f"{path}: a quotation mark is left open in the last row, {rows[-1][0]!r}.")
    return rows


def _separator_of(lines: list[str]) -> str:
    """Return the separator of the first line that has one which the next line has too."""
    for line, behind in pairwise([*lines, lines[-1]] if lines else []):
        counts = {sign: line.count(sign) for sign in SEPARATORS if sign in behind and sign in line}
        if counts:
            return max(counts, key=lambda sign: counts[sign])
    return ","


def check_subjects(path: Path, column: str, ids: pd.Series) -> None:
    """Refuse a table whose rows lack a subject id, or give the word that stands for none."""
    for bad, what in ((ids.isin(MISSING), "no"), (ids == NO_ID, f"the reserved word {NO_ID!r} as")):
        if bad.any():
            raise InputError(
                f"{path} has {what} subject id in {counted(int(bad.sum()), 'row')}, column "
                f"{column!r}, the first in row {bad.index.to_numpy()[bad.to_numpy().argmax()] + 2}."
            )


def rows_by_subject(path: Path, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a table of one row per subject with its ids in `ID`, without columns of scans."""
    table = table.drop_duplicates()
    ids = table[column]
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise InputError(
            f"{path} has several rows for {counted(repeated.nunique(), 'participant')}, the first "
            f"{repeated.iloc[0]!r}: give a scans.tsv with path, subject_id, session_id and label."
        )
    ours = [column, "path", "subject_id", "session_id"]
    return table.drop(columns=ours, errors="ignore").assign(**{ID: ids})


def _decode(raw: bytes) -> str:
    """Return the text: by its mark, by the zeros of UTF-16, as UTF-8, else as Windows-1252."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    start = raw[:1000]
    for codec, zeros, letters in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if zeros.count(0) > len(zeros) / 2 > letters.count(0):
            return raw.decode(codec, errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def has_value(values: pd.Series) -> pd.Series:
    """Return which values of a column are given; a folder called None or NA is a class."""
    return values.ne("") if values.name == CLASS_FOLDER else ~values.isin(MISSING)


def listed(names: Sequence[str] | pd.Index) -> str:
    """Name up to 20 of `names` in a sentence."""
    shown = ", ".join(map(str, list(names)[:20]))
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: 1 scan, 2 scans, 3 classes, 1,003 slices."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def numbers_in(values: pd.Series) -> pd.Series:
    """Return texts as numbers, decimal commas allowed; NaN where one is no number."""
    return pd.to_numeric(values.str.replace(",", ".", regex=False), errors="coerce")
