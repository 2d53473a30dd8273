"""Subjects inferred from pixels: their table beside the slices, and slices under their ids.

    subjects/subjects.tsv    one row per scan: path, label, subject_id, the partitions, partner, …
    subjects/subjects.json   the slices and thresholds that they are of

Names and tables say nothing of these subjects: a strict and a loose threshold give two answers.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.joining.listed import INFERRED
from headscope.errors import InputError
from headscope.files import json_text, read_table, write_table
from headscope.manifest import DAMAGE, check_file, reason_of, write_last
from headscope.slicing.store import SliceSet

PARTITIONS: Final = ("strict", "loose")  # columns of the table; more links make larger groups
FOLDER: Final = "subjects"
SLICE: Final = ["subject_id", "session_id", "plane", "slice_index"]

Sets = Mapping[str | None, SliceSet]


def write_inferred(experiment: Path, subjects: pd.DataFrame, facts: Mapping[str, Any]) -> None:
    """Write the table of inferred subjects, then what it was made from."""
    folder = experiment / FOLDER
    write_table(folder / "subjects.tsv", subjects)
    write_last(folder / "subjects.json", json_text(dict(facts)), ["subjects.tsv"])


def read_inferred(experiment: Path, facts: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return inferred subjects, None without these facts; InputError where they have changed."""
    folder = experiment / FOLDER
    if not (folder / "subjects.json").is_file():
        return None
    try:
        stored = json.loads((folder / "subjects.json").read_text(encoding="utf-8"))
        for name in ("subjects.json", "subjects.tsv"):
            check_file(folder / name)
        table = read_table(folder / "subjects.tsv")
    except DAMAGE as error:
        raise InputError(
            f"{folder} is damaged ({reason_of(error)}): delete it, and subjects are inferred again."
        ) from None
    if not facts.items() <= stored.items():
        return None
    table.attrs.update({name: stored[name] for name in PARTITIONS if name in stored})
    return table


def under_inferred(slices: SliceSet, subjects: pd.DataFrame) -> dict[str | None, SliceSet]:
    """Return the slices under the ids of each partition, by its name: "inferred-strict", …."""
    return {f"{INFERRED}-{name}": _under(slices, subjects, name) for name in PARTITIONS}


def sets_of(experiment: Path, slices: SliceSet) -> dict[str | None, SliceSet]:
    """Return the slices under their ids (None), and under inferred ones where there are any."""
    subjects = read_inferred(experiment, {"slices_sha256": slices.sha256})
    return {None: slices} | ({} if subjects is None else under_inferred(slices, subjects))


def set_of_split(sets: Sets, path: Path) -> SliceSet:
    """Return the slices under the ids that a split names; what is no split names ours."""
    if len(sets) > 1:
        try:
            names = set(read_table(path)["subject_id"].astype(str))
        except DAMAGE:
            names = set()
        for name, part in sets.items():
            if name and names & set(part.table["subject_id"]):
                return part
    return sets[None]


def _under(slices: SliceSet, subjects: pd.DataFrame, partition: str) -> SliceSet:
    """Return slices whose table names the subjects of a partition.

    Sessions are numbered by scan where slices of one subject would else be taken for one another.
    """
    ids = subjects.drop_duplicates("path").set_index("path")[partition]
    table = slices.table.assign(subject_id=slices.table["scan"].map(ids))
    if table.duplicated(SLICE).any():
        numbers = pd.factorize(table["scan"])[0]
        width = len(str(numbers.max(initial=0)))
        table["session_id"] = [f"scan-{number:0{width}}" for number in np.asarray(numbers)]
    part = replace(slices)
    vars(part)["table"] = table  # in place of what is read from slices.tsv
    return part
