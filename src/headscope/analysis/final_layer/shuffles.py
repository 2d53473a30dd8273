"""The F of each degree of Fig. 3's fits where the conserved part is shuffled against the learned.

Sum and difference of two rows that are unrelated, but not normal, make the conditional mean of one
row given the other bend. The F-test then calls cubic terms significant by itself, so the observed
F is set beside its distribution under shuffles.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.final_layer.fits import EXACT, PolynomialFit
from headscope.analysis.final_layer.null import Array

MOST, FEWEST = 999, 199
WORK = 5e7  # shuffled weights of all pairs of a head: two to three seconds
BLOCK = 2**15  # weights shuffled at once: what a processor holds near
TIES = 1e-9


def shuffle_count(feature_count: int, pairs: int) -> int:
    """Return the number of shuffles per pair: 999, fewer of very wide heads or many pairs."""
    return int(min(MOST, max(FEWEST, WORK / (feature_count * max(pairs, 1)))))


def beside_shuffles(
    fits: Sequence[PolynomialFit], conserved: Array, learned: Array, shuffles: int
) -> tuple[PolynomialFit, ...]:
    """Return the fits with the distribution of their F under shuffles; (2, D) each part.

    The conserved part is permuted over the features, both rows alike, and the learned part stays.
    Where the initial head is known it is the conserved part, as decay left it: initial rows that
    are uniform have a sum and a difference that are unrelated but not independent, and d shuffled
    against s would call three of four barely trained heads cubic. Else it is the mean row: of two
    classes, d is shuffled against s. p is (b + 1) / (shuffles + 1), where b shuffles reach the
    observed F. Source: docs/science.md, section 3; Phipson & Smyth 2010, Stat. Appl. Genet. Mol.
    Biol. 9(1), 39.
    """
    if not fits:
        return ()
    shuffled = shuffled_f(conserved, learned, len(fits), shuffles)  # (shuffles, degrees)
    return tuple(_beside(fit, shuffled[:, k]) for k, fit in enumerate(fits))


def shuffled_f(conserved: Array, learned: Array, degrees: int, shuffles: int) -> Array:
    """Return the F of degrees 1 to `degrees` against the one below, (shuffles, degrees).

    NaN where nothing is left to explain, infinite where a degree explains all that was left.
    """
    D = conserved.shape[1]
    order = _orders(D, shuffles)
    step = max(1, BLOCK // D)
    parts = []
    for start in range(0, shuffles, step):
        some = order[start : start + step]
        moved = conserved.take(some, axis=1) + learned[:, np.newaxis]  # (2, B, D)
        parts.append(sequential_f(moved[0], moved[1], degrees))
    return np.concatenate(parts)


def sequential_f(x: Array, y: Array, degrees: int) -> Array:
    """Return the F of each degree of y (B, D) on x (B, D), by polynomials orthogonal on x.

    Source: Forsythe 1957, J. SIAM 5:74 (three-term recurrence).
    """
    D = x.shape[1]
    z = x - x.mean(axis=1, keepdims=True)
    rest = y - y.mean(axis=1, keepdims=True)
    total = _dot(rest, rest)  # (B,)
    size = _dot(z, z)
    z /= np.sqrt(np.where(size > 0, size / D, 1.0))[:, np.newaxis]
    below, current = np.ones_like(z), z.copy()
    left, norm_below = total, np.full(len(z), float(D))
    scores = np.full((len(z), degrees), np.nan)
    for k in range(degrees):
        norm = _dot(current, current)
        share = _ratio(_dot(current, rest), norm)
        rest -= share[:, np.newaxis] * current
        remaining = _dot(rest, rest)
        remaining[remaining <= EXACT * total] = 0.0
        free = D - k - 2
        if free > 0:
            gain = share**2 * norm
            scores[:, k] = np.where(left > 0, np.inf, np.nan)
            np.divide(gain * free, remaining, out=scores[:, k], where=remaining > 0)
        if k == degrees - 1:
            break
        bend = _ratio(_dot(z * current, current), norm)[:, np.newaxis]
        step = (z - bend) * current - _ratio(norm, norm_below)[:, np.newaxis] * below
        below, current, norm_below, left = current, step, norm, remaining
    return scores


def _beside(fit: PolynomialFit, shuffled: Array) -> PolynomialFit:
    if np.isnan(fit.f) or np.isnan(shuffled).all():
        return fit
    reached = shuffled >= fit.f * (1 - TIES) if np.isfinite(fit.f) else np.isinf(shuffled)
    usable = shuffled[~np.isnan(shuffled)]
    median, high = np.quantile(usable, [0.5, 0.95], method="nearest")
    return replace(
        fit,
        shuffles=len(usable),
        shuffled_f_median=float(median),
        shuffled_f_high=float(high),
        shuffled_p=float((reached.sum() + 1) / (len(usable) + 1)),
    )


@lru_cache(maxsize=1)
def _orders(D: int, shuffles: int) -> NDArray[np.int32]:
    """Return permutations of D features, (shuffles, D), the same at each call."""
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(D, dtype=np.int32), (shuffles, 1)), axis=1)
    order.setflags(write=False)
    return order


def _dot(a: Array, b: Array) -> Array:
    product: Array = np.einsum("bd,bd->b", a, b)
    return product


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
