"""What points tell of labels: their nearest neighbours, and a ridge classifier."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from headscope.analysis.blocks import row_blocks, take_rows

Array = NDArray[Any]
VARIES = 1e-6  # least standard deviation, of the largest mean
BLOCK = 1024  # queries whose distances are held at once


def standardise(features: Array, rows: Array) -> Array:
    """Return features (N, D) with mean 0 and standard deviation 1 over `rows`, in float32.

    Features that do not vary there are left out.
    """
    some = features[rows]
    mean, spread = some.mean(axis=0), some.std(axis=0)
    varying = spread > VARIES * max(float(np.abs(mean).max(initial=0)), VARIES)
    if not varying.all():
        features, mean, spread = features[:, varying], mean[varying], spread[varying]
    scaled = features - mean
    scaled /= spread
    return scaled.astype(np.float32, copy=False)


def nearest(
    points: Array,
    queries: Array,
    candidates: Array,
    allowed: Array | None = None,
    count: int = 1,
) -> Array:
    """Return the candidates nearest to each query by Euclidean distance, nearest first.

    queries (Q,) and candidates (C,) are rows of `points` (N, D), and so is what is returned,
    (Q, count or C); −1 where a query has no more candidates. allowed (Q, C): which candidates count
    for a query; all by default.
    """
    c = points[candidates]
    length = (c**2).sum(axis=1)
    blocks = []
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK]
        distance = length - 2 * points[part] @ c.T  # (Q, C), less the query's squared length
        if allowed is not None:
            distance[~allowed[start : start + BLOCK]] = np.inf
        if count == 1:
            order = distance.argmin(axis=1)[:, None]
        else:
            order = np.argsort(distance, axis=1, kind="stable")[:, :count]
        usable = np.isfinite(np.take_along_axis(distance, order, axis=1))
        blocks.append(np.where(usable, candidates[order], -1))
    return np.concatenate(blocks)


def nearest_standardised(features: Array, queries: Array, candidates: Array) -> Array:
    """Return the row of the candidate (C,) nearest to each query (Q,), of features (N, D).

    Features are standardised over the candidates, as `standardise` does, and read block by block:
    time follows Q × C, memory neither.
    """
    total, squares = np.zeros((2, *features.shape[1:]))
    for _, block in row_blocks(features, candidates):
        total, squares = total + block.sum(axis=0), squares + np.einsum("nd,nd->d", block, block)
    mean = total / len(candidates)
    spread = np.sqrt(np.maximum(squares / len(candidates) - mean**2, 0))
    largest = float(np.abs(mean).max(initial=0))
    scale = np.where(spread > VARIES * max(largest, VARIES), spread, np.inf)  # (D,)

    centre, factor = mean.astype(np.float32), (1 / scale).astype(np.float32)

    def scaled(block: Array) -> Array:
        block -= centre
        block *= factor
        return block

    asked = scaled(take_rows(features, queries, np.float32))
    best, place = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.int64)
    for part, block in row_blocks(features, candidates, np.float32):
        points = scaled(block)
        distance = asked @ points.T
        distance *= -2
        distance += np.einsum("nd,nd->n", points, points)  # less the query's square
        order = distance.argmin(axis=1)
        value = distance[np.arange(len(queries)), order]
        closer = value < best
        best[closer], place[closer] = value[closer], order[closer] + part.start
    return candidates[place]


def ridge_classes(points: Array, labels: Array, queries: Array, penalty: float) -> Array:
    """Return the classes of queries (Q, D) by ridge regression on points (n, D), labels (n,).

    One column per class is regressed; points and columns are centred. Where the points do not
    vary, or have one class, all queries are of the commonest class.
    """
    from sklearn.linear_model import RidgeClassifier  # takes a second

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or not np.ptp(points, axis=0).any():
        return np.full(len(queries), classes[counts.argmax()])
    model = RidgeClassifier(alpha=penalty, solver="cholesky")
    return model.fit(points.astype(np.float64), labels).predict(queries.astype(np.float64))


def ridge_by_gram(gram: Array, labels: Array, train: Array, penalties: Array) -> Array:
    """Return the classes (P, n) of all points by ridge regressions on those of `train` (n,).

    gram (n, n) holds the inner products of the points, which are all that a ridge needs;
    penalties (P,) are above 0. Otherwise as `ridge_classes`.
    """
    inner, across = gram[np.ix_(train, train)], gram[:, train]
    means = inner.mean(axis=0)
    centred = inner - means - means[:, None] + means.mean()
    points = across - across.mean(axis=1)[:, None] - means + means.mean()
    if np.trace(centred) <= 1e-12 * np.trace(inner):
        centred, points = np.zeros_like(inner), np.zeros_like(points)  # the points do not vary
    classes = np.unique(labels[train])
    columns = np.where(labels[train][:, None] == classes, 1.0, -1.0)  # (n of train, K)
    shares, diagonal = columns.mean(axis=0), np.eye(len(centred))
    predicted = []
    for penalty in penalties:
        tied = centred + penalty * diagonal
        dual = solve(tied, columns - shares, assume_a="pos", overwrite_a=True, check_finite=False)
        predicted.append(classes[(points @ dual + shares).argmax(axis=1)])
    return np.stack(predicted)


def ridge_rows(points: Array, gram: Array, labels: Array, train: Array, penalty: float) -> Array:
    """Return the classes (n,) of points (n, D) by a ridge regression on those of `train` (n,).

    By their inner products (n, n), or by the features where these are much fewer.
    """
    if len(points) > 2 * points.shape[1]:
        return ridge_classes(points[train], labels[train], points, penalty)
    predicted: Array = ridge_by_gram(gram, labels, np.flatnonzero(train), np.array([penalty]))[0]
    return predicted


def held_out_correct(
    points: Array,
    labels: Array,
    fold: Array,
    penalty: Callable[[Array], float],
    gram: Array | None = None,
) -> Array:
    """Return which points (n,) a ridge classifier of the other folds predicts correctly.

    penalty returns that of a training part, given which points are in it (n,); gram (n, n) holds
    the inner products of the points, where the caller has them.
    """
    gram = points @ points.T if gram is None else gram
    correct = np.zeros(len(points), dtype=bool)
    for part in np.unique(fold):
        out = fold == part
        predicted = ridge_rows(points, gram, labels, ~out, penalty(~out))
        correct[out] = (predicted == labels)[out]
    return correct
