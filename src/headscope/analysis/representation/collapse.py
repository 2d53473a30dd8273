"""Neural collapse: how far the features of a class have shrunk to a point, and the place of those.

Source: V. Papyan, X. Y. Han, D. L. Donoho, Prevalence of neural collapse during the terminal
phase of deep learning training, PNAS 117(40), 2020; docs/science.md, section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import (
    ROUNDING,
    check_classes,
    check_labels,
    check_names,
    check_points,
)
from headscope.analysis.blocks import row_blocks
from headscope.analysis.stored import stored
from headscope.analysis.units import examples_of, over_scans
from headscope.errors import InputError
from headscope.record import SUBSETS, Run
from headscope.tables import Shown, Table

Array = NDArray[np.float64]
RANK_LIMIT = 1e-6  # of the largest singular value: what float32 leaves of a direction
TRIVIAL = (
    "The means of two classes are opposite each other about their middle, at equal distance, "
    "whatever the network: neither is shown."
)


@dataclass(frozen=True, eq=False, repr=False)
class Collapse(Shown):
    """NC1 to NC4 on one subset; undefined numbers are NaN, and `notes` says why.

    Σ_W is the mean over slices of the outer products about their class mean, Σ_B that over
    classes of the class means about their unweighted mean; M (D, K) holds the latter.

    Attributes
    ----------
    nc1
        tr(Σ_W Σ_B⁺) / K: variance within classes in units of that between; 0 when collapsed.
    nc2_equinorm
        Standard deviation over mean of the norms of M's columns; 0 when collapsed.
    nc2_equiangular, nc2_simplex
        Standard deviation of the cosines between M's columns, and their mean distance from
        −1 / (K − 1), as in a simplex; 0 when collapsed. NaN for K = 2, where they are trivial.
    weight_equinorm, weight_equiangular, weight_simplex
        The same for the rows of the final layer.
    nc3
        ‖Wᵀ/‖W‖ − M/‖M‖‖ (Frobenius): weights against class means; 0 when self-dual, √2 when
        unrelated.
    nc3_centred
        The same with W less its mean row, which softmax does not see.
    nc4
        Share of the slices for which the network decides for the nearest class mean; 1 when
        collapsed. On held-out slices the means are those of the training slices.
    """

    title: str
    subset: str
    class_names: tuple[str, ...]
    slices: int
    means_of: str
    nc1: float
    nc2_equinorm: float
    nc2_equiangular: float
    nc2_simplex: float
    weight_equinorm: float
    weight_equiangular: float
    weight_simplex: float
    nc3: float
    nc3_centred: float
    nc4: float
    notes: tuple[str, ...]

    def tables(self) -> Sequence[Table]:
        """Return what is shown: one measure per row, with its limit."""
        rows = [
            ("NC1", "variance within classes over that between", self.nc1, 0),
            ("NC2", "norms of the class means, spread over mean", self.nc2_equinorm, 0),
            ("NC2", "angles of the class means, spread", self.nc2_equiangular, 0),
            ("NC2", "angles of the class means, from a simplex", self.nc2_simplex, 0),
            ("NC2", "norms of the rows of weights, spread over mean", self.weight_equinorm, 0),
            ("NC2", "angles of the rows of weights, spread", self.weight_equiangular, 0),
            ("NC2", "angles of the rows of weights, from a simplex", self.weight_simplex, 0),
            ("NC3", "weights against class means", self.nc3, 0),
            ("NC3", "the same without the mean row of weights", self.nc3_centred, 0),
            ("NC4", f"decides for the nearest mean ({self.means_of})", self.nc4, 1),
        ]
        if len(self.class_names) == 2:
            rows = [row for row in rows if row[0] != "NC2" or row[2] == self.weight_equinorm]
        name = ": ".join(part for part in (self.title, self.subset) if part)
        title = f"Neural collapse{', ' if name else ''}{name} ({self.slices:,} slices)"
        return [Table(title, ("", "measure", "value", "collapsed"), rows, self.notes)]


@stored
def analyse_collapse(run: Run, subset: str = "test") -> Collapse:
    """Measure neural collapse of a recorded run; off the training slices NC4 takes their means.

    Raises
    ------
    InputError
        The subset has no such name.
    """
    if subset not in SUBSETS:
        raise InputError(f"subset {subset!r} is none of {', '.join(SUBSETS)}.")
    (stored, _), head = examples_of(run), run.head
    rows = np.flatnonzero(stored["subset"] == subset)
    means = None
    if subset != "train":
        train = np.flatnonzero(stored["subset"] == "train")
        means = _means(stored["features"], train, stored["label"][train], len(head["weight"]))[0]
    collapse = collapse_analysis(
        stored["features"],
        stored["label"][rows],
        head["weight"],
        head["bias"],
        rows=rows,
        train_means=means,
        class_names=run.class_names,
        title=run.name,
        subset=subset,
    )
    return replace(collapse, notes=(*collapse.notes, *over_scans(run)))


def collapse_analysis(
    features: ArrayLike,
    labels: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
    train_means: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "",
    subset: str = "",
) -> Collapse:
    """Return NC1 to NC4 of features (N, D) with labels (N,) under a final layer (K, D), (K,).

    train_means (K, D) are the class means of NC4; by default those of `features`. With `rows` (N,)
    the features are those of other slices too, and are read block by block.
    NaN rows are classes without a slice.
    Source: Papyan, Han & Donoho 2020; docs/science.md, section 5.
    """
    if rows is None:
        points = check_points(features, "features")
        rows = np.arange(len(points))
    else:
        points = np.asarray(features)
    W, y = check_points(weight, "weight"), check_labels(labels, len(rows))
    K, D = W.shape
    b = np.zeros(K) if bias is None else np.asarray(bias, dtype=np.float64)
    shape = (len(rows), *points.shape[1:])
    if shape[1:] != (D,) or K < 2:
        raise InputError(f"weight {W.shape} does not fit features {shape}: (K, D) and (N, D).")
    if b.shape != (K,):
        raise InputError(f"bias has shape {b.shape}; weight {W.shape} needs ({K},).")
    names = check_names(class_names, K, "rows of weights")
    check_classes(y, K)
    means, square = _means(points, rows, y, K)  # (K, D), and of all values
    nearest = means if train_means is None else np.asarray(train_means, dtype=np.float64)
    if nearest.shape != (K, D):
        raise InputError(f"train_means has shape {nearest.shape}, weight {W.shape}.")
    present = np.bincount(y, minlength=K) > 0
    M = means[present] - means[present].mean(axis=0) if present.any() else means[:0]
    varies = bool((M**2).sum() > ROUNDING * square / max(1, len(rows)))
    learned = W - W.mean(axis=0)
    axes, sizes = _axes(M) if varies else (M[:0], np.ones(0))
    spread, agreement = _second_pass(points, rows, means[y] @ axes.T, axes, (W, b), nearest)
    return Collapse(
        title=title,
        subset=subset,
        class_names=tuple(names),
        slices=len(rows),
        means_of="these slices" if train_means is None else "training slices",
        nc1=float((spread / sizes**2).sum()) if varies else nan,
        nc2_equinorm=_equinorm(M) if varies and len(M) > 2 else nan,
        nc2_equiangular=_angles(M)[0] if varies else nan,
        nc2_simplex=_angles(M)[1] if varies else nan,
        weight_equinorm=_equinorm(W),
        weight_equiangular=_angles(W)[0],
        weight_simplex=_angles(W)[1],
        nc3=_duality(W, M) if varies else nan,
        nc3_centred=_duality(learned, M) if varies else nan,
        nc4=agreement,
        notes=_notes(present, names, varies),
    )


def _means(
    features: NDArray[Any], rows: NDArray[np.int64], y: NDArray[np.int64], K: int
) -> tuple[Array, float]:
    """Return the class means (K, D) of some rows, NaN without a slice, and their sum of squares."""
    sums, square = np.zeros((K, features.shape[1])), 0.0
    for part, block in row_blocks(features, rows):
        X = check_points(block, "features")
        sums += np.equal.outer(np.arange(K), y[part]).astype(np.float64) @ X
        square += float(np.einsum("nd,nd->", X, X))
    count = np.bincount(y, minlength=K)[:, None]
    return np.divide(sums, count, out=np.full_like(sums, nan), where=count > 0), square


def _axes(M: Array) -> tuple[Array, Array]:
    """Return the directions (rank, D) of Σ_B and their singular values in M (K, D).

    Σ_B has K − 1 directions at most, those of M's right singular vectors, so no D × D matrix is
    needed: tr(Σ_W Σ_B⁺) / K is the sum over them of the variance within classes over s².
    """
    _, s, V = np.linalg.svd(M, full_matrices=False)
    axes = np.flatnonzero(s > RANK_LIMIT * s[0])[: len(M) - 1]
    return V[axes], s[axes]


def _second_pass(
    features: NDArray[Any],
    rows: NDArray[np.int64],
    middle: Array,
    axes: Array,
    head: tuple[Array, Array],
    means: Array,
) -> tuple[Array, float]:
    """Return the variance about `middle` (n, rank) along axes (rank, D), and NC4.

    NC4 is the share of slices for which the head decides for the nearest of means (K, D).
    """
    (W, b), spread, agreeing = head, np.zeros(len(axes)), 0
    present = np.flatnonzero(np.isfinite(means).all(axis=1))
    centre = means[present].mean(axis=0) if len(present) else np.zeros(W.shape[1])
    near = means[present] - centre  # against cancellation
    for part, X in row_blocks(features, rows):
        spread += ((X @ axes.T - middle[part]) ** 2).sum(axis=0)
        if len(present):
            distance = (near**2).sum(axis=1) - 2 * (X - centre) @ near.T  # (B, K), less ‖x‖²
            decided = (X @ W.T + b).argmax(axis=1)
            agreeing += int((present[distance.argmin(axis=1)] == decided).sum())
    return spread / max(1, len(rows)), agreeing / len(rows) if len(rows) and len(present) else nan


def _equinorm(rows: Array) -> float:
    norms = np.linalg.norm(rows, axis=1)
    return float(norms.std() / norms.mean()) if norms.mean() > 0 else nan


def _angles(rows: Array) -> tuple[float, float]:
    """Return the spread of the cosines between rows (K, D), and their distance from a simplex."""
    K = len(rows)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if K < 3 or norms.min() <= RANK_LIMIT * norms.max():
        return nan, nan
    unit = rows / norms
    cosines = (unit @ unit.T)[np.triu_indices(K, 1)]
    return float(cosines.std()), float(np.abs(cosines + 1 / (K - 1)).mean())


def _duality(W: Array, M: Array) -> float:
    size = float(np.linalg.norm(W))
    if W.shape != M.shape or size == 0:
        return nan
    return float(np.linalg.norm(W / size - M / np.linalg.norm(M)))


def _notes(present: NDArray[np.bool_], names: Sequence[str], varies: bool) -> tuple[str, ...]:
    notes = []
    absent = [name for name, there in zip(names, present, strict=True) if not there]
    if len(absent) == len(names):
        notes.append("There are no slices.")
    elif absent:
        some = " or ".join(absent) if len(absent) < 6 else f"{len(absent)} of the classes"
        notes.append(f"No slice here is of {some}: NC3 is undefined.")
    if not varies and len(absent) < len(names):
        why = "The class means coincide" if present.sum() > 1 else "One class alone is present"
        notes.append(f"{why}: NC1 to NC3 are undefined.")
    if len(names) == 2:
        notes.append(TRIVIAL)
    return tuple(notes)
