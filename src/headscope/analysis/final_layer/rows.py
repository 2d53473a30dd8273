"""Each row of a final layer by itself, against its initial self, and among the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from headscope.analysis.final_layer.null import NAN, Array

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
        (Levene's about medians). Both tests take the weights as independent draws.
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
        (K, K), between the rows as they are; NaN beside a row of zeros.
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
    return tuple(
        _summary(name, W[k], None if initial is None else initial[k])
        for k, name in enumerate(names)
    )


def row_geometry(W: Array) -> Geometry:
    """Return the angles of the rows (K, D), and how near to a simplex the centred ones are."""
    cosines = _cosines(W @ W.T)
    centred = W - W.mean(axis=0)
    K, gram = len(W), centred @ centred.T  # (K, K)
    if K == 2 or np.ptp(W, axis=0).max() == 0:
        return Geometry(cosines, NAN, NAN, NAN)
    norms = np.sqrt(np.diagonal(gram).clip(0))
    apart = _cosines(gram)[~np.eye(K, dtype=bool)]
    simplex = (np.eye(K) - 1 / K) / sqrt(K - 1)
    return Geometry(
        cosines,
        norm_variation=float(norms.std() / norms.mean()),
        cosine_deviation=float(np.abs(apart + 1 / (K - 1)).mean()),
        simplex_distance=float(np.linalg.norm(gram / np.linalg.norm(gram) - simplex)),
    )


def _summary(name: str, row: Array, initial: Array | None) -> RowSummary:
    D, square = len(row), float((row**2).sum())
    centred = row - row.mean()
    varies = D > 1 and np.ptp(row) > 0
    variance = float((centred**2).mean())
    facts = RowSummary(
        class_name=name,
        mean=float(row.mean()),
        sd=float(row.std(ddof=1)) if D > 1 else NAN,
        minimum=float(row.min()),
        maximum=float(row.max()),
        skewness=float((centred**3).mean()) / variance**1.5 if varies else NAN,
        kurtosis=float((centred**4).mean()) / variance**2 - 3 if varies else NAN,
        quantiles=tuple(np.quantile(row, QUANTILES).tolist()),
        near_zero=float((np.abs(row) <= NEAR_ZERO * sqrt(square / D)).mean()),
        participation=square**2 / float((row**4).sum()) if square > 0 else NAN,
        norm=sqrt(square),
    )
    return facts if initial is None else _against(facts, row, initial)


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
