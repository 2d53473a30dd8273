"""Training curves: loss and slice accuracy by epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from headscope.figures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    MM,
    apply_style,
    figure_of,
    new_figure,
    say_nothing,
    set_legend,
    set_title,
)

FLOOR = 38  # per cent: below chance for two classes
SUBSETS = {"train": "training", "val": "validation"}


@apply_style
def plot_history(
    history: pd.DataFrame,
    title: str = "",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw loss above slice accuracy, training and validation, by epoch (`history.jsonl`).

    `ax` are two axes, for loss and accuracy.
    """
    alone = ax is None
    if ax is None:
        ax = new_figure(COLUMN, 78 * MM).subplots(2, 1, sharex=True)
    loss, accuracy = ax
    set_title(loss, title, network)
    if history.empty:
        say_nothing(loss, "no epoch has ended")
        accuracy.set_axis_off()
        return figure_of(loss)
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
    loss.set_ylim(0, 1.06 * max(loss.dataLim.y1, 1e-9))
    lowest = accuracy.dataLim.y0 if np.isfinite(accuracy.dataLim.y0) else FLOOR
    accuracy.set(xlabel="Epoch", ylabel="Slice accuracy (%)")
    accuracy.set_ylim(min(FLOOR, lowest - 3), 103)  # the same for most runs, to be compared
    accuracy.yaxis.set_major_locator(MultipleLocator(20))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    if alone:
        set_legend(loss, alone)
    return figure_of(loss)
