"""A cohort → its labelled mid-slices: one uint8 memory map, one table, one file of settings.

What is stored, and how it is opened, says `sliceset`; problems.tsv beside it lists the scans that
gave no slices, and why. How a slice is taken, and how it lies, says `midslices`. `slice_index`
counts along the plane's axis of the canonical volume, from 0.
"""

import hashlib
import json
import os
from collections.abc import Generator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from headscope.console import track
from headscope.errors import InputError
from headscope.files import atomic_path, locked, sha256, write_json, write_table, write_text
from headscope.scans.volume import ScanError
from headscope.slicing.extract import (
    AUTO,
    WINDOW,
    check_options,
    take_slices,
)
from headscope.slicing.parallel import Taken, take_files
from headscope.slicing.store import CHECKED, SliceSet, open_slices

if TYPE_CHECKING:
    from headscope.cohort.layouts import Cohort

GEOMETRY: Final = 2  # raised when the same settings come to give other pixels
FAILED_SHARE: Final = 0.2
COLUMNS: Final = ("scan", "subject_id", "session_id", "label", "plane", "slice_index")


__all__ = ["SliceSet", "open_slices", "take_slices", "write_slices"]


def write_slices(
    cohort: "Cohort",
    out: Path,
    *,
    plane: str = "axial",
    count: int = 30,
    size: int = 224,
    centre: str = "auto",
    spacing_mm: float | None = None,
    workers: int | None = None,
    strict: bool = False,
    volume: int | None = None,
    analyze_orientation: str = "LAS",
) -> SliceSet:
    """Take the slices of every scan of a cohort and store them in `out`.

    plane may be "all": `count` slices of each plane; where files hold ready slices, each is taken
    in the plane that the cohort names for it. Slices lie `spacing_mm` apart, or are consecutive.
    Killed, it goes on with the next scan; finished, it returns at once. The files are the same for
    any number of `workers` (processes; by default as many as cores, fewer for few scans). A scan
    that cannot be read goes to problems.tsv and the rest goes on, unless `strict`.

    Raises
    ------
    InputError
        `out` holds slices of other settings or scans, or more than 20% of the scans fail.
    ScanError
        The first scan that fails, where `strict`.
    """
    options = {
        "plane": plane,
        "count": count,
        "size": size,
        "centre": AUTO if centre == "auto" else centre,
        "spacing_mm": spacing_mm,
        "volume": volume,
        "analyze_orientation": analyze_orientation,
    }
    check_options(plane, count, size, centre, spacing_mm)
    settings = options | {
        "version": GEOMETRY,
        "window": list(WINDOW),
        "class_names": cohort.class_names,
        "scans": len(cohort.scans),
        "fingerprint": _fingerprint(cohort),
    }
    stored = _stored(out, settings)
    if stored is not None:
        return stored
    with locked(out), _Partial(out, settings, size) as partial:
        steps = _take_all(cohort, options, partial, workers, strict)
        for _ in track(steps, "Slicing", len(cohort.scans), len(partial.done)):
            pass
        return _finish(cohort, out, settings, partial)


def _stored(out: Path, settings: dict[str, Any]) -> SliceSet | None:
    """Return the finished slices in `out`, if there are any."""
    if not (out / "slices.json").is_file():
        return None
    stored = open_slices(out)
    _check_same(out, {"version": GEOMETRY} | stored.settings, settings)
    return stored


def _fingerprint(cohort: "Cohort") -> str:
    """Return a hash over the ids, labels, sizes and dates of all scans."""
    digest = hashlib.sha256()
    columns = ["subject_id", "session_id", "label", "plane", "slice_index"]
    named = [name for name in columns if name in cohort.scans.columns]
    rows = cohort.scans[named].assign(name=cohort.names).itertuples(index=False)
    for row, scan in zip(rows, cohort.files, strict=True):
        facts = []
        for file in scan.stored():
            if file.exists():
                stat = file.stat()
                facts += [stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps([*row, *facts]).encode())
    return digest.hexdigest()


