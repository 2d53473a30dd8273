"""The file that keeps an experiment's leakage analysis: `leakage.json`, until a run changes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headscope.analysis.leakage.analysis import PERMUTATIONS, Leakage, analyse_leakage
from headscope.analysis.stored import storing
from headscope.audit_record import Audit, read_audit
from headscope.console import busy
from headscope.files import decode_nan, write_json
from headscope.manifest import DAMAGE, content_hash, file_hash
from headscope.record import FEATURES, Run, find_runs, read_experiment

FORMAT = 5  # of the file and of what is computed; the analysis is repeated for another
ANALYSED = ("run.toml", "predictions.tsv", "metrics.json", "head.npz", "features.npz")


@busy("Measuring leakage")
def stored_leakage(
    experiment: Path | str,
    *,
    permutations: int = PERMUTATIONS,
    runs: Sequence[Run] | None = None,
) -> Leakage:
    """Return an experiment's leakage analysis; `leakage.json` holds it until a run changes.

    Parameters
    ----------
    experiment
        Its folder.
    permutations
        How many classifiers of a frozen run are trained on permuted labels.
    runs
        Its finished networks, those on permuted labels too, where the caller has read them.

    Raises
    ------
    InputError
        The folder is no experiment, or has no finished run.
    """
    folder = Path(experiment)
    runs = runs or [*read_experiment(folder), *find_runs(folder).permuted]
    audit = read_audit(folder)
    key = runs_key(runs, permutations, audit)
    try:
        stored = read_stored(folder)
        if stored["key"] == key:
            return read_leakage(stored)
    except DAMAGE:  # none yet, or changed since
        pass
    with storing(folder):
        result = analyse_leakage(runs, permutations=permutations, audit=audit)
    facts = result.to_dict()
    write_json(folder / "leakage.json", {"key": key, "sha256": content_hash(facts)} | facts)
    return result


def read_stored(folder: Path) -> dict[str, Any]:
    """Return what `leakage.json` holds; ValueError where it is not what was written."""
    stored = json.loads((folder / "leakage.json").read_text(encoding="utf-8"))
    if stored["sha256"] != content_hash(_facts(stored)):
        raise ValueError("leakage.json has changed since it was written")
    return stored


def _facts(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name not in ("key", "sha256")}


def has_runs(folder: Path) -> bool:
    """Whether a folder is an experiment with a finished run, that can be analysed."""
    return any((folder / "runs").glob("*/metrics.json"))


def runs_key(runs: Sequence[Run], permutations: int, audit: Audit | None = None) -> str:
    """Return a SHA-256 of what the analysis is made from, measured seconds aside.

    That is a run's settings, predictions, scores, head and features; of the audit, what crosses
    each split.
    """
    digest = hashlib.sha256(f"{FORMAT} {permutations}\n".encode())
    if audit is not None:
        digest.update(repr([(split.sha256, split.duplicated) for split in audit.splits]).encode())
    for run in sorted(runs, key=lambda run: run.name):
        digest.update(run.name.encode())
        for path in map(run.place, (*ANALYSED, FEATURES)):
            if path.name != FEATURES or path.is_file():  # which earlier records lack
                digest.update(file_hash(path).encode())
    return digest.hexdigest()


def read_leakage(stored: dict[str, Any]) -> Leakage:
    """Rebuild the result from what `Leakage.to_dict` made; ValueError if it cannot be."""
    from pydantic import TypeAdapter

    values = decode_nan(stored)
    for test, as_stored in zip(values["permuted"], stored["permuted"], strict=True):
        test["no_leak"] = as_stored["no_leak"] and test["no_leak"]
    result = TypeAdapter(Leakage).validate_python(values)
    if result.to_dict() != _facts(stored):
        raise ValueError("The file does not hold exactly this result.")
    return result
