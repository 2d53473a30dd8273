"""The reliability diagram: how often calls are right, by how sure they were."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headscope.analysis.results.calibration import Calibration, Reliability
from headscope.figures.style import (
    COLOURS,
    COLUMN,
    INK,
    MM,
    apply_style,
    figure_of,
    head_line,
    new_figure,
)


@apply_style
def plot_reliability(calibration: Calibration, ax: Axes | None = None) -> Figure:
    """Draw accuracy against confidence on test, before and after the temperature of validation.

    The area of a mark is the share of slices in its bin. Source: Guo et al. 2017, Fig. 1.
    """
    own = ax is None
    ax = new_figure(COLUMN, COLUMN + 9 * MM).subplots() if ax is None else ax
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 2), zorder=1)
    _draw(calibration.before, ax, "as trained", "o", COLOURS[0])
    below = f"calibration error {100 * calibration.before.ece:.1f}%"
    if calibration.after is not None:
        label = f"at temperature {calibration.temperature:.2f}, from validation"
        _draw(calibration.after, ax, label, "^", COLOURS[1])
        below += f", {100 * calibration.after.ece:.1f}% after"
    else:
        below += "; validation fixes no temperature"
    below += "\nbelow the dashed line: surer than right"
    ax.set(xlabel="Confidence of the call", ylabel="Share of calls that are right")
    ax.set(xlim=(0, 1.05), ylim=(-0.03, 1.05), aspect="equal", anchor="N")
    if own:  # within, it would lie on the points of a network that is well calibrated
        figure_of(ax).legend(loc="outside lower center")
    else:
        ax.legend(loc="upper left")
    head_line(ax, calibration.title, below)
    return figure_of(ax)


def _draw(found: Reliability, ax: Axes, label: str, marker: str, colour: str) -> None:
    count = np.array(found.count)
    filled = count > 0
    share = count[filled] / max(1, count.sum())
    confidence, accuracy = np.array(found.confidence)[filled], np.array(found.accuracy)[filled]
    ax.plot(confidence, accuracy, color=colour, linewidth=0.8, zorder=2)
    ax.scatter(confidence, accuracy, s=6 + 90 * share, marker=marker, color=colour,
               alpha=0.8, linewidths=0, label=label, zorder=3)  # fmt: skip
