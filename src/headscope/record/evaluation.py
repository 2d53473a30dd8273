"""Labelled cohorts from elsewhere that an experiment's networks scored: `evaluations/NAME/`.

evaluation.toml      how the cohort was read and sliced, and the hashes of its slices
slices/              its slices, a store like that of the experiment
overlap.json         heads that are both in the cohort and in the experiment
manifest.json        the SHA-256 of these files
runs/RUN/            for each run: settings.toml (the hashes of run and slices),
                     predictions.tsv, metrics.json and their manifest.json
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd
import tomli_w

from headscope.errors import InputError
from headscope.files import json_text, read_table, write_table, write_text
from headscope.manifest import (
    DAMAGE,
    MISSING,
    NAME,
    file_hash,
    folder_problems,
    problem_of,
    reason_of,
    write_last,
)
from headscope.record.run import Run

FOLDER: Final = "evaluations"
SETTINGS: Final = "evaluation.toml"
OVERLAP: Final = "overlap.json"
T = TypeVar("T")


@dataclass(frozen=True)
class SharedHead:
    """A scan of the experiment and one of the new cohort, in this order, that show one head.

    kind is "identical", "copy", "alike" or "shared" (single slices). rows number their middle
    slices in their stores.
    """

    kind: str
    scans: tuple[str, str]
    subjects: tuple[str, str]
    sessions: tuple[str, str]
    labels: tuple[str, str]
    rows: tuple[int, int]
    detail: float


@dataclass(frozen=True)
class Overlap:
    """What a cohort shares with an experiment.

    Attributes
    ----------
    scans, subjects
        How many the new cohort has.
    heads
        The pairs of scans that show one head, best first.
    same_ids
        Subject ids that both have, which may be chance where ids are plain numbers.
    note
        Why heads were not compared, or not all; empty where all were.
    """

    scans: int
    subjects: int
    heads: tuple[SharedHead, ...]
    same_ids: tuple[str, ...]
    note: str = ""

    @property
    def new_subjects(self) -> list[str]:
        """The subjects of the new cohort that show a head of the experiment; of none, pictures."""
        return sorted({self.new_unit(head) for head in self.heads})

    @property
    def counted(self) -> tuple[int, str]:
        """How many subjects the new cohort has, or pictures where it names none."""
        return (self.subjects, "subjects") if self.subjects else (self.scans, "pictures")

    def new_unit(self, head: SharedHead) -> str:
        """Return the subject of the new cohort, or the picture where it names none."""
        return head.subjects[1] if self.subjects else head.scans[1]


@dataclass(frozen=True)
class Evaluation:
    """A labelled cohort that an experiment's networks scored, read lazily."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the last file is there."""
        return (self.path / OVERLAP).is_file()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the cohort was read and sliced (`evaluation.toml`)."""
        return self._read(self.path / SETTINGS, lambda p: tomllib.loads(p.read_text("utf-8")))

    @cached_property
    def overlap(self) -> Overlap:
        """Which heads are in the experiment too (`overlap.json`)."""
        return self._read(self.path / OVERLAP, _read_overlap)

    @property
    def run_names(self) -> list[str]:
        """The runs whose scores are there."""
        return sorted(path.parent.name for path in self.path.glob("runs/*/metrics.json"))

    def folder(self, run: str) -> Path:
        """Return where the scores of a run are."""
        return self.path / "runs" / run

    def made_from(self, run: str) -> dict[str, Any]:
        """Return `run_sha256` and `slices_sha256` of a run's scores."""
        path = self.folder(run) / "settings.toml"
        return self._read(path, lambda p: tomllib.loads(p.read_text("utf-8")))

    def predictions(self, run: str) -> pd.DataFrame:
        """Return what a run predicted, one row per slice."""
        return self._read(self.folder(run) / "predictions.tsv", read_table)

    def metrics(self, run: str) -> dict[str, Any]:
        """Return a run's scores, as one subset of a run's `metrics.json`."""
        path = self.folder(run) / "metrics.json"
        return self._read(path, lambda p: json.loads(p.read_text("utf-8")))

    def problems(self) -> list[str]:
        """Say which files have changed since they were written, the slices apart."""
        places = {"": self.path} | {f"runs/{run}/": self.folder(run) for run in self.run_names}
        problems = [] if (self.path / NAME).is_file() else [f"{NAME} {MISSING}"]
        for place, folder in places.items():
            differing = folder_problems(folder).items()
            problems += [f"{place}{name} {problem}" for name, problem in differing]
        return problems

    def _read(self, path: Path, reader: Callable[[Path], T]) -> T:
        """Read a file; InputError where it is missing, changed or damaged."""
        problem = problem_of(path) if path.is_file() else MISSING
        try:
            if not problem:
                return reader(path)
        except DAMAGE as error:
            problem = f"is damaged ({reason_of(error)})"
        raise InputError(f"{path} {problem}: delete {self.path} and evaluate again.")


