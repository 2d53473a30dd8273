"""A folder of scans → the table of scans with the subject and the class of each.

Layouts are recognised in this order: a table of scans (scans.tsv or .csv with a column `path`),
BIDS (sub-*/anat/), OASIS-1 and OASIS-2 (their tables beside their files), a participants table
whose ids are in the names of the scans, class folders (DATA/AD/…, DATA/NC/…).
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from headscope.cohort.bids import KEY, find_bids
from headscope.cohort.demographics import (
    Covariate,
    check_covariates,
    describe_subjects,
    inspect_covariate,
    join_sidecars,
)
from headscope.cohort.filters import where_holds
from headscope.cohort.folders import inside, read_class_folders, read_scan_table
from headscope.cohort.ids import ID, id_twins, name_twins
from headscope.cohort.joining.beside import read_by_tables, suggest_label
from headscope.cohort.joining.listed import name_by_table
from headscope.cohort.joining.subjects import apply_pattern, odd_subjects
from headscope.cohort.labels import label_scans, quotes_subjects
from headscope.cohort.pictures import number_pictures
from headscope.cohort.selection import (
    GIVEN,
    drop_label_maps,
    note_contrasts,
    note_given,
    note_others,
    note_series,
    refuse_experiment,
    scans_of_subjects,
    select_scans,
    take_contrast,
    with_given,
)
from headscope.cohort.tables import CLASS_FOLDER, MISSING, counted, listed
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError
from headscope.files import any_names
from headscope.scans.discovery import SUFFIXES, Kind, ScanFile, is_picture, survey
from headscope.scans.volume import PLANES
from headscope.text import printable_name

NO_CLASS: Final = "unlabelled"
OURS: Final = ["plane", "slice_index"]  # columns that a table of scans may have for us
COLUMNS: Final = ["path", *KEY, "label"]


@dataclass(frozen=True)
class Cohort:
    """The scans of a study: one row each, its path relative to `root`.

    `notes` say what was recognised, what was left out, and where the ids come from; `simulated`
    holds where simulation.json is beside the scans. `kinds` has what each path is; `described`
    age, sex and covariates by path; `offered` every column that could be one.
    """

    root: Path
    layout: str
    scans: pd.DataFrame
    class_names: list[str]
    notes: list[Note]
    simulated: bool
    kinds: Mapping[str, Kind]
    described: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    offered: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False, repr=False)

    @property
    def names(self) -> "pd.Series[str]":
        """The name of each scan in results, as text: its path, or its pseudonym if it has one."""
        column = "name" if "name" in self.scans.columns else "path"
        return self.scans[column].map(printable_name)

    @property
    def covariates(self) -> list[Covariate]:
        """What each column of the tables, and of the JSON beside scans, would be as a covariate."""
        columns = [name for name in self.offered.columns if name not in ("path", "subject_id")]
        return [inspect_covariate(self.offered, name) for name in columns]

    @property
    def files(self) -> list[ScanFile]:
        """The file of each scan, with its plane where the table of scans names one."""
        planes = self.scans["plane"] if "plane" in self.scans else [None] * len(self.scans)
        return [
            ScanFile(self.root / path, self.kinds[path], plane)
            for path, plane in zip(self.scans["path"], planes, strict=True)
        ]


@any_names
def find_cohort(
    data: Path | str,
    *,
    label: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    plane: str = "axial",
    threshold: float | None = None,
    where: str | None = None,
    keep: Sequence[str] = (),
    subject_pattern: str | None = None,
    subjects: Path | str | None = None,
    contrast: str | None = None,
    covariates: Sequence[str] = (),
    need_classes: bool = True,
) -> Cohort:
    """Recognise the layout of the scans below `data` and return the labelled ones.

    Parameters
    ----------
    data : Path or str
        Folder of scans or ready pictures, or a table of scans.
    label : str, optional
        The column of classes in the layout's table.
    classes : mapping, optional
        Names of the classes and the values of each, in the order that results have:
        {"AD": ["Demented"], "NC": ["Nondemented"]}. Scans of other values are left out. Without
        it, the values are the classes, sorted.
    plane : str
        Matters where a file holds one ready slice: axial, coronal or sagittal takes the files of
        one plane; with "all" each is of its own plane, and `scans` has a column for it.
    threshold : float, optional
        Cuts a numeric column in two classes, named "Age<=80" and "Age>80".
    where : str, optional
        Conditions on columns; scans that do not meet them are left out ("Age > 60 and M/F == F").
    keep : sequence of str
        Columns of the table to keep in `scans`.
    subject_pattern : str, optional
        Regular expression whose first group is the subject id in a path below its class folder.
    subjects : Path or str, optional
        A table with the columns path and subject_id, one row per scan.
    contrast : str, optional
        Takes the scans whose names hold this contrast: t1 is BraTS's t1n and BIDS's T1w too.
    covariates : sequence of str
        Columns for `described`, as they are named or as age, sex, site, manufacturer or
        field_strength; by default these, where they are recognised.
    need_classes : bool
        If false, scans whose classes are unknown are all labelled "unlabelled".

    Returns
    -------
    Cohort
        Ready pictures get a column slice_index, and the subject_id "unknown" where their names
        hold no ids.
    """
    data = Path(data)
    if not data.exists():
        raise InputError(f"{data} does not exist.")
    if plane not in (*PLANES, "all"):
        raise InputError(f"Unknown plane {plane!r}: choose axial, coronal, sagittal or all.")
    refuse_experiment(data)
    root = data if data.is_dir() else data.parent
    chosen = {value for values in (classes or {}).values() for value in values}
    layout, kinds = _recognise(data, root, label, plane, subject_pattern, contrast, chosen)
    layout = name_by_table(root, layout, subjects)
    if classes is None and label is None and threshold is None:
        classes = layout.classes
    if not need_classes and label is None and layout.label is None:
        layout = _without_classes(layout)
    column = _class_column(data, layout, label)
    scans, left_out = _where(layout.scans, where)
    missing = () if column == "class folder" else MISSING  # a folder may be called None
    if classes is None and len(scans) and scans[column].isin(missing).all():
        raise InputError(f"No scan of {data} has a value of {column!r}.{layout.hint}")
    scans, class_names, notes = label_scans(scans, column, classes, threshold, missing)
    scans, all_pictures = _number_pictures(data, scans, kinds, plane)
    notes += [*note_contrasts(scans), *note_given(scans)]
    scans, doubled = _number_sessions(scans)
    if need_classes:
        _check_classes(data, scans, class_names, layout.hint)
    odd = [*odd_subjects(scans, pictures=all_pictures), *_twins(scans)]
    scans = scans.assign(**{name: scans[name].map(printable_name) for name in (*KEY, "label")})
    class_names = [printable_name(name) for name in class_names]
    summary = _summarise(layout, scans, class_names)
    offered = _offer_covariates(root, scans, kinds, column)
    named = check_covariates(data, offered, covariates)
    return Cohort(
        root=root,
        layout=layout.name,
        scans=scans[[*COLUMNS, *_extra_columns(data, scans, keep)]],
        class_names=class_names,
        notes=[summary, *layout.notes, *left_out, *notes, *doubled, *odd],
        simulated=(root / "simulation.json").is_file(),
        kinds=kinds,
        described=describe_subjects(offered, named),
        offered=offered,
    )


def _recognise(
    data: Path,
    root: Path,
    label: str | None,
    plane: str,
    pattern: str | None,
    contrast: str | None,
    chosen: Set[str],
) -> tuple[Layout, dict[str, Kind]]:
    """Return the layout of a folder, or of a table of scans, and what each of its paths is."""
    tables = [data]
    if data.is_dir():
        files = (path for path in data.iterdir() if path.suffix.lower() in (".tsv", ".csv"))
        tables = sorted(path for path in files if path.is_file())
    elif is_picture(data.name) or data.name.lower().endswith((*SUFFIXES, ".dcm")):
        raise InputError(
            f"{data} is one scan: give the folder that holds the scans, or a table of them."
        )
    for path in tables:
        if path == data or path.stem.lower() == "scans":
            layout = with_given(read_scan_table(root, path, plane, pattern))
            layout = _listed_scans(data, layout, contrast)
            return layout, {name: ScanFile.at(root / name).kind for name in layout.scans["path"]}
    below = survey(data)
    kinds = {file.path.relative_to(data).as_posix(): file.kind for file in below.scans}
    others = note_others(below.others - Counter(path.suffix.lower() for path in tables))
    others += note_series(data, below.left_out)
    if not kinds:
        there = " ".join(["", *map(str, others)])
        raise InputError(
            f"{data} holds no scans: none of .nii, .nii.gz, .hdr with .img, .mgh, .mgz or .dcm, "
            f"and no pictures.{there}"
        )
    selection = select_scans(data, list(kinds), contrast)
    bids = find_bids(data, selection.names)
    if bids is not None:
        layout = apply_pattern(bids, pattern)
    else:
        selection = drop_label_maps(data, kinds, selection)
        names, hint = selection.names, ""
        try:
            by_table = read_by_tables(data, tables, names, label, plane, pattern)
            hint = suggest_label(tables, names) if by_table is None else ""
            layout = by_table or read_class_folders(
                data, names, plane, pattern, left=selection.left, chosen=chosen
            )
            said = [Note(hint.strip())] if hint else []
            layout = replace(layout, hint=layout.hint + hint, notes=[*layout.notes, *said])
        except InputError as error:  # what else is there may be what was meant
            raise InputError(f"{error}{hint}{''.join(f' {note}' for note in others)}") from None
    layout = with_given(layout)
    return replace(layout, notes=[*layout.notes, *selection.notes, *others]), kinds


def _listed_scans(data: Path, layout: Layout, contrast: str | None) -> Layout:
    """Take one contrast of the listed scans if asked; count those of the folder without a row."""
    rows = list(layout.scans["path"])
    names, notes = take_contrast(data, rows, contrast)
    if data.is_dir() and "plane" not in layout.scans:  # rows of other planes are no longer there
        below = {file.path.relative_to(data).as_posix() for file in survey(data).scans}
        unlisted = len(below - {Path(name).as_posix() for name in rows})
        if unlisted:
            text = f"Not in the table, and left out: {counted(unlisted, 'scan')}."
            notes.append(Note(text, about="left out"))
    scans = layout.scans[layout.scans["path"].isin(names)]
    return replace(layout, scans=scans, notes=[*layout.notes, *notes])


def _without_classes(layout: Layout) -> Layout:
    """Let a cohort without classes be inspected and sliced."""
    offered = _offered(layout.scans)
    columns = f" Columns that may hold them: {listed(offered)}." if offered else ""
    note = Note(f"No classes are known, and a run needs them.{columns}")
    scans = layout.scans.assign(class_=NO_CLASS)
    return replace(layout, scans=scans, label="class_", notes=[*layout.notes, note])


def _class_column(data: Path, layout: Layout, label: str | None) -> str:
    column = label or layout.label
    offered = _offered(layout.scans)
    if not offered and column not in layout.scans.columns:
        raise InputError(
            f"{data}{layout.hint}"
            if layout.name == "BIDS"
            else f"{data} holds {counted(len(layout.scans), 'scan')} but neither class folders nor "
            "a table: put each class in a folder of its own, or add participants.tsv or scans.tsv."
            f"{layout.hint}"
        )
    if column is None:
        raise InputError(f"Which column of {data} holds the classes? Name it: {listed(offered)}.")
    if column not in layout.scans.columns:
        raise InputError(f"There is no column {column!r} in {data}: it has {listed(offered)}.")
    return column


def _where(scans: pd.DataFrame, where: str | None) -> tuple[pd.DataFrame, list[Note]]:
    """Return the scans that meet the conditions; these may quote an id, as their note does."""
    if where is None:
        return scans, []
    holds = where_holds(scans.drop(columns=["path", ID], errors="ignore"), where)
    if not holds.any():
        raise InputError(f"No scan meets --where {where!r}.")
    left = counted(int((~holds).sum()), "scan")
    text = f"Left out by {where!r}: {left}."
    return scans[holds], [Note(text, names_ids=True, about="left out")]


def _extra_columns(data: Path, scans: pd.DataFrame, keep: Sequence[str]) -> list[str]:
    offered = _offered(scans)
    for name in keep:
        if name not in offered:
            raise InputError(f"There is no column {name!r} in {data}: it has {listed(offered)}.")
    ours = (name for name in [*OURS, GIVEN] if name in scans.columns)
    return [*ours, *dict.fromkeys(keep)]


def _offer_covariates(
    root: Path, scans: pd.DataFrame, kinds: Mapping[str, Kind], classes: str
) -> pd.DataFrame:
    """Return path, subject_id and the columns that could be covariates: not that of the classes."""
    volumes = [path for path in scans["path"] if kinds[path] == "volume"]
    scans = join_sidecars(root, scans, volumes)
    columns = [name for name in _offered(scans) if name not in (classes, "label", CLASS_FOLDER)]
    return scans[["path", "subject_id", *columns]]


def _offered(scans: pd.DataFrame) -> list[str]:
    """Return the columns that a user may name."""
    return [name for name in scans.columns if name not in ("path", *KEY, *OURS, GIVEN, ID)]


def _number_pictures(
    data: Path, scans: pd.DataFrame, kinds: Mapping[str, Kind], plane: str
) -> tuple[pd.DataFrame, bool]:
    """Number the slices that ready pictures are, if all of the scans are; return whether so."""
    pictures = np.array([kinds[path] == "picture" for path in scans["path"]], dtype=bool)
    if pictures.any() and plane == "all" and "plane" not in scans.columns:
        raise InputError(f"{data} holds ready pictures, whose plane is unknown: name it by plane.")
    if pictures.all():
        return number_pictures(scans), True
    return scans.drop(columns="slice_index", errors="ignore"), False


def _number_sessions(scans: pd.DataFrame) -> tuple[pd.DataFrame, list[Note]]:
    """Number the sessions of scans that share one: subject and session must identify a slice."""
    scans = scans.sort_values([*KEY, "path"], ignore_index=True)
    key = [name for name in (*KEY, *OURS) if name in scans.columns]
    twice = scans.duplicated(key, keep=False)
    if not twice.any():
        return scans, []
    number = scans.groupby(key).cumcount().add(1).astype(str)
    session = scans["session_id"].mask(twice, scans["session_id"] + "-" + number)
    first, second = scans.loc[(scans[key] == scans[twice][key].iloc[0]).all(axis=1), "path"][:2]
    text = (
        f"{twice.sum()} scans share subject and session with another: their sessions are numbered, "
        f"the first {first} and {second}."
    )
    return scans.assign(session_id=session), [Note(text, names_ids=True)]


def _twins(scans: pd.DataFrame) -> list[Note]:
    """Say which ids and classes are written alike: one perhaps."""
    subjects = id_twins(scans["subject_id"].unique())
    labels = scans["label"].unique()
    classes = name_twins(labels, "classes", r"[\s_-]|(?<=\d)\.0+$", ", signs or .0")
    return [*(Note(text, names_ids=True) for text in subjects), *map(Note, classes)]


def _check_classes(data: Path, scans: pd.DataFrame, class_names: list[str], elsewhere: str) -> None:
    if len(class_names) < 2:
        shown, hint = "none", ""
        if class_names:
            shown = f"only {class_names[0]!r} in {counted(len(scans), 'scan')}"
            hint = elsewhere or inside(data, list(scans["path"]))
        raise InputError(f"{data} shows {shown}: at least two classes are needed.{hint}")


def _summarise(layout: Layout, scans: pd.DataFrame, class_names: list[str]) -> Note:
    subjects, labels = scans["subject_id"], scans["label"]
    classes = [f"{name}: {scans_of_subjects(subjects[labels == name])}" for name in class_names]
    text = f"{layout.name}: {scans_of_subjects(subjects)} ({', '.join(classes)})."
    return Note(text, names_ids=quotes_subjects(labels, subjects))
