"""Heads that are in two cohorts, each with its own slices: by equal pixels, and by their folds."""

from collections.abc import Collection
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.auditing.audit import IDS
from headscope.auditing.duplicates import (
    FEWEST,
    LEAST_SIDE,
    MOST_LISTED,
    Matches,
    find_matches,
    number_scans,
)
from headscope.files import NO_ID
from headscope.record.evaluation import Overlap, SharedHead
from headscope.slicing.store import SliceSet
from headscope.threads import one_blas_thread

GONE: Final = (
    "The slices that trained the networks are no longer in the experiment: whether heads are in "
    "both cohorts is not known."
)
SMALL: Final = (
    f"Slices of fewer than {LEAST_SIDE} pixels are too small to recognise a head: only equal "
    "slices were looked for."
)
CUT: Final = "There were more likely pairs than could be compared: more heads may be in both."


class _Joined:
    """The pixels of two stores as one array that is read row by row."""

    def __init__(self, first: SliceSet, second: SliceSet) -> None:
        self._parts = first.pixels, second.pixels
        self.shape = (len(first.pixels) + len(second.pixels), *first.pixels.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "int | NDArray[np.intp]") -> NDArray[np.uint8]:
        numbers, border = np.asarray(rows), len(self._parts[0])
        if numbers.ndim:
            return np.stack([self[int(row)] for row in numbers])
        row = int(numbers)
        if row >= len(self):
            raise IndexError(row)
        return np.asarray(self._parts[row >= border][row - border * (row >= border)])


@one_blas_thread
def find_overlap(trained: SliceSet | None, new: SliceSet, trained_ids: Collection[str]) -> Overlap:
    """Return the heads and ids of a new cohort that are among those of an experiment.

    trained holds the experiment's slices, None where they are gone; trained_ids are its subjects.
    """
    scans = new.table.drop_duplicates(["scan", "subject_id", "session_id"])
    ids = {str(name) for name in scans["subject_id"]} - {NO_ID}
    same = tuple(sorted(ids & set(trained_ids)))
    counts = len(scans), len(ids)
    if trained is None:
        return Overlap(*counts, (), same, GONE)
    tables = [part.table[IDS].astype(str) for part in (trained, new)]
    numbers = [number_scans(table) for table in tables]
    old = int(numbers[0][-1]) + 1
    scan = np.concatenate([numbers[0], numbers[1] + old])
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    first = pd.concat(tables, ignore_index=True).iloc[starts]
    cohort = (np.arange(len(starts)) >= old).astype(int)
    named = [f"{side}/{name}" for side, name in zip(cohort, first["subject_id"], strict=True)]
    matches = find_matches(
        _Joined(trained, new),  # type: ignore[arg-type]
        scan,
        named,
        plane=_planes(trained, new, several=len(starts) - old >= FEWEST),
        cohort=cohort,
    )
    middles = starts + np.diff([*starts, len(scan)]) // 2
    heads = _heads(matches, first, middles, old, len(trained.pixels))
    note = CUT if matches.cut else "" if matches.compared else SMALL
    return Overlap(*counts, heads[:MOST_LISTED], same, note)


def _planes(trained: SliceSet, new: SliceSet, *, several: bool) -> NDArray[np.intp]:
    """Number the planes (N,) of the slices; a cohort of many scans has planes of its own.

    Then the mean slice that is taken from each, and the pixels that all share, are its cohort's.
    """
    names = np.concatenate([part.table["plane"].to_numpy(str) for part in (trained, new)])
    numbers = np.unique(names, return_inverse=True)[1].astype(np.intp)
    if several:
        numbers[len(trained.pixels) :] += numbers.max() + 1
    return numbers


def _heads(
    matches: Matches, first: pd.DataFrame, middles: NDArray[np.intp], old: int, border: int
) -> tuple[SharedHead, ...]:
    """Return the matches across the cohorts, each pair of scans once: the surest kind first."""
    pairs: dict[tuple[int, int], tuple[str, float]] = {}
    for members in matches.groups:
        here, there = ([n for n in members if (n < old) == side] for side in (True, False))
        pairs |= {(a, b): ("identical", 1.0) for a in here[:1] for b in there}
    for match in matches.pairs:
        if match.kind != "identical":
            pairs.setdefault((match.first, match.second), (match.kind, match.detail))
    for a, b in matches.shared:
        if a < old <= b:
            pairs.setdefault((a, b), ("shared", 1.0))
    columns = [first[name].to_numpy(str).tolist() for name in IDS]
    heads = []
    for (a, b), (kind, detail) in sorted(pairs.items(), key=lambda pair: -pair[1][1]):
        scans, subjects, sessions, labels = ((values[a], values[b]) for values in columns)
        rows = int(middles[a]), int(middles[b]) - border
        heads.append(SharedHead(kind, scans, subjects, sessions, labels, rows, round(detail, 4)))
    return tuple(heads)
