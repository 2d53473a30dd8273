"""Within-class variance, between subjects and within subjects."""

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import ROUNDING, check_ids, check_labels, check_points
from headscope.analysis.representation.discriminant import class_means
from headscope.files import NO_ID
from headscope.tables import Shown


@dataclass(frozen=True, eq=False, repr=False)
class Intraclass(Shown):
    """How alike the slices of one subject (or session) are, beyond those of their class.

    Undefined numbers are NaN, and `note` says why.

    Attributes
    ----------
    of, by
        What is compared ('logit margin', 'logits', 'features'), and whose slices are one group.
    icc
        ICC(1), one-way random, of group sizes that may differ: near 1 where a group's slices
        coincide and groups differ, near 0 where a group is no more alike than its class; may
        fall below 0 by chance.
    between_variance, within_variance
        Estimated components: of groups about their class mean, of slices about their group's.
    sum_of_squares
        Of slices about their class mean.
    between_share
        Share of the within-class sum of squares that lies between the group means, 0 to 1.
    chance_share
        The share to expect where the groups mean nothing: (groups − classes) / (N − classes).
    """

    of: str
    by: str
    groups: int
    slices: int
    icc: float = nan
    between_variance: float = nan
    within_variance: float = nan
    sum_of_squares: float = nan
    between_share: float = nan
    chance_share: float = nan
    note: str = ""


def intraclass(
    values: ArrayLike,
    groups: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    of: str = "values",
    by: str = "subject",
) -> Intraclass:
    """Return the intraclass correlation of `values` (N,) or (N, D) in groups (N,).

    Groups lie within classes (labels (N,)): only differences between groups of one class count.
    Of (N, D) the sums of squares are traces. Source: Shrout & Fleiss 1979, ICC(1,1); unequal
    groups and classes: Searle, Casella & McCulloch 1992, one-way and nested designs.
    """
    values = np.asarray(values, dtype=np.float64)
    X = check_points(values[:, np.newaxis] if values.ndim == 1 else values, "values")
    y = check_labels(np.zeros(len(X), dtype=int) if labels is None else labels, len(X))
    ids = check_ids(groups, len(X), "groups")
    why = f"Without {by} ids there are no groups." if (ids == NO_ID).any() else ""
    if why or len(X) == 0:
        return Intraclass(of, by, 0, len(X), note=why or "There are no slices.")
    y = np.unique(y, return_inverse=True)[1]
    owner, first = _nested(ids, y)
    N, S, K = len(X), len(first), int(y.max()) + 1
    counts = np.bincount(owner)
    floor = ROUNDING * float((X**2).sum())
    X = X - class_means(X, y, K)[y]
    order = np.argsort(owner, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(X[order], starts, axis=0) / counts[:, np.newaxis]  # (S, D)
    between, total = float(counts @ (means**2).sum(axis=1)), float((X**2).sum())
    total = total if total > floor else 0.0
    within = max(0.0, total - between)
    share = between / total if total > 0 else nan
    chance = (S - K) / (N - K) if N > K else nan
    if S == K or N == S:
        note = f"Each class has a single {by}." if S == K else f"One slice per {by}."
        return Intraclass(
            of, by, S, N, sum_of_squares=total, between_share=share, chance_share=chance, note=note
        )
    spread = (counts**2 / np.bincount(y)[y[first]]).sum()
    size = (N - spread) / (S - K)  # what unequal groups count like
    noise = within / (N - S)
    component = (between / (S - K) - noise) / size if total > 0 else 0.0
    variance = component + noise
    return Intraclass(
        of=of,
        by=by,
        groups=S,
        slices=N,
        icc=component / variance if variance > 0 else nan,
        between_variance=component,
        within_variance=noise,
        sum_of_squares=total,
        between_share=share,
        chance_share=chance,
        note="" if variance > 0 else "Within classes nothing varies.",
    )


def _nested(ids: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Number the groups, apart for each class; return owner (N,) and first slices (S,)."""
    number = np.unique(ids, return_inverse=True)[1]
    _, first, owner = np.unique(number * (y.max() + 1) + y, return_index=True, return_inverse=True)
    return owner, first
