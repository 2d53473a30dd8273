"""The scores themselves, for any number of draws of subjects at once.

A draw is a row of counts (S,): how often each subject is in it. Everything but the ranking
scores follows from sums over each subject's units, so 2,000 draws are one product of matrices.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from headscope.metrics.subjects import Array, Units

BINS = 15
SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auc": "area under the ROC curve",
    "average_precision": "average precision",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
_FINE, _COARSE = 4_096, 1_024  # ranks of a class that draws tell apart; of more, so many
_STEPS = 256  # of a ranking at once, so that what draws hold at them stays in a processor's cache


class Tally(NamedTuple):
    """Sums over the units of each subject; any draw of subjects has its scores from them.

    right, true, predicted (S, K): units of each class that are predicted correctly, that are of
    it, and that are predicted to be; brier (S,): squared errors; gaps (S, BINS): correct
    predictions minus confidences, by bin of confidence.
    """

    right: Array
    true: Array
    predicted: Array
    brier: Array
    gaps: Array


def scores(
    units: Units,
    counts: Array,
    positive: int = 0,
    names: Collection[str] = tuple(SCORES),
    by_class: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return scores of `SCORES` for each draw of subjects, NaN where undefined.

    Of two classes, sensitivity, specificity, average precision, F1 and the Brier score (squared
    error of one probability) are those of class `positive`, and the AUC is the same for both. Of
    more, they are means of one class against the rest over the classes that are present, and the
    Brier score sums over classes, as in scikit-learn. The AUC and average precision rank units by
    `Units.margin`. Balanced accuracy is the mean recall of the classes present. MCC is that of
    Gorodkin 2004, 0 where all predictions are alike, undefined where all labels are. The
    calibration error has 15 bins of equal width by the confidence of the prediction (Guo et al.
    2017).

    Parameters
    ----------
    units
        Slices or subjects; `units.owner` indexes the columns of `counts`.
    counts
        (B, S), how often each subject is in each draw.
    positive
        The class of which sensitivity is the recall.
    names
        The scores asked for.
    by_class
        `class_scores` of the same units and counts, where they are known.

    Returns
    -------
    dict[str, numpy.ndarray]
        (B,) by name.
    """
    classes = units.class_count
    tally = _tally(units, counts.shape[1], positive)
    present = np.flatnonzero(tally.true.sum(axis=0))
    alone = len(present) < 2
    counted = np.array([positive]) if classes == 2 else present
    against = counted if classes == 2 or not alone else present[:0]
    if by_class is None:
        ranked = counted if {"auc", "average_precision"} & set(names) else present[:0]
        by_class = _class_scores(units, counts, tally, ranked)
    undefined = np.full(len(counts), np.nan)
    total = counts @ tally.true.sum(axis=1).astype(counts.dtype)  # (B,)

    def mean(name: str, over: Array) -> Array:
        return by_class[name][:, over].mean(axis=1) if len(over) else undefined

    def share(sums: Array) -> Array:
        return counts @ sums.astype(counts.dtype) / total

    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "accuracy": share(tally.right.sum(axis=1)),
            "balanced_accuracy": mean("sensitivity", present),
            "sensitivity": mean("sensitivity", counted),
            "specificity": mean("specificity", against),
            "auc": undefined if alone else mean("auc", against),
            "average_precision": mean("average_precision", counted),
            "f1": mean("f1", counted),
            "mcc": undefined if alone else _mcc(tally, counts),
            "brier": share(tally.brier),
            "ece": np.abs(counts @ tally.gaps.astype(counts.dtype)).sum(axis=1) / total,
        }
    return {name: values[name] for name in names}


def class_scores(units: Units, counts: Array) -> dict[str, Array]:
    """Return scores of each class against the rest, (B, K), NaN where undefined."""
    tally = _tally(units, counts.shape[1], 0)
    return _class_scores(units, counts, tally, np.arange(units.class_count))