def _check_same(out: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = [name for name in wanted if stored.get(name) != wanted[name]]
    if not different:
        return
    named = [name for name in different if name != "fingerprint"]
    what = ", ".join(f"{name} {stored.get(name)} (now {wanted[name]})" for name in named)
    raise InputError(
        f"{out} holds slices of {what or 'other scans, or the scans, ids or labels have changed'}: "
        "choose another folder, or delete this one."
    )


class _Partial:
    """Slices on their way: pixels appended scan by scan, and a line of a journal for each scan.

    A scan counts once its line stands, and its line is written after its pixels; so a kill at any
    moment loses no more than the scan in hand.
    """

    def __init__(self, out: Path, settings: dict[str, Any], size: int) -> None:
        self.pixels_path = out / "slices.part.npy"
        self.journal_path = out / "slices.part.jsonl"
        self.size = size
        self.done: list[dict[str, Any]] = []  # one a scan: its indices, or why it failed
        self.digest = hashlib.sha256()  # over the pixels so far
        first = json.dumps(settings)
        lines = self._read_journal()
        if lines and lines[0] == first and self.pixels_path.is_file():
            self._resume(lines[1:])
        else:
            self.pixels_path.write_bytes(_npy_header(0, size))
        self.start = len(_npy_header(0, size))
        journal = [first, *(json.dumps(entry) for entry in self.done)]
        write_text(self.journal_path, "".join(line + "\n" for line in journal))

    def __enter__(self) -> "_Partial":
        self.pixels = self.pixels_path.open("r+b")
        self.pixels.truncate(self.start + self.slices * self.size**2)
        self.pixels.seek(self.start)
        while chunk := self.pixels.read(2**20):
            self.digest.update(chunk)
        self.journal = self.journal_path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.pixels.close()
        self.journal.close()

    @property
    def slices(self) -> int:
        return sum(map(_entry_size, self.done))

    @property
    def problems(self) -> list[tuple[int, str]]:
        """The failed scans: position in the cohort, reason."""
        return [(n, entry["problem"]) for n, entry in enumerate(self.done) if "problem" in entry]

    def add(self, taken: Taken) -> None:
        """Append the slices of the next scan, or why it gave none."""
        entry: dict[str, Any]
        if isinstance(taken, ScanError):
            entry = {"problem": taken.reason} | ({"transient": True} if taken.transient else {})
        else:
            self.pixels.write(taken[0].data)
            self.pixels.flush()
            self.digest.update(taken[0].data)
            entry = {"indices": {plane: held.tolist() for plane, held in taken[1].items()}}
        self.journal.write(json.dumps(entry) + "\n")
        self.journal.flush()
        self.done.append(entry)

    def _read_journal(self) -> list[str]:
        if not self.journal_path.is_file():
            return []
        text = self.journal_path.read_text(encoding="utf-8")
        return text.split("\n")[:-1]  # a last line without its end was cut off

    def _resume(self, lines: list[str]) -> None:
        """Take over the scans whose pixels stand in full, up to one that is worth another try."""
        stored = self.pixels_path.stat().st_size - len(_npy_header(0, self.size))
        for line in lines:
            entry = json.loads(line)
            stored -= _entry_size(entry) * self.size**2
            if stored < 0 or entry.get("transient"):
                break
            self.done.append(entry)


def _entry_size(entry: dict[str, Any]) -> int:
    """Return how many slices a line of the journal stands for."""
    return sum(map(len, entry.get("indices", {}).values()))


def _npy_header(slices: int, size: int) -> bytes:
    """Return the header of a NumPy file; its length is the same for any number of slices."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (slices, size, size)}
    )
    return stream.getvalue()


def _take_all(
    cohort: "Cohort", options: dict[str, Any], partial: _Partial, workers: int | None, strict: bool
) -> Generator[None, None, None]:
    """Append every scan that is still to do, in the order of the cohort, one at each step."""
    files = cohort.files[len(partial.done) :]
    todo = [(file, file.plane or options["plane"]) for file in files]
    _check_problems(cohort, partial, strict)
    spool = partial.pixels_path.with_name("slices.part.d")
    with closing(take_files(todo, options, workers, spool)) as results:
        for taken in results:
            partial.add(taken)
            if isinstance(taken, ScanError):
                _check_problems(cohort, partial, strict)
            yield


def _check_problems(cohort: "Cohort", partial: _Partial, strict: bool) -> None:
    problems = partial.problems
    if not problems:
        return
    row, reason = problems[0]
    hidden = "name" in cohort.scans.columns  # a pseudonym, which leads to no file
    name = cohort.names.iloc[row]
    first = ScanError(Path(name) if hidden else cohort.root / name, reason)
    if strict:
        raise first
    if len(problems) > FAILED_SHARE * len(cohort.scans):
        path = _write_problems(cohort, partial)
        raise InputError(
            f"{len(problems)} of the first {len(partial.done)} of {len(cohort.scans)} scans cannot "
            f"be used, more than {FAILED_SHARE:.0%} of all ({path} lists them). The first: {first}"
        )


def _write_problems(cohort: "Cohort", partial: _Partial) -> Path:
    names = cohort.names
    rows = [(names.iloc[n], reason) for n, reason in partial.problems]
    path = partial.journal_path.with_name("problems.tsv")
    write_table(path, pd.DataFrame(rows, columns=["path", "reason"]))
    return path


def _finish(cohort: "Cohort", out: Path, settings: dict[str, Any], partial: _Partial) -> SliceSet:
    """Give the files their names and hashes; slices.json comes last."""
    _write_problems(cohort, partial)
    table = _table(cohort, partial)
    lacking = [name for name in cohort.class_names if name not in set(table["label"])]
    if lacking:
        names = cohort.names
        first = "; ".join(f"{names.iloc[n]} {reason}" for n, reason in partial.problems[:3])
        raise InputError(
            f"No scan of the class {lacking[0]!r} could be used: {out / 'problems.tsv'} lists why "
            f"({first})."
        )
    partial.pixels.seek(0)
    partial.pixels.write(_npy_header(len(table), settings["size"]))
    partial.pixels.flush()
    os.fsync(partial.pixels.fileno())
    write_table(out / "slices.tsv", table)
    with atomic_path(out / "labels.npy") as path:
        np.save(path, pd.Index(cohort.class_names).get_indexer(table["label"]).astype(np.int64))
    hashes = {name: sha256(out / name) for name in CHECKED}
    whole = "".join([partial.digest.hexdigest(), *hashes.values()])
    problems = len(partial.problems)
    note = f"{problems} of {len(cohort.scans)} scans could not be used; problems.tsv says why."
    if any(entry.get("transient") for entry in partial.done):
        note += f" Some may do at another try: delete {out.name} and take the slices again."
    written = settings | {
        "slices": len(table),
        "layout": cohort.layout,
        "simulated": cohort.simulated,
        "notes": [*(note.text for note in cohort.notes), *([note] if problems else [])],
        "files": hashes,
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
    }
    partial.pixels_path.replace(out / "slices.npy")
    write_json(out / "slices.json", written)
    partial.journal_path.unlink()
    return open_slices(out)


def _table(cohort: "Cohort", partial: _Partial) -> pd.DataFrame:
    taken = [
        (row, plane, index)
        for row, entry in enumerate(partial.done)
        for plane, indices in entry.get("indices", {}).items()
        for index in indices
    ]
    rows, planes, indices = zip(*taken, strict=True) if taken else ((), (), ())
    scans = cohort.scans.assign(scan=cohort.names).iloc[list(rows)]
    table = scans.assign(plane=planes)
    if "slice_index" not in scans.columns:  # ready pictures have theirs by name
        table["slice_index"] = np.array(indices, dtype=np.int64)
    return table[list(COLUMNS)].reset_index(drop=True)
