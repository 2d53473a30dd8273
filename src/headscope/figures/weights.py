"""Fig. 3: the weights to one class against those to another, with fits and the null line."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.final_layer.fits import PolynomialFit
from headscope.analysis.final_layer.layer import HeadAnalysis
from headscope.analysis.final_layer.pairs import PairAnalysis
from headscope.errors import InputError
from headscope.figures import style

Array = NDArray[np.float64]
NAMES = {1: "Linear", 2: "Quadratic", 3: "Cubic", 4: "4th degree"}
FIT_COLOURS = (style.COLOURS[1], style.COLOURS[2], style.COLOURS[3], style.INK)
POWERS = str.maketrans("234", "²³⁴")
PANEL = 82 * style.MM  # height of one network's
BINS = 48
NULL: Any = {"color": "#E69F00", "linewidth": 6, "alpha": 0.5, "solid_capstyle": "butt"}
WIDEST = 48  # characters of an equation on one line of the legend


@style.apply_style
def plot_weights(
    result: PairAnalysis,
    title: str = "",
    network: str = "",
    initial: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw one dot per feature, the fits with their equations, r and its null.

    Where the rows before training are given, each row's distribution is drawn on its side of the
    panel, the untrained one over it. Source: the paper's Fig. 3.

    Parameters
    ----------
    result
        Of two rows (2, D) of a final layer.
    title, network
        Words above the panel.
    initial
        The same two rows before training, (2, D), where they are recorded.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, style.COLUMN + (39 if initial is not None else 35) * style.MM)
    handles = _draw_panel(result, _rows(initial, result), title, network, ax)
    figure = style.figure_of(ax)
    if alone:
        figure.legend(handles=handles, loc="outside lower left", labelspacing=0.45)
    else:
        ax.legend(handles=handles)
    return figure


@style.apply_style
def plot_weight_panels(
    heads: Mapping[str, HeadAnalysis],
    pair: tuple[int, int] = (0, 1),
    *,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw one panel per network as `plot_weights` does, its equations beside it.

    Source: the paper's Fig. 3.

    Parameters
    ----------
    heads
        Final layers, as of `hs.analyse_head`, by title.
    pair
        Rows of the classes on the x and the y axis.
    ax
        As many axes as heads; on a new figure if left out.

    Raises
    ------
    InputError
        A head holds no analysis of that pair.
    """
    rows = max(len(heads), 1)
    beside: list[Axes] = []
    if ax is None:
        figure = style.new_figure(style.PAGE, rows * PANEL, row_gap=2.5 * style.MM)
        grid = figure.subplots(rows, 2, squeeze=False, width_ratios=(1, 1.02))
        ax, beside = list(grid[:, 0]), list(grid[:, 1])
    for panel in beside:
        panel.set_axis_off()
    if not heads:
        style.say_nothing(ax[0], "no networks")
    for k, (title, head) in enumerate(heads.items()):
        result = _pair_of(head, pair, title)
        initial = None if head.initial_weight is None else head.initial_weight[list(pair)]
        letter = f"({ascii_lowercase[k % 26]}) " if len(heads) > 1 else ""
        handles = _draw_panel(result, initial, letter + title, "", ax[k])
        where = beside[k] if beside else ax[k]
        where.legend(handles=handles, labelspacing=0.7,
                     loc="center left" if beside else "best")  # fmt: skip
    return style.figure_of(ax[0])


@style.apply_style
def plot_weight_grid(
    networks: Mapping[str, Mapping[str, PairAnalysis]], width: float = style.PAGE
) -> Figure:
    """Draw Fig. 3 as small multiples: networks below each other, their settings side by side.

    Above each panel stand r and what the null model predicts.

    Parameters
    ----------
    networks
        One pair of class rows of each network's settings, by what tells them apart, by the network.
    width
        Of the figure, in inches.
    """
    if not networks:
        return style.nothing(width, "no runs")
    figure, grid = style.grid_of(networks, width, style.LINE * 2, lines=2)
    for panels, axes in zip(networks.values(), grid, strict=True):
        reach = [values for pair in panels.values() for values in (pair.x, pair.y)]
        edge = 1.06 * max(float(np.abs(values).max()) for values in reach) or 1.0
        for pair, ax in zip(panels.values(), axes, strict=True):
            _draw_small(pair, ax)
            style.set_square(ax, -edge, edge)
            style.share_ticks(ax)
    shown = next(iter(next(iter(networks.values())).values()))
    (first, second), (i, j) = map(style.plain, map(style.short, shown.class_names)), shown.pair
    style.name_grid(
        grid,
        f"Weight to {first}, {style.subscript('W', f'{i}j')}",
        f"Weight to {second}, {style.subscript('W', f'{j}j')}",
    )
    fits = [
        style.entry(NAMES[k].lower(), color=FIT_COLOURS[k - 1], linestyle=style.DASHES[k - 1])
        for k in (1, 4)
    ]
    null = style.entry("null model", **NULL | {"linewidth": 4})
    figure.legend(handles=[*fits, null], loc="outside lower center", ncols=3)
    return figure


