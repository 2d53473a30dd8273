"""How subjects (or slices) are assigned to train, val and test: by ratio, in folds, or balanced."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.selection import SUBSETS
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.grouping import deal_folds
from headscope.splits.balance import smallest_p

KEYS: Final = {
    "subject": ["subject_id"],
    "slice": ["subject_id", "session_id", "plane", "slice_index"],
}
CANDIDATES: Final = 200  # splits among which the best balanced is chosen

Counts = tuple[int, ...]  # of train, val and test
Stratum = tuple[str, ...]  # the label of a unit, or its labels where they change


def make_split(
    table: pd.DataFrame,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
    covariates: pd.DataFrame | None = None,
) -> NDArray[np.str_]:
    """Assign each row of a table of slices or scans to train, val or test, stratified by class.

    Every subset holds every class. Each class is divided to within one unit of `ratio`, and so is
    the whole wherever classes of three or four units leave room for it. The order of the rows does
    not matter: only the ids, the labels and the seed decide.

    Parameters
    ----------
    table
        One row per slice or scan (N): the ids and label.
    kind
        "subject" keeps all sessions of a subject together; its stratum is its label, or its labels
        where they change between sessions. "slice" assigns slices regardless of their subject.
    ratio
        Of train, val and test.
    seed
        Of the generator.
    covariates
        subject_id and further columns, such as Age and Sex, which balance a split by subject: of
        200 splits that the seed leads to, the one is returned whose smallest p-value is largest,
        for the hypothesis that a column does not differ between the subsets (`balance_of`).

    Returns
    -------
    numpy.ndarray
        The subset of each row (N,).
    """
    names, strata, row_unit = _units(table, kind)
    sizes, shares = np.bincount(strata), _shares(ratio)
    have = _by_label(names, sizes)
    if min(have.values()) < len(SUBSETS):
        text = ", ".join(f"{count} of {label}" for label, count in have.items())
        raise InputError(
            f"A split by {kind} into train, val and test needs at least 3 {kind}s of each class, "
            f"and there are {text}: add {kind}s, or leave a small class out with 'classes'."
        )
    counts = _subset_counts(sizes.tolist(), shares)
    for label, count in _by_label(names, np.array(counts)).items():
        if count.min() == 0:
            raise InputError(
                f"Too few {kind}s hold the class {label} alone to give some to each of train, val "
                "and test: add some, or leave the class out with 'classes'."
            )
    if covariates is None:
        return _draw(strata, counts, np.random.default_rng(seed))[row_unit]
    if kind != "subject":
        raise InputError("Only a split by subject can be balanced: slices have no covariates.")
    subjects = table.iloc[np.unique(row_unit, return_index=True)[1]]  # one row per unit
    draws = [_draw(strata, counts, np.random.default_rng([seed, n])) for n in range(CANDIDATES)]
    return draws[int(np.argmax(smallest_p(subjects, draws, covariates)))][row_unit]


def make_fold(
    table: pd.DataFrame,
    fold: int,
    folds: int,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
) -> NDArray[np.str_]:
    """Assign each row (N,) to train, val or test, where fold `fold` of `folds` is the test.

    Folds count from 0, are stratified by class and keep all sessions of a subject together; each
    subject is tested once. `ratio` of train to val divides the rest. Else as `make_split`.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"Unknown fold {fold} of {folds}: folds are 2 or more, counted from 0.")
    names, strata, row_unit = _units(table, kind)
    train, val, _ = _shares(ratio)
    order = np.random.default_rng(seed).permutation(len(strata))
    tested = deal_folds(strata, folds, order) == fold
    subset = np.where(tested, "test", "train")
    share = val / (train + val)
    subset[_draw_validation(strata, order[~tested[order]], share, [seed, fold])] = "val"
    counts = [[np.sum(subset[strata == n] == name) for name in SUBSETS] for n in range(len(names))]
    for label, count in _by_label(names, np.array(counts)).items():
        if count.min() == 0:
            raise InputError(
                f"{folds} folds by {kind} need at least {folds if folds > 2 else 4} {kind}s of "
                f"each class, and there are {count.sum()} of {label}: ask for fewer folds."
            )
    return subset[row_unit]


def complete_given(
    table: pd.DataFrame, given: NDArray[Any], *, ratio: Sequence[float] = (5, 2, 3), seed: int = 0
) -> NDArray[np.str_]:
    """Return a given partition (N,) with a validation subset, which is drawn where it has none.

    Validation is drawn from the subjects of training (from its slices where these name none),
    stratified by class, in the proportion of train to val in `ratio`.
    """
    subset = np.array([str(name or "") for name in given], dtype="<U5")
    lacking = [name for name in ("train", "test") if name not in subset]
    if lacking or not np.isin(subset, SUBSETS).all():
        without = int((~np.isin(subset, SUBSETS)).sum())
        reason = f"no folder names the subset {lacking[0]}" if lacking else f"{without} have none"
        raise InputError(
            f"--splits given needs folders train and test (and perhaps val) that hold all scans, "
            f"or a --split-file with path and subset: {reason}. --splits subject assigns subjects "
            "by --ratio."
        )
    if "val" in subset:
        return subset
    rows = np.flatnonzero(subset == "train")
    training = table.iloc[rows]
    kind = "slice" if (training["subject_id"] == NO_ID).any() else "subject"
    keys = training
    if not set(KEYS[kind]) <= set(training):  # scans that are not sliced yet
        keys = training.assign(plane="axial", slice_index=np.arange(len(training)))
    names, strata, row_unit = _units(keys, kind)
    few = [name for name, count in _by_label(names, np.bincount(strata)).items() if count < 2]
    if few:
        raise InputError(
            f"No validation can be drawn from the given training subset: its class "
            f"{few[0]} has one {kind} only. Add a folder val."
        )
    train, val, _ = _shares(ratio)
    order = np.random.default_rng(seed).permutation(len(strata))
    drawn = np.zeros(len(strata), dtype=bool)
    drawn[_draw_validation(strata, order, val / (train + val), [seed])] = True
    subset[rows[drawn[row_unit]]] = "val"
    return subset


