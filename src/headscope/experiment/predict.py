"""What a finished run predicts for a new scan, which is sliced as the run sliced its own.

Only the run's own directory is needed (`run.toml`, `head.npz`, `model.safetensors`): neither the
data it was trained on nor pretrained weights are. The experiment's slices, where they are still
there, tell more surely whether a scan was trained on.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.pictures import number_pictures
from headscope.console import console, track
from headscope.errors import InputError
from headscope.experiment.new_scans.familiar import (
    Familiarity,
    far_warning,
    read_familiarity,
    trained_warning,
)
from headscope.experiment.new_scans.maps import averaging_tail, map_name, margin_maps, write_map
from headscope.experiment.new_scans.prediction import Prediction
from headscope.experiment.new_scans.trained import (
    Passed,
    load_network,
    pass_slices,
    slicing_of,
)
from headscope.metrics import slice_units, softmax, subject_level
from headscope.record import Run, finished_run
from headscope.scans.discovery import ScanFile, find_scans
from headscope.scans.header import scan_files
from headscope.scans.volume import ScanError, with_plane
from headscope.slicing.extract import count_empty
from headscope.slicing.notes import Remarks, summarise_remarks
from headscope.slicing.parallel import take_file
from headscope.slicing.spec import SliceSpec
from headscope.tail import Tail
from headscope.text import printable_name


@dataclass(frozen=True, eq=False)
class _Scan:
    """What was made of one scan: its rows, its slices, and how it relates to training."""

    name: str
    table: pd.DataFrame
    logits: NDArray[np.float32]
    remarks: Remarks
    share: float
    match: str
    plane_known: bool


def predict(
    run: Path | str,
    scans: Sequence[Path | str] | Path | str,
    *,
    device: str = "auto",
    volume: int | None = None,
    maps: Path | str | None = None,
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
    volume
        Which volume of 4-D files, from 0; by default that of the run.
    maps
        A folder for pictures: each slice with what its positions add to the margin of the predicted
        class laid over it. For networks that average positions before the final layer.

    Returns
    -------
    Prediction
        Probabilities per slice and per scan. Scans bear their paths, or numbers in the order given
        where the run holds pseudonyms. If a ready slice does not name its plane, stderr names the
        planes that the run was trained on. A scan that cannot be read or used is in `failures`, as
        long as another can. `warnings` say which scans are unlike those of training, or among them.

    Raises
    ------
    InputError
        `run` is not a finished run with a network, its record has changed since it was written, no
        scan can be used: read, and in a plane that the run was trained on; or there are no maps of
        this network.
    RunError
        The device is out of memory, or the network gives no finite numbers.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> prediction = hs.predict(run.path, "scans/AD")
    >>> len(prediction.scans), list(prediction.slices.columns[:4])
    (6, ['scan', 'file', 'plane', 'slice_index'])
    """
    # 1. the run: how it sliced, its network, and what trained it
    record = finished_run(Path(run))
    (spec, of), planes = slicing_of(record), list(record.settings["planes"])
    spec = spec if volume is None else replace(spec, volume=volume)
    network = load_network(record, device)
    tail = None if maps is None else averaging_tail(network, record)
    familiarity = read_familiarity(record)
    # 2. the scans
    given = [scans] if isinstance(scans, str | Path) else scans
    failures: dict[str, str] = {}
    groups = _once(group for path in given for group in _find_groups(Path(path), of, failures))
    hidden = bool(record.settings.get("pseudonymised"))
    # 3. the slices of each, what the network makes of them, and whether it was trained on them
    seen: list[_Scan] = []
    for number, (scan, files) in enumerate(track(groups, "Predicting", len(groups)), start=1):
        name = f"scan {number}" if hidden else printable_name(scan)
        notes: list[str] = []
        try:
            table, pixels, plane_known = _take(files, spec, planes, hidden, notes, failures)
        except (InputError, OSError) as error:
            failures[name] = _failure(error, hidden)
            continue
        table.insert(0, "scan", name)
        passed = pass_slices(network, pixels, record, maps=tail is not None)
        remarks = Remarks(name, dict.fromkeys(notes), count_empty(pixels), len(pixels))
        share = familiarity.reference.share_of_limit(passed.features)
        match = familiarity.match(passed.features, pixels, table["plane"].tolist())
        named = _with_probabilities(table, softmax(passed.logits), record.class_names)
        seen.append(_Scan(name, named, passed.logits, remarks, share, match, plane_known))
        if tail is not None and maps is not None:
            _write_maps(Path(maps), number, named, pixels, passed, tail, record.class_names)
    if not seen:
        raise InputError(_nothing(failures))
    _note_planes([scan.name for scan in seen if not scan.plane_known], len(groups), planes)
    return _gather(record, seen, failures, familiarity)


