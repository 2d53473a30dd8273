"""BIDS (Gorgolewski et al. 2016): sub-*/[ses-*/]anat/*_T1w.nii.gz with its tables."""

import re
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import ID
from headscope.cohort.joining.columns import subject_columns
from headscope.cohort.joining.matching import rename_ids
from headscope.cohort.tables import (
    MISSING,
    check_subjects,
    counted,
    read_any_table,
    rows_by_subject,
)
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError

ANAT: Final = re.compile(
    r"(?P<path>(?P<subject_id>sub-[A-Za-z0-9-]+)/(?:(?P<session_id>ses-[A-Za-z0-9-]+)/)?anat/"
    r"(?P<stem>[^/]+)_(?P<suffix>[A-Za-z0-9]+)\.(?:nii|mgh|mgz|hdr)(?:\.gz)?)"
)
HINT: Final = (
    " is laid out as BIDS but has neither participants.tsv nor sessions.tsv: one of them must hold "
    "the classes, in a column beside participant_id or session_id."
)
ANATOMY: Final = ("T1w", "UNIT1", "T2w", "FLAIR", "PDw", "PDT2", "T2starw", "inplaneT1", "MP2RAGE")
CLASS_COLUMNS: Final = ("diagnosis", "dx", "group", "label", "class")
KEY: Final = ["subject_id", "session_id"]


def find_bids(data: Path, names: list[str]) -> Layout | None:
    """Return one scan per session, with the columns of participants.tsv and sessions.tsv.

    T1w is taken where there is any, then UNIT1, else the most frequent suffix that shows anatomy.
    Of several scans in a session, magnitude comes before phase, then the fewest entities (acq,
    rec, run), then the first by name. Columns of a
    sessions.tsv hold for the session and replace those of participants.tsv. None if it is no BIDS.
    """
    matches = [match for name in names if (match := ANAT.fullmatch(name))]
    if not matches:
        return None
    files = pd.DataFrame([match.groupdict("1") for match in matches])
    scans, notes = _one_per_session(files)
    outside = len(names) - len(matches)
    if outside:
        text = f"Left out, as they are outside sub-*/anat: {counted(outside, 'scan')}."
        notes.append(Note(text, about="left out"))
    participants, origins = _participants(data, sorted(set(files["subject_id"])))
    notes, hint = [*origins, *notes], HINT
    if participants is not None:
        scans = scans.merge(participants, left_on="subject_id", right_on=ID, how="left")
        unlisted = scans.loc[scans[ID].isna(), "subject_id"]
        if len(unlisted):
            text = f"{counted(unlisted.nunique(), 'subject')} of {counted(len(unlisted), 'scan')}"
            notes.append(Note(f"Without a row in the table of participants: {text}."))
            text = (
                f"The first of them is {unlisted.iloc[0]}, the first row {participants[ID].iloc[0]}"
            )
            notes.append(Note(f"{text}.", names_ids=True))
            if len(unlisted) == len(scans):
                hint = f" None of its folders sub-* is in the table of participants. {text}."
        absent = set(participants[ID]) - set(files["subject_id"])
        if absent:
            text = f"Rows of participants.tsv without a scan: {len(absent)}."
            notes.append(Note(text, about="left out"))
    scans, from_sessions = _with_sessions(data, scans)
    if from_sessions:
        columns = ", ".join(from_sessions)
        notes.append(Note(f"Labels of sessions come from sessions.tsv: {columns}."))
    scans = scans.fillna("n/a")  # where no table has a row for the subject
    likely = [name for name in scans.columns if name.lower() in CLASS_COLUMNS]
    likely = [name for name in likely if not scans[name].isin(MISSING).all()]
    if participants is None and not from_sessions:
        notes.append(Note("There is neither participants.tsv nor sessions.tsv: no class is known."))
    return Layout("BIDS", scans, likely[0] if len(likely) == 1 else None, notes=notes, hint=hint)


