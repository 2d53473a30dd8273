"""Subjects by a pattern where a table has others, and what is odd about a cohort's subjects."""

from dataclasses import replace
from typing import Final

import pandas as pd

from headscope.cohort.pictures import subjects_by_pattern
from headscope.cohort.tables import counted, listed
from headscope.cohort.values import Layout, Note
from headscope.files import NO_ID

MANY_SCANS: Final = 20  # of one subject: more is rare, and more likely an id that is too short
MANY_PICTURES: Final = 1000


def apply_pattern(layout: Layout, pattern: str | None) -> Layout:
    """Return a layout with the subjects that a pattern finds in the paths, where one is given."""
    if pattern is None:
        return layout
    subjects = subjects_by_pattern(list(layout.scans["path"]), pattern)
    text = "Subject ids come from the pattern in the names, not from the layout."
    note = Note(text, about="ids")
    scans = layout.scans.assign(subject_id=subjects)
    return replace(layout, scans=scans, notes=[*layout.notes, note])


def odd_subjects(scans: pd.DataFrame, *, pictures: bool) -> list[Note]:
    """Say which subjects are in several classes or have very many files, and what else is odd."""
    notes: list[Note] = []
    values = set(scans["label"])
    folders = [values.intersection(path.split("/")[:-1]) for path in scans["path"]]
    pairs = zip(folders, scans["label"], scans["path"], strict=True)
    astray = [path for names, label, path in pairs if names and label not in names]
    if astray:
        verb = "is" if len(astray) == 1 else "are"
        text = f"{counted(len(astray), 'scan')} {verb} in a folder that has the name of another "
        notes += [Note(f"{text}class."), Note(f"The first of them is {astray[0]}.", names_ids=True)]
    scans = scans[scans["subject_id"] != NO_ID]
    classes = scans.groupby("subject_id")["label"].nunique()
    sizes = scans["subject_id"].value_counts()
    if several := int((classes > 1).sum()):
        subject = classes.index[classes > 1][0]
        names = sorted(scans.loc[scans["subject_id"] == subject, "label"].unique())
        verb = "is" if several == 1 else "are"
        text = f"{several} of {counted(len(classes), 'subject')} {verb} in several classes."
        notes.append(Note(text if len(classes) > 1 else "The subject is in several classes."))
        text = f"The first of them is {subject}, in {listed(names)}. If numbers begin again in "
        text += "each class, the id needs more of the name: --subject-pattern."
        notes.append(Note(text, names_ids=True))
    many = sizes[sizes > (MANY_PICTURES if pictures else MANY_SCANS)]
    what = "picture" if pictures else "scan"
    if len(many):
        verb = "has" if len(many) == 1 else "have"
        text = f"{counted(len(many), 'subject')} {verb} up to {counted(int(many.max()), what)}"
        notes.append(Note(f"{text}: is the id in the names longer (--subject-pattern)?"))
    if pictures and len(sizes) == len(scans) > 1:
        notes.append(Note(f"Each of the {len(scans)} pictures is of a subject of its own."))
    return notes