def _draw_small(pair: PairAnalysis, ax: Axes) -> None:
    """Draw the features of one pair, the straight fit, that of degree 4 and the null line."""
    _scatter(pair, (3, 1.5), 0.4, ax)
    for fit in pair.fits:
        if fit.degree in (1, 4):
            _draw_fit(fit, pair, ax)
    if np.isfinite(pair.null_slope):
        _draw_null(pair, ax).set_linewidth(4)
    digits = 2 if style.figure_of(ax).get_figwidth() <= style.COLUMN else 3
    r, null = (style.decimals(value, digits) for value in (pair.r, pair.r_null))
    style.add_below(ax, f"r {r}\n{'no null' if pair.no_null else f'null {null}'}")


def _scatter(pair: PairAnalysis, sizes: tuple[float, float], alpha: float, ax: Axes) -> None:
    """Draw a dot per feature, of either size as they are few or many."""
    dense = len(pair.x) > style.DENSE
    ax.scatter(pair.x, pair.y, s=sizes[dense], color=style.COLOURS[0], alpha=alpha, linewidths=0,
               rasterized=dense, zorder=2)  # fmt: skip


def _pair_of(head: HeadAnalysis, pair: tuple[int, int], title: str) -> PairAnalysis:
    pairs = {analysis.pair: analysis for analysis in head.pairs}
    if pair not in pairs:
        names = ", ".join(map(str, pairs))
        raise InputError(f"The head of {title} holds no analysis of the pair {pair}, only {names}.")
    return pairs[pair]


def _rows(initial: ArrayLike | None, result: PairAnalysis) -> Array | None:
    if initial is None:
        return None
    rows: Array = np.asarray(initial, dtype=np.float64)
    if rows.shape != (2, len(result.x)):
        raise InputError(f"initial has shape {rows.shape}; (2, {len(result.x)}) is needed.")
    return rows


def _draw_panel(
    result: PairAnalysis, initial: Array | None, title: str, network: str, ax: Axes
) -> list[Line2D]:
    ax.axhline(0, color=style.EDGE, linewidth=0.4, zorder=1)
    ax.axvline(0, color=style.EDGE, linewidth=0.4, zorder=1)
    _scatter(result, (9, 5), 0.35, ax)
    handles = [_draw_fit(fit, result, ax) for fit in result.fits]
    if result.fits:
        handles.append(style.entry(f"where {result.fits[0].scaling}", linestyle="none"))
    if np.isfinite(result.null_slope):
        handles.append(_draw_null(result, ax))
    reach = [result.x, result.y, *([] if initial is None else initial)]
    edge = 1.06 * max(float(np.abs(values).max()) for values in reach) or 1.0
    style.set_weight_axes(ax, result.class_names, result.pair, edge)
    below = f"{network}\n{_summary(result)}" if network else _summary(result)
    above = ax
    if initial is not None:
        above = _draw_margins(result, initial, edge, ax)
        handles.append(style.entry("rows before training", color=style.INK, **style.UNTRAINED))
    style.set_title(above, title, below)
    return handles


def _draw_margins(result: PairAnalysis, initial: Array, edge: float, ax: Axes) -> Axes:
    """Draw each row's distribution on its side, before and after; return the upper axes."""
    bins = np.linspace(-edge, edge, BINS + 1).tolist()
    above = ax.inset_axes((0, 1.02, 1, 0.14), sharex=ax)
    beside = ax.inset_axes((1.02, 0, 0.14, 1), sharey=ax)
    for margin, row, before, orientation in (
        (above, result.x, initial[0], "vertical"),
        (beside, result.y, initial[1], "horizontal"),
    ):
        look: Any = {"orientation": orientation, "histtype": "stepfilled"}
        margin.hist(row, bins, facecolor=style.COLOURS[0], alpha=0.45, linewidth=0, **look)
        margin.hist(before, bins, fill=False, edgecolor=style.INK, **look | style.UNTRAINED)
        margin.set_axis_off()
    return above


def _draw_fit(fit: PolynomialFit, result: PairAnalysis, ax: Axes) -> Line2D:
    x = np.linspace(result.x.min(), result.x.max(), 200)
    k = fit.degree - 1
    label = f"{NAMES.get(fit.degree, f'degree {fit.degree}')}: {_pretty(fit)}"
    look: Any = {"color": FIT_COLOURS[k % 4], "linestyle": style.DASHES[k % 4]}
    return ax.plot(x, fit(x), linewidth=1.5 - 0.15 * k, label=label, zorder=3, **look)[0]


def _draw_null(result: PairAnalysis, ax: Axes) -> Line2D:
    x = np.array([result.x.min(), result.x.max()])
    y = result.y.mean() + result.null_slope * (x - result.x.mean())
    label = (
        f"Null model, from the {result.null_source}: slope {style.decimals(result.null_slope, 3)}"
    )
    return ax.plot(x, y, label=label, zorder=1.5, **NULL)[0]


def _pretty(fit: PolynomialFit) -> str:
    """Return the polynomial with raised powers, on two lines if it outgrows the column."""
    equation = fit.polynomial
    for power in "234":
        equation = equation.replace(f"*z^{power}", f" z{power.translate(POWERS)}")
    equation = equation.replace("*z", " z")
    if len(equation) <= WIDEST:
        return equation
    cut = max(equation.rfind(sign, 0, WIDEST) for sign in (" + ", " − "))
    return f"{equation[:cut]}\n      {equation[cut:]}"


def _summary(result: PairAnalysis) -> str:
    text = f"D = {result.feature_count:,}    r = {style.decimals(result.r, 4)}"
    if result.no_null:
        return f"{text}    no null, as training does not conserve the row sum"
    return f"{text}    null prediction {style.decimals(result.r_null, 4)}"
