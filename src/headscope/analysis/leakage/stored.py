"""The file that keeps an experiment's leakage analysis: `leakage.json`, until a run changes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from headscope.analysis.leakage.analysis import PERMUTATIONS, Leakage, analyse_leakage
from headscope.analysis.leakage.dose_response import Dose
from headscope.analysis.leakage.findings import Finding
from headscope.analysis.leakage.permutation import Null, PermutationTest
from headscope.analysis.leakage.reidentification import PROBES, Identity, Probe
from headscope.analysis.leakage.split_gap import Gap, GapScore, Neighbours
from headscope.analysis.permute import NoLeak
from headscope.audit_record import Audit, read_audit
from headscope.errors import InputError
from headscope.files import write_json
from headscope.record import Run, read_experiment

FORMAT = 4  # of the file and of what is computed; the analysis is repeated for another
T = TypeVar("T")


def stored_leakage(experiment: Path | str, *, permutations: int = PERMUTATIONS) -> Leakage:
    """Return an experiment's leakage analysis; `leakage.json` holds it until a run changes.

    Raises
    ------
    InputError
        The folder is no experiment, or has no finished run.
    """
    folder = Path(experiment)
    runs = read_experiment(folder)
    with suppress(InputError):  # that none was trained on permuted labels is nothing wrong
        runs += read_experiment(folder, permuted=True)
    path = folder / "leakage.json"
    audit = read_audit(folder)
    key = runs_key(runs, permutations, audit)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return read_leakage(stored)
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or not of our making
        pass
    result = analyse_leakage(runs, permutations=permutations, audit=audit)
    write_json(path, {"key": key} | result.to_dict())
    return result


def has_runs(folder: Path) -> bool:
    """Whether a folder is an experiment with a finished run, so that there is something to ask."""
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
    """Rebuild the result from what `Leakage.to_dict` made."""
    known = _nans(stored)
    return Leakage(
        gaps=tuple(
            Gap(
                **_tuples(gap)
                | {
                    "scores": _of(gap["scores"], GapScore),
                    "constant": tuple(map(tuple, gap["constant"])),
                }
            )
            for gap in known["gaps"]
        ),
        neighbours=tuple(Neighbours(**each) for each in known["neighbours"]),
        permuted=tuple(_permutation_test(each) for each in known["permuted"]),
        identity=tuple(
            Identity(**each | {name: Probe(**each[name]) for name in each if name in PROBES})
            for each in known["identity"]
        ),
        doses=tuple(
            Dose(**_tuples(each) | {"accuracies": tuple(map(tuple, each["accuracies"]))})
            for each in known["doses"]
        ),
        findings=tuple(Finding(**each) for each in known["findings"]),
        notes=tuple(known["notes"]),
        permutations=known["permutations"],
    )


def _permutation_test(values: dict[str, Any]) -> PermutationTest:
    expected = values["no_leak"]
    return PermutationTest(
        **_tuples(values)
        | {
            "scores": _of(values["scores"], Null),
            "no_leak": NoLeak(**expected) if isinstance(expected, dict) else None,
        }
    )


def _of(scores: dict[str, Any], kind: Callable[..., T]) -> dict[str, T]:
    return {name: kind(**_tuples(score)) for name, score in scores.items()}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _nans(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nans(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_nans(each) for each in value]
    return float("nan") if value is None else value
