"""The rows of final layers: how training spread them, and where it moved each feature."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from headscope.analysis.final_layer.layer import HeadAnalysis
from headscope.figures import style

Array = NDArray[np.float64]
ROWS = 10  # classes shown of one head
DISTINCT = len(style.COLOURS)  # classes that colour and hatching tell apart; more are named beside
LONGEST = 22  # characters of a name there
BINS = 60
RIDGE = 7.5 * style.MM  # height of one distribution
TALL = 0.86  # of the distance between two of them


@style.apply_style
def plot_row_distributions(
    heads: Mapping[str, HeadAnalysis],
    *,
    title: str = "Weights of the final layer",
    network: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw the distribution of each row's weights, run by run, the untrained head's over it.

    The first ten rows are drawn, each distribution scaled to its own height. Of more than six
    classes each row has its name beside it and all have one colour. Source: the range of weights
    that the paper argues from (section III), drawn.

    Parameters
    ----------
    heads
        Final layers (K, D) of the same classes, as of `hs.analyse_head`, by the title of their run.
    title, network
        Words above the panel.
    ax
        Where it is drawn; on a new figure if left out.
    """
    classes = next(iter(heads.values())).class_names if heads else ()
    names = classes[:ROWS]
    rows, count = len(names), len(heads) * len(names)
    ax, alone = style.panel_of(ax, 27 * style.MM + max(count, 2) * RIDGE)
    some = f"the first {rows} of {len(classes):,} classes" if len(classes) > rows else ""
    style.set_title(ax, title, "\n".join(filter(None, (network, some))))
    if not count:
        style.say_nothing(ax, "no run has a final layer")
        return style.figure_of(ax)
    initial = [h.initial_weight for h in heads.values() if h.initial_weight is not None]
    every = [*(head.weight for head in heads.values()), *initial]
    edge = 1.03 * max(float(np.abs(weight[:rows]).max()) for weight in every) or 1.0
    bins = np.linspace(-edge, edge, BINS + 1)
    for r, head in enumerate(heads.values()):
        top = count - 1 - r * rows
        for k in range(rows):
            before = None if head.initial_weight is None else head.initial_weight[k]
            _ridge(head.weight[k], before, bins, top - k, k if rows <= DISTINCT else 0, ax)
            if rows > DISTINCT:
                name = names[k] if len(names[k]) <= LONGEST else names[k][: LONGEST - 1] + "…"
                place = ("axes fraction", "data"), "offset points"
                ax.annotate(style.plain(name), (1, top - k + TALL / 3), (3, 0), *place, va="center")
        if r:
            ax.axhline(top + 0.93, color=style.EDGE, linewidth=0.6)
    first = count - 1 - (rows - 1 - TALL) / 2
    style.name_rows(ax, [first - r * rows for r in range(len(heads))], list(heads))
    ax.set(
        xlim=(-edge, edge),
        ylim=(-0.1, count),
        xlabel=f"Weight, {style.subscript('W', 'kj')}, of each feature j",
    )
    handles = _row_handles(names if rows <= DISTINCT else (), bool(initial))
    if alone and handles:
        style.set_legend(ax, alone, handles, columns=3)
    return style.figure_of(ax)


def _ridge(row: Array, before: Array | None, bins: Array, base: float, k: int, ax: Axes) -> None:
    heights, colour = np.histogram(row, bins)[0], style.COLOURS[k]
    if heights.max() > 0:
        look: Any = {"facecolor": _tint(colour), "edgecolor": colour, "linewidth": 0.6}
        ax.stairs(base + TALL * heights / heights.max(), bins, baseline=base, fill=True,
                  hatch=style.HATCHES[k] or None, zorder=2, **look)  # fmt: skip
    if before is not None and len(before):
        heights = np.histogram(before, bins)[0]
        outline = base + TALL * heights / max(heights.max(), 1)
        ax.stairs(outline, bins, baseline=None, color=style.INK, zorder=3, **style.UNTRAINED)


def _tint(colour: str) -> tuple[float, float, float]:
    red, green, blue = (0.55 + 0.45 * int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _row_handles(names: Sequence[str], has_initial: bool) -> list[Any]:
    handles: list[Any] = [
        Patch(facecolor=_tint(style.COLOURS[k]), edgecolor=style.COLOURS[k], hatch=style.HATCHES[k],
              label=f"row of {style.plain(name)}")
        for k, name in enumerate(names)
    ]  # fmt: skip
    if has_initial:
        handles.append(style.entry("before training", color=style.INK, **style.UNTRAINED))
    return handles


@style.apply_style
def plot_head_before_after(
    head: HeadAnalysis,
    pair: tuple[int, int] = (0, 1),
    *,
    title: str = "",
    network: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw two rows of a final layer before and after training, each feature's way between.

    Training on two classes leaves the sum of the rows as it was, so each way runs along the falling
    diagonal: Fig. 3's line is the training rule's. Source: the paper's Fig. 3; docs/science.md,
    section 2.

    Parameters
    ----------
    head
        The analysis of a final layer whose start was recorded, as of `hs.analyse_head`.
    pair
        Rows of the classes on the x and the y axis.
    title, network
        Words above the panel.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, style.COLUMN + 18 * style.MM)
    after = head.weight[list(pair)].T  # (D, 2)
    style.set_title(ax, title, network)
    if head.initial_weight is None or not len(after):
        style.say_nothing(
            ax, "the head before training is not known" if len(after) else "no features"
        )
        return style.figure_of(ax)
    before = head.initial_weight[list(pair)].T  # (D, 2)
    dense = len(after) > style.DENSE
    ways = LineCollection(list(np.stack([before, after], axis=1)), colors=style.FAINT, zorder=1)
    ways.set(linewidths=0.25 if dense else 0.4, alpha=0.35, rasterized=dense)
    ax.add_collection(ways)
    # Large and pale below small and black: either is seen where they overlap.
    ax.scatter(after[:, 0], after[:, 1], s=7 if dense else 14, color=style.COLOURS[0], marker="o",
               alpha=0.4, linewidths=0, rasterized=dense, zorder=2)  # fmt: skip
    ax.scatter(before[:, 0], before[:, 1], s=0.5 if dense else 1.5, color=style.INK, marker="o",
               linewidths=0, rasterized=dense, zorder=3)  # fmt: skip
    edge = 1.06 * float(np.abs(np.concatenate([before, after])).max()) or 1.0
    ax.axline((0, 0), slope=-1, zorder=4, **style.DIAGONAL)
    style.set_weight_axes(ax, [head.class_names[k] for k in pair], pair, edge)
    if alone:
        dot: Any = {"linestyle": "none", "marker": "o", "markeredgewidth": 0}
        handles = [
            style.entry("before training", color=style.INK, markersize=1.6, **dot),
            style.entry("after training", color=style.COLOURS[0], alpha=0.7, markersize=4, **dot),
            style.entry("a feature's way", color=style.FAINT, linewidth=0.6),
            style.entry("sum of both rows zero", **style.DIAGONAL),
        ]
        style.set_legend(ax, alone, handles)
    return style.figure_of(ax)