def confusion(units: Units) -> Array:
    """Return counts (K, K): row the class, column the prediction."""
    classes = units.class_count
    cell = units.labels * classes + units.predicted
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def calibration_bins(confidence: Array, bins: int = BINS) -> Array:
    """Return the bin (0 … bins − 1) of each probability (n,): widths equal, upper edges inside."""
    return np.clip(np.ceil(np.nan_to_num(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)


def _class_scores(units: Units, counts: Array, tally: Tally, ranked: Array) -> dict[str, Array]:
    right, true, predicted = (counts @ part.astype(counts.dtype) for part in tally[:3])  # (B, K)
    rest = true.sum(axis=1, keepdims=True) - true
    auc, precision = (np.full((len(counts), units.class_count), np.nan) for _ in range(2))
    for k in ranked:
        inside, margins = units.labels == k, units.margin(k)
        if inside.any() and not np.isnan(margins).any():
            auc[:, k], precision[:, k] = _ranked(margins, inside, units.owner, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": right / true,
            "specificity": (rest - predicted + right) / rest,
            "auc": auc,
            "average_precision": precision,
            "f1": np.where(true > 0, 2 * right / (true + predicted), np.nan),
        }


def _tally(units: Units, subjects: int, positive: int) -> Tally:
    labels, owner, probabilities = units.labels, units.owner, units.probabilities
    classes = units.class_count
    predicted, confidence = units.predicted, probabilities.max(axis=1)
    hit = predicted == labels

    def count(column: Array, width: int, weights: Array | None = None) -> Array:
        cells = np.bincount(owner * width + column, weights, minlength=subjects * width)
        return cells.reshape(subjects, width)

    if classes == 2:
        squares = (probabilities[:, positive] - (labels == positive)) ** 2  # (n,)
    else:
        of_label = probabilities[np.arange(len(labels)), labels]
        squares = (probabilities**2).sum(axis=1) - 2 * of_label + 1
    return Tally(
        right=count(labels, classes, hit.astype(float)),
        true=count(labels, classes),
        predicted=count(predicted, classes),
        brier=np.bincount(owner, squares, minlength=subjects),
        gaps=count(calibration_bins(confidence), BINS, hit - confidence),
    )


def _mcc(tally: Tally, counts: Array) -> Array:
    right, true, predicted = (counts @ part.astype(counts.dtype) for part in tally[:3])  # (B, K)
    total = true.sum(axis=1)
    above = right.sum(axis=1) * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.divide(above, np.sqrt(spread), out=np.zeros_like(above), where=spread > 0)


def _ranked(margins: Array, inside: Array, owner: Array, counts: Array) -> tuple[Array, Array]:
    """Return the Mann-Whitney statistic, ties counting half, and the average precision (B,).

    margins (n,) of units, of which those `inside` (n,) are of the class. Both scores change only
    at margins that the class has, so what each draw holds down to those, and no other, is
    counted: all classes together cost about as much as one. Draws of more than `_FINE` such margins
    take neighbours for equals, `_COARSE` runs of them: the ends of an interval move by far less
    than their own error, the score of the whole is exact.
    """
    run = np.unique(-margins, return_inverse=True)[1]  # (n,) runs of equals, highest first
    held = np.unique(run[inside])  # runs with units of the class
    if len(counts) > 1 and len(held) > _FINE:
        run = np.searchsorted(held, run) * _COARSE // len(held)
        held = np.unique(run[inside])
    step = np.searchsorted(held, run)  # (n,) the first of them at or below each unit
    tied = ~inside & (run == np.append(held, -1)[step])
    if len(counts) == 1:
        once = _ranked_once(step, inside, tied, counts[0][owner], len(held))
        return np.array(once[:1]), np.array(once[1:])
    subjects = counts.shape[1]
    positives, negatives = (
        counts @ np.bincount(owner[which], minlength=subjects).astype(counts.dtype)
        for which in (inside, ~inside)
    )
    above, raised = np.zeros(subjects), np.zeros((len(counts), 1))
    area, precision = np.zeros(len(counts)), np.zeros(len(counts))
    for start in range(0, len(held), _STEPS):
        width = min(_STEPS, len(held) - start)
        block = (step >= start) & (step < start + width)

        def held_by(which: Array, width: int = width, start: int = start) -> Array:
            """Count units by subject and step (S, width)."""
            cells = np.bincount(owner[which] * width + step[which] - start, None, subjects * width)
            return cells.reshape(subjects, width)

        met = held_by(block).cumsum(axis=1) + above[:, None]
        above = met[:, -1]
        gained = counts @ held_by(block & inside).astype(counts.dtype)  # (B, width)
        everything = counts @ met.astype(counts.dtype)
        ups = gained.cumsum(axis=1) + raised[:, -1:].astype(counts.dtype)
        below = negatives[:, None] - everything + ups
        if (block & tied).any():
            below += counts @ held_by(block & tied).astype(counts.dtype) / 2
        raised = ups
        area += (gained * below).sum(axis=1)
        gained *= ups
        precision += np.divide(gained, everything, out=gained, where=everything > 0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return area / (positives * negatives), precision / positives


def _ranked_once(
    step: Array, inside: Array, tied: Array, weight: Array, steps: int
) -> tuple[float, float]:
    """Return what `_ranked` does of one draw, which holds each unit (n,) `weight` times."""

    def held_at(which: Array) -> Array:
        return np.bincount(step[which], weight[which], steps + 1)[:steps]

    gained = held_at(inside)
    everything, ups = held_at(inside | ~inside).cumsum(), gained.cumsum()
    positives, negatives = weight[inside].sum(), weight[~inside].sum()
    below = negatives - everything + ups + held_at(tied) / 2
    share = np.divide(ups, everything, out=np.zeros(steps), where=everything > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (gained * below).sum() / (positives * negatives)
        return area, (gained * share).sum() / positives
