"""What each stage of a network keeps of its start, and which slices are neighbours in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headscope.analysis.representation.stages import TransferAnalysis
from headscope.figures import style

QUANTITIES: dict[str, tuple[str, float, float | None]] = {  # axis, scale and end by attribute
    "cka": ("Linear CKA with\nthe frozen run", 1, 1.05),
    "weight_change": ("Change of weights,\n‖θ − θ₀‖ / ‖θ₀‖", 1, None),
    "knn_accuracy": ("Slice accuracy of\nneighbours (%)", 100, 105),
    "same_subject": ("Nearest slice of the\nsame subject (%)", 100, 105),
}


@style.apply_style
def plot_transfer(
    results: Mapping[str, TransferAnalysis],
    *,
    title: str = "Stage by stage",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw each stage's likeness to the frozen run, and its neighbours, one line per run.

    A quantity without any finite number has no panel. Source: linear CKA, Kornblith et al. 2019;
    what transfer keeps, Raghu et al. 2019.

    Parameters
    ----------
    results
        Of the runs of one network, by the title of the run.
    title, network
        Words above the panels.
    ax
        As many axes as panels, or the first so many are drawn; on a new figure if left out.
    """
    every = [stage for result in results.values() for stage in result.stages]
    shown = [name for name in QUANTITIES if np.isfinite([getattr(s, name) for s in every]).any()]
    chance = {result.majority for result in results.values()}
    if ax is None:
        rows = max(len(shown), 1)
        figure = style.new_figure(style.COLUMN, (30 + 31 * rows) * style.MM)
        ax = list(figure.subplots(rows, 1, squeeze=False, sharex=True).ravel())
        if shown:
            handles = [style.entry(style.plain(run), **_style(k)) for k, run in enumerate(results)]
            handles += [style.largest_class()] if len(chance) == 1 else []
            style.set_legend(ax[0], alone=True, handles=handles)
    style.set_title(ax[0], title, network)
    if not shown:
        style.say_nothing(ax[0], "no stages are recorded")
        return style.figure_of(ax[0])
    stages = list(dict.fromkeys(stage.stage for stage in every))
    for name, panel in zip(shown, ax, strict=False):
        _draw(results, name, stages, panel)
        if name == "knn_accuracy" and len(chance) == 1:
            panel.axhline(100 * chance.pop(), zorder=1, **style.REFERENCE)
    ax[min(len(shown), len(ax)) - 1].set_xlabel("Stage, from the input on")
    return style.figure_of(ax[0])


def _draw(
    results: Mapping[str, TransferAnalysis], name: str, stages: Sequence[str], ax: Axes
) -> None:
    label, scale, high = QUANTITIES[name]
    for k, result in enumerate(results.values()):
        at = [stages.index(s.stage) for s in result.stages]
        values = [scale * getattr(s, name) for s in result.stages]
        ax.plot(at, values, clip_on=False, **_style(k))
    long = len(stages) > 6 or max(map(len, stages)) > 7
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    names = [style.plain(stage) for stage in stages]
    ax.set_xticks(range(len(stages)), names, **(turned if long else {}))
    ax.set(ylabel=label, ylim=(0, high))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=style.TICKS))


def _style(k: int) -> dict[str, Any]:
    return {
        "color": style.COLOURS[k % 6],
        "linestyle": style.DASHES[k % 4],
        "marker": style.MARKERS[k % 6],
        "markersize": 3.5,
        "markerfacecolor": style.COLOURS[k % 6] if k % 2 == 0 else "white",
        "linewidth": 1.1,
    }
