"""The scores of a subset and of a run, as `metrics.json` holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from headscope.files import NO_ID
from headscope.metrics.draws import DRAWS, Resampled, deal_subjects, resample
from headscope.metrics.intervals import way_of, wilson
from headscope.metrics.scores import SCORES, class_scores, confusion, scores
from headscope.metrics.subjects import Array, Units, positive_class, slice_units, subject_level

Value = dict[str, float | None]
# A sum of absolute gaps grows with noise, so that its draws are above the score itself.
NO_INTERVAL = ("ece",)


def logit_columns(class_names: Sequence[str]) -> list[str]:
    """Return the columns of `predictions.tsv` that hold the logits, in the order of the classes."""
    return [f"logit_{name}" for name in class_names]


def run_scores(
    predictions: pd.DataFrame, class_names: Sequence[str], aggregate: str = "mean"
) -> dict[str, Any]:
    """Return `subset_scores` of each subset of a run's `predictions.tsv`."""
    columns = logit_columns(class_names)
    by_subset = {}
    for subset, rows in predictions.groupby("subset", sort=False):
        labels = rows["label"].map({name: k for k, name in enumerate(class_names)})
        by_subset[str(subset)] = subset_scores(
            labels.to_numpy(np.int64),
            rows[columns].to_numpy(np.float32),
            rows["subject_id"].to_numpy(),
            class_names=class_names,
            aggregate=aggregate,
        )
    return by_subset


def subset_scores(
    labels: Array,
    logits: Array,
    subject_ids: Array,
    *,
    class_names: Sequence[str] | None = None,
    aggregate: str = "mean",
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every score of `SCORES` over the slices and over the subjects of one subset.

    Parameters
    ----------
    labels
        (N,), indices of classes.
    logits
        (N, K), or logarithms of probabilities.
    subject_ids
        (N,). Where one is unknown there are no subjects (0): their scores are None, and so are
        all intervals.
    class_names
        K names; by default the numbers of the classes.
    aggregate
        How a subject's probability comes from its slices (`subject_level`).
    draws, seed
        Of the bootstrap over subjects.

    Returns
    -------
    dict
        Each score is {"value", "low", "high"} as a fraction, with a 95% interval from a bootstrap
        over subjects within class (`bootstrap_interval`); None where undefined (the calibration
        error has no interval: its draws are biased). Shares of subjects also have "wilson_low"
        and "wilson_high". "slice_confusion" and "subject_confusion" are counts (K, K), rows the
        classes; with 3 classes or more, "slice_per_class" and "subject_per_class" hold scores of
        each class against the rest. A class without slices has none and is no part of the means;
        where a class has but one subject, there are no intervals. "subject_labels" counts a
        subject whose sessions have different labels once per label, as its rows are scored; draws
        take it as one subject, and no Wilson interval is given, since such rows are not
        independent.
    """
    names = [str(k) for k in range(logits.shape[1])] if class_names is None else class_names
    named = bool((np.asarray(subject_ids) != NO_ID).all())
    ids, owner = np.unique(np.asarray(subject_ids, dtype=str), return_inverse=True)  # (S,), (N,)
    slices = slice_units(labels, logits, owner)
    return unit_scores(slices, len(ids), names, named, aggregate=aggregate, draws=draws, seed=seed)


def unit_scores(
    slices: Units,
    subjects: int,
    names: Sequence[str],
    named: bool = True,
    *,
    positive: int | None = None,
    aggregate: str = "mean",
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what `subset_scores` returns, of slices whose owners count S subjects.

    named: whether each slice has a subject; positive: the class of which sensitivity is the recall
    (`positive_class` by default).
    """
    levels = {"slice": slices, "subject": subject_level(slices, aggregate)}
    positive = positive_class(names) if positive is None else positive
    summary: dict[str, Any] = {
        "slices": len(slices.labels),
        "subjects": subjects if named else 0,
        "subject_labels": len(levels["subject"].labels) if named else 0,
        "positive_class": str(names[positive]) if len(names) == 2 else None,
    }
    once_each = len(levels["subject"].labels) == subjects
    dealt, groups = deal_subjects(slices.labels, slices.owner, subjects, seed)
    levels = {name: units._replace(owner=dealt[units.owner]) for name, units in levels.items()}
    owner = dealt[slices.owner]
    resampled = resample(slices.labels, owner, groups, draws if named else 0, seed)
    for level, units in levels.items():
        if named or level == "slice":
            summary |= _level_scores(level, units, resampled, names, positive)
        else:
            summary |= {f"{level}_{name}": _value(np.nan) for name in SCORES}
    if named and once_each:
        _add_wilson(summary, np.array(summary["subject_confusion"]), positive)
    return summary


def _level_scores(
    level: str, units: Units, resampled: Resampled, names: Sequence[str], positive: int
) -> dict[str, Any]:
    """Return the scores of slices or of subjects, under names that begin with the level."""
    several = len(names) > 2

    def score(counts: Array) -> dict[Any, Array]:
        """Return scores by name, and by (name, class) where there are several classes."""
        by_class = class_scores(units, counts) if several else None
        values: dict[Any, Array] = dict(scores(units, counts, positive, by_class=by_class))
        for name, columns in (by_class or {}).items():
            values |= {(name, k): columns[:, k] for k in range(len(names))}
        return values

    drawn, stratum = resampled.apply(score), resampled.stratum
    summary: dict[str, Any] = {}
    for name in SCORES:
        among = None
        if len(names) == 2 and name in ("sensitivity", "specificity"):
            among = (stratum == positive) == (name == "sensitivity")
        interval = None
        if name not in NO_INTERVAL:
            interval = drawn[name].bootstrap_interval(way_of(f"{level}_{name}"), among)
        summary[f"{level}_{name}"] = _value(drawn[name].once[0], interval)
    summary[f"{level}_confusion"] = confusion(units).tolist()  # (K, K)
    if several:
        per_class: dict[str, dict[str, Value]] = {str(name): {} for name in names}
        for name, k in (key for key in drawn if isinstance(key, tuple)):
            values = drawn[name, k]
            interval = values.bootstrap_interval(way_of(f"{level}_{name}"))
            per_class[str(names[k])][name] = _value(values.once[0], interval)
        summary[f"{level}_per_class"] = per_class
    return summary


def _value(value: float, interval: tuple[float, float] | None = None) -> Value:
    """Return a score and its interval as they are stored."""
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    low, high = interval or (None, None)
    return {"value": float(value), "low": low, "high": high}


def _add_wilson(summary: dict[str, Any], table: Array, positive: int) -> None:
    """Add Wilson's interval to the shares of subjects: all, and of two classes each one's."""
    right, true = np.diag(table), table.sum(axis=1)
    shares = {"accuracy": (right.sum(), true.sum())}
    if len(table) == 2:
        shares["sensitivity"] = right[positive], true[positive]
        shares["specificity"] = right[1 - positive], true[1 - positive]
    for name, (hits, count) in shares.items():
        low, high = wilson(int(hits), int(count)) if count else (None, None)
        summary[f"subject_{name}"] |= {"wilson_low": low, "wilson_high": high}
