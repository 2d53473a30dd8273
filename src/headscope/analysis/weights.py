"""The final layer as a whole, and each pair of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.pairs import PairAnalysis, pair_analysis
from headscope.record import Run

Array = NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class HeadAnalysis:
    """A final layer: its rows, one a class, and what each pair of them shows.

    Attributes
    ----------
    class_names
        K names.
    weight, bias, initial_weight
        (K, D), (K,) and (K, D); None where unknown.
    pairs
        All pairs of up to 10 classes; else those asked for, or the first.
    """

    class_names: tuple[str, ...]
    weight: Array
    bias: Array | None
    initial_weight: Array | None
    pairs: tuple[PairAnalysis, ...]


def run_head_analysis(run: Run, pairs: Sequence[Pair] | None = None) -> HeadAnalysis:
    """Analyse the final layer of a recorded run, with the null of its own training."""
    return head_analysis(**_recorded(run), pairs=pairs)


def run_pair_analysis(run: Run, pair: Pair = (0, 1)) -> PairAnalysis:
    """Analyse two rows of a recorded run, with the null of its own training.

    The weight decay of the row sum is known if `run.toml` gives `weight_decay`, `momentum` and
    `steps_per_epoch`; the rate of a step is that of its epoch times `head_learning_rate`.
    """
    return pair_analysis(**_recorded(run), pair=pair)


def head_analysis(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    initial_weight: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    pairs: Sequence[Pair] | None = None,
    learning_rates: ArrayLike | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> HeadAnalysis:
    """Analyse a final layer: parameters as of `pair_analysis`, with `pairs` of rows or None.

    None takes all pairs of up to 10 classes, and the first of more.
    """
    chosen = class_pairs(len(np.asarray(weight))) if pairs is None else list(pairs)
    found = tuple(
        pair_analysis(
            weight,
            bias,
            initial_weight,
            class_names=class_names,
            pair=pair,
            learning_rates=learning_rates,
            weight_decay=weight_decay,
            momentum=momentum,
        )
        for pair in chosen
    )
    W = np.asarray(weight, dtype=np.float64)
    names = class_names or [f"class {k}" for k in range(len(W))]
    return HeadAnalysis(
        class_names=tuple(names),
        weight=W,
        bias=None if bias is None else np.asarray(bias, dtype=np.float64),
        initial_weight=(
            None if initial_weight is None else np.asarray(initial_weight, dtype=np.float64)
        ),
        pairs=found,
    )


def class_pairs(class_count: int, most: int = 10) -> list[Pair]:
    """Return every pair of classes, or the first pair alone where there are more than `most`."""
    if class_count > most:
        return [(0, 1)]
    return [(i, j) for i in range(class_count) for j in range(i + 1, class_count)]


def _recorded(run: Run) -> dict[str, Any]:
    settings, head = run.settings, run.head
    rates: Array | None = None
    if {"weight_decay", "momentum", "steps_per_epoch"} <= settings.keys():
        per_epoch = run.history["learning_rate"].to_numpy(np.float64)
        per_epoch = per_epoch * float(settings.get("head_learning_rate", 1.0))
        rates = np.repeat(per_epoch, int(settings["steps_per_epoch"]))
    return {
        "weight": head["weight"],
        "bias": head["bias"],
        "initial_weight": head.get("initial_weight"),
        "class_names": run.class_names,
        "learning_rates": rates,
        "weight_decay": float(settings.get("weight_decay", 0.0)),
        "momentum": float(settings.get("momentum", 0.0)),
    }
