"""What the accuracy is worth: leak gap, permuted labels, dose–response, re-identification."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from headscope.analysis.leakage.dose_response import DoseResponse
from headscope.analysis.leakage.permutation import PermutationTest
from headscope.analysis.leakage.reidentification import Reidentification
from headscope.analysis.leakage.split_gap import Gap
from headscope.figures import style
from headscope.text import signed_points

SPLITS = {"subject": "subjects apart", "slice": "slices mixed"}
PERCENT = (-2, 102)  # the same in every figure, so that experiments compare
BINS = np.linspace(0, 100, 51)
CONSTANT = "one class for all: no gap"
LEVELS = {"slice_accuracy": "slices", "subject_accuracy": "subjects"}
PROBES = {"nearest": "nearest neighbour", "linear": "linear"}
SMALL: Any = {"s": 5, "alpha": 0.5, "linewidths": 0, "zorder": 2}  # marks of single runs


@style.apply_style
def plot_permutations(
    tests: Sequence[PermutationTest],
    title: str = "",
    figure: str = "slice_balanced_accuracy",
    ax: Axes | None = None,
) -> Figure:
    """Draw each split's distribution of a test score under permuted labels, and as observed.

    Upper half the split by subject, lower half the split by slice, mirrored; one triangle per run
    marks what was observed.

    Parameters
    ----------
    tests
        Of one network, under one split or both, any number of seeds.
    title
        Words above the panel.
    figure
        The score that is drawn, from 0 to 1: a name in the `scores` of the tests.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, 62 * style.MM)
    lines = []
    for k, (split, name) in enumerate(SPLITS.items()):
        nulls = [test.scores[figure] for test in tests if test.split == split]
        if not nulls:
            continue
        sign = 1 - 2 * k
        permuted = 100 * np.concatenate([null.permuted for null in nulls])
        observed = 100 * np.array([null.observed for null in nulls])
        shares = 100 * sign * np.histogram(permuted, BINS)[0] / len(permuted)
        bars: Any = {"align": "edge", "color": style.COLOURS[k], "alpha": 0.55, "linewidth": 0}
        ax.bar(BINS[:-1], shares, np.diff(BINS), label=f"permuted, {name}", **bars)
        edge: Any = {"edgecolors": style.INK, "linewidths": 0.5, "zorder": 4}
        ax.scatter(observed, np.full(len(observed), 0.6 * sign), marker="v^"[k], s=22,
                   color=style.COLOURS[k], label=f"true, {name}", **edge)  # fmt: skip
        lines.append(f"{name}: mean {permuted.mean():.1f}%, true {observed.mean():.1f}%")
    ax.axhline(0, color=style.INK, linewidth=0.6)
    chance: Any = {"color": style.FAINT, "linewidth": 0.8, "linestyle": style.DASHES[1]}
    ax.axvline(100 / tests[0].classes, zorder=1, **chance)
    ax.set(xlim=(0, 100), xlabel=f"Test {figure.replace('_', ' ')} (%)", ylabel="Permutations (%)")
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.margins(y=0.12)
    return _finish(ax, alone, title, "\n".join(lines))


