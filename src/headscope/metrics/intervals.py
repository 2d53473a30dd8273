"""Intervals at 95%: a bootstrap over subjects within class, and Wilson's for shares of subjects."""

from math import nan, sqrt
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats takes 0.6 s to load

from headscope.metrics.subjects import Array

LEVEL = 0.95
Way = Literal["expanded", "bca", "percentile"]
_NORMAL = float(ndtri((1 + LEVEL) / 2))
# Figures of draws are single precision; a spread below this is rounding.
_ALIKE = 1e-6


def bootstrap_interval(
    value: float, drawn: Array, left_out: Array, stratum: Array, way: Way = "expanded"
) -> tuple[float, float] | None:
    """Return the 95% interval of a score, or None where the draws cannot tell.

    drawn (B,) are its values over draws of subjects; left_out (S,) those with each subject left
    out; stratum (S,) each subject's class. `bca` corrects percentiles for bias and skewness.
    `expanded` then moves them outward, since draws spread by n − 1 over n less than estimates do,
    and the normal quantile behind them should be Student's with n − K degrees of freedom. Both
    reach too far the coarser a score is (bench/coverage.py), so means over slices are expanded,
    ranks of subjects are BCa, and counts of subjects take the `percentile` as it is. Where every
    draw gives the same (all correct, or one class predicted for all), or a class has but one
    subject or none, the bootstrap cannot say how sure the score is: no interval rather than one
    too narrow.
    Sources: Efron 1987, JASA 82, 171–185; Davison & Hinkley 1997, section 5.3.2 for strata;
    Hesterberg 2015, The American Statistician 69(4), 371–386, for the expansion.
    """
    drawn = drawn[np.isfinite(drawn)]
    sizes = np.bincount(stratum)
    sizes = sizes[sizes > 0]
    if 0 in (len(drawn), len(sizes)) or (sizes < 2).any() or np.ptp(drawn) < _ALIKE:
        return None
    if way == "percentile":
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)
    below = np.mean(drawn < value - _ALIKE) + np.mean(np.abs(drawn - value) <= _ALIKE) / 2
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    reach = bias + (_reach(sizes) if way == "expanded" else _NORMAL) * np.array([-1, 1])
    tails = bias + reach / np.maximum(1 - _acceleration(left_out, stratum) * reach, _ALIKE)
    low, high = np.quantile(drawn, ndtr(tails))
    return float(low), float(high)


def way_of(score: str) -> Way:
    """Return how the interval of a score is made, by its name, as "subject_auc"."""
    level, quantity = score.split("_", 1)
    if level == "slice" or quantity == "brier":
        return "expanded"
    return "bca" if quantity in ("auc", "average_precision") else "percentile"


def _reach(sizes: Array) -> float:
    """Return how many standard deviations of the draws the interval reaches to either side."""
    subjects, free = int(sizes.sum()), int((sizes - 1).sum())
    return sqrt(subjects / free) * float(stdtrit(free, (1 + LEVEL) / 2))


def _acceleration(left_out: Array, stratum: Array) -> float:
    """Return a sixth of the skewness of the subjects' influence on the score."""
    if not np.isfinite(left_out).all():
        return 0.0
    sizes = np.maximum(np.bincount(stratum), 1)
    means = np.bincount(stratum, left_out) / sizes
    influence = (means[stratum] - left_out) * (1 - 1 / sizes[stratum])
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > 1e-18 else 0.0


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share, right of count; NaN of none. Source: Wilson 1927."""
    if count == 0:
        return nan, nan
    share, squared = right / count, _NORMAL**2
    wide = 2 * (count + squared)
    middle = (2 * count * share + squared) / wide
    reach = _NORMAL / wide * sqrt(4 * count * share * (1 - share) + squared)
    return middle - reach if right else 0.0, middle + reach if right < count else 1.0
