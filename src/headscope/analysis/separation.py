"""How far classes lie apart in a space of features or logits, and how dense they lie.

What the paper argues by eye from Fig. 2, as numbers (docs/science.md, section 4).
"""

from dataclasses import dataclass
from itertools import combinations
from math import exp, inf, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, qr

from headscope.analysis.display import Shown
from headscope.errors import InputError
from headscope.files import NO_ID

Array = NDArray[np.float64]
FOLDS = 5
MOST_CLASSES = 10
GRID = 512
LEAST_SHRINKAGE = 1e-6  # what float32 leaves of the smallest variances
ROUNDING = 1e-24  # of the mean square: what float64 leaves of points that coincide


@dataclass(frozen=True, eq=False, repr=False)
class Separation(Shown):
    """Classes in one space of N points; undefined numbers are NaN, and `notes` says why.

    Attributes
    ----------
    within, between, total
        Traces of the scatter matrices over N: mean squared distance of a slice from its class
        mean, of the class means from the mean of all slices, of the slices from that mean. The
        first two add up to the third.
    fisher_ratio
        between / within; infinite where each class lies on a point of its own.
    overlap
        Area that the densities of two classes share along their discriminant, 0 to 1; the mean
        over pairs for 3 to 10 classes. The direction is fitted to other subjects' slices than
        those it is shown (5 folds by subject). Densities: Gaussian kernels, Scott's bandwidth.
    overlap_fitted
        The same with the direction fitted to all slices: near 0 whatever the labels are where
        there are more features than slices.
    shrinkage
        How far the within-class covariance of the discriminant was shrunk towards a multiple of
        the identity, 0 to 1 (Ledoit & Wolf 2004).
    silhouette
        Mean silhouette of the slices (Rousseeuw 1987, Euclidean), −1 to 1.
    effective_rank
        exp of the entropy of the eigenvalues of the covariance (Roy & Vetterli 2007).
    separation_ratio, dispersion_ratio
        sqrt(between) and sqrt(within) over those of the reference.
    """

    width: int
    within: float = nan
    between: float = nan
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
    """Measure how the classes of `points` (N, D) lie; labels (N,) are whole numbers.

    Takes some seconds for 3,000 slices of 2,048 features. Source: docs/science.md, section 4.

    Raises
    ------
    InputError
        The shapes do not agree or a value is not finite.
    """
    X = check_points(points, "points")
    y = np.unique(check_labels(labels, len(X)), return_inverse=True)[1]
    people = check_ids(subjects, len(X), "subjects")
    notes: list[str] = []
    if len(X) == 0:
        return Separation(X.shape[1], notes=("There are no slices.",))
    Z = compact(X)  # (N, d)
    floor = ROUNDING * _mean_square(X)
    within, between = (_or_none(value, floor) for value in scatter(Z, y))
    K = int(y.max()) + 1
    fitted, held_out, shrinkage = nan, nan, nan
    if K < 2:
        notes.append("One class alone is present: nothing lies apart.")
        between = nan
    elif within + between == 0:
        notes.append("All slices lie on one point.")
    elif K > MOST_CLASSES:
        notes.append(f"The overlap is given for at most {MOST_CLASSES} classes, not {K}.")
    else:
        notes += ["Within classes nothing varies."] if within == 0 else []
        found = Discriminant.fit(Z, y, X.shape[1])
        fitted, shrinkage = _mean_overlap(found.scores(Z), y), found.shrinkage
        held_out, why = _held_out_overlap(Z, y, people, X.shape[1])
        notes += [why] if why else []
    return Separation(
        width=X.shape[1],
        within=within,
        between=between,
        total=_or_none(_mean_square(Z), floor),
        fisher_ratio=_quotient(between, within),
        overlap=held_out,
        overlap_fitted=fitted,
        shrinkage=shrinkage,
        silhouette=silhouette(Z, y) if within + between > 0 else nan,
        effective_rank=effective_rank(Z) if _mean_square(Z) > floor else nan,
        separation_ratio=_ratio(between, reference.between) if reference else nan,
        dispersion_ratio=_ratio(within, reference.within) if reference else nan,
        notes=tuple(notes),
    )


def compact(X: Array) -> Array:
    """Return centred coordinates (N, min(N, D)) in which all distances are those of X (N, D).

    N points span N dimensions at most; the triangle of a QR decomposition holds them.
    """
    X = X - X.mean(axis=0)
    if len(X) >= X.shape[1]:
        return X
    triangle: Array = qr(X.T, mode="r", check_finite=False)[0][: len(X)]  # (N, N)
    return triangle.T


def class_means(X: Array, y: NDArray[Any], classes: int) -> Array:
    """Return the mean of each class, (K, D); NaN where a class has no slice."""
    member = np.equal.outer(np.arange(classes), y)  # (K, N)
    count = member.sum(axis=1, keepdims=True)
    sums = member.astype(np.float64) @ X
    return np.divide(sums, count, out=np.full_like(sums, nan), where=count > 0)


