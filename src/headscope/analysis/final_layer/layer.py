"""The final layer as a whole: its rows, each pair of them, and what they share with others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from headscope.analysis.arrays import check_head
from headscope.analysis.final_layer.null import (
    NAN,
    Array,
    Pair,
    displacement_ratio,
    predicted_sum,
    row_sum_shrinkage,
    sum_shrinkage,
)
from headscope.analysis.final_layer.pairs import (
    MOST_CLASSES,
    PairAnalysis,
    class_pairs,
    pair_analysis,
)
from headscope.analysis.final_layer.relation import LearnedNull, learned_null
from headscope.analysis.final_layer.rows import MOST_ROWS as MOST_SAMPLED
from headscope.analysis.final_layer.rows import Geometry, RowSummary, row_geometry, row_summaries
from headscope.analysis.stored import stored
from headscope.record import Run
from headscope.tables import Cell, Column, Shown, Table
from headscope.text import significant
from headscope.threads import one_blas_thread

MOST_ROWS = 10
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}


@dataclass(frozen=True, eq=False, repr=False)
class HeadAnalysis(Shown):
    """A final layer: its rows, one per class, and what each pair of them shows.

    Attributes
    ----------
    class_names
        K names.
    weight, bias, initial_weight
        (K, D), (K,) and (K, D); None where unknown.
    rows
        A summary of each row, beside its initial self.
    geometry, initial_geometry
        Angles of the rows, and how near a simplex they are; before training, if known.
    displacement_ratio
        Spread of the learned part over that of the conserved part; about 1 when untrained.
    row_sum_drift
        max |row sum − predicted row sum|; NaN without an initial head.
    pairs
        All pairs of up to 10 classes; else those asked for, or the first.
    """

    class_names: tuple[str, ...]
    weight: Array
    bias: Array | None
    initial_weight: Array | None
    rows: tuple[RowSummary, ...]
    geometry: Geometry
    initial_geometry: Geometry | None
    displacement_ratio: float
    row_sum_drift: float
    pairs: tuple[PairAnalysis, ...]

    @property
    def meaning(self) -> str:
        """What the pair farthest from its null, or else from unrelated rows, says in words."""
        defined = [pair for pair in self.pairs if not np.isnan(pair.r)]
        if not defined:
            return "No pair of rows has a correlation: it is undefined for constant weights."
        apart, K = [pair for pair in defined if pair.departs], len(self.class_names)
        if apart or K == 2:
            return _meaning(max(apart or defined, key=_distance), self.displacement_ratio)
        return _meaning(max(defined, key=relatedness), self.displacement_ratio)

    def tables(self) -> Sequence[Table]:
        """Rows, pairs, geometry and the meaning."""
        K, D = self.weight.shape
        notes = dict.fromkeys(note for pair in self.pairs for note in pair.notes)
        if K > MOST_SAMPLED:
            notes[
                f"Of {K:,} classes, {MOST_SAMPLED:,} at even distances have their angles taken"
                f"{'' if self.initial_weight is None else ' and are tested against their start'}; "
                f"pairs are analysed where --pairs (pairs=) asks for them, else the first."
            ] = None
        facts = [("displacement ratio", self.displacement_ratio)]
        if not np.isnan(self.row_sum_drift):
            facts.append(("drift of the row sum", self.row_sum_drift))
        if K > 2:
            facts += [
                ("distance of the centred rows from a simplex", self.geometry.simplex_distance),
                ("  the same before training", self.initial_geometry.simplex_distance)
                if self.initial_geometry
                else ("variation of their norms", self.geometry.norm_variation),
            ]
        return [
            _row_table(self.rows, D),
            _pair_table(self.pairs),
            Table("The head", ("", "value"), facts, [self.meaning, *notes]),
        ]


@one_blas_thread
def analyse_head(run: Run, pairs: Sequence[Pair] | None = None) -> HeadAnalysis:
    """Analyse the final layer of a recorded run, with the null of its training.

    Parameters
    ----------
    run
        A finished run.
    pairs
        Pairs of class rows; all of up to 10 classes by default, else the first.

    Raises
    ------
    InputError
        A pair names no two classes, or a file of the run is missing or damaged.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> head = hs.analyse_head(run)
    >>> head.class_names, head.weight.shape, len(head.pairs)
    (('AD', 'NC'), (2, 96), 1)
    """
    recorded = _recorded(run)
    W, start, _ = check_head(recorded["weight"], recorded["bias"], recorded["initial"], None)
    head, bias = _analysed(run, pairs), np.asarray(recorded["bias"], dtype=np.float64)
    placed = tuple(replace(pair, x=W[pair.pair[0]], y=W[pair.pair[1]]) for pair in head.pairs)
    return replace(head, weight=W, bias=bias, initial_weight=start, pairs=placed)


@stored
def _analysed(run: Run, pairs: Sequence[Pair] | None) -> HeadAnalysis:
    """Analyse a recorded layer; its weights are left out, as the record has them."""
    head, none = head_analysis(**_recorded(run), **_trained(run), pairs=pairs), np.empty(0)
    bare = tuple(replace(pair, x=none, y=none) for pair in head.pairs)
    return replace(head, weight=none, bias=None, initial_weight=None, pairs=bare)


@one_blas_thread
def analyse_pair(run: Run, pair: Pair = (0, 1)) -> PairAnalysis:
    """Analyse two class rows of a recorded run, with the null of its training.

    Parameters
    ----------
    run
        A finished run.
    pair
        The classes on the x and the y axis, by their number.

    Raises
    ------
    InputError
        The pair names no two classes, or a file of the run is missing or damaged.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> pair = hs.analyse_pair(run)
    >>> pair.class_names, abs(pair.r - pair.r_null) < 0.1
    (('AD', 'NC'), True)
    """
    return pair_analysis(**_recorded(run), **_trained(run), pair=pair)


def run_shrinkage(run: Run) -> float | None:
    """Return the factor by which weight decay shrank a run's row sum; None if it is not known.

    AdamW takes its decay from the weights alone, without momentum: Π(1 − η λ).

    It is known if `run.toml` gives `weight_decay`, `momentum` and `steps_per_epoch`. The rate of
    a step is that of its epoch times `head_learning_rate`. Epochs whose weights were not kept do
    not count: those after `selected_epoch`, and, where the best epoch is kept, those of an
    earlier phase after its lowest validation loss. Each phase starts without momentum.
    """
    settings, history = run.settings, run.history
    if not {"weight_decay", "momentum", "steps_per_epoch"} <= settings.keys():
        return None
    selected = run.metrics.get("selected_epoch")
    counted = history.iloc[: len(history) if selected is None else int(selected)]
    phase = counted["phase"] if "phase" in counted else pd.Series("train", counted.index)
    total = 1.0
    for name in phase.unique():
        epochs = counted[phase == name]
        if settings.get("select") == "best" and name != phase.iloc[-1]:
            epochs = epochs.iloc[: int(epochs["val_loss"].to_numpy().argmin()) + 1]
        rates = epochs["learning_rate"].to_numpy(np.float64)
        rates = np.repeat(rates, int(settings["steps_per_epoch"]))
        rates = rates * float(settings.get("head_learning_rate", 1.0))
        momentum = 0.0 if settings.get("optimizer") == "adamw" else settings["momentum"]
        total *= sum_shrinkage(rates, settings["weight_decay"], momentum)
    return total


def null_obstacle(run: Run) -> str:
    """Say why a run has no null, as its training does not conserve the row sum; '' if it has.

    Class weights and label smoothing leave the gradients of the rows a sum of zero. AdamW scales
    each gradient by its own size: of two classes, whose gradients are opposite, alike, of more not
    (docs/science.md, section 10).
    """
    optimizer = str(run.settings.get("optimizer", "sgd"))
    if optimizer == "sgd" or (optimizer == "adamw" and len(run.head["weight"]) == 2):
        return ""
    return (
        f"No null is given: training by {OPTIMIZERS.get(optimizer, optimizer)} does not conserve "
        f"the sum of {len(run.head['weight'])} rows, since it scales the gradient of each by its "
        "own size."
    )


@one_blas_thread
def head_analysis(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    pairs: Sequence[Pair] | None = None,
    shrinkage: float | None = None,
    learned: LearnedNull | None = None,
    no_null: str = "",
) -> HeadAnalysis:
    """Analyse a final layer.

    Parameters
    ----------
    weight, bias, initial, class_names, shrinkage, learned, no_null
        As of `pair_analysis`.
    pairs
        Pairs of class rows; all of up to 10 classes by default, else the first.

    Examples
    --------
    >>> weight = np.array([[1.0, -2.0, 0.5, 0.1], [-1.0, 2.0, -0.5, 0.2]])
    >>> head = hs.head_analysis(weight, class_names=["AD", "NC"])
    >>> round(head.pairs[0].r, 2)
    -0.99
    """
    W, start, names = check_head(weight, bias, initial, class_names)
    chosen = class_pairs(len(W)) if pairs is None else list(pairs)
    drift = NAN
    if start is not None and not no_null:
        factor = row_sum_shrinkage(W, start, shrinkage).factor
        drift = float(np.abs(W.sum(axis=0) - predicted_sum(start, factor)).max())
    options: dict[str, Any] = {"class_names": names, "shrinkage": shrinkage, "learned": learned}
    options["no_null"] = no_null
    options["asked"] = class_pairs(len(W)) if len(W) <= MOST_CLASSES else chosen
    return HeadAnalysis(
        class_names=tuple(names),
        weight=W,
        bias=None if bias is None else np.asarray(bias, dtype=np.float64),
        initial_weight=start,
        rows=row_summaries(W, start, names),
        geometry=row_geometry(W),
        initial_geometry=None if start is None else row_geometry(start),
        displacement_ratio=displacement_ratio(W),
        row_sum_drift=drift,
        pairs=tuple(pair_analysis(W, bias, start, pair=pair, **options) for pair in chosen),
    )


def _recorded(run: Run) -> dict[str, Any]:
    head = run.head
    return {
        "weight": head["weight"],
        "bias": head["bias"],
        "initial": head.get("initial_weight"),
        "class_names": run.class_names,
    }


def _trained(run: Run) -> dict[str, Any]:
    """Return what the training says of a run's final layer."""
    return {
        "shrinkage": run_shrinkage(run),
        "learned": learned_null(run),
        "no_null": null_obstacle(run),
    }


