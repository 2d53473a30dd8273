"""What settings reach: a forest of subject accuracies, and ROC curves over subjects."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headscope.analysis.results.curves import GRID, Curve, Curves
from headscope.analysis.results.settings import SettingResult
from headscope.figures import style

SPLITS = {
    "subject": "subjects apart",
    "slice": "slices mixed",
    "given": "split as given",
    "site": "site left out",
}
AREAS = {"roc": "AUC", "precision": "AP"}
ROW = 9 * style.MM
LONGEST = 26  # characters of a name on one line
SHARE: Any = {"color": style.INK, "linewidth": 1.2}


@style.apply_style
def plot_forest(results: Sequence[SettingResult], width: float = style.COLUMN) -> Figure:
    """Draw the subject accuracy of each setting with its interval, beside the larger class.

    A setting under both splits has one row: a circle where subjects are apart, a triangle where
    slices are mixed. A bar marks what predicting the larger class alone gives; hollow marks are of
    networks that predict one class for all test slices. Without subject ids the accuracy is that of
    slices.

    Parameters
    ----------
    results
        One per setting; accuracies from 0 to 1, drawn in per cent.
    width
        Of the figure, in inches.
    """
    rows = list(dict.fromkeys((result.architecture, result.name) for result in results))
    figure = style.new_figure(width, 24 * style.MM + max(len(rows), 1) * ROW)
    ax = figure.subplots()
    if not rows:
        style.say_nothing(ax, "no runs")
        return figure
    for y, row in enumerate(rows):
        group = [result for result in results if (result.architecture, result.name) == row]
        for result in group:
            aside = 0.17 * (2 * group.index(result) - len(group) + 1)
            _draw_setting(result, y + aside, ax)
    networks = {network for network, _ in rows}
    names = [
        ", ".join(style.fold(part, LONGEST, 1) for part in (name, network)[: len(networks)])
        for network, name in rows
    ]
    style.name_rows(ax, range(len(rows)), names)
    if len(networks) == 1:
        ax.set_title(style.plain(networks.pop()))
    over = "slice" if all(result.nameless for result in results) else "subject"
    ax.set(xlim=(0, 102), ylim=(len(rows) - 0.5, -0.5), xlabel=f"Test {over} accuracy (%)")
    figure.legend(handles=_handles(results), loc="outside lower center", ncols=2)
    return figure


def forest_score(result: SettingResult) -> tuple[float, float, float, float]:
    """Return value, low and high of a setting's accuracy, and the share of the larger class.

    Over subjects, or over slices where they name none; fractions, NaN where undefined.
    """
    level = "slice" if result.nameless else "subject"
    score = result.scores[f"{level}_accuracy"]
    low, high = score.interval or (float("nan"), float("nan"))
    return score.value, low, high, getattr(result.majority, f"{level}_share")


def _draw_setting(result: SettingResult, y: float, ax: Axes) -> None:
    value, low, high, share = (100 * part for part in forest_score(result))
    k = list(SPLITS).index(result.split) if result.split in SPLITS else 0
    colour, constant = style.COLOURS[k], len(result.constant) == len(result.runs)
    if np.isfinite([low, high]).all():
        ax.plot([low, high], [y, y], color=colour, linewidth=1.1, zorder=2)
    if np.isfinite(share):
        ax.plot([share, share], [y - 0.16, y + 0.16], zorder=1, **SHARE)
    ax.scatter([value], [y], s=24, marker=style.MARKERS[k], edgecolors=colour, linewidths=1,
               facecolors="white" if constant else colour, zorder=3)  # fmt: skip


def _handles(results: Sequence[SettingResult]) -> list[Line2D]:
    present = {result.split for result in results}
    handles = [
        style.entry(label, **style.mark(k))
        for k, (split, label) in enumerate(SPLITS.items())
        if split in present
    ]
    mark: Any = {"linestyle": "none", "color": style.INK}
    handles.append(style.entry("larger class alone", marker="|", markersize=8.0, **mark))
    if any(len(result.constant) == len(result.runs) for result in results):
        mark |= {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
        handles.append(style.entry("hollow: one class for all", **mark))
    return handles


@style.apply_style
def plot_curve_grid(
    networks: Mapping[str, Mapping[str, Curves]],
    kind: Literal["roc", "precision"] = "roc",
    areas: Mapping[str, Mapping[str, float]] | None = None,
    positive_class: str = "",
    width: float = style.PAGE,
) -> Figure:
    """Draw ROC or precision–recall curves over test subjects with 95% bands, a panel per setting.

    Dashed is what a network does that knows nothing.

    Parameters
    ----------
    networks
        The curves of each network's settings, by what tells them apart, by the network.
    kind
        ROC, or precision and recall.
    areas
        The area under each curve, 0 to 1, under the same names; written above its panel.
    positive_class
        The class that is found, for the words at the axes.
    width
        Of the figure, in inches.
    """
    if not networks:
        return style.nothing(width, "no setting has a curve over subjects")
    figure, grid = style.grid_of(networks, width, lines=1)
    for (network, panels), axes in zip(networks.items(), grid, strict=True):
        for (title, curves), ax in zip(panels.items(), axes, strict=True):
            curve: Curve = getattr(curves, kind)
            chance = 100 * curves.prevalence
            blind = [0, 100] if kind == "roc" else [chance, chance]
            ax.plot([0, 100], blind, zorder=1, **style.DIAGONAL)
            ax.fill_between(100 * GRID, 100 * curve.low, 100 * curve.high, linewidth=0, alpha=0.2,
                            color=style.COLOURS[0])  # fmt: skip
            ax.plot(100 * GRID, 100 * curve.y, color=style.COLOURS[0])
            if areas is not None:
                style.add_below(ax, f"{AREAS[kind]} {style.decimals(areas[network][title], 3)}")
            style.set_square(ax, -2, 102)
            style.share_ticks(ax)
    to = f" to {style.plain(style.short(positive_class))}" if positive_class else ""
    sensitivity = f"Sensitivity{to} (%)"
    if kind == "roc":
        style.name_grid(grid, "1 − specificity (%)", sensitivity)
    else:
        style.name_grid(grid, sensitivity, "Precision (%)")
    return figure
