"""Features that carry a class's logit, and class rows compared between seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from headscope.analysis.arrays import check_head
from headscope.analysis.blocks import row_blocks
from headscope.analysis.final_layer.null import Array, pearson
from headscope.errors import InputError
from headscope.tables import Shown, Table
from headscope.threads import one_blas_thread


@dataclass(frozen=True, eq=False, repr=False)
class SeedCorrelation(Shown):
    """Correlations of the same row between heads of n seeds.

    rows, learned: (K, n, n), of the rows as they are and of their distance from the mean row;
    NaN where a row is constant. mean_rows, mean_learned: (K,), over pairs of different seeds.
    Rows can be compared where feature j means the same to every seed: on one frozen backbone.
    """

    class_names: tuple[str, ...]
    rows: Array
    learned: Array
    mean_rows: tuple[float, ...]
    mean_learned: tuple[float, ...]

    def tables(self) -> Sequence[Table]:
        """The mean over pairs of seeds, one row per class."""
        rows = list(zip(self.class_names, self.mean_rows, self.mean_learned, strict=True))
        title = f"Correlation of rows between {self.rows.shape[1]} seeds"
        return [Table(title, ("class", "row", "learned part"), rows)]


@dataclass(frozen=True)
class LogitContribution:
    """A feature and what it adds to a class's logit, on average over slices of that class."""

    class_name: str
    feature: int
    contribution: float
    weight: float
    mean_feature: float


@one_blas_thread
def seed_correlation(
    weights: Sequence[ArrayLike], class_names: Sequence[str] | None = None
) -> SeedCorrelation:
    """Correlate each class row between heads of several seeds.

    Parameters
    ----------
    weights
        Two heads or more, (K, D) each.
    class_names
        K names; 'class 0', 'class 1' … if left out.

    Raises
    ------
    InputError
        Fewer than two heads, or of different shapes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(2, 50))
    >>> heads = [shared + 0.1 * rng.normal(size=(2, 50)) for _ in range(3)]
    >>> [row > 0.9 for row in hs.seed_correlation(heads).mean_rows]
    [True, True]
    """
    heads = [check_head(weight, None, None, class_names) for weight in weights]
    shapes = {W.shape for W, _, _ in heads}
    if len(heads) < 2 or len(shapes) > 1:
        raise InputError(f"Two heads or more of one shape are needed; got {sorted(shapes)}.")
    stack = np.stack([W for W, _, _ in heads])  # (n, K, D)
    learned = stack - stack.mean(axis=1, keepdims=True)
    both = [_between(part) for part in (stack, learned)]
    apart = ~np.eye(len(heads), dtype=bool)
    means = [tuple(float(matrix[apart].mean()) for matrix in part) for part in both]
    return SeedCorrelation(tuple(heads[0][2]), both[0], both[1], means[0], means[1])


@one_blas_thread
def logit_contributions(
    weight: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    most: int = 10,
) -> tuple[LogitContribution, ...]:
    """Return the `most` features that carry most of each class's logit, largest first.

    The contribution of feature j to logit k is w[k, j] times the mean of f[:, j] over the slices
    of class k, or over all of them without `labels`; over j, and with the bias, these sum to the
    class's mean logit. A class without slices has none.

    Parameters
    ----------
    weight, features, labels
        (K, D), (N, D) and (N,).
    class_names
        K names; 'class 0', 'class 1' … if left out.
    most
        How many features per class.

    Raises
    ------
    InputError
        features are not (N, D), or labels not (N,).

    Examples
    --------
    >>> weight = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]])
    >>> features = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    >>> [(c.class_name, c.feature) for c in hs.logit_contributions(weight, features, most=1)]
    [('class 0', 2), ('class 1', 1)]
    """
    W, _, names = check_head(weight, None, None, class_names)
    f = np.asarray(features)
    if f.ndim != 2 or f.shape[1] != W.shape[1]:
        raise InputError(f"features have shape {f.shape}; the weights need (N, {W.shape[1]}).")
    label = None if labels is None else np.asarray(labels)
    if label is not None and label.shape != (len(f),):
        raise InputError(f"labels have shape {label.shape}; features {f.shape} need ({len(f)},).")
    contributions = []
    for k, name in enumerate(names):
        inside = np.arange(len(f)) if label is None else np.flatnonzero(label == k)
        if len(inside):
            total = sum(block.sum(axis=0) for _, block in row_blocks(f, inside))
            mean = total / len(inside)  # (D,)
            share = W[k] * mean
            for j in np.argsort(-np.abs(share), kind="stable")[:most].tolist():
                values = (float(part[j]) for part in (share, W[k], mean))
                contributions.append(LogitContribution(name, j, *values))
    return tuple(contributions)


def _between(stack: Array) -> Array:
    """Correlate rows between heads: (n, K, D) → (K, n, n)."""
    return np.array([[[pearson(a, b) for b in row] for a in row] for row in stack.swapaxes(0, 1)])
