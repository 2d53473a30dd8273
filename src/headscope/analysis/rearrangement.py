"""Labels that go from subject to subject, and what a test reaches if they say nothing.

Where nothing leaks, a network that was trained on permuted labels knows nothing of those of its
test subjects: any arrangement of their labels among them is as likely as the one drawn. So the
figure of each permutation has a distribution that its own predictions give, however few subjects
a class has and however skewed the figure is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ROUNDS = 50  # arrangements of the test labels of each permutation
STREAM = 0xA44A


@dataclass(frozen=True)
class NoLeak:
    """The mean over a run's permutations, if nothing leaks: mean, variance, third cumulant.

    The figure is the balanced slice accuracy.
    """

    mean: float
    variance: float
    third: float


def donation(label: Array, subject: Array, session: Array) -> Callable[[Array], Array]:
    """Return what gives slices their labels (…, N), once each subject has a donor (…, S).

    label, subject and session (N,) are whole numbers, subject from 0 to S − 1. A subject takes
    the label of its donor; of a donor whose label changes from session to session it takes the
    sequence, stretched or shortened in proportion to its own sessions.
    """
    key = (subject.astype(np.int64) * (session.max() + 1) + session) * (label.max() + 1) + label
    _, row, row_part = np.unique(key, return_index=True, return_inverse=True)
    part_subject, part_label = subject[row], label[row]  # by subject, then session
    length = np.bincount(part_subject)  # (S,) of sessions, or of labels within one
    first = np.cumsum(length) - length
    place = np.full((len(length), int(length.max())), -1)
    place[part_subject, np.arange(len(row)) - first[part_subject]] = part_label
    rank = row_part.ravel() - first[subject]  # (N,) which of its subject's parts a slice is in

    def donate(donors: Array) -> Array:
        donor = donors[..., subject]  # (…, N)
        labels: Array = place[donor, rank * length[donor] // length[subject]]
        return labels

    return donate


def no_leak(predicted: Array, labels: Array, subject: Array, session: Array) -> NoLeak:
    """Return the cumulants of the mean balanced slice accuracy over R permutations.

    predicted (R, n) classes of the test slices; labels (n, R), the permuted ones that hold every
    class; subject and session (n,). `ROUNDS` arrangements of each permutation's labels among the
    test subjects give its distribution; the permutations are independent, so cumulants add.
    """
    owner = np.unique(subject, return_inverse=True)[1]
    rng = np.random.default_rng(STREAM)
    order = np.tile(np.arange(owner.max() + 1), (ROUNDS, 1))
    means, squares, cubes = (np.empty(len(predicted)) for _ in range(3))
    for r, calls in enumerate(predicted):
        donate = donation(labels[:, r], owner, session)
        arranged = donate(rng.permuted(order, axis=1))  # (ROUNDS, n)
        values = _balanced(calls, arranged, np.unique(labels[:, r]))
        values = values[np.isfinite(values)]  # a sequence of labels, shortened, may lose a class
        means[r] = values.mean()
        squares[r] = ((values - means[r]) ** 2).mean() * ROUNDS / (ROUNDS - 1)
        cubes[r] = ((values - means[r]) ** 3).mean()
    count = len(predicted)
    return NoLeak(
        float(means.mean()), float(squares.sum()) / count**2, float(cubes.sum()) / count**3
    )


def _balanced(calls: Array, labels: Array, classes: Array) -> Array:
    """Return the balanced accuracy of calls (n,) for each of labels (J, n), NaN without a class."""
    recalls = []
    for k in classes:
        true = labels == k  # (J, n)
        with np.errstate(invalid="ignore"):
            recalls.append(true[:, calls == k].sum(axis=1) / true.sum(axis=1))
    balanced: Array = np.mean(recalls, axis=0)
    return balanced
