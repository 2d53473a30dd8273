"""Runs in MLflow: settings as parameters, curves and scores as metrics, figures, the record."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Final

from headscope.analysis.stored import record_hash
from headscope.errors import InputError
from headscope.record import Run
from headscope.tracking.curves import (
    curves_of,
    draw_figures,
    identity,
    scores_of,
    settings_of,
    times_of,
)
from headscope.tracking.target import Target

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

RECORD: Final = (  # what stands beside a run as artefacts; arrays of all slices would be too much
    *("run.toml", "history.jsonl", "predictions.tsv", "head.npz", "manifest.json", "metrics.json"),
)
IDENTITY, STATE = "headscope.identity", "headscope.record"
SQLITE: Final = b"SQLite format 3\0"
MOST_LETTERS: Final = 6000  # of a parameter
QUIET: Final = {  # unless set: no reports of use, no lines on stdout, no minutes of tries
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MlflowTracker:
    """The MLflow experiment that bears the name of an experiment's folder.

    A run is known by the hash of its settings, in the tag `headscope.identity`: what continues
    after an interruption, or is written twice, is the same run, and no step of a curve comes twice.
    """

    def __init__(self, target: Target, experiment: Path) -> None:
        """Open the place: that of the target, of MLFLOW_TRACKING_URI, or an SQLite file."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.place, artefacts = _place(target, experiment)
        self.client = MlflowClient(self.place)
        name = experiment.resolve().name
        present = self.client.get_experiment_by_name(name)
        self.experiment_id = (
            self.client.create_experiment(name, artifact_location=artefacts)
            if present is None
            else present.experiment_id
        )
        self._steps: dict[str, set[int]] = {}  # by MLflow's id
        self._training: dict[str, str] = {}  # MLflow's id by the name of a run

    @property
    def look(self) -> str:
        """The command that shows what was written; of a server its address."""
        if self.place.startswith("http"):
            return self.place
        return f"mlflow ui --backend-store-uri {self.place}"

    def add_epochs(self, run: Run, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows of the history of a run that trains; steps that are there are left."""
        if run.name not in self._training:
            self._training[run.name] = self._run_of(run).info.run_id
        self._log(self._training[run.name], [(row, time()) for row in rows])

    def write(self, run: Run) -> bool:
        """Write a finished run; return whether anything was to write."""
        self._training.pop(run.name, None)
        rows = run.phase_rows(None)
        tracked = self._run_of(run, rows)
        run_id, state = tracked.info.run_id, record_hash(run)
        if tracked.data.tags.get(STATE) == state:
            return False
        ends = times_of(run, rows)
        self._log(run_id, list(zip(rows, ends, strict=True)))
        scores, marker = scores_of(run)
        shown = tracked.data.metrics
        new = [(name, value) for name, value in scores.items() if shown.get(name) != value]
        self._log_values(run_id, [(name, value, len(rows), ends[-1]) for name, value in new])
        for name in RECORD:
            if (run.path / name).is_file():
                self.client.log_artifact(run_id, str(run.path / name), "record")
        for name, figure in draw_figures(run):
            self.client.log_figure(run_id, figure, f"figures/{name}.png")
        self.client.set_tag(run_id, "headscope.marker", marker)
        self.client.set_terminated(run_id, "FINISHED", round(1000 * ends[-1]))
        self.client.set_tag(run_id, STATE, state)
        return True

    def fail(self, run: Run) -> None:
        """Mark a run that trained and failed; its record may be gone."""
        if run.name in self._training:
            self.client.set_terminated(self._training.pop(run.name), "FAILED")

    def _run_of(self, run: Run, rows: Iterable[Mapping[str, Any]] = ()) -> "MlflowRun":
        """Return the MLflow run of a run, made where there is none.

        One whose curves are not those of `rows`, as it was trained again, is deleted (MLflow can
        restore it) and made again.
        """
        key = identity(run)
        for tracked in self.client.search_runs(
            [self.experiment_id], f"tags.`{IDENTITY}` = '{key}'"
        ):
            if self._differs(tracked.info.run_id, rows):
                self.client.delete_run(tracked.info.run_id)
            else:
                return tracked
        tracked = self.client.create_run(
            self.experiment_id,
            start_time=round(1000 * (run.path / "run.toml").stat().st_mtime),
            tags={IDENTITY: key},
            run_name=run.name,
        )
        from mlflow.entities import Param

        settings = [Param(name, text[:MOST_LETTERS]) for name, text in settings_of(run).items()]
        for first in range(0, len(settings), 100):
            self.client.log_batch(tracked.info.run_id, params=settings[first : first + 100])
        return tracked

    def _differs(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a curve has other values at the steps of `rows`, or steps that these lack."""
        curves: dict[str, dict[int, float]] = {}
        for row in rows:
            for name, value in curves_of(row).items():
                curves.setdefault(name, {})[row["epoch"]] = value
        return any(
            curve.get(metric.step) != metric.value
            for name, curve in curves.items()
            for metric in self.client.get_metric_history(run_id, name)
        )

    def _log(self, run_id: str, rows: list[tuple[Mapping[str, Any], float]]) -> None:
        """Write rows of the history with their times in seconds, but for steps that are there."""
        if run_id not in self._steps:
            names = {name for row, _ in rows for name in curves_of(row)}
            histories = (self.client.get_metric_history(run_id, name) for name in sorted(names)[:1])
            self._steps[run_id] = {metric.step for history in histories for metric in history}
        steps = self._steps[run_id]
        values = [
            (name, value, row["epoch"], at)
            for row, at in rows
            if row["epoch"] not in steps
            for name, value in curves_of(row).items()
        ]
        self._log_values(run_id, values)
        steps |= {row["epoch"] for row, _ in rows}

    def _log_values(self, run_id: str, values: list[tuple[str, float, int, float]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, round(1000 * at), step) for name, value, step, at in values]
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[first : first + 1000])


def _place(target: Target, experiment: Path) -> tuple[str, str | None]:
    """Return the URI of the store, and of a local one that of the folder of its artefacts."""
    place = target.place or os.environ.get("MLFLOW_TRACKING_URI", "")
    if place and not target.is_path:
        return place, None
    path = (Path(place) if place else experiment / "mlflow.db").resolve()
    try:  # MLflow itself would try for minutes
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            head = file.read(len(SQLITE))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    if head not in (b"", SQLITE) or set("?#%") & set(str(path)):
        reason = "its name has ?, # or %" if head in (b"", SQLITE) else "it is another file"
        raise InputError(f"{path} cannot be the SQLite file of MLflow: {reason}.")
    return f"sqlite:///{path}", (path.parent / f"{path.stem}-artefacts").as_uri()
