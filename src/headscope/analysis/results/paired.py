"""Tests of two classifiers on the same subjects: McNemar, DeLong, and Holm over many such tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

Array = NDArray[Any]


@dataclass(frozen=True)
class McNemar:
    """Subjects that only one of two classifiers predicted correctly, and the exact two-sided p.

    p is 1 where they differ on no subject.
    """

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class DeLong:
    """Two areas under the ROC curve over the same subjects, and whether they differ.

    All but the areas are NaN with fewer than two subjects of a class; z and p also where the areas
    differ though no subject's placement varies. p is 1 where the two rank all subjects alike.
    """

    first: float
    second: float
    standard_error: float
    z: float
    p: float

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first - self.second


def mcnemar(first_right: Array, second_right: Array) -> McNemar:
    """Test whether two classifiers err on as many subjects. Source: McNemar 1947, exact form.

    first_right, second_right (S,) say which independent subjects each predicted correctly.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p = min(1.0, 2 * float(bdtr(min(only_first, only_second), differing, 0.5)))
    return McNemar(only_first, only_second, p)


def delong(label: Array, first: Array, second: Array) -> DeLong:
    """Test whether two areas under the ROC curve differ. Source: DeLong et al. 1988, Biometrics 44.

    label (S,) 0 or 1; first, second (S,) the scores for 1 of independent subjects: not of slices,
    which are not independent.
    """
    scores = np.stack([first, second])  # (2, S)
    ups, downs = scores[:, label == 1], scores[:, label == 0]  # (2, m), (2, n)
    m, n = ups.shape[1], downs.shape[1]
    if not m or not n:
        return DeLong(nan, nan, nan, nan, nan)
    above = _placements(ups, downs)  # (2, m): share of the other class below each
    below = 1 - _placements(downs, ups)  # (2, n)
    one, two = (float(area) for area in above.mean(axis=1))
    if m < 2 or n < 2:
        return DeLong(one, two, nan, nan, nan)
    spread = float(np.var(above[0] - above[1], ddof=1) / m)
    spread += float(np.var(below[0] - below[1], ddof=1) / n)
    gap = one - two
    if spread < 1e-24:
        alike = abs(gap) < 1e-12
        return DeLong(one, two, 0.0, 0.0 if alike else nan, 1.0 if alike else nan)
    z = gap / sqrt(spread)
    return DeLong(one, two, sqrt(spread), z, float(2 * ndtr(-abs(z))))


def holm(p: Sequence[float]) -> Array:
    """Return p-values corrected for testing them all; NaN stays and is not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65–70.
    """
    raw = np.asarray(p, dtype=float)
    defined = np.flatnonzero(np.isfinite(raw))
    order = defined[np.argsort(raw[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(raw), nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1)
    return adjusted


def bootstrap_p(drawn: Array) -> float:
    """Return the two-sided p of no difference from differences over draws (B,), never 0.

    The level at which the percentile interval would just reach zero; NaN without draws.
    """
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        return nan
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def _placements(scores: Array, others: Array) -> Array:
    """Return the share of others (2, n) below each score (2, m), ties counting half."""
    shares = []
    for row, rest in zip(scores, np.sort(others, axis=1), strict=True):
        sides = [np.searchsorted(rest, row, side) for side in ("left", "right")]
        shares.append((sides[0] + sides[1]) / (2 * len(rest)))
    return np.stack(shares)
