"""Results to figures: each `plot_*` returns a Figure and saves, shows and computes nothing.

Examples
--------
>>> pair = hs.analyse_pair(hs.read_experiment("first")[0])
>>> figure = hs.figures.plot_weights(pair)
>>> figure.savefig("weights.svg")
"""

from headscope.figures.collapse import plot_collapse
from headscope.figures.confusion import plot_confusion
from headscope.figures.explanations.ladder import plot_ladder
from headscope.figures.flattening import plot_flattening
from headscope.figures.heads import plot_head_before_after, plot_row_distributions
from headscope.figures.history import plot_history
from headscope.figures.leakage import plot_dose, plot_gap, plot_identity, plot_permutations
from headscope.figures.logits import plot_logit_grid, plot_logits
from headscope.figures.reliability import plot_reliability, plot_reliability_grid
from headscope.figures.scores import plot_curve_grid, plot_forest
from headscope.figures.shuffle import plot_shuffle
from headscope.figures.transfer import plot_transfer
from headscope.figures.weights import plot_weight_grid, plot_weight_panels, plot_weights

__all__ = [
    "plot_collapse",
    "plot_confusion",
    "plot_curve_grid",
    "plot_dose",
    "plot_flattening",
    "plot_forest",
    "plot_gap",
    "plot_head_before_after",
    "plot_history",
    "plot_identity",
    "plot_ladder",
    "plot_logit_grid",
    "plot_logits",
    "plot_permutations",
    "plot_reliability",
    "plot_reliability_grid",
    "plot_row_distributions",
    "plot_shuffle",
    "plot_transfer",
    "plot_weight_grid",
    "plot_weight_panels",
    "plot_weights",
]
