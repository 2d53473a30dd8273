"""Training curves: loss and slice accuracy by epoch."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headscope.figures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    MM,
    figure_of,
    head_line,
    new_figure,
    styled,
)

SUBSETS = {"train": "training", "val": "validation"}


@styled
def plot_history(
    history: pd.DataFrame,
    title: str = "",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw loss above slice accuracy, training and validation, by epoch (`history.jsonl`).

    `ax` are two axes, for loss and accuracy.
    """
    own = ax is None
    if ax is None:
        ax = new_figure(COLUMN, 78 * MM).subplots(2, 1, sharex=True)
    loss, accuracy = ax
    for k, (subset, name) in enumerate(SUBSETS.items()):
        style: Any = {
            "color": COLOURS[k],
            "linestyle": "-" if k == 0 else (0, (4, 1.5)),
            "marker": MARKERS[k] if len(history) <= 30 else "",
            "markersize": 3,
            "markerfacecolor": COLOURS[k] if k == 0 else "white",
            "label": name,
        }
        loss.plot(history["epoch"], history[f"{subset}_loss"], **style)
        accuracy.plot(history["epoch"], 100 * history[f"{subset}_slice_accuracy"], **style)
    loss.set(ylabel="Cross-entropy (nats)")
    loss.set_ylim(bottom=0)
    head_line(loss, title, network)
    accuracy.set(xlabel="Epoch", ylabel="Slice accuracy (%)", ylim=(None, 101))
    accuracy.yaxis.set_major_locator(MaxNLocator(5))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure = figure_of(loss)
    if own:
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
