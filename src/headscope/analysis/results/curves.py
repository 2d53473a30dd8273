"""ROC curves over test subjects, folds and seeds together, with bands over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headscope.analysis.results.pooled import Test, pool_runs
from headscope.analysis.results.settings import SettingResult
from headscope.analysis.units import Array
from headscope.metrics import positive_class
from headscope.metrics.intervals import LEVEL

GRID = np.linspace(0, 1, 201)
DRAWS = 500  # of subjects, for the band


@dataclass(frozen=True)
class Roc:
    """An ROC curve over test subjects: true against false positive rate, and the setting's AUC.

    low and high bound the curve at each false positive rate with 95% over draws of subjects;
    empty where a class has fewer than two subjects.
    """

    positive_class: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    auc: float


def subject_roc(result: SettingResult) -> Roc | None:
    """Return the ROC curve of a setting's test subjects; None where it has none.

    Two classes and subject ids are needed, and subjects of both classes. The folds of a seed are
    averaged at each false positive rate by their pairs of subjects, as ranks within folds make
    the AUC, and then the seeds. The band is pointwise.
    """
    names = result.runs[0].class_names
    if result.nameless or len(names) != 2 or not np.isfinite(result.scores["subject_auc"].value):
        return None
    pool, positive = pool_runs(result.runs), positive_class(names)
    counts = np.concatenate([np.ones((1, len(pool.ids))), pool.resampled.drawn[:DRAWS]])
    with np.errstate(invalid="ignore", divide="ignore"):
        seeds = [_average(folds, positive, counts) for folds in pool.seeds]
    curves = np.mean(seeds, axis=0)  # (1 + draws, grid)
    low = high = np.zeros(0)
    if pool.fewest_per_class >= 2:
        low, high = np.nanquantile(curves[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Roc(
        positive_class=names[positive],
        false_positive=tuple(GRID.tolist()),
        true_positive=tuple(curves[0].tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        auc=result.scores["subject_auc"].value,
    )


def _average(folds: Sequence[Test], positive: int, counts: Array) -> Array:
    """Return the curves (B, grid) of a seed's folds, averaged by how many pairs each ranks."""
    total, weight = np.zeros((len(counts), len(GRID))), np.zeros((len(counts), 1))
    for test in folds:
        curves, pairs = _curves(test, positive, counts)
        drawn = pairs > 0  # (B,)
        total[drawn] += pairs[drawn, None] * curves[drawn]
        weight[drawn, 0] += pairs[drawn]
    return total / weight


def _curves(test: Test, positive: int, counts: Array) -> tuple[Array, Array]:
    """Return one test's curve for each draw, (B, grid), and its pairs of subjects, (B,)."""
    margin = test.subjects.margin(positive)
    levels, place = np.unique(-margin, return_inverse=True)  # from the surest downward
    truth = test.subjects.labels == positive
    drawn = counts[:, test.subjects.owner]  # (B, n)
    sums = []
    for inside in (~truth, truth):
        steps = np.zeros((len(counts), len(levels) + 1))
        for n in np.flatnonzero(inside):
            steps[:, place[n] + 1] += drawn[:, n]
        sums.append(steps.cumsum(axis=1))
    negatives, positives = (part[:, -1] for part in sums)
    rates = [part / part[:, -1:] for part in sums]
    curves = np.array([np.interp(GRID, *pair) for pair in zip(*rates, strict=True)])
    return curves, negatives * positives
