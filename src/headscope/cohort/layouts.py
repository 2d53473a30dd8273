"""A folder of scans → the table of scans: what stands where, whose it is, which class it shows.

Layouts are recognised in this order: a table of scans (scans.tsv or .csv with a column `path`),
OASIS-2 (its demographic table beside its files), a participants table whose ids stand in the
names of the scans, class folders (DATA/AD/…, DATA/NC/…).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.labels import label_scans
from headscope.cohort.scans import PLANES, find_scan_files
from headscope.cohort.tables import MISSING, counted, listed, read_any_table
from headscope.errors import InputError

ID: Final = "id of the participant"
COLUMNS: Final = ["path", "subject_id", "session_id", "label"]
SUBJECT: Final = re.compile(r"(sub-[A-Za-z0-9]+|OAS[1-4]_?\d{4,5}|\d{3}_S_\d{4,5})")
SESSION: Final = re.compile(
    r"(?:^|[_/-])(ses-[A-Za-z0-9]+|MR\d+|d\d{4}|visit-?[A-Za-z0-9]+)(?=[_/.-]|$)"
)
PLANE_MARK: Final = {"axial": "axl", "coronal": "cor", "sagittal": "sag"}


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


@dataclass(frozen=True)
class _Found:
    """What a layout recognised: a row a scan, with every column its table offers."""

    layout: str
    scans: pd.DataFrame
    label: str | None = None  # the column of classes, where the layout knows it
    classes: Mapping[str, Sequence[str]] | None = None
    notes: list[str] = field(default_factory=list)


def find_cohort(
    data: Path,
    *,
    label: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    plane: str = "axial",
    threshold: float | None = None,
) -> Cohort:
    """Recognise how the scans below `data` lie and return the labelled ones.

    label names the column of classes in the layout's table. classes names them and chooses their
    values: {"AD": ["Demented"], "NC": ["Nondemented"]}; scans of other values are left out.
    threshold cuts a numeric column in two, named "Age<=80" and "Age>80". Classes stand as given
    in `classes`, else sorted. plane matters where a file holds one ready slice.

    Raises
    ------
    InputError
        There is no such folder, no scan, no label, one class only, or a listed file is missing.
    """
    data = Path(data)
    if not data.exists():
        raise InputError(f"{data} does not exist.")
    if plane not in PLANES:
        raise InputError(f"Plane {plane!r} is none: choose axial, coronal or sagittal.")
    root = data if data.is_dir() else data.parent
    found = _recognise(data, root, label, plane)
    if classes is None and label is None and threshold is None:
        classes = found.classes
    column = _class_column(data, found, label)
    scans, class_names, notes = label_scans(found.scans, column, classes, threshold)
    scans, doubled = _told_apart(scans)
    _check(data, scans, class_names)
    return Cohort(
        root=root,
        layout=found.layout,
        scans=scans[COLUMNS],
        class_names=class_names,
        notes=[_head(found, scans, class_names), *found.notes, *notes, *doubled],
        simulated=(root / "simulation.json").is_file(),
    )


def _head(found: _Found, scans: pd.DataFrame, class_names: list[str]) -> str:
    parts = []
    for name in class_names:
        subjects = scans.loc[scans["label"] == name, "subject_id"]
        parts.append(f"{name}: {_people(subjects)}")
    return f"{found.layout}: {_people(scans['subject_id'])} ({', '.join(parts)})."


def _people(subjects: pd.Series) -> str:
    return f"{counted(len(subjects), 'scan')} of {counted(subjects.nunique(), 'subject')}"


def _recognise(data: Path, root: Path, label: str | None, plane: str) -> _Found:
    if data.is_file():
        return _scan_table(root, data)
    tables = sorted(
        p for p in data.iterdir() if p.suffix.lower() in (".tsv", ".csv") and p.is_file()
    )
    for path in tables:
        if path.stem.lower() == "scans":
            return _scan_table(root, path)
    files = find_scan_files(data)
    if not files:
        raise InputError(
            f"{data} holds no scans: none of .nii, .nii.gz, .hdr with .img, .mgh or .mgz."
        )
    names = [str(file.relative_to(data).as_posix()) for file in files]
    for path in tables:
        table = read_any_table(path)
        if {"MRI ID", "Group"} <= set(table.columns):
            return _oasis2(path, table, names, plane)
        if path.stem.lower() == "participants" or (label is not None and label in table.columns):
            return _participants(path, table, names)
    if label is not None:
        seen = ", ".join(path.name for path in tables) or "no table"
        raise InputError(f"{data} has no table with the column {label!r}: it holds {seen}.")
    return _class_folders(data, names)


def _scan_table(root: Path, path: Path) -> _Found:
    table = read_any_table(path)
    if "path" not in table.columns:
        raise InputError(f"{path} lacks the column 'path': it has {listed(table.columns)}.")
    missing = [name for name in table["path"] if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{path} lists {len(missing)} of {len(table)} scans that do not exist, "
            f"the first {missing[0]!r}."
        )
    notes = []
    if "subject_id" not in table.columns:
        ids = [_subject_of(name, nested=False) for name in table["path"]]
        table = table.assign(subject_id=[subject for subject, _ in ids])
        notes.append(f"{path.name} names no subject_id: ids come from the names of the files.")
    if "session_id" not in table.columns:
        table = table.assign(session_id=[_session_of(name) for name in table["path"]])
    return _Found("scan table", table, "label" if "label" in table.columns else None, notes=notes)


def _oasis2(path: Path, table: pd.DataFrame, names: list[str], plane: str) -> _Found:
    """OASIS-2 (Marcus et al. 2010): AD = Demented, NC = Nondemented, Converted left out."""
    mark = f"_{PLANE_MARK[plane]}."
    marked = [name for name in names if re.search(r"_(axl|cor|sag)\.", name)]
    chosen = [name for name in marked if mark in name] if marked else names
    by_session: dict[str, str] = {}
    for name in chosen:
        match = re.search(r"OAS2_\d{4}_MR\d+", name)
        if match is not None:
            by_session.setdefault(match[0], name)
    scans = table.assign(
        path=table["MRI ID"].map(by_session),
        subject_id=table["MRI ID"].str.extract(r"(OAS2_\d{4})", expand=False),
        session_id=table["MRI ID"].str.extract(r"(MR\d+)", expand=False),
    )
    without = scans["path"].isna()
    notes = [f"Subject and session ids and classes come from {path.name}."]
    if without.any():
        sessions = counted(without.sum(), "session")
        verb = "has" if without.sum() == 1 else "have"
        notes.append(f"{sessions} of the table {verb} no {plane} scan.")
    default = {"AD": ["Demented"], "NC": ["Nondemented"]}
    return _Found("OASIS-2", scans[~without], "Group", default, notes)


def _participants(path: Path, table: pd.DataFrame, names: list[str]) -> _Found:
    """Join a table of participants with the scans in whose names its ids stand."""
    column, subjects = _id_column(table, names)
    if column is None:
        raise InputError(
            f"No column of {path} holds ids that stand in the names of the scans, such as "
            f"{names[0]!r}: it has {listed(table.columns)}."
        )
    scans = pd.DataFrame({"path": names, "subject_id": subjects})
    unknown = scans["subject_id"].isna()
    table = table.drop_duplicates()
    twice = table.loc[table[column].duplicated(), column]
    if len(twice):
        raise InputError(
            f"{path} has several rows for {counted(twice.nunique(), 'participant')}, the first "
            f"{twice.iloc[0]!r}: give a scans.tsv with path, subject_id, session_id and label."
        )
    notes = [f"Subject ids come from the column {column} of {path.name}."]
    if unknown.any():
        notes.append(
            f"Left out, as their names hold no id of {path.name}: "
            f"{counted(unknown.sum(), 'scan')}, the first {scans.loc[unknown, 'path'].iloc[0]}."
        )
    scans = scans[~unknown].assign(
        session_id=[_session_of(name) for name in scans.loc[~unknown, "path"]]
    )
    without = len(set(table[column]) - set(scans["subject_id"]))
    if without:
        notes.append(f"Rows of {path.name} without a scan: {without}.")
    ours = [name for name in COLUMNS[:3] if name in table.columns and name != column]
    joined = scans.merge(
        table.drop(columns=ours).rename(columns={column: ID}), left_on="subject_id", right_on=ID
    )
    return _Found("participants table", joined, None, notes=notes)


def _id_column(table: pd.DataFrame, names: list[str]) -> tuple[str | None, list[str | None]]:
    """Return the column whose values stand in most names, and the id of each name."""
    best: tuple[str | None, list[str | None]] = (None, [None] * len(names))
    runs = [_token_runs(name) for name in names]
    for column in table.columns:
        ids = {_tokens(value): value for value in table[column] if value not in MISSING}
        subjects = [next((ids[run] for run in own if run in ids), None) for own in runs]
        if _known(subjects) > _known(best[1]):
            best = (column, subjects)
    return best


def _known(subjects: list[str | None]) -> int:
    return sum(subject is not None for subject in subjects)


def _token_runs(name: str) -> list[tuple[str, ...]]:
    """Return the runs of whole tokens in a path, longest first: Subj1 is no part of Subj10."""
    tokens = _tokens(name)
    spans = [(a, b) for a in range(len(tokens)) for b in range(a + 1, len(tokens) + 1)]
    spans.sort(key=lambda span: (span[0] - span[1], -span[0]))
    return [tokens[a:b] for a, b in spans]


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token for token in re.split(r"[^A-Za-z0-9]+", text) if token)


def _class_folders(data: Path, names: list[str]) -> _Found:
    inside = [name for name in names if "/" in name]
    if not inside:
        raise InputError(
            f"{data} holds {len(names)} scans but neither class folders nor a table: put each "
            "class in a folder of its own, or add participants.tsv or scans.tsv."
        )
    ids = [_subject_of(name.split("/", 1)[1], nested=True) for name in inside]
    scans = pd.DataFrame(
        {
            "path": inside,
            "subject_id": [subject for subject, _ in ids],
            "session_id": [_session_of(name.split("/", 1)[1]) for name in inside],
            "class folder": [name.split("/", 1)[0] for name in inside],
        }
    )
    origins = sorted({origin for _, origin in ids})
    notes = [f"Subject ids come from {' and '.join(origins)}."]
    if any(origin == "the whole file name" for _, origin in ids):
        notes.append(
            "A file whose name holds no known form of id (sub-X, OAS1_0001, 002_S_0295) counts as "
            "a subject of its own: if one person has several, give a scans.tsv."
        )
    if len(inside) < len(names):
        outside = counted(len(names) - len(inside), "scan")
        notes.append(f"Left out, as they lie outside class folders: {outside}.")
    return _Found("class folders", scans, "class folder", notes=notes)


def _subject_of(name: str, *, nested: bool) -> tuple[str, str]:
    """Return the subject that a path names, and where in it that was found."""
    match = SUBJECT.search(name)
    if match is not None:
        return match[0], "the ids in the names"
    if nested and "/" in name:
        return name.split("/", 1)[0], "the folders inside the classes"
    stem = re.sub(r"\.(nii|hdr|mgh|mgz)(\.gz)?$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE)
    session = SESSION.search(stem)
    if session is not None and session.start() > 0:
        return stem[: session.start()], "the names up to the session"
    return stem, "the whole file name"


def _session_of(name: str) -> str:
    match = SESSION.search(name)
    return match[1] if match is not None else "1"


def _class_column(data: Path, found: _Found, label: str | None) -> str:
    column = label or found.label
    offered = [name for name in found.scans.columns if name not in (*COLUMNS[:3], ID)]
    if column is None:
        raise InputError(f"Which column of {data} holds the classes? Name it: {listed(offered)}.")
    if column not in found.scans.columns:
        raise InputError(f"There is no column {column!r} in {data}: it has {listed(offered)}.")
    return column


def _told_apart(scans: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Give scans of one session names of their own, for a slice is known by subject and session."""
    scans = scans.sort_values(["subject_id", "session_id", "path"], ignore_index=True)
    key = ["subject_id", "session_id"]
    twice = scans.duplicated(key, keep=False)
    if not twice.any():
        return scans, []
    number = scans.groupby(key).cumcount().add(1).astype(str)
    session = scans["session_id"].mask(twice, scans["session_id"] + "-" + number)
    note = (
        f"{twice.sum()} scans share subject and session with another: their sessions are numbered."
    )
    return scans.assign(session_id=session), [note]


def _check(data: Path, scans: pd.DataFrame, class_names: list[str]) -> None:
    if len(class_names) < 2:
        held = (
            f"only {class_names[0]!r} in {counted(len(scans), 'scan')}" if class_names else "none"
        )
        raise InputError(f"{data} shows {held}: at least two classes are needed.")
