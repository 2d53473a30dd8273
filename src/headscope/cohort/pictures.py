"""Ready-made pictures of slices in folders: which there are, and whom their names show."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from headscope.cohort.ids import SUBJECT
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.volume import walk_files

if TYPE_CHECKING:
    import pandas as pd

PICTURES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
NO_IDS: Final = (
    "The names of the pictures hold no known form of subject id: nobody knows which of them show "
    "one person. Say where the id stands with --subject-pattern, as in '^(sub-[0-9]+)'."
)


def is_picture(name: str) -> bool:
    """Say whether a file is a picture, by its suffix."""
    return name.lower().endswith(PICTURES)


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures below `folder`, sorted; hidden files and folders are passed over."""
    found: list[Path] = []
    locked: list[Path] = []
    for place, files in walk_files(folder, locked):
        found += [place / name for name in files if is_picture(name)]
    return sorted(found + locked) if found else []


def subjects_in(
    names: Sequence[str], pattern: str | None, *, pictures: bool
) -> tuple[list[str], str] | None:
    """Return the subject id of each name by `pattern`, and where the ids come from.

    Without a pattern, pictures take the known forms of ids where every name holds one; else none
    is known, for a file's own name is no subject: all of them are `NO_ID`. For scans None says
    that no pattern was given.

    Raises
    ------
    InputError
        The pattern is none, or a name does not match it.
    """
    if pattern is not None:
        return _matched(names, pattern), "the pattern in the names"
    if not pictures:
        return None
    known = [SUBJECT.search(name) for name in names]
    if all(known):
        return [match[0] for match in known if match], "the ids in the names"
    return [NO_ID] * len(names), ""


def number_pictures(scans: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table of pictures with `slice_index`: the last number of each name.

    Where such numbers are lacking or repeat within a subject and session, its pictures are
    numbered in their order.
    """
    numbers = [_last_number(path) for path in scans["path"]]
    place = scans.assign(place=[-1 if n is None else n for n in numbers])["place"]
    order = scans.assign(place=place).sort_values(["place", "path"]).index
    index = place.copy()
    keys = [name for name in ("subject_id", "session_id", "plane") if name in scans.columns]
    for _, rows in scans.loc[order].groupby(keys, sort=False):
        own = place[rows.index]
        if own.duplicated().any() or (own < 0).any():
            index[rows.index] = np.arange(len(rows))
    return scans.assign(slice_index=index.astype(np.int64))


def _matched(names: Sequence[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--subject-pattern {pattern!r} is no regular expression: {error}."
        ) from None
    found = [compiled.search(name) for name in names]
    subjects = ["" if m is None else m[min(compiled.groups, 1)] or "" for m in found]
    if not all(subjects):
        without = subjects.count("")
        raise InputError(
            f"--subject-pattern {pattern!r} finds no id in {without} of {len(names)} names, the "
            f"first {names[subjects.index('')]!r}."
        )
    return subjects


def _last_number(name: str) -> int | None:
    match = re.search(r"(\d{1,9})\D{0,2}$", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return None if match is None else int(match[1])
