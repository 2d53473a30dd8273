"""Artefacts reach their final name whole or not at all."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

TEXT_COLUMNS = ("subject_id", "session_id", "label", "predicted", "scan", "plane", "subset")

NO_ID = "unknown"  # the subject_id of slices whose subject is unknown


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; flush and rename it once the block has ended well.

    The temporary name keeps the suffixes, since many writers choose a format by them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in `folder`; the system lets go even after a crash.

    Where the system or its file system knows no such locks, nothing is held.

    Raises
    ------
    InputError
        Another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"Another headscope is at work in {folder}.") from None
            except OSError:  # a network drive without locks
                pass
        yield


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `json_text` returns it."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return `value` as indented JSON, whole numbers of a list in one line.

    A NaN or infinity raises ValueError (JSON has none).
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    text = re.sub(r"\[\n[-\d,\s]+\]", lambda row: f"[{' '.join(row[0][1:-1].split())}]", text)
    return text + "\n"


def encode_nan(value: Any) -> Any:
    """Return plain values for JSON: NaN as null, infinities by name, tuples and arrays as lists."""
    if isinstance(value, Mapping):
        return {key: encode_nan(part) for key, part in value.items()}
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [encode_nan(part) for part in value]
    if isinstance(value, float) and not isfinite(value):
        return None if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def decode_nan(value: Any) -> Any:
    """Return what `encode_nan` made with NaN in place of null."""
    if isinstance(value, dict):
        return {key: decode_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [decode_nan(part) for part in value]
    return float("nan") if value is None else value


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a TSV; missing values read n/a, as in BIDS, and floats keep all their digits."""
    write_text(path, table_text(table))


def table_text(table: "pd.DataFrame") -> str:
    """Return a table as `write_table` writes it."""
    return table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def read_table(path: Path) -> "pd.DataFrame":
    """Read a TSV of ours: ids and names stay text ('007' is no number, 'NA' no missing value)."""
    import pandas as pd  # a process that only takes slices does without

    columns = pd.read_csv(path, sep="\t", nrows=0).columns
    text = {name: str for name in TEXT_COLUMNS if name in columns}
    missing = {name: ["n/a"] for name in columns}
    options: dict[str, Any] = {"na_values": missing, "keep_default_na": False}
    if int(pd.__version__.partition(".")[0]) < 3:  # which loses the last digit of a float
        options["float_precision"] = "round_trip"
    return pd.read_csv(path, sep="\t", dtype=text, **options)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
