"""The scores of a subset and of a run, as `metrics.json` holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from headscope.files import NO_ID
from headscope.metrics.intervals import (
    DRAWS,
    Resampled,
    Value,
    bootstrap_interval,
    resample,
    way_of,
    wilson,
)
from headscope.metrics.scores import SCORES, class_scores, confusion, scores
from headscope.metrics.subjects import Array, Units, positive_class, slice_units, subject_level

# A sum of absolute gaps grows with noise, so that its draws lie above the score itself.
NO_INTERVAL = ("ece",)


def logit_columns(class_names: Sequence[str]) -> list[str]:
    """Return the columns of `predictions.tsv` that hold the logits, in the order of the classes."""
    return [f"logit_{name}" for name in class_names]


def run_scores(
    predictions: pd.DataFrame, class_names: Sequence[str], aggregate: str = "mean"
) -> dict[str, Any]:
    """Return `subset_scores` of each subset of a run's `predictions.tsv`."""
    columns = logit_columns(class_names)
    found = {}
    for subset, rows in predictions.groupby("subset", sort=False):
        labels = rows["label"].map({name: k for k, name in enumerate(class_names)})
        found[str(subset)] = subset_scores(
            labels.to_numpy(np.int64),
            rows[columns].to_numpy(np.float32),
            rows["subject_id"].to_numpy(),
            class_names=class_names,
            aggregate=aggregate,
        )
    return found


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

    labels (N,) index into the classes; logits (N, K), or logs of
    probabilities; subject_ids (N,); class_names name
    the classes, else their numbers do. Each score is {"value", "low", "high"} as a fraction, with
    a 95% interval from a bootstrap over subjects within class (`bootstrap_interval`); None where
    undefined (the calibration error has no interval: its draws are biased). Shares of subjects
    also have "wilson_low" and "wilson_high". "slice_confusion" and "subject_confusion" are counts
    (K, K), rows the classes; with 3 classes or more,
    "slice_per_class" and "subject_per_class" hold scores of each class against the rest. A class
    without slices has none and is no part of the means; where a class has but one subject, there
    are no intervals (`bootstrap_interval`).

    A subject's probability comes from its slices by `aggregate` (`subject_level`). A subject whose
    sessions bear different labels is one subject: "subject_labels" counts it once per label, as
    its rows are scored, draws take it as one, and no Wilson interval is given, since such rows are
    not independent. Where it is
    not known whom a slice shows there are no subjects (0): their scores are None, and so are all
    intervals.
    """
    names = [str(k) for k in range(logits.shape[1])] if class_names is None else class_names
    named = bool((np.asarray(subject_ids) != NO_ID).all())
    people, owner = np.unique(np.asarray(subject_ids, dtype=str), return_inverse=True)  # (S,), (N,)
    slices = slice_units(labels, logits, owner)
    levels = {"slice": slices, "subject": subject_level(slices, aggregate)}
    found: dict[str, Any] = {"slices": len(labels), "subjects": len(people) if named else 0}
    found["subject_labels"] = len(levels["subject"].labels) if named else 0
    found["positive_class"] = str(names[positive_class(names)]) if len(names) == 2 else None
    resampled = resample(labels, owner, len(people), draws if named else 0, seed)
    for level, units in levels.items():
        if named or level == "slice":
            found |= _level_scores(level, units, resampled, names)
        else:
            found |= {f"{level}_{name}": _value(np.nan) for name in SCORES}
    return found


def _level_scores(
    level: str, units: Units, resampled: Resampled, names: Sequence[str]
) -> dict[str, Any]:
    """Return the scores of slices or of subjects, under names that begin with the level."""
    positive = positive_class(names)
    whole = np.ones((1, resampled.drawn.shape[1]))
    all_counts = (whole, resampled.drawn, resampled.left_out)
    several = len(names) > 2
    each = [class_scores(units, counts) if several else None for counts in all_counts]
    once, drawn, left_out = (
        scores(units, counts, positive, each=known)
        for counts, known in zip(all_counts, each, strict=True)
    )
    found: dict[str, Any] = {}
    for name in SCORES:
        stratum = resampled.stratum
        speaks = np.ones(len(stratum), dtype=bool)
        if len(names) == 2 and name in ("sensitivity", "specificity"):
            speaks = (stratum == positive) == (name == "sensitivity")
        interval = None
        if name not in NO_INTERVAL:
            interval = bootstrap_interval(
                once[name][0],
                drawn[name],
                left_out[name][speaks],
                stratum[speaks],
                way_of(level, name),
            )
        found[f"{level}_{name}"] = _value(once[name][0], interval)
    table = confusion(units)  # (K, K)
    found[f"{level}_confusion"] = table.tolist()
    if level == "subject" and len(units.labels) == len(resampled.stratum):
        _add_wilson(found, table, positive)
    if several:
        found[f"{level}_per_class"] = _per_class(level, each, resampled.stratum, names)
    return found


def _per_class(
    level: str, each: Sequence[Any], stratum: Array, names: Sequence[str]
) -> dict[str, Any]:
    """Return scores of each class against the rest: once, over draws and with subjects left out.

    each holds `class_scores` of the three, (·, K) by name.
    """
    once, drawn, left_out = each

    def value(key: str, k: int) -> Value:
        interval = bootstrap_interval(
            once[key][0, k],
            drawn[key][:, k],
            left_out[key][:, k],
            stratum,
            way_of(level, key),
        )
        return _value(once[key][0, k], interval)

    return {str(name): {key: value(key, k) for key in once} for k, name in enumerate(names)}


def _value(value: float, interval: tuple[float, float] | None = None) -> Value:
    """Return a score and its interval as they are stored."""
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    low, high = interval or (None, None)
    return {"value": float(value), "low": low, "high": high}


def _add_wilson(found: dict[str, Any], table: Array, positive: int) -> None:
    """Add Wilson's interval to the shares of subjects: all, and of two classes each one's."""
    right, true = np.diag(table), table.sum(axis=1)
    shares = {"accuracy": (right.sum(), true.sum())}
    if len(table) == 2:
        shares["sensitivity"] = right[positive], true[positive]
        shares["specificity"] = right[1 - positive], true[1 - positive]
    for name, (hits, count) in shares.items():
        low, high = wilson(int(hits), int(count)) if count else (None, None)
        found[f"subject_{name}"] |= {"wilson_low": low, "wilson_high": high}
