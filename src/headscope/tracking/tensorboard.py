"""Runs in TensorBoard: curves, settings and scores, and the features of test slices to look at."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import sleep, time
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from headscope.analysis.stored import record_hash
from headscope.audit_record import changed_inputs
from headscope.errors import InputError
from headscope.files import atomic_path, write_json, write_table, write_text
from headscope.manifest import DAMAGE
from headscope.record import Run
from headscope.reporting.scatters import (
    MOST_THUMBNAILS,
    SIDE,
    choose_thumbnails,
    draw_thumbnails,
)
from headscope.tables import Table
from headscope.tracking.curves import (
    curves_of,
    scores_of,
    settings_of,
    times_of,
)
from headscope.tracking.target import Target

WRITTEN: Final = "headscope.json"  # in a run's folder: of which record it shows what
EVENTS: Final = "events.out.tfevents.*"
IDS: Final = ("subject_id", "session_id", "plane", "slice_index")


class TensorboardTracker:
    """A folder of logs, with a folder for each run of an experiment.

    A finished run is written whole, from its record, in the place of what was there.
    """

    def __init__(self, target: Target, experiment: Path, thumbnails: str | None = None) -> None:
        """Make the folder: EXPERIMENT/tensorboard, or one of the target's for this experiment."""
        folder = Path(target.place) if target.place else experiment / "tensorboard"
        self.place = str(folder)
        self.folder = folder / experiment.resolve().name if target.place else folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{folder} cannot be the folder of TensorBoard: {reason}.") from None
        self.thumbnails = thumbnails
        self._open: dict[str, EventFileWriter] = {}

    @property
    def look(self) -> str:
        """The command that shows what was written."""
        return f"tensorboard --logdir {self.place}"

    def add_epochs(self, run: Run, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows of the history of a run that trains; later steps of an earlier start go."""
        for row in rows:
            if run.name not in self._open:
                _pass_second(self.folder / run.name)
                self._open[run.name] = EventFileWriter(str(self.folder / run.name))
                again = SessionLog(status=SessionLog.START)
                event = Event(wall_time=time(), step=row["epoch"], session_log=again)
                self._open[run.name].add_event(event)
            self._open[run.name].add_event(_scalars(row, time()))
        if run.name in self._open:
            self._open[run.name].flush()

    def write(self, run: Run) -> bool:
        """Write a finished run; return whether anything was to write."""
        self.fail(run)
        folder = self.folder / run.name
        thumbnails = choose_thumbnails([run], self.thumbnails)
        state = {"record": record_hash(run), "thumbnails": thumbnails}
        if _read(folder / WRITTEN) == state:
            return False
        earlier = [*folder.glob(EVENTS)]
        (folder / WRITTEN).unlink(missing_ok=True)
        _write_events(run, folder)
        for path in earlier:
            path.unlink()
        if not run.is_rival:
            _write_projector(run, folder, thumbnails)
        write_json(folder / WRITTEN, state)
        return True

    def fail(self, run: Run) -> None:
        """Close the log of a run that trained."""
        if run.name in self._open:
            self._open.pop(run.name).close()


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except DAMAGE:  # none yet, or damaged
        return None


def _scalars(row: Mapping[str, Any], at: float) -> Event:
    """Return a row of the history as an event at a time in seconds since 1970."""
    values = [Summary.Value(tag=name, simple_value=x) for name, x in curves_of(row).items()]
    return Event(wall_time=at, step=row["epoch"], summary=Summary(value=values))


def _pass_second(folder: Path) -> None:
    """Wait until the second is over in which a file of events began.

    TensorBoard reads files by their names, which count seconds: of two of one second the later may
    come first, and its steps would go.
    """
    now = time()
    if any(path.name.split(".")[3] == f"{int(now):010}" for path in folder.glob(EVENTS)):
        sleep(1 - now % 1)


def _write_events(run: Run, folder: Path) -> None:
    """Write the curves, and the tables of settings and scores, as one file of events."""
    rows = run.phase_rows(None)
    ends = times_of(run, rows)
    scores, marker = scores_of(run)
    settings = Table("", ("Setting", "Value"), [*settings_of(run).items()])
    results = Table("", ("Score", "Value"), [*scores.items()], [marker] if marker else [])
    writer = EventFileWriter(str(folder))
    for row, at in zip(rows, ends, strict=True):
        writer.add_event(_scalars(row, at))
    texts = [_text(name, table) for name, table in (("settings", settings), ("scores", results))]
    writer.add_event(Event(wall_time=ends[-1], step=0, summary=Summary(value=texts)))
    writer.close()


def _text(name: str, table: Table) -> Summary.Value:
    return Summary.Value(
        tag=name,
        metadata=create_summary_metadata(name, None),
        tensor=TensorProto(dtype="DT_STRING", string_val=[table.to_markdown().encode()]),
    )


def _write_projector(run: Run, folder: Path, thumbnails: str) -> None:
    """Write the features of test slices for the projector, a seeded sample of very many."""
    rows = np.flatnonzero(run.features["subset"] == "test")
    if len(rows) > MOST_THUMBNAILS:
        chosen = np.random.default_rng(0).choice(rows, MOST_THUMBNAILS, replace=False)
        rows = np.sort(chosen)
    config = ProjectorConfig()
    for name in ("features.tsv", "slices.tsv", "slices.png"):
        (folder / name).unlink(missing_ok=True)
    if not len(rows):
        (folder / "projector_config.pbtxt").unlink(missing_ok=True)
        return
    part = config.embeddings.add(
        tensor_name="features", tensor_path="features.tsv", metadata_path="slices.tsv"
    )
    values = pd.DataFrame(run.features["features"][rows])
    write_text(folder / "features.tsv", values.to_csv(sep="\t", header=False, index=False))
    write_table(folder / "slices.tsv", slice_table(run, rows))
    pixels = None if thumbnails == "none" else _read_pixels(run, rows)
    if pixels is not None:
        shown = rows if thumbnails == "test" else np.where(_wrong(run, rows), rows, -1)
        with atomic_path(folder / "slices.png") as path:
            draw_thumbnails(pixels, shown).save(path, "PNG")
        part.sprite.image_path = "slices.png"
        part.sprite.single_image_dim.extend([SIDE, SIDE])
    write_text(folder / "projector_config.pbtxt", str(config))


def slice_table(run: Run, rows: NDArray[np.intp]) -> pd.DataFrame:
    """Return what the projector says of slices: label, prediction, ids."""
    table = run.predictions.iloc[rows]
    names: Sequence[str] = [name for name in IDS if name in table]
    table = table[["label", "predicted", *names]]
    return table.assign(correct=np.where(_wrong(run, rows), "no", "yes"))


def _wrong(run: Run, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    table = run.predictions.iloc[rows]
    return (table["label"] != table["predicted"]).to_numpy()


def _read_pixels(run: Run, rows: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    """Map the slices of a run's experiment; None where they are gone or have changed."""
    experiment = run.path.parent.parent
    path = experiment / "slices" / "slices.npy"
    if not path.is_file() or changed_inputs(experiment):
        return None
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return pixels if rows.max() < len(pixels) else None
