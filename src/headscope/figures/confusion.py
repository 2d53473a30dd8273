"""Confusion matrices by slice and by subject."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.results.table import NARROW
from headscope.errors import InputError
from headscope.figures import style

NUMBERED = 16  # classes above which the cells carry no numbers
SHARES = 4  # classes above which they carry no shares beside the counts
DARKEST = 1.7  # share that would have the darkest shade: black numbers stay at a contrast of 4.5
READABLE = 28  # class names that an axis of that size holds


@style.apply_style
def plot_confusion(
    slices: ArrayLike,
    subjects: ArrayLike | None,
    class_names: Sequence[str],
    *,
    title: str = "",
    network: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draw counts of slices and of subjects by true and predicted class, with shares of the row.

    Parameters
    ----------
    slices, subjects
        (K, K) counts, true class by row; `subjects` may be None where ids are not known.
    class_names
        The K classes, in the order of the rows.
    title, network
        Words above the panels.
    ax
        Two axes, for slices and for subjects; on a new figure if left out.

    Raises
    ------
    InputError
        A matrix is not (K, K).
    """
    names = [style.plain(name) for name in class_names]
    if ax is None:
        few = len(names) <= NARROW
        size = (style.COLUMN, 57 * style.MM) if few else (style.PAGE, 103 * style.MM)
        ax = style.new_figure(*size).subplots(1, 2)
    by_slice, by_subject = ax
    _draw(np.asarray(slices), names, by_slice, "slice")
    style.set_title(by_slice, "(a) by slice", f"{title}\n{network or ' '}")
    if subjects is None:
        style.say_nothing(by_subject, "subjects are not known")
        by_subject.set_box_aspect(1)
    else:
        _draw(np.asarray(subjects), names, by_subject, "subject")
    style.set_title(by_subject, "(b) by subject", "\n ")
    return style.figure_of(by_slice)


def _draw(counts: NDArray[np.int64], names: Sequence[str], ax: Axes, unit: str) -> None:
    K = len(names)
    if counts.shape != (K, K):
        raise InputError(f"the counts by {unit} have shape {counts.shape}; ({K}, {K}) is needed.")
    if counts.sum() == 0:
        ax.set_box_aspect(1)
        return style.say_nothing(ax, f"no {unit}s")
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros((K, K)), where=total > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=DARKEST)
    for row, column in np.ndindex(K, K) if K <= NUMBERED else ():
        if K > NARROW and not counts[row, column]:
            continue  # a field of noughts hides the others
        text = f"{counts[row, column]:,}"
        if K <= SHARES:
            text += f"\n{100 * share[row, column]:.0f}%" if total[row] else "\nnone"
        ax.text(column, row, text, ha="center", va="center")
    few = K <= 3 and max(map(len, names)) <= 8
    named = range(0, K, -(-K // READABLE))  # every one, or every second, third …
    shown = [names[k] for k in named]
    ax.set_xticks(named, shown, rotation=0 if few else 90)
    ax.set_yticks(named, shown, rotation=90 if few else 0, va="center")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="Predicted class", ylabel="True class")
    return None
