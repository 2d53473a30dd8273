"""The file that says what a report was made from, `report.json`: what stands is not made again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headscope.analysis.stored import code_hash, record_hash
from headscope.files import write_json
from headscope.manifest import DAMAGE, NAME, content_hash, file_hash
from headscope.record import find_runs
from headscope.record.evaluation import evaluations_hash

WRITTEN: Final = ("report.html", "table.tsv", "runs.tsv", "table.md", "leakage.json")
PERHAPS: Final = ("evaluations.tsv",)  # written only where there is something for it
BESIDE: Final = (
    "audit.json",
    "failures.tsv",
    "environment.json",
    "participants.tsv",
    f"slices/{NAME}",
    f"splits/{NAME}",
)


def report_key(experiment: Path, thumbnails: str) -> str | None:
    """Return a SHA-256 of all that a report is made from; None without a run."""
    records = find_runs(experiment)
    runs = records.all
    if not runs:
        return None
    digest = hashlib.sha256(f"{code_hash()} {thumbnails}\n".encode())
    digest.update(json.dumps([dict(records.left_out), [run.name for run in runs]]).encode())
    digest.update("".join(map(record_hash, runs)).encode())
    files = [run.path / "metrics.json" for run in runs]  # measured seconds and all
    files += sorted(experiment.glob("ablation/*.json"))
    files += sorted(experiment.glob(f"ablation/*/runs/*/{NAME}"))
    for path in [*files, *(experiment / name for name in BESIDE)]:
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        digest.update(b"\n")
    digest.update(evaluations_hash(experiment).encode())
    pixels = experiment / "slices" / "slices.npy"
    if pixels.is_file() and not (pixels.parent / NAME).is_file():
        digest.update(file_hash(pixels).encode())
    return digest.hexdigest()


def stands(experiment: Path, key: str | None) -> bool:
    """Whether the report of this key is there as it was written."""
    try:
        stored = json.loads((experiment / "report.json").read_text(encoding="utf-8"))
        return bool(
            key is not None and stored["key"] == key and stored["files"] == _written(experiment)
        )
    except DAMAGE:  # none yet, or damaged
        return False


def read_report(experiment: Path) -> Mapping[str, Any]:
    """Return headline, thumbnails and chapters of the report of an experiment as it is now.

    Nothing where there is none, or where it shows something else.
    """
    try:
        stored = json.loads((experiment / "report.json").read_text(encoding="utf-8"))
        key = report_key(experiment, stored["thumbnails"])
    except DAMAGE:  # none yet, of an earlier version, or damaged
        return {}
    return stored if stands(experiment, key) else {}


def store_key(experiment: Path, key: str | None, **shown: Any) -> None:
    """Write what the report was made from, what it shows, and hashes of what was written."""
    if key is None:
        (experiment / "report.json").unlink(missing_ok=True)
        return
    facts = {"key": key, "files": _written(experiment), **shown}
    write_json(experiment / "report.json", facts | {"sha256": content_hash(facts)})


def _written(experiment: Path) -> dict[str, str]:
    names = [*WRITTEN, *(name for name in PERHAPS if (experiment / name).exists())]
    return {name: file_hash(experiment / name) for name in names}
