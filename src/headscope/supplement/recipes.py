"""The optimiser, the loss and the end of training in words."""

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
    text = ""
    for key, (value, words) in CHOICES.items():
        values = study.values(key)
        if value in values:
            text += f" {words}{' (by row)' if len(values) > 1 else ''}."
    for key, words in AMOUNTS.items():
        text += f"{varied(study, facts, key, words)}." if any(study.values(key)) else ""
    return text
