"""What settings reach: a forest of subject accuracies, and ROC curves over subjects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headscope.analysis.results.curves import Roc
from headscope.analysis.results.settings import SettingResult
from headscope.figures import style

SPLITS = {"subject": "subjects apart", "slice": "slices mixed", "given": "split as given"}
ROW = 9 * style.MM
LONGEST = 26  # characters of a name on one line
SHARE: Any = {"color": style.INK, "linewidth": 1.2}


@style.apply_style
def plot_forest(results: Sequence[SettingResult], width: float = style.COLUMN) -> Figure:
    """Draw the subject accuracy of each setting with its interval, beside the larger class.

    A setting under both splits has one row: a circle where subjects are apart, a triangle where
    slices are mixed. A bar marks what predicting the larger class alone gives; hollow marks are of
    networks that predict one class for all test slices. Without subject ids the accuracy is that
    of slices. width is in inches.
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
        Line2D([], [], color=style.COLOURS[k], marker=style.MARKERS[k], markersize=4.5,
               linewidth=1.1, label=label)
        for k, (split, label) in enumerate(SPLITS.items()) if split in present
    ]  # fmt: skip
    marks = [("larger class alone", "|", 8, style.INK)]
    if any(len(result.constant) == len(result.runs) for result in results):
        marks.append(("hollow: one class for all", "o", 4.5, "white"))
    handles += [
        Line2D([], [], linestyle="none", color=style.INK, marker=marker, markersize=size,
               markerfacecolor=face, label=label) for label, marker, size, face in marks
    ]  # fmt: skip
    return handles


@style.apply_style
def plot_roc_grid(networks: Mapping[str, Mapping[str, Roc]], width: float = style.PAGE) -> Figure:
    """Draw ROC curves over test subjects with 95% bands, one panel per setting.

    networks holds the curves of each network by what tells its settings apart. width is in inches.
    """
    if not networks:
        ax = style.new_figure(width, 30 * style.MM).subplots()
        style.say_nothing(ax, "no setting has a curve over subjects")
        return style.figure_of(ax)
    titles = {name: list(panels) for name, panels in networks.items()}
    figure, grid = style.grid_of(titles, width, lines=1)
    for panels, axes in zip(networks.values(), grid, strict=True):
        for roc, ax in zip(panels.values(), axes, strict=True):
            ax.plot([0, 100], [0, 100], zorder=1, **style.DIAGONAL)
            x = 100 * np.array(roc.false_positive)
            if roc.low:
                ax.fill_between(x, 100 * np.array(roc.low), 100 * np.array(roc.high),
                                color=style.COLOURS[0], alpha=0.2, linewidth=0)  # fmt: skip
            ax.plot(x, 100 * np.array(roc.true_positive), color=style.COLOURS[0])
            style.add_below(ax, f"AUC {style.decimals(roc.auc, 3)}")
            style.set_square(ax, -2, 102)
            style.share_ticks(ax, first=ax is axes[0])
    one = next(iter(next(iter(networks.values())).values()))
    name = style.plain(one.positive_class)
    style.name_grid(grid, "1 − specificity (%)", f"Sensitivity to {name} (%)")
    return figure
