"""Fig. 1: what a slice looks like before its last feature map is flattened or averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.representation.location import SIDES
from headscope.errors import InputError
from headscope.figures import style

Array = NDArray[np.float64]
TILES, TILES_IN_ROW = 12, 6
GAP = 0.12  # between tiles, in widths of a tile
LABEL = 0.36  # height above each tile for its number
HATCH = "/////"
OVER = 0.15  # opacity of a map over its slice where it is zero
UNIT = (0.0, 1.0, 1.0, 0.0)  # so that pictures of any grid lie on one another


@style.apply_style
def plot_flattening(
    picture: ArrayLike,
    maps: ArrayLike,
    contribution: ArrayLike | None,
    class_names: Sequence[str],
    predicted: int,
    *,
    against: int | None = None,
    channels: Sequence[int] | None = None,
    plane: str | None = None,
    title: str = "",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw a slice, over it what each position adds to its logit, and its strongest channels.

    Cells that speak against the class are hatched, so that a black print tells them apart.
    Source: the paper's Fig. 1.

    Parameters
    ----------
    picture
        The slice, (H, W) uint8.
    maps
        Its last feature map before flattening, (C, h, w).
    contribution
        What each position adds to the logits: (K, h, w), or (h, w) for the predicted class;
        None where it cannot be computed for the network.
    predicted
        Row of the predicted class.
    against
        Row of another class: then `contribution` is to the logit of the predicted class less
        that class's, which alone decides between two.
    channels
        Which channels to draw; the twelve of largest mean magnitude if left out.
    plane
        Of a slice of a scan: its left and right are marked, or what is there. None marks nothing.
    class_names
        The K classes, in the order of the rows.
    title, network
        Words above the panels.
    ax
        Three axes, for slice, contributions and channels; on a new figure if left out.

    Raises
    ------
    InputError
        The shapes do not agree.
    """
    pixels, maps = np.asarray(picture), np.asarray(maps, dtype=np.float64)
    if pixels.ndim != 2 or maps.ndim != 3:
        raise InputError(
            f"picture has shape {pixels.shape} and maps {maps.shape}; (H, W) and (C, h, w) are "
            "needed."
        )
    shown = _of_class(contribution, predicted, against, maps.shape[1:])
    first, second, third = _axes() if ax is None else ax
    if pixels.size:
        _draw_pixels(pixels, plane, first)
        _bare(first, pixels.shape[0] / pixels.shape[1])
    else:
        first.set_box_aspect(1)
        style.say_nothing(first, "the slice is empty")
    style.set_title(first, "(a) slice", f"{title}\n{network or ' '}")
    what = f"logit of {class_names[predicted]}, predicted"
    if against is not None:
        what = f"logit of {class_names[predicted]} less {class_names[against]}'s"
    _draw_contribution(shown, pixels, plane, second)
    style.set_title(second, "(b) contributions", f"of each position to the\n{what}")
    _draw_channels(maps, channels, third)
    shape = "{2} × {1} positions".format(*maps.shape)
    style.set_title(
        third, "(c) strongest channels", f"by number, of {len(maps):,} with {shape} each"
    )
    return style.figure_of(first)


def _axes() -> list[Axes]:
    figure = style.new_figure(style.COLUMN, 96 * style.MM)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.2, 1), wspace=0.1)
    return [figure.add_subplot(cell) for cell in (grid[0, 0], grid[0, 1], grid[1, :])]


def _of_class(
    contribution: ArrayLike | None, predicted: int, against: int | None, positions: tuple[int, ...]
) -> Array | None:
    if contribution is None:
        return None
    of_class: Array = np.asarray(contribution, dtype=np.float64)
    if of_class.ndim == 3 and 0 <= predicted < len(of_class):
        of_class = of_class[predicted] - (0 if against is None else of_class[against])
    if of_class.shape != positions:
        raise InputError(
            f"contribution has shape {np.shape(contribution)}; class {predicted} of maps with "
            f"{positions} positions is asked for."
        )
    return of_class  # (h, w)


