"""What a finished run predicts for a new scan, which is sliced as the run sliced its own.

Only the run's own directory is read (`run.toml`, `head.npz`, `model.safetensors`): neither the
data it was trained on nor pretrained weights are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from headscope.cohort.pictures import number_pictures
from headscope.console import console, track
from headscope.errors import InputError, RunError
from headscope.files import utf8_path
from headscope.manifest import DAMAGE, reason_of
from headscope.metrics import slice_units, softmax, subject_level
from headscope.models.network import Network, build_network
from headscope.models.state import load_state
from headscope.record import Run, run_problem
from headscope.scans.discovery import ScanFile, find_scans
from headscope.scans.volume import ScanError, with_plane
from headscope.slicing.extract import count_empty
from headscope.slicing.notes import Remarks, summarise_remarks
from headscope.slicing.parallel import take_file
from headscope.slicing.spec import GEOMETRY, SliceSpec
from headscope.tables import Column, Shown, Table
from headscope.text import printable_name
from headscope.training.device import find_device, fixed_batch
from headscope.training.features import EXTRACT_BATCH
from headscope.training.loader import SliceInputs, batches

JOINED = {"mean": "the mean", "logits": "the mean of the logits", "vote": "the votes"}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Shown):
    """What a run predicts for new scans.

    Attributes
    ----------
    slices
        One row per slice: scan, file, plane, slice_index, predicted, probability_<class>. file is
        the name of the picture, or of the file or folder of the scan.
    scans
        One row per scan: scan, slices, predicted, probability_<class>. The probabilities of its
        slices are joined as `aggregate` says and as the run joined those of a subject.
    notes
        What was assumed of scans or repaired, and which gave slices that show nothing.
    failures
        Why each other scan has no prediction, by scan.
    """

    run: str
    class_names: list[str]
    aggregate: str
    slices: pd.DataFrame
    scans: pd.DataFrame
    notes: Sequence[str] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, the slices of each scan below it."""
        return {
            "run": self.run,
            "class_names": self.class_names,
            "aggregate": self.aggregate,
            "notes": list(self.notes),
            "scans": [
                _nested(row, self.class_names)
                | {"slices": [_nested(part, self.class_names) for part in self._of(row["scan"])]}
                for row in self.scans.drop(columns="slices").to_dict("records")
            ],
            "failures": dict(self.failures),
        }

    def tables(self) -> list[Table]:
        """Return the slices, then the scans."""
        note = f"Run {self.run}; a scan's probability is {JOINED[self.aggregate]} of its slices."
        notes = [note, *self.notes]
        return [self._table("Slices", self.slices), self._table("Scans", self.scans, notes)]

    def _table(self, title: str, frame: pd.DataFrame, notes: Sequence[str] = ()) -> Table:
        columns = [
            Column(name.removeprefix("probability_"), format="fraction")
            if name.startswith("probability_")
            else Column(name.replace("_", " ").capitalize())
            for name in frame.columns
        ]
        return Table(title, columns, frame.to_numpy(object).tolist(), notes)

    def _of(self, scan: str) -> list[dict[Any, Any]]:
        rows = self.slices[self.slices["scan"] == scan]
        return rows.drop(columns="scan").to_dict("records")


def predict(
    run: Path | str, scans: Sequence[Path | str] | Path | str, *, device: str = "auto"
) -> Prediction:
    """Return what a finished run predicts for new scans, computed in float32.

    Parameters
    ----------
    run
        The directory of the run, which holds its network.
    scans
        Files, folders of a DICOM series, or folders, of which every scan counts. Each scan is
        predicted alone, also where two are of one subject. For a run on ready pictures they are
        pictures, and a folder of them is one subject.
    device
        auto, cpu or cuda.

    Returns
    -------
    Prediction
        Probabilities per slice and per scan. Scans bear their paths, or numbers in the order given
        where the run holds pseudonyms. If a ready slice does not name its plane, stderr names the
        planes that the run was trained on. A scan that cannot be read or used is in `failures`, as
        long as another can.

    Raises
    ------
    InputError
        `run` is not a finished run with a network, its record has changed since it was written, or
        no scan can be used: read, and in a plane that the run was trained on.
    RunError
        The device is out of memory, or the network gives no finite numbers.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> prediction = hs.predict(run.path, "scans/AD")
    >>> len(prediction.scans), list(prediction.slices.columns[:4])
    (6, ['scan', 'file', 'plane', 'slice_index'])
    """
    # 1. the run: how it sliced, and its network
    record = _finished(Path(run))
    (spec, of), planes = _slicing(record), list(record.settings["planes"])
    network = load_network(record, device)
    # 2. the scans
    given = [scans] if isinstance(scans, str | Path) else scans
    failures: dict[str, str] = {}
    groups = [group for path in given for group in _find_groups(Path(path), of, failures)]
    hidden = bool(record.settings.get("pseudonymised"))
    # 3. the slices of each, and the logits of the network
    names = record.class_names
    parts, logits, silent, remarks = [], [], [], []
    for number, (scan, files) in enumerate(track(groups, "Predicting", len(groups)), start=1):
        name = f"scan {number}" if hidden else printable_name(scan)
        notes: list[str] = []
        try:
            table, pixels, plane_known = _take(files, spec, planes, hidden, notes, failures)
        except (InputError, OSError) as error:
            failures[name] = _failure(error, hidden)
            continue
        table.insert(0, "scan", name)
        remarks.append(Remarks(name, dict.fromkeys(notes), count_empty(pixels), len(pixels)))
        logits.append(_logits(network, pixels, record))
        parts.append(_with_probabilities(table, softmax(logits[-1]), names))
        if not plane_known:
            silent.append(name)
    if not parts:
        raise InputError(_nothing(failures))
    _note_planes(silent, len(groups), planes)
    slices = pd.concat(parts, ignore_index=True)
    aggregate = str(record.settings["aggregate"])
    scans_table = _joined(slices, np.concatenate(logits), names, aggregate)
    said = summarise_remarks(remarks)
    return Prediction(record.name, names, aggregate, slices, scans_table, said, failures)


