"""Whether files are those that were written: a manifest of their SHA-256 in the folder.

    manifest.json    {"files": {"head.npz": {"sha256": "…", "bytes": 1234}, …}}

It is written just before the file that marks the end of its folder, whose hash it holds too, and is
checked whenever one of the files is read. Measured seconds are no part of a hash, so that two
undisturbed runs have the same manifest. A folder of an earlier version has none, and cannot be
checked.

A file that runs share has `"stored": true`: it is EXPERIMENT/store/<sha256>.<suffix>, two folders
above that of the run, unless the run's own folder has it. Frozen runs of one backbone have the same
features, stage means, maps and backbone. Two processes that write the same file write the same
bytes, each of them whole.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.files import atomic_path, sha256, write_json

NAME: Final = "manifest.json"
STORE: Final = "store"  # the folder beside `runs` of the files that runs share
CHANGED: Final = "has changed since it was written"
MISSING: Final = "is missing"
TIMED: Final = frozenset({"history.jsonl", "metrics.json"})  # files that hold measured seconds
RENEWED_S: Final = 3600.0  # the age at which a file of the store that is named again counts as new
HASH: Final = re.compile("[0-9a-f]{64}")
SECONDS: Final = re.compile(rb'"(\w*seconds)": ([^,}\n]+)')
# what readers of damaged TOML, JSON, TSV and NumPy files raise
DAMAGE: Final = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, OSError),
    *(MemoryError, RecursionError, NotImplementedError, tokenize.TokenError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)

Entry = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]


def write_last(
    path: Path,
    text: str,
    files: Iterable[str] = (),
    *,
    add: bool = False,
    stored: Mapping[str, Entry] | None = None,
) -> None:
    """Write the file that marks the end of its folder, after a manifest of it and of `files`.

    With `add` the files that the manifest has already stay in it. `stored` are entries of files in
    the store.
    """
    folder = path.parent
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        entries = dict(read_manifest(folder) or {}) if add else {}
        entries |= {name: _entry(folder / name) for name in files} | dict(stored or {})
        entries[path.name] = _entry(temporary, path.name)
        write_json(folder / NAME, {"files": dict(sorted(entries.items()))})


def read_manifest(folder: Path) -> Mapping[str, Entry] | None:
    """Return a manifest's entries by file, None where there is none; InputError where damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        sound = all(isinstance(entry["sha256"], str) for entry in entries.values())
    except DAMAGE:
        sound = False
    if not sound:
        raise InputError(f"{path} is damaged, so that nothing beside it can be checked.")
    return entries


def stored_entries(folder: Path) -> dict[str, Entry]:
    """Return the entries of a folder's files that are in the store; InputError as above."""
    entries = read_manifest(folder) or {}
    return {name: entry for name, entry in entries.items() if entry.get("stored") is True}


def located(path: Path) -> Path:
    """Return where a file of a folder is: there, or in the store where its manifest says so."""
    if path.is_file():
        return path
    try:
        entry = stored_entries(path.parent).get(path.name)
    except InputError:
        return path
    if entry is None or not HASH.fullmatch(entry["sha256"]):
        return path
    # by its name, and where a link to a run leads
    above = [Path(real(path.parent)).parents for real in (os.path.abspath, os.path.realpath)]
    places = [
        parents[1] / STORE / f"{entry['sha256']}{path.suffix}"
        for parents in above
        if len(parents) > 1
    ]
    return next((place for place in places if place.is_file()), path)


def keep(store: Path, name: str, write: Callable[[Path], Any]) -> Entry:
    """Write a file into a store, unless it is there already; return its entry for a manifest.

    name: what a run calls the file; its suffix stays. `write` writes it to a path that ends in it.
    """
    entry: dict[str, Any] = {}

    def placed(temporary: Path) -> Path | None:
        digest, size = sha256(temporary), temporary.stat().st_size
        entry.update(sha256=digest, bytes=size, stored=True)
        place = store / f"{digest}{Path(name).suffix}"
        if not place.is_file() or file_hash(place) != digest:
            return place
        if time.time() - place.stat().st_mtime > RENEWED_S:
            with suppress(OSError):  # of another user
                os.utime(place)
        return None

    with atomic_path(store / name, placed) as temporary:
        write(temporary)
    return entry


def keep_file(store: Path, path: Path) -> Entry:
    """Take a file of the same or of another store into a store; return its entry."""
    if path.parent != store:
        return keep(store, path.name, lambda place: shutil.copyfile(path, place))
    return {"sha256": path.stem, "bytes": path.stat().st_size, "stored": True}


def problem_of(path: Path, *, quick: bool = False) -> str:
    """Say how a file differs from its manifest; nothing where it does not, or there is none.

    `quick`: by its size alone.
    """
    try:
        entries = read_manifest(path.parent)
    except InputError:
        return f"cannot be checked, as {NAME} beside it is damaged"
    if entries is None:
        return ""
    if path.name not in entries:
        return f"is not in {NAME} beside it"
    place = located(path)
    if not place.is_file():
        return MISSING
    entry, size = entries[path.name], place.stat().st_size
    if "bytes" in entry and entry["bytes"] != size:
        return f"{CHANGED} ({size} bytes instead of {entry['bytes']})"
    return CHANGED if not quick and entry["sha256"] != file_hash(place) else ""


def check_file(path: Path) -> None:
    """Refuse a file that differs from its manifest (InputError)."""
    problem = problem_of(path)
    if problem:
        raise InputError(f"{path} {problem}: nothing is read from it.")


def folder_problems(folder: Path, quick: Collection[str] = ()) -> dict[str, str]:
    """Say by name how files of a folder differ from its manifest; `quick` ones by size alone."""
    try:
        names = read_manifest(folder) or {}
    except InputError:
        return {NAME: "is damaged"}
    problems = {name: problem_of(folder / name, quick=name in quick) for name in sorted(names)}
    return {name: problem for name, problem in problems.items() if problem}


def file_hash(path: Path, name: str = "") -> str:
    """Return the SHA-256 of a file without its measured seconds; once while it stays the same.

    `name` is the one that a temporary file will have.
    """
    stat = path.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _hash(path, name or path.name, state)


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def content_hash(value: Any) -> str:
    """Return the SHA-256 of plain values, for a JSON file that holds its hash itself."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def arrays_hash(arrays: Arrays, *names: str) -> str:
    """Return the SHA-256 of arrays and of `names`, for an NPZ file that holds its hash itself."""
    digest = hashlib.sha256("\n".join(names).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def cache_hash(path: Path, arrays: Arrays) -> str:
    """Return what an entry of the cache holds as its SHA-256: of its name and its arrays."""
    content = {name: array for name, array in arrays.items() if name not in ("seconds", "sha256")}
    return arrays_hash(content, path.name)


def index_hash(path: Path, files: Mapping[str, str]) -> str:
    """Return what an entry of the cache that names files of the store holds as its SHA-256."""
    return content_hash([path.name, files])


def _entry(path: Path, name: str = "") -> dict[str, Any]:
    """Describe a file; `name` is the one that it will have. Measured seconds change its size."""
    size = {} if (name or path.name) in TIMED else {"bytes": path.stat().st_size}
    return {"sha256": file_hash(path, name)} | size


@lru_cache(maxsize=4096)
def _hash(path: Path, name: str, state: object) -> str:
    if name in TIMED:
        masked = SECONDS.sub(rb'"\1": 0', path.read_bytes())
        return hashlib.sha256(masked).hexdigest()
    return sha256(path)
