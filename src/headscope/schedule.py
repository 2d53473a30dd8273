"""What decides a training beside its data: rates, orders and class weights, without torch.

Training and what trains a recorded head again (`analysis.retrain`) both read it, so that the second
follows the first.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rate_of(
    epoch: int,
    *,
    learning_rate: float,
    schedule: str,
    epochs: int,
    drop_every: int,
    drop_factor: float,
) -> float:
    """Return the learning rate of `epoch`, counted from 0."""
    if schedule == "cosine":
        return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
    return learning_rate * drop_factor ** (epoch // drop_every)


def epoch_order(
    rows: NDArray[Any], seed: int, epoch: int, classes: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the order of an epoch: a function of (seed, epoch) and the arguments alone.

    With the classes (n,) of `rows` as many are drawn with replacement, each class equally often on
    average; else all of them, once each.
    """
    rng = np.random.default_rng((seed, epoch))
    if classes is None:
        return rng.permutation(rows)
    share = balanced_weights(classes, int(classes.max()) + 1)[classes]
    return rng.choice(rows, size=len(rows), p=share / share.sum())


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Return n / (K · n_k) of each class, (K,), of labels (n,); 0 of a class without any.

    The mean weight of a label is 1. Source: King & Zeng 2001, Political Analysis 9:137.
    """
    counts = np.bincount(labels, minlength=classes)
    present = (counts > 0).sum()
    return np.divide(len(labels), present * counts, out=np.zeros(classes), where=counts > 0)


def has_stopped(losses: list[float], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no validation loss below the lowest before."""
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience
