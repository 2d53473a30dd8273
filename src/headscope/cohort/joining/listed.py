"""Subjects from a table of paths, such as one that was inferred from pixels and then corrected."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.tables import check_subjects, counted, listed, read_any_table
from headscope.cohort.values import Layout, Note
from headscope.errors import InputError

INFERRED: Final = "inferred"  # what inferred ids begin with, and names of their partitions


def name_by_table(root: Path, layout: Layout, subjects: Path | str | None) -> Layout:
    """Return a layout with the subjects that a table names by path, where one is given.

    subjects: a table with the columns path (relative to `root`) and subject_id; "ids" or None keep
    those of the layout, and so does "inferred", with a note.
    """
    if subjects is None or str(subjects) == "ids":
        return layout
    notes = [note for note in layout.notes if note.about != "ids"]
    if str(subjects) == INFERRED:
        text = "Subjects are to be inferred from pixels: a run does so once slices are taken."
        return replace(layout, notes=[*notes, Note(text, about="ids")])
    path = Path(subjects)
    table = _read(path)
    ids = table.set_index("path")["subject_id"]
    names = layout.scans["path"].map(lambda name: Path(name).as_posix())
    others = sorted(set(ids.index) - set(names))
    strange = [name for name in others if not (root / name).exists()]
    if strange:
        raise InputError(
            f"{path} names {counted(len(strange), 'path')} that {root} does not hold, the first "
            f"{strange[0]!r}: paths are relative to that folder."
        )
    lacking = names[~names.isin(ids.index)]
    if len(lacking):
        raise InputError(
            f"{path} has no row for {counted(len(lacking), 'scan')} of {root}, the first "
            f"{lacking.iloc[0]!r}: every scan needs one."
        )
    matches = names.map(ids)
    text = f"Subject ids come from {path.name}: {counted(matches.nunique(), 'subject')}."
    notes.append(Note(text, about="ids"))
    inferred = matches[matches.str.startswith(f"{INFERRED}-")].nunique()
    if inferred:
        text = f"Of these {inferred} are named as they were inferred from pixels, not known."
        notes.append(Note(text, about="ids"))
    scans = layout.scans.assign(subject_id=matches)
    return replace(layout, scans=scans, notes=notes)


def _read(path: Path) -> pd.DataFrame:
    """Return a table of paths and subjects, each path once."""
    table = read_any_table(path)
    for column in ("path", "subject_id"):
        if column not in table.columns:
            raise InputError(f"{path} lacks the column {column!r}: it has {listed(table.columns)}.")
    check_subjects(path, "subject_id", table["subject_id"])
    table = table.assign(path=table["path"].map(lambda name: Path(name).as_posix()))
    twice = table.loc[table["path"].duplicated(), "path"]
    if len(twice):
        raise InputError(
            f"{path} names {counted(twice.nunique(), 'path')} twice, the first {twice.iloc[0]!r}: "
            "each has one row."
        )
    return table