def _draw_pixels(pixels: NDArray[Any], plane: str | None, ax: Axes) -> None:
    """Draw a slice, with the names of its sides where they are certain."""
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=UNIT, interpolation="antialiased")
    for x, side in zip((0.03, 0.97), SIDES.get(plane or "", ""), strict=False):
        ax.text(x, 0.5, side, color="white", fontweight="bold", ha="center", va="center")


def _draw_contribution(
    shown: Array | None, pixels: NDArray[Any], plane: str | None, ax: Axes
) -> None:
    """Draw the map centred at zero over the slice, the fainter the nearer to zero."""
    aspect = pixels.shape[0] / pixels.shape[1] if pixels.size else 1.0
    if shown is None or shown.size == 0 or not np.isfinite(shown).all():
        ax.set_box_aspect(aspect)
        return style.say_nothing(ax, "contributions are not defined for this network")
    limit = float(np.abs(shown).max()) or 1.0
    if pixels.size:
        _draw_pixels(pixels, plane, ax)
    drawn = ax.imshow(
        shown, cmap=style.DIVERGING, vmin=-limit, vmax=limit, extent=UNIT, interpolation="nearest",
        alpha=OVER + (1 - OVER) * 0.7 * np.abs(shown) / limit,
    )  # fmt: skip
    h, w = shown.shape
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])  # x, y
    against = (np.argwhere(shown < 0)[:, None, ::-1] + corners) / (w, h)  # (cells, 4, 2)
    ax.add_collection(PolyCollection(
        list(against), facecolors="none", edgecolors=style.INK, linewidths=0, hatch=HATCH
    ))  # fmt: skip
    _bare(ax, aspect)
    bar = _colour_bar(ScalarMappable(drawn.norm, drawn.cmap), ax, "Contribution (logit)", 0.05)
    bar.axhspan(-limit, 0, facecolor="none", edgecolor=style.INK, hatch=HATCH, linewidth=0)
    return None


def _draw_channels(maps: Array, channels: Sequence[int] | None, ax: Axes) -> None:
    if maps.size == 0 or not np.isfinite(maps).all():
        return style.say_nothing(ax, "there is no feature map")
    if channels is None:
        strength = np.abs(maps).mean(axis=(1, 2))  # (C,)
        channels = np.argsort(-strength, kind="stable")[:TILES].tolist()
    shown = maps[list(channels)]  # (n, h, w)
    low, high = min(0.0, float(shown.min())), float(shown.max())
    norm = Normalize(low, high if high > low else low + 1.0)
    height = maps.shape[1] / maps.shape[2]
    for k, (channel, tile) in enumerate(zip(channels, shown, strict=True)):
        row, column = divmod(k, TILES_IN_ROW)
        x, y = column * (1 + GAP), row * (height + LABEL) + LABEL
        drawn = ax.imshow(
            tile, cmap=style.SEQUENTIAL, norm=norm, extent=(x, x + 1, y + height, y),
            interpolation="nearest",
        )  # fmt: skip
        ax.text(x, y - 0.05, f"{channel}", va="bottom")
    rows = -(-len(shown) // TILES_IN_ROW)
    ax.set(xlim=(0, TILES_IN_ROW * (1 + GAP) - GAP), ylim=(rows * (height + LABEL), 0))
    ax.set_aspect("equal")
    ax.set_axis_off()
    _colour_bar(drawn, ax, "Activation", 0.025)
    return None


def _bare(ax: Axes, aspect: float) -> None:
    ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect=aspect)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _colour_bar(drawn: ScalarMappable, ax: Axes, label: str, width: float) -> Axes:
    """Set the bar inside the reach of its picture, as high as it, whatever its aspect."""
    bar = ax.inset_axes((1.03, 0, width, 1))
    style.figure_of(ax).colorbar(drawn, cax=bar, label=label)
    bar.grid(visible=False)
    return bar
