"""What two rows of a final layer show (Fig. 3), beside what training forces on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, comb, hypot, isnan, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from headscope.analysis.display import Sheet, Shown
from headscope.analysis.fits import DEGREES, PolynomialFit, polynomial_fits
from headscope.analysis.null import (
    NAN,
    Array,
    Pair,
    correlation_from_moments,
    covariance,
    null_prediction,
    pearson,
    residual_interval,
)
from headscope.errors import InputError

MATERIAL = 0.005
MOST_CLASSES = 10  # up to which every pair is asked


@dataclass(frozen=True, eq=False, repr=False)
class PairAnalysis(Shown):
    """Two rows of a final layer, their correlation and the part of it that training forces.

    Undefined numbers are NaN, and `notes` says why. Source: docs/science.md, sections 2 and 3;
    Khagi & Kwon 2022, Fig. 3.

    Attributes
    ----------
    class_names, pair
        The two classes, and their rows.
    class_count, feature_count
        K and D of the whole layer.
    x, y
        The two rows, (D,) each.
    r
        Their Pearson correlation.
    spearman
        Their rank correlation, ties at their mean rank.
    slope, orthogonal_slope
        Of y on x by least squares, and of the line nearest to the points (total least squares).
    sum_variance, difference_variance, sum_difference_covariance
        Sample moments of s = x + y and d = x − y.
    r_identity
        r from those three alone; equal to `r` but for rounding.
    r_null
        r if the row sum is the one that training cannot change, the learned part is as large as
        observed, and the two are unrelated. For K = 2: (var s − var d) / (var s + var d).
    r_conserved
        As `r_null`, with the observed covariance of sum and learned part: what conservation
        alone forces on this head. NaN without an initial head.
    r_learned
        Correlation of the rows less the mean row, the learned part: −1 for K = 2 whatever was
        learned, −1 / (K − 1) for K unrelated rows of equal spread.
    residual
        r − r_null.
    residual_low, residual_high
        Its 95% interval over 1,000 bootstrap draws of the features (`null.residual_interval`).
    null_slope
        Slope of y on x under the null.
    null_source
        Whence the null takes the row sum.
    shrinkage
        Factor by which weight decay shrank the row sum; None if unknown, then taken as 1.
    row_sum_drift
        max |row sum − predicted row sum|. NaN without an initial head.
    drift_limit
        The drift that rounding explains: 0.001 of the standard deviation of the predicted row
        sum, or 1e-5 of the largest weights that cancel in it. NaN where the null is not of the
        head's own training, initial head and weight decay.
    displacement_ratio
        Spread of the learned part over that of the conserved part; about 1 when untrained. For
        K = 2: sqrt(var d / var s), of the sum and difference as observed.
    fits
        Polynomials of degree 1 to 4, fewer where D is too small.
    """

    class_names: tuple[str, str]
    pair: tuple[int, int]
    class_count: int
    feature_count: int
    x: Array
    y: Array
    r: float
    spearman: float
    slope: float
    orthogonal_slope: float
    sum_variance: float
    difference_variance: float
    sum_difference_covariance: float
    r_identity: float
    r_null: float
    r_conserved: float
    r_learned: float
    residual: float
    residual_low: float
    residual_high: float
    null_slope: float
    null_source: Literal["initial head", "observed row sum"]
    shrinkage: float | None
    row_sum_drift: float
    drift_limit: float
    displacement_ratio: float
    fits: tuple[PolynomialFit, ...]
    notes: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        """Whether the row sum moved as no training by SGD moves it."""
        return self.row_sum_drift > self.drift_limit

    @property
    def residual_limit(self) -> float:
        """The residual that is not worth a word: 0.005, or what chance gives to few features.

        If sum and difference of two classes are unrelated, their sample correlation c is about
        z / √D, and the residual at most 0.19 c²: below 1.3 / D at z = 2.6 (99%).
        """
        return max(MATERIAL, 1.3 / self.feature_count)

    @property
    def departs(self) -> bool:
        """Whether r departs from the null: the row sum drifted, or the residual is material.

        Of more than two classes the interval is widened for all pairs that are asked (Bonferroni).
        """
        reach = float(stats.norm.isf(0.025 / pair_count(self.class_count)) / stats.norm.isf(0.025))
        low = self.residual - reach * (self.residual - self.residual_low)
        high = self.residual + reach * (self.residual_high - self.residual)
        return self.drifted or ((low > 0 or high < 0) and abs(self.residual) > self.residual_limit)

    @property
    def related(self) -> bool:
        """Whether r_learned differs from the −1 / (K − 1) of unrelated rows, at 5% over all pairs.

        By Fisher's z, features taken as independent; never for two classes, where both are −1.
        """
        K, D = self.class_count, self.feature_count
        if K < 3 or D < 4 or isnan(self.r_learned):
            return False
        bounded = min(1 - 1e-12, max(1e-12 - 1, self.r_learned))
        z = abs(atanh(bounded) - atanh(-1 / (K - 1))) * sqrt(D - 3)
        return z > float(stats.norm.isf(0.025 / pair_count(K)))

    def sheets(self) -> Sequence[Sheet]:
        """The correlation beside its null, and the fits."""
        first, second = self.class_names
        facts = [
            ("features", self.feature_count),
            ("r, Pearson", self.r),
            ("r, null prediction", self.r_null),
            ("r of the learned part", self.r_learned),
            ("residual", self.residual),
            ("  its 95% interval, from", self.residual_low),
            ("  to", self.residual_high),
            ("rank correlation, Spearman", self.spearman),
            ("slope, least squares", self.slope),
            ("slope, orthogonal", self.orthogonal_slope),
            ("displacement ratio", self.displacement_ratio),
            ("drift of the row sum", self.row_sum_drift),
        ]
        fits = [
            (fit.degree, fit.equation.partition(", where")[0], fit.r2, fit.bic, fit.p)
            for fit in self.fits
        ]
        sheets = [Sheet(f"{first} against {second}", ("", "value"), facts, self.notes)]
        if fits:
            where = self.fits[0].equation.partition(", ")[2]
            columns = ("degree", f"fit, {where}", "R²", "BIC", "p")
            sheets.append(Sheet("Polynomial fits", columns, fits))
        return sheets


def pair_analysis(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    pair: Pair = (0, 1),
    shrinkage: float | None = None,
) -> PairAnalysis:
    """Correlate and fit two rows of a final layer, beside what training forces on them.

    Parameters
    ----------
    weight, bias, initial
        (K, D), (K,) and (K, D); the last before training, if known.
    class_names
        K names; 'class 0', 'class 1' … if left out.
    pair
        The rows on the x and the y axis.
    shrinkage
        Factor by which weight decay shrank the row sum (`sum_shrinkage`); 1 if left out.

    Raises
    ------
    InputError
        The shapes do not agree, a value is not finite, or the pair names no two rows.
    """
    W, start, names = checked(weight, bias, initial, class_names)
    K, D = W.shape
    first, second = _check_pair(pair, K)
    x, y = W[first], W[second]
    row_sum = W.sum(axis=0)  # (D,)
    predicted = row_sum if start is None else predicted_sum(start, shrinkage)
    s, d = x + y, x - y
    moments = covariance(s, s), covariance(d, d), covariance(s, d)
    null = null_prediction(W, predicted / K, (first, second))
    r = pearson(x, y)
    low, high = residual_interval(W, predicted / K, (first, second))
    known = start is not None
    return PairAnalysis(
        class_names=(names[first], names[second]),
        pair=(first, second),
        class_count=K,
        feature_count=D,
        x=x,
        y=y,
        r=r,
        spearman=pearson(stats.rankdata(x), stats.rankdata(y)),
        slope=covariance(x, y) / covariance(x, x) if covariance(x, x) > 0 else NAN,
        orthogonal_slope=_orthogonal_slope(x, y),
        sum_variance=moments[0],
        difference_variance=moments[1],
        sum_difference_covariance=moments[2],
        r_identity=correlation_from_moments(*moments),
        r_null=null.r,
        r_conserved=null.r_conserved if known else NAN,
        r_learned=pearson(x - row_sum / K, y - row_sum / K),
        residual=r - null.r,
        residual_low=low,
        residual_high=high,
        null_slope=null.slope,
        null_source="initial head" if known else "observed row sum",
        shrinkage=shrinkage if known else None,
        row_sum_drift=float(np.abs(row_sum - predicted).max()) if known else NAN,
        drift_limit=_drift_limit(W, predicted) if known and shrinkage is not None else NAN,
        displacement_ratio=displacement_ratio(W),
        fits=polynomial_fits(x, y),
        notes=_notes(W, (first, second), names, known, shrinkage),
    )


def pair_count(class_count: int) -> int:
    """Return how many pairs of classes are asked: every pair of up to 10 classes, one of more."""
    return comb(class_count, 2) if class_count <= MOST_CLASSES else 1


def displacement_ratio(W: Array) -> float:
    """Return the spread of the learned part over the conserved one's, scaled to 1 if untrained.

    K independent rows of equal variance put K − 1 times as much of it into the differences from
    their mean as into the mean itself; for K = 2 the ratio is sqrt(var d / var s).
    """
    mean_row = W.mean(axis=0)  # (D,)
    kept = covariance(mean_row, mean_row)
    moved = float(np.var(W - mean_row, axis=1, ddof=1).sum()) if W.shape[1] > 1 else 0.0
    moved /= len(W) * (len(W) - 1)
    if kept > 0:
        return sqrt(moved / kept)
    return float("inf") if moved > 0 else NAN


def predicted_sum(initial: Array, shrinkage: float | None) -> Array:
    """Return the row sum (D,) that training leaves of an initial head (K, D)."""
    return (1.0 if shrinkage is None else shrinkage) * initial.sum(axis=0)


def checked(
    weight: ArrayLike,
    bias: ArrayLike | None,
    initial: ArrayLike | None,
    class_names: Sequence[str] | None,
) -> tuple[Array, Array | None, list[str]]:
    """Return weight (K, D), the initial one or None, and K names; InputError if they disagree."""
    W = _matrix(weight, "weight")
    names = [f"class {k}" for k in range(len(W))] if class_names is None else list(class_names)
    if len(names) != len(W):
        raise InputError(f"{len(names)} class names were given for {len(W)} rows of weights.")
    if bias is not None and np.shape(bias) != (len(W),):
        raise InputError(f"bias has shape {np.shape(bias)}; weight {W.shape} needs ({len(W)},).")
    if initial is None:
        return W, None, names
    start = _matrix(initial, "initial")
    if start.shape != W.shape:
        raise InputError(f"initial has shape {start.shape}, weight {W.shape}.")
    return W, start, names


def _orthogonal_slope(x: Array, y: Array) -> float:
    """Return the slope of the first principal axis; infinite where it stands upright."""
    xx, yy, xy = covariance(x, x), covariance(y, y), covariance(x, y)
    if xy == 0:
        return NAN if xx == yy else 0.0 if xx > yy else float("inf")
    return (yy - xx + hypot(yy - xx, 2 * xy)) / (2 * xy)


def _drift_limit(W: Array, predicted: Array) -> float:
    return max(1e-3 * float(predicted.std()), 1e-5 * float(np.abs(W).sum(axis=0).max()))


def _notes(
    W: Array,
    pair: tuple[int, int],
    names: Sequence[str],
    has_initial: bool,
    shrinkage: float | None,
) -> tuple[str, ...]:
    notes = [
        f"The weights to {names[row]} are all equal: their correlation is undefined."
        for row in pair
        if np.ptp(W[row]) == 0
    ]
    distinct = len(np.unique(W[pair[0]]))
    if not notes and distinct <= max(DEGREES):
        notes.append(f"{distinct} distinct weights determine no fit above degree {distinct - 1}.")
    if not has_initial:
        notes.append("No initial head is recorded: the null takes the row sum as observed.")
    elif shrinkage is None:
        notes.append("The weight decay is not known: the null takes the initial sum as it was.")
    return tuple(notes)


def _matrix(values: ArrayLike, name: str) -> Array:
    matrix: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise InputError(f"{name} has shape {matrix.shape}; (K, D) with K of 2 or more is needed.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} holds values that are not finite.")
    return matrix


def _check_pair(pair: tuple[int, int], K: int) -> tuple[int, int]:
    first, second = pair
    if first == second or not (0 <= first < K and 0 <= second < K):
        raise InputError(f"pair {pair} names no two different rows of 0 to {K - 1}.")
    return first, second
