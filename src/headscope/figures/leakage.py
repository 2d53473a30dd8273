"""What the accuracy is worth: leak gap, permuted labels, dose of leakage, identity of subjects."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headscope.analysis.leakage.dose_response import DoseResponse
from headscope.analysis.leakage.permutation import PermutationTest
from headscope.analysis.leakage.reidentification import Reidentification
from headscope.analysis.leakage.split_gap import Gap
from headscope.figures.style import (
    COLOURS,
    COLUMN,
    DASHES,
    EDGE,
    FAINT,
    INK,
    MARKERS,
    MM,
    figure_of,
    head_line,
    new_figure,
    plain,
    styled,
)

SPLITS = {"subject": "subjects apart", "slice": "slices mixed"}
BINS = np.linspace(0, 100, 51)
CONSTANT = "one class for all: no gap"
LEVELS = {"slice_accuracy": "slices", "subject_accuracy": "subjects"}


@styled
def plot_permutations(
    tests: Sequence[PermutationTest],
    title: str = "",
    figure: str = "slice_balanced_accuracy",
    ax: Axes | None = None,
) -> Figure:
    """Draw each split's distribution of a test figure under permuted labels, and as observed.

    tests are of one network, any number of seeds. Upper half the split by subject, lower half the
    split by slice, mirrored; a triangle a run marks what was observed.
    """
    own = ax is None
    ax = new_figure(COLUMN, 62 * MM).subplots() if ax is None else ax
    chance = 100 / tests[0].classes
    lines = []
    for k, (split, name) in enumerate(SPLITS.items()):
        found = [test.scores[figure] for test in tests if test.split == split]
        if not found:
            continue
        sign = 1 - 2 * k
        drawn = 100 * np.concatenate([each.permuted for each in found])
        share = np.histogram(drawn, BINS)[0] / len(drawn)
        ax.bar(
            BINS[:-1],
            100 * sign * share,
            np.diff(BINS),
            align="edge",
            color=COLOURS[k],
            alpha=0.55,
            linewidth=0,
            label=f"permuted, {name}",
        )
        observed = [100 * each.observed for each in found]
        ax.scatter(
            observed,
            np.full(len(observed), 0.6 * sign),
            marker="v" if k == 0 else "^",
            s=22,
            color=COLOURS[k],
            edgecolors=INK,
            linewidths=0.5,
            zorder=4,
            label=f"true, {name}",
        )
        lines.append(f"{name}: mean {drawn.mean():.1f}%, true {np.mean(observed):.1f}%")
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.axvline(chance, color=FAINT, linewidth=0.8, linestyle=DASHES[1], zorder=1)
    ax.set(xlim=(0, 100), xlabel=f"Test {figure.replace('_', ' ')} (%)", ylabel="Permutations (%)")
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.margins(y=0.12)
    head_line(ax, title, "\n".join(lines))
    _legend(ax, own, columns=2)
    return figure_of(ax)


@styled
def plot_dose(dose: DoseResponse, title: str = "", ax: Axes | None = None) -> Figure:
    """Draw slice accuracy by the share of test subjects let into training, with its spread."""
    own = ax is None
    ax = new_figure(COLUMN, 58 * MM).subplots() if ax is None else ax
    x = 100 * np.array(dose.shares)
    mean, spread = 100 * np.array(dose.means), 100 * np.array(dose.spreads)
    ax.fill_between(x, mean - spread, mean + spread, color=COLOURS[0], alpha=0.18, linewidth=0)
    words = f"mean of {len(dose.accuracies[0])} draws ± standard deviation"
    ax.plot(x, mean, color=COLOURS[0], marker=MARKERS[0], markersize=3.5, label=words)
    if np.isfinite(dose.paper):
        ax.axhline(100 * dose.paper, color=COLOURS[1], linestyle=DASHES[1], label="slices mixed")
    ax.set(
        xlabel="Test subjects with slices in training (%)",
        ylabel="Test slice accuracy (%)",
        xlim=(-2, 102),
    )
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    rise = 100 * (dose.means[-1] - dose.means[0])
    head_line(ax, title, f"from {mean[0]:.1f}% to {mean[-1]:.1f}%: {_points(rise)} points")
    _legend(ax, own, columns=2)
    return figure_of(ax)


@styled
def plot_identity(
    results: Sequence[Reidentification], title: str = "", ax: Axes | None = None
) -> Figure:
    """Draw how well features tell subjects and classes apart: a row a regime, chance in grey.

    Filled: nearest neighbour; hollow: linear probe. Small marks are runs, large ones their mean.
    """
    own = ax is None
    names = list(dict.fromkeys((each.architecture, each.variant) for each in results))
    height = (38 + 14 * len(names)) * MM
    ax = new_figure(COLUMN, height).subplots() if ax is None else ax
    one = len({name for name, _ in names}) == 1
    for row, key in enumerate(names):
        own_results = [each for each in results if (each.architecture, each.variant) == key]
        for k, target in enumerate(("subject", "class")):
            _draw_probes(ax, own_results, target, row + 0.17 * (2 * k - 1), k, first=row == 0)
    ax.set_yticks(range(len(names)), [plain(v if one else f"{a}\n{v}") for a, v in names])
    ax.set(xlim=(-2, 102), ylim=(len(names) - 0.5, -0.5), xlabel="Test slices told rightly (%)")
    ax.grid(axis="y", visible=False)
    below = f"subjects over {results[0].over}; classes of other subjects"
    head_line(ax, title, f"{names[0][0]}\n{below}" if one else below)
    _legend(ax, own, columns=2)
    return figure_of(ax)


def _draw_probes(
    ax: Axes, results: Sequence[Reidentification], target: str, y: float, k: int, first: bool
) -> None:
    """Draw both probes of one target, and chance as a grey bar from zero."""
    for n, (probe, words) in enumerate((("nearest", "nearest neighbour"), ("linear", "linear"))):
        place = y + 0.07 * (2 * n - 1)
        found = [getattr(each, f"{probe}_{target}") for each in results]
        values = 100 * np.array([each.accuracy for each in found])
        chance = 100 * float(np.mean([each.chance for each in found]))
        if not np.isfinite(values).any():
            continue
        ax.barh(place, chance, 0.1, color=EDGE, linewidth=0, zorder=1,
                label="chance" if first and k == n == 0 else None)  # fmt: skip
        face = COLOURS[k] if n == 0 else "white"
        ax.scatter(values, np.full(len(values), place), s=5, color=COLOURS[k], alpha=0.5, zorder=2,
                   linewidths=0)  # fmt: skip
        ax.scatter(np.nanmean(values), place, s=26, marker=MARKERS[k], facecolor=face,
                   edgecolor=COLOURS[k], linewidths=1, zorder=3,
                   label=f"{target}, {words}" if first else None)  # fmt: skip


@styled
def plot_gap(gaps: Sequence[Gap], title: str = "", ax: Axes | None = None) -> Figure:
    """Draw slice and subject accuracy under both splits, a row a regime, joined by the gap."""
    own = ax is None
    height = (30 + 13 * len(gaps)) * MM
    ax = new_figure(COLUMN, height).subplots() if ax is None else ax
    one = len({gap.architecture for gap in gaps}) == 1
    for row, gap in enumerate(gaps):
        for k, (name, words) in enumerate(LEVELS.items()):
            found = gap.scores[name]
            y = row + 0.2 * (2 * k - 1)
            ends = [100 * float(np.mean(found.by_subject)), 100 * float(np.mean(found.by_slice))]
            ax.plot(ends, [y, y], color=EDGE, linewidth=2.2, zorder=1, solid_capstyle="butt")
            for n, (split, values) in enumerate(
                ((SPLITS["subject"], found.by_subject), (SPLITS["slice"], found.by_slice))
            ):
                ax.scatter(100 * np.array(values), np.full(len(values), y), s=5, zorder=2,
                           color=COLOURS[n], alpha=0.5, linewidths=0)  # fmt: skip
                ax.scatter(ends[n], y, s=26, marker=MARKERS[n], color=COLOURS[n], zorder=3,
                           label=split if row == k == 0 else None)  # fmt: skip
            note = f"{words} {_points(100 * found.gap)}" if gap.measurable else CONSTANT
            if np.isfinite([found.low, found.high]).all():
                note += f" ({_points(100 * found.low)} to {_points(100 * found.high)})"
            ax.annotate(note, (1, y), (0, -6), ("axes fraction", "data"), "offset points",
                        fontsize=6, color=FAINT, ha="right", va="top")  # fmt: skip
    ax.set_yticks(
        range(len(gaps)),
        [plain(gap.variant if one else f"{gap.architecture}\n{gap.variant}") for gap in gaps],
    )
    ax.set(ylim=(len(gaps) - 0.4, -0.5), xlabel="Test accuracy (%)")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.06)
    head_line(ax, title, f"{gaps[0].architecture}; gap in points (95%)" if one else "gap (95%)")
    _legend(ax, own, columns=2)
    return figure_of(ax)


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if np.isfinite(value) else "undefined"


def _legend(ax: Axes, own: bool, columns: int) -> None:
    if own:
        handles, labels = ax.get_legend_handles_labels()
        figure_of(ax).legend(handles, labels, loc="outside lower center", ncols=columns)
    else:
        ax.legend(fontsize=5.5)
