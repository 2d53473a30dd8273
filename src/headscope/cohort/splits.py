"""Which slices train, which choose, which judge: by subject (honest) or by slice (the paper's).

A split is a small TSV, written once, never overwritten and checked at every reading. By subject it
holds subject_id and subset; by slice subject_id, session_id, plane, slice_index and subset.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.files import read_table, write_table

SUBSETS: Final = ("train", "val", "test")
KEYS: Final = {
    "subject": ["subject_id"],
    "slice": ["subject_id", "session_id", "plane", "slice_index"],
}

Counts = tuple[int, int, int]


class LeakageError(InputError):
    """A subject stands in two subsets of a split by subject."""


def make_split(
    table: pd.DataFrame, *, kind: str, ratio: Sequence[float] = (5, 2, 3), seed: int = 0
) -> NDArray[np.str_]:
    """Return the subset of each of the N rows of `table`, stratified by class.

    kind "subject" keeps all sessions of a subject together, its stratum being its label, or its
    labels where they change between sessions; "slice" draws slices whatever subject they show.
    Every subset holds every class. Each class is divided to within one unit of `ratio`, and so is
    the whole wherever classes of three or four units leave room for it. Rows may come in any
    order: only the ids, the labels and the seed decide.

    Raises
    ------
    InputError
        A class has fewer than three subjects (or slices), or the ratio or kind is none.
    """
    units, row_unit = _units(table, kind)
    names = sorted(set(units))
    numbers = {name: number for number, name in enumerate(names)}
    strata = np.array([numbers[name] for name in units])
    sizes = np.bincount(strata).tolist()
    order = np.random.default_rng(seed).permutation(len(units))
    subset = np.empty(len(units), dtype="<U5")
    for stratum, count in enumerate(_subset_counts(names, sizes, _shares(ratio), kind)):
        subset[order[strata[order] == stratum]] = np.repeat(SUBSETS, count)
    return subset[row_unit]


def ensure_split(
    path: Path,
    table: pd.DataFrame,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
) -> NDArray[np.str_]:
    """Return the subset of each row by the split at `path`, which is made if it does not stand.

    Raises
    ------
    LeakageError
        The split is by subject and one stands in two subsets.
    InputError
        The file lacks rows of `table`, names an unknown subset, or leaves a subset without a class.
    """
    if not path.exists():
        subset = make_split(table, kind=kind, ratio=ratio, seed=seed)
        split = table[_key(kind)].assign(subset=subset).drop_duplicates()
        write_table(path, split.sort_values(_key(kind)))
    subset = _assigned(path, table, kind)
    _check_classes(path, table, subset)
    return subset


def _key(kind: str) -> list[str]:
    if kind not in KEYS:
        raise InputError(f"Split {kind!r} is none: choose {' or '.join(map(repr, KEYS))}.")
    return KEYS[kind]


def _shares(ratio: Sequence[float]) -> list[float]:
    shares = np.asarray(ratio, dtype=np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or shares.min() <= 0:
        text = ":".join(map(str, ratio))
        raise InputError(f"Ratio {text} is none: three positive numbers are needed, as in 5:2:3.")
    return (shares / shares.sum()).tolist()


def _units(table: pd.DataFrame, kind: str) -> tuple[list[tuple[str, ...]], NDArray[np.intp]]:
    """Return the labels of each unit, in the order of the keys, and the unit of each row."""
    keys = pd.MultiIndex.from_frame(table[_key(kind)].astype({"subject_id": str}))
    row_unit, unique = pd.factorize(keys, sort=True)
    if kind == "slice" and len(unique) < len(table):
        twice = table[table.duplicated(_key(kind))].iloc[0]
        raise InputError(
            f"Slice {twice['slice_index']} of subject {twice['subject_id']}, session "
            f"{twice['session_id']}, stands twice in the table of slices."
        )
    labels: list[set[str]] = [set() for _ in unique]
    for unit, label in zip(row_unit, table["label"], strict=True):
        labels[unit].add(str(label))
    return [tuple(sorted(names)) for names in labels], row_unit


def _subset_counts(
    strata: list[tuple[str, ...]], sizes: list[int], shares: list[float], kind: str
) -> list[Counts]:
    """Divide strata of given sizes among the subsets: one (train, val, test) a stratum.

    Each count is the floor or the ceiling of its exact quota. Of all such tables the one whose
    totals come nearest to the ratio is taken, then the one of least squares, found stratum by
    stratum over the totals reached so far.
    """
    _check_sizes(strata, sizes, kind)
    best: dict[Counts, tuple[float, list[Counts]]] = {(0, 0, 0): (0.0, [])}
    for size in sizes:
        quota = [size * share for share in shares]
        reached: dict[Counts, tuple[float, list[Counts]]] = {}
        for total, (cost, chosen) in best.items():
            for counts in _choices(size, quota):
                spent = cost + sum((n - q) ** 2 for n, q in zip(counts, quota, strict=True))
                after = (total[0] + counts[0], total[1] + counts[1], total[2] + counts[2])
                candidate = (round(spent, 9), [*chosen, counts])
                reached[after] = min(reached.get(after, candidate), candidate)
        best = reached
    goal = [sum(sizes) * share for share in shares]
    nearest = min((math.dist(total, goal), *found) for total, found in best.items())
    _check_cover(strata, nearest[-1], kind)
    return nearest[-1]


def _choices(size: int, quota: list[float]) -> list[Counts]:
    """Return the ways to divide one stratum; of three or more units every subset gets one."""
    least = 1 if size >= len(SUBSETS) else 0
    bounds = [{max(math.floor(q), least), max(math.ceil(q), least)} for q in quota]
    ways = [(a, b, size - a - b) for a in bounds[0] for b in bounds[1] if size - a - b in bounds[2]]
    if ways:
        return sorted(ways)
    # a ratio such as 98:1:1 of few units: two subsets get their one, the largest what is left
    counts = [least] * 3
    counts[quota.index(max(quota))] += size - 3 * least
    return [(counts[0], counts[1], counts[2])]


def _check_cover(strata: list[tuple[str, ...]], counts: list[Counts], kind: str) -> None:
    for name in sorted({label for stratum in strata for label in stratum}):
        rows = [count for stratum, count in zip(strata, counts, strict=True) if name in stratum]
        if min(map(sum, zip(*rows, strict=True))) == 0:
            raise InputError(
                f"Too few {kind}s hold the class {name} alone to give some to each of train, val "
                "and test: add some, or leave the class out with 'classes'."
            )


def _check_sizes(strata: list[tuple[str, ...]], sizes: list[int], kind: str) -> None:
    held: Counter[str] = Counter()
    for stratum, size in zip(strata, sizes, strict=True):
        held.update(dict.fromkeys(stratum, size))
    if min(held.values()) < len(SUBSETS):
        have = ", ".join(f"{held[name]} of {name}" for name in sorted(held))
        raise InputError(
            f"A split by {kind} into train, val and test needs at least 3 {kind}s of each class, "
            f"and there are {have}: add {kind}s, or leave a small class out with 'classes'."
        )


def _assigned(path: Path, table: pd.DataFrame, kind: str) -> NDArray[np.str_]:
    """Read the split and look up each row of the table in it."""
    key = _key(kind)
    try:
        split = read_table(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path} is no split: {str(error).rstrip('.')}.") from error
    lacking = [name for name in [*key, "subset"] if name not in split.columns]
    if lacking:
        raise InputError(f"{path} is no split by {kind}: it lacks the column {lacking[0]!r}.")
    unknown = sorted(set(split["subset"].astype(str)) - set(SUBSETS))
    if unknown:
        raise InputError(f"{path} names the subset {unknown[0]!r}; valid are train, val and test.")
    split = split[[*key, "subset"]].drop_duplicates()
    twice = sorted({str(name) for name in split.loc[split.duplicated(key), "subject_id"]})
    if twice and kind == "subject":
        raise LeakageError(
            f"{path} leaks: {_some(twice)} stand{'s' if len(twice) == 1 else ''} in two subsets."
        )
    if twice:
        raise InputError(f"{path} puts one slice in two subsets: see subject {twice[0]}.")
    merged = table[key].merge(split, on=key, how="left", validate="many_to_one")
    missing = merged["subset"].isna()
    if missing.any():
        raise InputError(
            f"{path} does not cover {missing.sum()} of {len(table)} slices, the first of subject "
            f"{table.loc[missing.to_numpy(), 'subject_id'].iloc[0]}: it was made for other data."
        )
    return merged["subset"].to_numpy(dtype="<U5")


def _check_classes(path: Path, table: pd.DataFrame, subset: NDArray[np.str_]) -> None:
    labels = table["label"].to_numpy()
    for name in SUBSETS:
        lacking = sorted(set(labels) - set(labels[subset == name]))
        if lacking:
            raise InputError(f"{path} leaves the subset {name} without the class {lacking[0]!r}.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
