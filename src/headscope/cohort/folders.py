"""Scans in class folders, in one folder, or listed in a table with a column `path`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from headscope.cohort.ids import BY_FILE, BY_FOLDER, BY_NAME, session_of, subject_of
from headscope.cohort.joining.columns import subject_columns
from headscope.cohort.oasis import OASIS1
from headscope.cohort.pictures import NO_IDS, subjects_by_pattern, subjects_in
from headscope.cohort.tables import MISSING, check_subjects, counted, listed, read_any_table
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.discovery import WRITTEN, is_picture
from headscope.scans.volume import PLANES


def read_scan_table(root: Path, path: Path, plane: str, pattern: str | None) -> Layout:
    """Return the scans that a table lists, with the subjects of their names where it has none."""
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
    column = next(iter(subject_columns(table)), None)
    if column is not None and pattern is None:
        check_subjects(path, column, table[column])
        notes = [Note(f"Subject ids come from the column {column} of {path.name}, by its name.")]
        table = table.assign(subject_id=table[column])
    else:
        subjects, origins = name_subjects(list(table["path"]), pattern, nested=False)
        table = table.assign(subject_id=subjects)
        notes = origins if column else [Note(f"{path.name} names no subject_id."), *origins]
    if "plane" in table.columns:
        if not set(table["plane"]) <= set(PLANES):
            raise InputError(f"{path}: column 'plane' may hold axial, coronal and sagittal alone.")
        others = int((table["plane"] != plane).sum())
        if others and plane != "all":
            table = table[table["plane"] == plane]
            notes.append(Note(f"Left out, as they are not {plane}: {counted(others, 'scan')}."))
    if "session_id" not in table.columns:
        table = table.assign(session_id=table["path"].map(session_of))
    sessions = table["session_id"].mask(table["session_id"].isin(MISSING), "1")
    label = "label" if "label" in table.columns else None
    return Layout("scan table", table.assign(session_id=sessions), label, notes=notes)


def read_class_folders(data: Path, names: list[str], pattern: str | None) -> Layout:
    """Return the scans by class folder; those of a folder without subfolders have no class."""
    if any(name.startswith("disc") and OASIS1.search(name) for name in names):
        raise InputError(
            f"{data} is laid out as OASIS-1 but lacks its table: put oasis_cross-sectional.csv, "
            "which has the columns ID and CDR, in it."
        )
    inside = [name for name in names if "/" in name]
    below = [name.split("/", 1)[1] for name in inside] or names
    subjects, notes = name_subjects(below, pattern, nested=bool(inside))
    scans = pd.DataFrame(
        {
            "path": inside or names,
            "subject_id": subjects,
            "session_id": [session_of(name) for name in below],
        }
    )
    if not inside:
        return Layout("scans", scans, notes=notes)
    scans["class folder"] = [name.split("/", 1)[0] for name in inside]
    if pattern is None:
        _check_numbering(data, scans, below)
    if len(inside) < len(names):
        outside = counted(len(names) - len(inside), "scan")
        notes.append(Note(f"Left out, as they are outside class folders: {outside}."))
    empty = _empty_folders(data, set(scans["class folder"]))
    if empty:
        text = f"Left out, as they hold no scan: {counted(len(empty), 'folder')}, the first "
        notes.append(Note(f"{text}{empty[0]}.", names_ids=True))
    return Layout("class folders", scans, "class folder", notes=notes)


def _empty_folders(data: Path, class_folders: set[str]) -> list[str]:
    """Return the folders beside the classes that hold no scan, but for those that we wrote."""
    others = [place for place in data.iterdir() if place.is_dir()]
    empty = (place for place in others if not any((place / name).exists() for name in WRITTEN))
    names = {place.name for place in empty} - class_folders
    return sorted(name for name in names if not name.startswith("."))


def _check_numbering(data: Path, scans: pd.DataFrame, below: Sequence[str]) -> None:
    """Refuse plain names that occur in two classes: AD/001 and NC/001 are likely two subjects."""
    plain = np.isin([subject_of(name, nested=True)[1] for name in below], (BY_FILE, BY_FOLDER))
    rows = scans[plain & (scans["subject_id"] != NO_ID)].sort_values(["subject_id", "path"])
    folders = rows.groupby("subject_id")["class folder"].nunique()
    several = folders[folders > 1]
    if len(several):
        rows = rows[rows["subject_id"] == several.index[0]].drop_duplicates("class folder")
        raise InputError(
            f"In {data} the id {several.index[0]!r} occurs in several classes, as "
            f"{' and '.join(rows['path'][:2])}: if they show one subject, say where the id is "
            "with --subject-pattern; if not, give a scans.tsv with path, subject_id and label."
        )


def name_subjects(
    names: list[str], pattern: str | None, *, nested: bool
) -> tuple[list[str], list[Note]]:
    """Return the subject of each path, and notes on which part of the names it comes from."""
    origins, known_forms = {BY_NAME}, True
    if pattern is not None:
        subjects, origins = subjects_by_pattern(names, pattern), {"the pattern in the names"}
    elif any(map(is_picture, names)):
        in_names = subjects_in(names)
        if in_names is None:
            return [NO_ID] * len(names), [Note(NO_IDS)]
        subjects = in_names
    else:
        ids = [subject_of(name, nested=nested) for name in names]
        subjects, origins = [subject for subject, _ in ids], {origin for _, origin in ids}
        known_forms = BY_FILE not in origins
    notes = [Note(f"Subject ids come from {' and '.join(sorted(origins))}.")]
    if not known_forms:
        text = (
            "A file whose name holds no known form of id (sub-X, OAS1_0001, 002_S_0295) counts as "
            "a subject of its own: if a subject has several, give a scans.tsv."
        )
        notes.append(Note(text))
    return subjects, notes
