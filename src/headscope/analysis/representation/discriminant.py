"""Fisher's discriminant of each pair of classes, and how far their densities overlap along it."""

from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from headscope.files import NO_ID
from headscope.grouping import deal_folds

Array = NDArray[np.float64]
FOLDS = 5
GRID = 512
BLOCK = 4096  # points whose densities are held at once
LEAST_SHRINKAGE = 1e-6  # what float32 leaves of the smallest variances
CANCELLED = 1e-6  # of the sum of squares: below it a difference of sums is not trusted


def class_means(X: Array, y: NDArray[Any], classes: int) -> Array:
    """Return the mean of each class, (K, D); NaN where a class has no slice."""
    member = np.equal.outer(np.arange(classes), y)  # (K, N)
    count = member.sum(axis=1, keepdims=True)
    sums = member.astype(np.float64) @ X
    return np.divide(sums, count, out=np.full_like(sums, nan), where=count > 0)


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
        if within is None or (rest**2).sum() < CANCELLED * (X**2).sum():
            within = rest.T @ rest  # the given one is a difference of large numbers
        covariance = within / len(X)  # (D, D)
        width = width or X.shape[1]
        shrinkage = ledoit_wolf(rest, covariance, width)
        spread = float(np.trace(covariance)) / width
        if spread > 0:
            covariance *= 1 - shrinkage  # in place
            covariance[np.diag_indices_from(covariance)] += shrinkage * spread
            factor = cho_factor(covariance.T, overwrite_a=True, check_finite=False)
            solved = cho_solve(factor, means.T, check_finite=False).T  # (K, D)
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
        """Return the position of each point on the discriminant of each pair, (N, pairs)."""
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


def held_out_overlap(
    Z: Array, products: Array, y: NDArray[Any], subjects: NDArray[Any], width: int
) -> tuple[float, str]:
    """Return the overlap along directions fitted to other subjects, or NaN and the reason.

    The sums of squares and products of a fold's slices are taken off those of all slices.
    """
    if (subjects == NO_ID).any():
        return nan, "Without subject ids no discriminant can be held out by subject."
    fold = subject_folds(subjects, y, FOLDS)
    if fold is None:
        return nan, "A class has a single subject: no discriminant can be held out by subject."
    K = int(y.max()) + 1
    scores = np.empty((len(Z), K * (K - 1) // 2))
    for part in range(int(fold.max()) + 1):
        out = fold == part
        rest, labels = Z[~out], y[~out]
        if len(np.unique(labels)) < K:
            return nan, "The subjects of a class are too few to hold any of them out."
        within = about_means(products - Z[out].T @ Z[out], rest, labels)
        scores[out] = Discriminant.fit(rest, labels, width, within).scores(Z[out])
    return mean_overlap(scores, y), ""


def mean_overlap(scores: Array, y: NDArray[Any]) -> float:
    """Average the overlap over pairs of classes, the columns of `scores` (N, pairs)."""
    pairs = combinations(range(int(y.max()) + 1), 2)
    areas = [
        density_overlap(scores[y == a, column], scores[y == b, column])
        for column, (a, b) in enumerate(pairs)
    ]
    return float(np.mean(areas))


def density_overlap(a: Array, b: Array) -> float:
    """Return the area that two densities share, 0 to 1, from points on a line.

    Gaussian kernel densities with Scott's bandwidth n^(−1/5) s, on 512 points. A class whose
    points all coincide shares none, unless the other's coincide with them. NaN where a class
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
    """Return one grid per class: one may be far narrower than the other."""
    return [
        np.linspace(c.min() - 5 * w, c.max() + 5 * w, GRID)
        for c, w in zip((a, b), widths, strict=True)
    ]


def _density(points: Array, width: float, grid: Array) -> Array:
    total = np.zeros(len(grid))
    for start in range(0, len(points), BLOCK):
        distance = (grid[:, np.newaxis] - points[start : start + BLOCK]) / width  # (grid, B)
        total += np.exp(-(distance**2) / 2).sum(axis=1)
    return total / len(points) / (width * sqrt(2 * np.pi))


def about_means(products: Array, X: Array, y: NDArray[Any]) -> Array:
    """Return sums of squares and products about the class means, from those about the origin."""
    K = int(y.max()) + 1
    means, count = class_means(X, y, K), np.bincount(y, minlength=K)
    return products - (means.T * count) @ means


def subject_folds(
    subjects: NDArray[Any], y: NDArray[Any], most: int, seed: int | None = None
) -> NDArray[np.int64] | None:
    """Assign subjects to folds, class by class, (N,); None where a class has one subject alone.

    As many folds as the rarest class has subjects, at most `most`. A subject whose sessions have
    different labels counts with the first of them. In the order of their ids, or shuffled.
    """
    _, first, owner = np.unique(subjects, return_index=True, return_inverse=True)
    least = min(len(np.unique(subjects[y == k])) for k in np.unique(y))
    if least < 2:
        return None
    rng = None if seed is None else np.random.default_rng(seed)
    members = [np.flatnonzero(y[first] == k) for k in np.unique(y[first])]
    order = np.concatenate(members if rng is None else [rng.permutation(m) for m in members])
    return deal_folds(y[first], min(most, least), order)[owner]
