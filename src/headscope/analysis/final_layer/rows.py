"""Each row of a final layer by itself, against its initial self, and among the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headscope.analysis.final_layer.null import NAN, Array

MOST_ROWS = 1000  # of more, so many at even distances have their angles taken and are tested
BLOCK = 512  # rows that are in memory a second time
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
NEAR_ZERO = 0.1


@dataclass(frozen=True)
class RowSummary:
    """The weights to one class.

    Undefined numbers (of a constant row, of fewer than two features, without an initial head)
    are NaN.

    Attributes
    ----------
    mean, sd, minimum, maximum
        Of the D weights; `sd` with n − 1.
    skewness, kurtosis
        Moments, biased as scipy's default; the kurtosis is 0 for a normal, −1.2 for a uniform.
    quantiles
        At 1, 5, 25, 50, 75, 95 and 99%.
    near_zero
        Share of weights within a tenth of their root mean square: 0.080 of normal ones, 0.058 of
        uniform ones about 0.
    participation
        (Σw²)² / Σw⁴, the number of features that carry the row: D if all weights are as large,
        1 if there is but one; D / 3 for normal weights, 5 D / 9 for uniform ones.
    norm
        Euclidean.
    ks, ks_p
        Kolmogorov–Smirnov distance from the initial weights, its asymptotic p.
    variance_ratio, levene, levene_p
        Variance over that of the initial weights, and the test of Brown and Forsythe 1974
        (Levene's about medians). Both tests take the weights as independent draws. Of more than
        1,000 classes only so many rows at even distances are tested.
    """

    class_name: str
    mean: float
    sd: float
    minimum: float
    maximum: float
    skewness: float
    kurtosis: float
    quantiles: tuple[float, ...]
    near_zero: float
    participation: float
    norm: float
    ks: float = NAN
    ks_p: float = NAN
    variance_ratio: float = NAN
    levene: float = NAN
    levene_p: float = NAN


@dataclass(frozen=True, eq=False)
class Geometry:
    """The angles between the rows.

    Attributes
    ----------
    cosines
        (K, K), between the rows as they are; NaN beside a row of zeros. Of more than 1,000 classes
        between so many rows at even distances; cosine_deviation too is of those.
    norm_variation
        Standard deviation over mean of the norms of the centred rows, W − mean row.
    cosine_deviation
        Mean distance of the cosines between centred rows from the simplex's −1 / (K − 1).
    simplex_distance
        Frobenius distance of the Gram matrix of the centred rows from that of a simplex, both of
        norm 1: 0 for a simplex equiangular tight frame, of which neural collapse speaks.

    The last three are NaN for two classes, where centred rows are opposite whatever was learned,
    and where all rows are equal. Source: Papyan, Han & Donoho 2020, PNAS 117:24652 (NC2, NC3).
    """

    cosines: Array
    norm_variation: float
    cosine_deviation: float
    simplex_distance: float


def row_summaries(W: Array, initial: Array | None, names: Sequence[str]) -> tuple[RowSummary, ...]:
    """Summarise each row of weights (K, D), beside its initial self if values."""
    facts = [
        summary
        for start in range(0, len(W), BLOCK)
        for summary in _summaries(W[start : start + BLOCK], names[start : start + BLOCK])
    ]
    if initial is not None:
        for k in _sample(len(W)).tolist():
            facts[k] = _against(facts[k], W[k], initial[k])
    return tuple(facts)


def row_geometry(W: Array) -> Geometry:
    """Return the angles of the rows (K, D), and how near to a simplex the centred ones are."""
    K, mean_row, rows = len(W), W.mean(axis=0), _sample(len(W))
    sample = W[rows] if len(rows) < K else W
    cosines = _cosines(sample @ sample.T)
    if K == 2 or np.ptp(W, axis=0).max() == 0:
        return Geometry(cosines, NAN, NAN, NAN)
    gram = (sample - mean_row) @ (sample - mean_row).T
    apart = _cosines(gram)[~np.eye(len(rows), dtype=bool)]
    if len(rows) == K:
        norms = np.sqrt(np.diagonal(gram).clip(0))
        simplex = (np.eye(K) - 1 / K) / sqrt(K - 1)
        distance = float(np.linalg.norm(gram / np.linalg.norm(gram) - simplex))
    else:
        norms, distance = _centred_norms(W, mean_row)
    return Geometry(
        cosines,
        norm_variation=float(norms.std() / norms.mean()),
        cosine_deviation=float(np.abs(apart + 1 / (K - 1)).mean()),
        simplex_distance=distance,
    )


def _sample(K: int) -> NDArray[np.int64]:
    """Return the rows whose angles are taken: all, or 1,000 at even distances."""
    return np.arange(K) if K <= MOST_ROWS else np.arange(MOST_ROWS) * K // MOST_ROWS


def _centred_norms(W: Array, mean_row: Array) -> tuple[Array, float]:
    """Return the norms of many centred rows C (K,), and their distance from a simplex.

    C Cᵀ (K, K) has the Frobenius norm of Cᵀ C (D, D), and its product with the Gram matrix of a
    simplex is its trace over √(K − 1), since its rows sum to zero.
    """
    K, D = W.shape
    squares, moments = [], np.zeros((D, D))
    for start in range(0, K, BLOCK):
        centred = W[start : start + BLOCK] - mean_row
        squares.append((centred**2).sum(axis=1))
        moments += centred.T @ centred
    square = np.concatenate(squares)
    alike = float(square.sum()) / (sqrt(K - 1) * float(np.linalg.norm(moments)))
    return np.sqrt(square), sqrt(max(0.0, 2 - 2 * alike))


def _summaries(W: Array, names: Sequence[str]) -> Iterator[RowSummary]:
    """Yield the summaries of some rows (B, D)."""
    D, squares = W.shape[1], W * W
    square, mean = squares.sum(axis=1), W.mean(axis=1)  # (B,)
    centred = W - mean[:, np.newaxis]
    second = centred * centred
    variance, span = second.mean(axis=1), np.ptp(W, axis=1)
    third, fourth = (second * centred).mean(axis=1), (second * second).mean(axis=1)
    quantiles = np.quantile(W, QUANTILES, axis=1).T  # (B, 7)
    limit = NEAR_ZERO * np.sqrt(square / D)
    near_zero = (np.abs(W) <= limit[:, np.newaxis]).mean(axis=1)
    powers, low, high = (squares * squares).sum(axis=1), W.min(axis=1), W.max(axis=1)
    for k, name in enumerate(names):
        varies = D > 1 and span[k] > 0
        yield RowSummary(
            class_name=name,
            mean=float(mean[k]),
            sd=sqrt(float(second[k].sum()) / (D - 1)) if D > 1 else NAN,
            minimum=float(low[k]),
            maximum=float(high[k]),
            skewness=float(third[k] / variance[k] ** 1.5) if varies else NAN,
            kurtosis=float(fourth[k] / variance[k] ** 2) - 3 if varies else NAN,
            quantiles=tuple(quantiles[k].tolist()),
            near_zero=float(near_zero[k]),
            participation=float(square[k] ** 2 / powers[k]) if square[k] > 0 else NAN,
            norm=sqrt(square[k]),
        )


def _against(facts: RowSummary, row: Array, initial: Array) -> RowSummary:
    if len(row) < 2:
        return facts
    values = dict(vars(facts))
    distance = stats.ks_2samp(row, initial, method="asymp")
    values |= {"ks": float(distance.statistic), "ks_p": float(distance.pvalue)}
    if np.ptp(initial) > 0:
        values["variance_ratio"] = float(row.var() / initial.var())
    spread = [np.abs(part - np.median(part)) for part in (row, initial)]
    if max(np.ptp(part) for part in spread) > 0:
        test = stats.levene(row, initial, center="median")
        values |= {"levene": float(test.statistic), "levene_p": float(test.pvalue)}
    return RowSummary(**values)


def _cosines(gram: Array) -> Array:
    norms = np.sqrt(np.diagonal(gram).clip(0))
    product = np.outer(norms, norms)
    cosines = np.full(gram.shape, NAN)
    np.divide(gram, product, out=cosines, where=product > 0)
    return cosines.clip(-1, 1)
