"""The optimiser, the loss, the end of training and how slices make a subject, in words."""

import re
from typing import Final

from headscope.supplement.prose import Facts, listed
from headscope.supplement.study import Study

OPTIMIZERS: Final = {
    "sgd": "stochastic gradient descent",
    "adamw": "AdamW [@loshchilov2019]",
}
CHOICES: Final = {
    "class_weights": ("balanced", "Slices were weighed so that classes count alike [@king2001]"),
    "sampling": (
        "weighted",
        "Training slices were drawn with replacement, each class equally often",
    ),
}
AMOUNTS: Final = {
    "label_smoothing": " Targets were smoothed by {} [@szegedy2016]",
    "patience": " Training ended early, after {} epochs without a lower validation loss",
}

AGGREGATES: Final = {
    "mean": "the mean of the probabilities of its slices",
    "logits": "the mean of the logits of its slices",
    "vote": "the share of its slices that vote for a class",
}


def varied(study: Study, facts: Facts, key: str, words: str) -> str:
    """Return a setting with its words: one value, or those of the rows."""
    values = study.values(key)
    if not values:
        return ""
    if values == [1]:
        words = re.sub(r"\{\} (\w+)s\b", r"{} \1", words)  # 1 epoch
    shown = listed([facts(v, "runs/*/run.toml", key, "g") for v in sorted(values)], "or")
    return words.format(shown) + (" (by row of the table of results)" if len(values) > 1 else "")


def loss_words(study: Study, facts: Facts) -> str:
    """Say how slices are weighed, drawn and smoothed, and when training ends, where it is said."""
    text = balancing_words(study)
    for key, words in AMOUNTS.items():
        text += f"{varied(study, facts, key, words)}." if any(study.values(key)) else ""
    return text


def balancing_words(study: Study) -> str:
    """Say how slices are weighed and drawn by class, where they are."""
    text = ""
    for key, (value, words) in CHOICES.items():
        values = study.values(key)
        if value in values:
            text += f" {words}{' (by row)' if len(values) > 1 else ''}."
    return text


def aggregates(study: Study) -> str:
    """Say how slices make a subject, first of the run that is described, then of those that differ.

    A head on scans, and a regression, predicts of the mean of a scan's slices.
    """
    ways: dict[str, list[str]] = {}
    for result in study.everything:
        names = ways.setdefault(str(result.runs[0].settings.get("aggregate", "mean")), [])
        label = "the regressions" if result.is_rival else result.name
        if result.architecture != "majority" and label not in names:
            names.append(label)
    main = str(study.main.settings.get("aggregate", "mean"))
    others = [
        f"of {listed(names)} {AGGREGATES.get(way, way)}"
        for way, names in ways.items()
        if way != main and names
    ]
    return ", ".join([AGGREGATES.get(main, main), *others])


def missing_words(study: Study) -> str:
    """Say how a regression on covariates takes what is missing; nothing where nothing is."""
    columns = {
        name
        for result in study.rivals
        for run in result.runs
        for name in run.settings.get("covariates", [])
    }
    if not any(name.endswith(" missing") for name in columns):
        return ""
    return (
        " A missing number was set to the median of the training scans, and a column of its own "
        "says of which scans a covariate is missing."
    )
