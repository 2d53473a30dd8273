"""Results of single runs that stand until a run changes: `analysis.json` of an experiment.

A function of runs that is decorated with `stored` is computed once for the same records, where
`storing` is at work, and by the same code. A result is written as plain JSON, digit by digit.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, wraps
from importlib import resources
from inspect import signature
from math import isfinite
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, get_args, get_type_hints

import numpy as np
import pandas as pd

from headscope.files import write_json
from headscope.manifest import DAMAGE, NAME, content_hash, file_hash
from headscope.record import Run
from headscope.threads import one_blas_thread

FILE: Final = "analysis.json"
CODE: Final = (".py", ".js", ".css", ".j2")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Store:
    """The entries of one file by their key, and what was made of them in this process."""

    entries: dict[str, Any]
    results: dict[str, Any] = field(default_factory=dict)


_AT_WORK: ContextVar[_Store | None] = ContextVar("store", default=None)


@contextmanager
def storing(experiment: Path) -> Iterator[None]:
    """Let stored functions look into the `analysis.json` of an experiment, and write it after.

    Entries of runs that have changed since, or are gone, are left out.
    """
    if _AT_WORK.get() is not None:
        yield
        return
    try:
        entries = read_entries(experiment / FILE)
    except DAMAGE:  # none yet, or damaged
        entries = {}
    store = _Store(dict(entries))
    token = _AT_WORK.set(store)
    try:
        yield
    finally:
        _AT_WORK.reset(token)
        current = {
            key: entry
            for key, entry in sorted(store.entries.items())
            if all(_stands(experiment, *run) for run in entry["runs"].items())
        }
        if current != entries:
            content = {"code": code_hash(), "results": current}
            write_json(experiment / FILE, {"sha256": content_hash(content)} | content)


def read_entries(path: Path) -> Mapping[str, Any]:
    """Return the results of an `analysis.json`, none of other code; ValueError if damaged."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.pop("sha256") != content_hash(stored):
        raise ValueError("it has changed since it was written")
    return stored["results"] if stored["code"] == code_hash() else {}


def stored(function: Callable[P, T]) -> Callable[P, T]:
    """Let the result of a function stand while its runs and other arguments stay the same.

    Arguments are runs, sequences of runs, and values that JSON holds; the result consists of
    dataclasses, tuples, plain values, small arrays and tables.
    """

    @wraps(function)
    @one_blas_thread
    def remembered(*args: P.args, **kwargs: P.kwargs) -> T:
        store = _AT_WORK.get()
        if store is None:
            return function(*args, **kwargs)
        runs: dict[str, str] = {}
        bound = signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        asked = _argument(list(bound.arguments.items()), runs)
        key = content_hash([function.__module__, function.__qualname__, asked, runs])
        if key not in store.results:
            if key in store.entries:
                store.results[key] = _decode(store.entries[key]["value"], _classes_of(function))
            else:
                store.results[key] = function(*args, **kwargs)
                entry = {"of": function.__qualname__, "runs": runs}
                store.entries[key] = entry | {"value": _encode(store.results[key])}
        result: T = store.results[key]
        return result

    return remembered


def record_hash(run: Run) -> str:
    """Return the SHA-256 of a run's manifest, or of all its files where it has none."""
    names = [NAME] if (run.path / NAME).is_file() else sorted(_files(run.path))
    return content_hash({name: file_hash(run.path / name) for name in names})


@cache
def code_hash() -> str:
    """Return a SHA-256 of this package, so that other code makes its results again."""
    digest = hashlib.sha256()
    package = Path(str(resources.files("headscope")))
    for path in sorted(package.rglob("*")):
        if path.suffix in CODE:
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _stands(experiment: Path, name: str, sha256: str) -> bool:
    run = Run(experiment / "runs" / name)
    return run.finished and record_hash(run) == sha256


def _argument(value: Any, runs: dict[str, str]) -> Any:
    """Return an argument as JSON holds it; a run by its name, with its hash among `runs`."""
    if isinstance(value, Run):
        runs[value.name] = record_hash(value)
        return value.name
    if isinstance(value, list | tuple):
        return [_argument(part, runs) for part in value]
    return value


def _encode(value: Any) -> Any:
    """Return a result as JSON holds it; what JSON does not know stands under its kind."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return {"kind": "float", "value": str(value)}
    if isinstance(value, np.ndarray):
        return {"kind": "array", "type": str(value.dtype), "value": _encode(value.tolist())}
    if isinstance(value, pd.DataFrame):
        return {"kind": "table", "value": {name: _encode(value[name].to_numpy()) for name in value}}
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
        return {"kind": "class", "type": type(value).__name__, "value": named}
    if isinstance(value, Mapping):
        return {"kind": "mapping", "value": {name: _encode(part) for name, part in value.items()}}
    if isinstance(value, list | tuple):
        return [_encode(part) for part in value]
    return value


def _decode(value: Any, classes: Mapping[str, type]) -> Any:
    """Return what `_encode` took; sequences as tuples."""
    if isinstance(value, list):
        return tuple(_decode(part, classes) for part in value)
    if not isinstance(value, dict):
        return value
    kind, content = value["kind"], value["value"]
    if kind == "float":
        return float(content)
    if kind == "array":
        return np.array(_decode(content, classes), dtype=value["type"])
    named = {name: _decode(part, classes) for name, part in content.items()}
    if kind == "table":
        return pd.DataFrame(named)
    return classes[value["type"]](**named) if kind == "class" else named


@cache
def _classes_of(function: Callable[..., Any]) -> Mapping[str, type]:
    """Return the dataclasses that a function's result may consist of, by name."""
    classes: dict[str, type] = {}
    open_hints = [get_type_hints(function)["return"]]
    while open_hints:
        hint = open_hints.pop()
        open_hints += get_args(hint)
        if isinstance(hint, type) and is_dataclass(hint) and hint.__name__ not in classes:
            classes[hint.__name__] = hint
            open_hints += get_type_hints(hint).values()
    return classes
