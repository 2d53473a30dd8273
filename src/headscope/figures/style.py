"""One look for all figures: journal column widths, Okabe–Ito colours, nothing global touched."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from io import BytesIO
from math import isfinite
from textwrap import fill, wrap
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from headscope.text import UNDEFINED, fixed

P = ParamSpec("P")
T = TypeVar("T")

MM = 1 / 25.4  # inches
COLUMN, PAGE = 85 * MM, 174 * MM
INK, FAINT, EDGE, GRID = "#1b1f24", "#5b6470", "#c3c8d0", "#e8eaee"

# Okabe & Ito 2008, told apart by every kind of colour vision; the markers by a black printer.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "^", "s", "D", "v", "P")
HATCHES = ("", "//////", "......", "xxxxxx", "------", "++++++")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"  # kept apart by every kind of colour vision
# Lines: the value that a limit or chance gives, a diagonal, and what was there before training.
REFERENCE: Any = {"color": INK, "linewidth": 0.7, "dashes": (1, 1.5)}
DIAGONAL: Any = {"color": INK, "linewidth": 0.8, "dashes": (4, 2)}
UNTRAINED: Any = {"linewidth": 0.8, "linestyle": (0, (2, 1))}
LINE = 3.1 * MM  # height of a line of text
LONGEST = 22  # characters of a name in a label
LETTER = 4.3  # points: mean width of a letter of 7 pt
MOST_BESIDE = (4, 6)  # small panels in a column and on a page
TICKS = [1, 2, 2.5, 5, 10]  # round steps of an axis
# Beyond this many points a vector file grows heavier than a picture of them.
DENSE = 600

SMALLEST = 7  # points: what a journal prints legibly; signs of mathematics would be smaller
_SUBSCRIPTS = str.maketrans("0123456789jk", "₀₁₂₃₄₅₆₇₈₉ⱼₖ")

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": SMALLEST,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.labelsize": 7,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 4),
    "axes.unicode_minus": True,
    "hatch.color": INK,
    "hatch.linewidth": 0.4,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    **{f"{axis}tick.labelsize": 7 for axis in "xy"},
    **{f"{axis}tick.color": INK for axis in "xy"},
    **{f"{axis}tick.major.size": 2.5 for axis in "xy"},
    **{f"{axis}tick.major.width": 0.6 for axis in "xy"},
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.1,
    "text.color": INK,
    "text.hinting": "none",  # letters as wide at every resolution
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "headscope",
    "svg.fonttype": "path",
}


def apply_style(plot: Callable[P, T]) -> Callable[P, T]:
    """Run a plotting function under the house style, whatever the caller's own settings are."""

    @wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return plot(*args, **kwargs)

    return wrapper


class ShownFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    @apply_style
    def _repr_png_(self) -> bytes:
        """Return the figure as PNG, at 1.5 times the resolution of a screen."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


class SquareLayout(ConstrainedLayoutEngine):
    """A layout for many square panels, whose labels have their places only after a first time."""

    def execute(self, fig: Figure) -> None:
        """Place the panels twice."""
        super().execute(fig)
        super().execute(fig)


def new_figure(
    width: float,
    height: float,
    row_gap: float = 1.6 * MM,
    engine: type[ConstrainedLayoutEngine] = ConstrainedLayoutEngine,
) -> Figure:
    """Return an empty figure of that size in inches, without a window behind it."""
    layout = engine(h_pad=row_gap)
    figure = ShownFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def mark(k: int, **look: Any) -> dict[str, Any]:
    """Return the look of the k-th kind of marks in a legend, with the line of its interval."""
    return {"color": COLOURS[k], "marker": MARKERS[k], "markersize": 4.5, "linewidth": 1.1} | look


def grid_of(
    panels: Mapping[str, Collection[str]], width: float, legend: float = 0.0, lines: int = 0
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of small square panels, and the axes of each network's, as titled.

    panels holds for each network what its panels show, which stand beside each other, at most
    `MOST_BESIDE` of them; width and legend, the height that one takes, are in inches. lines of
    text stand under each title.
    """
    most = max(map(len, panels.values()))
    columns = -(-most // -(-most // MOST_BESIDE[width > COLUMN]))  # rows of much the same length
    room = max(8, int((width / columns * 72 - 6) / LETTER) - 1)  # characters
    titles = {name: [fold(text, room) for text in texts] for name, texts in panels.items()}
    tall = {name: max(map(_line_count, texts)) for name, texts in titles.items()}
    rows = {name: -(-len(texts) // columns) for name, texts in panels.items()}
    side = (width - (13 + 3 * (columns - 1)) * MM) / columns
    height = sum(n * (side + 5 * MM + LINE * (1 + tall[name] + lines)) for name, n in rows.items())
    figure = new_figure(width, height + 2 * LINE + legend, 0.8 * MM, SquareLayout)
    grid = figure.subplots(sum(rows.values()), columns, squeeze=False)
    placed, top = [], 0
    for name, texts in titles.items():
        axes = list(grid[top : top + rows[name]].ravel())
        for spare in axes[len(texts) :]:
            spare.set_axis_off()
        for k, (ax, text) in enumerate(zip(axes, texts, strict=False)):
            blank = "\n " * (tall[name] - _line_count(text) + lines)
            set_title(ax, fold(name, room * columns, 1) if k == 0 else " ", text + blank)
        placed.append(axes[: len(texts)])
        top += rows[name]
    return figure, placed


def _line_count(text: str) -> int:
    return text.count("\n") + 1


def name_grid(grid: Sequence[Sequence[Axes]], x: str, y: str) -> None:
    """Name the axes of small panels once: below the lowest, and left of all."""
    columns = grid[0][0].get_gridspec().ncols  # type: ignore[union-attr]
    first_of_last_row = (len(grid[-1]) - 1) // columns * columns
    figure = figure_of(grid[0][0])
    room = int(figure.get_figwidth() * 72 / LETTER) - 12  # characters
    grid[-1][first_of_last_row].set_xlabel(fold(x, room, 1), loc="left")
    high = int(figure.get_figheight() * 72 / LETTER)
    figure.supylabel(fold(y, high, 1), fontsize=SMALLEST)


def fold(text: str, room: int, most: int = 3) -> str:
    """Return a text in lines of so many characters, at most so many lines; the rest is …."""
    lines = [line.replace("_ ", "_") for line in wrap(text.replace("_", "_ "), room)] or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: room - 1] + "…"]
    return "\n".join(lines)


def short(name: str) -> str:
    """Return a name that fits beside a figure, on one line."""
    return fold(name, LONGEST, 1)


def panel_of(ax: Axes | None, height: float) -> tuple[Axes, bool]:
    """Return the axes that were given, or new ones alone in a figure as wide as a column."""
    return (new_figure(COLUMN, height).subplots() if ax is None else ax), ax is None


def set_legend(
    ax: Axes, alone: bool, handles: Sequence[Any] | None = None, columns: int = 2, **inside: Any
) -> None:
    """Set the legend below a figure that holds these axes alone, else within the axes.

    `handles` are those of the axes by default; `inside` is the style within them.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if alone:
        figure_of(ax).legend(handles=handles, loc="outside lower center", ncols=columns)
    else:
        ax.legend(handles=handles, **inside)


def set_square(ax: Axes, low: float, high: float) -> None:
    """Give both axes the same range and scale."""
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", anchor="N")


def set_weight_axes(
    ax: Axes, class_names: Sequence[str], pair: tuple[int, int], edge: float
) -> None:
    """Set the axes of the weights to two classes, from −edge to edge."""
    (first, second), (i, j) = map(plain, class_names), pair
    ax.set(
        xlabel=f"Weight to {first}, {subscript('W', f'{i}j')}",
        ylabel=f"Weight to {second}, {subscript('W', f'{j}j')}",
    )
    set_square(ax, -edge, edge)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def figure_of(ax: Axes) -> Figure:
    """Return the figure that holds the axes, even within subfigures."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("The axes belong to no figure.")
    return figure


def set_title(ax: Axes, title: str, below: str) -> None:
    """Set a bold title and, in grey under it, the scores that belong to it."""
    ax.set_title(plain(title), pad=6.5 + 10 * len(below.splitlines()))
    add_below(ax, below, linespacing=1.25)


def add_below(ax: Axes, text: str, **look: Any) -> None:
    """Put a line of text where `grid_of` left room for it: under the title, above the axes."""
    look |= {"color": FAINT, "va": "bottom"}
    note = ax.annotate(plain(text), (0, 1), (0, 4), "axes fraction", "offset points", **look)
    note.set_in_layout(False)  # a long line must not narrow the panel; the pad keeps its height


def share_ticks(ax: Axes) -> None:
    """Set few ticks, and number the upright axis of the first panel of a row alone."""
    few = 2 if figure_of(ax).get_figwidth() <= COLUMN else 3
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(few, steps=TICKS))
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    if few == 2 and len(ticks) > 2:  # side by side, three numbers would touch
        ax.set_xticks([ticks[0], ticks[-1]])
    place = ax.get_subplotspec()
    ax.tick_params(axis="y", labelleft=place is not None and place.is_first_col())
    ax.tick_params(pad=1.5)


def name_rows(ax: Axes, at: Sequence[float], runs: Sequence[str]) -> None:
    """Name the runs on the left in two lines, without the marks of an axis that measures."""
    ax.set_yticks(at, [plain(run).replace(", ", ",\n", 1) for run in runs])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)


def entry(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend for a line or a mark of that look."""
    return Line2D([], [], label=label, **look)


def largest_class() -> Line2D:
    """Return the entry of a legend for the line of the largest class's share."""
    return entry("always the largest class", **REFERENCE)


def say_nothing(ax: Axes, reason: str) -> None:
    """Say in place of a drawing that there is nothing to show, and why."""
    ax.set_axis_off()
    text = fill(plain(f"nothing to show: {reason}"), 28)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT)


def nothing(width: float, reason: str) -> Figure:
    """Return a figure that says that there is nothing to show, and why; width in inches."""
    ax = new_figure(width, 30 * MM).subplots()
    say_nothing(ax, reason)
    return figure_of(ax)


def decimals(value: float, digits: int) -> str:
    """Return a number with a true minus sign, or say that it is undefined."""
    return fixed(value, digits) if isfinite(value) else UNDEFINED


def subscript(letter: str, index: int | str) -> str:
    """Return a letter with an index, in signs as large as the text: z₀, W₁ⱼ."""
    return letter + str(index).translate(_SUBSCRIPTS)


def plain(text: str) -> str:
    """Keep a name from being read as mathematics: a dollar sign is a dollar sign."""
    return text.replace("$", r"\$")
