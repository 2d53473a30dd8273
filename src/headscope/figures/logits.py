"""Fig. 2: the logits of each slice, one panel per run."""

from collections.abc import Mapping, Sequence
from math import ceil, cos, pi, radians, sin
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from headscope.analysis.representation.features import Ellipse
from headscope.analysis.results.table import LogitScatter
from headscope.errors import InputError
from headscope.figures import style

SIZE, SMALL = 11, 7  # points²; the small ones where there are many slices
MANY = 250
CROWD = 2000  # slices of a panel beyond which marks stand for several of them
SMALL_MULTIPLE = 3.5  # points²
LAYERS = 8  # in which the marks of both classes are drawn in turn
CELLS = 44  # along each axis, in which such marks gather slices
LEGEND = 3 * style.MM, 3.6 * style.MM  # height that the legend takes, and each of its lines
OUTLINES: tuple[Any, ...] = ("-", (0, (3, 1.2)))

Array = NDArray[np.float64]


@style.apply_style
def plot_logits(
    panels: LogitScatter | Sequence[LogitScatter],
    ellipses: Sequence[Sequence[Ellipse] | None] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw the two logits of each slice, by class, with the decision line and errors hollow.

    All panels share their axes, so that dispersion can be compared; in the paper's order they are
    frozen, fine-tuned, from scratch for few epochs and for many. Beyond 2,000 slices, marks stand
    for the slices of one cell, the larger the more. Source: the paper's Fig. 2.

    Parameters
    ----------
    panels
        One run's logits, or several runs'.
    ellipses
        For each panel None, or those of its classes (`FeatureAnalysis.ellipses`): then each mean
        is marked and its 95% ellipse drawn.
    ax
        An axis per panel; on a new figure if left out.

    Raises
    ------
    InputError
        There are not as many sets of ellipses as panels.
    """
    panels = [panels] if isinstance(panels, LogitScatter) else list(panels)
    outlined = [()] * len(panels) if ellipses is None else [group or () for group in ellipses]
    if len(outlined) != len(panels):
        raise InputError(f"{len(outlined)} sets of ellipses were given for {len(panels)} panels.")
    crowded = any(len(panel.logits) > CROWD for panel in panels)
    handles = _handles(panels[0], crowded, any(outlined)) if panels else []
    if ax is None:
        axes = _grid(len(panels), len(handles))
    else:
        axes = [ax] if isinstance(ax, Axes) else list(ax)
    if not panels:
        style.say_nothing(axes[0], "no runs")
        return style.figure_of(axes[0])
    low, high = _limits(panels, outlined)
    for letter, panel, group, place in zip(ascii_lowercase, panels, outlined, axes, strict=False):
        _draw(panel, place, (low, high), f"({letter}) " if len(panels) > 1 else "")
        for ellipse in group:
            if ellipse.class_name in panel.class_names:
                _draw_ellipse(ellipse, panel, place)
        style.set_square(place, low, high)
        place.set_yticks([tick for tick in place.get_xticks() if low <= tick <= high])
        place.set_xticks(place.get_yticks())
    figure, columns = style.figure_of(axes[0]), 3 if len(panels) > 1 else 2
    if ax is None:
        look: Any = {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.6}
        figure.legend(handles=handles, **look)
    return figure


@style.apply_style
def plot_logit_grid(
    networks: Mapping[str, Mapping[str, LogitScatter]], width: float = style.PAGE
) -> Figure:
    """Draw Fig. 2 as small multiples: networks below each other, their settings side by side.

    Panels of one network share their axes. Of more than two classes they show the logit of a
    slice's class against the largest of the others (`LogitScatter.against_others`).

    Parameters
    ----------
    networks
        The logits of each network's runs, by what tells its settings apart, by the network.
    width
        Of the figure, in inches.
    """
    if not networks:
        return style.nothing(width, "no runs")
    every = [panel for panels in networks.values() for panel in panels.values()]
    handles = _handles(
        every[0], any(len(panel.logits) > CROWD for panel in every), with_ellipses=False
    )
    columns = 2 if width <= style.COLUMN else 4
    legend = LEGEND[0] + LEGEND[1] * ceil(len(handles) / columns)
    figure, grid = style.grid_of(networks, width, legend, lines=1)
    for panels, axes in zip(networks.values(), grid, strict=True):
        low, high = _limits([*panels.values()], [])
        for panel, ax in zip(panels.values(), axes, strict=True):
            ax.axline((0, 0), slope=1, zorder=1, **style.DIAGONAL)
            draw_slices(panel, (low, high), ax, SMALL_MULTIPLE)
            share = f"{100 * panel.slice_accuracy:.1f}%" if len(panel.logits) else "no slices"
            style.add_below(ax, share)
            style.set_square(ax, low, high)
            style.share_ticks(ax)
    style.name_grid(grid, *_axis_names(every[0]))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2)
    return figure


def _axis_names(panel: LogitScatter) -> tuple[str, str]:
    if panel.against_others:
        return "Logit of the slice's class", "Largest other logit"
    (first, second), (i, j) = map(style.plain, map(style.short, panel.class_names)), panel.pair
    return (
        f"Logit of {first}, {style.subscript('z', i)}",
        f"Logit of {second}, {style.subscript('z', j)}",
    )


def _draw(panel: LogitScatter, ax: Axes, limits: tuple[float, float], letter: str) -> None:
    ax.axline((0, 0), slope=1, zorder=1, **style.DIAGONAL)
    draw_slices(panel, limits, ax)
    ax.set(**dict(zip(("xlabel", "ylabel"), _axis_names(panel), strict=True)))
    style.set_title(ax, letter + panel.title, f"{panel.network}\n{_summary(panel)}")


def draw_slices(
    panel: LogitScatter, limits: tuple[float, float], ax: Axes, size: float | None = None
) -> None:
    """Draw a mark per slice, or per cell of a crowd: filled where correct, hollow where not.

    The marks of both classes are drawn in turn, in random order, so that neither class covers the
    other. limits are those of both axes; size is the area of a mark in points².
    """
    crowded = len(panel.logits) > CROWD
    marks = [
        (*_marks(panel, k, correct, limits, size), _mark_style(k, correct, size is not None))
        for k in range(len(panel.class_names))
        for correct in (True, False)
    ]
    for layer in range(LAYERS):
        for points, area, look in marks if layer % 2 == 0 else marks[::-1]:
            some, sizes = points[layer::LAYERS], area[layer::LAYERS]
            if len(some):
                ax.scatter(some[:, 0], some[:, 1], s=sizes, zorder=2 + layer / LAYERS,
                           rasterized=not crowded and len(panel.logits) > style.DENSE,
                           **look)  # fmt: skip


def _marks(
    panel: LogitScatter, k: int, correct: bool, limits: tuple[float, float], size: float | None
) -> tuple[Array, Array]:
    """Return places (m, 2) and areas (m,) of the marks of one class and outcome, in random order.

    Of a crowd a mark stands for the slices of a cell, its area by the root of their number.
    """
    points = panel.logits[(panel.label == k) & (panel.correct == correct)]  # (n, 2)
    if len(panel.logits) > CROWD:
        most = max(_gather(panel.logits[panel.label == label], limits)[1].max(initial=1.0)
                   for label in range(len(panel.class_names)))  # fmt: skip
        points, count = _gather(points, limits)
        side = 0.8 * ((size / SMALL) ** 0.5 if size else 1.0) * style.COLUMN * 72 / CELLS  # points
        area = np.maximum(1.0, side**2 * np.sqrt(count / most))
    else:
        area = np.full(len(points), size or (SMALL if len(panel.logits) > MANY else SIZE))
    order = np.random.default_rng(0).permutation(len(points))
    return points[order], area[order]


def _mark_style(k: int, correct: bool, small: bool) -> dict[str, Any]:
    edge = (0.0, 0.5) if small else (0.3, 0.8)
    return {
        "marker": _marker(k),
        "facecolors": _colour(k) if correct else "none",
        "edgecolors": "white" if correct else _colour(k),
        "linewidths": edge[not correct],
        "alpha": 0.85,
    }


def _colour(k: int) -> str:
    return style.COLOURS[k % len(style.COLOURS)]


def _marker(k: int) -> str:
    """Return the marker of a class: no two of 36 have colour and marker alike."""
    return style.MARKERS[(k + k // len(style.COLOURS)) % len(style.MARKERS)]


def _gather(points: Array, limits: tuple[float, float]) -> tuple[Array, Array]:
    """Return the centres of the cells that hold points, (m, 2), and how many each holds, (m,)."""
    edges = np.linspace(*limits, CELLS + 1)
    count = np.histogram2d(points[:, 0], points[:, 1], [edges, edges])[0]
    held = np.argwhere(count > 0)  # (m, 2)
    centre = (edges[:-1] + edges[1:]) / 2
    return centre[held], count[tuple(held.T)]


def _draw_ellipse(ellipse: Ellipse, panel: LogitScatter, ax: Axes) -> None:
    if not np.isfinite(ellipse.mean).all():
        return
    k = panel.class_names.index(ellipse.class_name)
    # Below slices drawn one by one: the thin clouds of long training would vanish under it.
    level = 4 if len(panel.logits) > CROWD else 1.5
    ax.plot(*_outline(ellipse), color=style.INK, linewidth=0.9, linestyle=OUTLINES[k], zorder=level)
    x, y = ellipse.mean
    ax.plot(x, y, linestyle="none", zorder=5, **_mean_style(k))


def _outline(ellipse: Ellipse) -> Array:
    """Return points on the ellipse, (2, points); NaN where its axes are unknown."""
    turn, lean = np.linspace(0, 2 * pi, 91), radians(ellipse.angle_deg)
    along, across = ellipse.width / 2 * np.cos(turn), ellipse.height / 2 * np.sin(turn)
    x = ellipse.mean[0] + along * cos(lean) - across * sin(lean)
    y = ellipse.mean[1] + along * sin(lean) + across * cos(lean)
    return np.stack([x, y])


def _mean_style(k: int) -> dict[str, Any]:
    return {
        "marker": style.MARKERS[k],
        "markersize": 6,
        "markerfacecolor": style.COLOURS[k],
        "markeredgecolor": style.INK,
        "markeredgewidth": 0.9,
    }


def _summary(panel: LogitScatter) -> str:
    n = len(panel.logits)
    if n == 0:
        return f"no {panel.subset} slices of these classes"
    text = f"{100 * panel.slice_accuracy:.1f}% of {n:,} slices correct"
    return text if panel.class_count == 2 else f"{text} among {panel.class_count} classes"


def _limits(
    panels: Sequence[LogitScatter], ellipses: Sequence[Sequence[Ellipse]]
) -> tuple[float, float]:
    """Return one range for both axes of all panels, a little beyond points and ellipses."""
    outlines = [_outline(ellipse).ravel() for group in ellipses for ellipse in group]
    values = np.concatenate([panel.logits.ravel() for panel in panels] + outlines)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return -1.0, 1.0
    margin = 0.05 * float(np.ptp(values)) or 1.0
    return float(values.min()) - margin, float(values.max()) + margin


def _grid(count: int, entries: int) -> list[Axes]:
    columns = 1 if count <= 1 else 2
    rows = max(ceil(count / columns), 1)
    width = style.COLUMN if columns == 1 else style.PAGE
    legend = LEGEND[0] + LEGEND[1] * ceil(entries / (columns + 1))
    figure = style.new_figure(width, rows * style.COLUMN * 1.07 + legend, row_gap=2.5 * style.MM)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[max(count, 1) :]:
        spare.set_axis_off()
    return list(axes[: max(count, 1)])


def _handles(panel: LogitScatter, crowded: bool, with_ellipses: bool) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "none", "markersize": 4.5}
    unit = "slices (large: many)" if crowded else "slice"
    handles = [
        style.entry(f"{style.plain(style.short(name))} {unit}", marker=_marker(k),
                    markerfacecolor=_colour(k), markeredgecolor=_colour(k), **dot)
        for k, name in enumerate(panel.class_names)
    ]  # fmt: skip
    handles.append(style.entry("hollow: misclassified", marker="o", markerfacecolor="none",
                               markeredgecolor=style.INK, markeredgewidth=0.8, **dot))  # fmt: skip
    i, j = (style.subscript("z", k) for k in panel.pair)
    name = "decision line" if panel.against_others else f"decision line, {i} = {j}"
    handles.append(style.entry(name, **style.DIAGONAL))
    for k, name in enumerate(panel.class_names if with_ellipses else ()):
        handles.append(style.entry(f"{style.plain(name)} mean, 95% ellipse", color=style.INK,
                       linewidth=1.0, linestyle=OUTLINES[k], **_mean_style(k)))  # fmt: skip
    return handles
