"""Training curves: loss and slice accuracy by epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from headscope.figures import style

FLOOR = 38  # per cent: below chance for two classes
SUBSETS = {"train": "training", "val": "validation"}


@style.apply_style
def plot_history(
    history: pd.DataFrame,
    title: str = "",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw loss above slice accuracy, training and validation, by epoch (`history.jsonl`).

    Parameters
    ----------
    history
        One row per epoch: `history.jsonl`, as of `Run.history`; losses, and accuracies from 0 to 1.
    title, network
        Words above the panel.
    ax
        Two axes, for loss and accuracy; on a new figure if left out.
    """
    alone = ax is None
    if ax is None:
        ax = style.new_figure(style.COLUMN, 78 * style.MM).subplots(2, 1, sharex=True)
    loss, accuracy = ax
    style.set_title(loss, title, network)
    if history.empty:
        style.say_nothing(loss, "no epoch has ended")
        accuracy.set_axis_off()
        return style.figure_of(loss)
    for k, (subset, name) in enumerate(SUBSETS.items()):
        look: Any = {
            "color": style.COLOURS[k],
            "linestyle": "-" if k == 0 else (0, (4, 1.5)),
            "marker": style.MARKERS[k] if len(history) <= 30 else "",
            "markersize": 3,
            "markerfacecolor": style.COLOURS[k] if k == 0 else "white",
            "label": name,
        }
        loss.plot(history["epoch"], history[f"{subset}_loss"], **look)
        accuracy.plot(history["epoch"], 100 * history[f"{subset}_slice_accuracy"], **look)
    loss.set(ylabel="Cross-entropy (nats)")
    loss.set_ylim(0, 1.06 * max(loss.dataLim.y1, 1e-9))
    lowest = accuracy.dataLim.y0 if np.isfinite(accuracy.dataLim.y0) else FLOOR
    accuracy.set(xlabel="Epoch", ylabel="Slice accuracy (%)")
    accuracy.set_ylim(min(FLOOR, lowest - 3), 103)  # the same for most runs, to be compared
    accuracy.yaxis.set_major_locator(MultipleLocator(20))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    if alone:
        style.set_legend(loss, alone)
    return style.figure_of(loss)
