"""The ablation ladder: a slice on each rung, and below it what networks reach there."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headscope.analysis.explanations.ladder import Ladder, Rung, SettingLadder
from headscope.figures import style

MOST = 6  # networks that one figure shows: as many as there are colours
LETTERS = 14  # of a title in a line


@style.apply_style
def plot_ladder(
    ladder: Ladder,
    settings: Sequence[SettingLadder] | None = None,
    *,
    pictures: bool = True,
    width: float = style.PAGE,
) -> Figure:
    """Draw the accuracy of each rung with its interval, and a slice on each rung above it.

    A dashed line is the accuracy of whole slices, a dotted one what the larger class alone gives,
    both of the first network. Hollow marks do not reach whole slices.

    Parameters
    ----------
    ladder
        As of `hs.ablate`.
    settings
        Which of its networks, at most six; by default the first six.
    pictures
        Whether slices are shown, where their pixels are there.
    width
        In inches.
    """
    shown = [*(ladder.settings if settings is None else settings)][:MOST]
    if not shown:
        return style.nothing(width, "no rung has finished")
    names = [name for name in ladder.titles if any(_rung(s, name) for s in shown)]
    above = pictures and any(name in ladder.pictures for name in names)
    side = 0.95 * width / len(names) if above else 0.0
    figure = style.new_figure(width, 58 * style.MM + side + style.LINE * ((len(shown) + 1) // 2))
    room, ax = figure.subplots(2, 1, height_ratios=[side + 1e-3, 36 * style.MM])
    room.set_axis_off()  # for the slices, which stand where the marks do
    for k, setting in enumerate(shown):
        _draw(setting, names, k, 0.5 * (k - (len(shown) - 1) / 2) / len(shown), ax)
    whole = shown[0].rungs[0]
    ax.axhline(100 * whole.accuracy.value, zorder=1, **style.DIAGONAL)
    ax.axhline(100 * whole.majority, zorder=1, **style.REFERENCE)
    ax.set_xticks(range(len(names)), [fill(ladder.titles[name], LETTERS) for name in names])
    over = "slice" if shown[0].full.nameless else "subject"
    ax.set(xlim=(-0.6, len(names) - 0.4), ylabel=f"Test {over} accuracy (%)")
    ax.tick_params(axis="x", length=0)
    ax.grid(visible=False, axis="x")
    if above:
        _show_slices(ladder, names, ax)
    figure.legend(handles=_handles(shown), loc="outside lower center", ncols=2)
    return figure


def _rung(setting: SettingLadder, name: str) -> Rung | None:
    return next((rung for rung in setting.rungs if rung.name == name), None)


def _show_slices(ladder: Ladder, names: Sequence[str], ax: Axes) -> None:
    for x, name in enumerate(names):
        if name in ladder.pictures:
            place = (x - 0.46, 1.04, 0.92, 2.0)
            above = ax.inset_axes(place, transform=ax.get_xaxis_transform())
            above.imshow(ladder.pictures[name], cmap="gray", vmin=0, vmax=255)
            above.set_anchor("S")
            above.set_in_layout(False)
            above.set_axis_off()


def _draw(setting: SettingLadder, names: Sequence[str], k: int, aside: float, ax: Axes) -> None:
    colour, marker = style.COLOURS[k], style.MARKERS[k]
    for x, name in enumerate(names):
        rung = _rung(setting, name)
        if rung is None or not np.isfinite(rung.accuracy.value):
            continue
        ends = rung.accuracy.interval
        if ends is not None:
            ax.plot([x + aside] * 2, [100 * end for end in ends], color=colour, linewidth=1.1)
        reaches = x == 0 or (rung.beats_majority and rung.level_with_whole)
        face = colour if reaches else "white"
        ax.scatter([x + aside], [100 * rung.accuracy.value], s=24, marker=marker, linewidths=1,
                   edgecolors=colour, facecolors=face, zorder=3)  # fmt: skip


def _handles(shown: Sequence[SettingLadder]) -> list[Line2D]:
    names = [style.plain(f"{setting.network}, {setting.full.split} split") for setting in shown]
    handles = [style.entry(name, **style.mark(k)) for k, name in enumerate(names)]
    return [*handles, style.entry("whole slices", **style.DIAGONAL), style.largest_class()]
