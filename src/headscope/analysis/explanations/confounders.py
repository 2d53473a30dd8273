"""Confounder tests by conditional permutation: does a prediction depend on age, sex or site?

Both permute what the null leaves free, and only that. The partial test permutes the covariate among
subjects of one class; the full test permutes the labels among subjects of one covariate value, or,
where the covariate is a quantity, by how probable each label is given it.

References
----------
Berrett et al. 2020, J. R. Statist. Soc. B 82(1), 175–197 (conditional permutation);
Spisak 2022, GigaScience 11, giac082 (partial and full confounder test).
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import stats

from headscope.analysis.units import Array

PERMUTATIONS = 999
STEPS = 50  # rounds of swaps to and from the hub of the chains: Berrett et al., section 4
DEGREE = 2  # of the logistic regression of the label on a quantity: exact for normal classes
_CELLS = 20_000_000  # of permuted covariates at once


@dataclass(frozen=True)
class Permuted:
    """The p of a test by permutation, and how many there were; NaN and 0 where nothing is free."""

    p: float
    permutations: int


def partial_test(
    scores: Array,
    labels: Array,
    covariate: Array,
    groups: Array | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Permuted:
    """Test whether predictions are independent of a covariate, given the label.

    Rejected: the predictions also tell the covariate. The covariate is permuted among the subjects
    of one class (and group), which is exact; the statistic is the squared covariance of scores and
    covariate within them, of ranks for a quantity, over the categories else (as in Kruskal and
    Wallis), summed over the columns of scores. p = (b + 1) / (P + 1), two-sided (Phipson & Smyth
    2010).

    scores (n, m) have one column for two classes, else one per class; labels (n,) are whole
    numbers; covariate (n,) is numbers, or text for categories, without missing values; groups (n,)
    number subjects that may be exchanged, such as those of a fold (all by default).
    """
    cells = _cells(labels, groups)
    if not _varies(covariate, cells):
        return Permuted(nan, 0)
    residual = _centre(scores, cells)  # (n, m)
    columns = _columns(covariate)  # (n, L)
    rng = np.random.default_rng(seed)
    observed = ((columns.T @ residual) ** 2).sum()
    beyond, block = 0, max(1, _CELLS // max(columns.size, 1))
    for start in range(0, permutations, block):
        size = min(block, permutations - start)
        order = _permute(cells, size, rng)  # (P, n)
        products = np.einsum("pnl,nm->plm", columns[order], residual)
        beyond += int(((products**2).sum(axis=(1, 2)) >= observed * (1 - 1e-9)).sum())
    return Permuted((beyond + 1) / (permutations + 1), permutations)


def full_test(
    scores: Array,
    labels: Array,
    covariate: Array,
    groups: Array | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    reference: tuple[Array, Array] | None = None,
) -> Permuted:
    """Test whether predictions are independent of the label, given a covariate.

    Not rejected: the covariate may explain all that the predictions tell of the label. Labels are
    permuted among the subjects of one category (and group), which is exact; given a quantity, by
    chains of swaps whose odds follow a logistic regression of the label on it. The statistic sums
    the scores of the labels, less what the covariate says of the scores. p = (b + 1) / (P + 1),
    one-sided: predictions tell more of the label.

    Arrays are those of `partial_test`; one column of scores is that of class 1. reference: labels
    and covariates of the subjects on which the regression is fitted, those of the test by default;
    more make it better.
    """
    rng = np.random.default_rng(seed)
    if _is_number(covariate):
        cells = _cells(np.zeros(len(labels), dtype=int), groups)
        design = np.vander(_standardise(covariate, covariate), DEGREE + 1)
    else:
        levels = np.unique(covariate, return_inverse=True)[1]
        cells = _cells(levels, groups)
        design = np.eye(levels.max() + 1)[levels]
    if not _varies(labels.astype(str), cells):
        return Permuted(nan, 0)
    residual = scores - design @ np.linalg.lstsq(design, scores, rcond=None)[0]  # (n, m)
    if _is_number(covariate):
        log_odds = _label_odds(labels, covariate, reference or (labels, covariate))
        permuted = _swap(labels, log_odds, cells, permutations, rng)  # (P, n)
    else:
        permuted = labels[_permute(cells, permutations, rng)]
    classes = [1] if scores.shape[1] == 1 else range(scores.shape[1])
    observed, drawn = 0.0, np.zeros(permutations)
    for column, k in zip(residual.T, classes, strict=True):
        observed += column @ (labels == k)
        drawn += (permuted == k) @ column
    tolerance = 1e-9 * np.abs(residual).sum()
    return Permuted(
        (int((drawn >= observed - tolerance).sum()) + 1) / (permutations + 1), permutations
    )


def differs_by_class(labels: Array, covariate: Array) -> float:
    """Return the p of a covariate being alike in all classes; NaN where it or they do not vary.

    Kruskal and Wallis 1952 for numbers, the chi-squared test of independence for categories.
    """
    if len(np.unique(labels)) < 2 or len(np.unique(covariate)) < 2:
        return nan
    if _is_number(covariate):
        return float(stats.kruskal(*(covariate[labels == k] for k in np.unique(labels))).pvalue)
    counts = stats.contingency.crosstab(covariate, labels).count
    return float(stats.chi2_contingency(counts).pvalue)


def _is_number(covariate: Array) -> bool:
    return np.issubdtype(covariate.dtype, np.number)


def _cells(labels: Array, groups: Array | None) -> list[Array]:
    """Return the rows of each label in each group."""
    groups = np.zeros(len(labels), dtype=int) if groups is None else groups
    number = np.unique(np.column_stack([groups, labels]), axis=0, return_inverse=True)[1].ravel()
    return [np.flatnonzero(number == cell) for cell in range(int(number.max(initial=-1)) + 1)]


def _varies(values: Array, cells: list[Array]) -> bool:
    """Whether a permutation within cells could change anything."""
    return any(len(np.unique(values[rows])) > 1 for rows in cells)


def _centre(scores: Array, cells: list[Array]) -> Array:
    centred = np.array(scores, dtype=np.float64)
    for rows in cells:
        centred[rows] -= centred[rows].mean(axis=0)
    return centred


def _columns(covariate: Array) -> Array:
    """Return a covariate as columns (n, L): its ranks, or its categories, each of unit length."""
    if _is_number(covariate):
        ranks = stats.rankdata(covariate)[:, None]
        return (ranks - ranks.mean()) / max(float(np.linalg.norm(ranks - ranks.mean())), 1e-12)
    levels = np.unique(covariate, return_inverse=True)[1]
    columns = np.eye(levels.max() + 1)[levels]
    return columns / np.sqrt(columns.sum(axis=0))


def _permute(cells: list[Array], permutations: int, rng: np.random.Generator) -> Array:
    """Return orders (P, n) that exchange rows within cells alone."""
    order = np.empty((permutations, sum(map(len, cells))), dtype=np.int64)
    for rows in cells:
        order[:, rows] = rng.permuted(np.tile(rows, (permutations, 1)), axis=1)
    return order


def _standardise(covariate: Array, reference: Array) -> Array:
    spread = float(reference.std())
    return (covariate - reference.mean()) / (spread if spread > 0 else 1.0)


def _label_odds(labels: Array, covariate: Array, reference: tuple[Array, Array]) -> Array:
    """Return log q(k | covariate) of each subject, (n, K), by logistic regression."""
    from sklearn.linear_model import LogisticRegression  # takes a second

    all_labels, everyone = reference
    if len(np.unique(all_labels)) < 2 or not set(labels) <= set(all_labels):
        all_labels, everyone = labels, covariate
    powers = np.arange(1, DEGREE + 1)
    design = _standardise(everyone, everyone)[:, None] ** powers
    model = LogisticRegression(C=100.0, max_iter=1000).fit(design, all_labels)
    logs = np.full((len(labels), int(max(all_labels.max(), labels.max())) + 1), -np.inf)
    logs[:, model.classes_] = model.predict_log_proba(
        _standardise(covariate, everyone)[:, None] ** powers
    )
    return logs


def _swap(
    labels: Array,
    log_odds: Array,
    cells: list[Array],
    permutations: int,
    rng: np.random.Generator,
) -> Array:
    """Return labels (P, n) permuted by how probable they are given the covariate.

    Algorithm 2 of Berrett et al.: a chain of swaps leads from the labels to a hub, and one from
    there to each permutation; then labels and permutations are exchangeable under the null. All
    chains draw the same pairs, the one to the hub in reverse: given the pairs a round undoes itself
    as likely as not, so that the labels are one more end of a chain from the hub.
    """
    rounds = [_draw_pairs(cells, rng) for _ in range(STEPS)]
    hub = _chains(labels[None, :], log_odds, rounds[::-1], rng)
    return _chains(np.repeat(hub, permutations, axis=0), log_odds, rounds, rng)


def _draw_pairs(cells: list[Array], rng: np.random.Generator) -> Array:
    """Return random pairs of rows of one cell, (2, n / 2); of an odd number one stays alone."""
    pairs = [rng.permutation(rows)[: len(rows) // 2 * 2].reshape(2, -1) for rows in cells]
    return np.concatenate(pairs, axis=1)


def _chains(labels: Array, log_odds: Array, rounds: list[Array], rng: np.random.Generator) -> Array:
    """Return chains (P, n) after rounds, in each of which pairs (2, m) swap labels or do not."""
    labels = labels.copy()
    for one, two in rounds:
        a, b = labels[:, one], labels[:, two]
        odds = log_odds[one, b] + log_odds[two, a] - log_odds[one, a] - log_odds[two, b]
        swapped = np.log(rng.random(odds.shape)) < -np.logaddexp(0, -odds)
        labels[:, one], labels[:, two] = np.where(swapped, b, a), np.where(swapped, a, b)
    return labels
