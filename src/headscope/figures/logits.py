"""Fig. 2: the logits of each slice, a panel a run."""

from collections.abc import Sequence
from math import ceil
from string import ascii_lowercase

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headscope.analysis.table import LogitScatter
from headscope.figures.style import (
    COLOURS,
    COLUMN,
    DENSE,
    INK,
    MARKERS,
    MM,
    PAGE,
    figure_of,
    head_line,
    new_figure,
    plain,
    styled,
)

SIZE, SMALL = 11, 7  # points²; the small ones where there are many slices
MANY = 250
LEGEND = 9 * MM  # height that the legend takes


@styled
def plot_logits(
    panels: LogitScatter | Sequence[LogitScatter], ax: Axes | Sequence[Axes] | None = None
) -> Figure:
    """Draw the two logits of each slice, by class, with the decision line and errors ringed.

    All panels share their axes, so that dispersion can be compared. Source: the paper's Fig. 2.
    """
    panels = [panels] if isinstance(panels, LogitScatter) else list(panels)
    axes = _grid(len(panels)) if ax is None else [ax] if isinstance(ax, Axes) else list(ax)
    low, high = _limits(panels)
    for letter, panel, each in zip(ascii_lowercase, panels, axes, strict=False):
        _draw(panel, each, f"({letter}) " if len(panels) > 1 else "")
        each.set(xlim=(low, high), ylim=(low, high), aspect="equal", anchor="N")
        each.set_yticks([tick for tick in each.get_xticks() if low <= tick <= high])
        each.set_xticks(each.get_yticks())
    figure = figure_of(axes[0])
    if ax is None:
        figure.legend(
            handles=_handles(panels[0]),
            loc="outside lower center",
            ncols=4 if len(panels) > 1 else 2,
            columnspacing=1.6,
        )
    return figure


def _draw(panel: LogitScatter, ax: Axes, letter: str) -> None:
    ax.axline((0, 0), slope=1, color=INK, linewidth=0.8, dashes=(4, 2), zorder=1)
    size = SMALL if len(panel.logits) > MANY else SIZE
    for k, name in enumerate(panel.class_names):
        points = panel.logits[panel.label == k]  # (n_k, 2)
        ax.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            marker=MARKERS[k],
            facecolors=COLOURS[k] if k == 0 else "none",
            edgecolors="white" if k == 0 else COLOURS[k],
            linewidths=0.3 if k == 0 else 0.8,
            alpha=0.85,
            label=plain(name),
            rasterized=len(panel.logits) > DENSE,
            zorder=2,
        )
    wrong = panel.logits[~panel.correct]  # (errors, 2)
    ax.scatter(
        wrong[:, 0],
        wrong[:, 1],
        s=2.6 * size,
        facecolors="none",
        edgecolors=INK,
        linewidths=0.45,
        alpha=0.8,
        rasterized=len(panel.logits) > DENSE,
        zorder=3,
    )
    (first, second), (i, j) = (plain(name) for name in panel.class_names), panel.pair
    ax.set(xlabel=f"Logit of {first}, $z_{i}$", ylabel=f"Logit of {second}, $z_{j}$")
    head_line(ax, letter + panel.title, f"{panel.network}\n{_summary(panel)}")


def _summary(panel: LogitScatter) -> str:
    n = len(panel.logits)
    if n == 0:
        return f"no {panel.subset} slices of these classes"
    text = f"{100 * panel.slice_accuracy:.1f}% of {n:,} slices right"
    return text if panel.class_count == 2 else f"{text} among {panel.class_count} classes"


def _limits(panels: Sequence[LogitScatter]) -> tuple[float, float]:
    """Return one range for both axes of all panels, a little beyond the points."""
    values = np.concatenate([panel.logits.ravel() for panel in panels])
    if values.size == 0:
        return -1.0, 1.0
    margin = 0.05 * float(np.ptp(values)) or 1.0
    return float(values.min()) - margin, float(values.max()) + margin


def _grid(count: int) -> list[Axes]:
    columns = 1 if count == 1 else 2
    rows = ceil(count / columns)
    width = COLUMN if columns == 1 else PAGE
    figure = new_figure(width, rows * COLUMN * 1.08 + LEGEND, row_gap=2.5 * MM)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.set_axis_off()
    return list(axes[:count])


def _handles(panel: LogitScatter) -> list[Line2D]:
    points = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=MARKERS[k],
            markersize=4.5,
            markerfacecolor=COLOURS[k] if k == 0 else "none",
            markeredgecolor=COLOURS[k],
            label=f"{plain(name)} slice",
        )
        for k, name in enumerate(panel.class_names)
    ]
    ring = Line2D([], [], linestyle="none", marker="o", markersize=6.5, markerfacecolor="none",
                  markeredgecolor=INK, markeredgewidth=0.5, label="wrongly classified")  # fmt: skip
    i, j = panel.pair
    name = f"decision line, $z_{i}=z_{j}$"
    line = Line2D([], [], color=INK, linewidth=0.8, dashes=(4, 2), label=name)
    return [*points, ring, line]