def _find_groups(path: Path, of: str, failures: dict[str, str]) -> list[tuple[str, list[ScanFile]]]:
    """Return the scans that an argument names; one that names none is put among the failures."""
    try:
        return _groups(path, of)
    except InputError as error:
        failures[str(path)] = str(error)
        return []


def _failure(error: Exception, hidden: bool) -> str:
    """Say why a scan has no prediction; where names are hidden, without that of its file."""
    return f"It {error.reason}." if hidden and isinstance(error, ScanError) else str(error)


def _nothing(failures: Mapping[str, str]) -> str:
    """Say why no scan has a prediction."""
    if not failures:
        return "No scan was given to predict."
    first = next(iter(failures.values()))
    return first if len(failures) == 1 else f"None of {len(failures)} scans can be used: {first}"


def load_network(run: Run, device: str = "auto") -> Network:
    """Return the trained network of a run, in eval mode.

    Raises
    ------
    InputError
        The run keeps no network, or its file does not fit.
    """
    path = run.path / "model.safetensors"
    if not path.is_file():
        raise InputError(
            f"{run.path} keeps no network (model.safetensors): it was trained with "
            "keep_model = false, or on permuted labels."
        )
    network = build_network(
        run.settings["architecture"],
        "scratch",  # its weights follow from the run
        "random",
        classes=len(run.class_names),
        size=int(run.settings["slice_size"]),
        seed=0,
    )
    run.checked(path.name)
    try:
        with utf8_path(path) as name:
            load_state(network.model, load_file(name))
    except (SafetensorError, *DAMAGE, RuntimeError) as error:
        reason = reason_of(error)
        raise InputError(f"{path} is damaged or of another network ({reason}).") from None
    if not np.array_equal(network.head.weight.detach().numpy(), run.head["weight"]):
        raise InputError(
            f"{path} has another classifier than head.npz beside it: one of them has changed "
            f"since {run.path} was trained."
        )
    network.model.to(find_device(device)).eval()
    return network


def _finished(path: Path) -> Run:
    """Return the run at `path`, or say what `path` is instead."""
    if (path / "runs").is_dir():
        runs = sorted(run.name for run in map(Run, (path / "runs").iterdir()) if run.finished)
        named = f": {', '.join(runs[:6])}{', …' if len(runs) > 6 else ''}" if runs else ""
        raise InputError(f"{path} is an experiment: name one of its runs, {path / 'runs'}/…{named}")
    if not (path / "run.toml").is_file():
        raise InputError(f"{path} is no run: it has no run.toml.")
    if not Run(path).finished:
        raise InputError(f"{path} is a run that has not ended; 'headscope run' continues it.")
    if Run(path).is_rival:
        raise InputError(f"{path} is a simple rival, no network: it predicts no new scans.")
    problem = run_problem(Run(path))
    if problem:
        raise InputError(f"{path} is not whole, so nothing is predicted: {problem}.")
    return Run(path)


def _slicing(run: Run) -> tuple[SliceSpec, str]:
    """Return how the run took its slices, and of what: scans, pictures or both."""
    stored = run.settings.get("slicing")
    if not isinstance(stored, dict) or stored.get("version") != GEOMETRY:
        raise InputError(
            f"{run.path} was sliced by a different version of headscope; train it again."
        )
    size = run.settings["slice_size"]
    try:
        return SliceSpec.from_settings(stored | {"size": int(size)}), str(stored["of"])
    except DAMAGE as error:
        raise InputError(f"{run.path / 'run.toml'} is damaged ({reason_of(error)}).") from None


def _groups(path: Path, of: str) -> list[tuple[str, list[ScanFile]]]:
    """Return the scans that an argument names, and the files of each."""
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    files = find_scans(path) if path.is_dir() else [ScanFile.at(path)]
    if not files:
        raise InputError(f"{path} holds no scans and no pictures.")
    pictures = files[0].kind == "picture"
    if of == ("scans" if pictures else "pictures"):
        raise InputError(f"The run was trained on {of}, and {files[0].path} is none.")
    if pictures and path.is_dir():
        return [(str(path), files)]
    return [(str(file.path), [file]) for file in files]


