"""What two rows of a final layer show (Fig. 3), beside what training forces on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isinf, isnan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from headscope.analysis.arrays import check_head, check_pair
from headscope.analysis.final_layer.fits import DEGREES, PolynomialFit, polynomial_fits
from headscope.analysis.final_layer.null import (
    NAN,
    Array,
    Pair,
    Shrinkage,
    beside_null,
    covariance,
    displacement_ratio,
    pearson,
    row_sum_shrinkage,
)
from headscope.analysis.final_layer.relation import (
    ALPHA,
    NO_FEATURES,
    TWO_CLASSES,
    LearnedNull,
    no_reference,
    relation,
)
from headscope.analysis.final_layer.shuffles import beside_shuffles, shuffle_count
from headscope.tables import Shown, Table
from headscope.threads import one_blas_thread

MATERIAL = 0.005
MOST_CLASSES = 10  # up to which every pair is asked


@dataclass(frozen=True, eq=False, repr=False)
class PairAnalysis(Shown):
    """Two rows of a final layer, their correlation and the part of it that training forces.

    Undefined numbers are NaN, and `notes` says why. Source: docs/science.md, sections 2 and 3;
    Khagi & Kwon 2022, Fig. 3.

    Attributes
    ----------
    class_names, pair
        The two classes, and their rows.
    class_count, feature_count
        K and D of the whole layer.
    x, y
        The two rows, (D,) each.
    r
        Their Pearson correlation.
    spearman
        Their rank correlation, ties at their mean rank.
    slope, orthogonal_slope
        Of y on x by least squares, and of the line nearest to the points (total least squares).
    sum_variance, difference_variance, sum_difference_covariance
        Sample moments of s = x + y and d = x − y.
    r_identity
        r from those three alone; equal to `r` but for rounding.
    r_null
        r if the row sum is the one that training cannot change, the learned part is as large as
        observed, and the two are unrelated. For K = 2: (var s − var d) / (var s + var d).
    r_conserved
        As `r_null`, with the observed covariance of sum and learned part: what conservation
        alone forces on this head. NaN without an initial head.
    r_learned
        Correlation of the rows less the mean row, the learned part: −1 for K = 2 whatever was
        learned, −1 / (K − 1) for K unrelated rows of equal spread and independent features.
    r_unrelated, r_unrelated_low, r_unrelated_high
        Mean, 2.5% and 97.5% quantile of `r_learned` in heads retrained on labels permuted by
        subject (`relation.learned_null`). NaN where there are none.
    related_p
        Share of labellings that move some pair as far from its mean as the true one moves this:
        p adjusted for `pairs_asked` pairs. NaN where there are no such heads.
    retrained_heads
        How many.
    withheld
        Why `related` is not judged; '' if it is.
    no_null
        Why no null is given, as by an optimiser that does not conserve the row sum; '' if it is.
        Without it `r_null`, `residual`, `null_slope`, `r_conserved`, drift and shrinkage are NaN
        or None.
    residual
        r − r_null.
    residual_low, residual_high
        Its 95% interval over 1,000 bootstrap draws of the features (`null.residual_interval`).
    null_slope
        Slope of y on x under the null.
    null_source
        Whence the null takes the row sum.
    shrinkage, shrinkage_estimated
        Factor by which weight decay shrank the row sum: of the record, or else estimated by
        regressing the row sum on the initial one. None without an initial head.
    row_sum_drift
        max |row sum − predicted row sum|. NaN without an initial head.
    drift_limit
        The drift that rounding explains: 0.001 of the standard deviation of the predicted row
        sum, or 1e-5 of the largest weights that cancel in it (0.004, that of half precision,
        where the shrinkage was estimated). NaN without an initial head.
    displacement_ratio
        Spread of the learned part over that of the conserved part; about 1 when untrained,
        infinite where nothing is conserved, as in a head that started at zero. For K = 2:
        sqrt(var d / var s), of the sum and difference as observed.
    pairs_asked
        The pairs for which p and intervals are adjusted: every pair of up to 10 classes.
    fits
        Polynomials of degree 1 to 4, fewer where D is too small, each beside its shuffles.
    """

    class_names: tuple[str, str]
    pair: tuple[int, int]
    class_count: int
    feature_count: int
    x: Array
    y: Array
    r: float
    spearman: float
    slope: float
    orthogonal_slope: float
    sum_variance: float
    difference_variance: float
    sum_difference_covariance: float
    r_identity: float
    r_null: float
    r_conserved: float
    r_learned: float
    r_unrelated: float
    r_unrelated_low: float
    r_unrelated_high: float
    related_p: float
    retrained_heads: int
    withheld: str
    no_null: str
    residual: float
    residual_low: float
    residual_high: float
    null_slope: float
    null_source: Literal["initial head", "observed row sum"]
    shrinkage: float | None
    shrinkage_estimated: bool
    row_sum_drift: float
    drift_limit: float
    displacement_ratio: float
    pairs_asked: int
    fits: tuple[PolynomialFit, ...]
    notes: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        """Whether the row sum moved as no training by SGD moves it."""
        return self.row_sum_drift > self.drift_limit

    @property
    def conserves_nothing(self) -> bool:
        """Whether the row sum is constant, as of a head that started at zero."""
        return isinf(self.displacement_ratio)

    @property
    def residual_limit(self) -> float:
        """The residual that is not worth a word: 0.005, or what chance gives to few features.

        If sum and difference of two classes are unrelated, their sample correlation c is about
        z / √D, and the residual at most 0.19 c²: below 1.3 / D at z = 2.6 (99%).
        """
        return max(MATERIAL, 1.3 / self.feature_count)

    @property
    def departs(self) -> bool:
        """Whether r departs from the null: the row sum drifted, or the residual is material.

        Of two classes only a drift departs: while the sum is conserved the residual is about
        0.19 · corr(s, d)² at most, and s is drawn before training (docs/science.md, section 2).
        Of more, the interval is widened for all pairs that are asked about (Bonferroni).
        """
        if isnan(self.r) or self.class_count == 2:
            return self.drifted and not isnan(self.r)
        reach = float(stats.norm.isf(0.025 / self.pairs_asked) / stats.norm.isf(0.025))
        low = self.residual - reach * (self.residual - self.residual_low)
        high = self.residual + reach * (self.residual_high - self.residual)
        return self.drifted or ((low > 0 or high < 0) and abs(self.residual) > self.residual_limit)

    @property
    def related(self) -> bool:
        """Whether r_learned differs from that of permuted labels, at 5% over all pairs.

        Never for two classes, whose learned parts are opposite, nor where `withheld` says why it
        is not judged.
        """
        return self.related_p <= ALPHA

    def tables(self) -> Sequence[Table]:
        """The correlation beside its null, and the fits."""
        first, second = self.class_names
        facts = [
            ("features", self.feature_count),
            ("r, Pearson", self.r),
            ("r, null prediction", self.r_null),
            ("r of the learned part", self.r_learned),
            *self._relation_facts(),
            ("residual", self.residual),
            ("  its 95% interval, from", self.residual_low),
            ("  to", self.residual_high),
            ("rank correlation, Spearman", self.spearman),
            ("slope, least squares", self.slope),
            ("slope, orthogonal", self.orthogonal_slope),
            ("displacement ratio", self.displacement_ratio),
            ("drift of the row sum", self.row_sum_drift),
        ]
        fits = [
            (fit.degree, fit.polynomial, fit.r2, fit.f, fit.shuffled_f_high, fit.shuffled_p)
            for fit in self.fits
        ]
        notes = [*self.notes, *([self.withheld] if self.withheld else [])]
        tables = [Table(f"{first} against {second}", ("", "value"), facts, notes)]
        if fits:
            columns = ("degree", f"fit, where {self.fits[0].scaling}", "R²", "F", "95% of F", "p")
            made = self.fits[0].shuffles
            notes = [shuffle_note(made)] if made else []
            tables.append(Table("Polynomial fits", columns, fits, notes))
        return tables

    def _relation_facts(self) -> list[tuple[str, float]]:
        if self.withheld:
            return []
        return [
            ("  its mean on permuted labels", self.r_unrelated),
            ("  95% of it there, from", self.r_unrelated_low),
            ("  to", self.r_unrelated_high),
            ("  p over all pairs", self.related_p),
        ]


@one_blas_thread
def pair_analysis(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    pair: Pair = (0, 1),
    shrinkage: float | None = None,
    learned: LearnedNull | None = None,
    asked: Sequence[Pair] | None = None,
    no_null: str = "",
) -> PairAnalysis:
    """Correlate and fit two rows of a final layer, beside what training forces on them.

    Parameters
    ----------
    weight, bias, initial
        (K, D), (K,) and (K, D); the last before training, if known.
    class_names
        K names; 'class 0', 'class 1' … if left out.
    pair
        The rows on the x and the y axis.
    shrinkage
        Factor by which weight decay shrank the row sum (`sum_shrinkage`); estimated from the two
        sums if left out.
    learned
        Heads retrained on permuted labels (`relation.learned_null`); without them no pair is
        taken to be related.
    asked
        The pairs for which p and intervals are adjusted; by default every pair of up to 10
        classes, or this one of more.
    no_null
        Why training does not conserve the row sum, so that there is no null (`null_obstacle`).

    Raises
    ------
    InputError
        The shapes do not agree, a value is not finite, or the pair names no two rows.

    Examples
    --------
    >>> weight = np.array([[1.0, -2.0, 0.5, 0.1], [-1.0, 2.0, -0.5, 0.2]])
    >>> pair = hs.pair_analysis(weight)
    >>> pair.feature_count, round(pair.spearman, 2)
    (4, -1.0)
    """
    W, start, names = check_head(weight, bias, initial, class_names)
    K, D = W.shape
    first, second = pair = check_pair(pair, K)
    x, y = W[first], W[second]
    row_sum = W.sum(axis=0)  # (D,)
    decay = row_sum_shrinkage(W, start, shrinkage)
    family = list(asked or class_pairs(K, pair))
    tied = start if not no_null else None
    learned = learned or no_reference(TWO_CLASSES if K == 2 else NO_FEATURES)
    standing = relation(learned, pair, family)
    return PairAnalysis(
        class_names=(names[first], names[second]),
        pair=pair,
        class_count=K,
        feature_count=D,
        x=x,
        y=y,
        spearman=pearson(stats.rankdata(x), stats.rankdata(y)),
        slope=covariance(x, y) / covariance(x, x) if covariance(x, x) > 0 else NAN,
        orthogonal_slope=_orthogonal_slope(x, y),
        r_learned=pearson(x - row_sum / K, y - row_sum / K),
        r_unrelated=standing.expected,
        r_unrelated_low=standing.low,
        r_unrelated_high=standing.high,
        related_p=standing.p,
        retrained_heads=learned.heads,
        withheld=learned.reason,
        no_null=no_null,
        shrinkage=None if tied is None else decay.factor,
        shrinkage_estimated=decay.estimated and not no_null,
        displacement_ratio=displacement_ratio(W),
        pairs_asked=len(family),
        fits=_fits(W, tied, decay, pair, 0 if no_null else shuffle_count(D, len(family))),
        notes=(no_null,) if no_null else _notes(W, pair, names, start, decay),
        **beside_null(W, tied, decay, pair, observed=not no_null),
    )


def _fits(
    W: Array, start: Array | None, decay: Shrinkage, pair: Pair, shuffles: int
) -> tuple[PolynomialFit, ...]:
    """Fit one row by the other, beside shuffles of the conserved part against the rest."""
    fits, rows = polynomial_fits(*W[[*pair]]), [*pair]
    if not shuffles:
        return fits
    mean = W.sum(axis=0) / len(W)
    conserved = np.tile(mean, (2, 1)) if start is None else decay.factor * start[rows]
    return beside_shuffles(fits, conserved, W[rows] - conserved, shuffles)


def class_pairs(class_count: int, first: Pair = (0, 1)) -> list[Pair]:
    """Return every pair of up to 10 classes, or the first pair alone of more."""
    if class_count > MOST_CLASSES:
        return [first]
    return [(i, j) for i in range(class_count) for j in range(i + 1, class_count)]


def shuffle_note(shuffles: int) -> str:
    """Say what the p of a fit stands for."""
    return (
        f"p: share of {shuffles:,} shuffles of what training conserves against what was learned "
        "whose F reaches that of the fit."
    )


def _orthogonal_slope(x: Array, y: Array) -> float:
    """Return the slope of the first principal axis; infinite where it is vertical."""
    xx, yy, xy = covariance(x, x), covariance(y, y), covariance(x, y)
    if xy == 0:
        return NAN if xx == yy else 0.0 if xx > yy else float("inf")
    return (yy - xx + hypot(yy - xx, 2 * xy)) / (2 * xy)


def _notes(
    W: Array,
    pair: tuple[int, int],
    names: Sequence[str],
    initial: Array | None,
    decay: Shrinkage,
) -> tuple[str, ...]:
    notes = [
        f"The weights to {names[row]} are all equal: their correlation is undefined."
        for row in pair
        if np.ptp(W[row]) == 0
    ]
    distinct = len(np.unique(W[pair[0]]))
    if not notes and distinct <= max(DEGREES):
        notes.append(f"{distinct} distinct weights determine no fit above degree {distinct - 1}.")
    if initial is None:
        notes.append("No initial head is recorded: the null takes the row sum as observed.")
    elif decay.estimated and not initial.any():
        notes.append("The head started at zero: there was no row sum for weight decay to shrink.")
    elif decay.estimated:
        notes.append(
            "The weight decay is not known: that it shrank the row sum to "
            f"{decay.factor:.4f} of the initial one was estimated by regressing one on the other."
        )
    return tuple(notes)
