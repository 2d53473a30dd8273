"""What training forces on two rows of weights, whatever the data are, and what departs from it.

Rows of a final layer trained by SGD on softmax cross-entropy are tied: the gradients of the K
rows sum to zero, so their sum keeps what the initialisation left in it, but for weight decay.
The correlation of two rows then measures how far training moved the head, not what it saw.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Pair = tuple[int, int]
NAN = float("nan")
DRAWS = 1000
BLOCK = 512  # rows of which a copy is in memory
ROUNDING = 1e-5  # of the largest weights: what float32 loses in training
BFLOAT16 = 4e-3  # what a head and its start lose where they are stored in half precision


class Null(NamedTuple):
    """r and the slope under the null, and r with the observed covariance of sum and rest."""

    r: float
    slope: float
    r_conserved: float


def sum_shrinkage(learning_rates: ArrayLike, weight_decay: float, momentum: float = 0.0) -> float:
    """Return the factor by which weight decay alone shrinks the sum of the rows.

    The loss pushes the sum by zero, so SGD moves it by the linear recurrence of its weight decay
    (`torch.optim.SGD` without dampening or Nesterov), one learning rate per step. Trainings one
    after another, each begun without momentum, multiply their factors. Source: docs/science.md,
    section 2; Π(1 − η λ) without momentum.
    """
    total, velocity = 1.0, 0.0
    for rate in np.asarray(learning_rates, dtype=np.float64).ravel().tolist():
        velocity = momentum * velocity + weight_decay * total
        total -= rate * velocity
    return total


class Shrinkage(NamedTuple):
    """The factor that weight decay left on the row sum, and whether it was estimated."""

    factor: float
    estimated: bool


def row_sum_shrinkage(W: Array, initial: Array | None, recorded: float | None) -> Shrinkage:
    """Return the recorded factor of weight decay, or else estimate it from the two row sums.

    Training conserves each entry of the sum but for one common factor, so the row sum is regressed
    on the initial one without an intercept. Weight decay neither grows a sum nor turns it, so the
    factor is held to 0 to 1; it is 1 for a sum that starts at zero, and without an initial head.
    Source: docs/science.md, section 2.
    """
    if recorded is not None or initial is None:
        return Shrinkage(1.0 if recorded is None else recorded, estimated=False)
    before = initial.sum(axis=0)
    size = float(before @ before)
    factor = float(W.sum(axis=0) @ before) / size if size > 0 else 1.0
    return Shrinkage(min(1.0, max(0.0, factor)), estimated=True)


def predicted_sum(initial: Array, shrinkage: float) -> Array:
    """Return the row sum (D,) that training leaves of an initial head (K, D)."""
    return shrinkage * initial.sum(axis=0)


def drift_limit(W: Array, predicted: Array, estimated: bool = False) -> float:
    """Return the drift of the row sum that rounding explains, of a recorded or a foreign head."""
    rounding = BFLOAT16 if estimated else ROUNDING
    return max(1e-3 * float(predicted.std()), rounding * _largest_sum(W))


def displacement_ratio(W: Array) -> float:
    """Return the spread of the learned part over the conserved one's, scaled to 1 if untrained.

    K independent rows of equal variance put K − 1 times as much of it into the differences from
    their mean as into the mean itself; for K = 2 the ratio is sqrt(var d / var s). It is infinite
    where the row sum varies no more than float32 rounds, as in a head that started at zero.
    """
    K, mean_row = len(W), W.mean(axis=0)  # (D,)
    conserved = covariance(mean_row, mean_row)
    least = max(W.shape[1] - 1, 1)
    moved = sum(float(np.var(rows - mean_row, axis=1).sum()) for rows in _blocks(W))
    moved *= W.shape[1] / (least * K * (K - 1))
    rounding = ROUNDING * _largest_sum(W) / K
    if sqrt(conserved) > rounding:
        return sqrt(moved / conserved)
    return float("inf") if sqrt(moved) > rounding else NAN


def correlation_from_moments(sum_var: float, difference_var: float, covariance: float) -> float:
    """Return corr(x, y) from var s, var d and cov(s, d) of s = x + y, d = x − y; exact.

    NaN where x or y does not vary. Source: docs/science.md, section 2.
    """
    square = (sum_var + difference_var) ** 2 - 4 * covariance**2
    return (sum_var - difference_var) / sqrt(square) if square > 0 else NAN


def null_prediction(W: Array, mean_row: Array, pair: Pair) -> Null:
    """Split each row into the conserved mean row (D,) and the learned rest; correlate them again.

    The null takes the two as unrelated. For K = 2 the mean row is s / 2 and the learned parts
    are ± d / 2, which gives the formulas in s and d. NaN where a row does not vary.
    """
    a, b = W[list(pair)] - W.mean(axis=0)  # (D,) each
    conserved = covariance(mean_row, mean_row)
    shared = conserved + covariance(a, b)
    variance_a, variance_b = conserved + covariance(a, a), conserved + covariance(b, b)
    product = variance_a * variance_b
    return Null(
        r=shared / sqrt(product) if product > 0 else NAN,
        slope=shared / variance_a if variance_a > 0 else NAN,
        r_conserved=pearson(mean_row + a, mean_row + b),
    )


def beside_null(
    W: Array, start: Array | None, decay: Shrinkage, pair: Pair, *, observed: bool = True
) -> dict[str, Any]:
    """Return the fields of a pair that compare r and the row sum with what training forces on them.

    Without the initial head `start` the null takes the row sum as observed; unless it may be
    `observed` there is no null, and what needs one is NaN.
    """
    x, y = W[pair[0]], W[pair[1]]
    row_sum = W.sum(axis=0)
    s, d = x + y, x - y
    moments = covariance(s, s), covariance(d, d), covariance(s, d)
    predicted = row_sum if start is None else predicted_sum(start, decay.factor)
    null, low, high = Null(NAN, NAN, NAN), NAN, NAN
    if start is not None or observed:
        null = null_prediction(W, predicted / len(W), pair)
        low, high = residual_interval(W, predicted / len(W), pair)
    r = pearson(x, y)
    return {
        "r": r,
        "sum_variance": moments[0],
        "difference_variance": moments[1],
        "sum_difference_covariance": moments[2],
        "r_identity": correlation_from_moments(*moments),
        "r_null": null.r,
        "residual": r - null.r,
        "residual_low": low,
        "residual_high": high,
        "null_slope": null.slope,
        "r_conserved": NAN if start is None else null.r_conserved,
        "row_sum_drift": NAN if start is None else float(np.abs(row_sum - predicted).max()),
        "drift_limit": NAN if start is None else drift_limit(W, predicted, decay.estimated),
        "null_source": "observed row sum" if start is None else "initial head",
    }


def residual_interval(W: Array, mean_row: Array, pair: Pair) -> tuple[float, float]:
    """Return a 95% interval of r − r_null for features drawn as these were.

    Features (columns of W with their entry of the predicted mean row) are drawn 1,000 times with
    replacement. With more than two classes: the percentiles of the residual.

    With two classes the residual of an intact head is r_null · (1/√(1 − κ²) − 1), where κ =
    2 cov(s, d) / (var s + var d): it bends at κ = 0, so its own percentiles would never hold the
    0 of an intact head. Percentiles are taken of its root with the sign of κ, which is smooth,
    and squared (`_size_interval`). What a drift of the row sum adds has percentiles of its own,
    and the two are joined by their distances from the estimates (Zou & Donner 2008, Stat Med
    27:1693).

    Percentiles are widened as Student's t asks of D features (Hesterberg 2015, Am Stat 69:371).
    NaN where no draw has a correlation.
    """
    if np.isnan(pearson(W[pair[0]], W[pair[1]])):
        return NAN, NAN
    D = W.shape[1]
    if len(W) == 2 and np.abs(mean_row - W.mean(axis=0)).max() <= ROUNDING * np.abs(W).max():
        mean_row = W.mean(axis=0)  # a drift of float32's rounding is none
    learned = W[list(pair)] - W.mean(axis=0)
    rows = np.stack([W[pair[0]], W[pair[1]], mean_row, learned[0], learned[1]])
    rows = rows - rows.mean(axis=1, keepdims=True)  # (5, D), against cancellation
    observed = _moments(np.full((1, D), 1 / D), rows)
    drawn = _moments(_shares(D), rows)
    if not len(drawn.r):
        return NAN, NAN
    if len(W) > 2:
        return _percentiles(drawn.r - drawn.r_null, D)
    # r with the observed sum, s and d unrelated: what lies beyond it is the bend, the rest drift
    bent = _bend_interval(observed, drawn, D)
    drift = _percentiles(drawn.r_sum - drawn.r_null, D)
    at_bend = float((observed.r - observed.r_sum)[0])
    at_drift = float((observed.r_sum - observed.r_null)[0])
    low = sqrt((at_bend - bent[0]) ** 2 + max(at_drift - drift[0], 0.0) ** 2)
    high = sqrt((bent[1] - at_bend) ** 2 + max(drift[1] - at_drift, 0.0) ** 2)
    return _zeroed(at_bend + at_drift - low), _zeroed(at_bend + at_drift + high)


class _Moments(NamedTuple):
    """Correlations of weighted features: r as drawn, r_null, r_sum and kappa, one per draw.

    r_sum is the null with the observed sum of two rows.
    """

    r: Array
    r_null: Array
    r_sum: Array
    kappa: Array


def _moments(share: Array, rows: Array) -> _Moments:
    """Return the correlations for each row of `share` (draws, D) in which all are defined."""
    upper = np.triu_indices(5)
    product = np.zeros((5, 5), dtype=np.int64)
    product[upper] = 5 + np.arange(15)
    means = share @ np.vstack([rows, rows[upper[0]] * rows[upper[1]]]).T  # (draws, 5 + 15)

    def moment(i: int, j: int) -> Array:
        value: Array = means[:, product[i, j]] - means[:, i] * means[:, j]
        return value

    conserved, total = moment(2, 2), moment(0, 0) + moment(1, 1)
    observed = moment(0, 0) * moment(1, 1)
    expected = (conserved + moment(3, 3)) * (conserved + moment(4, 4))
    usable = (observed > 0) & (expected > 0)
    return _Moments(
        r=np.clip(moment(0, 1)[usable] / np.sqrt(observed[usable]), -1, 1),
        r_null=np.clip((conserved + moment(3, 4))[usable] / np.sqrt(expected[usable]), -1, 1),
        r_sum=2 * moment(0, 1)[usable] / total[usable],
        kappa=(moment(0, 0) - moment(1, 1))[usable] / total[usable],
    )


def _bend_interval(observed: _Moments, drawn: _Moments, D: int) -> tuple[float, float]:
    root = np.sign(drawn.kappa) * np.sqrt(np.abs(drawn.r - drawn.r_sum))
    near, far = _size_interval(root, D)
    negative, positive = _percentiles(np.sign(drawn.r_sum), D)
    # the residual has the sign of r: both, where the draws do not agree on it
    edges = [sign * size**2 for sign in (negative, positive) for size in (near, far)]
    at = float((observed.r - observed.r_sum)[0])
    return min(*edges, at), max(*edges, at)


def _zeroed(edge: float) -> float:
    return 0.0 if abs(edge) < 1e-12 else edge


def _size_interval(root: Array, D: int) -> tuple[float, float]:
    """Return an interval of the size of what has these draws.

    A size near 0 can be missed on one side alone, so that side may take the whole 5%: the lower
    limit is one-sided until the size is told from 0 by a whole interval.
    """
    low, high = _percentiles(root, D)
    far, half = max(abs(low), abs(high)), (high - low) / 2
    if low <= 0 <= high:
        return 0.0, far
    two_sided = min(abs(low), abs(high))
    one_sided = min(np.abs(_percentiles(root, D, tail=0.05)))
    return two_sided if two_sided >= half else min(float(one_sided), half), far


def _percentiles(values: Array, D: int, tail: float = 0.025) -> tuple[float, float]:
    widened = sqrt(D / (D - 1)) * float(stats.t.isf(tail, D - 1)) if D > 1 else np.inf
    share = float(stats.norm.sf(widened))
    low, high = np.quantile(values, [share, 1 - share])
    return float(low), float(high)


@lru_cache(maxsize=1)
def _shares(D: int) -> Array:
    """Return how often each of 1,000 draws took each feature, as shares (1000, D)."""
    drawn = np.random.default_rng(0).integers(0, D, (DRAWS, D))
    drawn += D * np.arange(DRAWS)[:, np.newaxis]
    share: Array = np.bincount(drawn.ravel(), minlength=DRAWS * D).reshape(DRAWS, D) / D
    share.setflags(write=False)
    return share


def _blocks(W: Array) -> Iterator[Array]:
    """Yield the rows of W in blocks, so that no copy of the whole is made."""
    return (W[start : start + BLOCK] for start in range(0, len(W), BLOCK))


def _largest_sum(W: Array) -> float:
    """Return the largest sum over the rows of absolute weights."""
    return float(sum(np.abs(rows).sum(axis=0) for rows in _blocks(W)).max())


def covariance(a: Array, b: Array) -> float:
    """Return the sample covariance; exactly 0 where either does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(((a - a.mean()) * (b - b.mean())).sum() / (len(a) - 1))


def pearson(x: Array, y: Array) -> float:
    """Return the correlation; NaN where either does not vary."""
    product = covariance(x, x) * covariance(y, y)
    return max(-1.0, min(1.0, covariance(x, y) / sqrt(product))) if product > 0 else NAN