def _take(
    files: list[ScanFile],
    spec: SliceSpec,
    planes: list[str],
    hidden: bool,
    notes: list[str],
    failures: dict[str, str],
) -> tuple[pd.DataFrame, NDArray[np.uint8], bool]:
    """Return the table (file, plane, slice_index) and the pixels (n, H, W) of one scan's slices.

    The third value tells whether the planes of all of them are known. Where names are `hidden`,
    files bear numbers. Of several pictures those that fail are put among the failures; `notes` gets
    what was assumed of the files.
    """
    parts, rows, names, planes_known = [], [], [], True
    for number, file in enumerate(files, start=1):
        try:
            pixels, indices, plane_known = _take_file(file, spec, planes, notes)
        except (InputError, OSError) as error:
            if len(files) == 1:
                raise
            failures[f"file {number}" if hidden else str(file.path)] = _failure(error, hidden)
            continue
        parts.append(pixels)
        names.append(file.path.name)
        name = f"file {number}" if hidden else file.path.name
        rows += [(name, *index) for index in indices]
        planes_known = planes_known and plane_known
    if not parts:
        raise InputError(f"None of the {len(files)} pictures can be used.")
    table = pd.DataFrame(rows, columns=["file", "plane", "slice_index"])
    if files[0].kind == "picture":
        numbered = number_pictures(table.assign(path=names, subject_id="", session_id=""))
        table["slice_index"] = numbered["slice_index"]
    return table, np.concatenate(parts), planes_known


def _take_file(
    file: ScanFile, spec: SliceSpec, planes: list[str], notes: list[str]
) -> tuple[NDArray[np.uint8], list[tuple[str, int]], bool]:
    """Return a file's slices in the planes of the run: pixels, and (plane, index) of each.

    The third value tells whether their plane is known: a ready slice tells it by its orientation or
    its name. One without either, and every picture, is taken to be in the plane of the run.
    """
    file = with_plane(file)
    picture = file.kind == "picture"
    named = None if picture and file.plane not in planes else file.plane
    silent = named is None and file.kind in ("slice", "picture")
    plane = named or (planes[0] if silent and len(planes) == 1 else spec.plane)
    pixels, taken, remarks = take_file(replace(file, plane=named), plane, spec)
    notes += remarks
    rows = [(plane, int(index)) for plane, indices in taken.items() for index in indices]
    chosen = [n for n, (plane, _) in enumerate(rows) if silent or plane in planes]
    if not chosen:
        raise InputError(
            f"{file.path} is in the {rows[0][0]} plane, and the run was trained on "
            f"{' and '.join(planes)} slices."
        )
    return pixels[chosen], [rows[n] for n in chosen], picture or not silent


def _note_planes(silent: list[str], scans: int, planes: list[str]) -> None:
    """Name the scans whose plane is unknown, and the planes that the run was trained on."""
    if silent:
        which = silent[0] if scans == 1 else f"{len(silent)} of {scans} scans (first {silent[0]})"
        console.print(
            f"The run was trained on {' and '.join(planes)} slices; the plane of {which} is "
            "unknown.",
            soft_wrap=True,
        )


@torch.inference_mode()
def _logits(network: Network, pixels: NDArray[np.uint8], run: Run) -> NDArray[np.float32]:
    """Return the logits (n, K) of slices (n, H, W); RunError where they are no numbers."""
    entry = network.architecture
    inputs = SliceInputs(pixels, entry.mean, entry.std, network.head.weight.device)
    logits = []
    for part in batches(np.arange(len(pixels)), EXTRACT_BATCH):
        with fixed_batch(len(part), inputs.device):
            logits.append(network.model(inputs(part)).cpu())
    joined = torch.cat(logits).numpy()
    if not np.isfinite(joined).all():
        raise RunError(f"The network of {run.path} gives no finite numbers: train it again.")
    return joined


def _with_probabilities(
    table: pd.DataFrame, probabilities: NDArray[np.float64], names: list[str]
) -> pd.DataFrame:
    table["predicted"] = np.array(names)[probabilities.argmax(axis=1)]
    for k, name in enumerate(names):
        table[f"probability_{name}"] = probabilities[:, k]
    return table


def _joined(
    slices: pd.DataFrame, logits: NDArray[np.float32], names: list[str], aggregate: str
) -> pd.DataFrame:
    """Return one row per scan: how many slices it gave, and its probabilities."""
    owner, scans = pd.factorize(slices["scan"])  # (n,), (S,)
    units = slice_units(np.zeros(len(slices), dtype=np.int64), logits, owner)
    whole = subject_level(units, aggregate)
    table = pd.DataFrame({"scan": scans, "slices": np.bincount(owner)})
    return _with_probabilities(table, whole.probabilities, names)


def _nested(row: Mapping[Any, Any], names: list[str]) -> dict[str, Any]:
    plain = {key: value for key, value in row.items() if not key.startswith("probability_")}
    return plain | {"probabilities": {name: row[f"probability_{name}"] for name in names}}