def scatter(X: Array, y: NDArray[Any]) -> tuple[float, float]:
    """Return the traces of the within-class and the between-class scatter, each over N."""
    means = class_means(X, y, int(y.max()) + 1)[y]  # (N, D)
    return _mean_square(X - means), _mean_square(means - X.mean(axis=0))


def silhouette(X: Array, y: NDArray[Any]) -> float:
    """Return the mean silhouette of N points; a point alone in its class counts 0.

    NaN unless there are 2 to N − 1 classes. Source: Rousseeuw 1987.
    """
    K, N = int(y.max()) + 1, len(X)
    if not 2 <= K < N:
        return nan
    count = np.bincount(y)
    member = np.equal.outer(y, np.arange(K)).astype(np.float64)  # (N, K)
    square = (X**2).sum(axis=1)
    sums = np.empty((N, K))
    for start in range(0, N, 1024):
        rows = slice(start, start + 1024)
        distance = square[rows, np.newaxis] + square - 2 * X[rows] @ X.T  # (rows, N)
        np.sqrt(np.maximum(distance, 0, out=distance), out=distance)
        distance[np.arange(len(distance)), np.arange(N)[rows]] = 0
        sums[rows] = distance @ member
    own = sums[np.arange(N), y] / np.maximum(count[y] - 1, 1)
    others = sums / count
    others[np.arange(N), y] = np.inf
    nearest = others.min(axis=1)
    larger = np.maximum(own, nearest)
    value = np.divide(nearest - own, larger, out=np.zeros(N), where=larger > 0)
    return float(np.where(count[y] > 1, value, 0).mean())