def relatedness(pair: PairAnalysis) -> tuple[float, float]:
    """Return what orders pairs of several classes: p first, then the distance from unrelated."""
    distance = abs(pair.r_learned + 1 / (pair.class_count - 1))
    return (-pair.related_p if pair.related_p >= 0 else -1.0), distance


def _meaning(pair: PairAnalysis, displacement: float) -> str:
    first, second = pair.class_names
    given = f"The weights to {first} and to {second} correlate by {pair.r:.4f}"
    if pair.no_null:
        text = f"{given}. {pair.no_null}"
        if pair.class_count > 2 and not pair.withheld:
            text += f" {_relation_words(pair)}"
    elif pair.departs:
        why = " The row sum moved as training cannot move it." if pair.drifted else ""
        text = (
            f"{given}, where training alone gives {pair.r_null:.4f}. The rest, "
            f"{pair.residual:.4f}, is worth a look.{why}"
        )
    elif pair.class_count > 2:
        text = f"{given}. {_relation_words(pair)}"
    else:
        source = "training forces" if pair.null_source == "initial head" else "its row sum gives"
        text = (
            f"{given}, and {source} {pair.r_null:.4f} on any data. Of two classes nothing can "
            "depart from that while the sum of the rows is conserved: it says how far the head "
            f"moved ({_displacement_words(displacement)}), and nothing of what it learned."
        )
    return text.replace("-", "−")


