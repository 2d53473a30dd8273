"""The ids of subjects and sessions in the names of files."""

import re
from collections.abc import Iterable
from typing import Final

import pandas as pd

ID: Final = "id of the participant"
# a folder may bear hyphens (sub-HC-01/), and so may words with a number; sub-01-3 is a part of 01
SUBJECT: Final = re.compile(
    r"((?<![^/])sub-[A-Za-z0-9-]+(?=/)|sub-[A-Za-z]+-\d+(?![A-Za-z0-9])|sub-[A-Za-z0-9]+"
    r"|OAS[1-4]_?\d{4,5}|\d{3}_S_\d{4,5}"
    r"|(?<![A-Za-z0-9])(?:TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}|IXI\d{3}|PPMI_\d{4,6}|AIBL_\d+"
    r"|NACC\d{6}|BraTS2021_\d{5}|BraTS20_[TV][a-z]+_\d{3}|BraTS-[A-Z]{2,4}-\d{5})(?![A-Za-z0-9]))"
)
SESSION: Final = re.compile(
    r"(?:^|[_/-])(ses-[A-Za-z0-9]+|MR\d+|d\d{4}|visit-?[A-Za-z0-9]+)(?=[_/.-]|$)"
)
# a visit, repeat or date at the end of a name: P001_m12, P001_baseline, P001_2010-01-31
VISIT: Final = re.compile(
    r"(?:[_-](?:(?:ses|session|scan|run|visit|v|tp|timepoint|month|year|fu|follow-?up)[_-]?\d{1,3}"
    r"|bl|sc|baseline|screening|follow-?up|fu|pre|post|m(?:0[369]|12|18|[2-9][0468]|1[0-4][0-9])"
    r"|(?:19|20)\d\d([-_.]?)[01]\d\1[0-3]\d))+$",
    re.IGNORECASE,
)
SUFFIX: Final = re.compile(r"\.(nii|hdr|mgh|mgz|dcm|ima)(\.gz)?$", re.IGNORECASE)
BY_NAME: Final = "the ids in the names"
BY_FOLDER: Final = "the folders inside the classes"
BY_FILE: Final = "the whole file name"


def subject_of(name: str, *, nested: bool) -> tuple[str, str]:
    """Return the subject that a path names, and which part of the path names it."""
    match = SUBJECT.search(name)
    if match is not None:
        return match[0], BY_NAME
    if nested and "/" in name:
        return name.split("/", 1)[0], BY_FOLDER
    stem = SUFFIX.sub("", name.rsplit("/", 1)[-1])
    session = SESSION.search(stem)
    if session is None:
        visit = VISIT.search(stem)
        session = visit if visit and re.search(r"\d", stem[: visit.start()]) else None
    if session is not None and session.start() > 0:
        return stem[: session.start()], "the names up to the session"
    return stem, BY_FILE


def session_of(name: str) -> str:
    """Return the session that a path names, or "1"."""
    match = SESSION.search(name)
    return match[1] if match is not None else "1"


def id_twins(ids: Iterable[str]) -> list[str]:
    """Say which ids of subjects differ in case or leading zeros alone: one subject perhaps."""
    return name_twins(ids, "subjects", r"(?<!\d)0+(?=\d)", " or leading zeros")


def name_twins(values: Iterable[str], what: str, pattern: str, means: str) -> list[str]:
    """Say which names differ in case, or in what a pattern means, alone: one perhaps."""
    names = pd.Series(sorted(values), dtype=str)
    written = names.str.casefold()
    bare = written.str.replace(pattern, "", regex=True)
    alike = names[bare.duplicated(keep=False) & bare.ne("")]
    if alike.empty:
        return []
    twins = alike[bare[alike.index] == bare[alike.index[0]]]
    how = "upper and lower case"
    if not written[alike.index].duplicated(keep=False).all():
        how += means
    return [
        f"{len(alike)} {what} differ in {how} alone and count as "
        f"{len(alike)}, the first {' and '.join(twins)}."
    ]
