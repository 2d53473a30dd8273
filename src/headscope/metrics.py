"""Slice and subject figures with 95% intervals over subjects.

The unit of inference is the subject: slices of one head are near copies of each other, so
intervals resample subjects, never slices (docs/science.md, section 7).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.files import NO_ID

DRAWS = 2000
Array = NDArray[Any]
Value = dict[str, float | None]
_CHUNK_BYTES = 64 * 2**20


class Units(NamedTuple):
    """What a figure counts, slices or subjects: labels (n,), probabilities (n, K), owner (n,)."""

    labels: Array
    probabilities: Array
    owner: Array


def subset_figures(
    labels: Array,
    probabilities: Array,
    subject_ids: Array,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return slice and subject accuracy, balanced accuracy and AUC of one subset.

    labels (N,) index into the classes; probabilities (N, K); subject_ids (N,).
    Each figure is {"value", "low", "high"} as a fraction, with a percentile interval from a
    bootstrap over subjects within class; None where it is undefined (AUC with one class only; the
    interval also where every draw gives the same figure).
    A subject's probability is the mean over its slices. A subject whose sessions bear different
    labels counts once for each of them, and is drawn as one. Where it is not known whom a slice
    shows there are no subjects (0): their figures are None, and so are all intervals.
    """
    if (np.asarray(subject_ids) == NO_ID).any():
        return _without_subjects(labels, probabilities)
    people, owner = np.unique(subject_ids, return_inverse=True)  # (S,), (N,)
    draws_of_people = _draw_subjects(labels, owner, len(people), draws, seed)  # (draws, S)
    slices = Units(labels, probabilities, owner)
    figures: dict[str, Any] = {"slices": len(labels), "subjects": len(people)}
    for level, units in (("slice", slices), ("subject", subject_level(*slices))):
        ones = np.ones((1, len(units.labels)))
        for name, figure in FIGURES.items():
            value = figure(units.labels, units.probabilities, ones)[0]
            drawn = _in_chunks(figure, units, draws_of_people)
            figures[f"{level}_{name}"] = _with_interval(value, drawn)
    return figures


def _without_subjects(labels: Array, probabilities: Array) -> dict[str, Any]:
    """Return the figures of slices alone."""
    figures: dict[str, Any] = {"slices": len(labels), "subjects": 0}
    ones = np.ones((1, len(labels)), dtype=np.float32)
    for name, figure in FIGURES.items():
        value = figure(labels, probabilities, ones)[0]
        figures[f"slice_{name}"] = _with_interval(value, np.empty(0))
        figures[f"subject_{name}"] = _with_interval(np.nan, np.empty(0))
    return figures


def run_figures(predictions: pd.DataFrame, class_names: list[str]) -> dict[str, Any]:
    """Return `subset_figures` of each subset of a run's `predictions.tsv`."""
    columns = [f"probability_{name}" for name in class_names]
    figures = {}
    for subset, rows in predictions.groupby("subset", sort=False):
        labels = rows["label"].map({name: k for k, name in enumerate(class_names)})
        figures[str(subset)] = subset_figures(
            labels.to_numpy(np.int64), rows[columns].to_numpy(float), rows["subject_id"].to_numpy()
        )
    return figures


def subject_level(
    labels: Array,
    probabilities: Array,
    owner: Array,
) -> Units:
    """Return one row a subject (and label): its label, mean probabilities (S, K) and owner."""
    table = pd.DataFrame(probabilities).groupby([owner, labels], sort=True).mean()
    people, labels = (table.index.get_level_values(level).to_numpy() for level in (0, 1))
    return Units(labels, table.to_numpy(float), people)


def softmax(logits: Array) -> Array:
    """Return probabilities (N, K) of logits (N, K), in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def text(value: Mapping[str, float | None], digits: int = 1) -> str:
    """Return a figure as per cent with its interval: '71.4 (95% 58.0 to 83.1)'."""
    if value["value"] is None:
        return "undefined"
    figure = f"{100 * value['value']:.{digits}f}"
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return figure
    return f"{figure} (95% {100 * low:.{digits}f} to {100 * high:.{digits}f})"


def _draw_subjects(labels: Array, owner: Array, people: int, draws: int, seed: int) -> Array:
    """How often each subject is drawn, (draws, S): with replacement within its class."""
    rng = np.random.default_rng(seed)
    stratum = np.empty(people, dtype=np.int64)
    stratum[owner[::-1]] = labels[::-1]  # the label of the subject's first slice
    counts = np.zeros((draws, people), dtype=np.float32)
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), share, size=draws)
    return counts


def _in_chunks(figure: Any, units: Units, draws_of_people: Array) -> Array:
    """Apply a weighted figure to every draw, some at a time so that memory stays bounded.

    A draw that leaves a class without weight (its subjects also bear another label) gives NaN.
    """
    step = max(1, _CHUNK_BYTES // (8 * max(1, len(units.labels))))
    with np.errstate(invalid="ignore"):
        parts = [
            figure(units.labels, units.probabilities, part[:, units.owner])  # (step, units)
            for part in np.split(draws_of_people, range(step, len(draws_of_people), step))
        ]
    return np.concatenate(parts)


def _with_interval(value: float, drawn: Array) -> Value:
    """Return the figure with its percentile interval.

    Where every draw gives the same (all right, or one class called for all), the bootstrap cannot
    say how sure the figure is: there is no interval rather than one of no width.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if len(drawn) == 0 or np.ptp(drawn) < 1e-12:
        return {"value": float(value), "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _accuracy(
    labels: Array,
    probabilities: Array,
    weights: Array,
) -> Array:
    right = (probabilities.argmax(axis=1) == labels).astype(float)  # (N,)
    return weights @ right / weights.sum(axis=1)


def _balanced_accuracy(
    labels: Array,
    probabilities: Array,
    weights: Array,
) -> Array:
    """Mean recall of the classes that are present."""
    recalls = [
        _accuracy(labels[labels == k], probabilities[labels == k], weights[:, labels == k])
        for k in np.unique(labels)
    ]
    return np.mean(recalls, axis=0)


def _auc(
    labels: Array,
    probabilities: Array,
    weights: Array,
) -> Array:
    """Area under the ROC curve; with K > 2 the mean of one class against the rest."""
    classes = probabilities.shape[1]
    present = [k for k in range(classes) if 0 < np.sum(labels == k) < len(labels)]
    if classes == 2 and len(present) == 2:
        present = [1]  # the same by symmetry
    if not present:
        return np.full(len(weights), np.nan)
    areas = [_binary_auc(labels == k, probabilities[:, k], weights) for k in present]
    return np.mean(areas, axis=0)


def _binary_auc(
    positive: Array,
    scores: Array,
    weights: Array,
) -> Array:
    """Weighted Mann-Whitney statistic, ties counting half; one value a row of weights."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first of each run of ties
    weights = weights[:, order].astype(np.float64)
    ups = np.add.reduceat(weights * positive[order], starts, axis=1)  # (draws, distinct scores)
    downs = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(downs, axis=1) - downs
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    return (ups * (below + downs / 2)).sum(axis=1) / pairs


FIGURES = {"accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy, "auc": _auc}
