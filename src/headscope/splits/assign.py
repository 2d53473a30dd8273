"""How subjects (or slices) are dealt to train, val and test: by ratio, in folds, or balanced."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.splits.balance import balance_of

SUBSETS: Final = ("train", "val", "test")
KEYS: Final = {
    "subject": ["subject_id"],
    "slice": ["subject_id", "session_id", "plane", "slice_index"],
}
CANDIDATES: Final = 200  # splits among which the best balanced is chosen

Counts = tuple[int, int, int]


def make_split(
    table: pd.DataFrame,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
    covariates: pd.DataFrame | None = None,
) -> NDArray[np.str_]:
    """Return the subset of each of the N rows of `table`, stratified by class.

    kind "subject" keeps all sessions of a subject together, its stratum being its label, or its
    labels where they change between sessions; "slice" draws slices whatever subject they show.
    Every subset holds every class. Each class is divided to within one unit of `ratio`, and so is
    the whole wherever classes of three or four units leave room for it. Rows may come in any
    order: only the ids, the labels and the seed decide.

    covariates (subject_id and further columns, such as Age and Sex) balance a split by subject: of
    200 splits that the seed leads to, that is returned whose smallest p-value is largest, for the
    hypothesis that a column does not differ between the subsets.

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
    counts = _subset_counts(names, sizes, _shares(ratio), kind)
    if covariates is None:
        return _dealt(strata, counts, np.random.default_rng(seed))[row_unit]
    if kind != "subject":
        raise InputError("Only a split by subject can be balanced: a slice has no age of its own.")
    subjects = table.iloc[np.unique(row_unit, return_index=True)[1]]  # a row a unit
    draws = [_dealt(strata, counts, np.random.default_rng([seed, n])) for n in range(CANDIDATES)]
    smallest = [balance_of(subjects, subset, covariates)["p"].min() for subset in draws]
    return draws[int(np.argmax(smallest))][row_unit]


def make_fold(
    table: pd.DataFrame,
    fold: int,
    folds: int,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
) -> NDArray[np.str_]:
    """Return the subset of each row where fold `fold` of `folds`, counted from 0, is the test.

    Folds are stratified by class and keep all sessions of a subject together; each subject is
    tested once. Of the rest, as many validate as `ratio` says of train to val.

    Raises
    ------
    InputError
        A class has too few subjects (or slices) for every subset of every fold.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"Fold {fold} of {folds} is none: folds are 2 or more, counted from 0.")
    units, row_unit = _units(table, kind)
    names = sorted(set(units))
    train, val, _ = _shares(ratio)
    number = np.empty(len(units), dtype=np.int64)
    subset = np.full(len(units), "train", dtype="<U5")
    order = np.random.default_rng(seed).permutation(len(units))
    dealt, wanted, taken = 0, 0.0, 0
    for name in names:
        own = order[[units[unit] == name for unit in order]]
        number[own] = (dealt + np.arange(len(own))) % folds  # goes round, so folds grow evenly
        dealt += len(own)
        rest = own[number[own] != fold]
        wanted += len(rest) * val / (train + val)
        size = min(max(round(wanted - taken), 1), max(len(rest) - 1, 0))
        subset[np.random.default_rng([seed, fold]).permutation(rest)[:size]] = "val"
        taken += size
    subset[number == fold] = "test"
    for label in sorted({label for name in names for label in name}):
        held = {part for part, name in zip(subset, units, strict=True) if label in name}
        if len(held) < len(SUBSETS):
            have = sum(label in name for name in units)
            raise InputError(
                f"{folds} folds by {kind} need at least {folds if folds > 2 else 4} {kind}s of "
                f"each class, and there are {have} of {label}: ask for fewer folds."
            )
    return subset[row_unit]


def _dealt(
    strata: NDArray[np.intp], counts: list[Counts], rng: np.random.Generator
) -> NDArray[np.str_]:
    """Deal the units of each stratum to the subsets by chance, so many to each."""
    order = rng.permutation(len(strata))
    subset = np.empty(len(strata), dtype="<U5")
    for stratum, count in enumerate(counts):
        subset[order[strata[order] == stratum]] = np.repeat(SUBSETS, count)
    return subset


def key_of(kind: str) -> list[str]:
    """Return the columns that name a unit: a subject, or a slice."""
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
    keys = pd.MultiIndex.from_frame(table[key_of(kind)].astype({"subject_id": str}))
    row_unit, unique = pd.factorize(keys, sort=True)
    if kind == "slice" and len(unique) < len(table):
        twice = table[table.duplicated(key_of(kind))].iloc[0]
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