def find_evaluations(experiment: Path) -> tuple[list[Evaluation], dict[str, str]]:
    """Return the finished evaluations that are whole, and why each other is left out."""
    folder = experiment / FOLDER
    whole, left_out = [], {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        evaluation = Evaluation(path)
        if not evaluation.finished:
            continue
        problems = evaluation.problems()
        if problems:
            left_out[path.name] = "; ".join(problems)
        else:
            whole.append(evaluation)
    return whole, left_out


def run_hash(run: Run) -> str:
    """Return the SHA-256 by which scores know the run that made them."""
    path = run.path / NAME
    return file_hash(path if path.is_file() else run.path / "predictions.tsv")


def start_evaluation(evaluation: Evaluation, settings: Mapping[str, Any]) -> None:
    """Write `evaluation.toml`; refuse a folder that was begun with other settings."""
    wanted = tomllib.loads(tomli_w.dumps({k: v for k, v in settings.items() if v is not None}))
    path = evaluation.path / SETTINGS
    if not path.is_file():
        write_text(path, tomli_w.dumps(wanted))
        return
    stored = evaluation.settings
    differing = [
        f"{name} {stored.get(name, 'unset')!r} instead of {wanted.get(name, 'unset')!r}"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            f"{evaluation.path} was begun with other settings ({', '.join(differing[:4])}): choose "
            "another --out, or delete that folder."
        )


def is_scored(evaluation: Evaluation, run: Run, slices_sha256: str) -> bool:
    """Whether the scores of a run, as it is now, on these slices are there and whole."""
    folder = evaluation.folder(run.name)
    if not (folder / "metrics.json").is_file() or folder_problems(folder):
        return False
    wanted = {"run_sha256": run_hash(run), "slices_sha256": slices_sha256}
    return wanted.items() <= evaluation.made_from(run.name).items()


def write_scores(
    evaluation: Evaluation,
    run: Run,
    slices_sha256: str,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
) -> None:
    """Write what a run makes of the cohort; `metrics.json` comes last."""
    folder = evaluation.folder(run.name)
    (folder / "metrics.json").unlink(missing_ok=True)
    made_from = {"run": run.name, "run_sha256": run_hash(run), "slices_sha256": slices_sha256}
    write_text(folder / "settings.toml", tomli_w.dumps(made_from))
    write_table(folder / "predictions.tsv", predictions)
    write_last(
        folder / "metrics.json", json_text(dict(metrics)), ["settings.toml", "predictions.tsv"]
    )


def write_overlap(evaluation: Evaluation, overlap: Overlap) -> None:
    """Write `overlap.json`, which marks the end of an evaluation."""
    write_last(evaluation.path / OVERLAP, json_text(asdict(overlap)), [SETTINGS])


def evaluations_hash(experiment: Path) -> str:
    """Return a SHA-256 of all evaluations of an experiment; empty where there are none."""
    digest = hashlib.sha256()
    paths = sorted((experiment / FOLDER).glob("**/" + NAME))
    for path in paths:
        digest.update(path.relative_to(experiment).as_posix().encode() + path.read_bytes())
    return digest.hexdigest() if paths else ""


def _read_overlap(path: Path) -> Overlap:
    from pydantic import TypeAdapter  # takes long to load

    return TypeAdapter(Overlap).validate_python(json.loads(path.read_text("utf-8")))
