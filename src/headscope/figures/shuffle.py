"""The spatial shuffle test: what is lost when the positions of the last map change places."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from headscope.analysis.representation.location import FlattenAnalysis
from headscope.figures import style

Array = NDArray[np.float64]
ROW = 12.5 * style.MM
Kind = tuple[str, str, str, bool]  # name, marker, colour, filled
KINDS: tuple[Kind, ...] = (
    ("as it is", "o", style.INK, True),
    ("one permutation for all slices", "s", style.COLOURS[0], False),
    ("one permutation per slice", "^", style.COLOURS[1], False),
    ("probe of pooled maps", "D", style.COLOURS[2], True),
    ("probe of unpooled maps", "D", style.COLOURS[2], False),
)
STEP = 0.16  # between the marks of a run
ALL = 2**0.5  # change of the logits where they depend on nothing but location


@style.apply_style
def plot_shuffle(
    results: Mapping[str, FlattenAnalysis],
    *,
    chance: float | None = None,
    title: str = "Spatial shuffle test",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw the slice accuracy of each run as it is, with its maps' positions permuted, and probed.

    A bar spans the repeats, a mark stands at their mean. Beside it, how much shuffling changes the
    logits: none where positions are averaged, about √2 standard deviations where location is all.
    Source: docs/science.md, section 6.

    Parameters
    ----------
    results
        Of each run, by its title.
    chance
        The share of the largest class, 0 to 1; without it no line is drawn.
    title, network
        Words above the panels.
    ax
        Two axes, for accuracies and for the change of logits; on a new figure if left out.
    """
    if ax is None:
        figure = style.new_figure(style.COLUMN, 36 * style.MM + max(len(results), 1) * ROW)
        ax = list(figure.subplots(1, 2, width_ratios=(2.6, 1)))
        if results:
            handles = [style.entry(kind[0], linewidth=1.0, **_style(kind)) for kind in KINDS]
            handles += [] if chance is None else [style.largest_class()]
            figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.0)
    left, right = ax
    style.set_title(left, title, network)
    if not results:
        style.say_nothing(left, "no run has feature maps")
        right.set_axis_off()
        return style.figure_of(left)
    for row, result in enumerate(results.values()):
        _draw_run(result, row, left, right)
    if chance is not None:
        left.axvline(100 * chance, **style.REFERENCE)
    right.axvline(ALL, color=style.EDGE, linewidth=0.7)
    left.set(xlim=(0, 102), xlabel="Slice accuracy (%)")
    changes = [shuffle.relative_change for run in results.values() for shuffle in run.shuffles]
    right.set(
        xlim=(-0.08, 1.08 * float(np.nanmax([*changes, ALL]))), xlabel="Change of the\nlogits (sd)"
    )
    for panel, names, ticks in ((left, list(results), 5), (right, [""] * len(results), 2)):
        style.name_rows(panel, range(len(results)), names)
        panel.set_ylim(len(results) - 0.5, -0.5)
        panel.xaxis.set_major_locator(MaxNLocator(ticks, steps=style.TICKS))
    return style.figure_of(left)


def _draw_run(result: FlattenAnalysis, row: int, left: Axes, right: Axes) -> None:
    accuracies: list[Array] = [np.array([result.slice_accuracy])]
    accuracies += [shuffled.slice_accuracy for shuffled in result.shuffles]
    accuracies += [probe.slice_accuracy for probe in result.probes]
    for k, (kind, values) in enumerate(zip(KINDS, accuracies, strict=True)):
        percent, y = 100 * values[np.isfinite(values)], row + STEP * (k - 2)  # (repeats,)
        if len(percent):
            left.plot([percent.min(), percent.max()], [y, y], color=kind[2], linewidth=1.0)
            left.plot(percent.mean(), y, clip_on=False, **_style(kind))
    for k, shuffled in enumerate(result.shuffles, start=1):
        if np.isfinite(shuffled.relative_change):
            y = row + STEP * (k - 2)
            right.plot([shuffled.relative_change], [y], clip_on=False, **_style(KINDS[k]))
    for panel in (left, right) if row else ():
        panel.axhline(row - 0.5, color=style.EDGE, linewidth=0.5)


def _style(kind: Kind) -> dict[str, Any]:
    _, marker, colour, filled = kind
    face = colour if filled else "white"
    return {"marker": marker, "color": colour, "markersize": 3.8, "markerfacecolor": face}
