"""A cohort → its labelled slices: one uint8 memory map, one table, one file of settings.

`store` describes the files and opens them, `extract` how a slice is taken and oriented.
`slice_index` counts along the plane's axis of the canonical volume, from 0.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from headscope.console import console, track
from headscope.errors import InputError
from headscope.files import atomic_path, json_text, locked, sha256, write_table
from headscope.manifest import write_last
from headscope.scans.volume import ScanError
from headscope.slicing.extract import WINDOW
from headscope.slicing.notes import Remarks, summarise_remarks
from headscope.slicing.parallel import Part, Submit, open_part, read_part, take_parts
from headscope.slicing.spec import GEOMETRY, SliceSpec
from headscope.slicing.store import CHECKED, SliceSet, open_slices
from headscope.text import printable_name

if TYPE_CHECKING:
    from headscope.cohort.layouts import Cohort

FAILED_SHARE: Final = 0.2
REFUSED: Final = "{path} holds slices of {what}: choose another folder, or delete this one."
OTHER: Final = "other scans, or the scans, ids or labels have changed"
COLUMNS: Final = ("scan", "subject_id", "session_id", "label", "plane", "slice_index")


def write_slices(
    cohort: "Cohort",
    out: Path,
    spec: SliceSpec | None = None,
    *,
    workers: int | None = None,
    strict: bool = False,
    submit: Submit | None = None,
) -> SliceSet:
    """Take the slices of every scan of a cohort and store them in `out`.

    A call that was killed continues with the scans that are still to do; a finished one returns at
    once. Scans that were copied, so that their dates differ, are known by giving the same slices
    again. The files are the same for any number of processes. While scans are taken, each is a file
    of its own in `out`, so that the store needs its size twice until it is finished.

    Parameters
    ----------
    cohort
        The scans. Where files hold ready slices, each is taken in the plane that the cohort names.
    out
        The folder of the store (`store` describes its files); problems.tsv lists the scans that
        gave no slices, and why.
    spec
        Which slices are taken; by default 30 axial ones.
    workers
        Processes; by default as many as cores, fewer for few scans.
    strict
        Stop at the first scan that fails.
    submit
        What calls a function on another machine, in place of processes of this one.

    Raises
    ------
    InputError
        `out` holds slices of other settings or scans, or more than 20% of the scans fail.
    ScanError
        The first scan that fails, where `strict`.
    """
    spec = spec or SliceSpec()
    settings = spec.as_settings() | {
        "version": GEOMETRY,
        "percentiles": list(WINDOW),  # of the foreground, where no window is given
        "class_names": cohort.class_names,
        "scans": len(cohort.scans),
        "fingerprint": _fingerprint(cohort),
    }
    if (out / "slices.json").is_file():
        stored = open_slices(out)
        _check_same(out, {"version": GEOMETRY} | stored.settings, settings)
        _remove_parts(out)  # an earlier call was killed before it could
        if stored.settings.get("fingerprint") == settings["fingerprint"]:
            return stored
        with locked(out):
            _check_known(cohort, stored)
            again = out.with_name(f"{out.name}.again")
            return _renew(
                stored,
                write_slices(cohort, again, spec, workers=workers, strict=strict, submit=submit),
            )
    with locked(out):
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        folder = out / f"slices.part-{name}"  # so that helpers of a killed process write elsewhere
        _remove_parts(out, but=folder)
        folder.mkdir(exist_ok=True)
        parts = _take_all(cohort, spec, folder, workers, strict, submit)
        return _finish(cohort, folder, settings, parts)


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
    different = [
        name for name in wanted if name != "fingerprint" and stored.get(name) != wanted[name]
    ]
    if different:
        what = (f"{name} {stored.get(name)} (now {wanted[name]})" for name in different)
        raise InputError(REFUSED.format(path=out, what=", ".join(what)))


def _check_known(cohort: "Cohort", stored: SliceSet) -> None:
    """Refuse other names, ids or labels; say why the slices of all scans are taken again."""
    columns = ["scan", "subject_id", "session_id", "label"]
    present = cohort.scans.assign(scan=cohort.names)[columns].astype(str)
    taken = stored.table[columns].astype(str).drop_duplicates()
    if len(taken.merge(present)) != len(taken):
        raise InputError(REFUSED.format(path=stored.path, what=OTHER))
    console.print(
        f"The dates or sizes of scans differ from those noted in {stored.path.name}: their slices "
        "are taken again, to see whether they are the same.",
        soft_wrap=True,
    )


def _renew(stored: SliceSet, again: SliceSet) -> SliceSet:
    """Note the dates of scans that gave the same slices again; refuse those that gave others."""
    if again.sha256 != stored.sha256:
        shutil.rmtree(again.path)
        raise InputError(REFUSED.format(path=stored.path, what=OTHER))
    for name in ("problems.tsv", "notes.tsv"):
        if (again.path / name).is_file():
            (again.path / name).replace(stored.path / name)
        else:
            (stored.path / name).unlink(missing_ok=True)
    write_last(stored.path / "slices.json", json_text(again.settings), _listed(stored.path))
    shutil.rmtree(again.path)
    return open_slices(stored.path)


def _listed(out: Path) -> list[str]:
    """Return the files of a store that its manifest names beside slices.json."""
    notes = ["notes.tsv"] if (out / "notes.tsv").is_file() else []
    return ["slices.npy", *CHECKED, "problems.tsv", *notes]


def _remove_parts(out: Path, but: Path | None = None) -> None:
    for folder in out.glob("slices.part-*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)


def _take_all(
    cohort: "Cohort",
    spec: SliceSpec,
    folder: Path,
    workers: int | None,
    strict: bool,
    submit: Submit | None,
) -> list[Part]:
    """Return what every scan gave, in the order of the cohort; take those that are still to do."""
    files = cohort.files
    parts = [read_part(folder / str(n), spec.size) for n in range(len(files))]
    tasks = {
        n: (file, file.plane or spec.plane, folder / str(n))
        for n, file in enumerate(files)
        if parts[n] is None
    }
    _check_problems(cohort, folder, parts, strict)
    with closing(take_parts(list(tasks.values()), spec, workers, submit)) as results:
        progress = track(results, "Slicing", len(files), len(files) - len(tasks))
        for n, part in zip(tasks, progress, strict=True):
            parts[n] = part
            if part.problem:
                _check_problems(cohort, folder, parts, strict)
    return [part for part in parts if part is not None]


def _problems(cohort: "Cohort", parts: Sequence[Part | None]) -> list[tuple[str, str]]:
    """Return the failed scans: name, reason."""
    pairs = zip(cohort.names, parts, strict=True)
    return [(name, part.problem) for name, part in pairs if part and part.problem]


def _write_problems(out: Path, problems: list[tuple[str, str]]) -> None:
    write_table(out / "problems.tsv", pd.DataFrame(problems, columns=["path", "reason"]))


def _check_problems(cohort: "Cohort", folder: Path, parts: list[Part | None], strict: bool) -> None:
    """Stop at the first scan that failed, where `strict`, or where too many have."""
    problems = _problems(cohort, parts)
    if not problems:
        return
    name, reason = problems[0]
    hidden = "name" in cohort.scans.columns  # a pseudonym, which leads to no file
    first = ScanError(Path(name) if hidden else cohort.root / name, reason)
    if strict:
        raise first
    if len(problems) > FAILED_SHARE * len(parts):
        _write_problems(folder.parent, problems)
        done = sum(part is not None for part in parts)
        raise InputError(
            f"{len(problems)} of the first {done} of {len(parts)} scans cannot be used, more than "
            f"{FAILED_SHARE:.0%} of all ({folder.parent / 'problems.tsv'} lists them). "
            f"The first: {first}"
        )


def _finish(
    cohort: "Cohort", folder: Path, settings: dict[str, Any], parts: list[Part]
) -> SliceSet:
    """Join the parts, give the files their names and hashes; slices.json comes last."""
    out, problems, table = folder.parent, _problems(cohort, parts), _table(cohort, parts)
    _write_problems(out, problems)
    lacking = [name for name in cohort.class_names if name not in set(table["label"])]
    if lacking:
        first = "; ".join(f"{name} {reason}" for name, reason in problems[:3])
        raise InputError(
            f"No scan of the class {lacking[0]!r} could be used: {out / 'problems.tsv'} lists why "
            f"({first})."
        )
    pixels_sha256 = _join(folder, parts, settings["size"])
    write_table(out / "slices.tsv", table)
    with atomic_path(out / "labels.npy") as path:
        np.save(
            path,
            pd.Index(cohort.class_names).get_indexer(pd.Index(table["label"])).astype(np.int64),
        )
    hashes = {name: sha256(out / name) for name in CHECKED}
    whole = "".join([pixels_sha256, *hashes.values()])
    notes, about = [], defaultdict(list)
    for note in cohort.notes:
        notes.append(printable_name(note.text))
        about[note.about].append(notes[-1])
    notes += _note_scans(out, cohort, parts)
    if problems:
        notes.append(_problems_note(out, parts))
    (folder / "slices.npy").replace(out / "slices.npy")
    written = settings | {
        "slices": len(table),
        "layout": cohort.layout,
        "simulated": cohort.simulated,
        "notes": notes,
        "left_out": about["left out"],
        "classes_by": about["classes"],
        "files": hashes,
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
    }
    write_last(out / "slices.json", json_text(written), _listed(out))
    shutil.rmtree(folder, ignore_errors=True)
    return open_slices(out)


def _problems_note(out: Path, parts: list[Part]) -> str:
    """Return the sentence on the scans that gave no slices."""
    failed = sum(bool(part.problem) for part in parts)
    note = f"{failed} of {len(parts)} scans could not be used; problems.tsv says why."
    if any(part.transient for part in parts):
        note += f" Some may succeed at another try: delete {out.name} and take the slices again."
    return note


def _note_scans(out: Path, cohort: "Cohort", parts: list[Part]) -> list[str]:
    """Return a sentence for each kind of note on scans; notes.tsv lists the scans of each."""
    remarks = [
        Remarks(name, part.notes, part.empty, part.slices)
        for name, part in zip(cohort.names, parts, strict=True)
    ]
    rows = [(scan.scan, line) for scan in remarks for line in scan.lines]
    if rows:
        write_table(out / "notes.tsv", pd.DataFrame(rows, columns=["path", "note"]))
    return summarise_remarks(remarks)


def _join(folder: Path, parts: list[Part], size: int) -> str:
    """Write the pixels of all parts as one array, scan by scan, and return their SHA-256."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(max(part.slices for part in parts) * size**2))
    shape = (sum(part.slices for part in parts), size, size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (folder / "slices.npy").open("wb") as joined:
        np.lib.format.write_array_header_1_0(joined, header)
        for number, part in enumerate(parts):
            pixels = buffer[: part.slices * size**2]
            with (folder / str(number)).open("rb") as file:
                open_part(file)
                file.readinto(pixels)
            joined.write(pixels)
            digest.update(pixels)
        joined.flush()
        os.fsync(joined.fileno())
    return digest.hexdigest()


def _table(cohort: "Cohort", parts: list[Part]) -> pd.DataFrame:
    """Return one row per slice, in the order of the pixels."""
    slices = [
        (row, plane, index)
        for row, part in enumerate(parts)
        for plane, indices in part.indices.items()
        for index in indices
    ]
    rows, planes, indices = zip(*slices, strict=True) if slices else ((), (), ())
    scans = cohort.scans.assign(scan=cohort.names).iloc[list(rows)]
    table = scans.assign(plane=planes)
    if "slice_index" not in scans.columns:  # ready pictures have theirs by name
        table["slice_index"] = np.array(indices, dtype=np.int64)
    return table[list(COLUMNS)].reset_index(drop=True)
