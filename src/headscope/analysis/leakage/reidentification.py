"""Do the features tell people apart? Better than diagnoses, and a split by slice is no test.

Two probes of the test slices' features, asked for the subject and, beside it, for the class:
the nearest neighbour and a linear one (ridge regression onto one column a subject or class).
"""

from dataclasses import dataclass

import numpy as np

from headscope.analysis.representation.discriminant import subject_folds
from headscope.analysis.units import (
    Array,
    Slices,
    nearest,
    run_slices,
    standardised,
)
from headscope.record import Run

FOLDS = 5
MOST = 3000  # slices probed: more tell no more, and cost their cube
PROBES = ("nearest_subject", "linear_subject", "nearest_class", "linear_class")
PENALTY = 0.01  # of the ridge, beside a mean squared length of 1: enough to be unique


@dataclass(frozen=True)
class Probe:
    """What a probe reached and what chance would have: fractions, NaN where it cannot be asked."""

    accuracy: float
    chance: float


@dataclass(frozen=True)
class Identity:
    """How well a run's features tell subjects and classes apart, on its test slices.

    over: "sessions" where the same person must be known again from another session, "slices"
    where from other slices of the session, neighbours included. subjects counts those who can be
    asked for, slices theirs. Accuracy of the class is balanced over the classes.
    """

    run: str
    architecture: str
    variant: str
    split: str
    seed: int
    over: str
    subjects: int
    slices: int
    nearest_subject: Probe
    linear_subject: Probe
    nearest_class: Probe
    linear_class: Probe


def reidentify(run: Run) -> Identity | None:
    """Probe a run's features for subject and class; None without ids, or without two subjects.

    Subject. Nearest neighbour: is the nearest other test slice of the same subject? Slices of the
    same session do not count where subjects have several. Linear probe: trained on every other
    session (slice) of each subject, asked about the rest, and the other way round. Only subjects
    who can be found again are asked for. Chance is the share of candidates of the right subject,
    and one in so many subjects.

    Of more than 3,000 slices those of some subjects are probed, drawn at random.

    Class, subjects kept apart. Nearest neighbour among other subjects; linear probe in as many
    folds of subjects as the rarest class has, five at most, and none where it has one subject
    alone. Chance is one in so many classes.
    """
    slices = run_slices(run)
    rows = _some(slices, slices.rows("test"))
    if not slices.named:
        return None
    over, part = _parts(slices, rows)
    known = _asked(slices, rows, part)
    if len(np.unique(slices.subject[rows[known]])) < 2:
        return None
    features = standardised(slices.features, rows)[rows]  # (n, D)
    subject, label = slices.subject[rows], slices.label[rows]
    apart = part[:, None] != part[None, :] if over == "sessions" else ~np.eye(len(rows), dtype=bool)
    return Identity(
        run=run.name,
        architecture=str(run.settings["architecture"]),
        variant=run.setting.variant,
        split=str(run.settings["split"]),
        seed=int(run.settings["seed"]),
        over=over,
        subjects=len(np.unique(subject[known])),
        slices=int(known.sum()),
        nearest_subject=_nearest_subject(features, subject, known, apart),
        linear_subject=_linear_subject(features, subject, part, known),
        nearest_class=_nearest_class(features, subject, label),
        linear_class=_linear_class(features, subject, label),
    )


def ridge_scores(features: Array, targets: Array, queries: Array) -> Array:
    """Return scores (Q, S) of queries (Q, D) by ridge regression of targets (n, S) on (n, D).

    In the dual, so that it costs n³ and not D³; features and targets are centred, and features
    scaled to a mean squared length of 1.
    """
    mean, aim = features.mean(axis=0), targets.mean(axis=0)
    x = (features - mean).astype(np.float64)
    kernel = x @ x.T  # (n, n)
    scale = max(float(np.trace(kernel)) / len(x), np.finfo(float).tiny)
    dual = np.linalg.solve(kernel / scale + PENALTY * np.eye(len(x)), targets - aim)  # (n, S)
    return (queries - mean) @ (x.T @ dual) / scale + aim


def _some(slices: Slices, rows: Array) -> Array:
    """Return the rows of as many subjects, drawn at random, as have `MOST` slices together."""
    if len(rows) <= MOST:
        return rows
    people = np.random.default_rng(0).permutation(np.unique(slices.subject[rows]))
    counts = np.bincount(slices.subject[rows], minlength=slices.subjects)[people]
    kept = people[: max(2, int(np.searchsorted(np.cumsum(counts), MOST, side="right")))]
    return rows[np.isin(slices.subject[rows], kept)]


def _parts(slices: Slices, rows: Array) -> tuple[str, Array]:
    """Return over what a subject is found again, and which session or slice each row is."""
    seen = np.unique(np.column_stack([slices.subject[rows], slices.session[rows]]), axis=0)
    if np.bincount(seen[:, 0]).max() > 1:
        return "sessions", slices.session[rows]
    return "slices", slices.depth[rows]


def _asked(slices: Slices, rows: Array, part: Array) -> Array:
    """Return which rows (n,) are of subjects with two parts or more."""
    seen = np.unique(np.column_stack([slices.subject[rows], part]), axis=0)
    return np.bincount(seen[:, 0], minlength=slices.subjects)[slices.subject[rows]] > 1


def _nearest_subject(features: Array, subject: Array, known: Array, apart: Array) -> Probe:
    rows, asked = np.arange(len(features)), np.flatnonzero(known)
    allowed = apart[asked]  # (Q, n)
    found = nearest(features, asked, rows, allowed)
    same = subject[asked][:, None] == subject[None, :]
    chance = (allowed & same).sum(axis=1) / allowed.sum(axis=1)
    return Probe(float((subject[found] == subject[asked]).mean()), float(chance.mean()))


def _linear_subject(features: Array, subject: Array, part: Array, known: Array) -> Probe:
    """Train on every other part of each subject and ask about the rest, both ways round."""
    people = np.unique(subject[known])
    turn = np.zeros(len(part), dtype=np.int64)
    for person in people:
        own = subject == person
        turn[own] = np.unique(part[own], return_inverse=True)[1] % 2
    targets = (subject[:, None] == people).astype(float)  # (n, S)
    right = []
    for asked in (0, 1):
        train, test = known & (turn != asked), known & (turn == asked)
        scores = ridge_scores(features[train], targets[train], features[test])
        right.append(people[scores.argmax(axis=1)] == subject[test])
    return Probe(float(np.concatenate(right).mean()), 1 / len(people))


def _nearest_class(features: Array, subject: Array, label: Array) -> Probe:
    rows = np.arange(len(features))
    found = nearest(features, rows, rows, subject[:, None] != subject[None, :])
    return _balanced(label[found] == label, label)


def _linear_class(features: Array, subject: Array, label: Array) -> Probe:
    """Ask each fold of subjects of a probe of the others."""
    fold = subject_folds(subject, label, FOLDS)  # (n,)
    if fold is None:
        return Probe(float("nan"), float("nan"))
    classes = np.unique(label)
    targets = (label[:, None] == classes).astype(float)
    right = np.zeros(len(label), dtype=bool)
    for n in np.unique(fold):
        train = fold != n
        scores = ridge_scores(features[train], targets[train], features[~train])
        right[~train] = classes[scores.argmax(axis=1)] == label[~train]
    return _balanced(right, label)


def _balanced(right: Array, label: Array) -> Probe:
    classes = np.unique(label)
    if len(classes) < 2:
        return Probe(float("nan"), float("nan"))
    return Probe(float(np.mean([right[label == k].mean() for k in classes])), 1 / len(classes))