def effective_rank(X: Array) -> float:
    """Return exp of the entropy of the covariance's eigenvalues; NaN where nothing varies.

    X (N, D) is centred. Source: Roy & Vetterli 2007, of eigenvalues.
    """
    gram = X @ X.T if len(X) < X.shape[1] else X.T @ X
    share = np.maximum(np.linalg.eigvalsh(gram), 0)
    if share.sum() == 0:
        return nan
    share = share[share > share.max() * 1e-14] / share.sum()
    return exp(-float((share * np.log(share)).sum()))


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Fisher's discriminant of each pair of classes, with a shrunken within-class covariance.

    `directions` (pairs, D) and `offsets` (pairs,) put the two class means at −½ and ½.
    Source: Fisher 1936; shrinkage of Ledoit & Wolf 2004.
    """

    directions: Array
    offsets: Array
    shrinkage: float

    @classmethod
    def fit(
        cls, X: Array, y: NDArray[Any], width: int | None = None, within: Array | None = None
    ) -> "Discriminant":
        """Fit to points (N, D) of classes 0 to K − 1, each with a slice.

        width is the number of features that X stands for where it is `compact`; `within` the
        sum of squares and products about the class means, if it is known.
        """
        means = class_means(X, y, int(y.max()) + 1)  # (K, D)
        rest = X - means[y]
        covariance = (rest.T @ rest if within is None else within) / len(X)  # (D, D)
        width = width or X.shape[1]
        shrinkage = ledoit_wolf(rest, covariance, width)
        spread = float(np.trace(covariance)) / width
        if spread > 0:
            covariance = covariance * (1 - shrinkage)
            covariance[np.diag_indices_from(covariance)] += shrinkage * spread
            solved = cho_solve(cho_factor(covariance), means.T).T  # (K, D)
        else:
            solved = means
        pairs = list(combinations(range(len(means)), 2))
        directions = np.stack([solved[b] - solved[a] for a, b in pairs])
        apart = np.stack([means[b] - means[a] for a, b in pairs])
        middle = np.stack([(means[b] + means[a]) / 2 for a, b in pairs])
        length = (directions * apart).sum(axis=1, keepdims=True)
        directions = np.divide(
            directions, length, out=np.full_like(directions, nan), where=length > 0
        )
        return cls(directions, (directions * middle).sum(axis=1), shrinkage)

    def scores(self, X: Array) -> Array:
        """Return where each point lies on the discriminant of each pair, (N, pairs)."""
        return X @ self.directions.T - self.offsets


def ledoit_wolf(rest: Array, covariance: Array, width: int) -> float:
    """Return the shrinkage of Ledoit & Wolf 2004 for centred points and their covariance.

    rest (N, d) may be `compact` coordinates of `width` features. At least 1e-6, so that what
    rounding alone left of a variance is never a divisor.
    """
    N = len(rest)
    mean = float(np.trace(covariance)) / width
    norm = float((covariance**2).sum())
    distance = (norm - width * mean**2) / width
    noise = (float(((rest**2).sum(axis=1) ** 2).sum()) / N - norm) / (width * N)
    if distance <= 0:
        return 1.0
    return min(1.0, max(LEAST_SHRINKAGE, noise / distance))


def density_overlap(a: Array, b: Array) -> float:
    """Return the area that two densities share, 0 to 1, from points on a line.

    Gaussian kernel densities with Scott's bandwidth n^(−1/5) s, on 512 points. A class whose
    points all coincide shares none, unless the other's lie on the same point. NaN where a class
    has fewer than 2 points.
    """
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return nan
    both = np.concatenate([a, b])
    scale = float(np.ptp(both))
    if scale <= 1e-12 * float(np.abs(both).max()):
        return 1.0
    widths = [float(np.std(c, ddof=1)) * len(c) ** -0.2 for c in (a, b)]
    if min(widths) <= 1e-9 * scale:
        return 0.0
    low = min(c.min() - 5 * w for c, w in zip((a, b), widths, strict=True))
    high = max(c.max() + 5 * w for c, w in zip((a, b), widths, strict=True))
    grid = np.unique(np.concatenate([np.linspace(low, high, GRID), *_fine(a, b, widths)]))
    fa, fb = (_density(c, w, grid) for c, w in zip((a, b), widths, strict=True))
    return float(min(1.0, np.trapezoid(np.minimum(fa, fb), grid)))


def _fine(a: Array, b: Array, widths: list[float]) -> list[Array]:
    """Return a grid of its own for each class: one may be far narrower than the other."""
    return [
        np.linspace(c.min() - 5 * w, c.max() + 5 * w, GRID)
        for c, w in zip((a, b), widths, strict=True)
    ]


def _density(points: Array, width: float, grid: Array) -> Array:
    distance = (grid[:, np.newaxis] - points) / width  # (grid, n)
    return np.exp(-(distance**2) / 2).mean(axis=1) / (width * sqrt(2 * np.pi))


def _mean_overlap(scores: Array, y: NDArray[Any]) -> float:
    """Average the overlap over pairs of classes, the columns of `scores` (N, pairs)."""
    pairs = combinations(range(int(y.max()) + 1), 2)
    areas = [
        density_overlap(scores[y == a, column], scores[y == b, column])
        for column, (a, b) in enumerate(pairs)
    ]
    return float(np.mean(areas))


def _held_out_overlap(
    Z: Array, y: NDArray[Any], people: NDArray[Any], width: int
) -> tuple[float, str]:
    """Return the overlap along directions fitted to other subjects, or NaN and the reason.

    The sums of squares and products of a fold's slices are taken off those of all slices.
    """
    if (people == NO_ID).any():
        return nan, "Without subject ids no discriminant can be held out by subject."
    fold = subject_folds(people, y, FOLDS)
    if fold is None:
        return nan, "A class has a single subject: no discriminant can be held out by subject."
    K = int(y.max()) + 1
    products = Z.T @ Z  # (d, d)
    scores = np.empty((len(Z), K * (K - 1) // 2))
    for part in range(int(fold.max()) + 1):
        out = fold == part
        kept, labels = Z[~out], y[~out]
        if len(np.unique(labels)) < K:
            return nan, "The subjects of a class are too few to hold any of them out."
        means, count = class_means(kept, labels, K), np.bincount(labels, minlength=K)
        within = products - Z[out].T @ Z[out] - (means.T * count) @ means
        scores[out] = Discriminant.fit(kept, labels, width, within).scores(Z[out])
    return _mean_overlap(scores, y), ""


def subject_folds(
    people: NDArray[Any], y: NDArray[Any], most: int, seed: int | None = None
) -> NDArray[np.int64] | None:
    """Deal subjects to folds, class by class, (N,); None where a class has one subject alone.

    As many folds as the rarest class has subjects, at most `most`. A subject whose sessions bear
    different labels is dealt with the first of them. In the order of their ids, or shuffled.
    """
    ids, first, owner = np.unique(people, return_index=True, return_inverse=True)
    least = min(len(np.unique(people[y == k])) for k in np.unique(y))
    if least < 2:
        return None
    rng = None if seed is None else np.random.default_rng(seed)
    fold, dealt = np.empty(len(ids), dtype=np.int64), 0
    for k in np.unique(y[first]):
        members = np.flatnonzero(y[first] == k)
        members = members if rng is None else rng.permutation(members)
        fold[members] = (dealt + np.arange(len(members))) % min(most, least)
        dealt += len(members)
    return fold[owner]


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


def check_points(values: ArrayLike, name: str) -> Array:
    """Return points (N, D) as float64, or raise InputError."""
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 1:
        raise InputError(f"{name} has shape {points.shape}; (N, D) is needed.")
    if not np.isfinite(points).all():
        raise InputError(f"{name} holds values that are not finite.")
    return points


def check_labels(values: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return labels (N,) as whole numbers from 0, or raise InputError."""
    labels = np.asarray(values)
    if labels.shape != (count,):
        raise InputError(f"labels has shape {labels.shape}; {count} slices need ({count},).")
    if count and (labels.dtype.kind not in "iub" or labels.min() < 0):
        raise InputError("labels are indices of classes: whole numbers from 0.")
    return labels.astype(np.int64)


def check_ids(values: ArrayLike, count: int, name: str) -> NDArray[np.str_]:
    """Return ids (N,) as text, or raise InputError."""
    ids = np.asarray(values)
    if ids.shape != (count,):
        raise InputError(f"{name} has shape {ids.shape}; {count} slices need ({count},).")
    return ids.astype(str)
