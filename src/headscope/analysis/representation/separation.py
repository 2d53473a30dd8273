"""How far classes are apart in a space of features or logits, and how dense they are.

What the paper argues by eye from Fig. 2, as numbers (docs/science.md, section 4).
"""

from dataclasses import dataclass
from math import exp, inf, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr

from headscope.analysis.arrays import ROUNDING, check_ids, check_labels, check_points
from headscope.analysis.blocks import sample_slices
from headscope.analysis.representation.discriminant import (
    Discriminant,
    about_means,
    class_means,
    held_out_overlap,
    mean_overlap,
)
from headscope.analysis.representation.intraclass import intraclass
from headscope.tables import Shown

Array = NDArray[np.float64]
MOST_CLASSES = 30
BLOCK = 1024  # slices whose distances to all others are held at once
MOST_SILHOUETTE = 3000  # slices whose silhouette is taken: all distances grow with their square


@dataclass(frozen=True, eq=False, repr=False)
class Separation(Shown):
    """Classes in one space of N points; undefined numbers are NaN, and `notes` says why.

    Attributes
    ----------
    within, between, total
        Traces of the scatter matrices over N: mean squared distance of a slice from its class
        mean, of the class means from the mean of all slices, of the slices from that mean. The
        first two add up to the third.
    between_by_chance
        What `between` is expected to be if the classes meant nothing, from the variance between
        subjects and within them: the fewer the subjects, the more.
    fisher_ratio
        between / within; infinite where each class is a single point.
    overlap
        Area that the densities of two classes share along their discriminant, 0 to 1; the mean
        over pairs for 3 to 30 classes. The direction is fitted to other subjects' slices than
        those it is shown (5 folds by subject). Densities: Gaussian kernels, Scott's bandwidth.
    overlap_fitted
        The same with the direction fitted to all slices: near 0 whatever the labels are where
        there are more features than slices.
    shrinkage
        How far the within-class covariance of the discriminant was shrunk towards a multiple of
        the identity, 0 to 1 (Ledoit & Wolf 2004).
    silhouette
        Mean silhouette of the slices (Rousseeuw 1987, Euclidean), −1 to 1; of more than 3,000 of
        so many, drawn at random.
    effective_rank
        exp of the entropy of the eigenvalues of the covariance (Roy & Vetterli 2007).
    separation_ratio, dispersion_ratio
        sqrt(between) and sqrt(within) over those of the reference.
    """

    width: int
    within: float = nan
    between: float = nan
    between_by_chance: float = nan
    total: float = nan
    fisher_ratio: float = nan
    overlap: float = nan
    overlap_fitted: float = nan
    shrinkage: float = nan
    silhouette: float = nan
    effective_rank: float = nan
    separation_ratio: float = nan
    dispersion_ratio: float = nan
    notes: tuple[str, ...] = ()


def separation(
    points: ArrayLike,
    labels: ArrayLike,
    subjects: ArrayLike,
    reference: Separation | None = None,
) -> Separation:
    """Measure the separation of the classes of `points` (N, D); labels (N,) are whole numbers.

    Takes some seconds for 3,000 slices of 2,048 features. Source: docs/science.md, section 4.
    """
    X = check_points(points, "points")
    y = np.unique(check_labels(labels, len(X)), return_inverse=True)[1]
    ids = check_ids(subjects, len(X), "subjects")
    if len(X) == 0:
        return Separation(X.shape[1], notes=("There are no slices.",))
    Z = compact(X)  # (N, d)
    products = Z.T @ Z  # (d, d)
    floor = ROUNDING * _mean_square(X)
    within, between = (_or_none(value, floor) for value in scatter(Z, y))
    K = int(y.max()) + 1
    overlaps, notes = [nan] * 3, _why_no_overlap(K, within, between)
    if K < 2:
        between = nan
    elif not notes:
        *overlaps, why = _overlaps(Z, products, y, ids, X.shape[1])
        notes = [*(["Within classes nothing varies."] if within == 0 else []), *why]
    if len(Z) > MOST_SILHOUETTE:
        sample = f"{MOST_SILHOUETTE:,} of {len(Z):,} slices, drawn at random by a fixed seed"
        notes.append(f"The silhouette is that of {sample}.")
    return Separation(
        width=X.shape[1],
        within=within,
        between=between,
        between_by_chance=_between_by_chance(Z, y, ids) if K > 1 else nan,
        total=_or_none(_mean_square(Z), floor),
        fisher_ratio=_quotient(between, within),
        overlap=overlaps[0],
        overlap_fitted=overlaps[1],
        shrinkage=overlaps[2],
        silhouette=silhouette(Z, y) if within + between > 0 else nan,
        effective_rank=effective_rank(products) if _mean_square(Z) > floor else nan,
        separation_ratio=_ratio(between, reference.between) if reference else nan,
        dispersion_ratio=_ratio(within, reference.within) if reference else nan,
        notes=tuple(notes),
    )


def _why_no_overlap(K: int, within: float, between: float) -> list[str]:
    """Return the reason why classes have no discriminant, if there is one."""
    if K < 2:
        return ["One class alone is present: there is no separation."]
    if within + between == 0:
        return ["All slices coincide."]
    if K > MOST_CLASSES:
        return [f"The overlap is given for at most {MOST_CLASSES} classes, not {K}."]
    return []


