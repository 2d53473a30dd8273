"""OASIS as it is distributed: OASIS-1 (Marcus et al. 2007) and OASIS-2 (Marcus et al. 2010)."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.tables import counted, numbers_in
from headscope.cohort.values import Layout, Note
from headscope.scans.discovery import plane_named
from headscope.scans.volume import PLANES

PREFERRED: Final = ("_t88_masked_gfc.", "_t88_gfc.", "_sbj_", "_mpr-1_", "")  # parts of names
OASIS1: Final = re.compile(r"(OAS1_\d{4})_(MR\d)")
OASIS2: Final = re.compile(r"(OAS2_\d{4})_(MR\d+)")
DEFAULT: Final = {"AD": ["Demented"], "NC": ["Nondemented"]}


def is_oasis1(table: pd.DataFrame, names: list[str]) -> bool:
    """Return whether a table is that of OASIS-1 and the scans are too."""
    return {"ID", "CDR"} <= set(table.columns) and any(OASIS1.search(name) for name in names)


def is_oasis2(table: pd.DataFrame) -> bool:
    """Return whether a table is the demographic table of OASIS-2."""
    columns = {"MRI ID", "Group"} <= set(table.columns)
    return columns and any(OASIS2.search(value) for value in table["MRI ID"])


def read_oasis1(path: Path, table: pd.DataFrame, names: list[str]) -> Layout:
    """AD = CDR above 0, NC = CDR 0; one scan per session, the masked, gain-field corrected average.

    The young subjects, whose CDR was not taken, have no value and so no class. A rescan within 90
    days (MR2, for reliability) is a session of the same subject.
    """
    by_processing = sorted(names, key=lambda name: (PREFERRED.index(_processing(name)), name))
    by_session = _by_session(by_processing, OASIS1)
    ids = table["ID"].str.extract(OASIS1)
    scans = table.assign(path=table["ID"].map(by_session), subject_id=ids[0], session_id=ids[1])
    without = int(scans["path"].isna().sum())
    scans = scans[scans["path"].notna()]
    counts = Counter(map(_processing, scans["path"]))
    taken = ", ".join(f"{part.strip('_.')} ({n})" for part, n in counts.items() if part)
    notes = [Note(f"Subject and session ids and CDR come from {path.name}.", about="ids")]
    if taken:
        notes.append(Note(f"Of the scans of a session the best processed is taken: {taken}."))
    if without:
        notes.append(Note(f"Sessions of {path.name} without a scan: {without}.", about="left out"))
    unlisted = len(set(by_session) - set(table["ID"]))
    if unlisted:
        text = f"Left out, as {path.name} has no row for them: {counted(unlisted, 'session')}."
        notes.append(Note(text, about="left out"))
    notes += _note_rest(names, scans["path"], OASIS1)
    rescans = int((scans["session_id"] != "MR1").sum())
    if rescans:
        text = f"{counted(rescans, 'rescan')} (MR2) count as sessions of the same subject."
        notes.append(Note(text))
    values = pd.Series(sorted(scans["CDR"].unique()), dtype=str)
    cdr = numbers_in(values)
    classes = {"AD": values[cdr > 0].tolist(), "NC": values[cdr == 0].tolist()}
    return Layout("OASIS-1", scans, "CDR", classes, notes)


def read_oasis2(path: Path, table: pd.DataFrame, names: list[str], plane: str) -> Layout:
    """AD = Demented, NC = Nondemented, Converted left out.

    Where a file holds one ready slice (axl, cor or sag in its name), plane chooses the files; with
    "all" every file counts, in the plane of its name.
    """
    planes = sorted(PLANES) if plane == "all" else [plane]
    ready = any(map(plane_named, names))
    chosen: dict[str | None, dict[str, str]] = {}
    for name in planes if ready else [None]:
        by_session = _by_session([file for file in names if plane_named(file) == name], OASIS2)
        if by_session or not ready:
            chosen[name] = by_session
    parts = []
    notes = [Note(f"Subject and session ids and classes come from {path.name}.", about="ids")]
    for name, by_session in chosen.items():
        part = table.assign(path=table["MRI ID"].map(by_session))
        without = int(part["path"].isna().sum())
        if without:
            verb = "has" if without == 1 else "have"
            what = f"{name or plane} scan" if name or plane != "all" else "scan"
            text = f"{counted(without, 'session')} of the table {verb} no {what}."
            notes.append(Note(text, about="left out"))
        part = part[part["path"].notna()]
        parts.append(part.assign(plane=name) if ready and plane == "all" else part)
    scans = pd.concat(parts) if parts else table.assign(path="").iloc[:0]
    notes += _note_rest(names, scans["path"], OASIS2)
    ids = scans["MRI ID"].str.extract(OASIS2)
    scans = scans.assign(subject_id=ids[0], session_id=ids[1])
    return Layout("OASIS-2", scans, "Group", DEFAULT, notes)


def _note_rest(names: list[str], taken: pd.Series, pattern: re.Pattern[str]) -> list[Note]:
    """Count the scans that are not taken: whose names hold no id, and the others."""
    rest = set(names) - set(taken)
    nameless = sum(pattern.search(name) is None for name in rest)
    texts = []
    if nameless:
        texts.append(f"Left out, as their names hold no session: {counted(nameless, 'scan')}.")
    if len(rest) > nameless:
        others = counted(len(rest) - nameless, "scan")
        texts.append(f"Not taken, of other processing or planes or without a row: {others}.")
    return [Note(text, about="left out") for text in texts]


def _processing(name: str) -> str:
    """Return the part of a name that says how far a scan of OASIS-1 is processed."""
    return next(part for part in PREFERRED if part in name)


def _by_session(names: list[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the first name of each session."""
    by_session: dict[str, str] = {}
    for name in names:
        match = pattern.search(name)
        if match is not None:
            by_session.setdefault(match[0], name)
    return by_session
