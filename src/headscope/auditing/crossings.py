"""What stands on both sides of a split all the same: subjects, heads under two ids, equal slices.

Each split file is asked for itself: what crosses one fold or one seed need not cross another.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headscope.audit_record import SplitCheck
from headscope.auditing.duplicates import Matches
from headscope.cohort.joining.listed import INFERRED
from headscope.cohort.selection import SUBSETS
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.splits.assign import KEYS
from headscope.splits.files import check_split_file, read_split_table

TRAIN, TEST = SUBSETS.index("train"), SUBSETS.index("test")
BITS = np.array([1 << k for k in range(len(SUBSETS))])  # a set of subsets as one number
SEVERAL = np.array([number.bit_count() > 1 for number in range(1 << len(SUBSETS))])

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Units:
    """The S scans of N slices: scan (N,) numbers them, unit (S,) is the subject that each shows.

    Where some name no subject, each scan is a unit of its own; subject (S,) keeps the subjects that
    are known.
    """

    scan: Index
    subject: Index
    unit: Index

    @property
    def count(self) -> int:
        """How many scans there are."""
        return len(self.unit)


def read_split(path: Path) -> pd.DataFrame:
    """Read a split: subject_id, subset, and, by slice, what else names a slice."""
    check_split_file(path)
    split = read_split_table(path)
    lacking = [name for name in ("subject_id", "subset") if name not in split.columns]
    if lacking:
        raise InputError(f"{path} is no split: it lacks the column {lacking[0]!r}.")
    return split


def find_subsets(table: pd.DataFrame, split: pd.DataFrame) -> Flags:
    """Return which of train, val and test each row of `table` is in (N, 3); several where it leaks.

    Rows that the split does not name are in none.
    """
    wanted = KEYS["slice" if "slice_index" in split.columns else "subject"]
    key = [name for name in wanted if name in split.columns]
    named = split.loc[split["subset"].isin(SUBSETS), [*key, "subset"]].drop_duplicates()
    rows = table[key].assign(row=np.arange(len(table))).merge(named, on=key)
    inside = np.zeros((len(table), len(SUBSETS)), dtype=bool)
    inside[rows["row"], pd.Index(SUBSETS).get_indexer(pd.Index(rows["subset"]))] = True
    return inside


def check_split(
    name: str, split: pd.DataFrame, inside: Flags, units: Units, matches: Matches
) -> SplitCheck:
    """Return what crosses a split; `inside` (N, 3) is `find_subsets` of its slices."""
    of_subject = split[split["subject_id"] != NO_ID].groupby("subject_id")["subset"].nunique()
    of_subject.index = of_subject.index.astype(str)
    of_scan = scan_subsets(inside, units)  # (S, 3)
    train, test = inside[:, TRAIN], inside[:, TEST]
    equal = np.isin(matches.picture, matches.picture[train & (matches.picture > 0)])
    return SplitCheck(
        name=name,
        unit="slice" if "slice_index" in split.columns else "subject",
        sha256=_sha256(inside),
        subjects=len(of_subject),
        shared=sorted(of_subject.index[of_subject > 1]),
        tested=len(np.unique(units.unit[of_scan[:, TEST]])),
        duplicated=_count_duplicated(of_scan, units, matches),
        test_slices=int(test.sum()),
        equal_slices=int((equal & test).sum()),
        crossing=_count_crossing(of_scan, matches),
        inferred=bool(len(of_subject)) and bool(of_subject.index.str.startswith(INFERRED).all()),
    )


def scan_subsets(inside: Flags, units: Units) -> Flags:
    """Return which subsets the slices of each scan are in (S, 3)."""
    of_scan = np.zeros((units.count, len(SUBSETS)), dtype=bool)
    np.logical_or.at(of_scan, units.scan, inside)
    return of_scan


def count_between(groups: Sequence[Sequence[int]], value: NDArray[Any]) -> int:
    """Return how many pairs within the groups differ in value (S,)."""
    total = 0
    for members in groups:
        sizes = np.unique(value[list(members)], return_counts=True)[1]
        total += (int(sizes.sum()) ** 2 - int((sizes**2).sum())) // 2
    return total


def join_duplicates(matches: Matches, subject: Index) -> Index:
    """Return a number (S,) for each scan, the same where subjects or duplicates connect two.

    Scans that are connected, if through others, have one number: they hold no evidence apart.
    matches: duplicates of every kind, single slices among them; subject (S,): that of each scan.
    """
    scans = np.arange(len(subject))
    first = np.unique(subject, return_index=True, return_inverse=True)[1:]
    links = [np.stack([scans, first[0][first[1]]], axis=1), *_pairs(matches).values()]
    links += [np.array([(members[0], scan) for scan in members]) for members in matches.groups]
    a, b = np.concatenate(links).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(scans), len(scans)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _sha256(inside: Flags) -> str:
    """Return what `run.toml` calls `split_sha256`, or nothing where a slice has no one subset."""
    if not (inside.sum(axis=1) == 1).all():
        return ""
    subsets = np.array(SUBSETS)[inside.argmax(axis=1)]
    return hashlib.sha256("\n".join(subsets.tolist()).encode()).hexdigest()


def _pairs(matches: Matches) -> dict[str, Index]:
    """Return the pairs (n, 2) of each kind but "identical", which come in groups."""
    pairs: dict[str, list[tuple[int, int]]] = {"copy": [], "alike": [], "shared": matches.shared}
    for match in matches.pairs:
        if match.kind in pairs:
            pairs[match.kind].append((match.first, match.second))
    return {kind: np.array(two, dtype=np.intp).reshape(-1, 2) for kind, two in pairs.items()}


def _count_crossing(of_scan: Flags, matches: Matches) -> dict[str, int]:
    """Count the pairs of each kind whose two scans are, taken together, in several subsets."""
    pattern = of_scan @ BITS  # (S,)
    identical = 0
    for members in matches.groups:
        numbers, sizes = np.unique(pattern[list(members)], return_counts=True)
        pairs = np.outer(sizes, sizes)
        np.fill_diagonal(pairs, sizes * (sizes - 1))
        identical += int(pairs[SEVERAL[np.bitwise_or.outer(numbers, numbers)]].sum()) // 2
    crossing = {"identical": identical}
    for kind, two in _pairs(matches).items():
        crossing[kind] = int(SEVERAL[pattern[two[:, 0]] | pattern[two[:, 1]]].sum())
    return crossing


def _count_duplicated(of_scan: Flags, units: Units, matches: Matches) -> int:
    """Count the tested units of which a duplicate under another id is in training."""
    train, test, subject = of_scan[:, TRAIN], of_scan[:, TEST], units.subject
    leaked: set[int] = set()
    for pairs in _pairs(matches).values():
        pairs = pairs[subject[pairs[:, 0]] != subject[pairs[:, 1]]]
        for first, second in (pairs.T, pairs.T[::-1]):
            leaked |= set(units.unit[first[test[first] & train[second]]].tolist())
    for group in matches.groups:
        members = np.array(group)
        trained = set(subject[members[train[members]]].tolist())
        tested = members[test[members]]
        leaked |= {int(units.unit[scan]) for scan in tested if trained - {subject[scan]}}
    return len(leaked)
