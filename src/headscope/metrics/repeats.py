"""Intervals at 95% of a mean over repeated trainings: seeds, or seeds of pooled folds."""

from math import inf, sqrt

import numpy as np
from scipy.special import stdtrit

from headscope.metrics.intervals import LEVEL, Way, bootstrap_interval
from headscope.metrics.subjects import Array

# What trainings on shared subjects add to the variance of the mean is in no variance between seeds
# (Bengio & Grandvalet 2004, JMLR 5, 1089–1105). In simulated cohorts it is 0.04 to 0.23 of the
# variance between seeds that the tests explain; `ratio` times this share of it is taken, 0.12 at
# a split of 5:2:3. In a gap, a difference of two trainings on the same cohort, it cancels.
SHARED = 0.2
SHARED_GAP = 0.0


def repeated_interval(
    once: Array,
    drawn: Array,
    left_out: Array,
    stratum: Array,
    way: Way = "expanded",
    ratio: float = 0.6,
    shared: float = SHARED,
    bounds: tuple[float, float] = (-inf, inf),
) -> tuple[float, float] | None:
    """Return the 95% interval of a score's mean over R repeats, or None where draws cannot tell.

    With one repeat it is `bootstrap_interval` and speaks of that network alone: nothing in it
    knows how much another training would differ. With several it speaks of the mean over
    trainings and splits on new cohorts of this size. The draws hold the sampling of the test
    subjects, paired over the repeats. What the variance between repeats exceeds their sampling by
    is due to trainings and splits; it is added as Nadeau and Bengio's (1/R + n_test/n_train)
    times that excess. Both ends then move outward from the mean by the ratio of the standard
    deviations, with Student's quantile at the degrees of freedom of the sum (Satterthwaite).

    Parameters
    ----------
    once
        (R,) the score of each repeat. Folds of one seed are pooled to one repeat first.
    drawn
        (R, B) the same over B draws of the subjects of all tests together, each draw the same
        for all repeats. Draws in which a repeat has no score (NaN) are left out.
    left_out
        (R, S) the same with each subject left out.
    stratum
        (S,) the class of each subject.
    way
        How the bootstrap interval is made (`way_of`).
    ratio
        Test subjects per training subject, n_test / n_train of one fold or split.
    shared
        `SHARED` for a score of a setting, `SHARED_GAP` for a difference of two splits.
    bounds
        The least and the largest value that the score can have.

    Returns
    -------
    tuple[float, float] or None
        None where a repeat has no score, all draws agree or a class has fewer than two subjects.

    References
    ----------
    Nadeau & Bengio 2003, Machine Learning 52, 239–281; Satterthwaite 1946, Biometrics Bulletin
    2(6), 110–114.
    """
    drawn, mean = np.asarray(drawn, dtype=np.float64), float(np.mean(once))
    if not np.isfinite(mean):
        return None
    interval = bootstrap_interval(mean, drawn.mean(axis=0), left_out.mean(axis=0), stratum, way)
    if interval is None:
        return None
    stretch = 1.0
    if len(once) > 1:
        stretch = _stretch(np.asarray(once), drawn, stratum, ratio, shared)
    low, high = (mean + stretch * (end - mean) for end in interval)
    return max(low, bounds[0]), min(high, bounds[1])


def _stretch(once: Array, drawn: Array, stratum: Array, ratio: float, shared: float) -> float:
    """Return how much wider the interval is than that of the sampling of test subjects alone."""
    sizes = np.bincount(stratum)
    subjects, free = len(stratum), int((sizes[sizes > 0] - 1).sum())
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)]  # (R, B)
    # draws spread by (n − 1)/n of what estimates do, within each class
    spread = subjects / free
    sampling = float(drawn.mean(axis=0).var()) * spread
    explained = float((drawn - once[:, None]).var(axis=0, ddof=1).mean()) * spread
    excess = max(0.0, float(once.var(ddof=1)) - explained)
    trainings = excess * (1 / len(once) + ratio)
    total = sampling + excess / len(once) + ratio * max(excess, shared * explained)
    freedom = total**2 / (sampling**2 / free + trainings**2 / (len(once) - 1))
    wide, narrow = (float(stdtrit(f, (1 + LEVEL) / 2)) for f in (min(freedom, free), free))
    return sqrt(total / sampling) * (wide / narrow)


def repeated_draws(once: Array, drawn: Array, stratum: Array, ratio: float = 0.6) -> Array:
    """Return draws of the mean over R repeats (B,), spread as `repeated_interval` spreads them.

    once (R,), drawn (R, B), stratum (S,) and ratio as there.
    """
    mean, draws = float(np.mean(once)), np.asarray(drawn, dtype=np.float64).mean(axis=0)
    if len(once) == 1 or not np.ptp(draws[np.isfinite(draws)]):
        return draws
    return mean + _stretch(np.asarray(once), drawn, stratum, ratio, SHARED) * (draws - mean)