@style.apply_style
def plot_dose(dose: DoseResponse, title: str = "", ax: Axes | None = None) -> Figure:
    """Draw slice accuracy by the share of test subjects let into training, with its spread.

    Parameters
    ----------
    dose
        Slice accuracies, from 0 to 1, by the share of test subjects in training.
    title
        Words above the panel.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, 58 * style.MM)
    x = 100 * np.array(dose.shares)
    mean, spread = 100 * np.array(dose.means), 100 * np.array(dose.spreads)
    blue, orange = style.COLOURS[:2]
    ax.fill_between(x, mean - spread, mean + spread, color=blue, alpha=0.18, linewidth=0)
    label = f"mean of {len(dose.accuracies[0])} draws ± standard deviation"
    ax.plot(x, mean, color=blue, marker=style.MARKERS[0], markersize=3.5, label=label)
    if np.isfinite(dose.paper):
        mixed: Any = {"color": orange, "linestyle": style.DASHES[1], "label": "slices mixed"}
        ax.axhline(100 * dose.paper, **mixed)
    ax.set(xlim=PERCENT, xlabel="Test subjects with slices in training (%)")
    ax.set(ylim=PERCENT, ylabel="Test slice accuracy (%)")
    ax.yaxis.set_major_locator(MultipleLocator(20))
    rise = signed_points(mean[-1] - mean[0])
    return _finish(ax, alone, title, f"from {mean[0]:.1f}% to {mean[-1]:.1f}%: {rise} points")


@style.apply_style
def plot_identity(
    results: Sequence[Reidentification], title: str = "", ax: Axes | None = None
) -> Figure:
    """Draw how well features tell subjects and classes apart: one row per regime, chance in grey.

    Filled: nearest neighbour; hollow: linear probe. Small marks are runs, large ones their mean.

    Parameters
    ----------
    results
        One per run, of any regimes and seeds.
    title
        Words above the panel.
    ax
        Where it is drawn; on a new figure if left out.
    """
    networks = list(dict.fromkeys((result.architecture, result.variant) for result in results))
    ax, alone = style.panel_of(ax, (38 + 14 * len(networks)) * style.MM)
    for row, network in enumerate(networks):
        group = [result for result in results if (result.architecture, result.variant) == network]
        for k, target in enumerate(("subject", "class")):
            _draw_probes(ax, group, target, row + 0.17 * (2 * k - 1), k, first=row == 0)
    shared = _name_networks(ax, networks)
    ax.set(xlim=PERCENT, ylim=(len(networks) - 0.5, -0.5))
    ax.set(xlabel="Test slices identified correctly (%)")
    below = f"subjects over {results[0].over}; classes of other subjects"
    return _finish(ax, alone, title, f"{networks[0][0]}\n{below}" if shared else below)


def _draw_probes(
    ax: Axes, results: Sequence[Reidentification], target: str, y: float, k: int, first: bool
) -> None:
    """Draw both probes of one target, and chance as a grey bar from zero."""
    for n, (name, label) in enumerate(PROBES.items()):
        place = y + 0.07 * (2 * n - 1)
        probes = [getattr(result, f"{name}_{target}") for result in results]
        values = 100 * np.array([probe.accuracy for probe in probes])
        chance = 100 * float(np.mean([probe.chance for probe in probes]))
        if not np.isfinite(values).any():
            continue
        ax.barh(place, chance, 0.1, color=style.EDGE, linewidth=0, zorder=1,
                label="chance" if first and k == n == 0 else None)  # fmt: skip
        colour = style.COLOURS[k]
        ax.scatter(values, np.full(len(values), place), color=colour, **SMALL)
        ax.scatter(np.nanmean(values), place, s=26, marker=style.MARKERS[k], edgecolor=colour,
                   facecolor=colour if n == 0 else "white", linewidths=1, zorder=3,
                   label=f"{target}, {label}" if first else None)  # fmt: skip


@style.apply_style
def plot_gap(gaps: Sequence[Gap], title: str = "", ax: Axes | None = None) -> Figure:
    """Draw slice and subject accuracy under both splits, one row per regime, joined by the gap.

    Parameters
    ----------
    gaps
        One per setting that was trained under both splits; accuracies from 0 to 1.
    title
        Words above the panel.
    ax
        Where it is drawn; on a new figure if left out.
    """
    ax, alone = style.panel_of(ax, (30 + 13 * len(gaps)) * style.MM)
    for row, gap in enumerate(gaps):
        for k, name in enumerate(LEVELS):
            _draw_gap(ax, gap, name, row + 0.2 * (2 * k - 1), first=row == k == 0)
    shared = _name_networks(ax, [(gap.architecture, gap.variant) for gap in gaps])
    ax.set(ylim=(len(gaps) - 0.4, -0.5), xlim=PERCENT, xlabel="Test accuracy (%)")
    below = f"{gaps[0].architecture}; gap in points (95%)" if shared else "gap (95%)"
    return _finish(ax, alone, title, below)


def _draw_gap(ax: Axes, gap: Gap, name: str, y: float, first: bool) -> None:
    score = gap.scores[name]
    splits = dict(zip(SPLITS.values(), (score.by_subject, score.by_slice), strict=True))
    means = [100 * float(np.mean(values)) for values in splits.values()]
    ax.plot(means, [y, y], color=style.EDGE, linewidth=2.2, zorder=1, solid_capstyle="butt")
    for n, (split, values) in enumerate(splits.items()):
        ax.scatter(100 * np.array(values), np.full(len(values), y), color=style.COLOURS[n], **SMALL)
        ax.scatter(means[n], y, s=26, marker=style.MARKERS[n], color=style.COLOURS[n], zorder=3,
                   label=split if first else None)  # fmt: skip
    value, low, high = (signed_points(100 * part) for part in (score.gap, score.low, score.high))
    note = f"{LEVELS[name]} {value}" if gap.measurable else CONSTANT
    if np.isfinite([score.low, score.high]).all():
        note += f" ({low} to {high})"
    ax.annotate(note, (1, y), (0, -6), ("axes fraction", "data"), "offset points",
                color=style.FAINT, ha="right", va="top")  # fmt: skip


def _name_networks(ax: Axes, networks: Sequence[tuple[str, str]]) -> bool:
    """Name the rows by regime, and by architecture unless there is one; return whether there is."""
    shared = len({architecture for architecture, _ in networks}) == 1
    names = [style.plain(variant if shared else f"{name}\n{variant}") for name, variant in networks]
    ax.set_yticks(range(len(networks)), names)
    ax.grid(axis="y", visible=False)
    return shared


def _finish(ax: Axes, alone: bool, title: str, below: str) -> Figure:
    style.set_title(ax, title, below)
    style.set_legend(ax, alone)
    return style.figure_of(ax)