def _one_per_session(files: pd.DataFrame) -> tuple[pd.DataFrame, list[Note]]:
    """Choose the suffix and then one scan of each session, with notes that say so."""
    counts = files["suffix"].value_counts().sort_index()
    suffix = _anatomical(counts)
    of_suffix = files[files["suffix"] == suffix]
    notes = []
    if len(counts) > 1:
        others = ", ".join(f"{name} ({n})" for name, n in counts.items() if name != suffix)
        text = f"Scans of the suffix {suffix} are taken, not {others}."
        notes.append(Note(text, about="left out"))
    without = len(files.drop_duplicates(KEY)) - len(of_suffix.drop_duplicates(KEY))
    if without:
        notes.append(Note(f"Sessions without a {suffix}, left out: {without}.", about="left out"))
    phase = of_suffix["stem"].str.contains(r"_part-(?:phase|real|imag)")
    enhanced = of_suffix["stem"].str.contains("_ce-")
    entities = of_suffix["stem"].str.count("_")
    ordered = of_suffix.assign(phase=phase, enhanced=enhanced, entities=entities).sort_values(
        [*KEY, "phase", "enhanced", "entities", "path"]
    )
    several = int((ordered.groupby(KEY).size() > 1).sum())
    if several:
        verb = "holds" if several == 1 else "hold"
        text = (
            f"{counted(several, 'session')} {verb} several {suffix}: the one of fewest entities "
            "(acq, rec, run) is taken, then the first by name."
        )
        notes.append(Note(text, about="left out"))
    taken = ordered.drop_duplicates(KEY)
    count = int(taken["enhanced"].sum())
    if 0 < count < len(taken):
        text = f"Of {counted(count, 'session')} the {suffix} is"
        notes.append(Note(f"{text} with a contrast agent (ce), as there is no other."))
    return taken[["path", *KEY]].reset_index(drop=True), notes


def _anatomical(counts: "pd.Series[int]") -> str:
    """Return the suffix that shows anatomy: T1w, UNIT1, else the most frequent such."""
    anatomy = counts[counts.index.isin(ANATOMY)]
    first = [name for name in ANATOMY[:2] if name in anatomy]
    return first[0] if first else str((anatomy if len(anatomy) else counts).idxmax())


def _participants(data: Path, subjects: list[str]) -> tuple[pd.DataFrame | None, list[Note]]:
    """Return the table of participants, a TSV or, against the standard, a CSV, by its subjects."""
    paths = [data / f"participants.{suffix}" for suffix in ("tsv", "csv")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        text = "Subject and session ids come from the folders sub-* and ses-*."
        return None, [Note(text, about="ids")]
    table = read_any_table(path)
    column = next((name for name in table.columns if name.lower() == "participant_id"), None)
    column = column or next(iter(subject_columns(table)), None)
    if column is None:
        raise InputError(f"{path} lacks the column 'participant_id'.")
    check_subjects(path, column, table[column])
    ids = rename_ids(table[column], subjects, "sub-")
    text = f"Subject ids come from the folders sub-*, their rows from {path.name}."
    notes = [Note(text, about="ids")]
    spelled = ids.ne(table[column]) & ids.ne("sub-" + table[column])
    if spelled.any():
        text = "Ids are the same in upper and lower case, with and without leading zeros: "
        first = f"{table.loc[spelled, column].iloc[0]} is {ids[spelled].iloc[0]}"
        notes.append(Note(f"{text}{first}.", names_ids=True, about="ids"))
    return rows_by_subject(path, table.assign(**{column: ids}), column), notes


def _with_sessions(data: Path, scans: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of sessions.tsv, one for all subjects or one in each subject's folder."""
    parts = []
    whole = data / "sessions.tsv"
    if whole.is_file():
        parts.append(read_any_table(whole))
    for subject in sorted(set(scans["subject_id"])):
        path = data / subject / f"{subject}_sessions.tsv"
        if path.is_file():
            parts.append(read_any_table(path).assign(participant_id=subject))
    if not parts:
        return scans, []
    table = pd.concat(parts, ignore_index=True)
    lacking = [name for name in ("participant_id", "session_id") if name not in table.columns]
    if lacking:
        raise InputError(f"The sessions.tsv of {data} lacks the column {lacking[0]!r}.")
    table = table.assign(
        subject_id=rename_ids(table["participant_id"], sorted(set(scans["subject_id"])), "sub-"),
        session_id=rename_ids(table["session_id"], sorted(set(scans["session_id"])), "ses-"),
    ).drop(columns="participant_id")
    repeated = table[table.duplicated(KEY)]
    if len(repeated):
        subject, session = repeated.iloc[0][KEY]
        raise InputError(f"{data} has several rows of sessions.tsv for {subject}, {session}.")
    columns = [name for name in table.columns if name not in KEY]
    merged = scans.merge(table, on=KEY, how="left", suffixes=("", " of the session"))
    for name in columns:
        if f"{name} of the session" in merged.columns:
            values = merged.pop(f"{name} of the session")
            merged[name] = values.where(values.notna() & ~values.isin(MISSING), merged[name])
    return merged, columns
