"""Ready pictures of slices: the subjects in their names, and their numbers."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from headscope.cohort.ids import SUBJECT
from headscope.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NO_IDS: Final = (
    "The names of the pictures hold no known form of subject id, so it is unknown which of them "
    "show the same subject. Say where the id is with --subject-pattern, as in '^(sub-[0-9]+)'; "
    "give a table of path and subject_id with --subjects; infer subjects from pixels with "
    "--subjects inferred (headscope audit --write-subjects shows them first); or take a partition "
    "as it is with --splits given."
)


def subjects_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """Return the subject id in each name: the first group of a pattern, or all that it matches."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--subject-pattern {pattern!r} is no regular expression: {error}."
        ) from None
    matches = [compiled.search(name) for name in names]
    subjects = ["" if m is None else m[min(compiled.groups, 1)] or "" for m in matches]
    if not all(subjects):
        raise InputError(
            f"--subject-pattern {pattern!r} finds no id in {subjects.count('')} of {len(names)} "
            f"names, the first {names[subjects.index('')]!r}."
        )
    return subjects


def subjects_in(names: Sequence[str]) -> list[str] | None:
    """Return the subject id in each picture's name, where every name holds one of a known form.

    Otherwise None: unlike that of a scan, a picture's whole name names no subject.
    """
    matches = [SUBJECT.search(name) for name in names]
    return [match[0] for match in matches if match] if all(matches) else None


def number_pictures(scans: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table of pictures with `slice_index`: the last number of each name.

    Where such numbers are lacking or repeat within a subject and session, its pictures are
    numbered in their order.
    """
    place = scans["path"].map(_last_number)
    order = scans.assign(place=place).sort_values(["place", "path"]).index
    index = place.copy()
    keys = [name for name in ("subject_id", "session_id", "plane") if name in scans.columns]
    for _, group in scans.loc[order].groupby(keys, sort=False):
        numbers = place[group.index]
        if numbers.duplicated().any() or (numbers < 0).any():
            index[group.index] = np.arange(len(group))
    return scans.assign(slice_index=index.astype(np.int64))


def _last_number(name: str) -> int:
    """Return the last number of a file's name, or -1."""
    match = re.search(r"(\d{1,9})\D{0,2}$", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return -1 if match is None else int(match[1])
