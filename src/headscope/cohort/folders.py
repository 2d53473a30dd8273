"""Scans in class folders, in one folder, or listed in a table with a column `path`."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.ids import (
    BY_FILE,
    BY_FOLDER,
    BY_NAME,
    SESSION,
    SUBJECT,
    session_of,
    subject_of,
)
from headscope.cohort.joining.columns import subject_columns
from headscope.cohort.labels import MOST_CLASSES
from headscope.cohort.oasis import OASIS1
from headscope.cohort.pictures import NO_IDS, subjects_by_pattern, subjects_in
from headscope.cohort.tables import MISSING, check_subjects, counted, listed, read_any_table
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.discovery import WRITTEN, is_picture
from headscope.scans.naming import (
    any_structural,
    contrast_of,
    plane_of,
    says_images,
    split_contrast,
    subset_of,
    without_contrast,
)
from headscope.scans.volume import PLANES

LEVELS: Final = 2  # of folders that are looked at from outside, beside those that are taken out
WHAT: Final = {
    "given": "the subsets of a given partition",
    "plane": "planes",
    "contrast": "contrasts",
}


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
    table = table.drop_duplicates()
    twice = table.loc[table["path"].duplicated(), "path"]
    if len(twice):
        raise InputError(f"{path} has different rows for one path, the first {twice.iloc[0]!r}.")
    notes = []
    column = next(iter(subject_columns(table)), None)
    if column is not None and pattern is None:
        check_subjects(path, column, table[column])
        text = f"Subject ids come from the column {column} of {path.name}, by its name."
        notes = [Note(text, about="ids")]
        table = table.assign(subject_id=table[column])
    else:
        subjects, origins = name_subjects(list(table["path"]), pattern, nested=False)
        table = table.assign(subject_id=subjects)
        lacking = [] if column else [Note(f"{path.name} names no subject_id.", about="ids")]
        notes = [*lacking, *origins]
    if "plane" in table.columns:
        if not set(table["plane"]) <= set(PLANES):
            raise InputError(f"{path}: column 'plane' may hold axial, coronal and sagittal alone.")
        table, of_others = _of_plane(table, plane)
        notes += of_others
    if "session_id" not in table.columns:
        table = table.assign(session_id=table["path"].map(session_of))
    sessions = table["session_id"].mask(table["session_id"].isin(MISSING), "1")
    label = "label" if "label" in table.columns else None
    return Layout("scan table", table.assign(session_id=sessions), label, notes=notes)


def _of_plane(scans: pd.DataFrame, plane: str) -> tuple[pd.DataFrame, list[Note]]:
    others = int((scans["plane"] != plane).sum())
    if plane == "all" or not others:
        return scans, []
    text = f"Left out, as they are not {plane}: {counted(others, 'scan')}."
    return scans[scans["plane"] == plane], [Note(text, about="left out")]


def read_class_folders(
    data: Path,
    names: list[str],
    plane: str,
    pattern: str | None,
    *,
    left: Sequence[str] = (),
    chosen: Set[str] = frozenset(),
) -> Layout:
    """Return the scans by class folder; those of a folder without subfolders have no class.

    Folders that name a subset, a plane or a contrast are no classes, nor are those of one subject
    each. `left` are the paths that were left out; `chosen` holds the folders that the user names
    as classes.
    """
    if any(name.startswith("disc") and OASIS1.search(name) for name in names):
        raise InputError(
            f"{data} is laid out as OASIS-1 but lacks its table: put oasis_cross-sectional.csv, "
            "which has the columns ID and CDR, in it."
        )
    levels = fold_levels(names, left, data=data, chosen=chosen)
    scans, notes = _rows(names, levels, plane)
    nested = bool(scans["rest"].str.contains("/", regex=False).any())
    folders = scans["rest"].str.split("/", n=1).str[0]
    by_subject = nested and not chosen and _are_subjects(sorted(set(folders)))
    if nested and not (by_subject or chosen) and levels.rests == names:
        _check_wrapper(data, names)
    below = list(scans["rest"] if by_subject else scans["rest"].str.split("/", n=1).str[-1])
    subjects, origins = name_subjects(below, pattern, nested=nested, by_subject=by_subject)
    scans = scans.assign(subject_id=subjects, session_id=[session_of(name) for name in below])
    notes = [*origins, *notes]
    if by_subject or not nested:
        hint = _say_subjects(folders) if by_subject else _say_levels(levels)
        notes += [Note(hint.strip(), names_ids=True)] if by_subject else []
        return Layout("scans", scans.drop(columns="rest"), notes=notes, hint=hint)
    scans = scans.drop(columns="rest").assign(**{"class folder": folders})
    common = _note_common(below, folders)
    if pattern is None:
        _check_numbering(data, scans, below, common)
    notes += common
    empty = _empty_folders(data, [*names, *left])
    if empty:
        text = f"Left out, as they hold no scan: {counted(len(empty), 'folder')}, the first "
        notes.append(Note(f"{text}{empty[0]}.", names_ids=True, about="left out"))
    return Layout("class folders", scans, "class folder", notes=notes)


def _rows(names: list[str], levels: "Levels", plane: str) -> tuple[pd.DataFrame, list[Note]]:
    """Return a row per scan of the plane, without those outside folders where some are inside."""
    scans = pd.DataFrame({"path": names, "rest": levels.rests, **levels.facts})
    notes = list(levels.notes)
    if "plane" in scans:
        scans, of_others = _of_plane(scans, plane)
        notes += of_others
    inner = scans["rest"].str.contains("/", regex=False)
    if not inner.any() or inner.all():
        return scans, notes
    outside = counted(int((~inner).sum()), "scan")
    text = f"Left out, as they are outside class folders: {outside}."
    notes.append(Note(text, about="left out"))
    return scans[inner], notes


def _say_subjects(folders: "pd.Series[str]") -> str:
    first = listed(sorted(set(folders))[:3])
    return (
        f" Its {counted(folders.nunique(), 'folder')} ({first}, …) are taken for subjects: if they "
        "are classes, choose with --classes."
    )


def _say_levels(levels: "Levels") -> str:
    said = " ".join(map(str, levels.notes)).rstrip(".")
    return f" {said}; if these are the classes, choose with --classes." if said else ""


@dataclass(frozen=True)
class Levels:
    """Paths without the folders that name subsets, planes or contrasts, and what these named."""

    rests: list[str]
    facts: dict[str, list[str | None]]
    notes: list[Note]


def fold_levels(
    names: Sequence[str],
    left: Sequence[str] = (),
    *,
    data: Path | None = None,
    chosen: Set[str] = frozenset(),
) -> Levels:
    """Take levels of folders out of paths that say something else than class or subject.

    Where every folder of a level names a subset (train, val, test), a plane or a contrast, the
    level is taken out; so is a folder of images beside one of masks, or of originals beside one of
    augmented copies, which `left` holds.
    """
    rests, others = list(names), list(left)
    facts: dict[str, list[str | None]] = {}
    notes: list[Note] = []
    depth = 0
    while depth < LEVELS:
        parts = [_part(rest, depth) for rest in rests]
        folders = sorted({part for part in parts if part is not None})
        deeper = all(rest.count("/") > depth + 1 for rest in rests)
        beside = {_part(rest, depth) for rest in others} - {None, *folders}
        inner = depth > 0 or bool(facts)
        kind, values = _meaning(folders, deeper or depth > 0, bool(beside) or inner)
        if not chosen.isdisjoint(folders):
            kind = None
        elif data is not None and kind is None:
            _check_subsets(data, folders, depth)
        if depth == 0 and kind is None and len(folders) == 1 and deeper:
            break  # a folder around everything
        if kind is None or kind in facts:
            depth += 1
            continue
        if kind != "images":
            facts[kind] = [values.get(part) if part else None for part in parts]
            notes.append(Note(f"Folders that name {WHAT[kind]}: {listed(folders)}."))
        rests = [_without_part(rest, depth) for rest in rests]
        others = [_without_part(rest, depth) for rest in others]
    return Levels(rests, {kind: facts[kind] for kind in facts if kind != "contrast"}, notes)


def _meaning(
    folders: list[str], deeper: bool, beside: bool
) -> tuple[str | None, dict[str, str | None]]:
    """Return what the folders of a level name, and the value of each; None if classes perhaps."""
    subsets = {name: subset_of(name) for name in folders}
    pairs = {subset for subset in subsets.values() if subset}
    one_name = all(subsets.values()) and len({rest for _, rest in pairs}) == 1
    if one_name and len(pairs) > 1:
        return "given", {name: subset[0] for name, subset in subsets.items() if subset}
    planes = {name: plane_of(name) for name in folders}
    if all(planes.values()) and len(set(planes.values())) > 1:
        return "plane", planes
    contrasts = {name: split_contrast(name) for name in folders}
    named = [pair[0] for pair in contrasts.values() if pair]
    one_name = len({pair and pair[1] for pair in contrasts.values()}) == 1
    if one_name and any_structural(named) and len(set(named)) > 1:
        return "contrast", {name: pair[0] for name, pair in contrasts.items() if pair}
    says_no_class = [name for name in folders if says_images(name) or named or planes[name]]
    if len(folders) == 1 and deeper and beside and says_no_class:
        return "images", {}
    return None, {}


def _check_subsets(data: Path, folders: list[str], depth: int) -> None:
    """Refuse folders that name subsets beside others, or classes too: train_AD, test_AD."""
    subsets = {name: subset for name in folders if (subset := subset_of(name)) is not None}
    distinct = {subset for subset, _ in subsets.values()}
    if not subsets or (len(subsets) < len(folders) and depth > 0 and len(distinct) < 2):
        return
    if len(subsets) < len(folders):
        others = [name for name in folders if name not in subsets]
        raise InputError(
            f"In {data} {listed(list(subsets))} {'is' if len(subsets) == 1 else 'are'} named as a "
            f"part of a split, beside {listed(others)}: put the class folders into folders train, "
            "val and test, or, if they are classes themselves, choose with --classes, as in "
            f"--classes {','.join(f'{name}={name}' for name in [*others, *subsets][:2])}."
        )
    if len(distinct) > 1 and depth == 0:
        raise InputError(
            f"The folders of {data} name subsets and classes in one, {listed(folders)}: put them "
            "one into the other, as in train/AD, or choose with --classes if they are classes."
        )


def _part(path: str, depth: int) -> str | None:
    """Return the folder of a path at a depth, None where there is none."""
    parts = path.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None


def _without_part(path: str, depth: int) -> str:
    parts = path.split("/", depth + 1)
    return "/".join(parts[:depth] + parts[depth + 1 :]) if len(parts) > depth + 1 else path


def _are_subjects(folders: list[str]) -> bool:
    """Return whether folders are subjects rather than classes: by known ids, or by their number."""
    return bool(folders) and (len(folders) > MOST_CLASSES or all(map(SUBJECT.search, folders)))


def inside(data: Path, names: Sequence[str]) -> str:
    """Say which folder in `data` may be meant, where all scans are deep in one."""
    rests = list(names)
    while rests and all(rest.count("/") > 1 for rest in rests):
        folders = {rest.split("/", 1)[0] for rest in rests}
        if len(folders) > 1 or any(map(SUBJECT.search, folders)):
            break
        data, rests = data / folders.pop(), [rest.split("/", 1)[1] for rest in rests]
    if len(rests) == 0 or rests[0] == names[0]:
        return ""
    return f" All its scans are in {data}: is that the folder to give?"


def _check_wrapper(data: Path, names: Sequence[str]) -> None:
    """Refuse one folder around everything, whether or not classes are needed."""
    hint = inside(data, names)
    if hint:
        name = names[0].split("/", 1)[0]
        raise InputError(
            f"{data} shows only {name!r} in {counted(len(names), 'scan')}: at least two classes "
            f"are needed.{hint}"
        )


def _note_common(below: Sequence[str], folders: "pd.Series[str]") -> list[Note]:
    """Say where every class folder holds the same folders, which may be the classes."""
    parts = pd.Series([name.split("/", 1)[0] if "/" in name else "" for name in below])
    inner = [tuple(sorted(set(group))) for _, group in parts.groupby(folders.to_numpy())]
    names = inner[0]
    ids = any(SUBJECT.search(name) or SESSION.search(f"{name}.") for name in names) or all(
        name.isdigit() for name in names
    )
    if len(inner) < 2 or len(set(inner)) > 1 or len(names) < 2 or ids or "" in names:
        return []
    text = (
        f"Every class folder holds the same folders, {listed(list(names)[:5])}: if these are the "
        "classes, give one of the folders around them, or a scans.tsv."
    )
    return [Note(text, names_ids=True)]


def _empty_folders(data: Path, names: Sequence[str]) -> list[str]:
    """Return the folders in `data` that hold no scan, but for those that we wrote."""
    others = [place for place in data.iterdir() if place.is_dir()]
    empty = (place for place in others if not any((place / name).exists() for name in WRITTEN))
    without = {place.name for place in empty} - {name.split("/", 1)[0] for name in names}
    return sorted(name for name in without if not name.startswith("."))


def _check_numbering(
    data: Path, scans: pd.DataFrame, below: Sequence[str], common: Sequence[Note]
) -> None:
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
            f"{''.join(f' {note}' for note in common)}"
        )


def name_subjects(
    names: list[str], pattern: str | None, *, nested: bool, by_subject: bool = False
) -> tuple[list[str], list[Note]]:
    """Return the subject of each path, and notes on which part of the names it comes from."""
    origins, known_forms = {BY_NAME}, True
    contrasts = {contrast_of(name) for name in names}
    if pattern is None and len(contrasts) > 1 and any_structural(contrasts):
        # X_t1 and X_t2 show one subject
        names = [without_contrast(name) for name in names]
    if pattern is not None:
        subjects, origins = subjects_by_pattern(names, pattern), {"the pattern in the names"}
    elif any(map(is_picture, names)):
        in_names = subjects_in(names)
        if in_names is None:
            return [NO_ID] * len(names), [Note(NO_IDS, about="ids")]
        subjects = in_names
    else:
        ids = [subject_of(name, nested=nested) for name in names]
        subjects, origins = [subject for subject, _ in ids], {origin for _, origin in ids}
        known_forms = BY_FILE not in origins
        if by_subject:
            origins = {"the folders" if origin == BY_FOLDER else origin for origin in origins}
    text = f"Subject ids come from {' and '.join(sorted(origins))}."
    notes = [Note(text, about="ids")]
    if not known_forms:
        text = (
            "A file whose name holds no known form of id (sub-X, OAS1_0001, 002_S_0295) counts as "
            "a subject of its own: if a subject has several, give a scans.tsv."
        )
        notes.append(Note(text, about="ids"))
    return subjects, notes