def _overlaps(
    Z: Array, products: Array, y: NDArray[Any], ids: NDArray[Any], width: int
) -> tuple[float, float, float, list[str]]:
    """Return the overlap held out and fitted, the shrinkage of the latter, and notes."""
    fitted = Discriminant.fit(Z, y, width, about_means(products, Z, y))
    held_out, why = held_out_overlap(Z, products, y, ids, width)
    return held_out, mean_overlap(fitted.scores(Z), y), fitted.shrinkage, [why] if why else []


def compact(X: Array) -> Array:
    """Return centred coordinates (N, min(N, D)) in which all distances are those of X (N, D).

    N points span N dimensions at most; the triangle of a QR decomposition holds them.
    """
    X = X - X.mean(axis=0)
    if len(X) >= X.shape[1]:
        return X
    triangle = qr(X.T, mode="raw", overwrite_a=True, check_finite=False)[1]
    return np.asarray(triangle, float).T  # (N, N)


def scatter(X: Array, y: NDArray[Any]) -> tuple[float, float]:
    """Return the traces of the within-class and the between-class scatter, each over N."""
    means = class_means(X, y, int(y.max()) + 1)[y]  # (N, D)
    return _mean_square(X - means), _mean_square(means - X.mean(axis=0))


def silhouette(X: Array, y: NDArray[Any]) -> float:
    """Return the mean silhouette of N points; a point alone in its class counts 0.

    Of more than 3,000 points so many are taken, drawn at random. NaN unless there are 2 to N − 1
    classes. Source: Rousseeuw 1987.
    """
    some = sample_slices(len(X), MOST_SILHOUETTE)
    X, y = X[some], np.unique(y[some], return_inverse=True)[1]
    counts, places = np.bincount(y), np.arange(len(y))
    if not 2 <= len(counts) < len(X):
        return nan
    sums = _distance_sums(X, y)  # (N, K)
    others = counts[y] - 1
    within = sums[places, y] / np.maximum(others, 1)
    means = sums / counts
    means[places, y] = inf
    nearest = means.min(axis=1)
    longer = np.maximum(within, nearest)
    values = np.divide(nearest - within, longer, out=np.zeros(len(X)), where=longer > 0)
    return float(np.where(others > 0, values, 0).mean())


def _distance_sums(X: Array, y: NDArray[Any]) -> Array:
    """Return the sum of the distances of each point (N, D) to those of each class, (N, K)."""
    member = np.equal.outer(y, np.arange(y.max() + 1)).astype(np.float64)  # (N, K)
    squares, sums = np.einsum("nd,nd->n", X, X), np.empty_like(member)
    for start in range(0, len(X), BLOCK):
        part = slice(start, start + BLOCK)
        distance = squares[part, None] + squares - 2 * (X[part] @ X.T)  # (B, N)
        np.maximum(distance, 0, out=distance)
        distance[np.arange(len(distance)), np.arange(len(X))[part]] = 0
        sums[part] = np.sqrt(distance, out=distance) @ member
    return sums


def effective_rank(products: Array) -> float:
    """Return exp of the entropy of the eigenvalues of a covariance, or of a multiple of it (D, D).

    NaN where nothing varies. Source: Roy & Vetterli 2007, of eigenvalues.
    """
    share = np.maximum(np.linalg.eigvalsh(products), 0)
    if share.sum() == 0:
        return nan
    share = share[share > share.max() * 1e-14] / share.sum()
    return exp(-float((share * np.log(share)).sum()))


def _between_by_chance(Z: Array, y: NDArray[Any], ids: NDArray[Any]) -> float:
    """Return the scatter between classes that differ by the draw of their subjects alone.

    The variance of a class mean is that between subjects, over what so many unequal subjects
    count as, and that within them, over the slices; Σ_k p_k (1 − p_k) of it is between.
    """
    parts = intraclass(Z, ids, y)
    apart, within = max(0.0, parts.between_variance), parts.within_variance
    if parts.groups == len(Z) > int(y.max()) + 1:  # one slice per subject
        apart, within = 0.0, parts.sum_of_squares / (len(Z) - int(y.max()) - 1)
    count = np.bincount(y)
    owner = np.unique(ids, return_inverse=True)[1]
    held = np.zeros((len(count), int(owner.max()) + 1))
    np.add.at(held, (y, owner), 1)  # slices of each subject in each class
    variance = apart * (held**2).sum(axis=1) / count**2 + within / count  # (K,)
    share = count / len(Z)
    return float((share * (1 - share) * variance).sum())


def _ratio(square: float, of: float) -> float:
    return sqrt(square / of) if of > 0 else nan


def _quotient(between: float, within: float) -> float:
    if within > 0:
        return between / within
    return inf if between > 0 else nan


def _or_none(square: float, floor: float) -> float:
    return square if not square <= floor else 0.0


def _mean_square(X: Array) -> float:
    """Return the mean squared length of the rows."""
    return float(np.einsum("nd,nd->", X, X)) / len(X)
