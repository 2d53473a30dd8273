"""ROC and precision–recall curves over subjects, with bands from draws of subjects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.results.pooled import Array, Pool
from headscope.metrics import Units
from headscope.metrics.intervals import LEVEL

GRID = np.linspace(0.0, 1.0, 51)  # false positive rates, or recalls, at which curves are read
DRAWS = 400


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve over `GRID` and its pointwise 95% band; NaN where a draw lacks a class.

    y, low, high (51,). Over folds and seeds y is the mean of the tests' curves; of more than two
    classes, of each class against the rest.
    """

    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """Sensitivity by false positive rate, precision by recall, and the share of positives."""

    roc: Curve
    precision: Curve
    prevalence: float


def subject_curves(pool: Pool, positive: int) -> Curves | None:
    """Return the curves of a setting's test subjects; None without ids or a class.

    Bands are percentiles over draws of subjects within class, the same for every test. Between
    thresholds the ROC is a straight line (ties are one step), and precision is that of the least
    threshold that reaches the recall.
    """
    if not pool.named:
        return None
    classes = [positive] if pool.class_count == 2 else list(range(pool.class_count))
    parts = [
        (test.subjects, k)
        for test in pool.grouped.tests
        for k in classes
        if 0 < (test.subjects.labels == k).sum() < len(test.subjects.labels)
    ]
    if not parts:
        return None
    drawn = pool.resampled.drawn[:DRAWS]
    counts = np.concatenate([np.ones((1, drawn.shape[1])), drawn])
    roc = np.empty((len(parts), len(counts), len(GRID)))
    precision = np.empty_like(roc)
    for n, (units, k) in enumerate(parts):
        roc[n], precision[n] = _read(units, k, counts)
    share = float(np.mean([(units.labels == k).mean() for units, k in parts]))
    return Curves(_banded(roc), _banded(precision), share)


def _read(units: Units, k: int, counts: Array) -> tuple[Array, Array]:
    """Return sensitivity and precision over `GRID`, (B, 51) each, of draws of subjects (B, S)."""
    margin = units.margin(k)
    order = np.argsort(-margin, kind="stable")
    last = np.append(np.diff(margin[order]) != 0, True)  # where a threshold lies: behind its ties
    weight = counts[:, units.owner[order]].astype(np.float64)  # (B, n)
    positive = (units.labels == k)[order]
    ups = np.cumsum(weight * positive, axis=1)[:, last]
    downs = np.cumsum(weight * ~positive, axis=1)[:, last]
    roc, precision = np.full((2, len(counts), len(GRID)), np.nan)
    for b in np.flatnonzero((ups[:, -1] > 0) & (downs[:, -1] > 0)):
        sensitivity, alarms = ups[b] / ups[b, -1], downs[b] / downs[b, -1]
        roc[b] = _upper(np.append(0, alarms), np.append(0, sensitivity))
        reached = np.searchsorted(sensitivity, GRID - 1e-12)
        precision[b] = (ups[b] / np.maximum(ups[b] + downs[b], 1e-300))[reached]
    return roc, precision


def _upper(x: Array, y: Array) -> Array:
    """Read a rising curve at `GRID`, where it rises straight up at its upper end."""
    place = np.searchsorted(x, GRID, side="right") - 1
    after = np.minimum(place + 1, len(x) - 1)
    width = x[after] - x[place]
    share = np.divide(GRID - x[place], width, out=np.zeros_like(GRID), where=width > 0)
    values: Array = y[place] + share * (y[after] - y[place])
    return values


def _banded(values: Array) -> Curve:
    """Average tests (T, 1 + B, 51) and take the percentiles over their draws."""
    mean = values.mean(axis=0)
    drawn = mean[1:][~np.isnan(mean[1:]).any(axis=1)]
    if not len(drawn):
        nothing = np.full(len(GRID), np.nan)
        return Curve(mean[0], nothing, nothing)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Curve(mean[0], low, high)