def _gather(
    run: Run, seen: Sequence[_Scan], failures: Mapping[str, str], familiarity: Familiarity
) -> Prediction:
    """Join the scans to one result, with what must be said of them."""
    aggregate = str(run.settings["aggregate"])
    slices = pd.concat([scan.table for scan in seen], ignore_index=True)
    logits = np.concatenate([scan.logits for scan in seen])
    shares = {scan.name: scan.share for scan in seen}
    scans = _joined(slices, logits, run.class_names, aggregate)
    scans["distance"] = scans["scan"].map(shares)
    far = far_warning(shares, familiarity.reference.subjects)
    matches = {scan.name: scan.match for scan in seen if scan.match}
    notes = summarise_remarks([scan.remarks for scan in seen])
    return Prediction(
        run=run.name,
        class_names=run.class_names,
        aggregate=aggregate,
        slices=slices,
        scans=scans,
        notes=[*notes, *filter(None, [familiarity.note])],
        failures=failures,
        warnings=[*([far] if far else []), *trained_warning(matches)],
    )


def _write_maps(
    folder: Path,
    number: int,
    table: pd.DataFrame,
    pixels: NDArray[np.uint8],
    passed: Passed,
    tail: Tail,
    names: Sequence[str],
) -> None:
    """Write a picture of each slice of a scan with its contribution map."""
    assert passed.maps is not None
    positions, classes = margin_maps(tail, passed.maps, passed.logits)
    for n, row in enumerate(table.to_dict("records")):
        first, second = (names[k] for k in classes[n])
        lines = [
            f"{first} {row[f'probability_{first}']:.2f}   {row['file']}, {row['plane']} "
            f"{row['slice_index']}",
            f"red: for {first}, blue: for {second} instead",
        ]
        name = map_name(number, row["file"], row["plane"], row["slice_index"])
        write_map(folder / name, pixels[n], positions[n], row["plane"], lines)


def _find_groups(path: Path, of: str, failures: dict[str, str]) -> list[tuple[str, list[ScanFile]]]:
    """Return the scans that an argument names; one that names none is put among the failures."""
    try:
        return _groups(path, of)
    except InputError as error:
        failures[str(path)] = str(error)
        return []


def _once(groups: Iterable[tuple[str, list[ScanFile]]]) -> list[tuple[str, list[ScanFile]]]:
    """Return each scan once, though it be given twice, or as the .hdr and the .img of a pair."""
    distinct: dict[tuple[tuple[Path, Path], ...], tuple[str, list[ScanFile]]] = {}
    for scan, files in groups:
        distinct.setdefault(tuple(scan_files(file.path.resolve()) for file in files), (scan, files))
    return [*distinct.values()]


def _failure(error: Exception, hidden: bool) -> str:
    """Say why a scan has no prediction; where names are hidden, without that of its file."""
    return f"It {error.reason}." if hidden and isinstance(error, ScanError) else str(error)


def _nothing(failures: Mapping[str, str]) -> str:
    """Say why no scan has a prediction."""
    if not failures:
        return "No scan was given to predict."
    first = next(iter(failures.values()))
    return first if len(failures) == 1 else f"None of {len(failures)} scans can be used: {first}"


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
    root = Path(os.path.commonpath([file.path.parent for file in files]))
    for number, file in enumerate(files, start=1):
        try:
            pixels, indices, plane_known = _take_file(file, spec, planes, notes)
        except (InputError, OSError) as error:
            if len(files) == 1:
                raise
            failures[f"file {number}" if hidden else str(file.path)] = _failure(error, hidden)
            continue
        parts.append(pixels)
        names.append(file.path.relative_to(root).as_posix())
        name = f"file {number}" if hidden else names[-1]
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
