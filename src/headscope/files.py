"""Artefacts reach their final name whole or not at all."""

import csv
import errno
import functools
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from math import isfinite, isnan
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, ParamSpec, TypeVar

from headscope.errors import InputError
from headscope.text import escape_formula, unescape_formula

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

TEXT_COLUMNS = ("subject_id", "session_id", "label", "predicted", "scan", "plane", "subset")

NO_ID = "unknown"  # the subject_id of slices whose subject is unknown

LOCKS: Final = ".locks"  # the folder of the files that are locked
LOOK_S: Final = 0.2  # seconds between two looks at what another process holds

TEMPORARY_NAME = ".tmp-headscope-"
TEMPORARY: set[Path] = set()  # the temporary files that this process is writing
_CLEARED: set[Path] = set()  # folders in which it has removed those of others

P = ParamSpec("P")
R = TypeVar("R")


def any_names(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's tables hold strings as Python does.

    pandas takes Arrow's where pyarrow is installed, and those refuse names of files that are no
    UTF-8. The caller's own tables are left as they are.
    """

    @functools.wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        import pandas as pd

        with pd.option_context("mode.string_storage", "python"):
            return function(*args, **kwargs)

    return plain


@contextmanager
def atomic_path(path: Path, placed: Callable[[Path], Path | None] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; flush and rename it once the block has ended well.

    The temporary name keeps the suffixes, since many writers choose a format by them. What a killed
    process left in the folder is removed when this one first writes there. `placed` names the file
    by what was written in place of `path`, or None where that is there already.

    Raises
    ------
    OSError
        The file cannot be written, for lack of room above all; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _CLEARED:
        clear_leftovers(path.parent, f"{TEMPORARY_NAME}*")
        _CLEARED.add(path.parent)
    handle, temporary = _make_temporary(path)
    try:
        yield temporary
        place = path if placed is None else placed(temporary)
        if place is None:
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        current = os.umask(0)
        os.umask(current)
        temporary.chmod(0o666 & ~current)
        temporary.replace(place)
    except Exception as error:
        _name_file(error, temporary, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        TEMPORARY.discard(temporary)
        os.close(handle)


def clear_leftovers(folder: Path, pattern: str = f"**/{TEMPORARY_NAME}*") -> None:
    """Remove the temporary files that killed processes left below `folder`; others keep theirs."""
    for path in folder.glob(pattern):
        with suppress(OSError), path.open("rb+") as file:  # gone, being written, or no locks here
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _make_temporary(path: Path) -> tuple[int, Path]:
    """Make the temporary file of `path`; a lock on its handle shows that a process writes it."""
    while True:
        # of a long name the end: with what comes before it, a name has room for 255 bytes
        try:
            handle, name = tempfile.mkstemp(path.name[-24:], TEMPORARY_NAME, path.parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        TEMPORARY.add(temporary := Path(name))
        with suppress(OSError):  # a network drive without locks
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # else another process took it for a leftover before it was locked
            return handle, temporary
        TEMPORARY.discard(temporary)
        os.close(handle)


def _name_file(error: BaseException, temporary: Path, path: Path) -> None:
    """Raise what went wrong with a temporary file as an error of the file that it was to be."""
    code = re.search(r"\(os error (\d+)\)", str(error))  # as libraries in Rust report it
    if isinstance(error, OSError):
        if error.filename in (None, str(temporary)):
            reason = error.strerror or str(error)
            raise OSError(error.errno or errno.EIO, reason, str(path)) from None
    elif code is not None:
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
    elif isinstance(error.__context__, OSError):  # torch reports that its archive has no end
        _name_file(error.__context__, temporary, path)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing in `folder`; the system lets go even after a crash.

    Where the system or its file system knows no such locks, nothing is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        if not _take(file):
            text = f"Another headscope is at work in {folder}"
            if not wait:
                raise InputError(f"{text}.")
            _wait_for(file, f"{text}; waiting for it")
        yield


@contextmanager
def claimed(lock: Path, *, wait: bool = False) -> Iterator[BinaryIO | None]:
    """Hold what a lock stands for against other processes; None where another holds it.

    The lock is a file that is made, and yielded; whoever holds it may remove it. With `wait` it is
    waited for.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("a+b") as file:
            taken = _take(file)
            if wait and not taken:
                _wait_for(file, f"Another headscope makes {lock.name}; waiting for it")
            if (taken or wait) and not _is(lock, file):
                continue  # it was removed before it was locked here
            yield file if taken or wait else None
            return


def _is(path: Path, file: IO[bytes]) -> bool:
    """Whether a file that is open is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _wait_for(file: IO[bytes], text: str) -> None:
    """Wait until another process lets go of a file."""
    from headscope.console import busy  # what holds nothing does without

    with busy(text):
        while not _take(file):
            time.sleep(LOOK_S)


def _take(file: IO[bytes]) -> bool:
    """Lock an open file, unless another process holds it; without such locks nothing is held."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network drive without locks
        _say_unlocked(Path(file.name).parent)
    return True


@cache
def _say_unlocked(folder: Path) -> None:
    from headscope.console import console

    console.print(
        f"The file system of {folder} has no locks: only one headscope at a time may write in it.",
        soft_wrap=True,
    )


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """Yield a name under which a library that takes UTF-8 alone can read a file of any name."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; bytes of a name that are none read as Python writes them."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


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
    """Return a table as `write_table` writes it; no spreadsheet takes a cell for a formula."""
    table = _map_text(table, escape_formula)
    form: dict[str, Any] = {"sep": "\t", "index": False, "na_rep": "n/a", "lineterminator": "\n"}
    text = table.to_csv(**form)
    # a reader would take a carriage return for the end of a line, unless it stands in quotes
    return table.to_csv(**form, quoting=csv.QUOTE_ALL) if "\r" in text else text


def read_table(path: Path) -> "pd.DataFrame":
    """Read a TSV of ours: ids and names stay text ('007' is no number, 'NA' no missing value)."""
    import pandas as pd  # a process that only takes slices does without

    columns = pd.read_csv(path, sep="\t", nrows=0).columns
    text = {name: str for name in TEXT_COLUMNS if name in columns}
    missing = {name: ["n/a"] for name in columns}
    options: dict[str, Any] = {"na_values": missing, "keep_default_na": False}
    if int(pd.__version__.partition(".")[0]) < 3:  # which loses the last digit of a float
        options["float_precision"] = "round_trip"
    return _map_text(pd.read_csv(path, sep="\t", dtype=text, **options), unescape_formula)


def _map_text(table: "pd.DataFrame", change: Callable[[Any], Any]) -> "pd.DataFrame":
    """Return a table with its headings and cells of text changed; each distinct value once."""
    import pandas as pd

    table = table.rename(columns=change)
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        if pd.api.types.is_numeric_dtype(column):
            continue
        changed = {value: change(value) for value in column.dropna().unique()}
        if any(value != new for value, new in changed.items()):
            table[name] = column.map(lambda value, new=changed: new.get(value, value))
    return table


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