def _displacement_words(ratio: float) -> str:
    if np.isinf(ratio):
        return "displacement ratio ∞: nothing is conserved, as of a head that started at zero"
    return f"displacement ratio {significant(ratio)}; 1 before training"


def _relation_words(pair: PairAnalysis) -> str:
    conserved = "" if pair.no_null else ", which training conserves"
    text = f"Without what all rows share{conserved}, they correlate by {pair.r_learned:.4f}"
    if pair.withheld:
        return f"{text}. {pair.withheld}"
    text += (
        f", where {pair.retrained_heads} heads retrained on labels permuted by subject give "
        f"{pair.r_unrelated_low:.4f} to {pair.r_unrelated_high:.4f} (p = {pair.related_p:.3f} over "
        "all pairs): "
    )
    return text + (
        "that difference is what was learned." if pair.related else "chance gives as much."
    )


def _distance(pair: PairAnalysis) -> float:
    return abs(pair.residual)


def _row_table(rows: Sequence[RowSummary], D: int) -> Table:
    shown = [
        (row.class_name, row.mean, row.sd, row.minimum, row.maximum, row.skewness, row.kurtosis,
         row.near_zero, row.participation, row.norm)
        for row in rows[:MOST_ROWS]
    ]  # fmt: skip
    measures = ("mean", "sd", "min", "max", "skew", "kurtosis", "near 0", "carriers", "norm")
    columns = [Column("class"), *(Column(name, format="significant") for name in measures)]
    rest = len(rows) - len(shown)
    notes = [f"… and {rest:,} more rows."] if rest else []
    return Table(f"Rows of weights, {len(rows):,} classes × {D:,} features", columns, shown, notes)


def _pair_table(pairs: Sequence[PairAnalysis]) -> Table:
    many = any(pair.class_count > 2 for pair in pairs)  # of two, the learned parts are opposite
    shown = [
        (" · ".join(pair.class_names), pair.r, pair.r_null,
         Cell(pair.residual, pair.residual_low, pair.residual_high),
         *([pair.r_learned] if many else []), pair.spearman, pair.orthogonal_slope)
        for pair in pairs
    ]  # fmt: skip
    names = ("pair", "r", "null", "residual", *(["learned r"] if many else []), "Spearman", "slope")
    columns = [Column(name, format="significant", interval=name == "residual") for name in names]
    return Table("Pairs of rows", columns, shown)
