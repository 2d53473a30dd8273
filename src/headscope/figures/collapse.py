"""How far each run's features have collapsed to their class means, in training and held out."""

from collections.abc import Mapping, Sequence
from math import isfinite, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from headscope.analysis.representation.collapse import Collapse
from headscope.figures import style

DECADES = 1.5  # that values must span to be drawn on a logarithmic axis


Point = tuple[str, float, int]  # subset, value and row of the run
MEASURES = {  # by attribute
    "nc1": ("NC1", "variance within classes\nover that between"),
    "nc2_equinorm": ("NC2, norms", "of the class means:\nspread over mean"),
    "nc2_simplex": ("NC2, angles", "of the class means:\nfrom a simplex"),
    "weight_equinorm": ("NC2, weights", "norms of their rows:\nspread over mean"),
    "nc3": ("NC3", "weights against\nthe class means"),
    "nc4": ("NC4", "share decided for\nthe nearest mean"),
}


@style.apply_style
def plot_collapse(
    results: Mapping[str, Sequence[Collapse]],
    *,
    title: str = "Neural collapse",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw each measure of neural collapse of each run, one mark per subset, and its limit.

    A measure without any finite number (as the angles of two classes, which are what they are) has
    no panel; one above zero that spans more than 1.5 decades is drawn on a logarithmic axis.
    Source: Papyan, Han & Donoho 2020; docs/science.md, section 5.

    Parameters
    ----------
    results
        What was measured on the subsets of each run, by the title of the run.
    title
        Words above the panels.
    ax
        As many axes as panels, or the first so many are drawn; on a new figure if left out.
    """
    runs = list(results)
    subsets = list(dict.fromkeys(part.subset for parts in results.values() for part in parts))
    points = {name: finite for name in MEASURES if (finite := _points(results, name))}
    if ax is None:
        rows = max(-(-len(points) // 2), 1)
        figure = style.new_figure(
            style.COLUMN, (12 + rows * (21 + 6.5 * max(len(runs), 2))) * style.MM
        )
        ax = list(figure.subplots(rows, 2, squeeze=False).ravel())
        figure.suptitle(style.plain(title), x=0.01, ha="left", fontsize=7.5, fontweight="bold")
        if points:
            style.set_legend(ax[0], alone=True, handles=_handles(subsets), columns=len(subsets) + 1)
    if not points:
        style.say_nothing(ax[0], "no collapse could be measured")
    for spare in ax[max(len(points), 1) :]:
        spare.set_axis_off()
    for k, (measure, panel) in enumerate(zip(points, ax, strict=False)):
        _draw(points[measure], measure, subsets, len(runs), panel)
        style.name_rows(panel, range(len(runs)), runs if k % 2 == 0 else [""] * len(runs))
    return style.figure_of(ax[0])


def _points(results: Mapping[str, Sequence[Collapse]], measure: str) -> list[Point]:
    return [
        (result.subset, float(getattr(result, measure)), row)
        for row, of_run in enumerate(results.values())
        for result in of_run
        if isfinite(getattr(result, measure))
    ]


def _draw(
    points: Sequence[Point], measure: str, subsets: Sequence[str], runs: int, ax: Axes
) -> None:
    limit = float(measure == "nc4")  # the value when features have collapsed
    for k, subset in enumerate(subsets):
        mine = [(value, row) for name, value, row in points if name == subset]
        if mine:  # an empty line that is not clipped has no extent, and no layout holds it
            ax.plot(*zip(*mine, strict=True), **_style(k), clip_on=False, zorder=3)
    for row in range(runs):
        ax.axhline(row, color=style.EDGE, linewidth=0.5, zorder=1)
    values = [value for _, value, _ in points]
    if limit == 0 and min(values) > 0 and log10(max(values) / min(values)) > DECADES:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        low, high = min(*values, limit), max(*values, limit)
        margin = 0.06 * (high - low) or 0.5
        ax.set_xlim(low - margin, high + margin)
        ax.axvline(limit, zorder=1, **style.REFERENCE)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylim(runs - 0.5, -0.5)
    style.set_title(ax, *MEASURES[measure])


def _style(k: int) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": style.MARKERS[k % 6],
        "markersize": 4.5,
        "markerfacecolor": style.COLOURS[k % 6] if k == 0 else "white",
        "markeredgecolor": style.COLOURS[k % 6],
        "markeredgewidth": 0.9,
    }


def _handles(subsets: Sequence[str]) -> list[Line2D]:
    names = {"train": "training", "val": "validation", "test": "test"}
    shown = [f"{names.get(subset, style.plain(subset))} slices" for subset in subsets]
    return [
        *(style.entry(label, **_style(k)) for k, label in enumerate(shown)),
        style.entry("complete collapse", **style.REFERENCE),
    ]
