"""BIDS (Gorgolewski et al. 2016): sub-*/[ses-*/]anat/*_T1w.nii.gz with its tables."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import ID, Found
from headscope.cohort.tables import MISSING, check_subjects, counted, read_any_table
from headscope.errors import InputError

ANAT: Final = re.compile(
    r"(sub-[A-Za-z0-9]+)/(?:(ses-[A-Za-z0-9]+)/)?anat/"
    r"(?P<stem>[^/]+)_(?P<suffix>[A-Za-z0-9]+)\.(?:nii|mgh|mgz|hdr)(?:\.gz)?"
)
CLASS_COLUMNS: Final = ("diagnosis", "dx", "group", "label", "class")


def find_bids(data: Path, names: list[str]) -> Found | None:
    """Return one scan a session, with what participants.tsv and sessions.tsv say; None if no BIDS.

    T1w is taken where there is any, else the most frequent suffix. Of several in a session that of
    the fewest entities (acq, rec, run) is taken, then the first by name. Columns of a sessions.tsv
    hold for the session and win over those of participants.tsv.
    """
    matches = [(name, match) for name in names if (match := ANAT.fullmatch(name))]
    if not matches:
        return None
    found = pd.DataFrame(
        [(name, m[1], m[2] or "1", m["stem"], m["suffix"]) for name, m in matches],
        columns=["path", "subject_id", "session_id", "stem", "suffix"],
    )
    scans, notes = _one_a_session(found)
    participants = _participants(data)
    if participants is not None:
        scans = scans.merge(participants, left_on="subject_id", right_on=ID, how="left")
        absent = sorted(set(participants[ID]) - set(found["subject_id"]))
        if absent:
            notes.append(f"Rows of participants.tsv without a scan: {len(absent)}.")
    scans, from_sessions = _with_sessions(data, scans)
    if participants is None and not from_sessions:
        raise InputError(
            f"{data} lies as BIDS but has neither participants.tsv nor sessions.tsv: one of them "
            "must hold the classes, in a column beside participant_id or session_id."
        )
    if from_sessions:
        notes.append(f"Labels of sessions come from sessions.tsv: {', '.join(from_sessions)}.")
    scans = scans.fillna("n/a")  # of whom no table has a row
    likely = [name for name in scans.columns if name.lower() in CLASS_COLUMNS]
    return Found("BIDS", scans, likely[0] if len(likely) == 1 else None, notes=notes)


def _one_a_session(found: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Choose the suffix and then one scan of each session, and say so."""
    key = ["subject_id", "session_id"]
    counts = Counter(found["suffix"])
    suffix = "T1w" if "T1w" in counts else max(sorted(counts), key=lambda name: counts[name])
    of_suffix = found[found["suffix"] == suffix]
    notes = []
    if len(counts) > 1:
        others = ", ".join(f"{name} ({n})" for name, n in sorted(counts.items()) if name != suffix)
        notes.append(f"Scans of the suffix {suffix} are taken, not {others}.")
    without = len(found.drop_duplicates(key)) - len(of_suffix.drop_duplicates(key))
    if without:
        notes.append(f"Sessions without a {suffix}, left out: {without}.")
    ordered = of_suffix.assign(entities=of_suffix["stem"].str.count("_")).sort_values(
        [*key, "entities", "path"]
    )
    scans = ordered.drop_duplicates(key)
    if len(scans) < len(ordered):
        several = int((ordered.groupby(key).size() > 1).sum())
        verb = "holds" if several == 1 else "hold"
        notes.append(
            f"{counted(several, 'session')} {verb} several {suffix}: the one of fewest entities "
            "(acq, rec, run) is taken, then the first by name."
        )
    return scans[["path", *key]].reset_index(drop=True), notes


def _participants(data: Path) -> pd.DataFrame | None:
    path = data / "participants.tsv"
    if not path.is_file():
        return None
    table = read_any_table(path).drop_duplicates()
    if "participant_id" not in table.columns:
        raise InputError(f"{path} lacks the column 'participant_id'.")
    check_subjects(path, "participant_id", table["participant_id"])
    ids = table["participant_id"].map(lambda value: _prefixed("sub-", value))
    if ids.duplicated().any():
        raise InputError(f"{path} has several rows for {ids[ids.duplicated()].iloc[0]!r}.")
    return _own_columns(table.drop(columns="participant_id")).assign(**{ID: ids})


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
    key = ["subject_id", "session_id"]
    table = table.assign(
        subject_id=table["participant_id"].map(lambda value: _prefixed("sub-", value)),
        session_id=table["session_id"].map(lambda value: _prefixed("ses-", value)),
    ).drop(columns="participant_id")
    if table.duplicated(key).any():
        twice = table[table.duplicated(key)].iloc[0]
        raise InputError(
            f"{data} has several rows of sessions.tsv for {twice['subject_id']}, "
            f"{twice['session_id']}."
        )
    named = [name for name in table.columns if name not in key]
    merged = scans.merge(table, on=key, how="left", suffixes=("", " of the session"))
    for name in named:
        of_session = f"{name} of the session"
        if of_session in merged.columns:
            known = merged[of_session].notna() & ~merged[of_session].isin(MISSING)
            merged[name] = merged[of_session].where(known, merged[name])
    return merged.drop(columns=[c for c in merged if str(c).endswith(" of the session")]), named


def _own_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Drop columns whose names are those of the scans."""
    return table.drop(columns=[c for c in ("path", "subject_id", "session_id") if c in table])


def _prefixed(prefix: str, value: str) -> str:
    return value if value.startswith(prefix) else prefix + value
