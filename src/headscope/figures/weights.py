"""Fig. 3: the weights to one class against those to another, with fits and the null line."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from headscope.analysis.fits import PolynomialFit
from headscope.analysis.pairs import PairAnalysis
from headscope.figures.style import (
    COLOURS,
    COLUMN,
    DASHES,
    DENSE,
    EDGE,
    INK,
    MM,
    figure_of,
    head_line,
    new_figure,
    plain,
    styled,
)

NAMES = {1: "Linear", 2: "Quadratic", 3: "Cubic", 4: "4th degree"}
FIT_COLOURS = (COLOURS[1], COLOURS[2], COLOURS[3], INK)
POWERS = str.maketrans("234", "²³⁴")
UNDEFINED = "undefined"
WIDEST = 56  # characters of an equation on one line of the legend


@styled
def plot_weights(
    result: PairAnalysis, title: str = "", network: str = "", ax: Axes | None = None
) -> Figure:
    """Draw a dot a feature, the fits of degree 1 to 4 with their equations, r and its null.

    Source: the paper's Fig. 3.
    """
    own = ax is None
    ax = new_figure(COLUMN, COLUMN + 33 * MM).subplots() if ax is None else ax
    ax.axhline(0, color=EDGE, linewidth=0.4, zorder=1)
    ax.axvline(0, color=EDGE, linewidth=0.4, zorder=1)
    ax.scatter(
        result.x,
        result.y,
        s=5 if len(result.x) > DENSE else 9,
        color=COLOURS[0],
        alpha=0.35,
        linewidths=0,
        rasterized=len(result.x) > DENSE,
        zorder=2,
    )
    handles = [_draw_fit(fit, result, ax) for fit in result.fits]
    if result.fits:
        where = result.fits[0].equation.partition(", where ")[2]
        handles.append(Line2D([], [], linestyle="none", label=f"where {where}"))
    if np.isfinite(result.null_slope):
        handles.append(_draw_null(result, ax))
    first, second = (plain(name) for name in result.class_names)
    i, j = result.pair
    ax.set(xlabel=f"Weight to {first}, $W_{{{i},j}}$", ylabel=f"Weight to {second}, $W_{{{j},j}}$")
    edge = 1.06 * max(float(np.abs(result.x).max()), float(np.abs(result.y).max())) or 1.0
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", anchor="N")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    below = f"{network}\n{_summary(result)}" if network else _summary(result)
    head_line(ax, title, below)
    figure = figure_of(ax)
    if own:
        figure.legend(handles=handles, loc="outside lower left", fontsize=6, labelspacing=0.45)
    else:
        ax.legend(handles=handles, fontsize=5.5)
    return figure


def _draw_fit(fit: PolynomialFit, result: PairAnalysis, ax: Axes) -> Line2D:
    x = np.linspace(result.x.min(), result.x.max(), 200)
    k = fit.degree - 1
    label = f"{NAMES.get(fit.degree, f'degree {fit.degree}')}: {_pretty(fit)}"
    return ax.plot(
        x,
        fit(x),
        color=FIT_COLOURS[k % 4],
        linestyle=DASHES[k % 4],
        linewidth=1.5 - 0.15 * k,
        label=label,
        zorder=3,
    )[0]


def _draw_null(result: PairAnalysis, ax: Axes) -> Line2D:
    x = np.array([result.x.min(), result.x.max()])
    y = result.y.mean() + result.null_slope * (x - result.x.mean())
    label = f"Null model, from the {result.null_source}: slope {_number(result.null_slope, 3)}"
    style: Any = {"color": "#E69F00", "linewidth": 6, "alpha": 0.5, "solid_capstyle": "butt"}
    return ax.plot(x, y, label=label, zorder=1.5, **style)[0]


def _pretty(fit: PolynomialFit) -> str:
    """Return the equation with raised powers, on two lines if it outgrows the column."""
    equation = fit.equation.partition(", where")[0]
    for power in "234":
        equation = equation.replace(f"*z^{power}", f" z{power.translate(POWERS)}")
    equation = equation.replace("*z", " z")
    if len(equation) <= WIDEST:
        return equation
    cut = max(equation.rfind(sign, 0, WIDEST) for sign in (" + ", " − "))
    return f"{equation[:cut]}\n      {equation[cut:]}"


def _summary(result: PairAnalysis) -> str:
    text = f"D = {result.feature_count:,}    r = {_number(result.r, 4)}"
    return f"{text}    null prediction {_number(result.r_null, 4)}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else UNDEFINED
