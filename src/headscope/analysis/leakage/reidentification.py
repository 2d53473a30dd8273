"""Re-identification: whether features tell subjects apart, better than they tell classes apart.

Two probes of the test slices' features, for the subject and, beside it, for the class: the
nearest neighbour and a linear one (ridge regression onto one column per subject or class).
"""

from dataclasses import dataclass
from math import nan

import numpy as np

from headscope.analysis.blocks import sample_subjects, take_rows
from headscope.analysis.probes import Array, held_out_correct, ridge_rows, standardise
from headscope.analysis.representation.discriminant import subject_folds
from headscope.analysis.stored import stored
from headscope.analysis.units import Samples, read_samples, run_facts
from headscope.record import Run

FOLDS = 5
MOST = 3000  # slices probed: more add nothing, and cost their cube
PENALTY = 0.01  # of the ridge, of the mean squared length of a slice: enough to be unique


@dataclass(frozen=True)
class Probe:
    """The accuracy of a probe and that of chance: fractions, NaN where undefined."""

    accuracy: float
    chance: float


@dataclass(frozen=True)
class Reidentification:
    """How well a run's features tell subjects and classes apart, on its test slices.

    over: "sessions" where a subject is re-identified from another session, "slices" where from
    other slices of the session, neighbours included. subjects counts those that can be
    re-identified, slices theirs. Accuracy of the class is balanced over the classes.
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


@stored
def reidentify(run: Run) -> Reidentification | None:
    """Probe a run's features for subject and class; None without ids, or without two subjects.

    Subject. Nearest neighbour: is the nearest other test slice of the same subject? Slices of the
    same session do not count where subjects have several. Linear probe: trained on every other
    session (slice) of each subject, tested on the rest, and the other way round. Only subjects
    with two sessions (slices) or more are tested. Chance is the share of candidates of the right
    subject, and one in so many subjects.

    Of more than 3,000 slices those of some subjects are probed, drawn at random.

    Class, subjects kept apart. Nearest neighbour among other subjects; linear probe in as many
    folds of subjects as the rarest class has, five at most, and none where it has one subject
    alone. Chance is one in so many classes.
    """
    samples = read_samples(run)
    rows = samples.rows("test")
    rows = rows[sample_subjects(samples.subject[rows], MOST)]
    if not samples.named:
        return None
    over, part = _parts(samples, rows)
    parts = np.unique(np.column_stack([samples.subject[rows], part]), axis=0)
    asked = np.bincount(parts[:, 0], minlength=samples.subjects)[samples.subject[rows]] > 1
    if len(np.unique(samples.subject[rows[asked]])) < 2:
        return None
    features = standardise(take_rows(samples.features, rows), np.arange(len(rows)))  # (n, D)
    subject, label = samples.subject[rows], samples.label[rows]
    apart = part[:, None] != part[None, :] if over == "sessions" else ~np.eye(len(rows), dtype=bool)
    x = features.astype(np.float64)
    gram = x @ x.T  # (n, n), of which all probes are made
    neighbour = _nearest(gram, np.arange(len(gram)), subject[:, None] != subject[None, :])
    return Reidentification(
        **run_facts(run),
        over=over,
        subjects=len(np.unique(subject[asked])),
        slices=int(asked.sum()),
        nearest_subject=_nearest_subject(gram, subject, asked, apart),
        linear_subject=_linear_subject(x, gram, subject, part, asked),
        nearest_class=_balanced(label[neighbour] == label, label),
        linear_class=_linear_class(x, subject, label, gram),
    )


def _parts(samples: Samples, rows: Array) -> tuple[str, Array]:
    """Return over what a subject is re-identified, and which session or slice each row is."""
    visits = np.unique(np.column_stack([samples.subject[rows], samples.session[rows]]), axis=0)
    if np.bincount(visits[:, 0]).max() > 1:
        return "sessions", samples.session[rows]
    return "slices", samples.depth[rows]


def _nearest(gram: Array, queries: Array, allowed: Array) -> Array:
    """Return the row nearest to each query (Q,) among those allowed (Q, n)."""
    distance = np.diagonal(gram) - 2 * gram[queries]  # less the query's squared length
    distance[~allowed] = np.inf
    neighbour: Array = distance.argmin(axis=1)
    return neighbour


def _nearest_subject(gram: Array, subject: Array, asked: Array, apart: Array) -> Probe:
    queries = np.flatnonzero(asked)
    allowed = apart[queries]  # (Q, n)
    neighbour = _nearest(gram, queries, allowed)
    same = subject[queries][:, None] == subject[None, :]
    chance = (allowed & same).sum(axis=1) / allowed.sum(axis=1)
    return Probe(float((subject[neighbour] == subject[queries]).mean()), float(chance.mean()))


def _linear_subject(x: Array, gram: Array, subject: Array, part: Array, asked: Array) -> Probe:
    """Train on every other part of each subject and test on the rest, both ways round."""
    subjects = np.unique(subject[asked])
    turn = np.zeros(len(part), dtype=np.int64)
    for number in subjects:
        rows = subject == number
        turn[rows] = np.unique(part[rows], return_inverse=True)[1] % 2
    right = []
    for tested in (0, 1):
        train, test = asked & (turn != tested), asked & (turn == tested)
        predicted = ridge_rows(x, gram, subject, train, _penalty(x[train]))
        right.append((predicted == subject)[test])
    return Probe(float(np.concatenate(right).mean()), 1 / len(subjects))


def _linear_class(x: Array, subject: Array, label: Array, gram: Array | None = None) -> Probe:
    """Test each fold of subjects with a probe trained on the others."""
    fold = subject_folds(subject, label, FOLDS)  # (n,)
    if fold is None:
        return Probe(nan, nan)
    correct = held_out_correct(x, label, fold, lambda rows: _penalty(x[rows]), gram)
    return _balanced(correct, label)


def _penalty(x: Array) -> float:
    size = float(((x - x.mean(axis=0)) ** 2).sum()) / len(x)
    return PENALTY * max(size, np.finfo(float).tiny)


def _balanced(right: Array, label: Array) -> Probe:
    classes = np.unique(label)
    if len(classes) < 2:
        return Probe(nan, nan)
    return Probe(float(np.mean([right[label == k].mean() for k in classes])), 1 / len(classes))
