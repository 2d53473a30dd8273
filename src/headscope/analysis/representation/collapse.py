"""Neural collapse: how far the features of a class have shrunk to a point, and the place of those.

Source: V. Papyan, X. Y. Han, D. L. Donoho, Prevalence of neural collapse during the terminal
phase of deep learning training, PNAS 117(40), 2020; docs/science.md, section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import (
    ROUNDING,
    check_classes,
    check_labels,
    check_names,
    check_points,
)
from headscope.analysis.representation.discriminant import class_means
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
    rows = stored["subset"] == subset
    means = None
    if subset != "train":
        train = stored["subset"] == "train"
        features = stored["features"][train].astype(np.float64)
        means = class_means(features, stored["label"][train], len(head["weight"]))
    collapse = collapse_analysis(
        stored["features"][rows],
        stored["label"][rows],
        head["weight"],
        head["bias"],
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
    train_means: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "",
    subset: str = "",
) -> Collapse:
    """Return NC1 to NC4 of features (N, D) with labels (N,) under a final layer (K, D), (K,).

    train_means (K, D) are the class means of NC4; by default those of `features`.
    NaN rows are classes without a slice.
    Source: Papyan, Han & Donoho 2020; docs/science.md, section 5.

    Raises
    ------
    InputError
        The shapes do not agree, a value is not finite, or a label names no row of `weight`.
    """
    X, W = check_points(features, "features"), check_points(weight, "weight")
    y = check_labels(labels, len(X))
    K, D = W.shape
    b = np.zeros(K) if bias is None else np.asarray(bias, dtype=np.float64)
    if X.shape[1] != D or K < 2:
        raise InputError(f"weight {W.shape} does not fit features {X.shape}: (K, D) and (N, D).")
    if b.shape != (K,):
        raise InputError(f"bias has shape {b.shape}; weight {W.shape} needs ({K},).")
    names = check_names(class_names, K, "rows of weights")
    check_classes(y, K)
    means = class_means(X, y, K)  # (K, D)
    nearest = means if train_means is None else np.asarray(train_means, dtype=np.float64)
    if nearest.shape != (K, D):
        raise InputError(f"train_means has shape {nearest.shape}, weight {W.shape}.")
    present = np.bincount(y, minlength=K) > 0
    M = means[present] - means[present].mean(axis=0) if present.any() else means[:0]
    varies = bool((M**2).sum() > ROUNDING * (X**2).sum() / max(1, len(X)))
    learned = W - W.mean(axis=0)
    residuals = X - means[y]
    return Collapse(
        title=title,
        subset=subset,
        class_names=tuple(names),
        slices=len(X),
        means_of="these slices" if train_means is None else "training slices",
        nc1=_within_over_between(residuals, M) if varies else nan,
        nc2_equinorm=_equinorm(M) if varies and len(M) > 2 else nan,
        nc2_equiangular=_angles(M)[0] if varies else nan,
        nc2_simplex=_angles(M)[1] if varies else nan,
        weight_equinorm=_equinorm(W),
        weight_equiangular=_angles(W)[0],
        weight_simplex=_angles(W)[1],
        nc3=_duality(W, M) if varies else nan,
        nc3_centred=_duality(learned, M) if varies else nan,
        nc4=_agreement(X, X @ W.T + b, nearest),
        notes=_notes(present, names, varies),
    )


def _within_over_between(residuals: Array, M: Array) -> float:
    """Return tr(Σ_W Σ_B⁺) / K from the slices about their class mean and M (K, D).

    Σ_B has K − 1 directions at most, those of M's right singular vectors, so no D × D matrix is
    needed: Σ_B⁺ = K Σ_j v_j v_jᵀ / s_j².
    """
    _, s, V = np.linalg.svd(M, full_matrices=False)
    axes = np.flatnonzero(s > RANK_LIMIT * s[0])[: len(M) - 1]
    spread = ((residuals @ V[axes].T) ** 2).mean(axis=0)  # (rank,)
    return float((spread / s[axes] ** 2).sum())


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


def _agreement(X: Array, logits: Array, means: Array) -> float:
    present = np.isfinite(means).all(axis=1)
    if len(X) == 0 or not present.any():
        return nan
    centre = means[present].mean(axis=0)  # against cancellation
    near = means[present] - centre
    distance = (near**2).sum(axis=1) - 2 * (X - centre) @ near.T  # (N, K), less ‖x‖²
    return float((np.flatnonzero(present)[distance.argmin(axis=1)] == logits.argmax(axis=1)).mean())


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
