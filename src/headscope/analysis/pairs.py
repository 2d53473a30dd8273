"""What two rows of a final layer show (Fig. 3), and what they must show whatever the data are.

Rows of a final layer trained by SGD on softmax cross-entropy are tied: the gradients of the K
rows sum to zero, so their sum keeps what the initialisation left in it, but for weight decay.
The correlation of two rows then measures how far training moved the head, not what it saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.fits import DEGREES, PolynomialFit, polynomial_fits
from headscope.errors import InputError

Array = NDArray[np.float64]
NAN = float("nan")
DRAWS = 1000
MATERIAL = 0.005


@dataclass(frozen=True, eq=False)
class PairAnalysis:
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
    residual
        r − r_null.
    residual_low, residual_high
        Its 95% percentile interval over 1,000 bootstrap draws of the features.
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
    sum_variance: float
    difference_variance: float
    sum_difference_covariance: float
    r_identity: float
    r_null: float
    r_conserved: float
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
        """Whether r departs from the null: the row sum drifted, or the residual is material."""
        apart = self.residual_low > 0 or self.residual_high < 0
        return self.drifted or (apart and abs(self.residual) > self.residual_limit)


def pair_analysis(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    initial_weight: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    pair: tuple[int, int] = (0, 1),
    learning_rates: ArrayLike | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> PairAnalysis:
    """Correlate and fit two rows of a final layer, beside what training forces on them.

    Parameters
    ----------
    weight, bias, initial_weight
        (K, D), (K,) and (K, D); the last before training, if known.
    class_names
        K names; 'class 0', 'class 1' … if left out.
    pair
        The rows on the x and the y axis.
    learning_rates
        One rate a step of the head, from which, with `weight_decay` and `momentum`, the
        shrinkage of the row sum follows.

    Raises
    ------
    InputError
        The shapes do not agree, a value is not finite, or the pair names no two rows.
    """
    W = _matrix(weight, "weight")  # (K, D)
    K, D = W.shape
    names = _names(class_names, K)
    first, second = _check_pair(pair, K)
    if bias is not None and np.shape(bias) != (K,):
        raise InputError(f"bias has shape {np.shape(bias)}; weight {W.shape} needs ({K},).")
    x, y = W[first], W[second]

    shrinkage = None
    if learning_rates is not None:
        shrinkage = sum_shrinkage(learning_rates, weight_decay, momentum)
    row_sum = predicted = W.sum(axis=0)  # (D,)
    if initial_weight is not None:
        initial = _matrix(initial_weight, "initial_weight")
        if initial.shape != W.shape:
            raise InputError(f"initial_weight has shape {initial.shape}, weight {W.shape}.")
        predicted = (1.0 if shrinkage is None else shrinkage) * initial.sum(axis=0)

    s, d = x + y, x - y
    moments = _covariance(s, s), _covariance(d, d), _covariance(s, d)
    null = _null(W, predicted / K, (first, second))
    r = _pearson(x, y)
    has_initial = initial_weight is not None
    low, high = _residual_interval(W, predicted / K, (first, second))
    return PairAnalysis(
        class_names=(names[first], names[second]),
        pair=(first, second),
        class_count=K,
        feature_count=D,
        x=x,
        y=y,
        r=r,
        sum_variance=moments[0],
        difference_variance=moments[1],
        sum_difference_covariance=moments[2],
        r_identity=correlation_from_moments(*moments),
        r_null=null["r_null"],
        r_conserved=null["r_conserved"] if has_initial else NAN,
        residual=r - null["r_null"],
        residual_low=low,
        residual_high=high,
        null_slope=null["null_slope"],
        null_source="initial head" if has_initial else "observed row sum",
        shrinkage=shrinkage if has_initial else None,
        row_sum_drift=float(np.abs(row_sum - predicted).max()) if has_initial else NAN,
        drift_limit=_drift_limit(W, predicted) if has_initial and shrinkage is not None else NAN,
        displacement_ratio=_displacement_ratio(W),
        fits=polynomial_fits(x, y),
        notes=_notes(W, (first, second), names, has_initial, shrinkage),
    )


def sum_shrinkage(learning_rates: ArrayLike, weight_decay: float, momentum: float = 0.0) -> float:
    """Return the factor by which weight decay alone shrinks the sum of the rows.

    The loss pushes the sum by zero, so SGD moves it by the linear recurrence of its weight decay
    (`torch.optim.SGD` without dampening or Nesterov), one learning rate a step. Source:
    docs/science.md, section 2; Π(1 − η λ) without momentum.
    """
    total, velocity = 1.0, 0.0
    for rate in np.asarray(learning_rates, dtype=np.float64).ravel().tolist():
        velocity = momentum * velocity + weight_decay * total
        total -= rate * velocity
    return total


def correlation_from_moments(sum_var: float, difference_var: float, covariance: float) -> float:
    """Return corr(x, y) from var s, var d and cov(s, d) of s = x + y, d = x − y; exact.

    NaN where x or y does not vary. Source: docs/science.md, section 2.
    """
    square = (sum_var + difference_var) ** 2 - 4 * covariance**2
    return (sum_var - difference_var) / sqrt(square) if square > 0 else NAN


def _null(W: Array, mean_row: Array, pair: tuple[int, int]) -> dict[str, float]:
    """Split each row into the conserved mean row and the learned rest; correlate them anew.

    For K = 2 the mean row is s / 2 and the learned parts are ± d / 2, which gives the formulas
    in s and d.
    """
    learned = W - W.mean(axis=0)  # (K, D)
    a, b = learned[pair[0]], learned[pair[1]]
    kept = _covariance(mean_row, mean_row)
    covariance = kept + _covariance(a, b)
    variance_a, variance_b = kept + _covariance(a, a), kept + _covariance(b, b)
    product = variance_a * variance_b
    return {
        "r_null": covariance / sqrt(product) if product > 0 else NAN,
        "r_conserved": _pearson(mean_row + a, mean_row + b),
        "null_slope": covariance / variance_a if variance_a > 0 else NAN,
    }


def _residual_interval(W: Array, mean_row: Array, pair: tuple[int, int]) -> tuple[float, float]:
    """Return the 95% percentile interval of r − r_null, drawing features with replacement.

    A draw takes columns of W together with their entries of the predicted mean row. All its
    moments follow from how often it took each feature, hence from one product of matrices.
    NaN where no draw has a correlation.
    """
    D = W.shape[1]
    learned = W - W.mean(axis=0)
    rows = np.stack([W[pair[0]], W[pair[1]], mean_row, learned[pair[0]], learned[pair[1]]])
    rows = rows - rows.mean(axis=1, keepdims=True)  # (5, D), against cancellation
    drawn = np.random.default_rng(0).integers(0, D, (DRAWS, D))
    drawn += D * np.arange(DRAWS)[:, np.newaxis]
    share = np.bincount(drawn.ravel(), minlength=DRAWS * D).reshape(DRAWS, D) / D
    means = share @ rows.T  # (draws, 5)

    def covariance(i: int, j: int) -> Array:
        known: Array = share @ (rows[i] * rows[j]) - means[:, i] * means[:, j]
        return known

    kept = covariance(2, 2)
    observed = covariance(0, 0) * covariance(1, 1)
    expected = (kept + covariance(3, 3)) * (kept + covariance(4, 4))
    usable = (observed > 0) & (expected > 0)
    if not usable.any() or np.isnan(_pearson(W[pair[0]], W[pair[1]])):
        return NAN, NAN
    r = covariance(0, 1)[usable] / np.sqrt(observed[usable])
    null = (kept + covariance(3, 4))[usable] / np.sqrt(expected[usable])
    low, high = np.quantile(np.clip(r, -1, 1) - np.clip(null, -1, 1), [0.025, 0.975])
    return float(low), float(high)


def _drift_limit(W: Array, predicted: Array) -> float:
    return max(1e-3 * float(predicted.std()), 1e-5 * float(np.abs(W).sum(axis=0).max()))


def _displacement_ratio(W: Array) -> float:
    """Return the spread of the learned part over the conserved one's, scaled to 1 if untrained.

    K independent rows of equal variance put K − 1 times as much of it into the differences from
    their mean as into the mean itself; for K = 2 the ratio is sqrt(var d / var s).
    """
    mean_row = W.mean(axis=0)  # (D,)
    kept = _covariance(mean_row, mean_row)
    moved = sum(_covariance(row, row) for row in W - mean_row) / (len(W) * (len(W) - 1))
    if kept > 0:
        return sqrt(moved / kept)
    return float("inf") if moved > 0 else NAN


def _covariance(a: Array, b: Array) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(((a - a.mean()) * (b - b.mean())).sum() / (len(a) - 1))


def _pearson(x: Array, y: Array) -> float:
    product = _covariance(x, x) * _covariance(y, y)
    return max(-1.0, min(1.0, _covariance(x, y) / sqrt(product))) if product > 0 else NAN


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


def _names(class_names: Sequence[str] | None, K: int) -> list[str]:
    names = [f"class {k}" for k in range(K)] if class_names is None else list(class_names)
    if len(names) != K:
        raise InputError(f"{len(names)} class names were given for {K} rows of weights.")
    return names


def _check_pair(pair: tuple[int, int], K: int) -> tuple[int, int]:
    first, second = pair
    if first == second or not (0 <= first < K and 0 <= second < K):
        raise InputError(f"pair {pair} names no two different rows of 0 to {K - 1}.")
    return first, second