def _draw_validation(
    strata: NDArray[np.int64], order: NDArray[np.int64], share: float, seed: list[int]
) -> NDArray[np.int64]:
    """Return a share of the units in `order`, stratified: at least one of each and never all."""
    drawn: list[NDArray[np.int64]] = []
    wanted, taken = 0.0, 0  # over the strata so far: what rounding left is made up later
    for stratum in range(int(strata.max()) + 1):
        rest = order[strata[order] == stratum]
        wanted += len(rest) * share
        size = min(max(round(wanted - taken), 1), max(len(rest) - 1, 0))
        drawn.append(np.random.default_rng(seed).permutation(rest)[:size])
        taken += size
    return np.concatenate(drawn)


def key_of(kind: str) -> list[str]:
    """Return the columns that name a unit: a subject, or a slice."""
    if kind not in KEYS:
        raise InputError(f"Unknown split {kind!r}: choose {' or '.join(map(repr, KEYS))}.")
    return KEYS[kind]


def _draw(
    strata: NDArray[np.int64], counts: list[Counts], rng: np.random.Generator
) -> NDArray[np.str_]:
    """Draw which units of each stratum go to each subset, so many to each."""
    order = rng.permutation(len(strata))
    subset = np.empty(len(strata), dtype="<U5")
    for stratum, count in enumerate(counts):
        subset[order[strata[order] == stratum]] = np.repeat(SUBSETS, count)
    return subset


def _shares(ratio: Sequence[float]) -> list[float]:
    """Return the ratio as shares of 1."""
    shares = np.asarray(ratio, dtype=np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or shares.min() <= 0:
        text = ":".join(map(str, ratio))
        raise InputError(f"The ratio {text} must be three positive numbers, as in 5:2:3.")
    return (shares / shares.sum()).tolist()


def _units(
    table: pd.DataFrame, kind: str
) -> tuple[list[Stratum], NDArray[np.int64], NDArray[np.intp]]:
    """Return the strata, that of each unit in the order of the keys, and the unit of each row."""
    keys = pd.MultiIndex.from_frame(table[key_of(kind)].astype({"subject_id": str}))
    row_unit, unique = pd.factorize(keys, sort=True)
    if kind == "slice" and len(unique) < len(table):
        twice = table[table.duplicated(key_of(kind))].iloc[0]
        raise InputError(
            f"Slice {twice['slice_index']} of subject {twice['subject_id']}, session "
            f"{twice['session_id']}, is in the table of slices twice."
        )
    labels: list[set[str]] = [set() for _ in unique]
    for unit, label in zip(row_unit, table["label"], strict=True):
        labels[unit].add(str(label))
    units = [tuple(sorted(names)) for names in labels]
    names = sorted(set(units))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[name] for name in units]), row_unit


def _subset_counts(sizes: list[int], shares: list[float]) -> list[Counts]:
    """Divide strata of given sizes among the subsets: (train, val, test) for each.

    Each count is the floor or the ceiling of its exact quota. Of all such tables the one is taken
    whose totals are nearest to the ratio, and of those the one of least squares. The table grows
    stratum by stratum; of the ways to the same totals only the best can be part of it.
    """
    best: dict[Counts, tuple[float, list[Counts]]] = {(0, 0, 0): (0.0, [])}
    for size in sizes:
        quota = [size * share for share in shares]
        reached: dict[Counts, tuple[float, list[Counts]]] = {}
        for (total, (cost, chosen)), counts in product(best.items(), _choices(size, quota)):
            after = tuple(a + b for a, b in zip(total, counts, strict=True))
            way = (round(cost + math.dist(counts, quota) ** 2, 9), [*chosen, counts])
            reached[after] = min(reached.get(after, way), way)
        best = reached
    goal = [sum(sizes) * share for share in shares]
    return min((math.dist(total, goal), *way) for total, way in best.items())[-1]


def _choices(size: int, quota: list[float]) -> list[Counts]:
    """Return the ways to divide one stratum; of three or more units every subset gets one."""
    least = 1 if size >= len(SUBSETS) else 0
    bounds = [{max(math.floor(q), least), max(math.ceil(q), least)} for q in quota]
    ways = [counts for counts in product(*bounds) if sum(counts) == size]
    if ways:
        return sorted(ways)
    # a ratio such as 98:1:1 of few units: two subsets get their one, the largest the rest
    largest = quota.index(max(quota))
    return [tuple(size - 2 * least if n == largest else least for n in range(3))]


def _by_label(names: list[Stratum], counts: NDArray[np.int64]) -> dict[str, Any]:
    """Return by label the sum of `counts` (S, …) over the strata that hold it."""
    labels = sorted({label for name in names for label in name})
    return {label: counts[[label in name for name in names]].sum(axis=0) for label in labels}
