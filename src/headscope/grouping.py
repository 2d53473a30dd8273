"""Slices taken together by scan, and subjects dealt to folds."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.files import NO_ID

BLOCK = 256  # scans that are averaged at once
KEYS = ["subject_id", "session_id", "label"]


class Scans(NamedTuple):
    """M scans of N slices: the scan of each slice (N,), and the first slice of each scan (M,)."""

    of_slice: NDArray[np.int64]
    first: NDArray[np.int64]

    def mean(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the mean of each scan, (M, D), of values (N, D), in their own precision."""
        order = np.argsort(self.of_slice, kind="stable")
        counts = np.bincount(self.of_slice)
        ends = np.cumsum(counts)
        precision = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
        means = np.empty((len(counts), *values.shape[1:]), dtype=precision)
        for start in range(0, len(counts), BLOCK):  # a copy of all would fill the memory
            part = slice(start, start + BLOCK)
            first = ends[part] - counts[part]
            rows = order[first[0] : ends[part][-1]]
            sums = np.add.reduceat(values[rows].astype(np.float64), first - first[0], axis=0)
            means[part] = sums / counts[part, None]
        return means


def scans_of(table: pd.DataFrame, subset: NDArray[Any]) -> Scans:
    """Return the scans of slices, in the order of a table of slices and within their subsets (N,).

    A scan is what one session of a subject has in one subset; where the subject is unknown, it is
    one file. Where a split by slice has slices of a session in several subsets, there is one scan
    in each, so that no mean holds slices of two subsets.
    """
    nameless = table["subject_id"].astype(str) == NO_ID
    file = table["scan"].astype(str).where(nameless, "") if nameless.any() else ""
    columns = table[KEYS].astype(str).assign(file=file, subset=np.asarray(subset, dtype=str))
    of_slice, _ = pd.factorize(pd.MultiIndex.from_frame(columns))
    return Scans(of_slice, np.unique(of_slice, return_index=True)[1])


def divided(table: pd.DataFrame, subset: NDArray[Any]) -> int:
    """Count the sessions of which several subsets have slices."""
    columns = table[KEYS].astype(str).assign(subset=np.asarray(subset, dtype=str))
    parts = columns[columns["subject_id"] != NO_ID].drop_duplicates()
    return int((parts.groupby(KEYS).size() > 1).sum())


def deal_folds(
    strata: NDArray[np.integer], folds: int, order: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return the fold of each unit (U,), from 0.

    Folds differ by one unit at most, in all and in each stratum: strata (U,) are dealt in ascending
    order, and dealing continues from one to the next. Within a stratum units are dealt in `order`,
    a permutation of all (U,).
    """
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order[np.argsort(strata[order], kind="stable")]] = np.arange(len(strata)) % folds
    return fold
