"""The reliability diagram: how often predictions are correct, by their confidence."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headscope.analysis.results.calibration import Calibration, Reliability
from headscope.figures import style

LABELS = "as trained", "at the temperature of validation"
FEWEST = 10  # slices of a bin that is drawn


@style.apply_style
def plot_reliability(calibration: Calibration, ax: Axes | None = None) -> Figure:
    """Draw accuracy against confidence on test, before and after the temperature of validation.

    The area of a mark is the share of slices in its bin, its line the 95% interval over subjects;
    bins of fewer than 10 slices are left out. Source: Guo et al. 2017, Fig. 1.

    Parameters
    ----------
    calibration
        Of one run's test slices: confidences and accuracies from 0 to 1.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, style.COLUMN + 9 * style.MM)
    ax.plot([0, 1], [0, 1], zorder=1, **style.DIAGONAL)
    _draw(calibration.before, ax, LABELS[0], "o", style.COLOURS[0])
    after = "; validation fixes no temperature"
    if calibration.after is not None:
        label = f"at temperature {calibration.temperature:.2f}, from validation"
        _draw(calibration.after, ax, label, "^", style.COLOURS[1])
        after = f", {100 * calibration.after.ece:.1f}% after"
    below = f"calibration error {100 * calibration.before.ece:.1f}%{after}"
    below += "\nbelow the dashed line: overconfident"
    ax.set(xlabel="Confidence of the prediction", ylabel="Share of correct predictions")
    ax.set(xlim=(0, 1.05), ylim=(-0.03, 1.05), aspect="equal", anchor="N")
    # Below: within, it would cover the points of a network that is well calibrated.
    style.set_legend(ax, alone, columns=1, loc="upper left")
    style.set_title(ax, calibration.title, below)
    return style.figure_of(ax)


@style.apply_style
def plot_reliability_grid(
    networks: Mapping[str, Mapping[str, Calibration]], width: float = style.PAGE
) -> Figure:
    """Draw the reliability of every network as small multiples, its settings side by side.

    Above each panel stands the calibration error as trained and at the temperature of validation,
    in per cent.

    Parameters
    ----------
    networks
        The calibration of each network's settings, by what tells them apart, by the network.
    width
        Of the figure, in inches.
    """
    if not networks:
        return style.nothing(width, "no runs")
    figure, grid = style.grid_of(networks, width, style.LINE * 2, lines=2)
    for panels, axes in zip(networks.values(), grid, strict=True):
        for result, ax in zip(panels.values(), axes, strict=True):
            ax.plot([0, 1], [0, 1], zorder=1, **style.DIAGONAL)
            errors = [f"{100 * result.before.ece:.1f}%", "–"]
            _draw(result.before, ax, LABELS[0], "o", style.COLOURS[0], 25)
            if result.after is not None:
                _draw(result.after, ax, LABELS[1], "^", style.COLOURS[1], 25)
                errors[1] = f"{100 * result.after.ece:.1f}% after"
            style.add_below(ax, "\n".join(errors))
            ax.set(xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), aspect="equal", anchor="N")
            style.share_ticks(ax)
    style.name_grid(grid, "Confidence of the prediction", "Share of correct predictions")
    handles = [
        style.entry(label, linewidth=0.8, marker=marker, markersize=4, color=colour)
        for label, marker, colour in zip(LABELS, "o^", style.COLOURS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw(
    result: Reliability, ax: Axes, label: str, marker: str, colour: str, most: float = 90
) -> None:
    count = np.array(result.count)
    filled = count >= FEWEST
    share = count[filled] / max(1, count.sum())
    confidence, accuracy = np.array(result.confidence)[filled], np.array(result.accuracy)[filled]
    ax.plot(confidence, accuracy, color=colour, linewidth=0.8, zorder=2)
    if result.low:
        low, high = (np.array(part)[filled] for part in (result.low, result.high))
        ax.vlines(confidence, low, high, color=colour, linewidth=1.2, alpha=0.45, zorder=2)
    ax.scatter(confidence, accuracy, s=6 + most * share, marker=marker, color=colour,
               alpha=0.8, linewidths=0, label=label, zorder=3)  # fmt: skip
