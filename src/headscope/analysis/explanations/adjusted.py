"""What an area under the ROC curve is among subjects of the same age, sex or site.

References
----------
Janes & Pepe 2009, Biometrika 96(2), 371–382: the covariate-adjusted ROC curve.
"""

from math import nan
from typing import NamedTuple

import numpy as np

from headscope.analysis.results.pooled import Pool, Test
from headscope.analysis.results.table import Score
from headscope.analysis.units import Array


def adjusted_auc(pool: Pool, covariate: Array, positive: int = 0) -> Score:
    """Return the covariate-adjusted AUC over subjects, with its 95% interval.

    The chance that a subject of the class `positive` is ranked above a subject of the rest who has
    the same value of the covariate (S,): numbers or text, none missing. Categories: the mean of the
    AUC of each category, weighted by its subjects of the class; categories without the rest are
    left out. Numbers: scores less the line that least squares fits to those of the rest, then the
    AUC of these residuals (Janes & Pepe, section 3). Within folds, whose scores are never compared.
    Of more than two classes it is the mean of each class against the rest.
    """
    classes = [positive] if pool.class_count == 2 else list(range(pool.class_count))
    parts = [[_parts(folds, covariate, pool.dealt, k) for k in classes] for folds in pool.seeds]

    def score(counts: Array) -> dict[str, Array]:
        rows = [
            np.mean([_mean_area(part, counts) for part in of_seed], axis=0) for of_seed in parts
        ]
        return {"auc": np.stack(rows)}

    drawn = pool.resampled.apply(score)["auc"]
    if not np.isfinite(drawn.once).all():
        return Score(nan)
    return Score(drawn.mean, *drawn.interval("bca", pool.ratio, bounds=(0.0, 1.0)))


class Part(NamedTuple):
    """Subjects whose scores are compared: of one fold, and of one category or after regression.

    ups, downs: scores of the class and of the rest; what is drawn of them; values of a quantity,
    or None.
    """

    ups: Array
    downs: Array
    up_owner: Array
    down_owner: Array
    up_value: Array | None
    down_value: Array | None


def _parts(folds: tuple[Test, ...], covariate: Array, dealt: Array, k: int) -> list[Part]:
    """Return the parts of a seed's tests, of class `k` against the rest, in which both are."""
    number = np.issubdtype(covariate.dtype, np.number)
    parts = []
    for test in folds:
        units = test.subjects
        scores, values, drawn = units.margin(k), covariate[units.owner], dealt[units.owner]
        for rows in [values == values] if number else [values == v for v in np.unique(values)]:
            up, down = rows & (units.labels == k), rows & (units.labels != k)
            if up.any() and down.any():
                sides = (scores[up], scores[down], drawn[up], drawn[down])
                parts.append(
                    Part(*sides, *((values[up], values[down]) if number else (None, None)))
                )
    return parts


def _mean_area(parts: list[Part], counts: Array) -> Array:
    """Return the mean AUC of the parts over draws (B,), weighted by their subjects of the class."""
    area, weight = np.zeros(len(counts)), np.zeros(len(counts))
    for part in parts:
        up, down = (counts[:, owner].astype(np.float64) for owner in part[2:4])  # (B, n) each
        slopes = np.zeros(len(counts))
        if part.up_value is not None and part.down_value is not None:
            slopes = _slopes(part.down_value, part.downs, down)
        for b, slope in enumerate(slopes):
            total = up[b].sum()
            if total and down[b].any():
                ups, downs = part.ups, part.downs
                if part.up_value is not None and part.down_value is not None:
                    ups, downs = ups - slope * part.up_value, downs - slope * part.down_value
                area[b] += _weighted_ups(ups, downs, up[b], down[b])
                weight[b] += total
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, area / weight, nan)


def _weighted_ups(ups: Array, downs: Array, up: Array, down: Array) -> float:
    """Return the weight of `ups` times the share of `downs` below each, ties counting half."""
    order = np.argsort(downs, kind="stable")
    ranked, below = downs[order], np.append(0.0, np.cumsum(down[order]))
    sides = sum(below[np.searchsorted(ranked, ups, side)] for side in ("left", "right"))
    return float((up * sides).sum() / (2 * below[-1]))


def _slopes(values: Array, scores: Array, weights: Array) -> Array:
    """Return the slope of least squares of scores on values (n,) for each draw's weights (B, n).

    0 where values do not vary, and where a score is infinite.
    """
    if not np.isfinite(scores).all():
        return np.zeros(len(weights))
    x, y = values - values.mean(), scores - scores.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1)
        mean_x, mean_y = weights @ x / total, weights @ y / total
        across = weights @ (x * y) / total - mean_x * mean_y
        spread = weights @ (x * x) / total - mean_x**2
        return np.where(spread > 1e-9 * max(float(x @ x), 1e-12), across / spread, 0.0)
