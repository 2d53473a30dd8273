"""How well the features of a run tell sex, site and age of a subject, within class."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import numpy as np

from headscope.analysis.blocks import row_blocks
from headscope.analysis.explanations.covariates import Covariates
from headscope.analysis.probes import held_out_correct, standardise
from headscope.analysis.units import Array, read_samples
from headscope.grouping import deal_folds
from headscope.record import Run

FOLDS = 5
FEWEST = 5  # subjects of a category that is probed
PENALTY = 0.1  # of the ridge, of the mean squared length of a subject's features


@dataclass(frozen=True)
class CovariateProbe:
    """The balanced accuracy of a probe of the features for a covariate, and that of chance.

    NaN where fewer than two categories have five subjects. levels are what it tells apart.
    """

    covariate: str
    levels: tuple[str, ...]
    subjects: int
    accuracy: float
    chance: float


def probe_covariates(
    run: Run, covariates: Covariates, names: Iterable[str]
) -> list[CovariateProbe]:
    """Probe a run's features, averaged over a subject, for covariates of its subjects.

    A ridge classifier is tested on subjects that it was not trained on, in five folds stratified by
    category. The mean of each class is taken from features first, so that what the classes tell
    does not count, nor do classes of one category. A quantity is cut in two at the median of each
    class.
    """
    samples = read_samples(run)
    ids = np.unique(run.features["subject_id"])
    sizes = np.bincount(samples.subject)
    first = np.unique(samples.subject, return_index=True)[1]
    label = samples.label[first]
    features = np.zeros((len(ids), samples.features.shape[1]))
    for part, block in row_blocks(samples.features):
        np.add.at(features, samples.subject[part], block)
    features /= sizes[:, None]
    return [_probe(name, features, label, *covariates.of(name, ids)) for name in names]


def _probe(name: str, features: Array, label: Array, values: Array, given: Array) -> CovariateProbe:
    """Probe features (S, D) for one covariate (S,) where it is given (S,)."""
    level = _levels(values, label, given)
    texts, counts = np.unique(level[given], return_counts=True)
    common = texts[counts >= FEWEST]
    rows = given & np.isin(level, common)
    for k in np.unique(label[rows]):  # a class of one category says nothing within class
        if len(np.unique(level[rows & (label == k)])) < 2:
            rows &= label != k
    common = np.unique(level[rows])
    if len(common) < 2 or min((level[rows] == name).sum() for name in common) < FEWEST:
        return CovariateProbe(name, tuple(common), int(rows.sum()), nan, nan)
    number = np.searchsorted(common, level[rows])
    points = standardise(features[rows], np.arange(int(rows.sum()))).astype(np.float64)
    for k in np.unique(label[rows]):
        points[label[rows] == k] -= points[label[rows] == k].mean(axis=0)
    order = np.random.default_rng(0).permutation(len(number))
    fold = deal_folds(number, FOLDS, order)
    penalty = PENALTY * max(float((points**2).sum(axis=1).mean()), 1e-12)
    correct = held_out_correct(points, number, fold, lambda _: penalty)
    accuracy = float(np.mean([correct[number == k].mean() for k in range(len(common))]))
    return CovariateProbe(name, tuple(map(str, common)), len(number), accuracy, 1 / len(common))


def _levels(values: Array, label: Array, given: Array) -> Array:
    """Return the category of each subject; of a quantity, the half of its class."""
    if not np.issubdtype(values.dtype, np.number):
        return values
    level = np.full(len(values), "", dtype="<U6")
    for k in np.unique(label[given]):
        rows = given & (label == k)
        level[rows] = np.where(values[rows] > np.median(values[rows]), "above", "below")
    return level
