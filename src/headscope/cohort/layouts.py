"""A folder of scans → the table of scans: what stands where, whose it is, which class it shows.

Layouts are recognised in this order: a table of scans (scans.tsv or .csv with a column `path`),
BIDS (sub-*/anat/), OASIS-1 and OASIS-2 (their tables beside their files), a participants table
whose ids stand in the names of the scans, class folders (DATA/AD/…, DATA/NC/…).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.bids import find_bids
from headscope.cohort.filters import where_holds
from headscope.cohort.ids import ID, Found, session_of, subject_of
from headscope.cohort.labels import label_scans
from headscope.cohort.oasis import OASIS1, is_oasis1, is_oasis2, oasis1, oasis2
from headscope.cohort.participants import join_participants
from headscope.cohort.pictures import (
    NO_IDS,
    find_pictures,
    is_picture,
    number_pictures,
    subjects_in,
)
from headscope.cohort.tables import MISSING, check_subjects, counted, listed, read_any_table
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.volume import OWN, PLANES, SUFFIXES, find_scan_files

NO_CLASS: Final = "unlabelled"
PLAIN: Final = ("the whole file name", "the folders inside the classes")  # ids of no known form
COLUMNS: Final = ["path", "subject_id", "session_id", "label"]


@dataclass(frozen=True)
class Cohort:
    """The scans of a study: a row each, its path relative to `root`.

    `notes` says in plain sentences what was recognised, what was left out, and where the ids come
    from; `simulated` holds where simulation.json stands beside the scans.
    """

    root: Path
    layout: str
    scans: pd.DataFrame
    class_names: list[str]
    notes: list[str]
    simulated: bool

    @property
    def names(self) -> "pd.Series[str]":
        """What artefacts call each scan: its path, or its pseudonym where it has one."""
        return self.scans["name" if "name" in self.scans.columns else "path"]


def find_cohort(
    data: Path,
    *,
    label: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    plane: str = "axial",
    threshold: float | None = None,
    where: str | None = None,
    keep: Sequence[str] = (),
    subject_pattern: str | None = None,
    need_classes: bool = True,
) -> Cohort:
    """Recognise how the scans below `data` lie and return the labelled ones.

    label names the column of classes in the layout's table. classes names them and chooses their
    values: {"AD": ["Demented"], "NC": ["Nondemented"]}; scans of other values are left out.
    threshold cuts a numeric column in two, named "Age<=80" and "Age>80". Classes stand as given
    in `classes`, else sorted. plane matters where a file holds one ready slice; with "all" each
    is of its own plane, and `scans` has a column for it. where leaves out scans that do not meet
    its conditions ("Age > 60 and M/F == F"). keep names columns of the table to keep in `scans`.
    subject_pattern is a regular expression whose first group is the subject id in a path below its
    class folder. Ready pictures in place of scans get a column slice_index, and the subject_id
    "unknown" where their names hold no ids. Without need_classes, scans of whom no class is known
    are all labelled "unlabelled".

    Raises
    ------
    InputError
        There is no such folder, no scan, no label, no column of a name, one class only, or a listed
        file is missing.
    """
    data = Path(data)
    if not data.exists():
        raise InputError(f"{data} does not exist.")
    if plane not in (*PLANES, "all"):
        raise InputError(f"Plane {plane!r} is none: choose axial, coronal, sagittal or all.")
    root = data if data.is_dir() else data.parent
    found = _recognise(data, root, label, plane, subject_pattern)
    if classes is None and label is None and threshold is None:
        classes = found.classes
    if not need_classes and label is None and found.label is None:
        found = _unlabelled(found)
    column = _class_column(data, found, label)
    kept, left_out = _where(found.scans, where)
    scans, class_names, notes = label_scans(kept, column, classes, threshold)
    ready = scans["path"].map(is_picture)
    if ready.any() and plane == "all" and "plane" not in scans.columns:
        raise InputError(
            f"{data} holds ready pictures, whose plane nobody knows: name it by plane."
        )
    scans = (
        number_pictures(scans)
        if ready.all()
        else scans.drop(columns="slice_index", errors="ignore")
    )
    scans, doubled = _told_apart(scans)
    twins = _case_twins(scans)
    if need_classes:
        _check(data, scans, class_names)
    return Cohort(
        root=root,
        layout=found.layout,
        scans=scans[[*COLUMNS, *_extra_columns(data, scans, keep)]],
        class_names=class_names,
        notes=[_head(found, scans, class_names), *found.notes, *left_out, *notes, *doubled, *twins],
        simulated=(root / "simulation.json").is_file(),
    )


def _where(scans: pd.DataFrame, where: str | None) -> tuple[pd.DataFrame, list[str]]:
    if where is None:
        return scans, []
    holds = where_holds(scans.drop(columns=["path", ID], errors="ignore"), where)
    if not holds.any():
        raise InputError(f"No scan meets --where {where!r}.")
    left = counted(int((~holds).sum()), "scan")
    return scans[holds], [f"Left out by {where!r}: {left}."]


def _extra_columns(data: Path, scans: pd.DataFrame, keep: Sequence[str]) -> list[str]:
    offered = _offered(scans)
    for name in keep:
        if name not in offered:
            raise InputError(f"There is no column {name!r} in {data}: it has {listed(offered)}.")
    ours = [name for name in ("plane", "slice_index") if name in scans.columns]
    return [*ours, *dict.fromkeys(keep)]


def _offered(scans: pd.DataFrame) -> list[str]:
    """Return the columns that a user may name."""
    return [
        name for name in scans.columns if name not in (*COLUMNS[:3], "plane", "slice_index", ID)
    ]


def _head(found: Found, scans: pd.DataFrame, class_names: list[str]) -> str:
    parts = []
    for name in class_names:
        subjects = scans.loc[scans["label"] == name, "subject_id"]
        parts.append(f"{name}: {_people(subjects)}")
    return f"{found.layout}: {_people(scans['subject_id'])} ({', '.join(parts)})."


def _people(subjects: pd.Series) -> str:
    if len(subjects) and (subjects == NO_ID).all():
        return f"{counted(len(subjects), 'picture')} without subject ids"
    return f"{counted(len(subjects), 'scan')} of {counted(subjects.nunique(), 'subject')}"


def _recognise(data: Path, root: Path, label: str | None, plane: str, pattern: str | None) -> Found:
    if data.is_file() and (
        is_picture(data.name) or data.name.lower().endswith((*SUFFIXES, ".dcm"))
    ):
        raise InputError(
            f"{data} is one scan: give the folder in which the scans lie, or a table of them."
        )
    if data.is_file():
        return _scan_table(root, data, plane, pattern)
    tables = sorted(
        p for p in data.iterdir() if p.suffix.lower() in (".tsv", ".csv") and p.is_file()
    )
    for path in tables:
        if path.stem.lower() == "scans":
            return _scan_table(root, path, plane, pattern)
    files = find_scan_files(data) or find_pictures(data)
    if not files:
        raise InputError(
            f"{data} holds no scans: none of .nii, .nii.gz, .hdr with .img, .mgh, .mgz or .dcm, "
            "and no pictures."
        )
    names = [str(file.relative_to(data).as_posix()) for file in files]
    bids = find_bids(data, names)
    if bids is not None:
        return bids
    unreadable: list[InputError] = []
    for path in tables:
        try:
            table = read_any_table(path)
        except InputError as error:  # a table of something else need not be one for us
            if path.stem.lower() == "participants" or "oasis" in path.stem.lower():
                raise
            unreadable.append(error)
            continue
        if is_oasis1(table, names):
            return oasis1(path, table, names)
        if is_oasis2(table):
            return oasis2(path, table, names, plane)
        if path.stem.lower() == "participants" or (label is not None and label in table.columns):
            return join_participants(path, table, names)
    if unreadable and (label is not None or not any("/" in name for name in names)):
        raise unreadable[0]
    if label is not None:
        seen = ", ".join(path.name for path in tables) or "no .csv or .tsv"
        raise InputError(
            f"{data} has no table with the column {label!r}: it holds {seen}.{_inside(data, names)}"
        )
    return _class_folders(data, names, pattern)


def _scan_table(root: Path, path: Path, plane: str, pattern: str | None) -> Found:
    table = read_any_table(path)
    if "path" not in table.columns:
        raise InputError(f"{path} lacks the column 'path': it has {listed(table.columns)}.")
    missing = [name for name in table["path"] if not name or not (root / name).exists()]
    if missing:
        raise InputError(
            f"{path} lists {len(missing)} of {len(table)} scans that do not exist, "
            f"the first {missing[0]!r}."
        )
    notes = []
    if "subject_id" in table.columns:
        check_subjects(path, "subject_id", table["subject_id"])
    else:
        subjects, origins = _subjects(list(table["path"]), pattern, nested=False)
        table = table.assign(subject_id=subjects)
        notes = [f"{path.name} names no subject_id.", *origins]
    if "plane" in table.columns:
        if not set(table["plane"]) <= set(PLANES):
            raise InputError(f"{path}: column 'plane' may hold axial, coronal and sagittal alone.")
        if plane != "all":
            other = int((table["plane"] != plane).sum())
            table = table[table["plane"] == plane]
            notes += [f"Left out, as they are not {plane}: {counted(other, 'scan')}."] * (other > 0)
    if "session_id" not in table.columns:
        table = table.assign(session_id=[session_of(name) for name in table["path"]])
    table["session_id"] = table["session_id"].mask(table["session_id"].isin(MISSING), "1")
    return Found("scan table", table, "label" if "label" in table.columns else None, notes=notes)


def _class_folders(data: Path, names: list[str], pattern: str | None) -> Found:
    if any(name.startswith("disc") and OASIS1.search(name) for name in names):
        raise InputError(
            f"{data} lies as OASIS-1 but lacks its table: put oasis_cross-sectional.csv, which has "
            "the columns ID and CDR, in it."
        )
    inside = [name for name in names if "/" in name]
    if not inside:
        subjects, notes = _subjects(names, pattern, nested=False)
        sessions = [session_of(name) for name in names]
        scans = pd.DataFrame({"path": names, "subject_id": subjects, "session_id": sessions})
        return Found("scans", scans, notes=notes)
    below = [name.split("/", 1)[1] for name in inside]
    subjects, notes = _subjects(below, pattern, nested=True)
    scans = pd.DataFrame(
        {
            "path": inside,
            "subject_id": subjects,
            "session_id": [session_of(name) for name in below],
            "class folder": [name.split("/", 1)[0] for name in inside],
        }
    )
    if pattern is None:
        _check_numbering(data, scans, below)
    if len(inside) < len(names):
        outside = counted(len(names) - len(inside), "scan")
        notes.append(f"Left out, as they lie outside class folders: {outside}.")
    empty = _empty_folders(data, set(scans["class folder"]))
    if empty:
        number = counted(len(empty), "folder")
        notes.append(f"Left out, as no scan lies in them: {number}, the first {empty[0]}.")
    return Found("class folders", scans, "class folder", notes=notes)


def _empty_folders(data: Path, known: set[str]) -> list[str]:
    """Return the folders beside the classes in which no scan lies, but for those of ours."""
    others = [place for place in data.iterdir() if place.is_dir() and place.name not in known]
    empty = (place.name for place in others if not any((place / name).exists() for name in OWN))
    return sorted(name for name in empty if not name.startswith("."))


def _inside(data: Path, names: Sequence[str]) -> str:
    """Say which folder in `data` may be meant, where all scans lie deep in one."""
    folders = {name.split("/", 1)[0] for name in names}
    if len(folders) > 1 or not all(name.count("/") > 1 for name in names):
        return ""
    return f" All its scans lie in {data / folders.pop()}: is that the folder to give?"


def _check_numbering(data: Path, scans: pd.DataFrame, below: Sequence[str]) -> None:
    """Refuse plain names that stand in two classes: AD/001 and NC/001 are likely two people."""
    plain = np.array([subject_of(name, nested=True)[1] in PLAIN for name in below])
    own = scans[plain & (scans["subject_id"] != NO_ID)].sort_values(["subject_id", "path"])
    several = own.groupby("subject_id")["class folder"].nunique().loc[lambda number: number > 1]
    if len(several):
        rows = own[own["subject_id"] == several.index[0]].drop_duplicates("class folder")
        raise InputError(
            f"In {data} the id {several.index[0]!r} stands in several classes, as "
            f"{' and '.join(rows['path'][:2])}: if they show one person, say where the id stands "
            "with --subject-pattern; if not, give a scans.tsv with path, subject_id and label."
        )


def _subjects(
    names: list[str], pattern: str | None, *, nested: bool
) -> tuple[list[str], list[str]]:
    """Return the subject of each path, and notes on where in the names it was found."""
    pictures = any(map(is_picture, names))
    named = subjects_in(names, pattern, pictures=pictures)
    if named is not None:
        subjects, origin = named
        return subjects, [f"Subject ids come from {origin}." if origin else NO_IDS]
    ids = [subject_of(name, nested=nested) for name in names]
    notes = [f"Subject ids come from {' and '.join(sorted({origin for _, origin in ids}))}."]
    if any(origin == "the whole file name" for _, origin in ids):
        notes.append(
            "A file whose name holds no known form of id (sub-X, OAS1_0001, 002_S_0295) counts as "
            "a subject of its own: if one person has several, give a scans.tsv."
        )
    return [subject for subject, _ in ids], notes


def _unlabelled(found: Found) -> Found:
    """Let a cohort without classes be looked at and sliced."""
    offered = _offered(found.scans)
    columns = f" Columns that may hold them: {listed(offered)}." if offered else ""
    notes = [*found.notes, f"No classes are known, and a run needs them.{columns}"]
    return replace(found, scans=found.scans.assign(class_=NO_CLASS), label="class_", notes=notes)


def _class_column(data: Path, found: Found, label: str | None) -> str:
    column = label or found.label
    offered = _offered(found.scans)
    if column is None and not offered:
        raise InputError(
            f"{data} holds {counted(len(found.scans), 'scan')} but neither class folders nor a "
            "table: put each class in a folder of its own, or add participants.tsv or scans.tsv."
        )
    if column is None:
        raise InputError(f"Which column of {data} holds the classes? Name it: {listed(offered)}.")
    if column not in found.scans.columns:
        raise InputError(f"There is no column {column!r} in {data}: it has {listed(offered)}.")
    return column


def _told_apart(scans: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Give scans of one session names of their own, for a slice is known by subject and session."""
    scans = scans.sort_values(["subject_id", "session_id", "path"], ignore_index=True)
    key = ["subject_id", "session_id", "plane", "slice_index"]
    key = [name for name in key if name in scans.columns]
    twice = scans.duplicated(key, keep=False)
    if not twice.any():
        return scans, []
    number = scans.groupby(key).cumcount().add(1).astype(str)
    session = scans["session_id"].mask(twice, scans["session_id"] + "-" + number)
    first, second = scans.loc[(scans[key] == scans[twice][key].iloc[0]).all(axis=1), "path"][:2]
    note = (
        f"{twice.sum()} scans share subject and session with another: their sessions are numbered, "
        f"the first {first} and {second}."
    )
    return scans.assign(session_id=session), [note]


def _case_twins(scans: pd.DataFrame) -> list[str]:
    """Say which ids and classes differ only in case: one person or class perhaps."""
    notes = []
    for column, what in (("subject_id", "subjects"), ("label", "classes")):
        names = pd.Series(sorted(scans[column].unique()))
        alike = names[names.str.casefold().duplicated(keep=False)]
        if len(alike):
            own = alike[alike.str.casefold() == alike.iloc[0].casefold()]
            notes.append(
                f"{len(alike)} {what} differ in upper and lower case alone and count as "
                f"{len(alike)}, the first {' and '.join(own)}."
            )
    return notes


def _check(data: Path, scans: pd.DataFrame, class_names: list[str]) -> None:
    if len(class_names) < 2:
        held = (
            f"only {class_names[0]!r} in {counted(len(scans), 'scan')}" if class_names else "none"
        )
        hint = _inside(data, list(scans["path"])) if class_names else ""
        raise InputError(f"{data} shows {held}: at least two classes are needed.{hint}")
