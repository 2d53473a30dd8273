"""Results to figures: each `plot_*` returns a Figure and saves, shows and computes nothing."""

from headscope.figures.history import plot_history
from headscope.figures.logits import plot_logits
from headscope.figures.weights import plot_weights

__all__ = ["plot_history", "plot_logits", "plot_weights"]
