"""The reliability diagram: how often predictions are correct, by their confidence."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headscope.analysis.results.calibration import Calibration, Reliability
from headscope.figures import style

FEWEST = 10  # slices of a bin that is drawn


@style.apply_style
def plot_reliability(calibration: Calibration, ax: Axes | None = None) -> Figure:
    """Draw accuracy against confidence on test, before and after the temperature of validation.

    The area of a mark is the share of slices in its bin, its line the 95% interval over subjects;
    bins of fewer than 10 slices are left out. Source: Guo et al. 2017, Fig. 1.
    """
    alone = ax is None
    ax = style.panel_of(ax, style.COLUMN + 9 * style.MM)
    ax.plot([0, 1], [0, 1], zorder=1, **style.DIAGONAL)
    _draw(calibration.before, ax, "as trained", "o", style.COLOURS[0])
    below = f"calibration error {100 * calibration.before.ece:.1f}%"
    if calibration.after is not None:
        label = f"at temperature {calibration.temperature:.2f}, from validation"
        _draw(calibration.after, ax, label, "^", style.COLOURS[1])
        below += f", {100 * calibration.after.ece:.1f}% after"
    else:
        below += "; validation fixes no temperature"
    below += "\nbelow the dashed line: overconfident"
    ax.set(xlabel="Confidence of the prediction", ylabel="Share of correct predictions")
    ax.set(xlim=(0, 1.05), ylim=(-0.03, 1.05), aspect="equal", anchor="N")
    # Below: within, it would cover the points of a network that is well calibrated.
    style.set_legend(ax, alone, columns=1, loc="upper left")
    style.set_title(ax, calibration.title, below)
    return style.figure_of(ax)


def _draw(result: Reliability, ax: Axes, label: str, marker: str, colour: str) -> None:
    count = np.array(result.count)
    filled = count >= FEWEST
    share = count[filled] / max(1, count.sum())
    confidence, accuracy = np.array(result.confidence)[filled], np.array(result.accuracy)[filled]
    ax.plot(confidence, accuracy, color=colour, linewidth=0.8, zorder=2)
    if result.low:
        low, high = (np.array(part)[filled] for part in (result.low, result.high))
        ax.vlines(confidence, low, high, color=colour, linewidth=1.2, alpha=0.45, zorder=2)
    ax.scatter(confidence, accuracy, s=6 + 90 * share, marker=marker, color=colour,
               alpha=0.8, linewidths=0, label=label, zorder=3)  # fmt: skip
