"""Labels permuted by subject, and the score of a test where they carry no information.

Where nothing leaks, a network trained on permuted labels has no information on those of its
test subjects: any arrangement of their labels among them is as likely as the one drawn. So the
score of each permutation has a distribution that its own predictions give, however few subjects
a class has and however skewed the score is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError

Array = NDArray[Any]
ROUNDS = 50  # arrangements of the test labels of each permutation
ARRANGED = 0xA44A  # sets the arrangements' random numbers apart from those of permutations
STREAM = 0x9E37  # sets the permutations' random numbers apart from those of training
TRIES = 1000  # of a permutation, until training and test hold their classes


@dataclass(frozen=True)
class NoLeak:
    """The mean over a run's permutations, if nothing leaks: mean, variance, third cumulant.

    The score is the balanced slice accuracy.
    """

    mean: float
    variance: float
    third: float


def donation(label: Array, subject: Array, session: Array) -> Callable[[Array], Array]:
    """Return what gives slices their labels (…, N), once each subject has a donor (…, S).

    label, subject and session (N,) are whole numbers, subject from 0 to S − 1. A subject takes
    the label of its donor; of a donor whose label changes from session to session it takes the
    sequence, stretched or shortened in proportion to its sessions.
    """
    row, row_part = parts_of(label, subject, session)
    part_subject, part_label = subject[row], label[row]  # by subject, then session
    length = np.bincount(part_subject)  # (S,) of sessions, or of labels within one
    first = np.cumsum(length) - length
    place = np.full((len(length), int(length.max())), -1)
    place[part_subject, np.arange(len(row)) - first[part_subject]] = part_label
    rank = row_part - first[subject]  # (N,) which of its subject's parts a slice is in

    def donate(donors: Array) -> Array:
        donor = donors[..., subject]  # (…, N)
        labels: Array = place[donor, rank * length[donor] // length[subject]]
        return labels

    return donate


def parts_of(label: Array, subject: Array, session: Array) -> tuple[Array, Array]:
    """Return the first row of each part (P,), and the part that each slice is in (N,).

    A part is what takes a label as one: the slices of a session that have the same label. In the
    order of subjects, sessions and labels.
    """
    key = (subject.astype(np.int64) * (session.max() + 1) + session) * (label.max() + 1) + label
    _, first, part = np.unique(key, return_index=True, return_inverse=True)
    return first, part.ravel()


def label_type(label: Array) -> np.dtype[Any]:
    """Return the smallest signed type that holds labels: there are as many as slices × draws."""
    return np.min_scalar_type(-1 - int(label.max(initial=0)))


def no_leak(predicted: Array, labels: Array, subject: Array, session: Array) -> NoLeak:
    """Return the cumulants of the mean balanced slice accuracy over R permutations.

    predicted (R, n) classes of the test slices; labels (n, R), the permuted ones that hold every
    class; subject and session (n,). `ROUNDS` arrangements of each permutation's labels among the
    test subjects give its distribution; the permutations are independent, so cumulants add.
    """
    owner = np.unique(subject, return_inverse=True)[1]
    rng = np.random.default_rng(ARRANGED)
    order = np.tile(np.arange(owner.max() + 1), (ROUNDS, 1))
    means, squares, cubes = (np.empty(len(predicted)) for _ in range(3))
    for r, calls in enumerate(predicted):
        column = labels[:, r].astype(np.int64)
        first, part = parts_of(column, owner, session)
        donate = donation(column[first], owner[first], session[first])
        arranged = donate(rng.permuted(order, axis=1))  # (ROUNDS, P)
        values = _balanced(calls, part, arranged, np.unique(column))
        values = values[np.isfinite(values)]  # a sequence of labels, shortened, may lose a class
        means[r] = values.mean()
        squares[r] = ((values - means[r]) ** 2).mean() * ROUNDS / (ROUNDS - 1)
        cubes[r] = ((values - means[r]) ** 3).mean()
    count = len(predicted)
    return NoLeak(
        float(means.mean()), float(squares.sum()) / count**2, float(cubes.sum()) / count**3
    )


def _balanced(calls: Array, part: Array, labels: Array, classes: Array) -> Array:
    """Return the balanced accuracy of calls (n,) for each of labels (J, P), NaN without a class.

    part (n,) says which of the P labels a slice has; slices are counted by part, exactly.
    """
    slices, recalls = np.bincount(part).astype(np.float64), []
    for k in classes:
        true = (labels == k).astype(np.float64)  # (J, P)
        called = np.bincount(part, calls == k)
        with np.errstate(invalid="ignore"):
            recalls.append(true @ called / (true @ slices))
    balanced: Array = np.mean(recalls, axis=0)
    return balanced


def permute_labels(
    label: Array,
    subject: Array,
    session: Array,
    draws: int,
    seed: int = 0,
    subset: Array | None = None,
) -> NDArray[np.signedinteger[Any]]:
    """Return labels (N, draws), permuted among all subjects, train, validation and test alike.

    They are of the smallest type that holds them.

    A subject's labels go as one: a subject takes the label of another, and all of its slices
    follow, so that as many subjects as before have each label. Of subjects whose label changes
    from session to session the whole sequence goes, stretched or shortened in proportion to the
    sessions of the receiving subject.

    subset (N,) names the subset of each slice. A permutation that takes a class from the training
    or the test subset, which hold it by the true labels, is drawn again: a test without a class
    has no balanced accuracy. The tries of one permutation use random numbers of its own, so a
    permutation is the same whatever became of those before it. With one seed for all runs of a
    setting they share their permutations, but for those that were drawn again.
    """
    first, part = parts_of(label, subject, session)
    donate = donation(label[first], subject[first], session[first])
    subjects = int(subject.max()) + 1
    needed = [(np.unique(part[rows]), classes) for rows, classes in _needed(label, subset)]
    rng = np.random.default_rng((seed, STREAM))
    labels = np.empty((len(label), draws), dtype=label_type(label))
    for r in range(draws):
        drawn = donate(rng.permutation(subjects))  # (P,)
        if not holds_classes(drawn, needed):
            drawn = _drawn_again(donate, subjects, needed, (seed, STREAM, r))
        labels[:, r] = drawn[part]
    return labels


def _needed(label: Array, subset: Array | None) -> list[tuple[Array, Array]]:
    """Return the rows of training and of test, each with the classes that it must hold."""
    if subset is None:
        return []
    rows = [np.flatnonzero(subset == name) for name in ("train", "test")]
    return [(part, np.unique(label[part])) for part in rows]


def holds_classes(label: Array, needed: Sequence[tuple[Array, Array]]) -> bool:
    """Whether labels (N,) hold all of the classes needed in each part: rows and their classes."""
    return all(
        np.bincount(label[rows], minlength=int(classes.max(initial=0)) + 1)[classes].all()
        for rows, classes in needed
    )


def _drawn_again(
    donate: Callable[[Array], Array],
    subjects: int,
    needed: Sequence[tuple[Array, Array]],
    seed: tuple[int, ...],
) -> Array:
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        label = donate(rng.permutation(subjects))
        if holds_classes(label, needed):
            return label
    raise InputError(
        f"None of {TRIES:,} permutations of the labels by subject leaves every class in training "
        f"and in test: some class has too few subjects to be tested against permuted labels."
    )
