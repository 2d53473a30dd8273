"""The file that keeps an experiment's leakage analysis: `leakage.json`, until a run changes."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headscope.analysis.leakage.analysis import PERMUTATIONS, Leakage, analyse_leakage
from headscope.audit_record import Audit, read_audit
from headscope.errors import InputError
from headscope.files import decode_nan, write_json
from headscope.record import Run, read_experiment

FORMAT = 4  # of the file and of what is computed; the analysis is repeated for another


def stored_leakage(experiment: Path | str, *, permutations: int = PERMUTATIONS) -> Leakage:
    """Return an experiment's leakage analysis; `leakage.json` holds it until a run changes.

    Raises
    ------
    InputError
        The folder is no experiment, or has no finished run.
    """
    folder = Path(experiment)
    runs = read_experiment(folder)
    with suppress(InputError):  # there may be none on permuted labels
        runs += read_experiment(folder, permuted=True)
    path = folder / "leakage.json"
    audit = read_audit(folder)
    key = runs_key(runs, permutations, audit)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return read_leakage(stored)
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or damaged
        pass
    result = analyse_leakage(runs, permutations=permutations, audit=audit)
    write_json(path, {"key": key} | result.to_dict())
    return result


def has_runs(folder: Path) -> bool:
    """Whether a folder is an experiment with a finished run, that can be analysed."""
    return any((folder / "runs").glob("*/metrics.json"))


def runs_key(runs: Sequence[Run], permutations: int, audit: Audit | None = None) -> str:
    """Return a SHA-256 of what the analysis is made from: settings, predictions and scores.

    Of the audit it is what crosses each split.
    """
    digest = hashlib.sha256(f"{FORMAT} {permutations}\n".encode())
    if audit is not None:
        digest.update(repr([(split.sha256, split.duplicated) for split in audit.splits]).encode())
    for run in sorted(runs, key=lambda run: run.name):
        digest.update(run.name.encode())
        for name in ("run.toml", "predictions.tsv", "metrics.json"):
            digest.update(hashlib.sha256((run.path / name).read_bytes()).digest())
    return digest.hexdigest()


def read_leakage(stored: dict[str, Any]) -> Leakage:
    """Rebuild the result from what `Leakage.to_dict` made; ValueError if it cannot be."""
    from pydantic import TypeAdapter

    values = decode_nan(stored)
    for test, as_stored in zip(values["permuted"], stored["permuted"], strict=True):
        test["no_leak"] = as_stored["no_leak"] and test["no_leak"]
    result = TypeAdapter(Leakage).validate_python(values)
    if result.to_dict() != {name: value for name, value in stored.items() if name != "key"}:
        raise ValueError("The file does not hold exactly this result.")
    return result
