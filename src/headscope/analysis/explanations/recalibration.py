"""Calibration in the large and calibration slope: are probabilities right in another cohort?

Both recalibrate the log-odds m of a class on logits of its presence y:

    logit P(y) = a + m       a, in the large: 0 if right, below 0 if P is too high on average
    logit P(y) = a' + b m    b, the slope: 1 if right, below 1 if probabilities are too extreme

Source: Cox 1958 (Biometrika 45, 562–565); Van Calster et al. 2019 (BMC Medicine 17:230).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

STEPS = 60  # of the bisection: the bracket shrinks below any rounding
NEWTON = 50
CLOSE = 1e-10  # of a Newton step, in units of the spread of the log-odds
MOST_CELLS = 2_000_000  # draws × subjects at once
Array = NDArray[Any]


def recalibrate(margins: Array, present: Array, counts: Array) -> tuple[Array, Array]:
    """Return calibration in the large and slope over draws of units, (B,) each.

    margins (n,) are log-odds, present (n,) whether the class is there, counts (B, n) how often each
    unit is in each draw. NaN where a draw lacks the class or the rest; the slope is NaN too where a
    threshold separates the two, so that no slope is likeliest.
    """
    margins, present = np.asarray(margins, np.float64), np.asarray(present, np.float64)
    parts = max(1, -(-counts.size // MOST_CELLS))
    results = [
        _recalibrate(margins, present, part.astype(np.float64))
        for part in np.array_split(counts, min(parts, len(counts)))
    ]
    large, slope = zip(*results, strict=True)
    return np.concatenate(large), np.concatenate(slope)


def _recalibrate(margins: Array, present: Array, counts: Array) -> tuple[Array, Array]:
    total, there = counts.sum(axis=1), counts @ present
    defined = (there > 0) & (there < total)
    large, slope = (np.full(len(counts), np.nan) for _ in range(2))
    large[defined] = _in_the_large(margins, there[defined], counts[defined])
    spread = float(margins.std())
    joined = defined & ~_separated(margins, present, counts)
    if spread > 0 and joined.any():
        slope[joined] = _slope(margins / spread, present, counts[joined]) / spread
    return large, slope


def _in_the_large(margins: Array, there: Array, counts: Array) -> Array:
    """Return a (B,) at which as many are expected as observed, by bisection."""
    reach = float(np.abs(margins).max()) + 40
    low, high = (np.full(len(counts), end) for end in (-reach, reach))
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = (counts * expit(middle[:, None] + margins)).sum(axis=1) > there
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def _separated(margins: Array, present: Array, counts: Array) -> Array:
    """Return in which draws (B,) all units of the class are on one side of all the others."""
    inside = counts > 0
    ends = []
    for group in (present == 1, present == 0):
        here = inside & group
        ends.append(
            (np.where(here, margins, np.inf).min(1), np.where(here, margins, -np.inf).max(1))
        )
    (low, high), (other_low, other_high) = ends
    return (low >= other_high) | (high <= other_low)


def _slope(margins: Array, present: Array, counts: Array) -> Array:
    """Return b (B,) of the likeliest a' + b m, by Newton's method with halved steps."""
    a, b = np.zeros(len(counts)), np.zeros(len(counts))

    def loss(a: Array, b: Array) -> Array:
        z = a[:, None] + b[:, None] * margins
        return (counts * (np.logaddexp(0, z) - present * z)).sum(axis=1)

    value = loss(a, b)
    for _ in range(NEWTON):
        p = expit(a[:, None] + b[:, None] * margins)  # (B, n)
        error, weight = counts * (p - present), counts * p * (1 - p)
        g0, g1 = error.sum(axis=1), error @ margins
        h00, h01, h11 = weight.sum(axis=1), weight @ margins, weight @ margins**2
        determinant = np.maximum(h00 * h11 - h01**2, 1e-300)
        step_a, step_b = (
            (h11 * g0 - h01 * g1) / determinant,
            (h00 * g1 - h01 * g0) / determinant,
        )
        size = np.ones(len(counts))
        for _ in range(30):
            worse = loss(a - size * step_a, b - size * step_b) > value + 1e-12 * np.abs(value)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        a, b = a - size * step_a, b - size * step_b
        value = loss(a, b)
        if np.nanmax(np.abs(size * step_b)) < CLOSE:
            break
    return b
