"""OASIS as it is distributed: OASIS-1 (Marcus et al. 2007) and OASIS-2 (Marcus et al. 2010)."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.ids import Found, plane_named
from headscope.cohort.tables import counted, numbers_in
from headscope.scans.volume import PLANES

PREFERRED: Final = ("_t88_masked_gfc.", "_t88_gfc.", "_sbj_", "_mpr-1_", "")  # parts of names
OASIS1: Final = re.compile(r"(OAS1_\d{4})_(MR\d)")


def is_oasis1(table: pd.DataFrame, names: list[str]) -> bool:
    """Say whether a table is that of OASIS-1 and the scans are too."""
    return {"ID", "CDR"} <= set(table.columns) and any(OASIS1.search(name) for name in names)


def is_oasis2(table: pd.DataFrame) -> bool:
    """Say whether a table is the demographic table of OASIS-2."""
    return {"MRI ID", "Group"} <= set(table.columns)


def oasis1(path: Path, table: pd.DataFrame, names: list[str]) -> Found:
    """AD = CDR above 0, NC = CDR 0; one scan a session, the masked, gain-field corrected average.

    The young, of whom no CDR was taken, have no value and so no class. A rescan within 90 days
    (MR2, for reliability) is a session of the same subject.
    """
    by_session = _best(names)
    matched = table["ID"].str.extract(OASIS1)
    scans = table.assign(
        path=table["ID"].map(by_session), subject_id=matched[0], session_id=matched[1]
    )
    without = scans["path"].isna()
    scans = scans[~without]
    unlisted = sorted(set(by_session) - set(table["ID"]))
    kinds = Counter(_kind(name) for name in scans["path"])
    taken = ", ".join(f"{kind.strip('_.')} ({n})" for kind, n in kinds.items() if kind)
    notes = [f"Subject and session ids and CDR come from {path.name}."]
    if taken:
        notes.append(f"Of the scans of a session the best processed is taken: {taken}.")
    if without.any():
        notes.append(f"Sessions of {path.name} without a scan: {without.sum()}.")
    if unlisted:
        sessions = counted(len(unlisted), "session")
        notes.append(f"Left out, as {path.name} has no row for them: {sessions}.")
    rescans = int((scans["session_id"] != "MR1").sum())
    if rescans:
        notes.append(f"{counted(rescans, 'rescan')} (MR2) count as sessions of the same subject.")
    cdr = numbers_in(scans["CDR"])
    values = dict(zip(scans["CDR"], cdr, strict=True))
    classes = {
        "AD": sorted(value for value, number in values.items() if number > 0),
        "NC": sorted(value for value, number in values.items() if number == 0),
    }
    return Found("OASIS-1", scans, "CDR", classes, notes)


def _best(names: list[str]) -> dict[str, str]:
    """Return the best processed scan of each session."""
    best: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (PREFERRED.index(_kind(name)), name)):
        match = OASIS1.search(name)
        if match is not None:
            best.setdefault(match[0], name)
    return best


def _kind(name: str) -> str:
    return next(part for part in PREFERRED if part in name)


def oasis2(path: Path, table: pd.DataFrame, names: list[str], plane: str) -> Found:
    """AD = Demented, NC = Nondemented, Converted left out.

    Where a file holds one ready slice (axl, cor or sag in its name), plane chooses the files; with
    "all" every file counts, in its own plane.
    """
    marked = {
        other: _by_session([name for name in names if plane_named(name) == other])
        for other in sorted(PLANES)
        if plane in (other, "all")
    }
    chosen: dict[str | None, dict[str, str]] = {name: held for name, held in marked.items() if held}
    ready = any(map(plane_named, names))
    if not ready:
        chosen = {None: _by_session(names)}
    parts = []
    notes = [f"Subject and session ids and classes come from {path.name}."]
    for other, by_session in chosen.items():
        part = table.assign(path=table["MRI ID"].map(by_session))
        without = int(part["path"].isna().sum())
        if without:
            verb = "has" if without == 1 else "have"
            what = f"{other or plane} scan" if other or plane != "all" else "scan"
            notes.append(f"{counted(without, 'session')} of the table {verb} no {what}.")
        part = part[part["path"].notna()]
        parts.append(part.assign(plane=other) if ready and plane == "all" else part)
    scans = pd.concat(parts) if parts else table.assign(path="").iloc[:0]
    scans = scans.assign(
        subject_id=scans["MRI ID"].str.extract(r"(OAS2_\d{4})", expand=False),
        session_id=scans["MRI ID"].str.extract(r"(MR\d+)", expand=False),
    )
    default = {"AD": ["Demented"], "NC": ["Nondemented"]}
    return Found("OASIS-2", scans, "Group", default, notes)


def _by_session(names: list[str]) -> dict[str, str]:
    by_session: dict[str, str] = {}
    for name in names:
        match = re.search(r"OAS2_\d{4}_MR\d+", name)
        if match is not None:
            by_session.setdefault(match[0], name)
    return by_session
