"""What the leakage analysis comes to, check by check, in words and with a level."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from headscope.analysis.gap import Gap, Neighbours
from headscope.analysis.identity import Identity
from headscope.analysis.permutation import PermutationTest

LEVELS = ("serious", "notice", "fine", "not checked")
ALARM = 0.001  # false alarms to be had from all runs under a split by subject together
FEWEST = 20  # permutations of which the mean is judged
FEWEST_P = 19  # permutations of which the least p is 0.05


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: level is "serious", "notice", "fine" or "not checked"."""

    check: str
    level: str
    text: str


@dataclass(frozen=True)
class Centre:
    """The mean balanced slice accuracy with permuted labels over runs, and its 95% interval."""

    mean: float
    low: float
    high: float
    error: float
    draws: int


def centre(tests: Iterable[PermutationTest]) -> Centre:
    """Pool the runs of one network and split: where permuted labels lead, beside chance (1/K).

    The interval is that of the mean: what is left of the permutations' own scatter.
    """
    drawn = [test.figures["slice_balanced_accuracy"].permuted for test in tests]
    means = [float(np.mean(values)) for values in drawn]
    within = [float(np.var(values, ddof=1)) / len(values) for values in drawn if len(values) > 1]
    error = float(np.sqrt(sum(within))) / len(drawn) if len(within) == len(drawn) else float("nan")
    mean, draws = float(np.mean(means)), sum(map(len, drawn))
    return Centre(mean, mean - 1.96 * error, mean + 1.96 * error, error, draws)


def split_finding(
    name: str, split: str, shared: int, subjects: int, duplicated: int = 0
) -> Finding:
    """Say how many test subjects also trained: serious under a split that claims otherwise.

    duplicated counts those of whom a duplicate under another id trained, by the audit.
    """
    if not shared and duplicated:
        text = f"duplicates of {duplicated} of {subjects} test subjects are, under other ids"
        return Finding(
            "Split", "serious", f"{name}: no test subject's id is in training, but {text}"
        )
    if not shared:
        return Finding("Split", "fine", f"{name}: no test subject stands in training")
    text = f"{name}: slices of {shared} of {subjects} test subjects stand in training"
    if split == "subject":
        return Finding("Split", "serious", f"{text}, although the split is by subject")
    return Finding("Split", "notice", f"{text}, as a split by slice has it")


def gap_finding(gap: Gap) -> Finding:
    """Say what the split by slice adds."""
    figure = gap.figures["slice_accuracy"]
    text = (
        f"{gap.architecture} {gap.variant}: slice accuracy {_percent(np.mean(figure.by_slice))} "
        f"by slice, {_percent(np.mean(figure.by_subject))} by subject; gap "
        f"{points(figure.gap)} points{_interval(figure.low, figure.high)}"
    )
    return Finding("Leak gap", "notice" if figure.low > 0 else "fine", text)


def neighbour_finding(found: Sequence[Neighbours]) -> Finding:
    """Say how many test slices have their own subject for nearest in training."""
    share = float(np.mean([each.share for each in found]))
    first = found[0]
    text = (
        f"{first.architecture} {first.variant}, {first.split} split: {_percent(share)} of test "
        f"slices have a slice of the same subject for nearest in training"
    )
    same, other = (
        np.array([getattr(each, name) for each in found])
        for name in ("same_accuracy", "other_accuracy")
    )
    if np.isfinite(same).any() and np.isfinite(other).any():
        text += f"; slice accuracy {_percent(np.nanmean(same))} on those"
        text += f", {_percent(np.nanmean(other))} on the rest"
    return Finding("Nearest neighbour", "notice" if share > 0 else "fine", text)


def permuted_finding(tests: Sequence[PermutationTest], groups: int) -> Finding:
    """Say where permuted labels lead: above chance under a split by subject is a leak.

    groups are the networks so tested, over which the false alarms of `ALARM` are shared.
    """
    first, found = tests[0], centre(tests)
    chance = 1 / first.classes
    name = f"{first.architecture} {first.variant}, {first.split} split"
    text = (
        f"{name}: balanced slice accuracy with permuted labels {_percent(found.mean)}"
        f"{_interval(found.low, found.high)}, chance {_percent(chance)}, "
        f"{found.draws} permutations"
    )
    if first.draws < FEWEST or not np.isfinite(found.error):
        return Finding("Permuted labels", "not checked", f"{text}: too few to judge")
    limit = chance + float(stats.norm.isf(ALARM / groups)) * found.error
    if found.mean <= limit:
        return Finding("Permuted labels", "fine", text)
    if first.split == "subject":
        return Finding("Permuted labels", "serious", f"{text}: something else than subjects leaks")
    return Finding("Permuted labels", "notice", f"{text}: it knows heads, not classes")


def observed_finding(tests: Sequence[PermutationTest]) -> Finding:
    """Say whether what was observed beats permuted labels."""
    first = tests[0]
    values = [test.figures["subject_balanced_accuracy"].p for test in tests]
    shown = f"p = {values[0]:.3f}" if len(values) == 1 else _range(values)
    text = (
        f"{first.architecture} {first.variant}, {first.split} split: balanced subject accuracy "
        f"against permuted labels, {shown}"
    )
    if first.draws < FEWEST_P:
        return Finding("Against permuted labels", "not checked", f"{text}: too few to judge")
    level = "fine" if max(values) <= 0.05 else "notice"
    which = "it does not beat" if len(values) == 1 else "not each run beats"
    end = "" if level == "fine" else f": {which} labels that say nothing"
    return Finding("Against permuted labels", level, text + end)


def identity_finding(found: Sequence[Identity]) -> Finding:
    """Say how well the features tell people apart, beside classes."""
    first = found[0]

    def mean(name: str, part: str) -> str:
        return _percent(np.mean([getattr(getattr(each, name), part) for each in found]))

    text = (
        f"{first.architecture} {first.variant}: nearest neighbour names the subject in "
        f"{mean('nearest_subject', 'accuracy')} (over {first.over}; chance "
        f"{mean('nearest_subject', 'chance')}), the class in {mean('nearest_class', 'accuracy')} "
        f"(other subjects; chance {mean('nearest_class', 'chance')})"
    )
    return Finding("Identity", "notice", text)


def points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign: 0.166 is '+16.6'."""
    return f"{100 * fraction:+.1f}".replace("-", "−") if np.isfinite(fraction) else "undefined"


def _range(values: Sequence[float]) -> str:
    return f"p from {min(values):.3f} to {max(values):.3f} over {len(values)} runs"


def _percent(fraction: float | np.floating) -> str:
    return f"{100 * fraction:.1f}%" if np.isfinite(fraction) else "undefined"


def _interval(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return ""
    return f" (95% {100 * low:.1f} to {100 * high:.1f})".replace("-", "−")
